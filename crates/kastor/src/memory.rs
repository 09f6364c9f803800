//! The in-memory reporter: what happened, kept for a text report, for a test, or for JSON.
//!
//! It runs inline and keeps the newest entries of every path, with sums over all entries that there ever were. Paths of
//! the same text are one. Readers copy what they need and format outside the lock.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    fmt,
    io::Write as _,
    mem,
    sync::Arc,
    time::Duration,
};

use crate::{
    escape::{escaped, json_number, json_object},
    event::{Attributes, Metric, MetricType, Timing},
    name::{Path, name, path},
    reporter::Reporter,
    sync::{Held, Mutex, lock},
    value::{Value, json_value},
};

/// Timed paths, and metrics, that are kept apart; what comes later is counted under [`OVERFLOW`].
const MAX_PATHS: usize = 10_000;
const OVERFLOW: &str = "(overflow)";
/// Levels of the report that are indented; deeper ones stand below the last.
const MAX_INDENT_LEVELS: usize = 256;

/// Keys and values of one entry: the built-in ones, then the program's in order. A built-in key that the program gave too
/// has the program's value.
pub type Metadata = Vec<(&'static str, OwnedValue)>;

/// An attribute value that owns what it holds. Every value has a place in JSON: bytes are hex text there, NaN and the
/// infinities are text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OwnedValue {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// A floating-point number.
    F64(f64),
    /// Text.
    Text(Cow<'static, str>),
    /// Bytes that are no text.
    Bytes(Vec<u8>),
}

impl OwnedValue {
    fn as_value(&self) -> Value<'_> {
        match self {
            OwnedValue::Null => Value::Null,
            OwnedValue::Bool(value) => Value::Bool(*value),
            OwnedValue::I64(value) => Value::I64(*value),
            OwnedValue::U64(value) => Value::U64(*value),
            OwnedValue::F64(value) => Value::F64(*value),
            OwnedValue::Text(text) => Value::Str(text),
            OwnedValue::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Null => OwnedValue::Null,
            Value::Bool(value) => OwnedValue::Bool(value),
            Value::I64(value) => OwnedValue::I64(value),
            Value::U64(value) => OwnedValue::U64(value),
            Value::F64(value) => OwnedValue::F64(value),
            Value::Bytes(value) => OwnedValue::Bytes(value.to_vec()),
            text => OwnedValue::Text(text.to_string().into()),
        }
    }
}

/// Keeps timings and metrics in memory, for development and tests. Clones share what is kept.
///
/// It is meant to run inline; in the background it would miss `count`, `gauge` and `histogram`.
#[derive(Clone)]
pub struct SimpleReporter {
    state: Arc<Mutex<State>>,
    max_entries: usize,
}

impl SimpleReporter {
    /// Keeps 1,000 entries of every path.
    pub fn new() -> Self {
        Self::with_max_entries_per_scope(1_000)
    }

    /// Keeps the newest `max_entries` of every path; sums go on over all of them.
    pub fn with_max_entries_per_scope(max_entries: usize) -> Self {
        Self { state: Arc::default(), max_entries }
    }

    /// A text for people: the tree of the timings, then the metrics, over everything since the last reset.
    ///
    /// A dot in a name counts as a level. Counters and plain numbers are added up, gauges show their last, smallest and
    /// largest value.
    pub fn report(&self) -> String {
        let (timings, metrics) = self.sums();
        text_of(timings, &metrics)
    }

    /// Prints the report to standard output; nothing if nothing was recorded. A closed pipe is no error.
    pub fn print_report(&self) {
        let (timings, metrics) = self.sums();
        if !timings.is_empty() || !metrics.is_empty() {
            let _ = writeln!(std::io::stdout().lock(), "{}", text_of(timings, &metrics));
        }
    }

    /// The kept timings by path, the oldest first: a copy.
    pub fn timings(&self) -> BTreeMap<String, Vec<(Duration, Metadata)>> {
        copied(&lock(&self.state).timings)
    }

    /// The kept metrics by path, the oldest first: a copy.
    pub fn metrics(&self) -> BTreeMap<String, Vec<(OwnedValue, Metadata)>> {
        copied(&lock(&self.state).metrics)
    }

    /// `{"timings": {path: [[seconds, {metadata}]]}, "metrics": {path: [[value, {metadata}]]}}`.
    pub fn to_json(&self) -> String {
        let state = lock(&self.state);
        let (timings, metrics) = (copied(&state.timings), copied(&state.metrics));
        drop(state);
        let timings = json_paths(&timings, |duration| json_number(duration.as_secs_f64()));
        let metrics = json_paths(&metrics, |value| json_value(&value.as_value()));
        json_object([("timings", Some(timings)), ("metrics", Some(metrics))])
    }

    /// Keeps a timing that was measured elsewhere, with just the metadata that is given.
    pub fn add_timing(&self, scope: &str, duration: Duration, metadata: &[(&str, Value<'_>)]) {
        let add = |sums: &mut TimingSums| sums.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        self.record(|state| &mut state.timings, interned(scope), (duration, owned(metadata)), add);
    }

    /// Keeps a metric that was recorded elsewhere, with just the metadata that is given.
    pub fn add_metric(&self, scope: &str, value: Value<'_>, metadata: &[(&str, Value<'_>)]) {
        let is_gauge = metadata.iter().any(|(key, value)| *key == "metric_type" && *value == Value::Str("gauge"));
        let add = |sums: &mut MetricSums| sums.add(value, is_gauge);
        self.record(|state| &mut state.metrics, interned(scope), (value.into(), owned(metadata)), add);
    }

    /// Forgets everything, sums included.
    pub fn reset(&self) {
        // What was kept is freed outside the lock.
        let forgotten = mem::take(&mut *lock(&self.state));
        drop(forgotten);
    }

    fn sums(&self) -> (Rows<TimingSums>, Rows<MetricSums>) {
        let state = lock(&self.state);
        let timings = state.timings.iter().map(|(path, kept)| (*path, kept.sums)).collect();
        (timings, state.metrics.iter().map(|(path, kept)| (*path, kept.sums)).collect())
    }
}

impl Default for SimpleReporter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimpleReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (timings, metrics) = self.sums();
        write!(f, "SimpleReporter({} timed paths, {} metrics)", timings.len(), metrics.len())
    }
}

impl Reporter for SimpleReporter {
    fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(lock(&self.state)));
    }

    fn record_timing(&self, event: &Timing<'_>) {
        let seconds = |ns| OwnedValue::F64(Duration::from_nanos(ns).as_secs_f64());
        let built_in = [
            ("depth", OwnedValue::U64(event.depth().into())),
            ("parent_scope", parent(event.parent_scope())),
            ("call_count", OwnedValue::U64(event.call_count().into())),
            ("start_monotonic_s", seconds(event.start_monotonic_ns())),
            ("end_monotonic_s", seconds(event.end_monotonic_ns())),
            ("start_wall_time_s", seconds(event.start_unix_ns())),
            ("end_wall_time_s", seconds(event.end_unix_ns())),
        ];
        let error_type = event.error_type().map(|error| ("error_type", OwnedValue::Text(error.to_owned().into())));
        let entry = (event.duration(), metadata(built_in.into_iter().chain(error_type), event.attributes()));
        let add = |sums: &mut TimingSums| sums.add(event.duration_ns());
        self.record(|state| &mut state.timings, event.scope(), entry, add);
    }

    fn record_metric(&self, event: &Metric<'_>) {
        let built_in =
            [("depth", OwnedValue::U64(event.depth().into())), ("parent_scope", parent(event.parent_scope()))];
        let metric_type = event.metric_type().map(|kind| ("metric_type", OwnedValue::Text(kind.as_str().into())));
        // A type that the program gave itself wins.
        let is_gauge = match event.attributes().get("metric_type") {
            Some(given) => given == Value::Str("gauge"),
            None => event.metric_type() == Some(MetricType::Gauge),
        };
        let entry = (event.value().into(), metadata(built_in.into_iter().chain(metric_type), event.attributes()));
        let add = |sums: &mut MetricSums| sums.add(event.value(), is_gauge);
        self.record(|state| &mut state.metrics, event.scope(), entry, add);
    }
}

#[derive(Default)]
struct State {
    timings: Paths<Duration, TimingSums>,
    metrics: Paths<OwnedValue, MetricSums>,
}

type Paths<V, S> = BTreeMap<&'static str, Kept<V, S>>;
type Rows<S> = Vec<(&'static str, S)>;

/// The newest entries of one path, and the sums over all.
struct Kept<V, S> {
    entries: VecDeque<(V, Metadata)>,
    sums: S,
}

#[derive(Clone, Copy, Default)]
struct TimingSums {
    calls: u64,
    total_ns: u128,
}

#[derive(Clone, Copy, Default)]
struct MetricSums {
    /// Everything but gauges.
    count: u64,
    integers: i128,
    floats: f64,
    gauges: u64,
    /// Of the gauges: last, smallest, largest.
    gauge: Option<(f64, f64, f64)>,
    /// NaN and infinities, which are in no sum.
    not_finite: u64,
}

impl SimpleReporter {
    fn record<V, S: Default>(
        &self,
        paths: impl FnOnce(&mut State) -> &mut Paths<V, S>,
        path: &'static str,
        entry: (V, Metadata),
        add: impl FnOnce(&mut S),
    ) {
        let mut state = lock(&self.state);
        let paths = paths(&mut state);
        let has_room = paths.len() < MAX_PATHS || paths.contains_key(path);
        let kept = paths.entry(if has_room { path } else { OVERFLOW });
        let kept = kept.or_insert_with(|| Kept { entries: VecDeque::new(), sums: S::default() });
        add(&mut kept.sums);
        if kept.entries.len() >= self.max_entries {
            kept.entries.pop_front();
        }
        if self.max_entries > 0 {
            kept.entries.push_back(entry);
        }
    }
}

/// The text of a path that may be new.
fn interned(scope: &str) -> &'static str {
    scope.split('.').fold(Path::ROOT, |parent, segment| path(parent, name(segment))).text()
}

fn owned(metadata: &[(&str, Value<'_>)]) -> Metadata {
    metadata.iter().map(|(key, value)| (name(key).text(), (*value).into())).collect()
}

fn parent(path: Option<&'static str>) -> OwnedValue {
    path.map_or(OwnedValue::Null, |path| OwnedValue::Text(path.into()))
}

fn metadata(built_in: impl Iterator<Item = (&'static str, OwnedValue)>, attributes: Attributes<'_>) -> Metadata {
    let mut all: Metadata = built_in.collect();
    for (key, value) in attributes {
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value.into(),
            None => all.push((key, value.into())),
        }
    }
    all
}

fn copied<V: Clone, S>(paths: &Paths<V, S>) -> BTreeMap<String, Vec<(V, Metadata)>> {
    paths.iter().map(|(path, kept)| (String::from(*path), kept.entries.iter().cloned().collect())).collect()
}

impl TimingSums {
    fn add(&mut self, duration_ns: u64) {
        self.calls += 1;
        self.total_ns += u128::from(duration_ns);
    }
}

impl MetricSums {
    fn add(&mut self, value: Value<'_>, is_gauge: bool) {
        *(if is_gauge { &mut self.gauges } else { &mut self.count }) += 1;
        let (integer, float) = match value {
            Value::Bool(value) => (i128::from(value), 0.0),
            Value::I64(value) => (value.into(), 0.0),
            Value::U64(value) => (value.into(), 0.0),
            Value::F64(value) if value.is_finite() => (0, value),
            Value::F64(_) => return self.not_finite += 1,
            _ => return,
        };
        if is_gauge {
            let last = integer as f64 + float;
            let (_, min, max) = self.gauge.unwrap_or((last, last, last));
            self.gauge = Some((last, min.min(last), max.max(last)));
        } else {
            self.integers = self.integers.saturating_add(integer);
            self.floats = (self.floats + float).clamp(f64::MIN, f64::MAX);
        }
    }

    fn total(&self) -> String {
        match self.floats {
            0.0 => grouped(&self.integers.to_string()),
            floats if floats.abs() == f64::MAX => format!("{floats:e} (saturated)"),
            floats => grouped(&format!("{:.0}", self.integers as f64 + floats)),
        }
    }
}

/// The layout is older than this crate; programs and people read it.
fn text_of(mut timings: Rows<TimingSums>, metrics: &[(&'static str, MetricSums)]) -> String {
    let mut text = String::from("=== Telemetry Report ===\n\n--- Timings ---");
    // In this order a path stands right above what is below it.
    timings.sort_by(|(a, _), (b, _)| a.split('.').cmp(b.split('.')));
    let mut above = Vec::new();
    for (path, sums) in timings {
        let segments: Vec<&str> = path.split('.').collect();
        let shared = above.iter().zip(&segments).take_while(|(a, b)| a == b).count();
        for (level, segment) in segments.iter().enumerate().skip(shared) {
            let label = "  ".repeat(level.min(MAX_INDENT_LEVELS)) + &escaped(segment);
            if level + 1 < segments.len() {
                text += &format!("\n{label}:");
                continue;
            }
            let total_s = sums.total_ns as f64 / 1e9;
            let (calls, average_s) = (sums.calls, total_s / sums.calls as f64);
            text += &format!("\n{label:<30} | Calls: {calls:<4} | Avg: {average_s:.4}s | Total: {total_s:.4}s");
        }
        above = segments;
    }
    if !metrics.is_empty() {
        text += "\n\n--- Metrics ---";
    }
    for (path, sums) in metrics {
        let figures = |(last, min, max)| format!("Last: {last} | Min: {min} | Max: {max}");
        let gauge = sums.gauge.map_or("Last: none".to_owned(), figures);
        for (count, figures) in [(sums.count, format!("Total: {}", sums.total())), (sums.gauges, gauge)] {
            if count > 0 {
                text += &format!("\n{:<40} | Count: {count:<4} | {figures}", escaped(path));
            }
        }
        if sums.not_finite > 0 {
            text += &format!(" | Not finite: {}", sums.not_finite);
        }
    }
    text
}

/// Commas between groups of three digits.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.split_at(usize::from(number.starts_with('-')));
    let comma = |at: usize| if at > 0 && (digits.len() - at) % 3 == 0 { "," } else { "" };
    digits.char_indices().fold(sign.to_owned(), |text, (at, digit)| text + comma(at) + digit.encode_utf8(&mut [0; 4]))
}

fn json_paths<V>(paths: &BTreeMap<String, Vec<(V, Metadata)>>, first: impl Fn(&V) -> String) -> String {
    json_object(paths.iter().map(|(path, entries)| {
        let entries = entries.iter().map(|(value, metadata)| {
            let metadata = metadata.iter().map(|(key, value)| (*key, Some(json_value(&value.as_value()))));
            format!("[{}, {}]", first(value), json_object(metadata))
        });
        (path.as_str(), Some(format!("[{}]", entries.collect::<Vec<_>>().join(", "))))
    }))
}
