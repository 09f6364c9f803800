//! Attributes in their final bytes: cut to the limits, with secrets replaced, written straight from where they are.
//!
//! ```text
//! KeyValue  key (1): text | value (2): AnyValue
//! AnyValue  text (1), bool (2), integer (3), double (4) or bytes (7)
//! ```
//!
//! Keys are interned and few. What is known of one, above all whether its values are secret, is found out once.

use kastor::Value;

use super::{
    value::cut,
    wire::{field_bytes, fixed64_key, push_field, push_head, push_varint, varint_bytes, varint_key},
};
use crate::redact::Redaction;

/// Keys that are remembered; of two in one place the newer one is.
const KNOWN_KEYS: usize = 256;

/// Writes attributes.
pub(super) struct AttributeBytes {
    redaction: Redaction,
    known: Box<[Option<Key>]>,
}

/// A key, and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Key {
    text: &'static str,
    is_secret: bool,
    pub(super) role: Role,
}

/// What a key means to a span.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Role {
    Ordinary,
    /// `span.kind`.
    SpanKind,
    /// `error.type`.
    ErrorType,
}

impl Key {
    /// The same, with values that are secret also where those of another key are.
    pub(super) fn secret_like(self, other: Key) -> Self {
        Self { is_secret: self.is_secret || other.is_secret, ..self }
    }
}

impl AttributeBytes {
    pub(super) fn new(redaction: Redaction) -> Self {
        Self { redaction, known: vec![None; KNOWN_KEYS].into() }
    }

    /// What is known of a key. Interned texts never move, so that a place in memory is as good as a text.
    #[inline]
    pub(super) fn key(&mut self, text: &'static str) -> Key {
        let place = (text.as_ptr() as usize as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        match self.known.get(place as usize) {
            Some(Some(key)) if std::ptr::eq(key.text, text) => *key,
            _ => self.learn(place as usize, text),
        }
    }

    #[cold]
    fn learn(&mut self, place: usize, text: &'static str) -> Key {
        let role = match text {
            "span.kind" => Role::SpanKind,
            "error.type" => Role::ErrorType,
            _ => Role::Ordinary,
        };
        let key = Key { text, is_secret: self.redaction.hides_key(text), role };
        if let Some(place) = self.known.get_mut(place) {
            *place = Some(key);
        }
        key
    }

    /// Appends one attribute as a field of this number, with a text of at most so many characters.
    #[inline]
    pub(super) fn push(&self, to: &mut Vec<u8>, number: u8, key: Key, value: &Value<'_>, longest: usize) {
        match self.redaction.replacement_under(key.is_secret, value) {
            Some(replacement) => push_text(to, number, key.text, cut(&replacement, longest)),
            None => push_value(to, number, key.text, value, longest),
        }
    }

    /// Appends as many attributes as fit in the limits. Returns how many were left out.
    pub(super) fn push_all<'v>(
        &mut self,
        to: &mut Vec<u8>,
        number: u8,
        attributes: impl Iterator<Item = (&'static str, Value<'v>)>,
        (most, longest): (usize, usize),
    ) -> u32 {
        let (mut written, mut left_out) = (0, 0);
        for (key, value) in attributes {
            if written >= most {
                left_out += 1;
                continue;
            }
            let key = self.key(key);
            self.push(to, number, key, &value, longest);
            written += 1;
        }
        left_out
    }
}

#[inline]
fn push_value(to: &mut Vec<u8>, number: u8, key: &str, value: &Value<'_>, longest: usize) {
    match *value {
        Value::Str(text) => push_text(to, number, key, cut(text, longest)),
        Value::I64(value) => push_integer(to, number, key, value),
        // OTLP's integers are signed; what does not fit is text rather than another number.
        Value::U64(value) => match i64::try_from(value) {
            Ok(value) => push_integer(to, number, key, value),
            Err(_) => push_text(to, number, key, cut(&value.to_string(), longest)),
        },
        Value::F64(value) => {
            push_key(to, number, key, 9);
            let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
            to.extend_from_slice(&[fixed64_key(4), a, b, c, d, e, f, g, h]);
        }
        Value::Bool(value) => {
            push_key(to, number, key, 2);
            to.extend_from_slice(&[varint_key(2), u8::from(value)]);
        }
        Value::Bytes(bytes) => {
            let bytes = bytes.get(..longest).unwrap_or(bytes);
            push_key(to, number, key, field_bytes(bytes.len()));
            push_field(to, 7, bytes);
        }
        // Nothing is a key without a value: an empty value says the same, but collectors refuse it in JSON.
        Value::Null => {
            push_head(to, number, key_bytes(key));
            push_key_text(to, key);
        }
        ref other => push_text(to, number, key, cut(&other.to_string(), longest)),
    }
}

#[inline]
pub(super) fn push_text(to: &mut Vec<u8>, number: u8, key: &str, text: &str) {
    push_key(to, number, key, field_bytes(text.len()));
    push_field(to, 1, text.as_bytes());
}

#[inline]
pub(super) fn push_integer(to: &mut Vec<u8>, number: u8, key: &str, value: i64) {
    push_key(to, number, key, 1 + varint_bytes(value as u64));
    to.push(varint_key(3));
    push_varint(to, value as u64);
}

/// Appends everything in front of a value of so many bytes.
#[inline]
fn push_key(to: &mut Vec<u8>, number: u8, key: &str, value_bytes: usize) {
    push_head(to, number, key_bytes(key) + field_bytes(value_bytes));
    push_key_text(to, key);
    push_head(to, 2, value_bytes);
}

fn push_key_text(to: &mut Vec<u8>, key: &str) {
    if !key.is_empty() {
        push_field(to, 1, key.as_bytes());
    }
}

fn key_bytes(key: &str) -> usize {
    if key.is_empty() { 0 } else { field_bytes(key.len()) }
}
