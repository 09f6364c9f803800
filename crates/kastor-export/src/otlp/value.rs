//! Keys and values as OTLP has them, cut to the limits, with secrets replaced.

use kastor::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};

use crate::redact::Redaction;

/// Writes attributes into the official types: of metrics and resources, which are few. Those of spans are written by
/// `attribute.rs`.
pub(crate) struct AttributeWriter {
    redaction: Redaction,
}

impl AttributeWriter {
    pub(crate) fn new(redaction: Redaction) -> Self {
        Self { redaction }
    }

    /// Writes at most so many attributes, with texts of at most so many characters. Returns how many were left out.
    pub(crate) fn write<'k, 'v>(
        &mut self,
        to: &mut Vec<KeyValue>,
        attributes: impl Iterator<Item = (&'k str, Value<'v>)>,
        most: usize,
        longest: usize,
    ) -> u32 {
        let mut left_out = 0;
        for (key, value) in attributes {
            if to.len() >= most {
                left_out += 1;
            } else {
                self.push(to, key, &value, longest);
            }
        }
        left_out
    }

    /// Writes one attribute.
    pub(crate) fn push(&mut self, to: &mut Vec<KeyValue>, key: &str, value: &Value<'_>, longest: usize) {
        let value = match self.redaction.replacement(key, value) {
            Some(replacement) => Some(text_value(&replacement, longest)),
            None => any_value(value, longest),
        };
        // Nothing is a key without a value: an empty value says the same, but collectors refuse it in JSON.
        let value = value.map(|value| AnyValue { value: Some(value) });
        to.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }
}

fn any_value(value: &Value<'_>, longest: usize) -> Option<any_value::Value> {
    Some(match *value {
        Value::Str(text) => text_value(text, longest),
        Value::Null => return None,
        Value::Bool(value) => any_value::Value::BoolValue(value),
        Value::I64(value) => any_value::Value::IntValue(value),
        // OTLP's integers are signed; what does not fit is text rather than another number.
        Value::U64(value) => match i64::try_from(value) {
            Ok(value) => any_value::Value::IntValue(value),
            Err(_) => text_value(&value.to_string(), longest),
        },
        Value::F64(value) => any_value::Value::DoubleValue(value),
        Value::Bytes(bytes) => any_value::Value::BytesValue(bytes.get(..longest).unwrap_or(bytes).to_vec()),
        ref other => text_value(&other.to_string(), longest),
    })
}

fn text_value(text: &str, longest: usize) -> any_value::Value {
    any_value::Value::StringValue(cut(text, longest).to_owned())
}

/// At most so many characters.
pub(super) fn cut(text: &str, longest: usize) -> &str {
    if text.len() <= longest {
        return text;
    }
    text.char_indices().nth(longest).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// One attribute with a text.
pub(crate) fn text(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    with(key, any_value::Value::StringValue(value.into()))
}

/// One attribute with an integer.
pub(crate) fn integer(key: impl Into<String>, value: i64) -> KeyValue {
    with(key, any_value::Value::IntValue(value))
}

fn with(key: impl Into<String>, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: Value<'_>, longest: usize) -> Option<any_value::Value> {
        let mut writer = AttributeWriter::new(Redaction::none());
        let mut to = Vec::new();
        writer.push(&mut to, "key", &value, longest);
        assert_eq!(to[0].key, "key");
        to[0].value.clone().and_then(|value| value.value)
    }

    #[test]
    fn every_kind_of_value_has_its_kind_in_otlp() {
        use any_value::Value::*;
        for (value, expected) in [
            (Value::Null, None),
            (Value::Bool(true), Some(BoolValue(true))),
            (Value::I64(i64::MIN), Some(IntValue(i64::MIN))),
            (Value::U64(7), Some(IntValue(7))),
            (Value::U64(u64::MAX), Some(StringValue("18446744073709551615".into()))),
            (Value::F64(f64::INFINITY), Some(DoubleValue(f64::INFINITY))),
            (Value::Str("text"), Some(StringValue("text".into()))),
            (Value::Bytes(&[0, 255]), Some(BytesValue(vec![0, 255]))),
            (Value::Display(&1.5), Some(StringValue("1.5".into()))),
        ] {
            assert_eq!(written(value, 100), expected, "{value:?}");
        }
    }

    #[test]
    fn texts_are_cut_by_characters_and_bytes_by_bytes() {
        assert_eq!(written(Value::Str("aéöü"), 3), Some(any_value::Value::StringValue("aéö".into())));
        assert_eq!(written(Value::Str("éé"), 3), Some(any_value::Value::StringValue("éé".into())));
        assert_eq!(written(Value::Bytes(b"abcd"), 3), Some(any_value::Value::BytesValue(b"abc".to_vec())));
    }

    #[test]
    fn what_is_too_many_is_counted() {
        let mut writer = AttributeWriter::new(Redaction::default());
        let mut to = Vec::new();
        let attributes = [("a", Value::U64(1)), ("password", Value::Str("x")), ("c", Value::U64(3))];
        assert_eq!(writer.write(&mut to, attributes.into_iter(), 2, 100), 1);
        assert_eq!(to, [integer("a", 1), text("password", crate::REDACTED)]);
    }
}
