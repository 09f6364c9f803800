//! Testing: instrumented code under a context of the test's own, with a clock that the test moves.
//!
//! `override_current` makes a context current for this thread until the guard is dropped, so tests that run in parallel do not see
//! each other. A [`Recording`] keeps every event, a [`MockClock`] makes durations exact. The functions below the line are tests of
//! the function above it; `cargo test -p kastor-examples --examples` runs them, and so does `main`.

use std::time::Duration;

use kastor::{MockClock, Recording, Telemetry, scope};

/// The code under test: tries until it works, three times at most, each attempt in a scope.
fn with_retries(mut attempt: impl FnMut() -> Result<u32, &'static str>) -> Option<u32> {
    let whole = scope!("upload");
    for number in 1..=3_u32 {
        let scope = scope!("attempt", number = number);
        match attempt() {
            Ok(bytes) => return Some(bytes),
            Err(reason) => scope.fail(reason),
        }
    }
    whole.fail("gave up");
    None
}

// ------------------------------------------------------------------------------------------------------------------------------

/// A context for one test: what it records, and the clock it lives by.
struct Observed {
    telemetry: Telemetry,
    recording: Recording,
    clock: MockClock,
}

impl Observed {
    fn new() -> Observed {
        let (recording, clock) = (Recording::new(1 << 20), MockClock::new());
        let telemetry = Telemetry::builder().reporter(recording.clone()).clock(clock.clone()).build();
        Observed { telemetry, recording, clock }
    }

    /// Everything recorded so far, as `path milliseconds error`.
    fn timings(&self) -> Vec<String> {
        assert!(self.telemetry.flush(Duration::from_secs(5)).is_complete());
        let mut lines = Vec::new();
        self.recording.for_each_batch(|batch| {
            lines.extend(batch.timings().map(|timing| {
                let error = timing.error_type().unwrap_or("ok");
                format!("{} {} {error}", timing.scope(), timing.duration().as_millis())
            }));
        });
        lines
    }
}

#[cfg_attr(test, test)]
fn the_second_attempt_succeeds() {
    let observed = Observed::new();
    let _current = observed.telemetry.override_current();
    let mut answers = [Err("timeout"), Ok(512)].into_iter();
    let uploaded = with_retries(|| {
        observed.clock.advance(Duration::from_millis(100));
        answers.next().unwrap_or(Err("asked too often"))
    });
    assert_eq!(uploaded, Some(512));
    assert_eq!(observed.timings(), ["upload.attempt 100 timeout", "upload.attempt 100 ok", "upload 200 ok"]);
}

#[cfg_attr(test, test)]
fn after_three_attempts_it_gives_up() {
    let observed = Observed::new();
    let _current = observed.telemetry.override_current();
    assert_eq!(with_retries(|| Err("refused")), None);
    let attempt = "upload.attempt 0 refused";
    assert_eq!(observed.timings(), [attempt, attempt, attempt, "upload 0 gave up"]);
}

#[cfg_attr(test, test)]
fn without_a_context_it_works_the_same() {
    assert_eq!(with_retries(|| Ok(1)), Some(1));
}

fn main() {
    the_second_attempt_succeeds();
    after_three_attempts_it_gives_up();
    without_a_context_it_works_the_same();
    println!("all as expected");
}
