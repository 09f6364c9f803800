//! What the core says about itself, in the shapes that this command shows: the only place that depends on how the core spells it.

use std::collections::BTreeMap;
use std::time::Duration;

use kastor::{Recording, Report, Telemetry};
use serde::Serialize;

/// One scope path of a report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScopeFacts {
    pub(crate) path: String,
    /// What the path adds to the parent's.
    pub(crate) name: String,
    pub(crate) depth: u32,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) total_ns: u64,
    pub(crate) self_ns: u64,
    pub(crate) min_ns: u64,
    pub(crate) max_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p95_ns: u64,
    pub(crate) p99_ns: u64,
}

/// The scopes of a report in the order of the tree: children below their parent, the largest total first.
pub(crate) fn scopes(report: &Report) -> Vec<ScopeFacts> {
    let facts_of = |scope: &kastor::ScopeAggregate| ScopeFacts {
        path: scope.path().to_owned(),
        name: scope.name().to_owned(),
        depth: scope.depth(),
        calls: scope.calls(),
        errors: scope.errors(),
        total_ns: whole_ns(scope.total()),
        self_ns: whole_ns(scope.self_time()),
        min_ns: whole_ns(scope.min()),
        max_ns: whole_ns(scope.max()),
        p50_ns: whole_ns(scope.quantile(0.50)),
        p95_ns: whole_ns(scope.quantile(0.95)),
        p99_ns: whole_ns(scope.quantile(0.99)),
    };
    report.scopes().iter().map(facts_of).collect()
}

/// One metric series of a report: a path with one set of labels. What its kind has no figure for is none.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MetricFacts {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) calls: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) last: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) p50: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// The metric series of a report, sorted by path and labels. A counter has a sum; a gauge a last value and extremes, but no sum that
/// means anything; a histogram all but a last value.
pub(crate) fn metrics(report: &Report) -> Vec<MetricFacts> {
    let facts_of = |series: &kastor::SeriesAggregate| {
        let kind = series.metric_type().as_str();
        let (is_gauge, is_histogram) = (kind == "gauge", kind == "histogram");
        let quantile = |q| series.values().quantile(q).filter(|_| is_histogram);
        MetricFacts {
            path: series.path().to_owned(),
            kind,
            labels: series.labels().map(|(key, value)| (key.to_owned(), value.to_string())).collect(),
            calls: series.calls(),
            sum: (!is_gauge).then(|| series.sum().as_f64()),
            last: series.last().filter(|_| is_gauge),
            min: series.min().filter(|_| is_gauge || is_histogram),
            max: series.max().filter(|_| is_gauge || is_histogram),
            p50: quantile(0.50),
            p95: quantile(0.95),
            p99: quantile(0.99),
        }
    };
    let mut metrics: Vec<MetricFacts> = report.series().iter().map(facts_of).collect();
    metrics.sort_by(|one, other| (&one.path, &one.labels).cmp(&(&other.path, &other.labels)));
    metrics
}

/// Where the events of a context went.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Account {
    /// Events that the program emitted: scopes that closed, for it has no plain metrics.
    pub(crate) events: u64,
    /// Events of these that the reporter holds after the flush.
    pub(crate) delivered: u64,
    /// Events of these that still wait for the reporter, although the flush is over: zero, or something is wrong.
    pub(crate) late: u64,
    /// Events of these that are nowhere: zero, or something is wrong.
    pub(crate) lost: u64,
}

impl Account {
    /// Events that the reporter should hold and does not.
    pub(crate) fn missing(&self) -> u64 {
        self.late.saturating_add(self.lost)
    }
}

/// Flushes a context and compares what it emitted with what its recording holds: two counts that know nothing of each other.
pub(crate) fn account(telemetry: &Telemetry, recording: &Recording, patience: Duration) -> Account {
    telemetry.flush(patience);
    let stats = telemetry.stats();
    let events = stats.emitted();
    let late = stats.reporters().iter().map(|reporter| reporter.queued()).sum();
    let delivered = recording.len();
    Account { events, delivered, late, lost: events.saturating_sub(delivered).saturating_sub(late) }
}

/// The clock that times scopes here.
pub(crate) fn clock_source() -> &'static str {
    kastor::clock_source()
}

/// One limit of the core.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LimitFacts {
    pub(crate) name: &'static str,
    pub(crate) value: u64,
    pub(crate) unit: &'static str,
    pub(crate) beyond: &'static str,
}

/// The limits in force, and what happens beyond them.
pub(crate) fn limits() -> Vec<LimitFacts> {
    use kastor::limits::*;
    let limit = |name, value, unit, beyond| LimitFacts { name, value, unit, beyond };
    let bytes = |name, value: usize, beyond| limit(name, value as u64, "bytes", beyond);
    let number = |name, value: u32, unit, beyond| limit(name, u64::from(value), unit, beyond);
    vec![
        bytes("name", MAX_NAME_BYTES, "cut, and counted"),
        bytes("value", MAX_VALUE_BYTES, "cut, and counted"),
        number("attributes", MAX_ATTRIBUTES, "per scope", "dropped, and counted"),
        bytes("event", MAX_EVENT_BYTES, "attributes dropped, and counted"),
        number("path_levels", MAX_LEVELS, "levels", "deeper scopes share one path"),
        number("path", MAX_TEXT_BYTES, "bytes", "deeper scopes share one path"),
        number("paths", MAX_PATHS, "per process", "further ones share one"),
        number("names", MAX_NAMES, "per process", "further ones share one"),
        number("series", MAX_SERIES_PER_INSTRUMENT, "per metric", "further ones share one, sums stay exact"),
        number("all_series", MAX_SERIES, "per process", "further ones share one, sums stay exact"),
        bytes("queue", QUEUE_BYTES, "events dropped, and counted"),
    ]
}

/// One environment variable that kastor reads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VariableFacts {
    pub(crate) name: &'static str,
    pub(crate) value: Option<String>,
    pub(crate) meaning: &'static str,
}

/// The variables that matter, as they are set now.
pub(crate) fn environment() -> Vec<VariableFacts> {
    let value = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let variable = |name: &'static str, meanings: &[(&str, &'static str)], unset: &'static str| {
        let value = value(name);
        let meaning = value.as_deref().map_or(unset, |value| {
            let known = meanings.iter().find(|(known, _)| *known == value);
            known.map_or("not understood: only the exact values in the documentation count", |(_, meaning)| meaning)
        });
        VariableFacts { name, value, meaning }
    };
    vec![
        variable(
            "KASTOR_TELEMETRY",
            &[("1", "enables contexts built from the environment"), ("0", "forbids telemetry from the environment")],
            "telemetry from the environment is off, unless DEBUG=1",
        ),
        variable("DEBUG", &[("1", "enables contexts built from the environment")], "no effect"),
        variable(
            "KASTOR_TELEMETRY_STRICT_SCOPES",
            &[("1", "dynamic names must have the recommended form")],
            "any dynamic name is taken",
        ),
    ]
}

fn whole_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
