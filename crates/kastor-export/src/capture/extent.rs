//! What a run of records amounts to: the part of a block's header that takes a look at each of them.

use super::record::{RECORD_BYTES, RawRecords, TIMING, flag};
use crate::frame::{u32_at, u64_at};

/// What a run of records amounts to: the part of a block's header that takes a look at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) records: u32,
    pub(super) failures: u32,
    pub(super) first_tick: u64,
    pub(super) last_tick: u64,
    pub(super) longest_ticks: u64,
    /// Whether any of them has items, in which there may be secrets.
    pub(super) has_items: bool,
}

/// Whether a record that begins with this word is a scope that succeeded, and nothing but its fixed part.
pub(super) fn is_plain_head(head: u64) -> bool {
    let (flags, kind, words) = ((head >> 32) as u8, (head >> 40) as u8, head >> 48);
    kind == TIMING && flags & (flag::FAILED | flag::LONG | flag::ITEMS) == 0 && words == RECORD_BYTES as u64 / 8
}

impl Extent {
    /// Of no records yet.
    pub(super) const NOTHING: Self =
        Self { records: 0, failures: 0, first_tick: u64::MAX, last_tick: 0, longest_ticks: 0, has_items: false };

    pub(super) fn of(records: &[u8]) -> Self {
        let mut extent = Self::NOTHING;
        for raw in RawRecords(records) {
            extent.add(u64_at(raw.fixed, 0), u32_at(raw.fixed, 20), u64_at(raw.fixed, 24), raw.rest);
        }
        extent.finished()
    }

    /// One more record: its first word, the duration if it is a short one, its start, and what stands behind these.
    #[inline(always)]
    pub(super) fn add(&mut self, head: u64, duration: u32, start: u64, rest: &[u8]) {
        let (flags, is_timing) = ((head >> 32) as u8, (head >> 40) as u8 == TIMING);
        let duration = match is_timing {
            true if flags & flag::LONG != 0 => u64_at(rest, 0),
            true => u64::from(duration),
            false => 0,
        };
        self.records += 1;
        self.has_items |= flags & flag::ITEMS != 0;
        self.failures += u32::from(is_timing && flags & flag::FAILED != 0);
        self.first_tick = self.first_tick.min(start);
        self.last_tick = self.last_tick.max(start.saturating_add(duration));
        self.longest_ticks = self.longest_ticks.max(duration);
    }

    /// One more record whose first word is a plain one.
    #[inline(always)]
    pub(super) fn add_plain(&mut self, duration: u32, start: u64) {
        let duration = u64::from(duration);
        self.records += 1;
        self.first_tick = self.first_tick.min(start);
        self.last_tick = self.last_tick.max(start.saturating_add(duration));
        self.longest_ticks = self.longest_ticks.max(duration);
    }

    /// With sense, even if there was no record.
    pub(super) fn finished(mut self) -> Self {
        self.first_tick = self.first_tick.min(self.last_tick);
        self
    }
}
