//! Attribute values: what a program may attach to a scope or a metric, and how it is kept.
//!
//! A value is copied when it is given. In a record it is one item:
//!
//! ```text
//! word 0    key u32 | tag u8 | payload bytes u24
//! words …   the payload, zero-padded to whole words
//! ```
//!
//! Strings beyond 4 KiB are cut. `Display` and `Debug` run while the item is built, before any state of the scope is
//! touched, with the same bound; one that panics leaves the text `(panicked)`.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use crate::{
    escape::{json_number, json_text},
    name::{Name, cut},
    sync::{contained, drop_contained},
};

/// Bytes of one value that are kept.
pub const MAX_VALUE_BYTES: usize = 4 << 10;
/// Attributes of one event that are kept.
pub const MAX_ATTRIBUTES: u32 = 128;
/// Bytes of one event that are kept.
pub const MAX_EVENT_BYTES: usize = 64 << 10;

/// One attribute value.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Nothing, as Python's `None`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// A floating-point number.
    F64(f64),
    /// Text.
    Str(&'a str),
    /// Bytes that are no text.
    Bytes(&'a [u8]),
    /// Something printed with `Display` when it is recorded.
    Display(&'a dyn fmt::Display),
    /// Something printed with `Debug` when it is recorded.
    Debug(&'a dyn fmt::Debug),
}

impl Value<'_> {
    /// The value as a number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::I64(value) => Some(value as f64),
            Value::U64(value) => Some(value as f64),
            Value::F64(value) => Some(value),
            _ => None,
        }
    }

    /// The value as text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => value.fmt(f),
            Value::I64(value) => value.fmt(f),
            Value::U64(value) => value.fmt(f),
            Value::F64(value) => value.fmt(f),
            Value::Str(value) => value.fmt(f),
            Value::Bytes(value) => value.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Value::Display(value) => value.fmt(f),
            Value::Debug(value) => value.fmt(f),
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Str(value) => fmt::Debug::fmt(value, f),
            other => fmt::Display::fmt(other, f),
        }
    }
}

impl PartialEq for Value<'_> {
    /// Compares what is kept; printed values are equal to the text they print.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::I64(a), Value::I64(b)) => a == b,
            (Value::U64(a), Value::U64(b)) => a == b,
            (Value::I64(a), Value::U64(b)) | (Value::U64(b), Value::I64(a)) => i128::from(*a) == i128::from(*b),
            (Value::F64(a), Value::F64(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Str(a), b) | (b, Value::Str(a)) => {
                matches!(b, Value::Display(_) | Value::Debug(_)) && b.to_string() == **a
            }
            _ => false,
        }
    }
}

macro_rules! from_number {
    ($($number:ty => $variant:ident as $kept:ty),*) => { $(
        impl From<$number> for Value<'_> {
            #[inline(always)]
            fn from(value: $number) -> Self {
                Value::$variant(value as $kept)
            }
        }
    )* };
}
from_number!(i8 => I64 as i64, i16 => I64 as i64, i32 => I64 as i64, i64 => I64 as i64, isize => I64 as i64,
    u8 => U64 as u64, u16 => U64 as u64, u32 => U64 as u64, u64 => U64 as u64, usize => U64 as u64,
    f32 => F64 as f64, f64 => F64 as f64);

impl From<bool> for Value<'_> {
    #[inline(always)]
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    #[inline(always)]
    fn from(value: &'a str) -> Self {
        Value::Str(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    #[inline(always)]
    fn from(value: &'a String) -> Self {
        Value::Str(value)
    }
}

impl<'a> From<&'a Cow<'_, str>> for Value<'a> {
    fn from(value: &'a Cow<'_, str>) -> Self {
        Value::Str(value)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Value::Bytes(value)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A value as JSON: bytes are hex text, NaN and the infinities are text.
pub(crate) fn json_value(value: &Value<'_>) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::I64(_) | Value::U64(_) => value.to_string(),
        Value::F64(value) => json_number(*value),
        text => json_text(&text.to_string()),
    }
}

/// What kind of instrument recorded a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MetricType {
    /// A sum of increments.
    Counter,
    /// A current value.
    Gauge,
    /// A distribution.
    Histogram,
}

impl MetricType {
    /// The word in metadata: `counter`, `gauge`, `histogram`.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
        }
    }
}

/// The tags of items, as they stand in records.
pub(crate) mod tag {
    pub(crate) const NULL: u8 = 0;
    pub(crate) const FALSE: u8 = 1;
    pub(crate) const TRUE: u8 = 2;
    pub(crate) const I64: u8 = 3;
    pub(crate) const U64: u8 = 4;
    pub(crate) const F64: u8 = 5;
    pub(crate) const STR: u8 = 6;
    pub(crate) const BYTES: u8 = 7;
    /// Text of the failure; the key is 0.
    pub(crate) const ERROR: u8 = 16;
    /// A point event: the key is its name, the payload its tick and then its attributes as items.
    pub(crate) const EVENT: u8 = 17;
    /// A link: the trace id's upper and lower word, the span id.
    pub(crate) const LINK: u8 = 18;
    /// How many attributes, events and links were beyond the limits.
    pub(crate) const DROPPED: u8 = 19;
}

/// Items under construction or at rest: the words that follow a record.
#[derive(Clone, Copy)]
pub(crate) struct Items<'a>(pub(crate) &'a [u64]);

/// One item as it was read.
pub(crate) struct Item<'a> {
    pub(crate) key: Name,
    pub(crate) tag: u8,
    pub(crate) payload: &'a [u64],
    pub(crate) bytes: usize,
}

impl<'a> Item<'a> {
    /// Whether the item is an attribute: then it has a value.
    pub(crate) fn is_attribute(&self) -> bool {
        self.tag <= tag::BYTES
    }

    /// The attribute value, if the item is an attribute.
    pub(crate) fn value(&self) -> Option<Value<'a>> {
        let number = self.payload.first().copied().unwrap_or(0);
        Some(match self.tag {
            tag::NULL => Value::Null,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::I64 => Value::I64(number as i64),
            tag::U64 => Value::U64(number),
            tag::F64 => Value::F64(f64::from_bits(number)),
            tag::STR => Value::Str(self.text()),
            tag::BYTES => Value::Bytes(self.raw()),
            _ => return None,
        })
    }

    /// The payload as text; what is not UTF-8 ends it.
    pub(crate) fn text(&self) -> &'a str {
        let raw = self.raw();
        std::str::from_utf8(raw).unwrap_or_else(|error| {
            raw.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or("")
        })
    }

    fn raw(&self) -> &'a [u8] {
        as_bytes(self.payload).get(..self.bytes).unwrap_or(&[])
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (head, rest) = self.0.split_first()?;
        let bytes = (head >> 40) as usize;
        let payload = rest.get(..bytes.div_ceil(8))?;
        self.0 = rest.get(payload.len()..)?;
        Some(Item { key: Name(*head as u32), tag: (head >> 32) as u8, payload, bytes })
    }
}

/// Words as the bytes they are stored as. All supported platforms are little-endian.
pub(crate) fn as_bytes(words: &[u64]) -> &[u8] {
    // SAFETY: every byte of a `u64` is initialised, `u8` has no alignment, and the length covers the same memory.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

#[inline(always)]
pub(crate) fn head(key: Name, tag: u8, bytes: usize) -> u64 {
    u64::from(key.0) | u64::from(tag) << 32 | (bytes as u64) << 40
}

/// Appends one attribute; returns whether all of the value was kept.
#[inline]
pub fn push_value(words: &mut Vec<u64>, key: Name, value: &Value<'_>) -> bool {
    match *value {
        Value::U64(number) => push_word(words, key, tag::U64, number),
        Value::I64(number) => push_word(words, key, tag::I64, number as u64),
        Value::F64(number) => push_word(words, key, tag::F64, number.to_bits()),
        Value::Str(text) => return push_bytes(words, key, tag::STR, cut(text, MAX_VALUE_BYTES).as_bytes(), text.len()),
        _ => return push_rare(words, key, value),
    }
    true
}

#[inline(always)]
fn push_word(words: &mut Vec<u64>, key: Name, tag: u8, word: u64) {
    words.extend_from_slice(&[head(key, tag, 8), word]);
}

#[inline]
pub(crate) fn push_bytes(words: &mut Vec<u64>, key: Name, tag: u8, bytes: &[u8], of: usize) -> bool {
    let payload = bytes.len().div_ceil(8);
    words.reserve(payload + 1);
    let len = words.len();
    // SAFETY: `reserve` made room for `payload + 1` words after `len`. The head and the last payload word are written
    // first (the latter as zero padding), then the bytes, which end within the last word: all are initialised.
    unsafe {
        let start = words.as_mut_ptr().add(len);
        start.write(head(key, tag, bytes.len()));
        start.add(payload).write(if payload == 0 { head(key, tag, 0) } else { 0 });
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(1).cast::<u8>(), bytes.len());
        words.set_len(len + 1 + payload);
    }
    bytes.len() == of
}

#[cold]
#[inline(never)]
fn push_rare(words: &mut Vec<u64>, key: Name, value: &Value<'_>) -> bool {
    let mut text = Bounded { text: String::new(), whole: true };
    let printed = match value {
        Value::Null => {
            words.push(head(key, tag::NULL, 0));
            return true;
        }
        Value::Bool(value) => {
            words.push(head(key, if *value { tag::TRUE } else { tag::FALSE }, 0));
            return true;
        }
        Value::Bytes(bytes) => {
            let kept = bytes.get(..MAX_VALUE_BYTES).unwrap_or(bytes);
            return push_bytes(words, key, tag::BYTES, kept, bytes.len());
        }
        Value::Display(value) => contained(|| write!(text, "{value}")),
        Value::Debug(value) => contained(|| write!(text, "{value:?}")),
        other => contained(|| write!(text, "{other}")),
    };
    match printed {
        // An implementation may report an error of its own; what it printed so far is kept.
        Ok(_) => push_bytes(words, key, tag::STR, text.text.as_bytes(), text.text.len()) && text.whole,
        Err(panic) => {
            drop_contained(panic);
            push_bytes(words, key, tag::STR, b"(panicked)", 10)
        }
    }
}

/// Text that stops growing at the limit, and stops the printing with it.
struct Bounded {
    text: String,
    whole: bool,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let kept = cut(part, MAX_VALUE_BYTES - self.text.len().min(MAX_VALUE_BYTES));
        self.text.push_str(kept);
        if kept.len() < part.len() {
            self.whole = false;
            return Err(fmt::Error);
        }
        Ok(())
    }
}
