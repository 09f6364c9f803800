//! What an open scope carries besides its frame: attributes, events, links, a failure.
//!
//! The buffer leaves room for the record's fixed part in front of the items, so that closing completes it in place.

use std::mem::MaybeUninit;

use crate::{
    name::{Name, cut},
    record,
    value::{Items, MAX_ATTRIBUTES, MAX_EVENT_BYTES, MAX_VALUE_BYTES, Value, head, push_bytes, push_value, tag},
};

/// The fixed part at its longest: with a long duration and a depth.
pub(crate) const FRONT_WORDS: usize = record::WORDS + 2;
/// Buffers that grew beyond this are not kept for reuse.
const MAX_KEPT_WORDS: usize = 1024;
/// What one more item may need at most, and the count of dropped ones behind it.
const MAX_ITEM_WORDS: usize = MAX_VALUE_BYTES / 8 + 2;

/// A buffer as scopes and lists hold it: its address with bit 0 set; null for none. One form for both, so that nothing has
/// to be set or taken away on the way from one to the other.
pub(crate) type TaggedItems = *mut ();

/// Items of one open scope. Buffers are linked while unused.
pub(crate) struct ItemBuffer {
    pub(crate) next: TaggedItems,
    words: Vec<u64>,
    items: u32,
    dropped: u32,
    /// Depth of the scope, for paths that end at the limits.
    pub(crate) depth: u32,
    pub(crate) is_failed: bool,
    /// Why, if it failed.
    error: String,
    pub(crate) is_discarded: bool,
}

impl ItemBuffer {
    /// Words of items for which any unused buffer has room.
    pub(crate) const ROOM_WORDS: usize = 42;
    /// Words of items that are copied at once: three numbers, or two short texts.
    pub(crate) const STRIDE: usize = 6;

    pub(crate) fn new() -> Box<Self> {
        let mut words = Vec::with_capacity(FRONT_WORDS + Self::ROOM_WORDS);
        words.resize(FRONT_WORDS, 0);
        Box::new(Self {
            next: std::ptr::null_mut(),
            words,
            items: 0,
            dropped: 0,
            depth: 0,
            is_failed: false,
            error: String::new(),
            is_discarded: false,
        })
    }

    /// The form in which it is held.
    pub(crate) fn tagged(buffer: *mut Self) -> TaggedItems {
        buffer.wrapping_byte_add(1).cast()
    }

    /// The buffer of its held form, which is not null.
    #[inline(always)]
    pub(crate) fn untagged(held: TaggedItems) -> *mut Self {
        held.wrapping_byte_sub(1).cast()
    }

    /// Makes an unused buffer, whose items may still be there, an empty one.
    pub(crate) fn empty(&mut self) {
        self.words.truncate(FRONT_WORDS);
        self.items = 0;
    }

    /// Makes the buffer as new, but for its memory.
    pub(crate) fn clear(&mut self) {
        self.words.truncate(FRONT_WORDS);
        if !self.is_small() {
            self.words.shrink_to(FRONT_WORDS + Self::ROOM_WORDS);
        }
        (self.items, self.dropped, self.is_failed, self.is_discarded) = (0, 0, false, false);
    }

    /// Where items begin in an unused buffer; there is room for `ROOM_WORDS`.
    #[inline(always)]
    pub(crate) fn room(&mut self) -> *mut u64 {
        // SAFETY: the fixed part's words are there always, and the capacity is never below both together.
        unsafe { self.words.as_mut_ptr().add(FRONT_WORDS) }
    }

    /// Says how much of the room was filled, with how many items.
    ///
    /// # Safety
    /// So many words from [`room`](Self::room) on were written.
    #[inline(always)]
    pub(crate) unsafe fn set_filled(&mut self, words: usize, items: u32) {
        // SAFETY: as the caller says; the fixed part before was initialised when the buffer was made.
        unsafe { self.words.set_len(FRONT_WORDS + words) };
        self.items = items;
    }

    /// Whether there are attributes, events and links only, all of them whole.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        u32::from(self.is_failed) | u32::from(self.is_discarded) | self.dropped == 0
    }

    /// Words of items, the fixed part not counted.
    #[inline(always)]
    pub(crate) fn item_words(&self) -> usize {
        self.words.len().wrapping_sub(FRONT_WORDS)
    }

    /// Whether there are at most so many words of items.
    #[inline(always)]
    pub(crate) fn has_at_most(&self, words: usize) -> bool {
        self.words.len() <= FRONT_WORDS + words
    }

    /// Whether its memory is worth keeping while it is unused.
    pub(crate) fn is_small(&self) -> bool {
        self.words.capacity() <= MAX_KEPT_WORDS
    }

    /// Copies a stride to `to`: items, and whatever is behind them.
    ///
    /// # Safety
    /// There is room for it.
    #[inline(always)]
    pub(crate) unsafe fn copy_stride_to(&self, to: *mut u64) {
        type Stride = [MaybeUninit<u64>; ItemBuffer::STRIDE];
        // SAFETY: every buffer has memory for a stride behind the fixed part; what was not written there need not be to
        // be copied.
        unsafe {
            let from = self.words.as_ptr().add(FRONT_WORDS).cast::<Stride>();
            to.cast::<Stride>().copy_from_nonoverlapping(from, 1);
        }
    }

    /// Puts another buffer's items behind, if they find room.
    pub(crate) fn append(&mut self, later: &ItemBuffer) {
        self.dropped += later.dropped;
        if (self.words.len() + later.item_words()) * 8 <= MAX_EVENT_BYTES {
            self.words.extend_from_slice(later.items());
            self.items += later.items;
        } else {
            self.dropped += later.items;
        }
        if later.is_failed {
            self.fail(&later.error);
        }
        self.is_discarded |= later.is_discarded;
    }

    #[inline]
    pub(crate) fn attribute(&mut self, key: Name, value: &Value<'_>) {
        if self.items >= MAX_ATTRIBUTES {
            self.keep_last_values();
            let is_known = Items(self.items()).any(|item| item.key == key && item.value().is_some());
            self.items -= u32::from(is_known);
        }
        let is_whole = !self.has_room() || push_value(&mut self.words, key, value);
        self.dropped += u32::from(!is_whole);
    }

    /// Where a key has several values only the last one counts: the others give their room back.
    #[cold]
    fn keep_last_values(&mut self) {
        let old: Vec<u64> = self.items().to_vec();
        let all: Vec<_> = Items(&old).map(|item| (item.key, item.value())).collect();
        let mut at = 0;
        self.words.truncate(FRONT_WORDS);
        self.items = 0;
        let mut rest = Items(&old);
        while let Some(item) = rest.next() {
            let number = self.items as usize + at;
            let later = all.get(number + 1..).unwrap_or(&[]);
            if item.value().is_some() && later.iter().any(|(key, value)| *key == item.key && value.is_some()) {
                at += 1;
                continue;
            }
            let end = old.len() - rest.0.len();
            let start = end - item.payload.len() - 1;
            self.words.extend_from_slice(old.get(start..end).unwrap_or(&[]));
            self.items += 1;
        }
    }

    pub(crate) fn event(&mut self, name: Name, tick: u64, attributes: &[(Name, Value<'_>)]) {
        if !self.has_room() {
            return;
        }
        let at = self.words.len();
        self.words.extend_from_slice(&[0, tick]);
        for (key, value) in attributes {
            let fits = (self.words.len() - at + MAX_ITEM_WORDS) * 8 <= MAX_EVENT_BYTES / 4;
            let is_kept = fits && push_value(&mut self.words, *key, value);
            self.dropped += u32::from(!is_kept);
        }
        let bytes = (self.words.len() - at - 1) * 8;
        if let Some(word) = self.words.get_mut(at) {
            *word = head(name, tag::EVENT, bytes);
        }
    }

    pub(crate) fn link(&mut self, trace_id: u128, span_id: u64) {
        if self.has_room() {
            self.words.extend_from_slice(&[
                head(Name::NONE, tag::LINK, 24),
                (trace_id >> 64) as u64,
                trace_id as u64,
                span_id,
            ]);
        }
    }

    /// The last error type counts.
    pub(crate) fn fail(&mut self, error_type: &str) {
        self.is_failed = true;
        let kept = cut(error_type, MAX_VALUE_BYTES);
        self.dropped += u32::from(kept.len() < error_type.len());
        self.error.clear();
        self.error.push_str(kept);
    }

    pub(crate) fn has_items(&self) -> bool {
        self.words.len() > FRONT_WORDS || self.dropped > 0 || self.is_failed
    }

    /// Values that were cut or left out so far.
    pub(crate) fn dropped(&self) -> u32 {
        self.dropped
    }

    /// The whole record: `front` in its place directly before the items.
    pub(crate) fn complete(&mut self, front: &[u64]) -> &mut [u64] {
        if self.is_failed {
            push_bytes(&mut self.words, Name::NONE, tag::ERROR, self.error.as_bytes(), self.error.len());
        }
        if self.dropped > 0 {
            self.words.extend_from_slice(&[head(Name::NONE, tag::DROPPED, 8), u64::from(self.dropped)]);
        }
        let start = FRONT_WORDS.saturating_sub(front.len());
        match self.words.get_mut(start..) {
            Some(record) => {
                if let Some(place) = record.get_mut(..front.len()) {
                    place.copy_from_slice(front);
                }
                record
            }
            None => &mut [],
        }
    }

    /// Words that [`complete`](Self::complete) puts behind the front.
    pub(crate) fn pending_words(&self) -> usize {
        let error = if self.is_failed { 1 + self.error.len().div_ceil(8) } else { 0 };
        self.words.len() - FRONT_WORDS + error + if self.dropped > 0 { 2 } else { 0 }
    }

    /// Items alone.
    #[inline(always)]
    pub(crate) fn items(&self) -> &[u64] {
        self.words.get(FRONT_WORDS..).unwrap_or(&[])
    }

    fn has_room(&mut self) -> bool {
        self.items += 1;
        let fits = self.items <= MAX_ATTRIBUTES && (self.words.len() + MAX_ITEM_WORDS) * 8 <= MAX_EVENT_BYTES;
        self.dropped += u32::from(!fits);
        fits
    }
}
