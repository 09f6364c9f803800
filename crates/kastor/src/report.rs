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
            let seconds = |duration: Duration| Some(json_number(duration.as_secs_f64()));
            json_object([
                ("path", Some(json_text(scope.path()))),
                ("depth", Some(scope.depth().to_string())),
                ("calls", Some(scope.calls().to_string())),
                ("errors", Some(scope.errors().to_string())),
                ("total_s", seconds(scope.total())),
                ("self_s", seconds(scope.self_time())),
                ("min_s", seconds(scope.min())),
                ("max_s", seconds(scope.max())),
                ("p50_s", seconds(scope.quantile(0.5))),
                ("p95_s", seconds(scope.quantile(0.95))),
                ("p99_s", seconds(scope.quantile(0.99))),
            ])
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

    /// The same tables as [`Display`](fmt::Display) prints, as HTML without scripts or styles of a page: for notebooks.
    pub fn to_html(&self) -> String {
        let mut out = String::new();
        if self.scopes.is_empty() && self.series.is_empty() {
            out.push_str("<p>nothing recorded</p>");
        }
        if !self.scopes.is_empty() {
            push_html_table(&mut out, SCOPE_HEAD, self.lines.iter().map(|line| self.scope_row(*line)));
        }
        if !self.series.is_empty() {
            push_html_table(&mut out, SERIES_HEAD, self.series.iter().map(series_row));
        }
        for degraded in &self.degraded {
            out.push_str("<p>over the overhead budget: ");
            push_html_text(&mut out, &degraded.to_string());
            out.push_str("</p>");
        }
        out
    }

    fn scope_row(&self, (path, scope): (Path, Option<usize>)) -> [String; 10] {
        let name = "  ".repeat(path.levels().saturating_sub(1) as usize) + &escaped(path.name().text());
        let Some(scope) = scope.and_then(|at| self.scopes.get(at)) else {
            let mut row: [String; 10] = Default::default();
            row[0] = name;
            return row;
        };
        [
            name,
            scope.calls().to_string(),
            scope.errors().to_string(),
            time(scope.total()),
            time(scope.self_time()),
            time(scope.min()),
            time(scope.max()),
            time(scope.quantile(0.5)),
            time(scope.quantile(0.95)),
            time(scope.quantile(0.99)),
        ]
    }
}

const SCOPE_HEAD: [&str; 10] = ["scope", "calls", "errors", "total", "self", "min", "max", "p50", "p95", "p99"];
const SERIES_HEAD: [&str; 10] = ["metric", "type", "calls", "sum", "last", "min", "max", "p50", "p95", "not finite"];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scopes.is_empty() && self.series.is_empty() {
            return f.write_str("nothing recorded\n");
        }
        if !self.scopes.is_empty() {
            write_table(f, SCOPE_HEAD, self.lines.iter().map(|line| self.scope_row(*line)))?;
        }
        if !self.series.is_empty() {
            f.write_str(if self.scopes.is_empty() { "" } else { "\n" })?;
            write_table(f, SERIES_HEAD, self.series.iter().map(series_row))?;
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

/// Names to the left, figures to the right; a column without figures is left out.
fn write_table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> fmt::Result {
    let rows: Vec<[String; N]> = rows.collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().min(MAX_NAME_WIDTH).max(*width);
        }
    }
    let head = head.map(str::to_owned);
    for row in std::iter::once(&head).chain(&rows) {
        let mut line = String::new();
        for ((cell, head), width) in row.iter().zip(&head).zip(widths).filter(|(_, width)| *width > 0) {
            let width = width.max(head.len());
            line += &if line.is_empty() { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Names to the left, figures to the right; two blanks before a name are one level.
fn push_html_table<const N: usize>(out: &mut String, head: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    out.push_str("<table><thead><tr>");
    for (at, cell) in head.iter().enumerate() {
        push_html_cell(out, "th", at == 0, cell);
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            push_html_cell(out, "td", at == 0, cell);
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
}

fn push_html_cell(out: &mut String, tag: &str, is_name: bool, text: &str) {
    let style = if is_name { "text-align: left; white-space: pre" } else { "text-align: right" };
    out.push_str(&format!("<{tag} style=\"{style}\">"));
    push_html_text(out, text);
    out.push_str(&format!("</{tag}>"));
}

fn push_html_text(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
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
