//! OTLP in JSON: from the protobuf bytes of a request, by a table of its messages.
//!
//! OTLP's JSON differs from protobuf's usual one: ids are hexadecimal, enumerations are numbers. 64-bit integers are
//! strings, bytes are base64, floats that JSON does not know are `"NaN"`, `"Infinity"` and `"-Infinity"`. A field that
//! holds its default is left out, as protobuf does, so both encodings say the same.
//!
//! The bytes may come from disk, so they are read as hostile: what is damaged is an error, and nesting has an end.

use std::fmt::Write as _;

use kastor::Error;

use crate::delivery::Signal;

/// How deep messages may be nested; OTLP's own stay below half of it unless values are nested in values.
const DEEPEST: u32 = 32;

/// Appends a request as one JSON object.
///
/// # Errors
/// If the bytes are no such request.
pub(crate) fn render(signal: Signal, body: &[u8], out: &mut String) -> Result<(), Error> {
    let message = match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
    };
    render_message(message, body, out, DEEPEST)
        .ok_or_else(|| Error::invalid_input("not a request in OTLP's protobuf form"))
}

/// A field of a message: its number, its JSON name, and what it holds.
struct Field(u64, &'static str, Kind);

#[derive(Clone, Copy)]
enum Kind {
    Hex,
    Text,
    Base64,
    Bool,
    /// 32 bits, also enumerations: a number.
    Int32,
    Uint32,
    Sint32,
    Fixed32,
    /// 64 bits: a string.
    Int64,
    Uint64,
    Fixed64,
    Sfixed64,
    Double,
    One(&'static [Field]),
    Many(&'static [Field]),
    ManyUint64,
    ManyFixed64,
    ManyDoubles,
}

use Kind::*;

static TRACES: [Field; 1] = [Field(1, "resourceSpans", Many(&RESOURCE_SPANS))];
static RESOURCE_SPANS: [Field; 3] =
    [Field(1, "resource", One(&RESOURCE)), Field(2, "scopeSpans", Many(&SCOPE_SPANS)), Field(3, "schemaUrl", Text)];
static SCOPE_SPANS: [Field; 3] =
    [Field(1, "scope", One(&SCOPE)), Field(2, "spans", Many(&SPAN)), Field(3, "schemaUrl", Text)];
static SPAN: [Field; 16] = [
    Field(1, "traceId", Hex),
    Field(2, "spanId", Hex),
    Field(3, "traceState", Text),
    Field(4, "parentSpanId", Hex),
    Field(16, "flags", Fixed32),
    Field(5, "name", Text),
    Field(6, "kind", Int32),
    Field(7, "startTimeUnixNano", Fixed64),
    Field(8, "endTimeUnixNano", Fixed64),
    Field(9, "attributes", Many(&KEY_VALUE)),
    Field(10, "droppedAttributesCount", Uint32),
    Field(11, "events", Many(&EVENT)),
    Field(12, "droppedEventsCount", Uint32),
    Field(13, "links", Many(&LINK)),
    Field(14, "droppedLinksCount", Uint32),
    Field(15, "status", One(&STATUS)),
];
static EVENT: [Field; 4] = [
    Field(1, "timeUnixNano", Fixed64),
    Field(2, "name", Text),
    Field(3, "attributes", Many(&KEY_VALUE)),
    Field(4, "droppedAttributesCount", Uint32),
];
static LINK: [Field; 6] = [
    Field(1, "traceId", Hex),
    Field(2, "spanId", Hex),
    Field(3, "traceState", Text),
    Field(4, "attributes", Many(&KEY_VALUE)),
    Field(5, "droppedAttributesCount", Uint32),
    Field(6, "flags", Fixed32),
];
static STATUS: [Field; 2] = [Field(2, "message", Text), Field(3, "code", Int32)];
static RESOURCE: [Field; 2] = [Field(1, "attributes", Many(&KEY_VALUE)), Field(2, "droppedAttributesCount", Uint32)];
static SCOPE: [Field; 4] = [
    Field(1, "name", Text),
    Field(2, "version", Text),
    Field(3, "attributes", Many(&KEY_VALUE)),
    Field(4, "droppedAttributesCount", Uint32),
];
static KEY_VALUE: [Field; 2] = [Field(1, "key", Text), Field(2, "value", One(&VALUE))];
static VALUE: [Field; 7] = [
    Field(1, "stringValue", Text),
    Field(2, "boolValue", Bool),
    Field(3, "intValue", Int64),
    Field(4, "doubleValue", Double),
    Field(5, "arrayValue", One(&ARRAY)),
    Field(6, "kvlistValue", One(&KEY_VALUES)),
    Field(7, "bytesValue", Base64),
];
static ARRAY: [Field; 1] = [Field(1, "values", Many(&VALUE))];
static KEY_VALUES: [Field; 1] = [Field(1, "values", Many(&KEY_VALUE))];

static METRICS: [Field; 1] = [Field(1, "resourceMetrics", Many(&RESOURCE_METRICS))];
static RESOURCE_METRICS: [Field; 3] =
    [Field(1, "resource", One(&RESOURCE)), Field(2, "scopeMetrics", Many(&SCOPE_METRICS)), Field(3, "schemaUrl", Text)];
static SCOPE_METRICS: [Field; 3] =
    [Field(1, "scope", One(&SCOPE)), Field(2, "metrics", Many(&METRIC)), Field(3, "schemaUrl", Text)];
static METRIC: [Field; 8] = [
    Field(1, "name", Text),
    Field(2, "description", Text),
    Field(3, "unit", Text),
    Field(5, "gauge", One(&GAUGE)),
    Field(7, "sum", One(&SUM)),
    Field(9, "histogram", One(&HISTOGRAM)),
    Field(10, "exponentialHistogram", One(&EXPONENTIAL_HISTOGRAM)),
    Field(12, "metadata", Many(&KEY_VALUE)),
];
static GAUGE: [Field; 1] = [Field(1, "dataPoints", Many(&NUMBER_POINT))];
static SUM: [Field; 3] = [
    Field(1, "dataPoints", Many(&NUMBER_POINT)),
    Field(2, "aggregationTemporality", Int32),
    Field(3, "isMonotonic", Bool),
];
static HISTOGRAM: [Field; 2] =
    [Field(1, "dataPoints", Many(&HISTOGRAM_POINT)), Field(2, "aggregationTemporality", Int32)];
static EXPONENTIAL_HISTOGRAM: [Field; 2] =
    [Field(1, "dataPoints", Many(&EXPONENTIAL_POINT)), Field(2, "aggregationTemporality", Int32)];
static NUMBER_POINT: [Field; 7] = [
    Field(7, "attributes", Many(&KEY_VALUE)),
    Field(2, "startTimeUnixNano", Fixed64),
    Field(3, "timeUnixNano", Fixed64),
    Field(4, "asDouble", Double),
    Field(6, "asInt", Sfixed64),
    Field(5, "exemplars", Many(&EXEMPLAR)),
    Field(8, "flags", Uint32),
];
static HISTOGRAM_POINT: [Field; 11] = [
    Field(9, "attributes", Many(&KEY_VALUE)),
    Field(2, "startTimeUnixNano", Fixed64),
    Field(3, "timeUnixNano", Fixed64),
    Field(4, "count", Fixed64),
    Field(5, "sum", Double),
    Field(6, "bucketCounts", ManyFixed64),
    Field(7, "explicitBounds", ManyDoubles),
    Field(8, "exemplars", Many(&EXEMPLAR)),
    Field(10, "flags", Uint32),
    Field(11, "min", Double),
    Field(12, "max", Double),
];
static EXPONENTIAL_POINT: [Field; 14] = [
    Field(1, "attributes", Many(&KEY_VALUE)),
    Field(2, "startTimeUnixNano", Fixed64),
    Field(3, "timeUnixNano", Fixed64),
    Field(4, "count", Fixed64),
    Field(5, "sum", Double),
    Field(6, "scale", Sint32),
    Field(7, "zeroCount", Fixed64),
    Field(8, "positive", One(&BUCKETS)),
    Field(9, "negative", One(&BUCKETS)),
    Field(10, "flags", Uint32),
    Field(11, "exemplars", Many(&EXEMPLAR)),
    Field(12, "min", Double),
    Field(13, "max", Double),
    Field(14, "zeroThreshold", Double),
];
static BUCKETS: [Field; 2] = [Field(1, "offset", Sint32), Field(2, "bucketCounts", ManyUint64)];
static EXEMPLAR: [Field; 6] = [
    Field(7, "filteredAttributes", Many(&KEY_VALUE)),
    Field(2, "timeUnixNano", Fixed64),
    Field(3, "asDouble", Double),
    Field(6, "asInt", Sfixed64),
    Field(4, "spanId", Hex),
    Field(5, "traceId", Hex),
];

/// One field as it stands in a message.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message, one by one; a damaged one is `None` and the last.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next_or_damage(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = varint(&mut self.0)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => Wire::Fixed64(u64::from_le_bytes(*split(&mut self.0)?)),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(*split(&mut self.0)?)),
            _ => return None,
        };
        Some((tag >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.next_or_damage();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn split<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

fn render_message(fields: &[Field], bytes: &[u8], out: &mut String, depth: u32) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    // Where a message holds the same field twice, protobuf lets the last count.
    let mut is_first = true;
    out.push('{');
    for Field(number, name, kind) in fields {
        let mut of_field = Fields(bytes).filter_map(|field| match field {
            None => Some(None),
            Some((at, wire)) => (at == *number).then_some(Some(wire)),
        });
        let first = match of_field.next() {
            None => continue,
            Some(first) => first?,
        };
        if !is_first {
            out.push(',');
        }
        is_first = false;
        let _ = write!(out, "\"{name}\":");
        match kind {
            Many(_) => {
                out.push('[');
                render_value(*kind, first, out, depth)?;
                for wire in of_field {
                    out.push(',');
                    render_value(*kind, wire?, out, depth)?;
                }
                out.push(']');
            }
            ManyUint64 | ManyFixed64 | ManyDoubles => {
                out.push('[');
                let before = out.len();
                render_packed(*kind, first, out, before)?;
                for wire in of_field {
                    render_packed(*kind, wire?, out, before)?;
                }
                out.push(']');
            }
            _ => {
                let mut last = first;
                for wire in of_field {
                    last = wire?;
                }
                render_value(*kind, last, out, depth)?;
            }
        }
    }
    out.push('}');
    Some(())
}

fn render_value(kind: Kind, wire: Wire<'_>, out: &mut String, depth: u32) -> Option<()> {
    let _ = match (kind, wire) {
        (Hex, Wire::Bytes(bytes)) => {
            out.push('"');
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}")).ok()?;
            out.push('"');
            Ok(())
        }
        (Text, Wire::Bytes(bytes)) => {
            out.push_str(&serde_json::to_string(std::str::from_utf8(bytes).ok()?).ok()?);
            Ok(())
        }
        (Base64, Wire::Bytes(bytes)) => {
            base64(bytes, out);
            Ok(())
        }
        (Bool, Wire::Varint(value)) => write!(out, "{}", value != 0),
        (Int32, Wire::Varint(value)) => write!(out, "{}", value as i32),
        (Uint32, Wire::Varint(value)) => write!(out, "{}", value as u32),
        (Sint32, Wire::Varint(value)) => write!(out, "{}", (value as u32 >> 1) as i32 ^ -(value as i32 & 1)),
        (Fixed32, Wire::Fixed32(value)) => write!(out, "{value}"),
        (Int64, Wire::Varint(value)) => write!(out, "\"{}\"", value as i64),
        (Uint64, Wire::Varint(value)) | (Fixed64, Wire::Fixed64(value)) => write!(out, "\"{value}\""),
        (Sfixed64, Wire::Fixed64(value)) => write!(out, "\"{}\"", value as i64),
        (Double, Wire::Fixed64(value)) => {
            double(f64::from_bits(value), out);
            Ok(())
        }
        (One(fields) | Many(fields), Wire::Bytes(bytes)) => return render_message(fields, bytes, out, depth),
        _ => return None,
    };
    Some(())
}

/// Numbers that stand one after another in one field, or each in its own. A comma goes before each but the first, which
/// begins at `start`.
fn render_packed(kind: Kind, wire: Wire<'_>, out: &mut String, start: usize) -> Option<()> {
    let mut put = |wire: Wire<'_>, kind| {
        if out.len() > start {
            out.push(',');
        }
        render_value(kind, wire, out, 1)
    };
    let Wire::Bytes(mut bytes) = wire else {
        let single = match kind {
            ManyUint64 => Uint64,
            ManyFixed64 => Fixed64,
            _ => Double,
        };
        return put(wire, single);
    };
    while !bytes.is_empty() {
        match kind {
            ManyUint64 => put(Wire::Varint(varint(&mut bytes)?), Uint64)?,
            ManyFixed64 => put(Wire::Fixed64(u64::from_le_bytes(*split(&mut bytes)?)), Fixed64)?,
            _ => put(Wire::Fixed64(u64::from_le_bytes(*split(&mut bytes)?)), Double)?,
        }
    }
    Some(())
}

fn double(value: f64, out: &mut String) {
    match serde_json::Number::from_f64(value) {
        Some(number) => {
            let _ = write!(out, "{number}");
        }
        None if value.is_nan() => out.push_str("\"NaN\""),
        None => out.push_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }),
    }
}

/// The standard alphabet with padding.
fn base64(bytes: &[u8], out: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push('"');
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0_u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for sextet in 0..4 {
            let is_padding = sextet > chunk.len();
            let letter = ALPHABET.get((word >> (18 - 6 * sextet) & 63) as usize).copied().unwrap_or(b'=');
            out.push(char::from(if is_padding { b'=' } else { letter }));
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
        common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value},
        trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
    };
    use prost::Message as _;

    use super::*;

    fn with_attributes(values: Vec<Option<Value>>) -> ExportTraceServiceRequest {
        let attributes = values.into_iter().map(|value| KeyValue {
            key: "k".into(),
            value: Some(AnyValue { value }),
            ..KeyValue::default()
        });
        let span = Span {
            trace_id: (0..16).collect(),
            span_id: vec![255; 8],
            name: "a\"\n\u{1b}é".into(),
            flags: 257,
            start_time_unix_nano: u64::MAX,
            attributes: attributes.collect(),
            events: vec![span::Event { time_unix_nano: 1, ..span::Event::default() }],
            status: Some(Status { code: 2, ..Status::default() }),
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
    }

    fn rendered(request: &ExportTraceServiceRequest) -> String {
        let mut out = String::new();
        render(Signal::Traces, &request.encode_to_vec(), &mut out).unwrap();
        out
    }

    #[test]
    fn ids_are_hexadecimal_long_integers_are_strings_and_special_floats_are_words() {
        let values = vec![
            Some(Value::IntValue(i64::MIN)),
            Some(Value::DoubleValue(f64::NAN)),
            Some(Value::DoubleValue(f64::INFINITY)),
            Some(Value::DoubleValue(f64::NEG_INFINITY)),
            Some(Value::DoubleValue(1e300)),
            Some(Value::BytesValue(b"any carnal pleas".to_vec())),
            Some(Value::BoolValue(false)),
            None,
        ];
        let each = [
            r#"{"intValue":"-9223372036854775808"}"#,
            r#"{"doubleValue":"NaN"}"#,
            r#"{"doubleValue":"Infinity"}"#,
            r#"{"doubleValue":"-Infinity"}"#,
            r#"{"doubleValue":1e+300}"#,
            r#"{"bytesValue":"YW55IGNhcm5hbCBwbGVhcw=="}"#,
            r#"{"boolValue":false}"#,
            "{}",
        ];
        let attributes = each.map(|value| format!(r#"{{"key":"k","value":{value}}}"#)).join(",");
        let expected = format!(
            concat!(
                r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"000102030405060708090a0b0c0d0e0f","#,
                r#""spanId":"ffffffffffffffff","flags":257,"name":"a\"\n\u001bé","#,
                r#""startTimeUnixNano":"18446744073709551615","attributes":[{}],"#,
                r#""events":[{{"timeUnixNano":"1"}}],"status":{{"code":2}}}}]}}]}}]}}"#
            ),
            attributes
        );
        assert_eq!(rendered(&with_attributes(values)), expected);
    }

    #[test]
    fn nested_values_are_rendered_up_to_a_depth_and_refused_beyond() {
        let nest = |levels: u32| {
            let mut value = Some(Value::StringValue("deep".into()));
            for level in 0..levels {
                let inner = AnyValue { value };
                value = Some(match level % 2 {
                    0 => Value::ArrayValue(ArrayValue { values: vec![inner] }),
                    _ => {
                        let values = vec![KeyValue { key: "k".into(), value: Some(inner), ..KeyValue::default() }];
                        Value::KvlistValue(KeyValueList { values })
                    }
                });
            }
            with_attributes(vec![value])
        };
        assert!(rendered(&nest(6)).contains(r#""kvlistValue":{"values":[{"key":"k","value":{"arrayValue""#));
        assert!(render(Signal::Traces, &nest(200).encode_to_vec(), &mut String::new()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_rendered_as_json_or_refused(bytes: Vec<u8>, signal in 0..2_usize) {
            let mut out = String::new();
            if render(Signal::ALL[signal], &bytes, &mut out).is_ok() {
                serde_json::from_str::<serde_json::Value>(&out).unwrap();
            }
        }

        #[test]
        fn whatever_the_fuzz_target_runs_holds_for_any_bytes(bytes: Vec<u8>) {
            crate::fuzz::otlp(&bytes);
        }

        #[test]
        fn a_damaged_request_is_rendered_as_json_or_refused(at: proptest::sample::Index, byte: u8) {
            let mut bytes = with_attributes(vec![Some(Value::IntValue(7)), Some(Value::DoubleValue(0.5))]).encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let mut out = String::new();
            if render(Signal::Traces, &bytes, &mut out).is_ok() {
                serde_json::from_str::<serde_json::Value>(&out).unwrap();
            }
            assert!(out.len() <= 16 * bytes.len() + (1 << 20));
            // The official types of the other signal never panic on it either.
            let _ = ExportMetricsServiceRequest::decode(&bytes[..]);
        }
    }
}
