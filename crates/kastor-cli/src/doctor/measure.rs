//! What a scope, a switched-off scope and a counter cost on this machine.
//!
//! Each operation runs in a loop that is made long enough for the clock (calibrated), several times over, in rounds that alternate
//! between the operations; the cheapest round counts, since disturbances only ever add. The loop itself is not subtracted but
//! stated. Measured is the thread that runs the scopes: what is aggregated and delivered later, elsewhere, comes on top.

use std::hint::black_box;
use std::time::{Duration, Instant};

use kastor::{Reporter, Telemetry, background, count, scope};
use serde::Serialize;

use super::clock;
use crate::facts;

/// How long one round of one operation lasts at least.
const ROUND: Duration = Duration::from_millis(1);
const ROUNDS: usize = 31;
/// The operation that a budget is about.
const SCOPE: &str = "scope";
/// How long to wait between rounds for the reporter to catch up, so that no round pays for the one before.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Costs {
    pub(super) rounds: usize,
    /// What one turn of the empty loop costs, contained in all other numbers.
    pub(super) loop_ns: f64,
    pub(super) operations: Vec<Operation>,
}

impl Costs {
    /// How many scopes a second take this share of a processor.
    pub(super) fn scopes_per_second(&self, share: f64) -> f64 {
        let scope = self.operations.iter().find(|operation| operation.name == SCOPE);
        scope.map_or(0.0, |scope| share * 1e9 / scope.ns)
    }
}

/// What one operation costs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) ns: f64,
    /// The same as a multiple of two reads of the clock: a scope cannot do with less than one.
    pub(super) clock_read_pairs: f64,
}

/// Measures everything; takes about a quarter of a second.
pub(super) fn measure() -> Costs {
    let mut nothing = Loop::new(|turn| {
        black_box(turn);
    });
    let is_counter = clock::is_counter(facts::clock_source());
    let mut clock_reads = Loop::new(|_| {
        if is_counter {
            black_box((clock::counter(), clock::counter()));
        } else {
            black_box((Instant::now(), Instant::now()));
        }
    });
    let mut disabled_scopes = Loop::new(|_| drop(black_box(scope!("measured"))));
    let mut scopes = Loop::new(|_| drop(black_box(scope!("measured"))));
    let mut counters = Loop::new(|_| count!("measured"));

    // First with no context anywhere in the process: what instrumented code costs a program that never asked for telemetry.
    for _ in 0..ROUNDS {
        nothing.round();
        clock_reads.round();
        disabled_scopes.round();
    }
    let on = Telemetry::builder().reporter(background(Nobody)).build();
    let current = on.override_current();
    for _ in 0..ROUNDS {
        clock_reads.round();
        scopes.round();
        counters.round();
        on.flush(FLUSH_PATIENCE);
    }
    drop(current);
    on.shutdown(FLUSH_PATIENCE);

    let pair_ns = clock_reads.turn_ns;
    let operation = |name, ns: f64| Operation { name, ns, clock_read_pairs: ns / pair_ns };
    Costs {
        rounds: ROUNDS,
        loop_ns: nothing.turn_ns,
        operations: vec![
            operation("two clock reads", pair_ns),
            operation(SCOPE, scopes.turn_ns),
            operation("scope, disabled", disabled_scopes.turn_ns),
            operation("counter", counters.turn_ns),
        ],
    }
}

/// A reporter in the background that takes everything and does nothing.
struct Nobody;

impl Reporter for Nobody {
    fn record_batch(&self, _: &kastor::Batch<'_>) -> Result<(), kastor::Error> {
        Ok(())
    }
}

/// One operation in a loop, and the cheapest turn so far.
struct Loop<Operation> {
    operation: Operation,
    turns: u64,
    turn_ns: f64,
}

impl<Operation: FnMut(u64)> Loop<Operation> {
    fn new(operation: Operation) -> Self {
        Loop { operation, turns: 1, turn_ns: f64::INFINITY }
    }

    /// Runs the loop once, or, at first, as often as it takes to find out how long it must be.
    fn round(&mut self) {
        loop {
            let elapsed = self.run();
            if elapsed >= ROUND {
                self.turn_ns = self.turn_ns.min(elapsed.as_nanos() as f64 / self.turns as f64);
                return;
            }
            // A round that became too short, for whatever reason, makes the next ones longer.
            self.turns = self.turns.saturating_mul(2);
        }
    }

    fn run(&mut self) -> Duration {
        let started = Instant::now();
        for turn in 0..self.turns {
            (self.operation)(turn);
        }
        started.elapsed()
    }
}
