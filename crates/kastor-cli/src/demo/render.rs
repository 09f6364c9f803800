//! What `kastor demo` prints for people: the call tree, the metrics, the top terms, and one line on telemetry itself.

use super::capture::Captured;
use super::otlp::Sent;
use super::terms::RankedTerm;
use super::trace::Written;
use super::{Cost, Demonstration};
use crate::facts::{Account, MetricFacts, ScopeFacts};
use crate::output::{ALARM, FAINT, Output, PLAIN};
use crate::table::Table;
use crate::units::{bytes, duration, number};

/// Writes everything.
pub(super) fn text(demonstration: &Demonstration, output: &mut Output) {
    summary(demonstration, output);
    output.heading("Call tree");
    call_tree(&demonstration.scopes, output);
    output.heading("Metrics");
    metrics(&demonstration.metrics, output);
    output.heading("Top terms");
    top_terms(&demonstration.documents.ranking, output);
    output.heading("Telemetry itself");
    itself(&demonstration.telemetry, demonstration.cost.as_ref(), output);
    if let Some(captured) = &demonstration.captured {
        capture(captured, output);
    }
    traces(&demonstration.traces, output);
    if let Some(sent) = &demonstration.sent {
        otlp(sent, output);
    }
}

fn summary(demonstration: &Demonstration, output: &mut Output) {
    let documents = &demonstration.documents;
    output.line(
        PLAIN,
        &format!(
            "{}: {} documents, {}, {} terms, {} of them different; {} workers",
            demonstration.path,
            documents.counted,
            bytes(documents.bytes),
            documents.terms,
            documents.distinct_terms,
            demonstration.workers,
        ),
    );
    let left_out = [
        (documents.not_utf8, "not UTF-8"),
        (documents.unreadable, "unreadable"),
        (documents.too_large, "too large"),
        (documents.inaccessible, "inaccessible"),
        (documents.duplicates, "with the same content as another"),
    ];
    let left_out: Vec<String> =
        left_out.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if !left_out.is_empty() {
        output.line(FAINT, &left_out.join(", "));
    }
}

fn call_tree(scopes: &[ScopeFacts], output: &mut Output) {
    let mut table = Table::with_header(&["scope", "calls", "errors", "total", "self", "p50", "p95", "p99"]);
    for scope in scopes {
        table.row([
            format!("{}{}", "  ".repeat(scope.depth as usize), scope.name),
            scope.calls.to_string(),
            scope.errors.to_string(),
            duration(scope.total_ns),
            duration(scope.self_ns),
            duration(scope.p50_ns),
            duration(scope.p95_ns),
            duration(scope.p99_ns),
        ]);
    }
    let mut lines = table.lines(|column| column > 0).into_iter();
    output.line(FAINT, &lines.next().unwrap_or_default());
    for (line, scope) in lines.zip(scopes) {
        let style = if scope.errors > 0 { ALARM } else { PLAIN };
        output.line(style, &line);
    }
}

fn metrics(metrics: &[MetricFacts], output: &mut Output) {
    let mut table = Table::with_header(&["metric", "kind", "calls", "sum", "last", "min", "max", "p50", "p95", "p99"]);
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let name =
            if labels.is_empty() { metric.path.clone() } else { format!("{} {{{}}}", metric.path, labels.join(", ")) };
        let MetricFacts { sum, last, min, max, p50, p95, p99, .. } = *metric;
        let figures = [sum, last, min, max, p50, p95, p99].map(|figure| figure.map(number).unwrap_or_default());
        table.row([name, metric.kind.to_owned(), metric.calls.to_string()].into_iter().chain(figures));
    }
    write_table(table, 2, output);
}

fn top_terms(ranking: &[RankedTerm], output: &mut Output) {
    let mut table = Table::with_header(&["term", "count"]);
    for ranked in ranking {
        table.row([ranked.term.clone(), ranked.count.to_string()]);
    }
    write_table(table, 1, output);
}

fn itself(account: &Account, cost: Option<&Cost>, output: &mut Output) {
    let share = match cost {
        Some(cost) => share(cost),
        None => "its share of CPU time cannot be measured on this system".to_owned(),
    };
    let style = if account.missing() > 0 { ALARM } else { PLAIN };
    let late = if account.late > 0 { format!(", {} late", account.late) } else { String::new() };
    output.line(style, &format!("{} events, {} lost{late}; {share}", account.events, account.lost));
}

fn capture(captured: &Captured, output: &mut Output) {
    let Captured { files, events, missing, bytes: size } = captured;
    let lost = if *missing > 0 { format!(", {missing} missing") } else { String::new() };
    let style = if *missing > 0 { ALARM } else { PLAIN };
    let place = files.join(", ");
    output.line(style, &format!("one more run captured: {events} events{lost}, {} in {place}", bytes(*size)));
    output.line(FAINT, "kastor check says what a capture holds");
}

fn traces(traces: &[Written], output: &mut Output) {
    if !traces.is_empty() {
        output.heading("Traces of one more run");
    }
    for Written { format, path, events, missing, bytes: size } in traces {
        let style = if *missing > 0 { ALARM } else { PLAIN };
        let missing = if *missing > 0 { format!(", {missing} missing") } else { String::new() };
        output.line(style, &format!("{path}: {events} scopes{missing}, {}, for {format}", bytes(*size)));
    }
}

fn otlp(sent: &Sent, output: &mut Output) {
    let Sent { url, delivered, missing } = sent;
    let lost = if *missing > 0 { format!(", {missing} missing") } else { String::new() };
    let style = if *missing > 0 { ALARM } else { PLAIN };
    output.line(style, &format!("one more run sent to {url}: {delivered} events{lost}, and the sums as metrics"));
}

fn share(cost: &Cost) -> String {
    let Cost { rounds, share_percent, noise_percent, .. } = cost;
    let runs = match rounds {
        1 => "one run each".to_owned(),
        _ => format!(
            "the cheapest of {rounds} runs each; a middling run takes {noise_percent:.1} % more than the cheapest"
        ),
    };
    let (with, without) = (duration(cost.on_ns), duration(cost.off_ns));
    format!("{share_percent:.2} % of CPU time was telemetry: {with} with, {without} without ({runs})")
}

/// Writes a table whose numbers begin at a column.
fn write_table(table: Table, numbers_from: usize, output: &mut Output) {
    let mut style = FAINT; // of the header
    for line in table.lines(|column| column >= numbers_from) {
        output.line(style, &line);
        style = PLAIN;
    }
}
