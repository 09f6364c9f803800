//! What a collector answers: partial success, refusals, and when to come back.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message;

use crate::delivery::{Signal, neutral};

/// Items that an accepting answer rejects, and why. An answer that cannot be read rejects nothing, and says so.
pub(crate) fn partial_success(signal: Signal, body: &[u8]) -> (u64, String) {
    let read = match signal {
        Signal::Traces => ExportTraceServiceResponse::decode(body)
            .map(|answer| answer.partial_success.map(|partial| (partial.rejected_spans, partial.error_message))),
        Signal::Metrics => ExportMetricsServiceResponse::decode(body)
            .map(|answer| answer.partial_success.map(|partial| (partial.rejected_data_points, partial.error_message))),
    };
    match read {
        Ok(partial) => {
            let (rejected, message) = partial.unwrap_or_default();
            (u64::try_from(rejected).unwrap_or(0), message)
        }
        Err(error) => (0, format!("the answer is no OTLP: {error}")),
    }
}

/// The same of an answer in JSON.
pub(crate) fn partial_success_json(signal: Signal, body: &[u8]) -> (u64, String) {
    if body.iter().all(u8::is_ascii_whitespace) {
        return (0, String::new());
    }
    let answer: serde_json::Value = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => return (0, format!("the answer is no JSON: {error}")),
    };
    let partial = &answer["partialSuccess"];
    let rejected = &partial[match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
    }];
    // A 64-bit integer is a string; numbers are taken too.
    let rejected = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0);
    (rejected, partial["errorMessage"].as_str().unwrap_or_default().to_owned())
}

/// What a refusing answer says: `google.rpc.Status` in protobuf or JSON, else its beginning as text.
pub(crate) fn refusal(body: &[u8]) -> String {
    if let Ok(serde_json::Value::Object(status)) = serde_json::from_slice(body)
        && let Some(message) = status.get("message").and_then(|message| message.as_str())
    {
        return neutral(message);
    }
    match Status::decode(body) {
        Ok(status) if !status.message.is_empty() => neutral(&status.message),
        _ => neutral(&String::from_utf8_lossy(body.get(..1000).unwrap_or(body))),
    }
}

/// When a `google.rpc.Status` says to come back, if it does: its `RetryInfo`.
#[cfg_attr(not(feature = "grpc"), allow(dead_code, reason = "gRPC alone has it"))]
pub(crate) fn retry_delay(status: &[u8]) -> Option<Duration> {
    let status = Status::decode(status).ok()?;
    let details = status.details.into_iter();
    let mut infos = details.filter(|detail| detail.type_url.ends_with("google.rpc.RetryInfo"));
    let delay = RetryInfo::decode(&*infos.next()?.value).ok()?.retry_delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(seconds, nanos))
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Detail {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(crate) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Delay {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn rejected_items_are_read_in_both_encodings() {
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".into() };
        let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(partial_success(Signal::Traces, &body), (3, "too old".into()));
        assert_eq!(partial_success(Signal::Traces, b""), (0, String::new()));
        for (json, expected) in [
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":4}}"#, 4),
            (r#"{"partialSuccess":{"rejectedSpans":-4}}"#, 0),
            ("{}", 0),
            ("", 0),
        ] {
            assert_eq!(partial_success_json(Signal::Traces, json.as_bytes()).0, expected, "{json}");
        }
        let points = br#"{"partialSuccess":{"rejectedDataPoints":"7"}}"#;
        assert_eq!(partial_success_json(Signal::Metrics, points).0, 7);
    }

    #[test]
    fn a_refusal_is_quoted_whatever_its_form_and_cannot_steer_a_terminal() {
        let status = Status { code: 3, message: "bad\x1b[2J".into(), details: Vec::new() };
        assert_eq!(refusal(&status.encode_to_vec()), "bad\\u{1b}[2J");
        assert_eq!(refusal(br#"{"code":3,"message":"bad"}"#), "bad");
        assert_eq!(refusal(b"plain\n"), "plain\\u{a}");
    }

    #[test]
    fn the_delay_of_a_status_is_found_among_its_details() {
        let detail = |type_url: &str, value| Detail { type_url: type_url.into(), value };
        let delay = Delay { seconds: 2, nanos: 500_000_000 };
        let info = RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
        let with = |details| Status { code: 8, message: String::new(), details }.encode_to_vec();
        let other = detail("type.googleapis.com/google.rpc.DebugInfo", vec![1, 2, 3]);
        let found = with(vec![other.clone(), detail("type.googleapis.com/google.rpc.RetryInfo", info)]);
        assert_eq!(retry_delay(&found), Some(Duration::from_millis(2500)));
        assert_eq!(retry_delay(&with(vec![other])), None);
        assert_eq!(retry_delay(b"\xff\xff"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(body: Vec<u8>, text in "\\PC*") {
            for signal in Signal::ALL {
                partial_success(signal, &body);
                partial_success_json(signal, &body);
                partial_success_json(signal, text.as_bytes());
            }
            refusal(&body);
            refusal(text.as_bytes());
            retry_delay(&body);
        }
    }
}
