//! What an open scope carries besides its frame: attributes, events, links, a failure.
//!
//! The buffer leaves room for the record's fixed part in front of the items, so that closing completes it in place.

use crate::{
    record,
    name::{Name, cut},
    value::{MAX_ATTRIBUTES, MAX_EVENT_BYTES, MAX_VALUE_BYTES, Value, head, push_bytes, push_value, tag},
};

/// The fixed part at its longest: with a long duration and a depth.
pub(crate) const FRONT_WORDS: usize = record::WORDS + 2;
/// Buffers that grew beyond this are not kept for reuse.
const MAX_KEPT_WORDS: usize = 1024;
/// What one more item may need at most, and the count of dropped ones behind it.
const MAX_ITEM_WORDS: usize = MAX_VALUE_BYTES / 8 + 2;

/// Items of one open scope. Buffers are linked while unused.
pub(crate) struct ItemBuffer {
    pub(crate) next: *mut ItemBuffer,
    words: Vec<u64>,
    items: u32,
    dropped: u32,
    /// Depth of the scope, for paths that end at the limits.
    pub(crate) depth: u32,
    pub(crate) is_failed: bool,
    pub(crate) is_discarded: bool,
}

impl ItemBuffer {
    pub(crate) fn new() -> Box<Self> {
        let mut words = Vec::with_capacity(32);
        words.resize(FRONT_WORDS, 0);
        Box::new(Self {
            next: std::ptr::null_mut(),
            words,
            items: 0,
            dropped: 0,
            depth: 0,
            is_failed: false,
            is_discarded: false,
        })
    }

    /// Makes the buffer as new, but for its memory.
    pub(crate) fn clear(&mut self) {
        self.words.truncate(FRONT_WORDS);
        if self.words.capacity() > MAX_KEPT_WORDS {
            self.words.shrink_to(32);
        }
        (self.items, self.dropped, self.is_failed, self.is_discarded) = (0, 0, false, false);
    }

    #[inline]
    pub(crate) fn attribute(&mut self, key: Name, value: &Value<'_>) {
        if self.has_room() && !push_value(&mut self.words, key, value) {
            self.dropped += 1;
        }
    }

    pub(crate) fn event(&mut self, name: Name, tick: u64, attributes: &[(Name, Value<'_>)]) {
        if !self.has_room() {
            return;
        }
        let at = self.words.len();
        self.words.extend_from_slice(&[0, tick]);
        for (key, value) in attributes {
            if (self.words.len() - at) * 8 + MAX_ITEM_WORDS * 8 > MAX_EVENT_BYTES / 4 {
                self.dropped += 1;
            } else if !push_value(&mut self.words, *key, value) {
                self.dropped += 1;
            }
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

    /// The first failure stands unless the program names another.
    pub(crate) fn fail(&mut self, error_type: &str) {
        self.is_failed = true;
        let kept = cut(error_type, MAX_VALUE_BYTES);
        if !push_bytes(&mut self.words, Name::NONE, tag::ERROR, kept.as_bytes(), error_type.len()) {
            self.dropped += 1;
        }
    }

    pub(crate) fn has_items(&self) -> bool {
        self.words.len() > FRONT_WORDS || self.dropped > 0
    }

    /// Values that were cut or left out so far.
    pub(crate) fn dropped(&self) -> u32 {
        self.dropped
    }

    /// The whole record: `front` in its place directly before the items.
    pub(crate) fn complete(&mut self, front: &[u64]) -> &mut [u64] {
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
        self.words.len() - FRONT_WORDS + if self.dropped > 0 { 2 } else { 0 }
    }

    /// Items alone.
    pub(crate) fn items(&self) -> &[u64] {
        self.words.get(FRONT_WORDS..).unwrap_or(&[])
    }

    /// Takes over items that were built elsewhere.
    pub(crate) fn extend(&mut self, items: &[u64]) {
        self.words.extend_from_slice(items);
    }

    fn has_room(&mut self) -> bool {
        self.items += 1;
        let fits = self.items <= MAX_ATTRIBUTES && (self.words.len() + MAX_ITEM_WORDS) * 8 <= MAX_EVENT_BYTES;
        self.dropped += u32::from(!fits);
        fits
    }
}
