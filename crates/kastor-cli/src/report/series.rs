//! Metrics: the newest sums of each process, joined over processes, and the events of `metric!`.

use std::collections::{BTreeMap, HashMap};

use kastor::{Histogram, MetricType, Number};
use kastor_export::capture::{Aggregate, Aggregates, SeriesSums, StoredValue};

use super::sums::Events;
use crate::facts::MetricFacts;

/// Series that are kept apart: as many as one process keeps, sixteen times.
const MOST_SERIES: usize = 1_600_000;

/// The metrics of everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Of the process that is being read: sums are cumulative, so the newest count.
    current: HashMap<Key, Series>,
    /// Calls of each path of that process by its sums, under a hash of its text.
    calls: HashMap<u64, u64>,
    ended: HashMap<Key, Series>,
}

/// Path, kind, labels.
type Key = (Box<str>, &'static str, Labels);
type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug)]
struct Series {
    calls: u64,
    sum: Number,
    last: Option<f64>,
    /// When the last value was the last.
    at_ns: u64,
    min: Option<f64>,
    max: Option<f64>,
    values: Histogram,
}

impl Metrics {
    /// Takes the sums of a snapshot that was made up to `until_ns`.
    pub(crate) fn add(&mut self, aggregates: &Aggregates<'_>, until_ns: u64) {
        let at_ns = aggregates.unix_ns();
        if at_ns > until_ns {
            return;
        }
        for entry in aggregates.entries() {
            match entry {
                Aggregate::Series(sums) => {
                    let labels = sums.labels().map(|label| (label.key.to_owned(), value_text(&label.value))).collect();
                    let key = (sums.path.into(), kind(sums.metric_type), labels);
                    if self.current.len() < MOST_SERIES || self.current.contains_key(&key) {
                        self.current.insert(key, Series::new(&sums, at_ns));
                    }
                }
                Aggregate::Scope(sums) => {
                    self.calls.insert(hash(sums.path), sums.calls);
                }
            }
        }
    }

    /// The process has ended: returns how many scopes its sums tell of.
    pub(crate) fn end_process(&mut self) -> u64 {
        for (key, series) in std::mem::take(&mut self.current) {
            let has_room = self.ended.len() < MOST_SERIES;
            match self.ended.get_mut(&key) {
                Some(known) => known.merge(&series),
                None if has_room => {
                    self.ended.insert(key, series);
                }
                None => {}
            }
        }
        std::mem::take(&mut self.calls).into_values().fold(0, u64::saturating_add)
    }

    /// All series and events, sorted.
    pub(crate) fn facts(self, events: BTreeMap<String, Events>) -> Vec<MetricFacts> {
        let mut facts: Vec<MetricFacts> =
            self.ended.into_iter().map(|((path, kind, labels), series)| series.facts(path, kind, labels)).collect();
        facts.extend(events.into_iter().map(|(path, events)| events.facts(path)));
        facts.sort_by(|one, other| (&one.path, one.kind, &one.labels).cmp(&(&other.path, other.kind, &other.labels)));
        facts
    }
}

impl Series {
    fn new(sums: &SeriesSums<'_>, at_ns: u64) -> Self {
        let SeriesSums { calls, sum, last, min, max, .. } = *sums;
        Self { calls, sum, last, at_ns, min, max, values: sums.values.to_histogram() }
    }

    fn merge(&mut self, other: &Series) {
        self.calls = self.calls.saturating_add(other.calls);
        self.sum = match (self.sum, other.sum) {
            (Number::Integer(one), Number::Integer(other)) => Number::Integer(one.saturating_add(other)),
            (one, other) => Number::Float(one.as_f64() + other.as_f64()),
        };
        if other.at_ns >= self.at_ns {
            (self.last, self.at_ns) = (other.last.or(self.last), other.at_ns);
        }
        self.min = [self.min, other.min].into_iter().flatten().reduce(f64::min);
        self.max = [self.max, other.max].into_iter().flatten().reduce(f64::max);
        self.values.merge(&other.values);
    }

    fn facts(self, path: Box<str>, kind: &'static str, labels: Labels) -> MetricFacts {
        let (is_gauge, is_histogram) = (kind == "gauge", kind == "histogram");
        let quantile = |q| self.values.quantile(q).filter(|_| is_histogram);
        MetricFacts {
            path: path.into(),
            kind,
            labels,
            calls: self.calls,
            sum: (!is_gauge).then(|| self.sum.as_f64()),
            last: self.last.filter(|_| is_gauge),
            min: self.min.filter(|_| is_gauge || is_histogram),
            max: self.max.filter(|_| is_gauge || is_histogram),
            p50: quantile(0.50),
            p95: quantile(0.95),
            p99: quantile(0.99),
        }
    }
}

impl Events {
    fn facts(self, path: String) -> MetricFacts {
        let values = &self.values;
        let has_numbers = values.count() > 0;
        MetricFacts {
            path,
            kind: "metric",
            labels: BTreeMap::new(),
            calls: self.calls,
            sum: has_numbers.then(|| values.sum()),
            last: self.last,
            min: values.min(),
            max: values.max(),
            p50: values.quantile(0.50),
            p95: values.quantile(0.95),
            p99: values.quantile(0.99),
        }
    }
}

/// A value as text, for labels and attributes.
pub(crate) fn value_text(value: &StoredValue<'_>) -> String {
    value.as_value().to_string()
}

fn kind(metric_type: MetricType) -> &'static str {
    match metric_type {
        MetricType::Gauge => "gauge",
        MetricType::Histogram => "histogram",
        _ => "counter",
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
