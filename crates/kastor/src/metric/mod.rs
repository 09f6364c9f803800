//! Metrics: `count`, `gauge`, `histogram` update cells of this thread; `metric` makes an event.
//!
//! The hot path of `count!` is: is the callsite on, does this thread's slot for it remember a cell for the current path;
//! then one addition without a locked instruction. What is not found in the thread's slots (`thread/hot_slots.rs`) may
//! be in those of its lane, then in the table of the lane's cells. Justified by the `on_counter*` cases of the
//! benchmark.

mod event;
mod handle;

use std::{hint::black_box, ptr::NonNull};

pub(crate) use self::event::{number, write_event};
pub use self::{
    event::{event, event_in, is_event_on},
    handle::{Counter, Gauge, Histogram},
};
use crate::{
    aggregate::{Cell, MAX_PACKED},
    buffer,
    callsite::{self, Callsite, Key},
    context::{Telemetry, current_lane},
    name::{Path, path},
    scope::{fill, is_awake},
    stack,
    sync::Ordering::*,
    thread::{Block, Call, CellWanted, Here, ItemBuffer, Lane, block, lane_flag},
    value::{MetricType, Value},
};

/// A number as it is recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// An integer that is not negative.
    Unsigned(u64),
    /// Any integer.
    Signed(i64),
    /// Any number.
    Float(f64),
}

impl Amount {
    #[inline(always)]
    fn add_to(self, cell: &Cell) {
        // Negative ones are large as well.
        let integer = match self {
            Amount::Unsigned(amount) => amount,
            Amount::Signed(amount) => amount as u64,
            Amount::Float(_) => u64::MAX,
        };
        if integer <= MAX_PACKED {
            return cell.add_packed(integer);
        }
        match self {
            Amount::Unsigned(amount) => cell.add_unsigned(amount),
            Amount::Signed(amount) => cell.add_signed(amount),
            Amount::Float(amount) => cell.add_float(amount),
        }
    }

    /// In registers, for calls that are not inlined: an enum would have a place in memory, also where no call is made.
    #[inline(always)]
    fn split(self) -> Split {
        match self {
            Amount::Unsigned(amount) => (0, amount),
            Amount::Signed(amount) => (1, amount as u64),
            Amount::Float(amount) => (2, amount.to_bits()),
        }
    }

    fn joined((kind, word): Split) -> Self {
        match kind {
            0 => Amount::Unsigned(word),
            1 => Amount::Signed(word as i64),
            _ => Amount::Float(f64::from_bits(word)),
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Amount::Unsigned(amount) => amount as f64,
            Amount::Signed(amount) => amount as f64,
            Amount::Float(amount) => amount,
        }
    }

    fn as_value(self) -> Value<'static> {
        match self {
            Amount::Unsigned(amount) => Value::U64(amount),
            Amount::Signed(amount) => Value::I64(amount),
            Amount::Float(amount) => Value::F64(amount),
        }
    }

    #[inline(always)]
    pub(crate) fn record(self, metric_type: MetricType, cell: &Cell, t: &Block) {
        match metric_type {
            MetricType::Counter => self.add_to(cell),
            _ => cell.record(metric_type, self.as_f64(), t.newest_tick()),
        }
    }
}

/// Kind and bits of an amount.
type Split = (u8, u64);

macro_rules! amounts {
    ($($number:ty => $variant:ident as $kept:ty),*) => { $(
        impl From<$number> for Amount {
            #[inline(always)]
            fn from(amount: $number) -> Self {
                Amount::$variant(amount as $kept)
            }
        }
    )* };
}
amounts!(u8 => Unsigned as u64, u16 => Unsigned as u64, u32 => Unsigned as u64, u64 => Unsigned as u64,
    usize => Unsigned as u64, i8 => Signed as i64, i16 => Signed as i64, i32 => Signed as i64, i64 => Signed as i64,
    isize => Signed as i64, f32 => Float as f64, f64 => Float as f64);

/// Records into the series of a callsite: its name under the current path, without labels or with literal ones, which
/// are made only when the series is looked up.
#[inline(always)]
pub fn record_static<'v, const N: usize>(
    site: &'static Callsite,
    (metric_type, amount): (MetricType, Amount),
    labels: impl FnOnce() -> [Value<'v>; N],
) {
    let place = site.hot();
    if place == 0 {
        return;
    }
    let here = Here::new();
    let t = here.block();
    if let Some(cell) = hot_cell(t, place, t.scope().path()) {
        return amount.record(metric_type, cell, t);
    }
    let (kind, word) = amount.split();
    if !record_warm(site, metric_type, kind, word) {
        record_static_cold(site, metric_type, kind, word, &labels());
    }
}

/// A callsite whose slot in the thread's block is empty, or another path's. That of the lane may have what it wants.
#[inline(never)]
fn record_warm(site: &'static Callsite, metric_type: MetricType, kind: u8, word: u64) -> bool {
    block(|t| record_remembered(t, site, metric_type, Amount::joined((kind, word))))
}

#[cold]
#[inline(never)]
fn record_static_cold(site: &'static Callsite, metric_type: MetricType, kind: u8, word: u64, labels: &[Value<'_>]) {
    record_cold(None, site, metric_type, Amount::joined((kind, word)), labels, true);
}

/// Records into the series of a callsite with labels that are made at run time.
#[inline(always)]
pub fn record_dynamic<const N: usize>(
    (site, keys): (&'static Callsite, &'static [Key; N]),
    (metric_type, amount): (MetricType, Amount),
    labels: &[Value<'_>; N],
) {
    let items = fill(keys, labels);
    if items.is_null() {
        // A copy that the compiler cannot see through: then the labels themselves need no place in memory on the usual
        // way.
        let labels = black_box(*labels);
        record_cold(None, site, metric_type, amount, &labels, false);
    } else {
        record_filled(site, metric_type, amount, ItemBuffer::untagged(items));
    }
}

/// The same in a given context.
pub fn record_in(
    telemetry: &Telemetry,
    site: &'static Callsite,
    (metric_type, amount): (MetricType, Amount),
    labels: &[Value<'_>],
) {
    let is_done =
        labels.is_empty() && block(|t| telemetry.is_current(t) && record_remembered(t, site, metric_type, amount));
    if !is_done {
        record_cold(Some(telemetry), site, metric_type, amount, labels, labels.is_empty());
    }
}

/// Records into the cell that the callsite used last under this path, if there is one.
#[inline(always)]
fn record_remembered(t: &Block, site: &'static Callsite, metric_type: MetricType, amount: Amount) -> bool {
    let key = t.scope().path();
    match remembered(t, site.index(), key) {
        Some(cell) => {
            amount.record(metric_type, cell, t);
            if site.index() < callsite::HOT_INDEXES {
                keep_hot(t, site.index(), key, cell);
            }
            true
        }
        None => false,
    }
}

/// The cell that the callsite used last serves again if the labels are the same.
#[inline(never)]
fn record_filled(site: &'static Callsite, metric_type: MetricType, amount: Amount, items: *mut ItemBuffer) {
    block(|t| {
        // SAFETY: filled for this call, and given back below.
        let buffer = unsafe { &mut *items };
        let same = remembered(t, site.index(), t.scope().path()).filter(|cell| *cell.labels == *buffer.items());
        if let Some(cell) = same {
            amount.record(metric_type, cell, t);
        } else {
            if let Some(lane) = lane(t, None, Some(site)) {
                record_items(t, lane, site, metric_type, amount, buffer, true);
            }
        }
        // SAFETY: taken by `fill`, not used any more.
        unsafe { buffer::give_back_items(t, items) };
    });
}

/// The path that a metric is under.
fn path_here(t: &Block) -> Path {
    stack::path_below(t.scope())
}

/// The cell at a callsite's or handle's place in the thread's block, if that remembers one for `key`.
#[inline(always)]
fn hot_cell(t: &Block, place: u32, key: u32) -> Option<&Cell> {
    // SAFETY: the slots of the block hold cells that the current lane keeps.
    t.hot_slots.find(place, key).map(|cell| unsafe { cell.cast::<Cell>().as_ref() })
}

/// Lets the thread's block remember a cell that was found in the current lane.
fn keep_hot(t: &Block, index: u32, key: u32, cell: &Cell) {
    // SAFETY: the vacant cursor or one of a lane of this thread.
    let flags = unsafe { &(*t.lane.get()).flags };
    t.hot_slots
        .fill(index, key, NonNull::from(cell).cast(), || flags.load(Relaxed) & !lane_flag::HARMLESS_TO_COUNT != 0);
}

/// The cell in the slot `index` of the current lane, if that remembers one for `key`.
#[inline(always)]
fn remembered(t: &Block, index: u32, key: u32) -> Option<&Cell> {
    // SAFETY: the vacant cursor or one of a lane of this thread.
    let cursor = unsafe { &*t.lane.get() };
    if index >= cursor.cells_len.load(Relaxed) {
        return None;
    }
    // SAFETY: within the slots, whose memory the lane keeps.
    let slot = unsafe { &*cursor.cells.get().add(index as usize) };
    // SAFETY: a slot with a key holds a cell that the lane keeps.
    if slot.key == key { Some(unsafe { slot.cell.cast::<Cell>().as_ref() }) } else { None }
}

/// This thread's lane into the context, if that is on.
fn lane<'t>(t: &'t Block, telemetry: Option<&Telemetry>, site: Option<&'static Callsite>) -> Option<&'t Lane> {
    if let Some(site) = site {
        if site.state() == callsite::NEW && site.register() == callsite::OFF {
            return None;
        }
    }
    let lane = match telemetry {
        Some(telemetry) => telemetry.lane(t),
        // SAFETY: the vacant cursor or one of a lane of this thread.
        None if unsafe { &*t.lane.get() }.flags.load(Relaxed) & lane_flag::VACANT != 0 => current_lane(t),
        None => Some(t.lane.get().cast()),
    };
    // SAFETY: lanes of this thread live until it ends.
    let lane = lane.and_then(|lane| unsafe { lane.as_ref() })?;
    is_awake(lane).then_some(lane)
}

#[cold]
#[inline(never)]
fn record_cold(
    telemetry: Option<&Telemetry>,
    site: &'static Callsite,
    metric_type: MetricType,
    amount: Amount,
    labels: &[Value<'_>],
    is_static: bool,
) {
    block(|t| {
        let Some(lane) = lane(t, telemetry, Some(site)) else { return };
        let _pin = t.pin();
        with_items(t, site.keys(), labels, |items| {
            record_items(t, lane, site, metric_type, amount, items, is_static);
        });
    });
}

/// Records with labels at hand. The slot of the callsite remembers the cell if `is_remembered`.
fn record_items(
    t: &Block,
    lane: &Lane,
    site: &'static Callsite,
    metric_type: MetricType,
    amount: Amount,
    labels: &ItemBuffer,
    is_remembered: bool,
) {
    let parent = path_here(t);
    let slot = is_remembered.then(|| (site.index(), t.scope().path()));
    let path = path(parent, site.name());
    let wanted = CellWanted { path, metric_type, labels: labels.items(), slot };
    record_in_lane(t, lane, &wanted, stack::levels(t), amount);
}

/// Records into the lane's cell, and serves inline reporters with the call.
pub(crate) fn record_in_lane(t: &Block, lane: &Lane, wanted: &CellWanted<'_>, depth: u32, amount: Amount) {
    let &CellWanted { path, metric_type, labels, .. } = wanted;
    let cell = lane.sink.cell(lane, wanted).cast::<Cell>();
    // SAFETY: the lane keeps the cell while it is one of its members, which only this thread changes.
    if let Some(cell) = unsafe { cell.as_ref() } {
        amount.record(metric_type, cell, t);
    }
    if lane.cursor.flags.load(Relaxed) & lane_flag::INLINE != 0 {
        let _pin = t.pin();
        let (tick, value) = (t.newest_tick(), amount.as_value());
        lane.sink.inline_call(lane, &Call { path, depth, metric_type, value, labels, tick });
    }
}

/// Calls `f` with the values in a buffer.
pub(crate) fn with_items<R>(t: &Block, keys: &[Key], values: &[Value<'_>], f: impl FnOnce(&mut ItemBuffer) -> R) -> R {
    let items = buffer::take_items(t);
    // SAFETY: just taken: user code that runs while a value is printed, or in `f`, gets other buffers.
    let buffer = unsafe { &mut *items };
    for (key, value) in keys.iter().zip(values) {
        buffer.attribute(key.name(), value);
    }
    let result = f(buffer);
    // SAFETY: taken above and not used since.
    unsafe { buffer::give_back_items(t, items) };
    result
}
