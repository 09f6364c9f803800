//! The limits that hold by default: nothing that a program does makes memory grow without a bound.

use crate::{aggregate, name, value};

/// Bytes that may wait for background reporters, by default.
pub(super) const QUEUE_BYTES: usize = 16 << 20;

/// The limits that hold by default. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a name or key; longer ones are cut.
    pub name_bytes: usize,
    /// Bytes of a value; longer ones are cut.
    pub value_bytes: usize,
    /// Attributes, events and links of one scope; further ones are counted.
    pub attributes: u32,
    /// Bytes of one event with everything attached.
    pub event_bytes: usize,
    /// Levels of a path; deeper scopes share one.
    pub path_levels: u32,
    /// Bytes of a path's text.
    pub path_bytes: u32,
    /// Paths of a process.
    pub paths: u32,
    /// Names and keys of a process.
    pub names: u32,
    /// Series of one instrument.
    pub series_per_instrument: u32,
    /// Series of a process.
    pub series: u32,
    /// Bytes that wait for background reporters.
    pub queue_bytes: usize,
}

/// The limits that hold by default.
pub fn limits() -> Limits {
    Limits {
        name_bytes: name::MAX_NAME_BYTES,
        value_bytes: value::MAX_VALUE_BYTES,
        attributes: value::MAX_ATTRIBUTES,
        event_bytes: value::MAX_EVENT_BYTES,
        path_levels: name::MAX_LEVELS,
        path_bytes: name::MAX_TEXT_BYTES,
        paths: name::MAX_PATHS,
        names: name::MAX_NAMES,
        series_per_instrument: aggregate::MAX_SERIES_PER_INSTRUMENT,
        series: aggregate::MAX_SERIES,
        queue_bytes: QUEUE_BYTES,
    }
}
