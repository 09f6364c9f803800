//! Aggregates at one moment.

use std::{fmt, time::Duration};

use super::{batch::Process, histogram::Histogram, timing::Attributes};
use crate::{getters::getters, health::Stats, name::Path, value::MetricType};

getters! {
    /// All aggregates of a context at one moment: cumulative since the context was built.
    pub struct Snapshot<'a> {
        /// Scope durations, one entry per path.
        pub scopes: &'a [ScopeAggregate],
        /// Metrics, one entry per path and set of labels.
        pub series: &'a [SeriesAggregate],
        /// Since when the sums run: nanoseconds since 1970-01-01 UTC.
        pub start_unix_ns: u64,
        /// Until when: nanoseconds since 1970-01-01 UTC.
        pub unix_ns: u64,
        /// The process.
        pub process: Process,
    } with {
        pub stats: &'a dyn Fn() -> Stats,
    }
}

impl<'a> Snapshot<'a> {
    /// The context's own accounts, as they are when this is called.
    pub fn stats(&self) -> Stats {
        (self.stats)()
    }
}

/// The same, owned.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) scopes: Vec<ScopeAggregate>,
    pub(crate) series: Vec<SeriesAggregate>,
    pub(crate) start_unix_ns: u64,
    pub(crate) unix_ns: u64,
    pub(crate) process: Process,
}

impl Collected {
    pub(crate) fn as_snapshot<'a>(&'a self, stats: &'a dyn Fn() -> Stats) -> Snapshot<'a> {
        let Self { scopes, series, start_unix_ns, unix_ns, process } = self;
        Snapshot { scopes, series, start_unix_ns: *start_unix_ns, unix_ns: *unix_ns, process: *process, stats }
    }
}

getters! {
    /// Everything that closed under one path. Exact but for the percentiles.
    #[derive(Clone, Debug)]
    pub struct ScopeAggregate {
        /// How many scopes closed.
        pub calls: u64,
        /// How many of them failed.
        pub errors: u64,
        /// The distribution of the durations, in nanoseconds.
        pub durations_ns: Histogram => &Histogram,
        /// The longest call since the previous snapshot.
        pub exemplar: Option<Exemplar>,
    } with {
        pub path: Path,
        pub total_ns: u64,
        pub self_ns: u64,
    }
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

getters! {
    /// One metric under one path with one set of labels.
    #[derive(Clone, Debug)]
    pub struct SeriesAggregate {
        /// The instrument.
        pub metric_type: MetricType,
        /// How often it was recorded.
        pub calls: u64,
        /// Sum of what was recorded; of a gauge it means little.
        pub sum: Number,
        /// Whether no increment was negative.
        pub is_monotonic: bool,
        /// Of a gauge: the newest value.
        pub last: Option<f64>,
        /// Of a histogram: the distribution.
        pub values: Histogram => &Histogram,
        /// The unit, if it was described.
        pub unit: Option<&'static str>,
        /// The help text, if it was described.
        pub help: Option<&'static str>,
    } with {
        pub path: Path,
        pub labels: Box<[u64]>,
        pub extremes: (Option<f64>, Option<f64>),
    }
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

    /// Of a gauge or histogram: the smallest value.
    pub fn min(&self) -> Option<f64> {
        self.extremes.0
    }

    /// Of a gauge or histogram: the largest value.
    pub fn max(&self) -> Option<f64> {
        self.extremes.1
    }
}
