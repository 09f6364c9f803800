//! Records and sums that were kept, made into batches and snapshots again: in another process, at another time.
//!
//! A [`Kept`] knows what the numbers in the records of one process stood for. Names and paths are interned here anew, so
//! that an event from a capture is the same type as one from this process, and every reporter and encoder takes it. The
//! limits of names and paths hold for all processes that are replayed together: what finds no room shares the path
//! `(overflow)`, and is counted.
//!
//! The bytes may come from anywhere. Each record is rebuilt from what could be understood of it: one that is no record
//! ends the batch, items that are cut short or unknown are left out, and no more than 256 items of a record are taken.

use std::{collections::HashMap, sync::Arc};

use kastor::{
    Anchor, Batch, Buckets, Exemplar, Histogram, MetricType, Number, Process, ScopeAggregate, SeriesAggregate,
    Snapshot, Stats, Timeline, Value,
    kept::{Name, Path, Thread, name, path, push_value},
};

use super::record::{FLOW_BYTES, Item, Items, MAX_FLOWS, MAX_ITEMS, METRIC, Raw, RawRecords, TIMING, tag};

/// Above every scope.
const ROOT: Path = Path(0);
/// Marks the number of a path that ends at the limits.
const DEEPER_BIT: u32 = 1 << 31;
/// The name of such a path.
const DEEPER: Name = Name(3);
/// What a name or path has become that found no room.
const OVERFLOW: Name = Name(1);
/// Most values of a kept histogram: so many of these can be merged that sums cannot overflow.
const MAX_KEPT: u64 = 1 << 48;
/// Most buckets on one side of it, as the core keeps them.
const MAX_BUCKETS: usize = 1280;
/// The buckets of the smallest and the largest floating-point numbers.
const BUCKETS: (i32, i32) = (-1022 * 8 - 9, 1024 * 8);
/// What a number stands for that nothing was told of.
const UNKNOWN: &str = "(unknown)";

/// What is needed to hand one process's kept records to reporters again.
///
/// [`Replay`](super::Replay) feeds it from a file.
#[derive(Debug, Default)]
pub struct Kept {
    process: Process,
    names: HashMap<u32, Name>,
    paths: HashMap<u32, Path>,
    threads: HashMap<u32, Arc<Thread>>,
    /// Paths by their text, for sums, which name theirs by text; and those whose text nobody asked for yet.
    by_text: HashMap<&'static str, Path>,
    without_text: Vec<Path>,
    without_room: u64,
    words: Vec<u64>,
    flows: Vec<u64>,
    scopes: Vec<ScopeAggregate>,
    series: Vec<SeriesAggregate>,
}

/// Records of one thread as they were kept, in the layout of `docs/format.md`, and what they need to be understood.
#[derive(Clone, Copy, Debug)]
pub struct KeptRecords<'a> {
    /// The thread's number; see [`Kept::thread`].
    pub thread: u32,
    /// The thread's prefix, from which the ids follow.
    pub id_prefix: u64,
    /// What one tick meant in time.
    pub anchor: Anchor,
    /// Nanoseconds in a tick.
    pub ns_per_tick: f64,
    /// As [`Batch::record_bytes`] had them.
    pub records: &'a [u8],
    /// As [`Batch::flow_bytes`] had them.
    pub flows: &'a [u8],
}

/// The sums of one path as they were kept.
#[derive(Clone, Debug)]
pub struct KeptScope<'a> {
    /// The full path.
    pub path: &'a str,
    /// How many scopes closed.
    pub calls: u64,
    /// How many of them failed.
    pub errors: u64,
    /// Sum of the durations.
    pub total_ns: u64,
    /// The total without the children's.
    pub self_ns: u64,
    /// The distribution of the durations, in nanoseconds.
    pub durations_ns: Histogram,
    /// The longest call of the interval.
    pub exemplar: Option<Exemplar>,
}

/// The sums of one series as they were kept.
#[derive(Clone, Debug)]
pub struct KeptSeries<'a> {
    /// The path of the enclosing scope and the metric's name.
    pub path: &'a str,
    /// Keys and values.
    pub labels: Vec<(&'a str, Value<'a>)>,
    /// The instrument.
    pub metric_type: MetricType,
    /// How often it was recorded.
    pub calls: u64,
    /// Sum of what was recorded.
    pub sum: Number,
    /// Whether no increment was negative.
    pub is_monotonic: bool,
    /// Of a gauge: the newest value.
    pub last: Option<f64>,
    /// Of a gauge or histogram: the smallest and the largest value.
    pub extremes: (Option<f64>, Option<f64>),
    /// Of a histogram: the distribution.
    pub values: Histogram,
    /// The unit, if it was described.
    pub unit: Option<&'a str>,
    /// The help text, if it was described.
    pub help: Option<&'a str>,
}

impl Kept {
    /// A replay of what this process left behind, which knows no numbers yet.
    pub fn new(process: Process) -> Self {
        Self { process, ..Self::default() }
    }

    /// The process whose records are replayed.
    pub fn process(&self) -> Process {
        self.process
    }

    /// What the number of a name or key stands for.
    pub fn name(&mut self, number: u32, text: &str) {
        self.names.insert(number, name(text));
    }

    /// What the number of a path stands for: the path with the number `above` (0: none) and a name. Paths above come first.
    pub fn path(&mut self, number: u32, above: u32, last: &str) {
        let above = if above == 0 { ROOT } else { self.path_of(above) };
        let last = if number & DEEPER_BIT != 0 { DEEPER } else { name(last) };
        let interned = path(above, last);
        // For want of a path, or of a name; one that was called so in its own process has a name of that text.
        self.without_room += u64::from(interned.name() == OVERFLOW);
        self.without_text.push(interned);
        self.paths.insert(number, interned);
    }

    /// Who the thread with this number is. A thread that nothing was told of has no name.
    pub fn thread(&mut self, index: u32, os_id: u64, name: &str) {
        self.threads.insert(index, Arc::new(Thread::kept(index, os_id, name)));
    }

    /// How many paths found no room, and share `(overflow)`.
    pub fn paths_without_room(&self) -> u64 {
        self.without_room
    }

    /// The batch that these records were. Reading it costs what reading one of this process costs.
    pub fn batch(&mut self, kept: &KeptRecords<'_>) -> Batch<'_> {
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        let len = RawRecords(kept.records).map(|record| u64::from(self.push_record(&mut words, &record))).sum();
        self.words = words;
        self.flows.clear();
        self.flows.extend(kept.flows.chunks_exact(FLOW_BYTES).take(MAX_FLOWS).flat_map(words_of));
        let thread = self.threads.entry(kept.thread).or_insert_with(|| Arc::new(Thread::kept(kept.thread, 0, "")));
        let is_slope = kept.ns_per_tick.is_finite() && kept.ns_per_tick > 0.0;
        let timeline = Timeline::new(kept.anchor, if is_slope { kept.ns_per_tick } else { 1.0 });
        Batch::kept((&self.words, &self.flows), len, thread, kept.id_prefix, timeline, self.process)
    }

    /// The snapshot that these sums were; the accounts of its context are gone, so its statistics are empty.
    pub fn snapshot<'k>(
        &mut self,
        (start_unix_ns, unix_ns): (u64, u64),
        scopes: impl IntoIterator<Item = KeptScope<'k>>,
        series: impl IntoIterator<Item = KeptSeries<'k>>,
    ) -> Snapshot<'_> {
        const NO_STATS: fn() -> Stats = Stats::default;
        let scopes = scopes.into_iter().map(|kept| self.scope_aggregate(kept)).collect();
        let series = series.into_iter().map(|kept| self.series_aggregate(kept)).collect();
        (self.scopes, self.series) = (scopes, series);
        let (scopes, series, process) = (&*self.scopes, &*self.series, self.process);
        Snapshot { scopes, series, start_unix_ns, unix_ns, process, stats: &NO_STATS }
    }

    fn scope_aggregate(&mut self, kept: KeptScope<'_>) -> ScopeAggregate {
        ScopeAggregate {
            path: self.path_of_text(kept.path),
            calls: kept.calls,
            errors: kept.errors,
            total_ns: kept.total_ns,
            self_ns: kept.self_ns,
            durations_ns: kept.durations_ns,
            exemplar: kept.exemplar,
        }
    }

    fn series_aggregate(&mut self, kept: KeptSeries<'_>) -> SeriesAggregate {
        let mut labels = Vec::new();
        for (key, value) in kept.labels.iter().take(MAX_ITEMS) {
            push_value(&mut labels, name(key), value);
        }
        let interned = |text: &str| name(text).text();
        SeriesAggregate {
            path: self.path_of_text(kept.path),
            labels: labels.into(),
            metric_type: kept.metric_type,
            calls: kept.calls,
            sum: kept.sum,
            is_monotonic: kept.is_monotonic,
            last: kept.last,
            extremes: kept.extremes,
            values: kept.values,
            unit: kept.unit.map(interned),
            help: kept.help.map(interned),
        }
    }

    fn path_of(&self, number: u32) -> Path {
        self.paths.get(&number).copied().unwrap_or_else(|| path(ROOT, name(UNKNOWN)))
    }

    /// A text that no path was told of is a path of one name.
    fn path_of_text(&mut self, text: &str) -> Path {
        self.by_text.extend(self.without_text.drain(..).map(|path| (path.text(), path)));
        self.by_text.get(text).copied().unwrap_or_else(|| path(ROOT, name(text)))
    }

    /// Appends a record, rebuilt; returns whether it is one.
    fn push_record(&self, words: &mut Vec<u64>, record: &Raw<'_>) -> bool {
        let extras = record.rest.get(..record.extra_bytes());
        let Some(extras) = extras.filter(|_| matches!(record.kind(), TIMING | METRIC)) else { return false };
        let at = words.len();
        words.extend(words_of(record.fixed).chain(words_of(extras)));
        self.push_items(words, record.items(), true);
        let length = (words.len() - at) as u64;
        let kind_and_flags = u64::from(record.kind()) << 8 | u64::from(record.fixed[4] & 0x7f);
        if let Some(first) = words.get_mut(at) {
            *first = u64::from(self.path_of(record.path()).0) | kind_and_flags << 32 | length << 48;
        }
        true
    }

    /// Appends items, rebuilt: never more words than they had. A point event holds attributes alone.
    fn push_items(&self, words: &mut Vec<u64>, items: Items<'_>, is_outermost: bool) {
        for Item { key, tag, payload } in items {
            // Beyond what it takes, a number has nothing to say.
            let kept = match tag {
                tag::NULL | tag::FALSE | tag::TRUE => payload.get(..0),
                tag::I64 | tag::U64 | tag::F64 => payload.get(..8),
                tag::STR | tag::BYTES => Some(payload),
                tag::ERROR if is_outermost => Some(payload),
                tag::LINK if is_outermost => payload.get(..24),
                tag::DROPPED | tag::EVENT if is_outermost => payload.get(..8),
                // A later version's, or a place where a secret was.
                _ => None,
            };
            let Some(kept) = kept else { continue };
            let at = words.len();
            words.push(0);
            words.extend(words_of(kept));
            let mut bytes = kept.len();
            if tag == tag::EVENT {
                self.push_items(words, Items::new(payload.get(8..).unwrap_or(&[])), false);
                bytes = (words.len() - at - 1) * 8;
            }
            if let Some(first) = words.get_mut(at) {
                *first = u64::from(self.key_of(key).0) | u64::from(tag) << 32 | (bytes as u64) << 40;
            }
        }
    }

    fn key_of(&self, number: u32) -> Name {
        match number {
            0..=3 => Name(number),
            _ => self.names.get(&number).copied().unwrap_or_else(|| name(UNKNOWN)),
        }
    }
}

/// A distribution that was kept: the buckets on both sides, each with the number of its first, what had no bucket,
/// the sum of all values and the smallest and largest of them.
///
/// For numbers from anywhere: buckets beyond those of all floating-point numbers, counts beyond 2^48 and extremes
/// that are none are left out.
pub fn kept_histogram(
    [positive, negative]: [(i32, Vec<u64>); 2],
    (zeros, not_finite): (u64, u64),
    sum: f64,
    extremes: Option<(f64, f64)>,
) -> Histogram {
    let mut left = MAX_KEPT;
    let mut take = |count: u64| {
        let taken = count.min(left);
        left -= taken;
        taken
    };
    let zeros = take(zeros);
    let [positive, negative] = [positive, negative].map(|(offset, mut counts)| {
        let (first, last) = (BUCKETS.0, BUCKETS.1 - MAX_BUCKETS as i32);
        counts.truncate(if (first..=last).contains(&offset) { MAX_BUCKETS } else { 0 });
        counts.iter_mut().for_each(|count| *count = take(*count));
        Buckets { offset: if counts.is_empty() { 0 } else { offset }, counts }
    });
    let all = positive.counts.iter().chain(&negative.counts);
    let count = zeros + all.sum::<u64>();
    let is_range = |range: &(f64, f64)| count > 0 && range.0.is_finite() && range.1.is_finite() && range.0 <= range.1;
    let extremes = extremes.filter(is_range);
    let (min, max) = (extremes.map(|range| range.0), extremes.map(|range| range.1));
    let sum = if sum.is_finite() { sum } else { 0.0 };
    Histogram { positive, negative, zeros, count, sum, min, max, not_finite: not_finite.min(MAX_KEPT) }
}

/// Bytes as words, the last one filled up with zeros.
fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks(8).map(|part| {
        let mut word = [0; 8];
        word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(word)
    })
}
