//! Text made harmless for terminals and logs.
//!
//! Names, keys, values and errors come from anywhere. Control characters (C0, C1, DEL) and the invisible ones that
//! reorder or hide text (bidirectional controls, zero-width characters) are shown as escapes, never sent raw.

use std::{borrow::Cow, fmt::Write as _};

/// `text` with every control, bidirectional and zero-width character as `\u{…}` or its short escape.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            hostile if is_hostile(hostile) => {
                // Writing to a string cannot fail.
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(hostile));
            }
            harmless => safe.push(harmless),
        }
    }
    Cow::Owned(safe)
}

/// Whether a character must not reach a terminal raw.
pub(crate) fn is_hostile(character: char) -> bool {
    matches!(character,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Appends `text` as a JSON string, quotes included. Hostile characters are escaped too.
pub(crate) fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            hostile if is_hostile(hostile) => {
                let mut units = [0u16; 2];
                for unit in hostile.encode_utf16(&mut units) {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            harmless => out.push(harmless),
        }
    }
    out.push('"');
}

/// A text as JSON.
pub(crate) fn json_text(text: &str) -> String {
    let mut out = String::new();
    push_json(&mut out, text);
    out
}

/// A number as JSON; what JSON has no number for becomes a string.
pub(crate) fn json_number(number: f64) -> String {
    match number {
        f64::INFINITY => json_text("Infinity"),
        f64::NEG_INFINITY => json_text("-Infinity"),
        _ if number.is_nan() => json_text("NaN"),
        // The shortest text that reads back exactly.
        _ => format!("{number:?}"),
    }
}

/// Members whose value is none are left out.
pub(crate) fn json_object<'a>(members: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let members = members.into_iter().filter_map(|(key, value)| Some(format!("{}: {}", json_text(key), value?)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}
