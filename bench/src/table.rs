//! The readable table on stdout.

use crate::case::Peer;
use crate::results::{Results, Row};

/// Prints every row, then what each peer does, then every failure.
pub fn print(results: &Results, peers: &[Box<dyn Peer>]) {
    println!(
        "{:<20} {:<22} {:>9} {:>9} {:>7} {:>9} {:>7} {:>8}  more",
        "case", "peer", "ns min", "median", "ratio", "cpu ns", "allocs", "instr."
    );
    let mut last = "";
    for row in results.ordered() {
        let case = if row.case == last { "" } else { &row.case };
        println!("{}", line(results, row, case));
        last = &row.case;
    }
    println!();
    println!("ns: on the calling thread, per operation, one empty_loop iteration included. on_poll, on_body_1us and");
    println!("on_fresh_threads: above the same work without a scope. ratio: to two clock reads of this run;");
    println!(
        "on_two_threads: CPU time per scope relative to one thread; sustained_10s: CPU time relative to the clock reads"
    );
    println!(
        "between its slices. cpu ns: of the process, deferred work and flush included. allocs: of the calling thread."
    );
    println!("instr.: per operation, the empty loop's included; the baseline's, where there is one, behind the minus.");
    println!();
    for peer in peers {
        println!("{:<22} {}", peer.name(), peer.note());
    }
    for failure in &results.failures {
        println!("\nFAILED {failure}");
    }
}

fn line(results: &Results, row: &Row, case: &str) -> String {
    let more: Vec<String> = row.more.iter().map(|(key, value)| format!("{key} {}", number(*value))).collect();
    let instructions = match row.instructions {
        Some((counted, Some(baseline))) => format!("{counted:.0}-{baseline:.0}"),
        Some((counted, None)) => format!("{counted:.1}"),
        None => String::new(),
    };
    format!(
        "{case:<20} {:<22} {:>9} {:>9} {:>7} {:>9} {:>7} {instructions:>8}  {}",
        row.peer,
        figure(row.ns_min(), 2),
        figure(row.ns_median(), 2),
        figure(results.ratio(row), 2),
        figure(row.cpu_ns(), 2),
        figure(row.allocations(), 2),
        more.join(", "),
    )
    .trim_end()
    .to_owned()
}

fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or(String::new(), |value| format!("{value:.decimals$}"))
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
