//! Redaction of any text.

use std::borrow::Cow;

use kastor::Value;

use crate::{REDACTED, Redaction};

/// How long a text is made of a short one, to see that time does not grow with the square of its length.
const LONG_BYTES: usize = 128 << 10;

/// Any text as a value, and its first line as a key. What is hidden is hidden in every way of asking, the rest of the
/// text stays, and nothing grows beyond its bound.
pub fn redaction(text: &str) {
    let redaction = Redaction::default().key("iban").allow_key("session.id");
    let key = text.lines().next().unwrap_or_default();
    let free = redaction.free_text(text);
    assert!(free.len() <= 16 * text.len() + (1 << 20));
    if let Cow::Borrowed(same) = free {
        assert_eq!(same, text);
    } else {
        assert!(free.contains(REDACTED), "{free}");
    }
    let shown = redaction.text(key, text);
    let replaced = redaction.replacement(key, &Value::Str(text));
    if redaction.hides_key(key) && !text.is_empty() {
        assert_eq!((&*shown, replaced.as_deref()), (REDACTED, Some(REDACTED)));
    } else {
        assert_eq!((&shown, replaced.as_deref().unwrap_or(text)), (&free, &*free));
    }
    let of_bytes = redaction.replacement(key, &Value::Bytes(text.as_bytes()));
    assert_eq!(of_bytes, redaction.replacement(key, &Value::Str(text)));
    for whatever in [Value::I64(-1), Value::U64(1), Value::F64(0.5)] {
        assert_eq!(redaction.replacement(key, &whatever).is_some(), redaction.hides_key(key));
    }
    // Keys are compared as they are asked for, whatever is in them.
    let own = Redaction::default().key(key).allow_key(key);
    assert!(!own.hides_key(key) || key.is_empty());
    if (1..=64).contains(&text.len()) {
        let long = text.repeat(LONG_BYTES / text.len());
        assert!(redaction.free_text(&long).len() <= 16 * long.len() + (1 << 20));
        redaction.hides_key(&long);
    }
}
