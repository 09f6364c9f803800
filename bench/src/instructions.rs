//! Instructions per operation, counted by callgrind: sub-nanosecond timings move with code alignment, counts do not.
//!
//! The child runs the case once to warm it up and then through [`kastor_bench_counted`], the only function that
//! callgrind collects in, so that start-up and the peer's own threads are not in the count. The cases that start
//! threads are left out, and so is the busy body.

use crate::case::{Case, Loop, Peer};
use crate::harness::{Settings, as_child, selected};
use crate::results::Results;
use std::process::Command;

/// Operations that are counted: enough for work that is done once per some thousand operations to show its share.
const OPERATIONS: u64 = 20_000;
const BASELINE: &str = "+baseline";

/// Counts every case that can be counted, one valgrind process each, and adds the figures to the results.
pub fn count(settings: &Settings, results: &mut Results) {
    for peer in selected(settings) {
        for case in peer.cases().iter().filter(|case| countable(case)) {
            eprint!("\r\x1b[Kinstructions: {} {}", peer.name(), case.id);
            let counted = count_one(peer.name(), case.id, settings.quick);
            let baseline = case
                .baseline
                .as_ref()
                .map(|_| count_one(peer.name(), &format!("{}{BASELINE}", case.id), settings.quick));
            match (counted, baseline.transpose()) {
                (Ok(counted), Ok(baseline)) => {
                    results.row_or_new(peer.name(), case.id).instructions = Some((counted, baseline))
                }
                (Err(error), _) | (_, Err(error)) => {
                    results.failures.push(format!("instructions of {} {}: {error}", peer.name(), case.id))
                }
            }
        }
    }
    eprint!("\r\x1b[K");
}

/// The child under valgrind. A case name that ends in `+baseline` asks for its baseline.
pub fn child(peer: &dyn Peer, task: &str) -> bool {
    let cases = peer.cases();
    let id = task.strip_suffix(BASELINE).unwrap_or(task);
    let Some(case) = cases.iter().find(|case| case.id == id) else { return false };
    let run = if id == task { Some(&case.run) } else { case.baseline.as_ref() };
    let Some(run) = run else { return false };
    let iterations = iterations(case);
    run(iterations.div_ceil(10));
    peer.flush();
    kastor_bench_counted(run, iterations);
    println!("{}", iterations * case.operations);
    true
}

/// The function that callgrind collects in. Not inlined and not renamed, because callgrind is given its name.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn kastor_bench_counted(run: &Loop, iterations: u64) {
    run(iterations);
    // Keeps the call above from becoming a jump that leaves this function before the loop begins.
    std::hint::black_box(iterations);
}

fn countable(case: &Case) -> bool {
    !case.two_threads && case.id != "on_fresh_threads" && case.id != "on_body_1us"
}

fn iterations(case: &Case) -> u64 {
    OPERATIONS.div_ceil(case.operations).min(case.most_iterations)
}

fn count_one(peer: &str, case: &str, quick: bool) -> Result<f64, String> {
    let executable = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=kastor_bench_counted"])
        .arg(executable);
    let output = as_child(&mut command, peer, &format!("instructions/{case}"), quick).output();
    let output = output.map_err(|error| format!("valgrind does not start: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}\n{told}", output.status));
    }
    let operations: f64 =
        String::from_utf8_lossy(&output.stdout).trim().parse().map_err(|_| "no operations printed".to_owned())?;
    let collected = told
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse::<f64>().ok());
    collected.map(|collected| collected / operations).ok_or_else(|| format!("callgrind collected nothing:\n{told}"))
}
