//! What stands at the front of a record, read from [`Batch::record_bytes`] as `docs/format.md` defines it: ticks and flags,
//! which the getters of an event turn into something less exact.
//!
//! Ticks of one thread are in exact order; nanoseconds are so only within one batch, since each batch has a line from
//! ticks to time of its own.

use kastor::Batch;

const TIMING: u8 = 1;
const METRIC: u8 = 2;

/// The ids are looked up in the flow table first.
const FOREIGN: u8 = 2;
const LONG: u8 = 4;
/// The parent belongs to another flow.
const DETACHED: u8 = 64;

/// Bytes of an entry of the flow table.
const FLOW_BYTES: usize = 32;

/// The front of one timing record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    /// Ticks.
    pub(crate) begin: u64,
    /// Ticks.
    pub(crate) end: u64,
    /// The scope belongs to a future and not to the stack of a thread: what ran on its thread meanwhile need not be part
    /// of it.
    pub(crate) is_task: bool,
    /// It was opened on another thread.
    pub(crate) has_moved: bool,
    /// The parent is on another thread, in another process, or in another flow of this thread.
    pub(crate) has_carried_parent: bool,
}

/// The fronts of a batch in the order of its events; none for a metric.
pub(crate) fn fronts<'a>(batch: &'a Batch<'_>) -> impl Iterator<Item = Option<Front>> + use<'a> {
    let flows = batch.flow_bytes();
    let is_alias = move |number: u32| {
        number != 0 && flows.chunks_exact(FLOW_BYTES).any(|flow| flow.get(..4) == Some(number.to_le_bytes().as_slice()))
    };
    let mut rest = batch.record_bytes();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_le_bytes(bytes(rest, 6)?)) * 8;
        let record = rest.get(..length).filter(|_| length >= 32)?;
        rest = rest.get(length..)?;
        Some(front(record, is_alias))
    })
}

fn front(record: &[u8], is_alias: impl Fn(u32) -> bool) -> Option<Front> {
    let (flags, kind) = (*record.get(4)?, *record.get(5)?);
    if kind != TIMING {
        debug_assert_eq!(kind, METRIC, "a kind of record that is not known");
        return None;
    }
    let word = |at| bytes(record, at).map(u32::from_le_bytes);
    let long = |at| bytes(record, at).map(u64::from_le_bytes);
    let (span, parent) = (word(8)?, word(12)?);
    let begin = long(24)?;
    let duration = if flags & LONG == 0 { u64::from(word(20)?) } else { long(32)? };
    let (is_foreign, is_detached) = (flags & FOREIGN != 0, flags & DETACHED != 0);
    let has_moved = is_foreign && is_alias(span);
    Some(Front {
        begin,
        end: begin.saturating_add(duration),
        is_task: has_moved || (is_detached && !is_foreign),
        has_moved,
        has_carried_parent: parent != 0 && (is_detached || (is_foreign && is_alias(parent))),
    })
}

fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..at + N)?.try_into().ok()
}
