//! `--gate core`: kastor's own limits, each with what was measured on this machine.
//!
//! Measures the floors and kastor, counts instructions, starts the two link programs, runs the probes, and prints
//! a line per limit. One that could not be measured is missed.

use crate::harness::{self, Settings, run_child};
use crate::instructions;
use crate::machine::monotonic_ns;
use crate::peers;
use crate::results::{Results, Row};
use std::process::Command;

const ON: &str = "kastor/on";
const OFF: &str = "kastor/off";
const STARTS: u32 = 50;

/// Measures and prints. Returns whether every limit holds and nothing failed.
pub fn core(settings: &Settings) -> bool {
    if peers::probe(peers::PROBES[0]).is_none() {
        println!("kastor is not built into this binary: nothing to judge");
        return false;
    }
    let settings = Settings { only: Some("kastor/".to_owned()), ..settings.clone() };
    let mut results = harness::run(&settings);
    instructions::count(&settings, &mut results);
    run_probes(&settings, &mut results);
    let mut judged = judge_scopes(&results);
    judged.extend(judge_metrics(&results));
    judged.extend(judge_keeping(&results));
    judged.extend(judge_linking());
    judged.extend(judge_promises(&results));
    crate::table::print(&results, &harness::selected(&settings));
    println!();
    for limit in &judged {
        println!("{}", limit.line());
    }
    let missed = judged.iter().filter(|limit| !limit.holds()).count();
    println!("\n{} limits, {missed} missed, {} failures", judged.len(), results.failures.len());
    missed == 0 && results.failures.is_empty()
}

/// One figure that must not be exceeded.
struct Limit {
    what: String,
    most: f64,
    unit: &'static str,
    measured: Option<f64>,
}

impl Limit {
    fn new(what: impl Into<String>, most: f64, unit: &'static str, measured: Option<f64>) -> Limit {
        Limit { what: what.into(), most, unit, measured }
    }

    fn holds(&self) -> bool {
        // The slack is for sums of decimals, not for misses: limits have at most two decimals.
        self.measured.is_some_and(|measured| measured <= self.most + 1e-6)
    }

    fn line(&self) -> String {
        let verdict = if self.holds() { "ok    " } else { "MISSED" };
        let measured = self.measured.map_or("not measured".to_owned(), |measured| format!("{measured:.3}"));
        format!("{verdict}  {:<62} {measured:>12}  limit {} {}", self.what, self.most, self.unit)
    }
}

fn judge_scopes(results: &Results) -> Vec<Limit> {
    let row = |case| results.find(ON, case);
    let times = |case| row(case).and_then(|row| results.ratio(row));
    let off = |peer, case| gross_instructions(results.find(peer, case));
    let scope_ns = row("on_scope0").and_then(Row::ns_min);
    let dynamic = row("on_dynamic").and_then(Row::ns_min).zip(scope_ns).map(|(dynamic, fixed)| dynamic - fixed);
    let inline = results.find("kastor/inline", "on_inline");
    let sustained = row("sustained_10s");
    vec![
        Limit::new("disabled scope!, 0 attributes", 10.0, "instructions", off(OFF, "off_scope0")),
        Limit::new("disabled scope!, 2 attributes", 10.0, "instructions", off(OFF, "off_scope2")),
        Limit::new("disabled count!", 10.0, "instructions", off(OFF, "off_counter")),
        Limit::new("scope! off by name filter", 14.0, "instructions", off("kastor/named", "off_named")),
        Limit::new("disabled tele.scope(..)", 20.0, "instructions", off(OFF, "off_dynamic")),
        Limit::new("enabled scope, background no-op", 1.2, "× two clock reads", times("on_scope0")),
        Limit::new("enabled scope, background no-op", 140.0, "instructions", gross_instructions(row("on_scope0"))),
        Limit::new("enabled scope, background no-op", 0.0, "allocations", allocations(row("on_scope0"))),
        Limit::new("enabled scope, 2 attributes", 1.25, "× two clock reads", times("on_scope2")),
        Limit::new("enabled scope, 2 attributes", 200.0, "instructions", gross_instructions(row("on_scope2"))),
        Limit::new("enabled scope, 2 attributes", 0.0, "allocations", allocations(row("on_scope2"))),
        Limit::new("64 callsites × 8 parents", 1.3, "× two clock reads", times("on_many_paths")),
        Limit::new("4,096 paths", 2.0, "× two clock reads", times("on_many_paths_4096")),
        Limit::new("dynamic name, above a static one", 25.0, "ns", dynamic),
        Limit::new("inline no-op reporter", 2.0, "× two clock reads", inline.and_then(|row| results.ratio(row))),
        Limit::new("inline no-op reporter", 0.0, "allocations", allocations(inline)),
        Limit::new("sustained, process CPU with deferred work", 1.3, "× two clock reads", sustained_ratio(sustained)),
        Limit::new("sustained, lost", 0.0, "scopes", more(sustained, "lost")),
        Limit::new("2 threads, CPU per scope", 1.03, "× one thread", times("on_two_threads")),
        Limit::new("scope inside a polled future, per poll", 5.0, "ns", row("on_poll").and_then(Row::ns_min)),
    ]
}

fn judge_metrics(results: &Results) -> Vec<Limit> {
    let row = |case| results.find(ON, case);
    let limits = [
        ("counter, macro", "on_counter", 1.0),
        ("counter, macro, 2 static labels", "on_counter2", 1.0),
        ("counter, bound handle", "on_counter_handle", 0.6),
        ("counter, dynamic labels", "on_counter_labels", 12.0),
    ];
    let time_and_allocations = |(what, case, most)| {
        [
            Limit::new(what, most, "ns", row(case).and_then(Row::ns_min)),
            Limit::new(what, 0.0, "allocations", allocations(row(case))),
        ]
    };
    let mut judged: Vec<Limit> = limits.into_iter().flat_map(time_and_allocations).collect();
    for (what, case, most) in [
        ("metric event, 0 attributes", "on_metric_event", 1.5),
        ("metric event, 2 attributes", "on_metric_event2", 3.0),
    ] {
        judged.push(Limit::new(what, most, "ns", row(case).and_then(Row::ns_min)));
    }
    judged
}

fn judge_keeping(results: &Results) -> Vec<Limit> {
    let levels = results.find(ON, "open_level_bytes");
    let mut limits: Vec<Limit> = [100, 1_000, 100_000]
        .into_iter()
        .map(|depth| {
            Limit::new(
                format!("heap per open level, depth {depth}"),
                40.0,
                "bytes",
                more(levels, &format!("at_{depth}")),
            )
        })
        .collect();
    for (what, case) in
        [("10,000 roots × 99 children", "e2e_many_roots"), ("1 root × 999,999 children", "e2e_one_root")]
    {
        let row = results.find("kastor/recording", case);
        limits.push(Limit::new(format!("{what}, kept and counted"), 33.0, "ns", row.and_then(Row::ns_min)));
        limits.push(Limit::new(format!("{what}, kept"), 33.0, "bytes", more(row, "bytes")));
        limits.push(Limit::new(format!("{what}, lost"), 0.0, "scopes", more(row, "lost")));
        limits.push(Limit::new(format!("{what}, late"), 0.0, "scopes", more(row, "late")));
    }
    limits
}

/// Starts the empty program and the one with kastor in turns. What differs is what linking costs.
fn judge_linking() -> Vec<Limit> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.extend(start("link-empty").zip(start("link-kastor")));
    }
    let least = |figure: fn(&Start) -> f64, which: fn(&(Start, Start)) -> &Start| {
        starts.iter().map(which).map(figure).reduce(f64::min)
    };
    let above = |figure: fn(&Start) -> f64| {
        least(figure, |pair| &pair.1).zip(least(figure, |pair| &pair.0)).map(|(with, without)| with - without)
    };
    let most = |figure: fn(&Start) -> f64| {
        starts.iter().map(|(without, with)| figure(with) - figure(without)).reduce(f64::max)
    };
    if starts.is_empty() {
        println!("the link programs are not beside this binary: cargo build --release makes all of them");
    }
    vec![
        Limit::new("linking it: time to main, above an empty program", 0.1, "ms", above(|start| start.ms)),
        Limit::new("linking it: CPU time before main, above an empty program", 0.1, "ms", above(|start| start.cpu_ms)),
        Limit::new("linking it: threads at main, above an empty program", 0.0, "threads", most(|start| start.threads)),
        Limit::new("linking it: open files and sockets at main, likewise", 0.0, "files", most(|start| start.files)),
    ]
}

fn judge_promises(results: &Results) -> Vec<Limit> {
    let probe = |name, key| more(results.find(PROBE, name), key);
    let plain = probe("emit_cost_plain", "p999_ns");
    let chaos = probe("emit_cost_chaos", "p999_ns");
    let change = plain.zip(chaos).map(|(plain, chaos)| 100.0 * (chaos - plain) / plain);
    vec![
        Limit::new("R2: p99.9 of emitting beside a reporter that panics and blocks", 5.0, "% above without", change),
        Limit::new("R2: lost by the other reporter", 0.0, "scopes", probe("emit_cost_chaos", "lost")),
        Limit::new("R13: refusing a value of 1 GiB", 1000.0, "ns", probe("refuse_1gib", "refuse_ns")),
    ]
}

/// The name under which probes stand among the results.
const PROBE: &str = "kastor/probe";

fn run_probes(settings: &Settings, results: &mut Results) {
    // At least ten, in turns: a tail is noisier than a minimum.
    for _ in 0..settings.rounds.max(10) {
        for probe in peers::PROBES {
            run_child(PROBE, probe, settings.quick, results);
        }
    }
}

/// As the limits count them: with the loop's own, but without a baseline's.
fn gross_instructions(row: Option<&Row>) -> Option<f64> {
    row?.instructions.map(|(counted, _)| counted)
}

/// Rounded to thousandths: a page of a buffer once in a million operations is no allocation per operation.
fn allocations(row: Option<&Row>) -> Option<f64> {
    row?.allocations().map(|allocations| (allocations * 1000.0).round() / 1000.0)
}

fn more(row: Option<&Row>, key: &str) -> Option<f64> {
    row?.more.get(key).copied()
}

/// Like `Results::ratio`, but also where scopes were lost: that is a limit of its own.
fn sustained_ratio(row: Option<&Row>) -> Option<f64> {
    Some(row?.cpu_ns()? / more(row, "floor_cpu_ns")?)
}

struct Start {
    ms: f64,
    cpu_ms: f64,
    threads: f64,
    files: f64,
}

fn start(program: &str) -> Option<Start> {
    let path = std::env::current_exe().ok()?.with_file_name(program);
    let before_ns = monotonic_ns();
    let output = Command::new(path).output().ok()?;
    let told = String::from_utf8_lossy(&output.stdout);
    let mut numbers = told.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    let (at_main_ns, cpu_ns, threads, files) = (numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?);
    Some(Start {
        ms: at_main_ns.checked_sub(before_ns)? as f64 / 1e6,
        cpu_ms: cpu_ns as f64 / 1e6,
        threads: threads as f64,
        files: files as f64,
    })
}
