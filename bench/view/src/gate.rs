//! The limits of looking, each with what was measured on this machine.

use std::path::Path;

use serde_json::Value;

use crate::child;
use crate::generate::{many, noisy};
use crate::viewer;

const SCOPES: u64 = 10_000_000;
const ROUNDS: u32 = 5;
/// Differences that are made, each with captures of its own.
const REPEATS: u64 = 20;
/// Pairs of real runs that are compared besides.
const REAL_PAIRS: u64 = 10;
/// Calls of each path in them.
const RUNS: u64 = 1_000;
const MB: f64 = 1e6;

/// Measures everything and prints a line per limit. Returns whether every one holds.
pub fn run(is_quick: bool, folder: &Path) -> bool {
    let scopes = if is_quick { SCOPES / 10 } else { SCOPES };
    let mut limits = reports(scopes, folder);
    limits.extend(differences(folder));
    limits.extend(viewer::limits(is_quick, folder));
    for limit in &limits {
        println!("{}", limit.line());
    }
    if let Some(sentence) = told(real_runs(folder)) {
        println!("beside  {sentence}");
    }
    let missed = limits.iter().filter(|limit| !limit.holds()).count();
    println!("\n{} limits, {missed} missed", limits.len());
    missed == 0
}

/// `kastor report` on many scopes, and on a tenth of them.
fn reports(scopes: u64, folder: &Path) -> Vec<Limit> {
    let (large, small) = (folder.join("large"), folder.join("small"));
    let of = |folder: &Path, scopes: u64| -> Result<Report, String> {
        let written = many(folder, scopes)?;
        let mut best = report(folder, written)?;
        for _ in 1..ROUNDS {
            let next = report(folder, written)?;
            best.ns_per_scope = best.ns_per_scope.min(next.ns_per_scope);
            best.peak_bytes = best.peak_bytes.min(next.peak_bytes);
        }
        let _ = std::fs::remove_dir_all(folder);
        Ok(best)
    };
    let (large, small) = (told(of(&large, scopes)), told(of(&small, scopes / 10)));
    let peak = |report: &Option<Report>| report.as_ref().map(|report| report.peak_bytes / MB);
    let growth = peak(&large).zip(peak(&small)).map(|(large, small)| large - small);
    let rate = large.as_ref().map(|report| 1e9 / report.ns_per_scope);
    let what = |text: &str| format!("report, {} million scopes: {text}", scopes as f64 / 1e6);
    vec![
        Limit { least: true, ..Limit::new(what("per second and core"), 10e6, "scopes", rate) },
        Limit::new(what("peak memory"), 100.0, "MB", peak(&large)),
        Limit::new(what("peak memory above that for a tenth"), 5.0, "MB", growth),
    ]
}

struct Report {
    ns_per_scope: f64,
    peak_bytes: f64,
}

fn report(folder: &Path, scopes: u64) -> Result<Report, String> {
    let ended = child::run(&["report", text(folder)?, "--json"])?;
    let report: Value = serde_json::from_str(&ended.text).map_err(|error| format!("no JSON: {error}"))?;
    let calls: u64 = report["scopes"].as_array().into_iter().flatten().filter_map(|row| row["calls"].as_u64()).sum();
    if calls != scopes || ended.code != 0 {
        return Err(format!("the report has {calls} scopes, the capture {scopes}"));
    }
    Ok(Report { ns_per_scope: ended.cpu_ns / scopes as f64, peak_bytes: ended.peak_bytes })
}

/// `kastor diff` on captures without a difference, and on captures with one of 10 %.
fn differences(folder: &Path) -> Vec<Limit> {
    let (mut found, mut false_ones) = (0_u32, 0_u32);
    for repeat in 0..REPEATS {
        let planted = repeat as usize % crate::generate::STEPS;
        match told(compare(folder, repeat, planted)) {
            Some((planted_found, wrong)) => {
                found += u32::from(planted_found);
                false_ones += wrong;
            }
            None => false_ones += 1,
        }
    }
    let what = |text: &str| format!("diff, log-normal σ 20 %, {RUNS} calls: {text}");
    vec![
        Limit::new(what("false regressions in 20 repeats"), 0.0, "paths", Some(f64::from(false_ones))),
        Limit { least: true, ..Limit::new(what("planted 10 % found, of 20"), 19.0, "", Some(f64::from(found))) },
    ]
}

/// `kastor diff` on pairs of real runs of the same program, one after the other: what it then takes for a regression is one of
/// the machine. No limit: nobody knows what the machine did.
fn real_runs(folder: &Path) -> Result<String, String> {
    let (mut paths, mut slower) = (0, 0);
    for pair in 0..REAL_PAIRS {
        let files = ["before", "after"].map(|name| folder.join(format!("{name}-{pair}.kcap")));
        for file in &files {
            let ended = child::run(&["demo", "--capture", text(file)?, "--json"])?;
            if ended.code != 0 {
                return Err(format!("kastor demo ended with {}", ended.code));
            }
        }
        let [before, after] = &files;
        paths += differing(before, after, |_| true)?.len();
        slower += regressions(before, after)?.len();
    }
    Ok(format!("diff, {REAL_PAIRS} pairs of real runs of the demo: {slower} of {paths} paths called slower"))
}

/// Whether the planted one was found, and how many were that are none.
fn compare(folder: &Path, repeat: u64, planted: usize) -> Result<(bool, u32), String> {
    let file = |name: &str| folder.join(format!("{name}-{repeat}.kcap"));
    let (base, same, slower) = (file("base"), file("same"), file("slower"));
    noisy(&base, RUNS, None, 3 * repeat + 1)?;
    noisy(&same, RUNS, None, 3 * repeat + 2)?;
    noisy(&slower, RUNS, Some((planted, 0.1)), 3 * repeat + 3)?;
    let nothing = regressions(&base, &same)?;
    let something = regressions(&base, &slower)?;
    let path = format!("job.step_{planted}");
    // What is around it is slower too, if by less.
    let wrong = something.iter().filter(|found| **found != path && *found != "job").count() + nothing.len();
    Ok((something.contains(&path), wrong as u32))
}

fn regressions(base: &Path, new: &Path) -> Result<Vec<String>, String> {
    differing(base, new, |verdict| verdict == "slower")
}

/// The paths with such a verdict.
fn differing(base: &Path, new: &Path, is_wanted: fn(&Value) -> bool) -> Result<Vec<String>, String> {
    let ended = child::run(&["diff", text(base)?, text(new)?, "--json", "--limit", "0"])?;
    let difference: Value = serde_json::from_str(&ended.text).map_err(|error| format!("no JSON: {error}"))?;
    let paths = difference["paths"].as_array().ok_or("no paths")?;
    let wanted = paths.iter().filter(|path| is_wanted(&path["call"]["verdict"]));
    Ok(wanted.filter_map(|path| path["path"].as_str()).map(str::to_owned).collect())
}

/// A path as an argument.
pub fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| "a folder whose name is no text".to_owned())
}

/// What was measured; what went wrong is told.
pub fn told<T>(measured: Result<T, String>) -> Option<T> {
    measured.map_err(|problem| println!("failed: {problem}")).ok()
}

/// One figure that must not be exceeded, or must be reached.
pub struct Limit {
    what: String,
    bound: f64,
    unit: &'static str,
    measured: Option<f64>,
    least: bool,
}

impl Limit {
    /// A figure that must not be exceeded.
    pub fn new(what: String, bound: f64, unit: &'static str, measured: Option<f64>) -> Limit {
        Limit { what, bound, unit, measured, least: false }
    }

    fn holds(&self) -> bool {
        self.measured.is_some_and(|measured| if self.least { measured >= self.bound } else { measured <= self.bound })
    }

    fn line(&self) -> String {
        let verdict = if self.holds() { "ok    " } else { "MISSED" };
        let measured = self.measured.map_or("not measured".to_owned(), |measured| format!("{measured:.2}"));
        let side = if self.least { "at least" } else { "at most" };
        format!("{verdict}  {:<72} {measured:>14}  {side} {} {}", self.what, self.bound, self.unit)
    }
}
