//! A context's own report: exact aggregates as a call tree and a list of metrics, in text or JSON.
//!
//! Scopes come in the order of the tree: parents above children, the one with the largest total first. A parent that
//! never closed has a line without figures. Everything is iterative and deterministic.

use std::{cmp::Reverse, collections::BTreeMap, fmt, time::Duration};

use crate::{
    escape::{escaped, json_number, json_object, json_text},
    event::{MetricType, Number, ScopeAggregate, SeriesAggregate},
    health::{Degradation, Degraded},
    name::Path,
    value::json_value,
};

/// What a context has aggregated up to one moment: what [`Telemetry::report`](crate::Telemetry::report) returns.
///
/// `Display` prints tables for people; [`to_json`](Self::to_json) is for programs.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of the tree.
    scopes: Vec<ScopeAggregate>,
    series: Vec<SeriesAggregate>,
    /// Lines of the tree: the path, and its scope if one closed.
    lines: Vec<(Path, Option<usize>)>,
    degraded: Vec<Degraded>,
}

impl Report {
    pub(crate) fn new(scopes: Vec<ScopeAggregate>, series: Vec<SeriesAggregate>, degraded: Vec<Degraded>) -> Self {
        let mut figures: BTreeMap<Path, ScopeAggregate> = scopes.into_iter().map(|scope| (scope.path, scope)).collect();
        let (mut scopes, mut lines) = (Vec::with_capacity(figures.len()), Vec::new());
        for path in tree(&figures) {
            let scope = figures.remove(&path);
            lines.push((path, scope.is_some().then_some(scopes.len())));
            scopes.extend(scope);
        }
        Self { scopes, series, lines, degraded }
    }

    /// Every path under which a scope closed, in the order of the tree.
    pub fn scopes(&self) -> &[ScopeAggregate] {
        &self.scopes
    }

    /// Every metric: one entry per path, instrument and set of labels, ordered by path.
    pub fn series(&self) -> &[SeriesAggregate] {
        &self.series
    }

    /// Scopes that are beyond the overhead budget, by path: what is switched off is missing above.
    pub fn degraded(&self) -> &[Degraded] {
        &self.degraded
    }

    /// The scopes of one path.
    pub fn scope(&self, path: &str) -> Option<&ScopeAggregate> {
        self.scopes.iter().find(|scope| scope.path() == path)
    }

    /// The series of one metric: the path of the scope and the metric's name, joined with `.`.
    pub fn series_of<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a SeriesAggregate> {
        self.series.iter().filter(move |series| series.path() == path)
    }

    /// `{"scopes": […], "metrics": […]}`, one object each; durations in seconds, as the keys say. What an instrument has
    /// no figure for is left out. What is beyond the overhead budget, if anything is, follows under `"degraded"`.
    pub fn to_json(&self) -> String {
        let scopes = self.scopes.iter().map(|scope| {
            let seconds = |of: Figure| Some(json_number(of(scope).as_secs_f64()));
            let counts = [
                ("path", Some(json_text(scope.path()))),
                ("depth", Some(scope.depth().to_string())),
                ("calls", Some(scope.calls().to_string())),
                ("errors", Some(scope.errors().to_string())),
            ];
            json_object(counts.into_iter().chain(FIGURES.map(|(_, key, of)| (key, seconds(of)))))
        });
        let series = self.series.iter().map(|series| {
            let labels = series.labels().map(|(key, value)| (key, Some(json_value(&value))));
            let is_counter = series.metric_type() == MetricType::Counter;
            json_object([
                ("path", Some(json_text(series.path()))),
                ("type", Some(json_text(series.metric_type().as_str()))),
                ("labels", Some(json_object(labels))),
                ("calls", Some(series.calls().to_string())),
                ("sum", sum(series).map(json_sum)),
                ("is_monotonic", is_counter.then(|| series.is_monotonic().to_string())),
                ("last", series.last().map(json_number)),
                ("min", series.min().map(json_number)),
                ("max", series.max().map(json_number)),
                ("p50", quantile(series, 0.5).map(json_number)),
                ("p95", quantile(series, 0.95).map(json_number)),
                ("p99", quantile(series, 0.99).map(json_number)),
                ("not_finite", not_finite(series).map(|count| count.to_string())),
                ("unit", series.unit().map(json_text)),
                ("help", series.help().map(json_text)),
            ])
        });
        let (scopes, series) = (scopes.collect::<Vec<_>>().join(", "), series.collect::<Vec<_>>().join(", "));
        let degraded = self.degraded.iter().map(|degraded| {
            let is_off = degraded.level() == Degradation::Off;
            json_object([
                ("path", Some(json_text(degraded.path()))),
                ("is_off", Some(is_off.to_string())),
                ("calls_per_second", Some(json_number(degraded.calls_per_second()))),
                ("share", Some(json_number(degraded.share()))),
            ])
        });
        let degraded = match self.degraded.is_empty() {
            true => String::new(),
            false => format!(", \"degraded\": [{}]", degraded.collect::<Vec<_>>().join(", ")),
        };
        format!("{{\"scopes\": [{scopes}], \"metrics\": [{series}]{degraded}}}")
    }

    /// The tables that [`Display`](fmt::Display) prints, one for scopes and one for metrics, each if there are any. Rows of
    /// cells, the head first; two blanks before the name of a scope are one level.
    pub fn tables(&self) -> Vec<Vec<[String; 10]>> {
        let scopes = self.lines.iter().map(|line| self.scope_row(*line));
        let (scopes, series) = (table(SCOPE_HEAD, scopes), table(SERIES_HEAD, self.series.iter().map(series_row)));
        [scopes, series].into_iter().filter(|table| table.len() > 1).collect()
    }

    fn scope_row(&self, (path, scope): (Path, Option<usize>)) -> [String; 10] {
        let mut row: [String; 10] = Default::default();
        row[0] = "  ".repeat(path.levels().saturating_sub(1) as usize) + &escaped(path.name().text());
        if let Some(scope) = scope.and_then(|at| self.scopes.get(at)) {
            (row[1], row[2]) = (scope.calls().to_string(), scope.errors().to_string());
            row.iter_mut().skip(3).zip(FIGURES).for_each(|(cell, (_, _, of))| *cell = time(of(scope)));
        }
        row
    }
}

type Figure = fn(&ScopeAggregate) -> Duration;

/// The durations that are shown of a scope: head of the column, key in JSON.
const FIGURES: [(&str, &str, Figure); 7] = [
    ("total", "total_s", ScopeAggregate::total),
    ("self", "self_s", ScopeAggregate::self_time),
    ("min", "min_s", ScopeAggregate::min),
    ("max", "max_s", ScopeAggregate::max),
    ("p50", "p50_s", |scope| scope.quantile(0.5)),
    ("p95", "p95_s", |scope| scope.quantile(0.95)),
    ("p99", "p99_s", |scope| scope.quantile(0.99)),
];

const SCOPE_HEAD: [&str; 10] = ["scope", "calls", "errors", "total", "self", "min", "max", "p50", "p95", "p99"];
const SERIES_HEAD: [&str; 10] = ["metric", "type", "calls", "sum", "last", "min", "max", "p50", "p95", "not finite"];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.tables();
        if tables.is_empty() {
            return f.write_str("nothing recorded\n");
        }
        for (at, table) in tables.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "\n" })?;
            write_table(f, table)?;
        }
        for (at, degraded) in self.degraded.iter().enumerate() {
            f.write_str(if at == 0 { "\n" } else { "" })?;
            writeln!(f, "over the overhead budget: {degraded}")?;
        }
        Ok(())
    }
}

/// Total, name and path, in the order in which siblings are taken off the end.
type Sibling = (u64, Reverse<&'static str>, Path);

/// All paths with figures, and the parents between them and the root, parents first.
fn tree(figures: &BTreeMap<Path, ScopeAggregate>) -> Vec<Path> {
    let mut totals: BTreeMap<Path, u64> = BTreeMap::new();
    for path in figures.keys() {
        let mut next = Some(*path);
        while let Some(path) = next.filter(|path| !totals.contains_key(path)) {
            totals.insert(path, figures.get(&path).map_or(0, |scope| scope.total_ns));
            next = path.parent();
        }
    }
    let mut deepest_first: Vec<Path> = totals.keys().copied().collect();
    deepest_first.sort_by_key(|path| Reverse(path.levels()));
    let mut children: BTreeMap<Option<Path>, Vec<Sibling>> = BTreeMap::new();
    for path in deepest_first {
        let total = totals.get(&path).copied().unwrap_or(0);
        let parent = path.parent();
        // A parent without figures stands where its children's total puts it.
        let bare = parent.filter(|parent| !figures.contains_key(parent));
        if let Some(sum) = bare.and_then(|parent| totals.get_mut(&parent)) {
            *sum = sum.saturating_add(total);
        }
        children.entry(parent).or_default().push((total, Reverse(path.name().text()), path));
    }
    children.values_mut().for_each(|siblings| siblings.sort());
    let mut waiting = children.remove(&None).unwrap_or_default();
    let mut order = Vec::with_capacity(totals.len());
    while let Some((_, _, path)) = waiting.pop() {
        order.push(path);
        waiting.extend(children.remove(&Some(path)).unwrap_or_default());
    }
    order
}

fn series_row(series: &SeriesAggregate) -> [String; 10] {
    let mut name = escaped(series.path()).into_owned();
    let labels: Vec<String> = series.labels().map(|(key, value)| format!("{key}={value}")).collect();
    if !labels.is_empty() {
        name += &format!("{{{}}}", escaped(&labels.join(", ")));
    }
    if let Some(unit) = series.unit() {
        name += &format!(" [{}]", escaped(unit));
    }
    let figure = |figure: Option<f64>| figure.map_or(String::new(), short);
    [
        name,
        series.metric_type().as_str().to_owned(),
        series.calls().to_string(),
        // The sum of a distribution is in the JSON; here its quantiles say more.
        sum(series).filter(|_| series.metric_type() == MetricType::Counter).map_or(String::new(), |sum| match sum {
            Number::Integer(sum) => sum.to_string(),
            Number::Float(sum) => short(sum),
        }),
        figure(series.last()),
        figure(series.min()),
        figure(series.max()),
        // More than three digits of these would be noise.
        figure(quantile(series, 0.5).map(|value| rounded(value, 3))),
        figure(quantile(series, 0.95).map(|value| rounded(value, 3))),
        not_finite(series).map_or(String::new(), |count| count.to_string()),
    ]
}

/// Of a gauge no sum is shown anywhere: it would mean nothing.
fn sum(series: &SeriesAggregate) -> Option<Number> {
    (series.metric_type() != MetricType::Gauge).then(|| series.sum())
}

fn quantile(series: &SeriesAggregate, q: f64) -> Option<f64> {
    if series.metric_type() == MetricType::Histogram { series.values().quantile(q) } else { None }
}

fn not_finite(series: &SeriesAggregate) -> Option<u64> {
    Some(series.values().not_finite()).filter(|count| *count > 0)
}

/// Longer names than this run out of their column instead of widening it for everyone.
const MAX_NAME_WIDTH: usize = 64;

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Vec<[String; N]> {
    std::iter::once(head.map(str::to_owned)).chain(rows).collect()
}

/// Names to the left, figures to the right; a column without figures is left out.
fn write_table<const N: usize>(f: &mut fmt::Formatter<'_>, table: &[[String; N]]) -> fmt::Result {
    let Some((head, rows)) = table.split_first() else { return Ok(()) };
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().min(MAX_NAME_WIDTH).max(*width);
        }
    }
    for row in table {
        let mut line = String::new();
        for ((cell, head), width) in row.iter().zip(head).zip(widths).filter(|(_, width)| *width > 0) {
            let width = width.max(head.len());
            line += &if line.is_empty() { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Three digits and a unit.
fn time(duration: Duration) -> String {
    let ns = duration.as_nanos() as f64;
    let seconds = (ns / 1e9).round() as u64;
    if ns < 999.5 {
        return format!("{ns} ns");
    }
    for (size, unit) in [(1e3, "µs"), (1e6, "ms"), (1e9, "s")] {
        let value = ns / size;
        let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        if value < if unit == "s" { 99.95 } else { 999.5 } {
            return format!("{value:.decimals$} {unit}");
        }
    }
    match seconds {
        ..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Six digits at most, unless it is an integer; never a page of them.
fn short(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        1e-4..1e15 if number.fract() == 0.0 => number.to_string(),
        1e-4..1e15 => rounded(number, 6).to_string(),
        _ => format!("{:e}", rounded(number, 6)),
    }
}

fn rounded(number: f64, digits: usize) -> f64 {
    format!("{number:.*e}", digits.saturating_sub(1)).parse().unwrap_or(number)
}

fn json_sum(sum: Number) -> String {
    match sum {
        Number::Integer(sum) => sum.to_string(),
        Number::Float(sum) => json_number(sum),
    }
}
