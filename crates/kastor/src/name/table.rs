//! The two lock-free-to-read structures below names and paths.
//!
//! [`Segments`] is an array that only grows: an entry never moves, so a reference to it is good for ever.
//! [`Table`] finds an id by a 64-bit key with open addressing. Writers of both hold the owner's lock; readers take none.
//! A table that grows leaves its predecessors behind (their sizes sum to less than its own), because a reader may still
//! be in one. Justified by the `on_many_paths` cases of the benchmark.

use std::ptr;

use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*, constant, null_pointers};

/// The first segment holds so many entries, as a power of two; and the first table so many slots. In a model they are
/// small, so that growing is within reach.
const FIRST_BITS: u32 = if cfg!(loom) { 1 } else { 8 };
const FIRST_SLOTS: usize = if cfg!(loom) { 4 } else { 256 };
const SEGMENTS: usize = 16;

/// An append-only array of at most 16 million entries.
pub(crate) struct Segments<T> {
    segments: [AtomicPtr<T>; SEGMENTS],
    len: AtomicU32,
}

// SAFETY: entries are written once, before `len` or an id makes them reachable, and only shared afterwards.
unsafe impl<T: Send + Sync> Sync for Segments<T> {}

impl<T> Segments<T> {
    constant! {
        pub(crate) fn new() -> Self {
            Self { segments: null_pointers(), len: AtomicU32::new(0) }
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len.load(Acquire)
    }

    /// Appends and returns the index. The caller holds the writers' lock.
    pub(crate) fn push(&self, value: T) -> u32 {
        let index = self.len.load(Relaxed);
        let (segment, offset, size) = place(index);
        let Some(slot) = self.segments.get(segment) else { return u32::MAX };
        let mut base = slot.load(Relaxed);
        if base.is_null() {
            let memory: Box<[std::mem::MaybeUninit<T>]> = Box::new_uninit_slice(size);
            base = Box::leak(memory).as_mut_ptr().cast();
            slot.store(base, Release);
        }
        // SAFETY: `offset < size` entries fit in the segment; this one is beyond `len`, so nobody reads it yet, and
        // the writers' lock keeps other writers out.
        unsafe { base.add(offset).write(value) };
        self.len.store(index + 1, Release);
        index
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        if index >= self.len.load(Acquire) {
            return None;
        }
        let (segment, offset, _) = place(index);
        let base = self.segments.get(segment)?.load(Acquire);
        // SAFETY: the Acquire load of `len` saw the entry's store, which came after the segment's and the value's.
        unsafe { base.add(offset).as_ref() }
    }
}

/// Segment `k` holds 256 << k entries.
fn place(index: u32) -> (usize, usize, usize) {
    let shifted = u64::from(index) + (1 << FIRST_BITS);
    let bits = 63 - shifted.leading_zeros();
    let segment = (bits - FIRST_BITS) as usize;
    (segment, (shifted - (1 << bits)) as usize, 1 << bits)
}

/// Ids by key. A key may occur with several ids (colliding hashes); `find` asks which one is meant.
pub(crate) struct Table {
    slots: AtomicPtr<Slots>,
}

struct Slots {
    mask: usize,
    used: AtomicU32,
    entries: Box<[(AtomicU64, AtomicU32)]>,
}

impl Table {
    constant! {
        pub(crate) fn new() -> Self {
            Self { slots: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// The id kept under `key` for which `is_it` holds. `key` is not zero.
    #[inline]
    pub(crate) fn find(&self, key: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        // SAFETY: a published table is never freed.
        let slots = unsafe { self.slots.load(Acquire).as_ref() }?;
        let mut at = spread(key);
        loop {
            let (kept, id) = slots.entries.get(at & slots.mask)?;
            let kept = kept.load(Acquire);
            if kept == key {
                let id = id.load(Relaxed);
                if is_it(id) {
                    return Some(id);
                }
            } else if kept == 0 {
                return None;
            }
            at = at.wrapping_add(1);
        }
    }

    /// Adds an entry. The caller holds the writers' lock and found nothing under it.
    pub(crate) fn insert(&self, key: u64, id: u32) {
        let current = self.slots.load(Relaxed);
        // SAFETY: as in `find`.
        let roomy = unsafe { current.as_ref() }.filter(|slots| slots.used.load(Relaxed) as usize * 2 < slots.mask);
        if let Some(slots) = roomy {
            return slots.put(key, id);
        }
        // SAFETY: as in `find`.
        let old = unsafe { current.as_ref() };
        let size = old.map_or(FIRST_SLOTS, |slots| (slots.mask + 1) * 2);
        let grown = Box::new(Slots::with_size(size));
        for (kept, id) in old.iter().flat_map(|slots| slots.entries.iter()) {
            let kept = kept.load(Relaxed);
            if kept != 0 {
                grown.put(kept, id.load(Relaxed));
            }
        }
        grown.put(key, id);
        self.slots.store(Box::into_raw(grown), Release);
    }
}

impl Slots {
    fn with_size(size: usize) -> Self {
        let entries = (0..size).map(|_| (AtomicU64::new(0), AtomicU32::new(0))).collect();
        Self { mask: size - 1, used: AtomicU32::new(0), entries }
    }

    fn put(&self, key: u64, id: u32) {
        let mut at = spread(key);
        loop {
            let Some((kept, place)) = self.entries.get(at & self.mask) else { return };
            if kept.load(Relaxed) == 0 {
                place.store(id, Relaxed);
                kept.store(key, Release);
                self.used.store(self.used.load(Relaxed) + 1, Relaxed);
                return;
            }
            at = at.wrapping_add(1);
        }
    }
}

/// Keys may be dense pairs of small numbers: the upper bits of a product are well mixed.
#[inline]
fn spread(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}
