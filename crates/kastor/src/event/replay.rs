//! Records that were kept, made into batches again: in another process, at another time.
//!
//! A [`Replay`] knows what the numbers in the records of one process stood for. Names and paths are interned here anew, so
//! that an event from a capture is the same type as one from this process, and every reporter and encoder takes it. The
//! limits of names and paths hold for all processes that are replayed together: what finds no room shares the path
//! `(overflow)`, and is counted.
//!
//! The bytes may come from anywhere. Each record is rebuilt from what could be understood of it: one that is no record
//! ends the batch, items that are cut short or unknown are left out, and no more than 256 items of a record are taken.

use std::{collections::HashMap, sync::Arc};

use super::{
    batch::{Batch, BatchFacts, Process},
    histogram::Histogram,
    snapshot::{Exemplar, Number, ScopeAggregate, SeriesAggregate, Snapshot},
};
use crate::{
    clock::{Anchor, Timeline},
    health::Stats,
    name::{Name, Path, name, path},
    record::{METRIC, TIMING, WORDS, flag, head},
    sampler::Sampler,
    thread::{FLOW_WORDS, Part, Thread},
    value::{self, MetricType, Value, push_value, tag},
};

/// Items of one record, or of one point event, that are taken.
const MAX_ITEMS: usize = 256;
/// Flows of one batch that are taken; a chunk has no room for more.
const MAX_FLOWS: usize = 2048;
/// Marks the number of a path that ends at the limits.
const DEEPER_BIT: u32 = 1 << 31;
/// What a number stands for that nothing was told of.
const UNKNOWN: &str = "(unknown)";

/// What is needed to hand one process's kept records to reporters again.
///
/// For captures: `kastor_export::capture::Replay` feeds it from a file.
#[derive(Debug, Default)]
pub struct Replay {
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
    items: Vec<u64>,
    scopes: Vec<ScopeAggregate>,
    series: Vec<SeriesAggregate>,
}

/// Records of one thread as they were kept, in the layout of `docs/format.md`, and what they need to be understood.
#[derive(Clone, Copy, Debug)]
pub struct KeptRecords<'a> {
    /// The thread's number; see [`Replay::thread`].
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

impl Replay {
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
        let above = if above == 0 { Path::ROOT } else { self.path_of(above) };
        let last = if number & DEEPER_BIT != 0 { Name::DEEPER } else { name(last) };
        let interned = path(above, last);
        // For want of a path, or of a name; one that was called so in its own process has a name of that text.
        self.without_room += u64::from(interned.name() == Name::OVERFLOW);
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
        let (mut rest, mut len) = (kept.records, 0);
        while let Some((record, after)) = next_record(rest) {
            len += u64::from(self.push_record(&mut words, record));
            rest = after;
        }
        self.words = words;
        self.flows.clear();
        let flows = kept.flows.chunks_exact(FLOW_WORDS * 8).take(MAX_FLOWS);
        self.flows.extend(flows.flat_map(|flow| flow.chunks_exact(8)).map(|word| word_at(word, 0)));
        let thread = self.threads.entry(kept.thread).or_insert_with(|| Arc::new(Thread::kept(kept.thread, 0, "")));
        let is_slope = kept.ns_per_tick.is_finite() && kept.ns_per_tick > 0.0;
        let timeline = Timeline::new(kept.anchor, if is_slope { kept.ns_per_tick } else { 1.0 });
        let part = Part { records: &self.words, flows: &self.flows, thread, prefix: kept.id_prefix };
        Batch::new(part, len, BatchFacts { timeline, process: self.process, sampler: Sampler::ALWAYS })
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
        self.paths.get(&number).copied().unwrap_or_else(|| path(Path::ROOT, name(UNKNOWN)))
    }

    /// A text that no path was told of is a path of one name.
    fn path_of_text(&mut self, text: &str) -> Path {
        self.by_text.extend(self.without_text.drain(..).map(|path| (path.text(), path)));
        self.by_text.get(text).copied().unwrap_or_else(|| path(Path::ROOT, name(text)))
    }

    /// Appends a record, rebuilt; returns whether it is one.
    fn push_record(&mut self, words: &mut Vec<u64>, record: &[u8]) -> bool {
        let first = word_at(record, 0);
        let (kind, flags) = ((first >> 40) as u8, (first >> 32) as u8 & 0x7f);
        if kind != TIMING && kind != METRIC {
            return false;
        }
        let is_long = kind == TIMING && flags & flag::LONG != 0;
        let extras = usize::from(is_long) + usize::from(flags & flag::DEEPER != 0);
        let Some(items) = record.get((WORDS + extras) * 8..) else { return false };
        let mut rebuilt = std::mem::take(&mut self.items);
        rebuilt.clear();
        if flags & flag::ITEMS != 0 {
            self.push_items(&mut rebuilt, items, true);
        }
        let length = WORDS + extras + rebuilt.len();
        words.push(head(self.path_of(first as u32), flags, kind, length));
        words.extend((1..WORDS + extras).map(|at| word_at(record, at * 8)));
        words.extend_from_slice(&rebuilt);
        self.items = rebuilt;
        true
    }

    /// Appends items, rebuilt: never more words than they had. A point event holds attributes alone.
    fn push_items(&self, words: &mut Vec<u64>, items: &[u8], is_outermost: bool) {
        for (key, tag, payload) in ItemsOf(items).take(MAX_ITEMS) {
            let key = match key {
                0..=3 => Name(key),
                _ => self.names.get(&key).copied().unwrap_or_else(|| name(UNKNOWN)),
            };
            match tag {
                tag::NULL | tag::FALSE | tag::TRUE => words.push(value::head(key, tag, 0)),
                tag::I64 | tag::U64 | tag::F64 => push_words(words, key, tag, payload, 1),
                tag::STR | tag::BYTES => {
                    value::push_bytes(words, key, tag, payload, payload.len());
                }
                tag::ERROR if is_outermost => {
                    value::push_bytes(words, Name::NONE, tag, payload, payload.len());
                }
                tag::LINK if is_outermost => push_words(words, Name::NONE, tag, payload, 3),
                tag::DROPPED if is_outermost => push_words(words, Name::NONE, tag, payload, 1),
                tag::EVENT if is_outermost && payload.len() >= 8 => {
                    let at = words.len();
                    words.extend([0, word_at(payload, 0)]);
                    self.push_items(words, payload.get(8..).unwrap_or(&[]), false);
                    let bytes = (words.len() - at - 1) * 8;
                    if let Some(first) = words.get_mut(at) {
                        *first = value::head(key, tag, bytes);
                    }
                }
                // A later version's, or a place where a secret was.
                _ => {}
            }
        }
    }
}

/// A number's item; one whose payload is shorter is left out.
fn push_words(words: &mut Vec<u64>, key: Name, tag: u8, payload: &[u8], number: usize) {
    if payload.len() >= number * 8 {
        words.push(value::head(key, tag, number * 8));
        words.extend((0..number).map(|at| word_at(payload, at * 8)));
    }
}

/// The record that `bytes` begin with, and what follows it.
fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = (word_at(bytes, 0) >> 48) as usize;
    if length < WORDS { None } else { bytes.split_at_checked(length * 8) }
}

/// The word at `at`; zero where the bytes end before.
fn word_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

/// Key, tag and payload of each item, as far as they are whole.
struct ItemsOf<'a>(&'a [u8]);

impl<'a> Iterator for ItemsOf<'a> {
    type Item = (u32, u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (first, rest) = self.0.split_first_chunk::<8>()?;
        let first = u64::from_le_bytes(*first);
        let bytes = (first >> 40) as usize;
        let payload = rest.get(..bytes)?;
        self.0 = rest.get(bytes.next_multiple_of(8)..).unwrap_or(&[]);
        Some((first as u32, (first >> 32) as u8, payload))
    }
}
