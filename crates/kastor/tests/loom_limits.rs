//! Models of two small things that many threads ask at once: whether a failing reporter is left out, and whether a rate
//! is used up.
//!
//! Their sources are included here as they are; see `loom_table.rs`. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p kastor --release --test 'loom*'`; otherwise there is nothing here.
#![cfg(loom)]

#[path = "../src/sampler.rs"]
#[allow(dead_code, reason = "the models use the rate")]
mod sampler;
#[path = "../src/reporter/suspension.rs"]
mod suspension;
#[path = "loom/sync.rs"]
mod sync;

use std::sync::Arc;

use loom::thread;
use sampler::Rate;
use suspension::{FAILURES, Suspension};

/// The reporter begins to fail, and its first suspension is over.
const BEGIN: fn() -> u64 = || 1;
const LATER: fn() -> u64 = || 2_000_000_000;
/// Whatever was decided later is over too.
const LAST: fn() -> u64 = || 1_000_000_000_000;

/// A reporter that failed so often in a row.
fn failed(times: u32) -> Arc<Suspension> {
    let suspension = Arc::new(Suspension::default());
    assert!((1..=times).all(|time| suspension.fail(true, BEGIN) == time));
    suspension
}

/// Calls a reporter that works. Returns whether it was called.
fn works(suspension: &Suspension) -> bool {
    let passes = suspension.lets_pass(true, LATER);
    if passes {
        suspension.succeed(true);
    }
    passes
}

#[test]
fn one_of_two_callers_tries_a_suspended_reporter() {
    loom::model(|| {
        let suspension = failed(FAILURES);
        assert!(!suspension.lets_pass(true, BEGIN));
        let other = thread::spawn({
            let suspension = Arc::clone(&suspension);
            move || suspension.lets_pass(true, LATER)
        });
        let own = suspension.lets_pass(true, LATER);
        assert!(own != other.join().unwrap(), "one and not both");
    });
}

#[test]
fn a_reporter_that_works_again_stays_so_whoever_asked_meanwhile() {
    loom::model(|| {
        let suspension = failed(FAILURES);
        let other = thread::spawn({
            let suspension = Arc::clone(&suspension);
            move || works(&suspension)
        });
        let own = works(&suspension);
        assert!(own | other.join().unwrap());
        assert!(!suspension.is_on());
    });
}

#[test]
fn a_failure_beside_a_success_leaves_nobody_out_for_ever() {
    loom::model(|| {
        let suspension = failed(FAILURES - 1);
        let other = thread::spawn({
            let suspension = Arc::clone(&suspension);
            move || suspension.fail(true, BEGIN)
        });
        suspension.succeed(true);
        other.join().unwrap();
        assert!(suspension.lets_pass(true, LAST), "its time is over");
        suspension.succeed(true);
        assert!(!suspension.is_on(), "it works");
    });
}

#[test]
fn what_is_no_event_neither_shows_that_events_go_through_again_nor_takes_their_turn() {
    loom::model(|| {
        let suspension = failed(FAILURES);
        let other = thread::spawn({
            let suspension = Arc::clone(&suspension);
            move || {
                if suspension.lets_pass(false, LATER) {
                    suspension.succeed(false);
                }
            }
        });
        assert!(suspension.lets_pass(true, LATER), "the probe is the event's");
        other.join().unwrap();
        assert!(suspension.is_on());
        suspension.succeed(true);
        assert!(!suspension.is_on());
    });
}

#[test]
fn a_rate_gives_no_more_to_many_than_to_one() {
    loom::model(|| {
        // Two at once, then one each half second.
        let (rate, interval, start) = (Arc::new(Rate::default()), 500_000_000, 5_000_000_000);
        let other = thread::spawn({
            let rate = Arc::clone(&rate);
            move || u32::from(rate.takes(start, interval)) + u32::from(rate.takes(start, interval))
        });
        let own = u32::from(rate.takes(start, interval)) + u32::from(rate.takes(start, interval));
        assert_eq!(own + other.join().unwrap(), 2);
    });
}
