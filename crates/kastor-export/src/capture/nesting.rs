//! What decides whether one scope is drawn inside another: ticks, which are exact on one thread whatever line turned them
//! into nanoseconds, and where a scope and its parent belong. As [`crate::front`] has them of a batch.

use super::record::{Timing, flag};
use crate::frame::u32_at;

impl Timing<'_> {
    /// When it was opened, in ticks of its thread: in the exact order with those of other scopes of the thread.
    pub fn start_ticks(&self) -> u64 {
        self.raw.start()
    }

    /// When it closed, in ticks of its thread.
    pub fn end_ticks(&self) -> u64 {
        self.raw.start().saturating_add(self.raw.duration())
    }

    /// Whether it belongs to a future and not to the stack of a thread: what ran on its thread meanwhile need not be part
    /// of it.
    pub fn is_task(&self) -> bool {
        self.has_moved() || (self.raw.has(flag::DETACHED) && !self.raw.has(flag::FOREIGN))
    }

    /// Whether it was opened on another thread.
    pub fn has_moved(&self) -> bool {
        self.is_alias(8)
    }

    /// Whether its parent is on another thread, in another process, or in another flow of this thread.
    pub fn has_carried_parent(&self) -> bool {
        let has_parent = u32_at(self.raw.fixed, 12) != 0;
        has_parent && (self.raw.has(flag::DETACHED) || self.is_alias(12))
    }

    /// Appends the record as it stands in the file.
    pub(super) fn write_to(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.raw.fixed);
        to.extend_from_slice(self.raw.rest);
    }

    /// Whether the number at this place of the record stands for an id from elsewhere.
    fn is_alias(&self, at: usize) -> bool {
        let number = u32_at(self.raw.fixed, at);
        number != 0 && self.raw.has(flag::FOREIGN) && self.block.flow(number).is_some()
    }
}
