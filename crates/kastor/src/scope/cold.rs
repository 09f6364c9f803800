//! The cold halves of opening and closing: complete, where the hot ones only know what is usual.

use std::{ptr, thread::panicking};

use super::Scope;
use crate::{
    buffer,
    callsite::{self, Callsite},
    context::{self, Telemetry, current_lane},
    escape,
    name::{self, Name, Path, is_recommended},
    record::flag as record_flag,
    reporter::log_contained,
    sampler::Sampler,
    stack::{self, Carrier},
    sync::{AtomicBool, Ordering::*},
    thread::{Block, Frame, ItemBuffer, Lane, Part, block, flag, lane_flag},
    value::Value,
};

/// What is to be opened.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    Site(&'static Callsite),
    Named(&'a str),
}

/// Whether anyone wants scopes of a callsite that is new, or about which contexts differ.
#[cold]
#[inline(never)]
pub(crate) fn is_wanted(telemetry: Option<&Telemetry>, site: &'static Callsite) -> bool {
    let state = if site.state() == callsite::NEW { site.register() } else { site.state() };
    if state == callsite::OFF {
        return false;
    }
    let lane = block(|t| telemetry.map_or_else(|| current_lane(t), |telemetry| telemetry.lane(t)));
    // SAFETY: lanes of this thread live until it ends.
    let lane = lane.and_then(|lane| unsafe { lane.as_ref() });
    lane.is_some_and(|lane| is_awake(lane) && (!site.is_scope() || lane.sink.wants(site.text())))
}

/// Opens in full: first uses, contexts that disagree, other clocks, unwinding, deep paths, forked children.
#[cold]
#[inline(never)]
pub(super) fn open(telemetry: Option<&Telemetry>, wanted: Wanted<'_>, values: &[Value<'_>]) -> Scope {
    if let Wanted::Site(site) = wanted {
        let state = site.state();
        if (if state == callsite::NEW { site.register() } else { state }) == callsite::OFF {
            return Scope::none();
        }
    }
    block(|t| {
        let lane = match telemetry {
            Some(telemetry) => telemetry.lane(t),
            None => current_lane(t),
        };
        // SAFETY: lanes of this thread live until it ends.
        let Some(lane) = lane.and_then(|lane| unsafe { lane.as_ref() }) else { return Scope::none() };
        if !is_awake(lane) {
            return Scope::none();
        }
        // Printing a value runs user code: before the stack is touched.
        let _pin = t.pin();
        let items = if values.is_empty() { ptr::null_mut() } else { fill(t, wanted, values) };
        let scope = open_in_lane(t, lane, wanted).unwrap_or(Scope::none());
        scope.adopt(items);
        scope
    })
}

/// Whether a lane takes events; after a fork, the first one brings the collector back.
pub(crate) fn is_awake(lane: &Lane) -> bool {
    let flags = lane.cursor.flags.load(Acquire);
    if flags & lane_flag::FORKED != 0 {
        lane.cursor.flags.fetch_and(!lane_flag::FORKED, Relaxed);
        context::ensure_running();
    }
    if flags & lane_flag::OFF != 0 {
        lane.sink.refused_if_over();
    }
    flags & lane_flag::OFF == 0
}

fn fill(t: &Block, wanted: Wanted<'_>, values: &[Value<'_>]) -> *mut ItemBuffer {
    let items = buffer::take_items(t);
    let Wanted::Site(site) = wanted else { return items };
    // SAFETY: just taken: user code that runs while a value is printed gets other buffers.
    let buffer = unsafe { &mut *items };
    for (key, value) in site.keys().iter().zip(values) {
        buffer.attribute(key.name(), value);
    }
    items
}

fn open_in_lane(t: &Block, lane: &Lane, wanted: Wanted<'_>) -> Option<Scope> {
    if t.is_worn() {
        buffer::renew_sequence(t, &lane.thread);
    }
    // The program's logger may run here: before the stack is looked at.
    let named = match wanted {
        Wanted::Named(text) if lane.sink.wants(text) => checked(lane, text),
        Wanted::Named(_) => return None,
        Wanted::Site(site) => site.name(),
    };
    // SAFETY: with a lane the thread is set up: `current` is the base or an open frame.
    let parent = unsafe { &*t.current.get() };
    let parent_path = stack::path_below(parent);
    let is_anew = parent.path.load(Relaxed) == Path::NOWHERE.0;
    let path = match wanted {
        Wanted::Site(site) => {
            if !lane.sink.wants(site.text()) {
                return None;
            }
            let path = name::path(parent_path, site.name());
            if !is_anew {
                site.remember(parent_path.0, path);
            }
            path
        }
        Wanted::Named(_) => name::path(parent_path, named),
    };
    let levels = stack::levels(t) + 1;
    let frame = stack::free_frame(t, &lane.thread);
    stack::push(t, frame, parent, path, lane.cursor.word, || lane.sink.ticks());
    if is_anew {
        frame.root.set(frame.span.load(Relaxed));
    }
    if parent.span.load(Relaxed) == 0 && !lane.sink.takes_root() {
        frame.set(flag::UNSAMPLED);
    }
    if panicking() {
        frame.set(flag::BORN_PANICKING);
    }
    Some(if path.is_deeper() {
        t.deep_levels.set(levels);
        frame.set(flag::DEEPER);
        Scope::deep(frame, levels - 1)
    } else {
        Scope::in_lane(frame, &lane.cursor)
    })
}

/// A dynamic name; in strict mode one without the recommended form is replaced, counted, and logged once.
pub(crate) fn checked(lane: &Lane, text: &str) -> Name {
    static LOGGED: AtomicBool = AtomicBool::new(false);
    if lane.sink.is_strict() && !is_recommended(text) {
        lane.sink.cut(1);
        // The program's logger may come by here again.
        if !LOGGED.swap(true, Relaxed) {
            let text = escape::escaped(name::cut(text, 64)).into_owned();
            log_contained(|| {
                log::warn!(target: "kastor", "{text:?} is not a recommended name; it is recorded as (invalid_name)");
            });
        }
        return Name::INVALID;
    }
    name::name(text)
}

/// Closes in full.
#[cold]
#[inline(never)]
pub(super) fn close(frame: *const Frame, extra: *mut (), end: u64) {
    block(|t| {
        let items = Scope::items_of(extra);
        if !t.ended.get() {
            // SAFETY: the thread has not ended, so its frames are in place, and this one was not freed: its guard is here.
            close_frame(t, unsafe { &*frame }, Scope::depth_of(extra), items, end);
        }
        if !items.is_null() {
            // SAFETY: the scope owned it and is done with it.
            unsafe { buffer::give_back_items(t, items) };
        }
    });
}

fn close_frame(t: &Block, frame: &Frame, deep: Option<u32>, items: *mut ItemBuffer, end: u64) {
    let Some(lane) = lane_of(t, frame) else { return stack::close(t, frame) };
    let flags = lane.cursor.flags.load(Acquire);
    // SAFETY: the scope's own buffer, or null.
    let mut items = unsafe { items.as_mut() };
    let end = if flags & lane_flag::SLOW_CLOCK != 0 { lane.sink.ticks() } else { end };
    let is_off = flags & lane_flag::OFF != 0;
    if is_off {
        lane.sink.refused_if_over();
    }
    if is_off || frame.has(flag::STAND_IN) || items.as_ref().is_some_and(|it| it.is_discarded) {
        return stack::close(t, frame);
    }
    let depth = deep.or(items.as_ref().map(|it| it.depth)).unwrap_or(0);
    let mut panic = None;
    if panicking() && !frame.has(flag::BORN_PANICKING) && items.as_ref().is_none_or(|it| !it.is_failed) {
        // An unwinding thread can afford to allocate.
        let own = match items.take() {
            Some(items) => items,
            None => &mut **panic.insert(ItemBuffer::new()),
        };
        own.fail("panic");
        items = Some(own);
    }
    let mut record_flags = 0;
    if let Some(items) = &items {
        record_flags |= if items.is_failed { record_flag::FAILED } else { 0 };
        record_flags |= if items.has_items() { record_flag::ITEMS } else { 0 };
        if items.dropped() > 0 {
            lane.sink.cut(items.dropped());
        }
    }
    let front = buffer::frame_front(frame, end, record_flags, depth);
    let written = buffer::write(lane, front, items);
    let is_inline = flags & lane_flag::INLINE != 0;
    let flows = if is_inline { front.flows() } else { Vec::new() };
    // What an inline reporter emits belongs under the scope around this one.
    stack::close(t, frame);
    t.last_tick.set(end);
    if is_inline {
        deliver_inline(lane, written.words(), &flows);
    }
}

/// Serves inline reporters with a record that was just written.
pub(crate) fn deliver_inline(lane: &Lane, words: &[u64], flows: &[u64]) {
    let prefix = lane.thread.prefix.load(Relaxed);
    block(|t| {
        let _pin = t.pin();
        // The context outlives the call, whatever a reporter drops: see the pin.
        lane.sink.inline(Part { records: words, flows, thread: &lane.thread, prefix });
    });
}

/// What carries a frame of this thread elsewhere.
pub(super) fn carrier(t: &Block, frame: &Frame, levels: u32) -> Carrier {
    let Some(thread) = buffer::thread(t) else { return Carrier::NONE };
    // A stand-in has no context: whoever made it has decided.
    let lane = if frame.has(flag::STAND_IN) { None } else { lane_of(t, frame) };
    let sampler = lane.map_or(Sampler::ALWAYS, |lane| lane.sink.sampler());
    Carrier::of(frame, levels, thread.prefix.load(Relaxed), sampler)
}

/// The lane that a frame's record goes to.
pub(super) fn lane_of<'t>(t: &'t Block, frame: &Frame) -> Option<&'t Lane> {
    let number = frame.lane();
    if number >= t.lanes_len.get() as usize {
        return None;
    }
    // SAFETY: within the list, whose entries are null or lanes in place.
    unsafe { (*t.lanes.get().add(number)).as_ref() }
}
