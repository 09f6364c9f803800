//! Reporters of your own: one inline, one in the background, and one that is broken and harms neither the others nor the program.
//!
//! A reporter implements what it needs of [`Reporter`]; every method has a default. Inline it is called on the thread that closed
//! the scope, before the program goes on: the place for something quick that must not miss the moment. In the background it gets
//! the same events in batches, on a thread of its own: the place for everything else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kastor::{Metric, OnFull, Reporter, Telemetry, Timing, background, count, scope};

/// Keeps the slowest call and what was special about it.
#[derive(Default)]
struct Slowest(Mutex<Option<(Duration, String)>>);

impl Reporter for Slowest {
    fn record_timing(&self, event: &Timing<'_>) {
        let mut slowest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slowest.as_ref().is_none_or(|(duration, _)| event.duration() > *duration) {
            let mut text = event.scope().to_string();
            for (key, value) in event.attributes() {
                text += &format!(" {key}={value}");
            }
            *slowest = Some((event.duration(), text));
        }
    }
}

/// Counts what arrives.
#[derive(Default)]
struct Totals {
    timings: AtomicU64,
    failed: AtomicU64,
    metrics: AtomicU64,
}

impl Reporter for Totals {
    fn record_timing(&self, event: &Timing<'_>) {
        self.timings.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(event.error_type().is_some()), Ordering::Relaxed);
    }

    fn record_metric(&self, _: &Metric<'_>) {
        self.metrics.fetch_add(1, Ordering::Relaxed);
    }
}

/// Fails at every event. kastor says so in the log, then leaves it alone for a while.
struct Broken;

impl Reporter for Broken {
    fn record_timing(&self, event: &Timing<'_>) {
        panic!("cannot stand {}", event.scope());
    }
}

fn main() {
    let (slowest, inline, in_background) =
        (Arc::new(Slowest::default()), Arc::new(Totals::default()), Arc::new(Totals::default()));
    let telemetry = Telemetry::builder()
        .reporter(slowest.clone())
        .reporter(Broken)
        .reporter(inline.clone())
        // A full queue drops, and counts what it drops; `OnFull::Wait` would make the program wait a while first.
        .reporter(background(in_background.clone()).on_full(OnFull::Drop))
        .build();

    // The broken reporter's panics are caught; this only keeps them from being printed.
    std::panic::set_hook(Box::new(|_| {}));
    // This thread's current context, in place of the process's: the other way to make the macros find one.
    let _current = telemetry.override_current();
    for number in 0..100_u32 {
        let scope = scope!("step", number = number);
        count!("steps");
        if number == 42 {
            std::thread::sleep(Duration::from_millis(30));
        }
        if number % 10 == 0 {
            scope.fail("every tenth");
        }
    }
    telemetry.flush(Duration::from_secs(5));
    drop(std::panic::take_hook());

    let totals =
        |totals: &Totals| [&totals.timings, &totals.failed, &totals.metrics].map(|total| total.load(Ordering::Relaxed));
    // Inline every call of `count!` is an event; in the background counters come as sums, see `record_aggregates`.
    assert_eq!(totals(&inline), [100, 10, 100]);
    assert_eq!(totals(&in_background), [100, 10, 0]);
    let slowest = slowest.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(slowest.as_ref().is_some_and(|(_, text)| text == "step number=42"), "{slowest:?}");
    println!("slowest: {slowest:?}");
}
