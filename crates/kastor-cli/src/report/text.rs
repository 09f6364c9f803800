//! The report for a terminal.

use super::slowest::SlowScope;
use super::{Report, Row};
use crate::captures::Seen;
use crate::facts::MetricFacts;
use crate::output::{ALARM, FAINT, Output, PLAIN};
use crate::table::Table;
use crate::units::{bytes, duration, number};

/// Characters of a name that are shown.
const NAME_CHARACTERS: usize = 80;

pub(super) fn write(report: &Report, output: &mut Output) {
    output.line(PLAIN, &summary(&report.captures));
    if let Some(missing) = report.captures.missing.in_words() {
        output.line(ALARM, &missing);
    }
    if report.scopes.is_empty() && report.metrics.is_empty() {
        output.line(PLAIN, "no scope and no metric that fits");
        return;
    }
    if !report.scopes.is_empty() {
        output.heading(if report.is_flat { "Paths" } else { "Call tree" });
        scopes(report, output);
    }
    if !report.metrics.is_empty() {
        output.heading("Metrics");
        metrics(&report.metrics, output);
        if report.metrics_since_start {
            output
                .line(FAINT, "counters, gauges and histograms run since the start of their process, not since --since");
        }
    }
    if !report.slowest.is_empty() {
        output.heading("Slowest");
        slowest(&report.slowest, output);
    }
}

/// What was read, in one line.
pub(super) fn summary(seen: &Seen) -> String {
    let plural = |number: u64, word: &str, words: &str| format!("{number} {}", if number == 1 { word } else { words });
    let mut text = format!(
        "{}, {}; {}, {}; {}",
        plural(seen.files, "file", "files"),
        bytes(seen.bytes),
        plural(seen.processes, "process", "processes"),
        plural(seen.threads, "thread", "threads"),
        plural(seen.events, "event", "events"),
    );
    if let (Some(first), Some(last)) = (seen.first, seen.last) {
        let ns = u64::try_from(last.duration_since(first).as_nanos()).unwrap_or(0);
        text.push_str(&format!(" from {first:.3} on, for {}", duration(ns)));
    }
    text
}

fn scopes(report: &Report, output: &mut Output) {
    let header = ["scope", "calls", "errors", "total", "share", "self", "min", "p50", "p95", "p99", "max"];
    let mut table = Table::with_header(&header);
    for row in &report.scopes {
        let name = if report.is_flat { &row.path } else { &row.name };
        let indent = if report.is_flat { 0 } else { row.depth as usize };
        table.row([format!("{}{}", "  ".repeat(indent), shortened(name))].into_iter().chain(figures(row)));
    }
    let mut lines = table.lines(|column| column > 0).into_iter();
    output.line(FAINT, &lines.next().unwrap_or_default());
    for (line, row) in lines.zip(&report.scopes) {
        let style = match (row.errors, row.calls) {
            (1.., _) => ALARM,
            (_, 0) => FAINT,
            _ => PLAIN,
        };
        output.line(style, &line);
    }
    if report.more_paths > 0 {
        output.line(
            FAINT,
            &format!("and {} more paths; --limit 0 shows all, --path and --depth fewer", report.more_paths),
        );
    }
}

/// The figures of a row, in the order of the table; empty where nothing closed.
pub(super) fn figures(row: &Row) -> [String; 10] {
    if row.calls == 0 {
        return Default::default();
    }
    let share = row.share.map(|share| format!("{:.1} %", share * 100.0)).unwrap_or_default();
    let [total, own, min, p50, p95, p99, max] =
        [row.total_ns, row.self_ns, row.min_ns, row.p50_ns, row.p95_ns, row.p99_ns, row.max_ns].map(duration);
    [row.calls.to_string(), row.errors.to_string(), total, share, own, min, p50, p95, p99, max]
}

fn metrics(metrics: &[MetricFacts], output: &mut Output) {
    let mut table = Table::with_header(&["metric", "kind", "calls", "sum", "last", "min", "max", "p50", "p95", "p99"]);
    for metric in metrics {
        let figures = metric_figures(metric);
        table.row([shortened(&metric_name(metric)), metric.kind.to_owned()].into_iter().chain(figures));
    }
    let mut style = FAINT; // of the header
    for line in table.lines(|column| column >= 2) {
        output.line(style, &line);
        style = PLAIN;
    }
}

/// Path and labels.
pub(super) fn metric_name(metric: &MetricFacts) -> String {
    let labels: Vec<String> = metric.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() { metric.path.clone() } else { format!("{} {{{}}}", metric.path, labels.join(", ")) }
}

/// Calls and figures; empty where the kind has none.
pub(super) fn metric_figures(metric: &MetricFacts) -> [String; 8] {
    let MetricFacts { sum, last, min, max, p50, p95, p99, .. } = *metric;
    let [sum, last, min, max, p50, p95, p99] =
        [sum, last, min, max, p50, p95, p99].map(|figure| figure.map(number).unwrap_or_default());
    [metric.calls.to_string(), sum, last, min, max, p50, p95, p99]
}

fn slowest(scopes: &[SlowScope], output: &mut Output) {
    for scope in scopes {
        let style = if scope.error_type.is_some() { ALARM } else { PLAIN };
        output.line(style, &slow_line(scope));
        for (key, value) in &scope.attributes {
            output.line(FAINT, &format!("    {key} = {}", shortened(value)));
        }
    }
}

/// A slow scope without its attributes.
pub(super) fn slow_line(scope: &SlowScope) -> String {
    let SlowScope { path, thread, trace_id, span_id, .. } = scope;
    let start = scope.start.map(|start| format!("{start:.6}")).unwrap_or_default();
    let failed = scope.error_type.as_ref().map(|error| format!(", failed: {}", shortened(error))).unwrap_or_default();
    let (took, path) = (duration(scope.duration_ns), shortened(path));
    format!("{took}  {path}{failed}  {start}  {thread}  trace {trace_id}  span {span_id}")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(NAME_CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}
