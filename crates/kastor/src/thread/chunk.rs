//! A run of memory that records are written into, and the flow table at its end.
//!
//! ```text
//! 0                              position                end            capacity
//! │ records, one after another ─▶│        free           │◀─ flows, 4 words each │
//! ```
//!
//! A flow says what a root that is not this thread's own stands for: `alias u32 | flags u32`, span id, trace id (high,
//! low). Records of such a root carry the alias as their `root`. Each chunk names its flows itself, so that any chunk
//! can be read alone.

use std::mem::MaybeUninit;

/// A thread's first chunk is this small; later ones double up to the maximum.
pub(crate) const MIN_CHUNK_WORDS: usize = 64;
/// 32 KiB: fits the first-level cache, and the cost of retiring it vanishes among a thousand records.
pub(crate) const MAX_CHUNK_WORDS: usize = 4096;
/// Words of one flow.
pub(crate) const FLOW_WORDS: usize = 4;

/// Memory for records. Written through raw pointers by the lane's owner; read where it was published.
pub(crate) struct Chunk {
    words: *mut u64,
    capacity: usize,
}

// SAFETY: a plain allocation; who may touch which part when is the business of `Lane`.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    pub(crate) fn with_words(capacity: usize) -> Self {
        let memory: Box<[MaybeUninit<u64>]> = Box::new_uninit_slice(capacity);
        Self { words: Box::into_raw(memory).cast(), capacity }
    }

    pub(crate) fn words(&self) -> *mut u64 {
        self.words
    }

    /// Has the system give the memory now: writes to every page. For a chunk that holds nothing.
    pub(crate) fn touch(&self) {
        for at in (0..self.capacity).step_by(512) {
            // SAFETY: within the allocation, which nobody else knows yet.
            unsafe { self.words.add(at).write_volatile(0) };
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The words from `from` to `to`.
    ///
    /// # Safety
    /// They lie within the capacity, were written and published to this thread, and nobody writes them while the slice lives.
    pub(crate) unsafe fn slice(&self, from: usize, to: usize) -> &[u64] {
        debug_assert!(from <= to && to <= self.capacity);
        // SAFETY: in bounds and initialised, as the caller says.
        unsafe { std::slice::from_raw_parts(self.words.add(from), to - from) }
    }
}

/// Writes words to a place in a chunk.
///
/// # Safety
/// There is room for them, and nobody else may read or write it yet.
#[inline(always)]
pub(crate) unsafe fn put(to: *mut u64, words: &[u64]) {
    // SAFETY: as the caller says.
    unsafe { std::ptr::copy_nonoverlapping(words.as_ptr(), to, words.len()) };
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let memory = std::ptr::slice_from_raw_parts_mut(self.words.cast::<MaybeUninit<u64>>(), self.capacity);
        // SAFETY: allocated in `with_words` with just this length.
        drop(unsafe { Box::from_raw(memory) });
    }
}

/// What an alias stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) alias: u32,
    pub(crate) span_id: u64,
    pub(crate) trace_id: u128,
    /// Whether whoever made the trace id says that it is random.
    pub(crate) is_random: bool,
}

impl Flow {
    /// Flag of the first word: W3C's random-trace-id flag.
    const RANDOM: u64 = 2 << 32;

    pub(crate) fn encode(&self) -> [u64; FLOW_WORDS] {
        let flags = if self.is_random { Self::RANDOM } else { 0 };
        [u64::from(self.alias) | flags, self.span_id, (self.trace_id >> 64) as u64, self.trace_id as u64]
    }

    pub(crate) fn decode(words: &[u64]) -> Option<Self> {
        let &[alias, span_id, high, low] = words else { return None };
        let (trace_id, is_random) = (u128::from(high) << 64 | u128::from(low), alias & Self::RANDOM != 0);
        Some(Self { alias: alias as u32, span_id, trace_id, is_random })
    }
}
