//! The hot halves of opening and closing. Everything unusual leaves by a tail call, so that the usual way needs no
//! registers to be saved.
//!
//! Justified by the `on_*` and `off_*` cases of the benchmark.

use std::{ptr, thread::panicking};

use super::{Scope, cold};
use crate::{
    buffer,
    callsite::{self, Callsite, Key},
    clock::raw_ticks,
    name::{Path, known_path},
    record, stack,
    sync::Ordering::*,
    thread::{Block, Cursor, Frame, HOT_MASK, ItemBuffer, Lane, block, flag, lane_flag},
    value::{Value, head, tag},
};

/// Whether a scope of this callsite is to be opened: only then are its attributes evaluated.
#[inline(always)]
pub fn is_on(site: &'static Callsite) -> bool {
    match site.state() {
        callsite::OFF => false,
        callsite::ON if has_lane() => true,
        _ => cold::is_wanted(None, site),
    }
}

/// Whether the lane at hand is one into a context that is on.
#[inline(always)]
fn has_lane() -> bool {
    // SAFETY: the vacant cursor or one of a lane of this thread.
    block(|t| unsafe { &*t.lane.get() }.flags.load(Relaxed) & (lane_flag::VACANT | lane_flag::OFF) == 0)
}

/// Opens the scope of a callsite in the current context.
#[inline(always)]
pub fn open(site: &'static Callsite) -> Scope {
    if site.state() == callsite::OFF { Scope::none() } else { open_here(site) }
}

/// Opens the scope of a callsite that is on, with attributes.
#[inline(always)]
pub fn open_with<const N: usize>(site: &'static Callsite, values: &[Value<'_>; N]) -> Scope {
    let items = fill(site.keys(), values);
    if items.is_null() {
        // A copy: then the values themselves need no place in memory on the usual way.
        let values = *values;
        return cold::open(None, cold::Wanted::Site(site), &values);
    }
    open_filled(site, items)
}

#[inline(never)]
fn open_here(site: &'static Callsite) -> Scope {
    // Asked first and alone: std's own slow half is a call, which would cost the rest its registers.
    if panicking() { open_cold(site) } else { open_usual(site) }
}

#[inline(never)]
fn open_usual(site: &'static Callsite) -> Scope {
    block(|t| {
        let Some((cursor, frame, parent)) = usual(t) else { return open_cold(site) };
        match site.cached(parent.path.load(Relaxed)) {
            Some(path) => {
                stack::push(t, frame, parent, path, cursor.word, raw_ticks);
                Scope::in_lane(frame, cursor)
            }
            None => open_looked_up(site),
        }
    })
}

/// A callsite below several parents: the shared table knows the path.
#[inline(never)]
fn open_looked_up(site: &'static Callsite) -> Scope {
    block(|t| {
        if site.state() == callsite::ON {
            if let Some((cursor, frame, parent)) = usual(t) {
                let path = known_path(Path(parent.path.load(Relaxed)), site.name());
                if let Some(path) = path.filter(|path| !path.is_deeper()) {
                    stack::push(t, frame, parent, path, cursor.word, raw_ticks);
                    return Scope::in_lane(frame, cursor);
                }
            }
        }
        open_cold(site)
    })
}

#[cold]
#[inline(never)]
fn open_cold(site: &'static Callsite) -> Scope {
    cold::open(None, cold::Wanted::Site(site), &[])
}

#[inline(never)]
fn open_filled(site: &'static Callsite, items: *mut ItemBuffer) -> Scope {
    if panicking() { open_filled_cold(site, items) } else { open_filled_usual(site, items) }
}

#[inline(never)]
fn open_filled_usual(site: &'static Callsite, items: *mut ItemBuffer) -> Scope {
    block(|t| {
        if let Some((cursor, frame, parent)) = usual(t) {
            if let Some(path) = site.cached(parent.path.load(Relaxed)) {
                stack::push(t, frame, parent, path, cursor.word | flag::ITEMS, raw_ticks);
                return Scope::with_items_in(frame, items);
            }
        }
        open_filled_cold(site, items)
    })
}

/// Opens without the items first. Not in itself slow: a callsite below several parents comes this way.
#[inline(never)]
fn open_filled_cold(site: &'static Callsite, items: *mut ItemBuffer) -> Scope {
    let scope = open_here(site);
    scope.adopt(items);
    scope
}

/// Lane, unused frame and current scope of a thread where nothing is unusual.
#[inline(always)]
fn usual(t: &Block) -> Option<(&Cursor, &Frame, &Frame)> {
    // SAFETY: the vacant cursor or one of a lane of this thread, which live until the thread ends.
    let cursor = unsafe { &*t.lane.get() };
    let frame = t.free.get();
    if frame.is_null() || cursor.flags.load(Relaxed) & !lane_flag::HARMLESS_TO_OPEN != 0 {
        return None;
    }
    // SAFETY: not null, so an unused frame of this thread's segments; and with a lane the thread is set up, so that
    // `current` is the base or an open frame.
    Some(unsafe { (cursor, &*frame, &*t.current.get()) })
}

/// Closes a scope.
#[inline(never)]
pub(super) fn close(frame: *const Frame, extra: *mut ()) {
    if panicking() { cold::close(frame, extra, raw_ticks()) } else { close_usual(frame, extra) }
}

#[inline(never)]
fn close_usual(frame: *const Frame, extra: *mut ()) {
    let end = raw_ticks();
    block(|t| {
        if t.current.get() != frame {
            return cold::close(frame, extra, end);
        }
        // SAFETY: it is current, so it is an open frame of this thread.
        let this = unsafe { &*frame };
        if this.word.get() & HOT_MASK != 0 {
            return close_flagged(frame, extra, end);
        }
        // SAFETY: without flags `extra` is the lane that the scope was opened in, which lives until the thread ends.
        let cursor = unsafe { &*extra.cast::<Cursor>() };
        let start = this.start.load(Relaxed);
        let duration = end.wrapping_sub(start);
        let position = cursor.position.load(Relaxed);
        // One comparison for both: a flag of the lane, a duration beyond 32 bits.
        let unusual = u64::from(cursor.flags.load(Relaxed)) | duration >> 32;
        if unusual != 0 || position > cursor.last.get() {
            return close_inline(frame, extra, end);
        }
        let link = this.link.get();
        // SAFETY: the link of an open frame is the base or a frame in place.
        let parent = unsafe { &*link };
        let halves = position.cast::<u32>();
        // SAFETY: there is room for four words up to the end, since the position is not beyond `last`; only the owner
        // touches them until they are published by the store below.
        unsafe {
            halves.write(this.path.load(Relaxed));
            halves.add(1).write(record::upper_head(0, record::TIMING, record::WORDS));
            halves.add(2).write(this.span.load(Relaxed));
            halves.add(3).write(parent.span.load(Relaxed));
            halves.add(4).write(this.root.get());
            halves.add(5).write(duration as u32);
            position.add(3).write(start);
            cursor.position.store(position.add(record::WORDS), Release);
        }
        stack::pop_to(t, this, link);
        t.last_tick.set(end);
    });
}

/// A scope without items whose lane has inline reporters, and which is otherwise usual.
#[inline(never)]
fn close_inline(frame: *const Frame, extra: *mut (), end: u64) {
    block(|t| {
        // SAFETY: current, as the caller found.
        let this = unsafe { &*frame };
        // SAFETY: within the list, since the frame carries the number of a lane that is in place. Not through `extra`:
        // that was made from a reference to the cursor alone, and may not be used for more.
        let lane = unsafe { &**t.lanes.get().add(this.lane()) };
        let start = this.start.load(Relaxed);
        let duration = end.wrapping_sub(start);
        let link = this.link.get();
        // SAFETY: the link of an open frame is the base or a frame in place.
        let parent = unsafe { &*link };
        let is_inline = lane.cursor.flags.load(Relaxed) == lane_flag::INLINE;
        if !is_inline || duration > u64::from(u32::MAX) {
            return cold::close(frame, extra, end);
        }
        let words = [
            record::head(Path(this.path.load(Relaxed)), 0, record::TIMING, record::WORDS),
            record::pair(this.span.load(Relaxed), parent.span.load(Relaxed)),
            record::pair(this.root.get(), duration as u32),
            start,
        ];
        buffer::append(lane, &words);
        // What a reporter emits belongs under the scope around this one.
        stack::pop_to(t, this, link);
        t.last_tick.set(end);
        cold::deliver_inline(lane, &words, &[]);
    });
}

/// A scope that carries items and is otherwise usual: the record is its fixed part and a copy of them.
#[inline(never)]
fn close_flagged(frame: *const Frame, extra: *mut (), end: u64) {
    block(|t| {
        // SAFETY: current, as the caller found.
        let this = unsafe { &*frame };
        // SAFETY: within the list, since the frame carries the number of a lane that is in place.
        let lane = unsafe { &**t.lanes.get().add(this.lane()) };
        let cursor = &lane.cursor;
        let start = this.start.load(Relaxed);
        let duration = end.wrapping_sub(start);
        let unusual = u64::from(cursor.flags.load(Relaxed)) | duration >> 32;
        if this.word.get() & HOT_MASK != flag::ITEMS || unusual != 0 {
            return cold::close(frame, extra, end);
        }
        let items = extra.map_addr(|address| address & !1).cast::<ItemBuffer>();
        // SAFETY: with the flag ITEMS alone the scope owns a buffer, and `extra` is its tagged address.
        let buffer = unsafe { &mut *items };
        let position = cursor.position.load(Relaxed);
        let items_words = buffer.item_words();
        // Pairs are copied: there has to be room for one word more.
        let room = (cursor.last.get() as isize).wrapping_sub(position as isize);
        if !buffer.is_plain() || room <= (items_words * 8) as isize {
            return cold::close(frame, extra, end);
        }
        let link = this.link.get();
        // SAFETY: the link of an open frame is the base or a frame in place.
        let parent = unsafe { &*link };
        let halves = position.cast::<u32>();
        let words = record::WORDS + items_words;
        // SAFETY: there is room for all words up to the end; only the owner touches them until they are published.
        unsafe {
            halves.write(this.path.load(Relaxed));
            halves.add(1).write(record::upper_head(record::flag::ITEMS, record::TIMING, words));
            halves.add(2).write(this.span.load(Relaxed));
            halves.add(3).write(parent.span.load(Relaxed));
            halves.add(4).write(this.root.get());
            halves.add(5).write(duration as u32);
            position.add(3).write(start);
            buffer.copy_to(position.add(record::WORDS));
            cursor.position.store(position.add(words), Release);
        }
        stack::pop_to(t, this, link);
        t.last_tick.set(end);
        buffer.clear_plain();
        buffer.next = t.items.get();
        t.items.set(items);
    });
}

/// Longest text that is copied here; longer ones take the cold way.
const SHORT_BYTES: usize = 64;
/// Words that an attribute needs at most, on the short way.
const SHORT_WORDS: usize = 1 + SHORT_BYTES / 8;

/// A buffer with the values in it; null if one of them is unusual. Inlined, so that the kinds of the values are known.
#[inline(always)]
pub(crate) fn fill<const N: usize>(keys: &'static [Key], values: &[Value<'_>; N]) -> *mut ItemBuffer {
    if N * SHORT_WORDS > ItemBuffer::ROOM_WORDS || keys.len() != N {
        return ptr::null_mut();
    }
    let is_short = |value: &Value<'_>| match value {
        Value::U64(_) | Value::I64(_) | Value::F64(_) => true,
        Value::Str(text) => text.len() <= SHORT_BYTES,
        _ => false,
    };
    if !values.iter().all(is_short) {
        return ptr::null_mut();
    }
    let items = block(|t| {
        let items = t.items.get();
        // SAFETY: null, or the first of a list of boxes that nobody else refers to.
        if let Some(first) = unsafe { items.as_ref() } {
            t.items.set(first.next);
        }
        items
    });
    // SAFETY: just taken from the list; null is given up to the caller.
    let Some(buffer) = (unsafe { items.as_mut() }) else { return items };
    let mut at = buffer.room();
    for (key, value) in keys.iter().zip(values) {
        // SAFETY: every value takes at most `SHORT_WORDS`, for all of which there is room.
        unsafe {
            at = match *value {
                Value::U64(number) => push_number(at, head(key.name(), tag::U64, 8), number),
                Value::I64(number) => push_number(at, head(key.name(), tag::I64, 8), number as u64),
                Value::F64(number) => push_number(at, head(key.name(), tag::F64, 8), number.to_bits()),
                Value::Str(text) => push_short(at, head(key.name(), tag::STR, text.len()), text.as_bytes()),
                _ => at,
            };
        }
    }
    // SAFETY: everything before `at` was written just now.
    unsafe { buffer.set_end(at, N as u32) };
    items
}

#[inline(always)]
unsafe fn push_number(at: *mut u64, head: u64, number: u64) -> *mut u64 {
    // SAFETY: the caller has room for two words.
    unsafe {
        at.write(head);
        at.add(1).write(number);
        at.add(2)
    }
}

/// Copies a short text, zero-padded to whole words.
#[inline(always)]
unsafe fn push_short(at: *mut u64, head: u64, text: &[u8]) -> *mut u64 {
    let len = text.len();
    let words = len.div_ceil(8);
    // SAFETY: the caller has room for the head and all words; the source is read within its length only.
    unsafe {
        at.write(head);
        let to = at.add(1);
        let from = text.as_ptr();
        if len >= 8 {
            for word in 0..len / 8 {
                to.add(word).write(from.add(word * 8).cast::<u64>().read_unaligned());
            }
            if len % 8 != 0 {
                // The last eight bytes, shifted so that they begin where the whole words ended.
                let last = from.add(len - 8).cast::<u64>().read_unaligned();
                to.add(words - 1).write(last >> (8 * (8 - len % 8)));
            }
        } else if len >= 4 {
            let low = u64::from(from.cast::<u32>().read_unaligned());
            let high = u64::from(from.add(len - 4).cast::<u32>().read_unaligned());
            to.write(low | high << (8 * (len - 4)));
        } else if len > 0 {
            let middle = u64::from(*from.add(len / 2)) << (8 * (len / 2));
            to.write(u64::from(*from) | middle | u64::from(*from.add(len - 1)) << (8 * (len - 1)));
        }
        to.add(words)
    }
}

/// What the cost of an open scope rests on, and that a lane begins with its cursor.
const _: () = assert!(size_of::<Scope>() == 16 && size_of::<Frame>() == 32 && std::mem::offset_of!(Lane, cursor) == 0);
