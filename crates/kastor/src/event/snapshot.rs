//! Aggregates at one moment.

use std::{fmt, time::Duration};

use super::{batch::Process, histogram::Histogram, timing::Attributes};
use crate::{health::Stats, name::Path, value::MetricType};

/// All aggregates of a context at one moment: cumulative since the context was built.
pub struct Snapshot<'a> {
    pub(crate) scopes: &'a [ScopeAggregate],
    pub(crate) series: &'a [SeriesAggregate],
    pub(crate) start_unix_ns: u64,
    pub(crate) unix_ns: u64,
    pub(crate) process: Process,
    pub(crate) stats: &'a dyn Fn() -> Stats,
}

impl<'a> Snapshot<'a> {
    /// Scope durations, one entry per path.
    pub fn scopes(&self) -> &'a [ScopeAggregate] {
        self.scopes
    }

    /// Metrics, one entry per path and set of labels.
    pub fn series(&self) -> &'a [SeriesAggregate] {
        self.series
    }

    /// Since when the sums run: nanoseconds since 1970-01-01 UTC.
    pub fn start_unix_ns(&self) -> u64 {
        self.start_unix_ns
    }

    /// Until when: nanoseconds since 1970-01-01 UTC.
    pub fn unix_ns(&self) -> u64 {
        self.unix_ns
    }

    /// The process.
    pub fn process(&self) -> Process {
        self.process
    }

    /// The context's own accounts, as they are when this is called.
    pub fn stats(&self) -> Stats {
        (self.stats)()
    }
}

/// Everything that closed under one path. Exact but for the percentiles.
#[derive(Clone, Debug)]
pub struct ScopeAggregate {
    pub(crate) path: Path,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) total_ns: u64,
    pub(crate) self_ns: u64,
    pub(crate) durations_ns: Histogram,
    pub(crate) exemplar: Option<Exemplar>,
}

impl ScopeAggregate {
    /// The full path.
    pub fn path(&self) -> &'static str {
        self.path.text()
    }

    /// The last name of the path.
    pub fn name(&self) -> &'static str {
        self.path.name().text()
    }

    /// The path of the enclosing scope.
    pub fn parent(&self) -> Option<&'static str> {
        self.path.parent().map(|parent| parent.text())
    }

    /// Number of scopes above it in its path.
    pub fn depth(&self) -> u32 {
        self.path.levels().saturating_sub(1)
    }

    /// How many scopes closed.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// How many of them failed.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Sum of the durations.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }

    /// The total minus the totals of the children in the same flow; zero where children ran side by side for longer.
    pub fn self_time(&self) -> Duration {
        Duration::from_nanos(self.self_ns)
    }

    /// The shortest duration.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.durations_ns.min().unwrap_or(0.0) as u64)
    }

    /// The longest duration.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.durations_ns.max().unwrap_or(0.0) as u64)
    }

    /// The duration below which the share `q` (0 to 1) of the calls lies, within 4.5 %.
    pub fn quantile(&self, q: f64) -> Duration {
        Duration::from_nanos(self.durations_ns.quantile(q).unwrap_or(0.0) as u64)
    }

    /// The distribution of the durations, in nanoseconds.
    pub fn durations_ns(&self) -> &Histogram {
        &self.durations_ns
    }

    /// The longest call since the previous snapshot.
    pub fn exemplar(&self) -> Option<Exemplar> {
        self.exemplar
    }
}

/// One measurement that stands for many, with the ids to find it by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// What was measured; of a scope, its duration in nanoseconds.
    pub value: f64,
    /// When: nanoseconds since 1970-01-01 UTC.
    pub unix_ns: u64,
    /// In which trace.
    pub trace_id: u128,
    /// In or as which scope.
    pub span_id: u64,
}

/// A sum of integers stays an integer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Only integers were recorded.
    Integer(i128),
    /// At least one number was no integer.
    Float(f64),
}

impl Number {
    /// The number as a float.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Integer(value) => value as f64,
            Number::Float(value) => value,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Integer(value) => value.fmt(f),
            Number::Float(value) => value.fmt(f),
        }
    }
}

/// One metric under one path with one set of labels.
#[derive(Clone, Debug)]
pub struct SeriesAggregate {
    pub(crate) path: Path,
    pub(crate) labels: Box<[u64]>,
    pub(crate) metric_type: MetricType,
    pub(crate) calls: u64,
    pub(crate) sum: Number,
    pub(crate) is_monotonic: bool,
    pub(crate) last: Option<f64>,
    pub(crate) extremes: (Option<f64>, Option<f64>),
    pub(crate) values: Histogram,
    pub(crate) unit: Option<&'static str>,
    pub(crate) help: Option<&'static str>,
}

impl SeriesAggregate {
    /// The path of the enclosing scope and the metric's name.
    pub fn path(&self) -> &'static str {
        self.path.text()
    }

    /// The metric's own name.
    pub fn name(&self) -> &'static str {
        self.path.name().text()
    }

    /// The labels. The series that takes what is beyond the limit has the one label `kastor.overflow`.
    pub fn labels(&self) -> Attributes<'_> {
        Attributes::new(&self.labels)
    }

    /// The instrument.
    pub fn metric_type(&self) -> MetricType {
        self.metric_type
    }

    /// How often it was recorded.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Sum of what was recorded; of a gauge it means little.
    pub fn sum(&self) -> Number {
        self.sum
    }

    /// Whether no increment was negative.
    pub fn is_monotonic(&self) -> bool {
        self.is_monotonic
    }

    /// Of a gauge: the newest value.
    pub fn last(&self) -> Option<f64> {
        self.last
    }

    /// Of a gauge or histogram: the smallest value.
    pub fn min(&self) -> Option<f64> {
        self.extremes.0
    }

    /// Of a gauge or histogram: the largest value.
    pub fn max(&self) -> Option<f64> {
        self.extremes.1
    }

    /// Of a histogram: the distribution.
    pub fn values(&self) -> &Histogram {
        &self.values
    }

    /// The unit, if it was described.
    pub fn unit(&self) -> Option<&'static str> {
        self.unit
    }

    /// The help text, if it was described.
    pub fn help(&self) -> Option<&'static str> {
        self.help
    }
}
