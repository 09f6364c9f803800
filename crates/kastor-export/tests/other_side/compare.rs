//! Spans against the records that they were made of, field by field.

use std::collections::HashMap;

use kastor::{Outcome, Recording, Value};
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value},
    trace::v1::{Span, status::StatusCode},
};

/// What an attribute holds.
pub fn value_of(attribute: &KeyValue) -> Option<&any_value::Value> {
    attribute.value.as_ref().and_then(|value| value.value.as_ref())
}

/// What a span's attribute of this key holds.
pub fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a any_value::Value> {
    span.attributes.iter().find(|attribute| attribute.key == key).and_then(value_of)
}

/// What OTLP makes of a value.
pub fn expected(value: Value<'_>) -> Option<any_value::Value> {
    use any_value::Value::*;
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => BoolValue(value),
        Value::I64(value) => IntValue(value),
        Value::U64(value) => match i64::try_from(value) {
            Ok(value) => IntValue(value),
            Err(_) => StringValue(value.to_string()),
        },
        Value::F64(value) => DoubleValue(value),
        Value::Str(text) => StringValue(text.into()),
        Value::Bytes(bytes) => BytesValue(bytes.to_vec()),
        other => panic!("{other:?} is no recorded value"),
    })
}

/// Bit for bit, so that NaN equals itself.
fn same(a: Option<&any_value::Value>, b: Option<&any_value::Value>) -> bool {
    match (a, b) {
        (Some(any_value::Value::DoubleValue(a)), Some(any_value::Value::DoubleValue(b))) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

#[track_caller]
fn assert_same_attributes<'a>(
    sent: &[KeyValue],
    recorded: impl Iterator<Item = (&'static str, Value<'a>)>,
    what: &str,
) {
    let recorded: Vec<_> = recorded.collect();
    let keys = |sent: &[KeyValue]| sent.iter().map(|attribute| attribute.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(sent), recorded.iter().map(|(key, _)| (*key).to_owned()).collect::<Vec<_>>(), "{what}");
    for (attribute, (key, value)) in sent.iter().zip(recorded) {
        assert!(same(value_of(attribute), expected(value).as_ref()), "{what}: {key}: {attribute:?} for {value:?}");
    }
}

/// Every recorded scope is one of the spans, the same in every field, and there are no others. Returns how many.
#[track_caller]
pub fn assert_spans_are_the_records(spans: Vec<Span>, recording: &Recording) -> usize {
    let came = spans.len();
    let spans: HashMap<Vec<u8>, Span> = spans.into_iter().map(|span| (span.span_id.clone(), span)).collect();
    assert_eq!(spans.len(), came, "a span came twice");
    let mut seen = 0;
    recording.for_each_batch(|batch| {
        for timing in batch.timings() {
            seen += 1;
            let span = &spans[&timing.span_id().to_be_bytes().to_vec()];
            let what = timing.scope();
            assert_eq!(span.trace_id, timing.trace_id().to_be_bytes(), "{what}");
            let parent = timing.parent_span_id().map(|id| id.to_be_bytes().to_vec()).unwrap_or_default();
            assert_eq!(span.parent_span_id, parent, "{what}");
            assert_eq!(span.name, timing.name());
            assert_eq!(span.start_time_unix_nano, timing.start_unix_ns(), "{what}");
            assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, timing.duration_ns(), "{what}");
            assert_eq!((span.kind, span.flags, span.trace_state.as_str()), (1, 1, ""), "{what}");
            assert_eq!(u64::from(span.dropped_attributes_count), timing.dropped_items(), "{what}");

            let mut attributes = span.attributes.clone();
            let thread = batch.thread();
            if !thread.name().is_empty() {
                let name = attributes.pop().unwrap();
                assert_eq!(
                    (name.key.as_str(), value_of(&name)),
                    ("thread.name", expected(Value::Str(thread.name())).as_ref())
                );
            }
            let id = attributes.pop().unwrap();
            assert_eq!((id.key.as_str(), value_of(&id)), ("thread.id", expected(Value::U64(thread.os_id())).as_ref()));
            match timing.outcome() {
                Outcome::Completed => assert_eq!(span.status, None, "{what}"),
                Outcome::Failed => {
                    assert_eq!(span.status.as_ref().unwrap().code, StatusCode::Error as i32, "{what}");
                    let error = attributes.pop().unwrap();
                    let error_type = expected(Value::Str(timing.error_type().unwrap()));
                    assert_eq!((error.key.as_str(), value_of(&error)), ("error.type", error_type.as_ref()));
                }
            }
            assert_same_attributes(&attributes, timing.attributes(), what);

            let events: Vec<_> = timing.events().collect();
            assert_eq!(span.events.len(), events.len(), "{what}");
            for (sent, event) in span.events.iter().zip(events) {
                assert_eq!((sent.name.as_str(), sent.time_unix_nano), (event.name(), event.unix_ns()), "{what}");
                assert_same_attributes(&sent.attributes, event.attributes(), what);
            }
            let links: Vec<_> = timing.links().collect();
            assert_eq!(span.links.len(), links.len(), "{what}");
            for (sent, link) in span.links.iter().zip(links) {
                assert_eq!(sent.trace_id, link.trace_id.to_be_bytes(), "{what}");
                assert_eq!(sent.span_id, link.span_id.to_be_bytes(), "{what}");
            }
        }
    });
    assert_eq!(spans.len(), seen, "spans that nobody recorded");
    seen
}
