//! Metric series: one per instrument, path and set of labels, bounded per instrument and per process.
//!
//! Every thread has cells of its own (see [`super::cell`]); reading a series adds them up. A thread that ends, or that
//! has too many cells, folds them into the series. Beyond the bound a series with the one label `kastor.overflow` takes
//! the rest, with exact sums.

use std::{
    any::Any,
    cell::RefCell,
    cmp::Ordering,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ptr::NonNull,
    sync::Arc,
};

use super::cell::{Cell, CellSum};
use crate::{
    event::{MetricType, SeriesAggregate},
    name::{Name, Path, hash, name},
    sync::{AtomicU32, Mutex, MutexGuard, Ordering::Relaxed, global, lock},
    thread::{CellSlot, CellWanted, Lane, block},
    value::{Value, as_bytes, push_value},
};

/// Series of one instrument (metric name) that are kept apart.
pub const MAX_SERIES_PER_INSTRUMENT: u32 = 2_000;
/// Series of one process that are kept apart.
// A model has room for one.
pub const MAX_SERIES: u32 = if cfg!(loom) { 1 } else { 100_000 };

global! {
    /// Series of all contexts.
    static PROCESS_SERIES: AtomicU32 = AtomicU32::new(0);
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    path: Path,
    metric_type: MetricType,
    labels: Box<[u64]>,
}

/// The cells of a series, and what ended threads left.
#[derive(Default)]
struct Series {
    cells: Vec<Arc<Cell>>,
    folded: CellSum,
}

/// All series of one context.
#[derive(Default)]
pub(crate) struct SeriesTable {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    series: HashMap<Key, Series>,
    instruments: HashMap<Name, u32>,
    overflowed: u64,
}

/// A cell with the way back to its series.
struct Membership {
    cell: Arc<Cell>,
    /// What was asked for; the series may be the overflow one.
    path: Path,
    metric_type: MetricType,
    key: Key,
}

/// Cells of one thread in one context.
#[derive(Default)]
struct Members {
    /// What callsites and handles used last, by their index.
    slots: Vec<CellSlot>,
    all: HashMap<u64, Membership, BuildHasherDefault<AsIs>>,
}

// SAFETY: the slots' pointers go to cells that `all` keeps; they are used by the owner's thread alone.
unsafe impl Send for Members {}

/// Cells that a thread keeps in one context; then they are folded into their series, and it starts anew.
const MAX_MEMBERS: usize = 4_096;

impl SeriesTable {
    /// The lane's cell for these labels, made on first use; the slot remembers it. The owner's thread only.
    pub(crate) fn cell(&self, lane: &Lane, wanted: &CellWanted<'_>) -> *const Cell {
        let CellWanted { path, metric_type, labels, slot } = *wanted;
        let at =
            hash(as_bytes(labels)) ^ (u64::from(path.0) << 8 | metric_type as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut cells = lane.cells.borrow_mut();
        let members = cells.get_or_insert_with(|| Box::new(Members::default()));
        let Some(members) = members.downcast_mut::<Members>() else { return std::ptr::null() };
        let known = members.all.get(&at);
        if known.is_none_or(|it| (it.path, it.metric_type, &*it.cell.labels) != (path, metric_type, labels)) {
            let is_collision = known.is_some();
            if is_collision || members.all.len() >= MAX_MEMBERS {
                block(|t| t.hot_slots.clear());
                members.all.drain().for_each(|(_, member)| self.leave(&member));
                members.slots.clear();
            }
            members.all.insert(at, self.join(path, metric_type, labels));
        }
        let cell = members.all.get(&at).map_or(std::ptr::null(), |member| Arc::as_ptr(&member.cell));
        if let (Some((index, key)), Some(cell)) = (slot, NonNull::new(cell.cast_mut())) {
            let index = index as usize;
            if members.slots.len() <= index {
                let empty = CellSlot { key: u32::MAX, cell: NonNull::dangling() };
                members.slots.resize((index + 1).next_power_of_two(), empty);
            }
            if let Some(slot) = members.slots.get_mut(index) {
                *slot = CellSlot { key, cell: cell.cast() };
            }
        }
        lane.cursor.offer(&members.slots);
        cell
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

impl SeriesTable {
    /// A new cell in the series of these labels, or in the overflow series if there is no room for it.
    fn join(&self, path: Path, metric_type: MetricType, labels: &[u64]) -> Membership {
        let mut key = Key { path, metric_type, labels: labels.into() };
        // Interned before the lock: a fork takes the two in the other order.
        let overflow = overflow_labels();
        let mut state = lock(&self.state);
        if !state.series.contains_key(&key) && !state.has_room(path.name()) {
            state.overflowed += 1;
            key.labels = overflow;
        }
        let cell = Arc::new(Cell::new(labels));
        state.series.entry(key.clone()).or_default().cells.push(Arc::clone(&cell));
        Membership { cell, path, metric_type, key }
    }

    /// Takes a cell out again; its sums stay.
    fn leave(&self, membership: &Membership) {
        let mut state = lock(&self.state);
        if let Some(series) = state.series.get_mut(&membership.key) {
            series.cells.retain(|cell| !Arc::ptr_eq(cell, &membership.cell));
            membership.cell.add_to(&mut series.folded);
        }
    }

    /// Takes all cells of a lane out, when its thread ends.
    pub(crate) fn leave_all(&self, cells: &RefCell<Option<Box<dyn Any + Send>>>) {
        let members = cells.take().and_then(|members| members.downcast::<Members>().ok());
        members.iter().flat_map(|members| members.all.values()).for_each(|member| self.leave(member));
    }

    /// Holds the series still, for a fork.
    pub(crate) fn hold(&self) -> MutexGuard<'_, impl Sized> {
        lock(&self.state)
    }

    /// Everything summed up, by path, then labels.
    pub(crate) fn collect(&self, descriptions: &Descriptions) -> Vec<SeriesAggregate> {
        let state = lock(&self.state);
        // Most neighbours are of one path: its text need not be looked at.
        let by_path = |a: Path, b: Path| if a == b { Ordering::Equal } else { a.text().cmp(b.text()) };
        // References are sorted, not the sums, which are many times larger.
        let mut all: Vec<_> = state.series.iter().collect();
        all.sort_unstable_by(|(a, _), (b, _)| {
            by_path(a.path, b.path).then_with(|| (&a.labels, a.metric_type).cmp(&(&b.labels, b.metric_type)))
        });
        let sums = all.into_iter().map(|(key, series)| {
            let mut sum = series.folded.clone();
            series.cells.iter().for_each(|cell| cell.add_to(&mut sum));
            let (unit, help) = descriptions.of(key.path.name());
            SeriesAggregate {
                path: key.path,
                labels: key.labels.clone(),
                metric_type: key.metric_type,
                calls: sum.calls,
                sum: sum.sum(key.metric_type),
                is_monotonic: key.metric_type == MetricType::Counter && !sum.was_negative,
                last: sum.last.filter(|_| key.metric_type == MetricType::Gauge).map(|(_, value)| value),
                extremes: (sum.min.or(sum.values.min()), sum.max.or(sum.values.max())),
                values: sum.values,
                unit,
                help,
            }
        });
        sums.collect()
    }

    /// How many cells went to an overflow series.
    pub(crate) fn overflowed(&self) -> u64 {
        lock(&self.state).overflowed
    }

    /// Forgets all sums; cells in use start anew with their next join.
    pub(crate) fn clear(&self) {
        let mut state = lock(&self.state);
        PROCESS_SERIES.fetch_sub(state.instruments.values().sum::<u32>(), Relaxed);
        *state = State::default();
    }
}

impl State {
    /// Counts a new series in, if both bounds allow it.
    fn has_room(&mut self, instrument: Name) -> bool {
        let of_instrument = self.instruments.entry(instrument).or_default();
        if *of_instrument >= MAX_SERIES_PER_INSTRUMENT {
            return false;
        }
        // In one step: other contexts, under locks of their own, count theirs in too.
        let one_more = |all: u32| (all < MAX_SERIES).then_some(all + 1);
        let has_room = PROCESS_SERIES.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        *of_instrument += u32::from(has_room);
        has_room
    }
}

impl Drop for SeriesTable {
    fn drop(&mut self) {
        self.clear();
    }
}

fn overflow_labels() -> Box<[u64]> {
    let mut labels = Vec::new();
    push_value(&mut labels, name("kastor.overflow"), &Value::Bool(true));
    labels.into()
}

/// Units and help texts by metric name.
#[derive(Default)]
pub(crate) struct Descriptions {
    texts: Mutex<HashMap<Name, (&'static str, &'static str)>>,
}

impl Descriptions {
    /// Names and texts are few and live as long as the process: they are interned like names.
    pub(crate) fn set(&self, metric: &str, unit: &str, help: &str) {
        // Interned before the lock: a fork takes the two in the other order.
        let (metric, texts) = (name(metric), (name(unit).text(), name(help).text()));
        lock(&self.texts).insert(metric, texts);
    }

    /// Holds the texts still, for a fork.
    pub(crate) fn hold(&self) -> MutexGuard<'_, impl Sized> {
        lock(&self.texts)
    }

    fn of(&self, metric: Name) -> (Option<&'static str>, Option<&'static str>) {
        match lock(&self.texts).get(&metric) {
            Some((unit, help)) => (Some(unit), Some(help)),
            None => (None, None),
        }
    }
}
