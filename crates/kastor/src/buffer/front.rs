//! The fixed part of a record, built from a frame or from a metric call, and how it becomes a whole record.

use super::{append, append_foreign};
use crate::{
    name::Path,
    record::{self, flag as record_flag},
    stack,
    sync::Ordering::Relaxed,
    thread::{FRONT_WORDS, Frame, ItemBuffer, Lane, flag},
};

/// The fixed part of a frame's record; its length is filled in by [`write`].
#[derive(Clone, Copy)]
pub(crate) struct Front {
    words: [u64; FRONT_WORDS],
    len: usize,
    aliases: [u32; 3],
}

impl Front {
    /// The flow table that a reader of this record alone needs; empty unless it is foreign.
    pub(crate) fn flows(&self) -> Vec<u64> {
        if (self.words[0] >> 32) as u8 & record_flag::FOREIGN == 0 {
            return Vec::new();
        }
        self.aliases.iter().filter_map(|alias| stack::flow(*alias)).flat_map(|flow| flow.encode()).collect()
    }
}

/// Builds the record of a frame that closes now.
pub(crate) fn frame_front(frame: &Frame, end: u64, flags: u8, depth: u32) -> Front {
    let start = frame.start.load(Relaxed);
    let duration = end.saturating_sub(start);
    let path = Path(frame.path.load(Relaxed));
    // SAFETY: the link of an open frame is the base or a frame in place.
    let parent = unsafe { &*frame.link.get() };
    let ids = (frame.span.load(Relaxed), parent.span.load(Relaxed), frame.root.get());
    let detached = if parent.has(flag::ATTACHED) { record_flag::DETACHED } else { 0 };
    timing_front((path, depth), ids, (start, duration), flags | detached | frame_flags(frame))
}

/// Record flags that follow from a frame's.
pub(crate) fn frame_flags(frame: &Frame) -> u8 {
    inherited_flags(frame.word.get())
}

/// The same, of flags that were taken from a frame.
pub(crate) fn inherited_flags(flags: u32) -> u8 {
    let foreign = if flags & flag::FOREIGN != 0 { record_flag::FOREIGN } else { 0 };
    let unsampled = if flags & flag::UNSAMPLED != 0 { record_flag::UNSAMPLED } else { 0 };
    foreign | unsampled
}

/// Builds the fixed part of a timing record.
pub(crate) fn timing_front(
    (path, depth): (Path, u32),
    (span, parent, root): (u32, u32, u32),
    (start, duration): (u64, u64),
    flags: u8,
) -> Front {
    let mut words = [0, record::pair(span, parent), record::pair(root, duration as u32), start, 0, 0];
    let (mut len, mut flags) = (record::WORDS, flags);
    if duration > u64::from(u32::MAX) {
        words[len] = duration;
        (len, flags) = (len + 1, flags | record_flag::LONG);
    }
    if path.is_deeper() {
        words[len] = u64::from(depth);
        (len, flags) = (len + 1, flags | record_flag::DEEPER);
    }
    words[0] = record::head(path, flags, record::TIMING, 0);
    Front { words, len, aliases: [root, parent, span] }
}

/// Builds the fixed part of a metric record.
pub(crate) fn metric_front(
    (path, depth): (Path, u32),
    (parent, root): (u32, u32),
    (value, tick): (u64, u64),
    flags: u8,
) -> Front {
    let mut words = [0, record::pair(root, parent), value, tick, 0, 0];
    let (mut len, mut flags) = (record::WORDS, flags);
    if path.is_deeper() {
        words[len] = u64::from(depth);
        (len, flags) = (len + 1, flags | record_flag::DEEPER);
    }
    words[0] = record::head(path, flags, record::METRIC, 0);
    Front { words, len, aliases: [root, parent, 0] }
}

/// Completes a record and appends it. Returns it in `scratch` or in the items' memory, for inline reporters.
pub(crate) fn write<'a>(lane: &Lane, front: Front, items: Option<&'a mut ItemBuffer>) -> Written<'a> {
    let Front { mut words, len, aliases } = front;
    let total = len + items.as_ref().map_or(0, |items| items.pending_words());
    words[0] |= (total as u64) << 48;
    let is_foreign = (words[0] >> 32) as u8 & record_flag::FOREIGN != 0;
    let written = match items {
        Some(items) => Written::Long(items.complete(words.get(..len).unwrap_or(&[]))),
        None => Written::Short(words, len),
    };
    if is_foreign {
        append_foreign(lane, written.words(), &aliases);
    } else {
        append(lane, written.words());
    }
    written
}

/// A record that was written, as the writer still has it.
pub(crate) enum Written<'a> {
    Short([u64; FRONT_WORDS], usize),
    Long(&'a mut [u64]),
}

impl Written<'_> {
    pub(crate) fn words(&self) -> &[u64] {
        match self {
            Written::Short(words, len) => words.get(..*len).unwrap_or(&[]),
            Written::Long(words) => words,
        }
    }
}
