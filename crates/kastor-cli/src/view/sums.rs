//! What the sums in a capture tell: scopes by path, and metrics by series with their values over time.
//!
//! Sums are cumulative for their process, so the newest count; older ones are points of a curve.

use std::collections::{BTreeMap, HashMap};

use kastor::{Histogram, MetricType, Number};
use kastor_export::capture::{Aggregate, Aggregates, SeriesSums};

use crate::report::value_text;

/// Series that are kept apart; as many as one process keeps.
const MOST_SERIES: usize = 100_000;
/// Points of one series; when there are more, every second one goes.
const MOST_POINTS: usize = 1 << 16;
/// Points of all series.
const MOST_POINTS_IN_ALL: usize = 4 << 20;

/// Everything that closed under one path of one process.
#[derive(Clone, Debug)]
pub(super) struct ScopeTotals {
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) total_ns: u64,
    pub(super) self_ns: u64,
    pub(super) durations_ns: Histogram,
}

/// Sums of scopes by process and path.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) scopes: HashMap<(u32, Box<str>), ScopeTotals>,
    /// When the newest were made: Unix nanoseconds.
    pub(super) until_ns: u64,
}

/// One metric of one process under one path with one set of labels.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) process: u32,
    pub(super) path: Box<str>,
    pub(super) kind: &'static str,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) unit: Option<String>,
    pub(super) help: Option<String>,
    pub(super) calls: u64,
    pub(super) sum: Option<f64>,
    pub(super) last: Option<f64>,
    /// When an event's last value came.
    last_ns: u64,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) values: Histogram,
    /// Unix nanoseconds and a value: a counter's sum, a gauge's last value, a histogram's number of values, an event's own.
    pub(super) points: Vec<(u64, f64)>,
    /// One in so many is kept.
    stride: usize,
    skipped: usize,
}

/// Process, path, kind, labels.
type Key = (u32, Box<str>, &'static str, BTreeMap<String, String>);

/// All series.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    pub(super) series: Vec<Series>,
    by_key: HashMap<Key, usize>,
    /// Series of events by process and number of the path; none where there was no room.
    events: HashMap<(u32, u32), Option<usize>>,
    points: usize,
    /// When the sums were made, first and last.
    span_ns: Option<(u64, u64)>,
    /// Series that found no room.
    pub(super) left_out: u64,
}

impl Sums {
    fn add(&mut self, process: u32, sums: &kastor_export::capture::ScopeSums<'_>) {
        let totals = ScopeTotals {
            calls: sums.calls,
            errors: sums.errors,
            total_ns: sums.total_ns,
            self_ns: sums.self_ns,
            durations_ns: sums.durations_ns.to_histogram(),
        };
        self.scopes.insert((process, sums.path.into()), totals);
    }
}

impl Metrics {
    /// Takes the sums of a snapshot.
    pub(super) fn add(&mut self, process: u32, aggregates: &Aggregates<'_>, scopes: &mut Sums) {
        let at_ns = aggregates.unix_ns();
        scopes.until_ns = scopes.until_ns.max(at_ns);
        let mut is_some = false;
        for entry in aggregates.entries() {
            match entry {
                Aggregate::Scope(sums) => scopes.add(process, &sums),
                Aggregate::Series(sums) => {
                    is_some = true;
                    self.add_series(process, &sums, at_ns);
                }
            }
        }
        if is_some {
            let (first, last) = self.span_ns.unwrap_or((at_ns, at_ns));
            self.span_ns = Some((first.min(at_ns), last.max(at_ns)));
        }
    }

    /// Takes an event of `metric!`: by the number of its path, whose text is asked for once.
    pub(super) fn add_event(
        &mut self,
        (process, path): (u32, u32),
        text: impl FnOnce() -> String,
        at_ns: u64,
        value: Option<f64>,
    ) {
        let known = self.events.get(&(process, path)).copied();
        let at = known.unwrap_or_else(|| {
            let at = self.place((process, text().into(), "event", BTreeMap::new()));
            self.events.insert((process, path), at);
            at
        });
        let Self { series, points, .. } = self;
        let Some(series) = at.and_then(|at| series.get_mut(at)) else { return };
        series.calls += 1;
        if let Some(value) = value {
            series.values.record(value);
            series.sum = Some(series.values.sum());
            (series.min, series.max) = (series.values.min(), series.values.max());
            // Blocks come thread by thread.
            if at_ns >= series.last_ns {
                (series.last, series.last_ns) = (Some(value), at_ns);
            }
            series.point(at_ns, value, points);
        }
    }

    /// When the first sums were made; 0 without any.
    pub(super) fn first_ns(&self) -> u64 {
        self.span_ns.map_or(0, |(first, _)| first)
    }

    /// When the last sums were made; 0 without any.
    pub(super) fn last_ns(&self) -> u64 {
        self.span_ns.map_or(0, |(_, last)| last)
    }

    /// Puts the points of every series in the order of time; those of events come thread by thread.
    pub(super) fn sort(&mut self) {
        self.series.iter_mut().for_each(|series| series.points.sort_by_key(|(at_ns, _)| *at_ns));
    }

    fn add_series(&mut self, process: u32, sums: &SeriesSums<'_>, at_ns: u64) {
        let labels = sums.labels().map(|label| (label.key.to_owned(), value_text(&label.value))).collect();
        let kind = match sums.metric_type {
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            _ => "counter",
        };
        let Some(at) = self.place((process, sums.path.into(), kind, labels)) else { return };
        let Self { series, points, .. } = self;
        let Some(series) = series.get_mut(at) else { return };
        let sum = match sums.sum {
            Number::Integer(sum) => sum as f64,
            Number::Float(sum) => sum,
        };
        series.unit = sums.unit.map(str::to_owned);
        series.help = sums.help.map(str::to_owned);
        series.calls = sums.calls;
        series.sum = (kind != "gauge").then_some(sum);
        series.last = sums.last.filter(|_| kind == "gauge");
        (series.min, series.max) = (sums.min, sums.max);
        series.values = sums.values.to_histogram();
        let value = match kind {
            "gauge" => sums.last,
            "counter" => Some(sum),
            _ => Some(sums.calls as f64),
        };
        if let Some(value) = value {
            series.point(at_ns, value, points);
        }
    }

    fn place(&mut self, key: Key) -> Option<usize> {
        if let Some(at) = self.by_key.get(&key) {
            return Some(*at);
        }
        if self.series.len() >= MOST_SERIES {
            self.left_out += 1;
            return None;
        }
        let (process, path, kind, labels) = key.clone();
        self.series.push(Series::new(process, path, kind, labels));
        self.by_key.insert(key, self.series.len() - 1);
        Some(self.series.len() - 1)
    }
}

impl Series {
    fn new(process: u32, path: Box<str>, kind: &'static str, labels: BTreeMap<String, String>) -> Self {
        Self {
            process,
            path,
            kind,
            labels,
            unit: None,
            help: None,
            calls: 0,
            sum: None,
            last: None,
            last_ns: 0,
            min: None,
            max: None,
            values: Histogram::default(),
            points: Vec::new(),
            stride: 1,
            skipped: 0,
        }
    }

    /// The metric's own name: the last part of the path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit_once('.').map_or(&self.path, |(_, name)| name)
    }

    fn point(&mut self, at_ns: u64, value: f64, in_all: &mut usize) {
        self.skipped += 1;
        if self.skipped < self.stride || !value.is_finite() || *in_all >= MOST_POINTS_IN_ALL {
            return;
        }
        self.skipped = 0;
        if self.points.len() >= MOST_POINTS {
            let mut number = 0;
            let before = self.points.len();
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            *in_all -= before - self.points.len();
            self.stride = self.stride.saturating_mul(2);
        }
        self.points.push((at_ns, value));
        *in_all += 1;
    }
}
