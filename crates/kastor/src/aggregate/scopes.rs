//! Aggregates of scopes: one slot per path, in a few locked shards.
//!
//! A chunk is aggregated when it is retired or claimed, by whoever does that, into the shard of its thread. The number
//! of shards follows the processors, not the threads: ten thousand threads times a histogram each would have no bound.
//! Times are kept in ticks, which is exact, and become nanoseconds when someone reads them. Justified by the `on_scope0`
//! and `on_many_paths` cases of the benchmark.

use std::{cell::Cell, collections::BTreeMap};

use crate::{
    clock::Timeline,
    event::{Buckets, Exemplar, Histogram, JUST_BELOW, ScopeAggregate, Source, bucket_inside},
    name::Path,
    record::{self, Record, Records},
    sync::{Mutex, lock},
};

/// The upper half of a completed scope's first word, without flags or extras.
const PLAIN: u32 = record::upper_head(0, record::TIMING, record::WORDS);
/// The same of a scope with items, without the length.
const WITH_ITEMS: u32 = record::upper_head(record::flag::ITEMS, record::TIMING, 0);

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

/// Slots by path index.
#[derive(Default)]
struct Shard {
    slots: Vec<Option<Box<Slot>>>,
}

/// The sums of one path. Calls are not counted: they are the sum of all buckets.
#[derive(Clone, Default)]
#[repr(C, align(64))]
struct Slot {
    total: u64,
    min: u64,
    /// The longest since the last snapshot; the exemplar's.
    recent_max: u64,
    buckets: Buckets,
    max: u64,
    errors: u64,
    /// Part of the total whose parent is in another flow.
    detached: u64,
    /// Part of the total whose parent has this path too, at the limits of paths.
    nested: u64,
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
            for slot in lock(shard).slots.iter_mut().flatten() {
                merged.entry(slot.path).and_modify(|sum| sum.merge(slot)).or_insert_with(|| (**slot).clone());
                if reset_exemplars {
                    (slot.exemplar, slot.recent_max) = (None, 0);
                }
            }
        }
        let mut children: BTreeMap<Path, u64> = BTreeMap::new();
        for slot in merged.values() {
            if let Some(parent) = slot.path.parent() {
                *children.entry(parent).or_default() += slot.total - (slot.detached + slot.nested).min(slot.total);
            }
            if slot.nested > 0 {
                *children.entry(slot.path).or_default() += slot.nested;
            }
        }
        merged.values().map(|slot| slot.finish(timeline, children.get(&slot.path).copied().unwrap_or(0))).collect()
    }

    /// Calls `f` with the calls of every path in every shard.
    pub(crate) fn each_calls(&self, f: &mut dyn FnMut(Path, u64)) {
        for shard in &self.shards {
            lock(shard).slots.iter().flatten().for_each(|slot| f(slot.path, slot.calls()));
        }
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
        let ns_per_tick = source.timeline().ns_per_tick() * JUST_BELOW;
        let (counting, mut rest) = (Counting::default(), records);
        loop {
            let mut plain = 0;
            // The usual record, again and again.
            for words in rest.chunks_exact(record::WORDS) {
                let Ok(words) = <&[u64; record::WORDS]>::try_from(words) else { break };
                let (halves, _) = record::parts(words);
                let slot = self.slots.get_mut(halves[0] as usize).and_then(Option::as_deref_mut);
                let (Some(slot), PLAIN) = (slot, halves[1]) else { break };
                slot.add(halves[5].into(), ns_per_tick, words, source);
                plain += 1;
            }
            counting.timings.set(counting.timings.get() + plain as u64);
            rest = rest.get(plain * record::WORDS..).unwrap_or(&[]);
            rest = self.absorb_items(rest, ns_per_tick, &counting, source);
            let mut records = Records(rest);
            let Some(record) = records.next() else { return counting.counted() };
            rest = records.0;
            self.absorb_any(&record, ns_per_tick, &counting, source);
        }
    }

    /// Completed scopes with items, and metrics; returns what begins with another record.
    #[inline(never)]
    fn absorb_items<'r>(
        &mut self,
        rest: &'r [u64],
        ns_per_tick: f64,
        counting: &Counting,
        source: &Source<'_>,
    ) -> &'r [u64] {
        let mut at = rest.as_ptr();
        // Words behind the fixed part of the record at `at`; negative at the end.
        let mut behind = rest.len() as isize - record::WORDS as isize;
        while behind >= 0 {
            // SAFETY: so many words are left of the slice.
            let words = unsafe { &*at.cast::<[u64; record::WORDS]>() };
            let (halves, quarters) = record::parts(words);
            let (kind, len) = (u32::from(quarters[2]), usize::from(quarters[3]));
            // Both at once: a record that is too long, or shorter than its fixed part.
            if len.wrapping_sub(record::WORDS) > behind as usize {
                break;
            }
            if kind == WITH_ITEMS {
                let slot = self.slots.get_mut(halves[0] as usize).and_then(Option::as_deref_mut);
                let Some(slot) = slot else { break };
                slot.add(halves[5].into(), ns_per_tick, words, source);
                counting.timings.set(counting.timings.get() + 1);
            } else if kind >> 8 == u32::from(record::METRIC) {
                counting.metrics.set(counting.metrics.get() + 1);
            } else {
                break;
            }
            at = at.wrapping_add(len);
            behind -= len as isize;
        }
        rest.get((at.addr() - rest.as_ptr().addr()) / 8..).unwrap_or(&[])
    }

    /// A record with flags or extras, or the first of its path.
    #[inline(never)]
    fn absorb_any(&mut self, record: &Record<'_>, ns_per_tick: f64, counting: &Counting, source: &Source<'_>) {
        if record.kind() != record::TIMING {
            return counting.metrics.set(counting.metrics.get() + 1);
        }
        counting.timings.set(counting.timings.get() + 1);
        let index = record.path().index() as usize;
        if self.slots.len() <= index {
            self.slots.resize_with((index + 1).next_power_of_two(), || None);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            let slot = slot.get_or_insert_with(|| Box::new(Slot::new(record.path())));
            slot.add(record.duration(), ns_per_tick, record.fixed_words(), source);
            slot.errors += u64::from(record.has(record::flag::FAILED));
            if record.has(record::flag::DETACHED) {
                slot.detached += record.duration();
            } else if record.has(record::flag::DEEPER) && record.depth() >= slot.path.levels() {
                slot.nested += record.duration();
            }
        }
    }
}

/// What was found so far. Cells, because they stay in memory: kept in registers, the loops above have too few of them.
#[derive(Default)]
struct Counting {
    timings: Cell<u64>,
    metrics: Cell<u64>,
}

impl Counting {
    fn counted(&self) -> Counted {
        Counted { timings: self.timings.get(), metrics: self.metrics.get() }
    }
}

impl Slot {
    fn new(path: Path) -> Self {
        Self { path, min: u64::MAX, ..Self::default() }
    }

    #[inline(always)]
    fn add(&mut self, duration: u64, ns_per_tick: f64, words: &[u64; record::WORDS], source: &Source<'_>) {
        self.total += duration;
        if duration < self.min {
            self.min = duration;
        }
        if duration > self.recent_max {
            self.exceed(words, duration, source);
        }
        // Zero ticks have no logarithm: their bucket lies outside, where it is set right.
        self.buckets.add(bucket_inside((duration as i64) as f64 * ns_per_tick));
    }

    #[cold]
    #[inline(never)]
    fn exceed(&mut self, words: &[u64; record::WORDS], duration: u64, source: &Source<'_>) {
        self.recent_max = duration;
        self.max = self.max.max(duration);
        let record = Record::fixed(words);
        let (trace_id, span_id) = (source.trace_id(&record), source.span_id(&record, record.span()));
        self.exemplar = Some(TickExemplar { start: record.start(), duration, trace_id, span_id });
    }

    fn calls(&self) -> u64 {
        self.buckets.counts().iter().sum()
    }

    fn merge(&mut self, other: &Slot) {
        self.total += other.total;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.errors += other.errors;
        self.detached += other.detached;
        self.nested += other.nested;
        if other.recent_max > self.recent_max {
            (self.recent_max, self.exemplar) = (other.recent_max, other.exemplar);
        }
        self.buckets.merge(&other.buckets);
    }

    fn finish(&self, timeline: &Timeline, children: u64) -> ScopeAggregate {
        let ns = |ticks| timeline.duration_ns(ticks);
        let float = |ticks| ns(ticks) as f64;
        let (total, min, max) = (float(self.total), float(self.min), float(self.max));
        let durations_ns = Histogram::from_buckets(self.buckets.clone(), total, min, max);
        ScopeAggregate {
            path: self.path,
            calls: durations_ns.count(),
            errors: self.errors,
            total_ns: ns(self.total),
            self_ns: ns(self.total.saturating_sub(children)),
            durations_ns,
            exemplar: self.exemplar.map(|found| Exemplar {
                value: float(found.duration),
                unix_ns: timeline.unix_ns(found.start.saturating_add(found.duration)),
                trace_id: found.trace_id,
                span_id: found.span_id,
            }),
        }
    }
}
