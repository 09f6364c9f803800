//! The hot halves of opening and closing. Everything unusual leaves by a tail call, so that the usual way needs no
//! registers to be saved.
//!
//! Justified by the `on_*` and `off_*` cases of the benchmark.

use std::{hint::black_box, thread::panicking};

use super::{Scope, cold, fill};
use crate::{
    buffer,
    callsite::{self, Callsite, Key},
    clock::raw_ticks,
    name::{Path, known_path},
    record, stack,
    sync::{Ordering::*, own},
    thread::{
        Block, Cursor, Frame, HOT_MASK, Here, ItemBuffer, Lane, TaggedItems, VACANT, block, flag, lane_flag, put,
    },
    value::Value,
};

/// Whether a scope of this callsite is to be opened: only then are its attributes evaluated.
#[inline(always)]
pub fn is_on(site: &'static Callsite) -> bool {
    let state = site.state();
    if state == callsite::OFF {
        return false;
    }
    // A function for each, or the compiler makes one condition of two, of more instructions.
    if (state as i8) < 0 {
        return is_wanted_here(site);
    }
    has_lane() || cold::is_wanted(None, site)
}

#[cold]
#[inline(never)]
fn is_wanted_here(site: &'static Callsite) -> bool {
    cold::is_wanted(None, site)
}

/// Whether this thread has looked its lane into the current context up. The callsite being on, no context is off.
#[inline(always)]
pub(crate) fn has_lane() -> bool {
    block(|t| t.lane.get() != &raw const VACANT)
}

/// Opens the scope of a callsite in the current context.
#[inline(always)]
pub fn open(site: &'static Callsite) -> Scope {
    if site.state() == callsite::OFF { Scope::none() } else { open_here(site) }
}

/// Opens the scope of a callsite that is on, with attributes.
#[inline(always)]
pub fn open_with<const N: usize>(
    (site, keys): (&'static Callsite, &'static [Key; N]),
    values: &[Value<'_>; N],
) -> Scope {
    let items = fill(keys, values);
    if items.is_null() {
        // A copy that the compiler cannot see through: then the values themselves need no place in memory on the usual
        // way.
        let values = black_box(*values);
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
        match site.cached(parent.path()) {
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

#[inline(always)]
fn open_filled(site: &'static Callsite, items: TaggedItems) -> Scope {
    if panicking() {
        return open_filled_cold(site, items);
    }
    let here = Here::new();
    let t = here.block();
    if let Some((cursor, frame, parent)) = usual(t) {
        if let Some(path) = site.cached(parent.path()) {
            stack::push(t, frame, parent, path, cursor.word_with_items, raw_ticks);
            return Scope::with_items_in(frame, items);
        }
    }
    open_filled_cold(site, items)
}

/// Opens without the items first. Not in itself slow: a callsite below several parents comes this way.
#[inline(never)]
fn open_filled_cold(site: &'static Callsite, items: TaggedItems) -> Scope {
    let scope = open_here(site);
    scope.adopt(ItemBuffer::untagged(items));
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
        if this.word.own() & HOT_MASK != 0 {
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

/// A scope with flags: nearly always one that carries a few items and is otherwise usual.
#[inline(never)]
fn close_flagged(frame: *const Frame, extra: *mut (), end: u64) {
    if !close_with_items::<true>(frame, extra, end) {
        close_long(frame, extra, end);
    }
}

/// A scope with more items, or whatever else it may be.
#[inline(never)]
fn close_long(frame: *const Frame, extra: *mut (), end: u64) {
    if !close_with_items::<false>(frame, extra, end) {
        cold::close(frame, extra, end);
    }
}

/// Closes a scope that carries items and is otherwise usual: the record is its fixed part and a copy of them, if they
/// are `FEW`, of a whole stride. Returns whether it did.
#[inline(always)]
fn close_with_items<const FEW: bool>(frame: *const Frame, extra: *mut (), end: u64) -> bool {
    block(|t| {
        // SAFETY: current, as the caller found.
        let this = unsafe { &*frame };
        if this.word.own() & HOT_MASK != flag::ITEMS {
            return false;
        }
        // SAFETY: within the list, since the frame carries the number of a lane that is in place.
        let cursor = unsafe { &(**t.lanes.get().add(this.lane())).cursor };
        let duration = end.wrapping_sub(this.start.load(Relaxed));
        let unusual = u64::from(cursor.flags.load(Relaxed)) | duration >> 32;
        if unusual != 0 {
            return false;
        }
        let position = cursor.position.load(Relaxed);
        // SAFETY: with the flag ITEMS alone `extra` is the held form of a buffer that the scope owns, whose items are
        // whole.
        let buffer = unsafe { &mut *ItemBuffer::untagged(extra) };
        let copied_words = if FEW { ItemBuffer::STRIDE } else { buffer.item_words() };
        // One that has grown much is not kept as it is.
        let fits = if FEW { buffer.has_at_most(copied_words) } else { buffer.is_small() };
        if !fits || position.wrapping_add(copied_words) > cursor.last.get() {
            return false;
        }
        let halves = position.cast::<u32>();
        let words = record::WORDS + buffer.item_words();
        // SAFETY: there is room for all words that are written, up to the end; only the owner touches them until they
        // are published. The link of an open frame is the base or a frame in place.
        unsafe {
            halves.add(1).write(record::upper_head(record::flag::ITEMS, record::TIMING, words));
            halves.write(this.path());
            halves.add(5).write(duration as u32);
            // Read again: to keep it would cost a register.
            position.add(3).write(this.start.load(Relaxed));
            halves.add(4).write(this.root.get());
            halves.add(2).write(own(&this.span));
            halves.add(3).write(own(&(*this.link.get()).span));
            let to = position.add(record::WORDS);
            if FEW {
                buffer.copy_stride_to(to);
            } else {
                put(to, buffer.items());
            }
            cursor.position.store(position.add(words), Release);
        }
        // As the start above, the link is read again.
        stack::pop(t, this);
        t.last_tick.set(end);
        buffer.next = t.items.get();
        t.items.set(extra);
        true
    })
}

/// What the cost of an open scope rests on, and that a lane begins with its cursor.
const _: () = assert!(size_of::<Scope>() == 16 && size_of::<Frame>() == 32 && std::mem::offset_of!(Lane, cursor) == 0);
