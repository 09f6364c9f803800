//! Tracy's client: zones go into lock-free queues and wait in memory for a profiler that never connects.
//!
//! Built without `ondemand`, so it records from the start. Without a profiler nothing is ever taken out, which
//! bounds what can be run: batches are short, and there is neither a sustained nor an end-to-end case, and
//! nothing to verify against.

use super::some_text;
use crate::case::{Case, OpenLevels, Peer, busy, dynamic_names, owned_levels};
use crate::{eight_parents, sixty_four_callsites};
use std::hint::black_box;
use tracy_client::{Client, plot, span};

/// All configurations of Tracy.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![Box::new(On)]
}

macro_rules! open {
    ($name:literal) => {
        span!($name)
    };
}
macro_rules! child {
    ($index:expr, $name:literal) => {{
        let _span = open!($name);
        black_box($index);
    }};
}

/// Zones per batch; the queue grows by some 64 bytes with each.
const MOST: u64 = 50_000;

fn scope0(index: u64) {
    let _span = open!("scope0");
    black_box(index);
}

struct On;
impl Peer for On {
    fn name(&self) -> &'static str {
        "tracy/on"
    }
    fn note(&self) -> &'static str {
        "records into memory, no profiler connected: its consumer never runs, so its CPU time is not the full price; not verified"
    }
    fn set_up(&self) {
        // A handle does not keep the client alive: with manual-lifetime it runs until it is shut down.
        let _ = Client::start();
    }
    fn cases(&self) -> Vec<Case> {
        let names = dynamic_names("d");
        let cases = vec![
            Case::new("on_scope0", scope0),
            Case::new("on_scope2", |index| {
                let span = open!("scope2");
                span.emit_value(index);
                span.emit_text(some_text());
                black_box(index);
            }),
            Case::new("on_nest5", |index| {
                let _first = open!("n1");
                let _second = open!("n2");
                let _third = open!("n3");
                let _fourth = open!("n4");
                let _fifth = open!("n5");
                black_box(index);
            })
            .operations(5),
            Case::new("on_many_paths", |index| eight_parents!(open, index, sixty_four_callsites!(child, index)))
                .operations(65),
            Case::new("on_dynamic", move |index| {
                let client = Client::running().expect("started by set_up");
                let _span = client.span_alloc(Some(&names[index as usize % 64]), "body", file!(), line!(), 0);
                black_box(index);
            }),
            Case::new("on_metric_event", |index| plot!("metric", index as f64)),
            Case::two_threads(scope0),
            Case::busy_body(|index| {
                let _span = open!("body");
                busy(index);
            }),
            Case::fresh_threads(scope0),
        ];
        cases
            .into_iter()
            .map(|case| {
                let most = case.most_iterations.min(MOST / case.operations);
                case.at_most(most)
            })
            .collect()
    }
    fn open_levels(&self) -> Option<OpenLevels> {
        Some(|depth, mark| owned_levels(|| open!("deep"), depth, mark))
    }
}
