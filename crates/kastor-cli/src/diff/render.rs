//! The difference for a terminal, and as Markdown.

use super::judge::{Change, Verdict};
use super::{Difference, Figures, PathDifference};
use crate::captures::Seen;
use crate::output::{ALARM, FAINT, Output, PLAIN};
use crate::report::markdown_code;
use crate::table::Table;
use crate::units::duration;

const HEADER: [&str; 8] = ["path", "verdict", "call", "self", "per call", "calls", "errors", "total"];

pub(super) fn text(difference: &Difference, output: &mut Output) {
    for (name, seen) in [("base", &difference.base), ("new", &difference.new)] {
        if let Some(missing) = seen.missing.in_words() {
            output.line(ALARM, &format!("{name}: {missing}"));
        }
    }
    let style = if difference.regressions > 0 { ALARM } else { PLAIN };
    output.line(style, &headline(difference));
    for path in difference.paths.iter().filter(|path| path.is_regression()) {
        output.line(ALARM, &format!("slower: {}: {}", path.path, in_words(path)));
    }
    if difference.paths.is_empty() {
        return;
    }
    output.heading("Paths");
    let mut table = Table::with_header(&HEADER);
    for path in &difference.paths {
        table.row([path.path.clone()].into_iter().chain(cells(path)));
    }
    let mut lines = table.lines(|column| column > 1).into_iter();
    output.line(FAINT, &lines.next().unwrap_or_default());
    for (line, path) in lines.zip(&difference.paths) {
        let style = if path.is_regression() { ALARM } else { PLAIN };
        output.line(style, &line);
    }
    if difference.more_paths > 0 {
        output.line(FAINT, &format!("and {} more paths; --limit 0 shows all", difference.more_paths));
    }
}

pub(super) fn markdown(difference: &Difference, output: &mut Output) {
    let mut line = |text: &str| output.line(PLAIN, text);
    line(&format!("**{}**", headline(difference)));
    for (name, seen) in [("base", &difference.base), ("new", &difference.new)] {
        if let Some(missing) = seen.missing.in_words() {
            line("");
            line(&format!("{name}: {missing}"));
        }
    }
    if difference.paths.is_empty() {
        return;
    }
    line("");
    line(&format!("| {} |", HEADER.join(" | ")));
    line("|---|---|---:|---:|---:|---:|---:|---:|");
    for path in &difference.paths {
        line(&format!("| {} | {} |", markdown_code(&path.path), cells(path).join(" | ")));
    }
    if difference.more_paths > 0 {
        line("");
        line(&format!("and {} more paths", difference.more_paths));
    }
}

/// How it ended, in one line.
fn headline(difference: &Difference) -> String {
    let count = |verdict: Verdict| {
        let is_it = |path: &&PathDifference| path.call.is_some_and(|change| change.verdict == verdict);
        difference.paths.iter().filter(is_it).count()
    };
    let percent = difference.threshold * 100.0;
    let missing = if difference.more_paths > 0 { "at least " } else { "" };
    let events = |seen: &Seen| seen.events;
    format!(
        "{} slower by {percent}% or more, {missing}{} faster, {missing}{} the same, {missing}{} unclear; {} events against {}",
        difference.regressions,
        count(Verdict::Faster),
        count(Verdict::Same),
        count(Verdict::Unclear),
        events(&difference.new),
        events(&difference.base),
    )
}

/// A regression in words.
fn in_words(path: &PathDifference) -> String {
    let mean = |figures: Option<Figures>| figures.map_or_else(String::new, |it| duration(it.mean_ns.round() as u64));
    let call = path.call.as_ref().map(with_interval).unwrap_or_default();
    let own = path.own.as_ref().map(signed).unwrap_or_default();
    format!("{} → {} per call, {call}; self {own}", mean(path.base), mean(path.new))
}

fn cells(path: &PathDifference) -> [String; 7] {
    let both = |of: &dyn Fn(&Figures) -> String| match (&path.base, &path.new) {
        (Some(base), Some(new)) if of(base) == of(new) => of(new),
        (Some(base), Some(new)) => format!("{} → {}", of(base), of(new)),
        (Some(one), None) | (None, Some(one)) => of(one),
        (None, None) => String::new(),
    };
    let verdict = match (&path.base, &path.new, &path.call) {
        (Some(_), None, _) => "gone",
        (None, _, _) => "new",
        (_, _, Some(change)) => word(change.verdict),
        _ => "",
    };
    [
        verdict.to_owned(),
        path.call.as_ref().map(with_interval).unwrap_or_default(),
        path.own.as_ref().map(signed).unwrap_or_default(),
        both(&|figures| duration(figures.mean_ns.round() as u64)),
        both(&|figures| figures.calls.to_string()),
        both(&|figures| figures.errors.to_string()),
        both(&|figures| duration(figures.total_ns)),
    ]
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Slower => "slower",
        Verdict::Faster => "faster",
        Verdict::Same => "same",
        Verdict::Unclear => "unclear",
        Verdict::Few => "few calls",
    }
}

fn signed(change: &Change) -> String {
    format!("{:+.1} %", change.change * 100.0)
}

/// The change and where it truly lies.
fn with_interval(change: &Change) -> String {
    match change.interval {
        Some((low, high)) => format!("{} ({:+.1} … {:+.1})", signed(change), low * 100.0, high * 100.0),
        None => signed(change),
    }
}
