//! The cells that a thread's hot paths find at once: in the thread-local block itself, without a look into the lane.
//!
//! ```text
//! slot (16 bytes)   0  key   u32, as in `CellSlot`; u32::MAX while empty
//!                   8  cell  pointer
//! ```
//!
//! One slot for each of the first metric callsites and handles, by their place (`callsite::hot_place`). What stands in a
//! slot stands in the current lane's slots too, which lead here: a slot is filled when the lane's own was used, and
//! all are emptied when another lane becomes current, when cells leave their lane, and, by another thread, when the
//! context is switched. Justified by the `on_counter*` cases of the benchmark.

use std::{cell::Cell, ptr::NonNull};

use crate::{
    callsite::{HOT_INDEXES, HOT_SLOT_BYTES, hot_place},
    sync::{AtomicU32, Ordering::*, constant, fence, repeated},
};

/// Nothing has this key.
const EMPTY: u32 = u32::MAX;

/// See the module.
#[repr(C)]
pub(crate) struct HotSlots([HotSlot; HOT_INDEXES as usize]);

#[repr(C, align(16))]
struct HotSlot {
    /// The owner writes it; others only empty it.
    key: AtomicU32,
    cell: Cell<NonNull<()>>,
}

// SAFETY: other threads touch the keys alone, which are atomic.
unsafe impl Sync for HotSlots {}

impl HotSlot {
    constant! {
        fn new() -> Self {
            Self { key: AtomicU32::new(EMPTY), cell: Cell::new(NonNull::dangling()) }
        }
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<HotSlot>() == HOT_SLOT_BYTES as usize);

impl HotSlots {
    constant! {
        pub(crate) fn new() -> Self {
            Self(repeated!(HotSlot::new(); HOT_INDEXES as usize))
        }
    }

    /// The cell at a place, if it is the one for `key`. Owner only.
    #[inline(always)]
    pub(crate) fn find(&self, place: u32, key: u32) -> Option<NonNull<()>> {
        let slot = self.at(place);
        if slot.key.load(Relaxed) == key { Some(slot.cell.get()) } else { None }
    }

    /// Fills the slot of an index, if that has one, with a cell of the current lane. Owner only.
    pub(crate) fn fill(&self, index: u32, key: u32, cell: NonNull<()>, is_off: impl Fn() -> bool) {
        let place = hot_place(index);
        if place == hot_place(0) {
            return;
        }
        let slot = self.at(place);
        slot.cell.set(cell);
        slot.key.store(key, Relaxed);
        // Whoever switches the context changes the lane's flags before it empties the slots: one of the two sees the
        // other.
        fence(SeqCst);
        if is_off() {
            slot.key.store(EMPTY, Relaxed);
        }
    }

    /// Empties all slots. From any thread.
    pub(crate) fn clear(&self) {
        for slot in &self.0 {
            slot.key.store(EMPTY, Relaxed);
        }
    }

    #[inline(always)]
    fn at(&self, place: u32) -> &HotSlot {
        let bytes = place as usize - 8;
        // A model's atomics are larger.
        let bytes = if cfg!(loom) { bytes / HOT_SLOT_BYTES as usize * size_of::<HotSlot>() } else { bytes };
        // SAFETY: places come from `hot_place` alone: where a slot of the array begins, and 8.
        unsafe { &*self.0.as_ptr().byte_add(bytes) }
    }
}
