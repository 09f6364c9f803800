//! Just enough JSON to write events: text, numbers, attribute values.

use std::io::Write as _;

use kastor::{Attributes, Number, Value};

use crate::Redaction;

/// Appends text as a JSON string. Beyond what JSON asks for, everything that controls a terminal, reorders text or hides
/// in it is escaped, so that a file can be looked at as it is.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            hostile if is_hostile(hostile) => {
                for unit in hostile.encode_utf16(&mut [0; 2]) {
                    // Writing to memory cannot fail, here and below.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            harmless => out.extend_from_slice(harmless.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Appends a value. What JSON has no number for becomes a string.
pub(super) fn push_value(out: &mut Vec<u8>, value: Value<'_>) {
    let _ = match value {
        Value::Null => write!(out, "null"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::I64(value) => write!(out, "{value}"),
        Value::U64(value) => write!(out, "{value}"),
        Value::F64(value) if value.is_finite() => write!(out, "{value:?}"),
        Value::Str(text) => return push_text(out, text),
        other => return push_text(out, &other.to_string()),
    };
}

/// Appends a number, which is finite.
pub(super) fn push_number(out: &mut Vec<u8>, number: Number) {
    let _ = match number {
        Number::Integer(value) => write!(out, "{value}"),
        Number::Float(value) => write!(out, "{value:?}"),
    };
}

/// Appends `"key":value` for each attribute, with commas between and none around.
pub(super) fn push_attributes(out: &mut Vec<u8>, redaction: &Redaction, attributes: Attributes<'_>) -> bool {
    let mut is_first = true;
    for (key, value) in attributes {
        push_attribute(out, &mut is_first, redaction, key, value);
    }
    !is_first
}

/// Appends one attribute, without what is secret in it.
pub(super) fn push_attribute(
    out: &mut Vec<u8>,
    is_first: &mut bool,
    redaction: &Redaction,
    key: &str,
    value: Value<'_>,
) {
    let replacement = redaction.replacement(key, &value);
    push_member(out, is_first, key, replacement.as_deref().map_or(value, Value::Str));
}

/// Appends one member of an object, after a comma if it is not the first.
pub(super) fn push_member(out: &mut Vec<u8>, is_first: &mut bool, key: &str, value: Value<'_>) {
    if !std::mem::replace(is_first, false) {
        out.push(b',');
    }
    push_text(out, key);
    out.push(b':');
    push_value(out, value);
}

/// Appends nanoseconds as microseconds, exactly.
pub(super) fn push_us(out: &mut Vec<u8>, ns: i128) {
    let (sign, size) = (if ns < 0 { "-" } else { "" }, ns.unsigned_abs());
    let _ = write!(out, "{sign}{}.{:03}", size / 1000, size % 1000);
}

fn is_hostile(character: char) -> bool {
    matches!(character,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
