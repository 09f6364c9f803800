//! Aggregates of scopes: one slot per path, in a few locked shards.
//!
//! A chunk is aggregated when it is retired or claimed, by whoever does that, into the shard of its thread. The number
//! of shards follows the processors, not the threads: ten thousand threads times a histogram each would have no bound.
//! Times are kept in ticks, which is exact, and become nanoseconds when someone reads them. Justified by the `on_scope0`
//! and `on_many_paths` cases of the benchmark.

use std::{collections::BTreeMap, sync::Mutex};

use crate::{
    clock::Timeline,
    event::{
        Buckets, Exemplar, Histogram, ScopeAggregate, Source, bucket,
        },
    name::Path,
    record::{self, Record, Records},
    sync::lock,
};

/// What a run of records held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) timings: u64,
    pub(crate) metrics: u64,
}

/// All shards of one context.
pub(crate) struct Shards {
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Default)]
struct Shard {
    /// Slot number plus one, by path index.
    index: Vec<u32>,
    slots: Vec<Slot>,
}

#[derive(Clone)]
#[repr(align(64))]
struct Slot {
    calls: u64,
    total: u64,
    min: u64,
    /// The longest since the last snapshot; the exemplar's.
    recent_max: u64,
    buckets: Buckets,
    max: u64,
    errors: u64,
    /// Part of the total whose parent is in another flow.
    detached: u64,
    path: Path,
    exemplar: Option<TickExemplar>,
}

#[derive(Clone, Copy)]
struct TickExemplar {
    start: u64,
    duration: u64,
    trace_id: u128,
    span_id: u64,
}

impl Shards {
    pub(crate) fn new(shards: usize) -> Self {
        Self { shards: (0..shards.max(1)).map(|_| Mutex::default()).collect() }
    }

    /// Adds the records; `thread` chooses the shard.
    pub(crate) fn absorb(&self, thread: u32, records: &[u64], source: &Source<'_>) -> Counted {
        match self.shards.get(thread as usize % self.shards.len()) {
            Some(shard) => lock(shard).absorb(records, source),
            None => Counted::default(),
        }
    }

    /// The sums over all shards, by path. With `reset_exemplars` the next exemplar of each path starts anew.
    pub(crate) fn collect(&self, timeline: &Timeline, reset_exemplars: bool) -> Vec<ScopeAggregate> {
        let mut merged: BTreeMap<Path, Slot> = BTreeMap::new();
        for shard in &self.shards {
            for slot in &mut lock(shard).slots {
                merged.entry(slot.path).and_modify(|sum| sum.merge(slot)).or_insert_with(|| slot.clone());
                if reset_exemplars {
                    (slot.exemplar, slot.recent_max) = (None, 0);
                }
            }
        }
        let mut children: BTreeMap<Path, u64> = BTreeMap::new();
        for slot in merged.values() {
            let parent = if slot.path.is_deeper() { None } else { slot.path.parent() };
            if let Some(parent) = parent {
                *children.entry(parent).or_default() += slot.total - slot.detached.min(slot.total);
            }
        }
        merged.values().map(|slot| slot.finish(timeline, children.get(&slot.path).copied().unwrap_or(0))).collect()
    }

    /// Holds every shard still, for a fork.
    pub(crate) fn hold(&self) -> Vec<std::sync::MutexGuard<'_, impl Sized>> {
        self.shards.iter().map(lock).collect()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.shards.iter().for_each(|shard| *lock(shard) = Shard::default());
    }
}

impl Shard {
    fn absorb(&mut self, records: &[u64], source: &Source<'_>) -> Counted {
        let ns_per_tick = source.timeline.ns_per_tick();
        let mut counted = Counted::default();
        for record in Records(records) {
            if record.kind() != record::TIMING {
                counted.metrics += 1;
                continue;
            }
            counted.timings += 1;
            let duration = record.duration();
            let slot = self.slot(record.path());
            slot.calls += 1;
            slot.total += duration;
            if duration < slot.min {
                slot.min = duration;
            }
            if duration > slot.recent_max {
                slot.exceed(&record, duration, source);
            }
            // The low exponent end of f64 is far below a tick; zero ticks count as one nanosecond's bucket.
            slot.buckets.add(bucket((duration.max(1) as i64) as f64 * ns_per_tick));
            if record.has(record::flag::FAILED | record::flag::DETACHED) {
                slot.note(&record, duration);
            }
        }
        counted
    }

    #[inline(always)]
    fn slot(&mut self, path: Path) -> &mut Slot {
        let number = match self.index.get(path.index() as usize) {
            Some(&number) if number != 0 => number as usize - 1,
            _ => self.add(path),
        };
        &mut self.slots[number]
    }

    #[cold]
    fn add(&mut self, path: Path) -> usize {
        let index = path.index() as usize;
        if self.index.len() <= index {
            self.index.resize((index + 1).next_power_of_two(), 0);
        }
        self.slots.push(Slot::new(path));
        self.index[index] = self.slots.len() as u32;
        self.slots.len() - 1
    }
}

impl Slot {
    fn new(path: Path) -> Self {
        Self {
            calls: 0,
            total: 0,
            min: u64::MAX,
            recent_max: 0,
            buckets: Buckets::default(),
            max: 0,
            errors: 0,
            detached: 0,
            path,
            exemplar: None,
        }
    }

    #[cold]
    fn exceed(&mut self, record: &Record<'_>, duration: u64, source: &Source<'_>) {
        self.recent_max = duration;
        self.max = self.max.max(duration);
        let (trace_id, span_id) = (source.trace_id(record), source.span_id(record, record.span()));
        self.exemplar = Some(TickExemplar { start: record.start(), duration, trace_id, span_id });
    }

    #[cold]
    fn note(&mut self, record: &Record<'_>, duration: u64) {
        self.errors += u64::from(record.has(record::flag::FAILED));
        if record.has(record::flag::DETACHED) {
            self.detached += duration;
        }
    }

    fn merge(&mut self, other: &Slot) {
        self.calls += other.calls;
        self.total += other.total;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.errors += other.errors;
        self.detached += other.detached;
        if other.recent_max > self.recent_max {
            (self.recent_max, self.exemplar) = (other.recent_max, other.exemplar);
        }
        self.buckets.merge(&other.buckets);
    }

    fn finish(&self, timeline: &Timeline, children: u64) -> ScopeAggregate {
        let ns = |ticks| timeline.duration_ns(ticks);
        let seconds = |ticks| ns(ticks) as f64;
        let durations = Histogram::from_buckets(
            self.buckets.clone(),
            0,
            self.calls,
            seconds(self.total),
            seconds(self.min),
            seconds(self.max),
        );
        ScopeAggregate {
            path: self.path,
            calls: self.calls,
            errors: self.errors,
            total_ns: ns(self.total),
            self_ns: ns(self.total.saturating_sub(children)),
            durations_ns: durations,
            exemplar: self.exemplar.map(|found| Exemplar {
                value: seconds(found.duration),
                unix_ns: timeline.unix_ns(found.start.saturating_add(found.duration)),
                trace_id: found.trace_id,
                span_id: found.span_id,
            }),
        }
    }
}
