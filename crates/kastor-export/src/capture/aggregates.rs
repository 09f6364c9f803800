//! Aggregates in a capture: the sums of a snapshot, so that a reader can rebuild report and metrics.
//!
//! An AGGREGATES frame begins with since when and until when the sums run (Unix ns, two words), then entries follow.
//! Sums are cumulative: of several entries for one path, or one series, the last in a file counts.
//!
//! ```text
//!   0  bytes of the entry u32 | kind u8: 1 scope, 2 series | detail u8 | 0 u16
//!   8  calls u64
//!  16  scope: errors u64                 series: sum, low half (integer) or double
//!  24  scope: total ns u64               series: sum, high half
//!  32  scope: self ns u64                series: last, double; NaN: none
//!  40  scope: exemplar's duration, double; NaN: none      series: smallest, double; NaN: none
//!  48  scope: exemplar's Unix ns         series: largest, double; NaN: none
//!  56  scope: exemplar's trace id, low half               series: bytes of unit u32 | bytes of help u32
//!  64  scope: exemplar's trace id, high half              series: bytes of labels u32 | 0 u32
//!  72  scope: exemplar's span id         series: 0
//!  80  bytes of the path u32 | 0 u32
//!  88  histogram: count u64, sum double, min double, max double (NaN: none), zeros u64, not finite u64,
//! 136             offset i32, number u32 of the buckets above zero; the same of those below
//! 152             counts u64 of the buckets above zero, then of those below
//!      path; series: unit, help; each with zeros up to a whole word
//!      series: labels, each `bytes of the key u32 | tag u8 | bytes of the value u24`, key, value, each with zeros
//!
//! detail of a series: bits 0–1 instrument (0 counter, 1 gauge, 2 histogram), bit 2 sum is an integer,
//! bit 3 not monotonic, bit 4 has a unit, bit 5 has a help text
//! ```

use kastor::{Histogram, MetricType, Number, ScopeAggregate, SeriesAggregate, Snapshot, Value};

use crate::Redaction;

use super::{
    format::{TABLE_BYTES, put_text, put32, put64, text, valid},
    record::{Attribute, StoredValue, tag},
    tables::Tables,
};
use crate::frame::{padding, u32_at, u64_at};

const SCOPE: u8 = 1;
const SERIES: u8 = 2;
const HISTOGRAM: usize = 88;
const BUCKETS: usize = 152;

/// Calls `write` with one payload after another, which together hold the snapshot.
pub(super) fn encode<E>(
    snapshot: &Snapshot<'_>,
    redaction: &Redaction,
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut payload = Vec::new();
    let mut add = |entry: &dyn Fn(&mut Vec<u8>), is_last: bool| {
        if payload.is_empty() {
            put64(&mut payload, [snapshot.start_unix_ns(), snapshot.unix_ns()]);
        }
        let from = payload.len();
        entry(&mut payload);
        let bytes = (payload.len() - from) as u32;
        if let Some(to) = payload.get_mut(from..from + 4).filter(|_| bytes > 0) {
            to.copy_from_slice(&bytes.to_le_bytes());
        }
        if payload.len() >= TABLE_BYTES || is_last {
            write(&payload)?;
            payload.clear();
        }
        Ok(())
    };
    for scope in snapshot.scopes() {
        add(&|to| push_scope(to, scope), false)?;
    }
    for series in snapshot.series() {
        add(&|to| push_series(to, series, redaction), false)?;
    }
    add(&|_| {}, true)
}

fn push_scope(to: &mut Vec<u8>, scope: &ScopeAggregate) {
    put32(to, [0, u32::from(SCOPE)]);
    let ns = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    put64(to, [scope.calls(), scope.errors(), ns(scope.total()), ns(scope.self_time())]);
    let exemplar = scope.exemplar();
    let id = exemplar.map_or(0, |it| it.trace_id);
    let moment = [exemplar.map_or(f64::NAN, |it| it.value).to_bits(), exemplar.map_or(0, |it| it.unix_ns)];
    put64(to, moment);
    put64(to, [id as u64, (id >> 64) as u64, exemplar.map_or(0, |it| it.span_id)]);
    put32(to, [scope.path().len() as u32, 0]);
    push_histogram(to, scope.durations_ns());
    put_text(to, scope.path());
}

fn push_series(to: &mut Vec<u8>, series: &SeriesAggregate, redaction: &Redaction) {
    let (unit, help) = (series.unit(), series.help());
    let instrument = match series.metric_type() {
        MetricType::Gauge => 1,
        MetricType::Histogram => 2,
        _ => 0,
    };
    let (is_integer, sum) = match series.sum() {
        Number::Integer(sum) => (true, [sum as u64, (sum >> 64) as u64]),
        Number::Float(sum) => (false, [sum.to_bits(), 0]),
    };
    let bits = [is_integer, !series.is_monotonic(), unit.is_some(), help.is_some()];
    let detail = bits.iter().zip(2..).fold(instrument, |detail, (is_set, bit)| detail | u32::from(*is_set) << bit);
    let mut labels = Vec::new();
    for (key, value) in series.labels() {
        match redaction.replacement(key, &value) {
            Some(shown) => push_label(&mut labels, key, Value::Str(&shown)),
            None => push_label(&mut labels, key, value),
        }
    }
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN).to_bits();
    put32(to, [0, u32::from(SERIES) | detail << 8]);
    put64(to, [series.calls()]);
    put64(to, sum);
    put64(to, [number(series.last()), number(series.min()), number(series.max())]);
    let (unit, help) = (unit.unwrap_or(""), help.unwrap_or(""));
    put32(to, [unit.len() as u32, help.len() as u32, labels.len() as u32, 0, 0, 0, series.path().len() as u32, 0]);
    push_histogram(to, series.values());
    [series.path(), unit, help].iter().for_each(|text| put_text(to, text));
    to.extend_from_slice(&labels);
}

fn push_label(to: &mut Vec<u8>, key: &str, value: Value<'_>) {
    let printed;
    let word;
    let (tag, bytes): (u8, &[u8]) = match value {
        Value::Null => (tag::NULL, &[]),
        Value::Bool(value) => (if value { tag::TRUE } else { tag::FALSE }, &[]),
        Value::I64(value) => {
            word = value.to_le_bytes();
            (tag::I64, &word)
        }
        Value::U64(value) => {
            word = value.to_le_bytes();
            (tag::U64, &word)
        }
        Value::F64(value) => {
            word = value.to_le_bytes();
            (tag::F64, &word)
        }
        Value::Str(text) => (tag::STR, text.as_bytes()),
        Value::Bytes(bytes) => (tag::BYTES, bytes),
        other => {
            printed = other.to_string();
            (tag::STR, printed.as_bytes())
        }
    };
    // The core cuts values at 4 KiB.
    let bytes = bytes.get(..0xff_ffff).unwrap_or(bytes);
    put32(to, [key.len() as u32, u32::from(tag) | (bytes.len() as u32) << 8]);
    put_text(to, key);
    to.extend_from_slice(bytes);
    to.extend_from_slice(padding(bytes.len()));
}

fn push_histogram(to: &mut Vec<u8>, histogram: &Histogram) {
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN).to_bits();
    put64(to, [histogram.count(), histogram.sum().to_bits(), number(histogram.min()), number(histogram.max())]);
    put64(to, [histogram.zeros(), histogram.not_finite()]);
    let sides = [histogram.positive(), histogram.negative()];
    for side in sides {
        put32(to, [side.offset() as u32, side.counts().len() as u32]);
    }
    for side in sides {
        side.counts().iter().for_each(|count| put64(to, [*count]));
    }
}

/// Sums of one snapshot, or of a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Aggregates<'a> {
    payload: &'a [u8],
    tables: &'a Tables,
}

impl<'a> Aggregates<'a> {
    pub(super) fn new(payload: &'a [u8], tables: &'a Tables) -> Self {
        Self { payload, tables }
    }

    /// What was told of names and paths before.
    pub fn tables(&self) -> &'a Tables {
        self.tables
    }

    /// Since when the sums run: nanoseconds since 1970-01-01 UTC.
    pub fn start_unix_ns(&self) -> u64 {
        u64_at(self.payload, 0)
    }

    /// Until when: nanoseconds since 1970-01-01 UTC.
    pub fn unix_ns(&self) -> u64 {
        u64_at(self.payload, 8)
    }

    /// The entries. Ends where no whole entry is left.
    pub fn entries(&self) -> impl Iterator<Item = Aggregate<'a>> + use<'a> {
        let mut rest = self.payload.get(16..).unwrap_or(&[]);
        std::iter::from_fn(move || {
            loop {
                let bytes = u32_at(rest, 0) as usize;
                let entry = rest.get(..bytes).filter(|entry| entry.len() >= BUCKETS)?;
                rest = rest.get(bytes..).unwrap_or(&[]);
                match entry.get(4) {
                    Some(&SCOPE) => return Some(Aggregate::Scope(scope(entry)?)),
                    Some(&SERIES) => return Some(Aggregate::Series(series(entry)?)),
                    // A later version's.
                    _ => {}
                }
            }
        })
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub enum Aggregate<'a> {
    /// Everything that closed under one path.
    Scope(ScopeSums<'a>),
    /// One metric under one path with one set of labels.
    Series(SeriesSums<'a>),
}

/// Everything that closed under one path.
#[derive(Clone, Debug)]
pub struct ScopeSums<'a> {
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
    /// The longest call of the interval.
    pub exemplar: Option<kastor::Exemplar>,
    /// The distribution of the durations, in nanoseconds.
    pub durations_ns: StoredHistogram<'a>,
}

/// One metric under one path with one set of labels.
#[derive(Clone, Debug)]
pub struct SeriesSums<'a> {
    /// The path of the enclosing scope and the metric's name.
    pub path: &'a str,
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
    /// Of a gauge or histogram: the smallest value.
    pub min: Option<f64>,
    /// Of a gauge or histogram: the largest value.
    pub max: Option<f64>,
    /// The unit, if it was described.
    pub unit: Option<&'a str>,
    /// The help text, if it was described.
    pub help: Option<&'a str>,
    /// Of a histogram: the distribution.
    pub values: StoredHistogram<'a>,
    labels: &'a [u8],
}

impl<'a> SeriesSums<'a> {
    /// The labels.
    pub fn labels(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let mut rest = self.labels;
        std::iter::from_fn(move || {
            let (key_bytes, head) = (u32_at(rest, 0), u32_at(rest, 4));
            let key = text(rest.get(8..)?, key_bytes)?;
            let at = 8 + (key_bytes as usize).next_multiple_of(8);
            let bytes = (head >> 8) as usize;
            let value = StoredValue::decode(head as u8, rest.get(at..at + bytes)?)?;
            rest = rest.get(at + bytes.next_multiple_of(8)..).unwrap_or(&[]);
            Some(Attribute { key, value })
        })
    }
}

/// A distribution: exponential buckets of scale 3, so eight per power of two, as [`kastor::Histogram`] has them.
#[derive(Clone, Copy, Debug)]
pub struct StoredHistogram<'a> {
    /// Number of finite values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// Values too close to zero to have a bucket.
    pub zeros: u64,
    /// Values that were NaN or infinite.
    pub not_finite: u64,
    /// Index of the first bucket above zero.
    pub positive_offset: i32,
    /// Index of the first bucket below zero, by absolute value.
    pub negative_offset: i32,
    positive: &'a [u8],
    negative: &'a [u8],
}

impl<'a> StoredHistogram<'a> {
    /// Values per bucket above zero.
    pub fn positive(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.positive.chunks_exact(8).map(|word| u64_at(word, 0))
    }

    /// Values per bucket below zero, by absolute value.
    pub fn negative(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.negative.chunks_exact(8).map(|word| u64_at(word, 0))
    }
}

/// The histogram, and where what follows it begins.
fn histogram(entry: &[u8]) -> Option<(StoredHistogram<'_>, usize)> {
    let word = |at: usize| u64_at(entry, HISTOGRAM + at);
    let some = |at: usize| Some(f64::from_bits(word(at))).filter(|value| !value.is_nan());
    let side = |at: usize| (u32_at(entry, HISTOGRAM + at) as i32, u32_at(entry, HISTOGRAM + at + 4) as usize);
    let ((positive_offset, above), (negative_offset, below)) = (side(48), side(56));
    let middle = BUCKETS.checked_add(above.checked_mul(8)?)?;
    let end = middle.checked_add(below.checked_mul(8)?)?;
    let histogram = StoredHistogram {
        count: word(0),
        sum: f64::from_bits(word(8)),
        min: some(16),
        max: some(24),
        zeros: word(32),
        not_finite: word(40),
        positive_offset,
        negative_offset,
        positive: entry.get(BUCKETS..middle)?,
        negative: entry.get(middle..end)?,
    };
    Some((histogram, end))
}

fn scope(entry: &[u8]) -> Option<ScopeSums<'_>> {
    let (durations_ns, at) = histogram(entry)?;
    let value = f64::from_bits(u64_at(entry, 40));
    let exemplar = (!value.is_nan()).then(|| kastor::Exemplar {
        value,
        unix_ns: u64_at(entry, 48),
        trace_id: u128::from(u64_at(entry, 64)) << 64 | u128::from(u64_at(entry, 56)),
        span_id: u64_at(entry, 72),
    });
    Some(ScopeSums {
        path: text(entry.get(at..)?, u32_at(entry, 80))?,
        calls: u64_at(entry, 8),
        errors: u64_at(entry, 16),
        total_ns: u64_at(entry, 24),
        self_ns: u64_at(entry, 32),
        exemplar,
        durations_ns,
    })
}

fn series(entry: &[u8]) -> Option<SeriesSums<'_>> {
    let (values, mut at) = histogram(entry)?;
    let mut take = |bytes: u32| {
        let taken = entry.get(at..)?.get(..bytes as usize)?;
        at += (bytes as usize).next_multiple_of(8);
        Some(taken)
    };
    let path = valid(take(u32_at(entry, 80))?);
    let (unit, help) = (valid(take(u32_at(entry, 56))?), valid(take(u32_at(entry, 60))?));
    let labels = take(u32_at(entry, 64))?;
    let detail = *entry.get(5)?;
    let has = |bit: u8| detail & 1 << bit != 0;
    let number = |at: usize| Some(f64::from_bits(u64_at(entry, at))).filter(|value| !value.is_nan());
    let (low, high) = (u64_at(entry, 16), u64_at(entry, 24));
    Some(SeriesSums {
        path,
        metric_type: match detail & 3 {
            1 => MetricType::Gauge,
            2 => MetricType::Histogram,
            _ => MetricType::Counter,
        },
        calls: u64_at(entry, 8),
        sum: match has(2) {
            true => Number::Integer((u128::from(high) << 64 | u128::from(low)) as i128),
            false => Number::Float(f64::from_bits(low)),
        },
        is_monotonic: !has(3),
        last: number(32),
        min: number(40),
        max: number(48),
        unit: has(4).then_some(unit),
        help: has(5).then_some(help),
        values,
        labels,
    })
}
