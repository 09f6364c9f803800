//! Plain metric events: records of their own, like scopes'.
//!
//! Justified by the `on_metric_event*` cases of the benchmark.

use std::hint::black_box;

use super::{lane, path_here, with_items};
use crate::{
    buffer::{self, metric_front},
    callsite::{self, Callsite, Key},
    context::Telemetry,
    name::{Name, Path, name, path},
    record::{self, flag as record_flag},
    scope::{SHORT_WORDS, checked, deliver_inline, has_lane, is_on, put_short},
    stack,
    sync::Ordering::*,
    thread::{Block, Frame, Here, ItemBuffer, Lane, block, flag, lane_flag},
    value::Value,
};

/// Whether an event of this callsite is wanted: only then are its value and attributes evaluated.
#[inline(always)]
pub fn is_event_on(site: &'static Callsite) -> bool {
    // The other way round than for scopes: one comparison where it is on.
    if site.state() != callsite::ON {
        return is_event_wanted(site);
    }
    has_lane() || is_event_wanted(site)
}

#[cold]
#[inline(never)]
fn is_event_wanted(site: &'static Callsite) -> bool {
    is_on(site)
}

/// Records a plain metric event in the current context. Numbers with short attributes are written right where records
/// go, if nothing is unusual; all else goes the long way.
#[inline(always)]
pub fn event<const N: usize>(
    (site, keys): (&'static Callsite, &'static [Key; N]),
    value: Value<'_>,
    attributes: &[Value<'_>; N],
) {
    let is_done = match number(&value) {
        Some(number) => write_short(Here::new().block(), site, number, keys, attributes),
        None => false,
    };
    if !is_done {
        // Copies that the compiler cannot see through: then the values themselves need no place in memory on the usual
        // way.
        let (value, attributes) = black_box((value, *attributes));
        event_cold(None, site, value, &attributes);
    }
}

/// Writes a number with short attributes in the current lane. Returns whether it did: not if anything is unusual.
#[inline(always)]
fn write_short<const N: usize>(
    t: &Block,
    site: &Callsite,
    (word, value_flags): (u64, u8),
    keys: &[Key; N],
    attributes: &[Value<'_>; N],
) -> bool {
    // SAFETY: the vacant cursor or one of a lane of this thread.
    let cursor = unsafe { &*t.lane.get() };
    let scope = t.scope();
    let position = cursor.position.load(Relaxed);
    if cursor.flags.load(Relaxed) & !lane_flag::HARMLESS_TO_COUNT != 0
        || position.wrapping_add(N * SHORT_WORDS) > cursor.last.get()
        || scope.has(flag::INHERITED)
    {
        return false;
    }
    let Some(path) = site.cached(scope.path()) else { return false };
    let items = if N == 0 { 0 } else { record_flag::ITEMS };
    if N == 0 {
        prefetch(position.wrapping_add(PREFETCHED_WORDS));
    }
    // SAFETY: there is room for four words, and for all that the attributes may need, up to the end, since the position
    // is that far before `last`; only the owner touches them until they are published by the store below.
    unsafe {
        let Some(items_words) = put_short(position.add(record::WORDS), keys, attributes) else { return false };
        let words = record::WORDS + items_words;
        position.write(record::head(path, value_flags | items, record::METRIC, words));
        position.add(1).write(scope.root_and_span());
        position.add(2).write(word);
        position.add(3).write(t.last_tick.get().max(scope.start.load(Relaxed)));
        cursor.count_metric(words);
        cursor.position.store(position.add(words), Release);
    }
    true
}

/// A number as it stands in records: its word, and the flags that say how to read that.
#[inline(always)]
pub(crate) fn number(value: &Value<'_>) -> Option<(u64, u8)> {
    match *value {
        Value::U64(number) => Some((number, record_flag::VALUE_U64)),
        Value::I64(number) => Some((number as u64, record_flag::VALUE_I64)),
        Value::F64(number) => Some((number.to_bits(), record_flag::VALUE_F64)),
        _ => None,
    }
}

/// Records a plain metric event in a given context.
#[inline]
pub fn event_in(telemetry: &Telemetry, site: &'static Callsite, value: Value<'_>, attributes: &[Value<'_>]) {
    event_cold(Some(telemetry), site, value, attributes);
}

/// How far ahead of a record its successors' memory is fetched: short records come faster than the second-level cache
/// notices.
const PREFETCHED_WORDS: usize = 48;

/// Has the processor fetch a place into its cache. A hint: the place need not exist.
#[inline(always)]
fn prefetch(place: *const u64) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the instruction is part of the architecture's base, and reads nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}

/// The path of a callsite's metric under the current scope; the callsite remembers the first.
fn remembered_path(t: &Block, site: &'static Callsite) -> Path {
    let parent = path_here(t);
    let path = path(parent, site.name());
    if parent.0 == t.scope().path() {
        site.remember(parent.0, path);
    }
    path
}

#[cold]
#[inline(never)]
fn event_cold(telemetry: Option<&Telemetry>, site: &'static Callsite, value: Value<'_>, attributes: &[Value<'_>]) {
    block(|t| {
        if let Some(lane) = lane(t, telemetry, Some(site)) {
            let path = remembered_path(t, site);
            write_event(t, lane, path, value, |items| {
                for (key, value) in site.keys().iter().zip(attributes) {
                    items.attribute(key.name(), value);
                }
            });
        }
    });
}

/// Writes a metric event in full.
pub(crate) fn write_event(
    t: &Block,
    lane: &Lane,
    path: Path,
    value: Value<'_>,
    attributes: impl FnOnce(&mut ItemBuffer),
) {
    let _pin = t.pin();
    with_items(t, &[], &[], |items| {
        let (word, value_flags) = number(&value).unwrap_or_else(|| {
            items.attribute(Name::NONE, &value);
            (0, record_flag::VALUE_ITEM)
        });
        attributes(items);
        write_items(t, lane, path, (word, value_flags), items);
    });
}

/// Writes a metric event whose items are complete.
fn write_items(t: &Block, lane: &Lane, path: Path, (word, value_flags): (u64, u8), items: &mut ItemBuffer) {
    if items.dropped() > 0 {
        lane.sink.cut(items.dropped());
    }
    // SAFETY: with a lane the thread is set up: `current` is the base or an open frame.
    let scope: &Frame = unsafe { &*t.current.get() };
    let tick = t.newest_tick();
    let has_items = if items.has_items() { record_flag::ITEMS } else { 0 };
    let flags = value_flags | has_items | buffer::frame_flags(scope);
    let ids = (scope.span.load(Relaxed), scope.root.get());
    let front = metric_front((path, stack::levels(t)), ids, (word, tick), flags);
    let written = buffer::write(lane, front, Some(items));
    if lane.cursor.flags.load(Relaxed) & lane_flag::INLINE != 0 {
        deliver_inline(lane, written.words(), &front.flows());
    }
}

impl Telemetry {
    /// Records a metric event whose name the program makes up at run time.
    pub fn metric<'v>(&self, metric: &str, value: impl Into<Value<'v>>, attributes: &[(&str, Value<'_>)]) {
        block(|t| {
            let Some(lane) = lane(t, Some(self), None) else { return };
            let path = path(path_here(t), checked(lane, metric));
            write_event(t, lane, path, value.into(), |items| {
                attributes.iter().for_each(|(key, value)| items.attribute(name(key), value));
            });
        });
    }
}
