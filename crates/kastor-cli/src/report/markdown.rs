//! The report as Markdown, for pull requests and notes. Same captures, same text.

use super::Report;
use super::text::{figures, metric_figures, metric_name, slow_line, summary};
use crate::output::{Output, PLAIN};

pub(super) fn write(report: &Report, output: &mut Output) {
    let mut line = |text: &str| output.line(PLAIN, text);
    line(&cell(&summary(&report.captures)));
    if let Some(missing) = report.captures.missing.in_words() {
        line("");
        line(&format!("**{}**", cell(&missing)));
    }
    if !report.scopes.is_empty() {
        line("");
        line("| scope | calls | errors | total | share | self | min | p50 | p95 | p99 | max |");
        line("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    }
    for row in &report.scopes {
        let indent = if report.is_flat { 0 } else { row.depth.min(64) as usize };
        let name = if report.is_flat { &row.path } else { &row.name };
        line(&format!("| {}{} | {} |", "&emsp;".repeat(indent), code(name), figures(row).join(" | ")));
    }
    if report.more_paths > 0 {
        line("");
        line(&format!("and {} more paths", report.more_paths));
    }
    if !report.metrics.is_empty() {
        line("");
        line("| metric | kind | calls | sum | last | min | max | p50 | p95 | p99 |");
        line("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    }
    for metric in &report.metrics {
        line(&format!("| {} | {} | {} |", code(&metric_name(metric)), metric.kind, metric_figures(metric).join(" | ")));
    }
    if !report.slowest.is_empty() {
        line("");
    }
    for scope in &report.slowest {
        line(&format!("- {}", code_outside(&slow_line(scope))));
        for (key, value) in &scope.attributes {
            line(&format!("  - {}", code_outside(&format!("{key} = {value}"))));
        }
    }
}

/// Text of our own in a cell or a line.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Text from outside, in a table: as code, in which nothing has a meaning. Tables are divided before code is read, so a
/// bar needs its escape there.
pub(crate) fn code(text: &str) -> String {
    code_outside(&text.replace('|', "\\|"))
}

/// Text from outside, out of a table.
fn code_outside(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    // Longer than every run of backticks in it.
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}
