//! Metrics: `count`, `gauge`, `histogram` update cells of this thread; `metric` makes an event.
//!
//! The hot path of `count!` is: is the callsite on, is nothing unusual about the lane, does the slot of this callsite
//! remember a cell for the current path; then two additions without a locked instruction. Justified by the
//! `on_counter*` and `on_metric_event*` cases of the benchmark.

use std::sync::Arc;

use crate::{
    aggregate::Cell,
    buffer::{self, metric_front},
    callsite::{self, Callsite, Key},
    context::{Telemetry, current_lane},
    name::{Name, Path, name, path},
    record::{self, flag as record_flag},
    scope::{checked, deliver_inline, fill, is_awake},
    stack,
    sync::{AtomicU32, Ordering::*},
    thread::{Block, Call, CellWanted, Cursor, Frame, ItemBuffer, Lane, block, flag, lane_flag},
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
        match self {
            Amount::Unsigned(amount) => cell.add_unsigned(amount),
            Amount::Signed(amount) => cell.add_signed(amount),
            Amount::Float(amount) => cell.add_float(amount),
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
    if site.state() != callsite::OFF {
        let is_done = block(|t| record_remembered(t, site, metric_type, amount));
        if !is_done {
            record_cold(None, site, metric_type, amount, &labels(), true);
        }
    }
}

/// Records into the series of a callsite with labels that are made at run time.
#[inline(always)]
pub fn record_dynamic<const N: usize>(
    site: &'static Callsite,
    (metric_type, amount): (MetricType, Amount),
    labels: &[Value<'_>; N],
) {
    let items = fill(site.keys(), labels);
    if items.is_null() {
        // A copy: then the labels themselves need no place in memory on the usual way.
        let labels = *labels;
        record_cold(None, site, metric_type, amount, &labels, false);
    } else {
        record_filled(site, metric_type, amount, items);
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
    match remembered(t, site.index(), || current_path(t)) {
        Some(cell) => {
            amount.record(metric_type, cell, t);
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
        let same = remembered(t, site.index(), || current_path(t)).filter(|cell| *cell.labels == *buffer.items());
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

/// The current scope's path, on a thread with a lane.
#[inline(always)]
fn current_path(t: &Block) -> u32 {
    // SAFETY: with a lane the thread is set up: `current` is the base or an open frame.
    unsafe { &*t.current.get() }.path.load(Relaxed)
}

/// The path that a metric is under; zero before the thread is set up.
fn path_here(t: &Block) -> Path {
    // SAFETY: null before the thread is set up, else the base or an open frame.
    unsafe { t.current.get().as_ref() }.map_or(Path::ROOT, stack::path_below)
}

/// The cell in the slot `index` of the current lane, if that remembers one for `key`.
#[inline(always)]
fn remembered(t: &Block, index: u32, key: impl FnOnce() -> u32) -> Option<&Cell> {
    // SAFETY: the vacant cursor or one of a lane of this thread.
    let cursor = unsafe { &*t.lane.get() };
    if index >= cursor.cells_len.load(Relaxed) {
        return None;
    }
    // SAFETY: within the slots, whose memory the lane keeps.
    let slot = unsafe { &*cursor.cells.get().add(index as usize) };
    // SAFETY: a slot with a key holds a cell that the lane keeps.
    if slot.key == key() { Some(unsafe { slot.cell.cast::<Cell>().as_ref() }) } else { None }
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
    let slot = is_remembered.then(|| (site.index(), current_path(t)));
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

/// Records a plain metric event in the current context.
#[inline(always)]
pub fn event<const N: usize>(site: &'static Callsite, value: Value<'_>, attributes: &[Value<'_>; N]) {
    let Some((word, value_flags)) = number(&value) else { return event_cold(None, site, value, attributes) };
    if N == 0 {
        return event_number(site, word, value_flags);
    }
    let items = fill(site.keys(), attributes);
    if items.is_null() {
        event_cold(None, site, value, attributes)
    } else {
        event_filled(site, word, value_flags, items)
    }
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

/// A number without attributes: the hot half, which leaves by a tail call where anything is unusual.
#[inline(never)]
fn event_number(site: &'static Callsite, word: u64, value_flags: u8) {
    block(|t| {
        // SAFETY: the vacant cursor or one of a lane of this thread.
        let cursor = unsafe { &*t.lane.get() };
        if cursor.flags.load(Relaxed) & !lane_flag::HARMLESS_TO_COUNT != 0 {
            return event_number_cold(site, word, value_flags);
        }
        // SAFETY: with a lane the thread is set up: `current` is the base or an open frame.
        let scope = unsafe { &*t.current.get() };
        let position = cursor.position.load(Relaxed);
        match site.cached(scope.path.load(Relaxed)) {
            Some(path) if position <= cursor.last.get() && !scope.has(flag::INHERITED) => {
                let halves = position.cast::<u32>();
                // SAFETY: there is room for four words up to the end, since the position is not beyond `last`; only the
                // owner touches them until they are published by the store below.
                unsafe {
                    halves.write(path.0);
                    halves.add(1).write(record::upper_head(value_flags, record::METRIC, record::WORDS));
                    halves.add(2).write(scope.root.get());
                    halves.add(3).write(scope.span.load(Relaxed));
                    position.add(2).write(word);
                    position.add(3).write(t.last_tick.get().max(scope.start.load(Relaxed)));
                    cursor.position.store(position.add(record::WORDS), Release);
                }
            }
            _ => event_number_cold(site, word, value_flags),
        }
    });
}

/// A number with attributes that were filled in already.
#[inline(never)]
fn event_filled(site: &'static Callsite, word: u64, value_flags: u8, items: *mut ItemBuffer) {
    block(|t| {
        // SAFETY: filled for this call, and given back below.
        let buffer = unsafe { &mut *items };
        // SAFETY: the vacant cursor or one of a lane of this thread.
        let cursor = unsafe { &*t.lane.get() };
        if cursor.flags.load(Relaxed) & !lane_flag::HARMLESS_TO_COUNT != 0
            || !write_filled(t, cursor, site, word, value_flags, buffer)
        {
            if let Some(lane) = lane(t, None, Some(site)) {
                let path = remembered_path(t, site);
                write_items(t, lane, path, (word, value_flags), buffer);
            }
        }
        buffer.clear();
        buffer.next = t.items.get();
        t.items.set(items);
    });
}

#[inline(always)]
fn write_filled(t: &Block, cursor: &Cursor, site: &Callsite, word: u64, value_flags: u8, items: &ItemBuffer) -> bool {
    // SAFETY: with a lane the thread is set up: `current` is the base or an open frame.
    let scope = unsafe { &*t.current.get() };
    let position = cursor.position.load(Relaxed);
    let Some(path) = site.cached(scope.path.load(Relaxed)) else { return false };
    // Pairs are copied: there has to be room for one word more.
    let room = (cursor.last.get() as isize).wrapping_sub(position as isize);
    if room <= (items.item_words() * 8) as isize || scope.has(flag::INHERITED) {
        return false;
    }
    let words = record::WORDS + items.item_words();
    // SAFETY: there is room for all words up to the end; only the owner touches them until they are published.
    unsafe {
        position.write(record::head(path, value_flags | record_flag::ITEMS, record::METRIC, words));
        position.add(1).write(record::pair(scope.root.get(), scope.span.load(Relaxed)));
        position.add(2).write(word);
        position.add(3).write(t.last_tick.get().max(scope.start.load(Relaxed)));
        items.copy_to(position.add(record::WORDS));
        cursor.position.store(position.add(words), Release);
    }
    true
}

/// The path of a callsite's metric under the current scope; the callsite remembers the first.
fn remembered_path(t: &Block, site: &'static Callsite) -> Path {
    let parent = path_here(t);
    let path = path(parent, site.name());
    if parent.0 == current_path(t) {
        site.remember(parent.0, path);
    }
    path
}

#[cold]
#[inline(never)]
fn event_number_cold(site: &'static Callsite, word: u64, value_flags: u8) {
    let value = match value_flags {
        record_flag::VALUE_U64 => Value::U64(word),
        record_flag::VALUE_I64 => Value::I64(word as i64),
        _ => Value::F64(f64::from_bits(word)),
    };
    event_cold(None, site, value, &[]);
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

    /// A counter under the current path, with fixed labels.
    pub fn counter(&self, metric: &str, labels: &[(&str, Value<'_>)]) -> Counter {
        Counter(Handle::new(self, metric, MetricType::Counter, labels))
    }

    /// A gauge under the current path, with fixed labels.
    pub fn gauge(&self, metric: &str, labels: &[(&str, Value<'_>)]) -> Gauge {
        Gauge(Handle::new(self, metric, MetricType::Gauge, labels))
    }

    /// A histogram under the current path, with fixed labels.
    pub fn histogram(&self, metric: &str, labels: &[(&str, Value<'_>)]) -> Histogram {
        Histogram(Handle::new(self, metric, MetricType::Histogram, labels))
    }
}

/// Adds to one series. Cheap to clone, and to use from any thread.
#[derive(Clone)]
pub struct Counter(Handle);

impl Counter {
    /// Adds an increment. A negative one makes the series no longer monotonic.
    #[inline]
    pub fn add(&self, increment: impl Into<Amount>) {
        self.0.record(increment.into());
    }
}

/// Sets one series. Cheap to clone, and to use from any thread.
#[derive(Clone)]
pub struct Gauge(Handle);

impl Gauge {
    /// Sets the current value.
    #[inline]
    pub fn set(&self, value: impl Into<Amount>) {
        self.0.record(value.into());
    }
}

/// Collects a distribution in one series. Cheap to clone, and to use from any thread.
#[derive(Clone)]
pub struct Histogram(Handle);

impl Histogram {
    /// Adds a value.
    #[inline]
    pub fn record(&self, value: impl Into<Amount>) {
        self.0.record(value.into());
    }
}

#[derive(Clone)]
struct Handle {
    /// Index of the slot in every lane, and the key there. At hand for the hot path.
    index: u32,
    serial: u32,
    metric_type: MetricType,
    bound: Option<Arc<Bound>>,
}

struct Bound {
    telemetry: Telemetry,
    path: Path,
    depth: u32,
    labels: Box<[u64]>,
    index: u32,
}

/// No two handles share a serial; bit 31 keeps them apart from paths.
static NEXT_SERIAL: AtomicU32 = AtomicU32::new(0);

impl Drop for Bound {
    fn drop(&mut self) {
        callsite::give_back_index(self.index);
    }
}

impl Handle {
    fn new(telemetry: &Telemetry, metric: &str, metric_type: MetricType, labels: &[(&str, Value<'_>)]) -> Self {
        let bound = block(|t| {
            let lane = lane(t, Some(telemetry), None)?;
            let path = path(path_here(t), checked(lane, metric));
            with_items(t, &[], &[], |items| {
                labels.iter().for_each(|(key, value)| items.attribute(name(key), value));
                let index = callsite::take_index();
                let (telemetry, depth) = (telemetry.clone(), stack::levels(t));
                Some(Arc::new(Bound { telemetry, path, depth, labels: items.items().into(), index }))
            })
        });
        let serial = NEXT_SERIAL.fetch_add(1, Relaxed) & !(1 << 31) | 1 << 31;
        Self { index: bound.as_ref().map_or(u32::MAX, |bound| bound.index), serial, metric_type, bound }
    }

    #[inline]
    fn record(&self, amount: Amount) {
        block(|t| match remembered(t, self.index, || self.serial) {
            Some(cell) => amount.record(self.metric_type, cell, t),
            None => self.record_cold(t, amount),
        });
    }

    #[cold]
    #[inline(never)]
    fn record_cold(&self, t: &Block, amount: Amount) {
        let Some(bound) = &self.bound else { return };
        // SAFETY: the vacant cursor or one of a lane of this thread.
        if unsafe { &*t.lane.get() }.flags.load(Relaxed) & lane_flag::VACANT != 0 {
            // Where the handle's context is the current one, the hot path finds its lane from now on.
            current_lane(t);
        }
        let Some(lane) = lane(t, Some(&bound.telemetry), None) else { return };
        let Bound { path, depth, ref labels, index, .. } = **bound;
        let slot = Some((index, self.serial));
        let wanted = CellWanted { path, metric_type: self.metric_type, labels, slot };
        record_in_lane(t, lane, &wanted, depth, amount);
    }
}
