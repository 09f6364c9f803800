//! Sentences of the specification that no other file shows: each test quotes its own.

use std::{
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use kastor::{
    Carrier, Error, Metric, MockClock, OnFull, Recording, Reporter, Snapshot, Telemetry, Timing, Value, background,
    count, metric, scope,
};

const LONG: Duration = Duration::from_secs(if cfg!(miri) { 1000 } else { 60 });
const MS: Duration = Duration::from_millis(1);

/// Keeps one line per event: path, depth, parent.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Reporter for Lines {
    fn record_timing(&self, event: &Timing<'_>) {
        let parent = event.parent_scope().unwrap_or("none");
        self.0.lock().unwrap().push(format!("{} {} {parent}", event.scope(), event.depth()));
    }
    fn record_metric(&self, event: &Metric<'_>) {
        let parent = event.parent_scope().unwrap_or("none");
        self.0.lock().unwrap().push(format!("{} {} {parent} = {}", event.scope(), event.depth(), event.value()));
    }
}

fn context() -> (Telemetry, Lines) {
    let lines = Lines::default();
    (Telemetry::builder().reporter(lines.clone()).build(), lines)
}

/// "An existing context never changes its mind because the environment changed; a run-time switch is a method call."
#[test]
#[cfg_attr(miri, ignore = "starts a process")]
#[expect(clippy::disallowed_methods, reason = "in a process of its own, where nobody else reads the environment")]
fn a_context_does_not_change_its_mind_when_the_environment_does() {
    const TEST: &str = "a_context_does_not_change_its_mind_when_the_environment_does";
    const ALONE: &str = "KASTOR_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([TEST, "--exact", "--nocapture"]).env(ALONE, "1").env("KASTOR_TELEMETRY", "1");
        let output = command.env_remove("KASTOR_TELEMETRY_STRICT_SCOPES").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let build = || {
        let lines = Lines::default();
        (Telemetry::builder().reporter(lines.clone()).build_from_env(), lines)
    };
    let (before, lines) = build();
    // SAFETY: this process runs this test alone, and no other thread looks at its environment meanwhile.
    unsafe {
        std::env::set_var("KASTOR_TELEMETRY", "0");
        std::env::set_var("KASTOR_TELEMETRY_STRICT_SCOPES", "1");
    }
    drop(before.scope("Not Strict"));
    assert_eq!((before.is_enabled(), lines.take()), (true, vec!["Not Strict 0 none".to_owned()]));
    assert!(!build().0.is_enabled(), "the environment is read when a factory is called");
    before.set_enabled(false);
    assert!(!before.is_enabled());
}

/// "With no reporter it still aggregates."
#[test]
fn a_context_without_a_reporter_aggregates() {
    let tele = Telemetry::builder().build();
    drop(scope!(tele, "bare"));
    let _current = tele.override_current();
    count!("bare.count", 2);
    let report = tele.report();
    assert_eq!((report.scope("bare").unwrap().calls(), report.series().len()), (1, 1));
}

/// "A new OS thread starts empty."
#[test]
fn a_new_thread_has_no_current_scope() {
    let (tele, lines) = context();
    let _outer = scope!(tele, "outer");
    thread::scope(|threads| {
        let tele = &tele;
        threads.spawn(move || {
            assert_eq!(Carrier::current(), Carrier::NONE);
            drop(scope!(tele, "there"));
        });
    });
    assert_eq!(lines.take(), ["there 0 none"]);
}

/// "A metric's path is the current scope path and its name; its metadata are depth, parent_scope … It is valid outside any
/// scope."
#[test]
fn a_metric_has_the_depth_of_its_place_and_is_valid_outside_of_any_scope() {
    let (tele, lines) = context();
    let _current = tele.override_current();
    metric!("alone", 1);
    let _a = scope!("a");
    let _b = scope!("b");
    metric!("within", "text");
    count!("counted", 3);
    assert_eq!(lines.take(), ["alone 0 none = 1", "a.b.within 2 a.b = text", "a.b.counted 2 a.b = 3"]);
}

/// "A path is fixed when its scope opens: if a is closed before its child b, a scope opened under b is still a.b.c."
#[test]
fn a_path_is_fixed_when_its_scope_opens() {
    let (tele, lines) = context();
    let _current = tele.override_current();
    let a = scope!("a");
    let b = scope!("b");
    drop(a);
    drop(scope!("c"));
    drop(b);
    drop(scope!("d"));
    assert_eq!(lines.take(), ["a 0 none", "a.b.c 2 a.b", "a.b 1 a", "d 0 none"]);
}

/// "In Rust … a dynamic bad name in strict mode is recorded under a fixed placeholder, counted and logged once."
#[test]
fn a_bad_name_in_strict_mode_is_logged_once() {
    struct Counts(AtomicUsize);
    impl log::Log for Counts {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.args().to_string().contains("Quite Bad") {
                self.0.fetch_add(1, SeqCst);
            }
        }
        fn flush(&self) {}
    }
    static LOGGED: Counts = Counts(AtomicUsize::new(0));
    log::set_logger(&LOGGED).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    for _ in 0..2 {
        let tele = Telemetry::builder().strict_names(true).build();
        (0..3).for_each(|_| drop(tele.scope("Quite Bad")));
        assert_eq!(tele.report().scope("(invalid_name)").unwrap().calls(), 3);
    }
    assert_eq!(LOGGED.0.load(SeqCst), 1);
}

/// Keeps path, longest call in ns and span id of the exemplars of each snapshot.
#[derive(Clone, Default)]
struct Exemplars(Arc<Mutex<Vec<(String, f64, u64)>>>);

impl Reporter for Exemplars {
    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        let all = snapshot.scopes().iter().filter_map(|scope| {
            let exemplar = scope.exemplar()?;
            Some((scope.path().to_owned(), exemplar.value, exemplar.span_id))
        });
        *self.0.lock().unwrap() = all.collect();
        Ok(())
    }
}

/// "Scope durations are series of their own, per path, with exemplars."
#[test]
fn the_longest_call_since_the_last_snapshot_is_the_exemplar_of_its_path() {
    let (clock, seen) = (MockClock::new(), Exemplars::default());
    let tele = Telemetry::builder().clock(clock.clone()).reporter(background(seen.clone())).build();
    let _current = tele.override_current();
    let run = |times: &[u32]| -> Vec<u64> {
        let one = |ms: &u32| {
            let scope = scope!("work");
            let id = scope.carrier().span_id();
            clock.advance(*ms * MS);
            id
        };
        times.iter().map(one).collect()
    };
    let ids = run(&[3, 9, 5]);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(*seen.0.lock().unwrap(), [("work".to_owned(), 9e6, ids[1])]);
    let ids = run(&[2, 4]);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(*seen.0.lock().unwrap(), [("work".to_owned(), 4e6, ids[1])], "of the newest interval");
}

/// "In one context, inline reporters run in registration order on the closing thread, after the record is written;
/// background reporters get the same timings and plain metrics in batches."
#[test]
fn inline_and_background_reporters_get_the_same_events() {
    let (inline, behind) = (Lines::default(), Lines::default());
    let tele = Telemetry::builder()
        .reporter(inline.clone())
        .reporter(background(behind.clone()).on_full(OnFull::Wait(LONG)))
        .build();
    let _current = tele.override_current();
    for n in 0..50 {
        let _outer = scope!("outer", n = n);
        metric!("plain", n);
        drop(tele.scope(["one", "two"][n % 2]));
    }
    assert!(tele.flush(LONG).is_complete());
    let lines = inline.take();
    assert_eq!((lines.len(), &lines), (150, &behind.take()));
}

/// "A failing reporter … never affects the program or another reporter", whichever of them stands first.
#[test]
fn a_reporter_behind_a_failing_one_gets_everything() {
    struct Fails;
    impl Reporter for Fails {
        fn record_timing(&self, _: &Timing<'_>) {
            std::panic::resume_unwind(Box::new("it fails"));
        }
    }
    let (lines, recording) = (Lines::default(), Recording::new(1 << 20));
    let tele = Telemetry::builder().reporter(Fails).reporter(lines.clone()).reporter(recording.clone()).build();
    (0..20).for_each(|_| drop(scope!(tele, "work")));
    assert!(tele.flush(LONG).is_complete());
    assert_eq!((lines.take().len(), recording.len()), (20, 20));
}

/// "Gauges: last, min, max"; "a series that saw a negative increment is no longer monotonic"; for good.
#[test]
fn a_series_that_went_back_once_is_never_monotonic_again() {
    let tele = Telemetry::builder().build();
    let counter = tele.counter("returns", &[("kind", Value::from("a"))]);
    counter.add(5);
    assert!(tele.report().series()[0].is_monotonic());
    counter.add(-1);
    counter.add(9);
    assert!(!tele.report().series()[0].is_monotonic());
}

/// "The last handle's drop never blocks", and what was recorded by then arrives.
#[test]
fn what_was_recorded_before_the_last_handle_went_arrives() {
    let (told, ended) = std::sync::mpsc::channel();
    struct Tells(std::sync::mpsc::Sender<u64>, AtomicUsize);
    impl Reporter for Tells {
        fn record_timing(&self, _: &Timing<'_>) {
            self.1.fetch_add(1, SeqCst);
        }
    }
    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(self.1.load(SeqCst) as u64);
        }
    }
    let tele = Telemetry::builder().reporter(background(Tells(told, AtomicUsize::new(0)))).build();
    // On a thread of its own: a lane of a living thread keeps the context, and thus the reporter.
    thread::spawn(move || {
        (0..7).for_each(|_| drop(scope!(tele, "work")));
        drop(tele);
    })
    .join()
    .unwrap();
    assert_eq!(ended.recv_timeout(LONG), Ok(7));
}

/// "No data race", on the hot paths' own stores, which no model includes. Nothing orders the two threads but the records'
/// publication: Miri and the thread sanitizer see whoever reads what was not published.
#[test]
fn what_is_read_while_another_thread_records_is_whole() {
    const TIMES: u64 = if cfg!(miri) { 10 } else { 20_000 };
    let recording = Recording::new(64 << 20);
    let tele = Telemetry::builder().reporter(background(recording.clone()).on_full(OnFull::Wait(LONG))).build();
    thread::scope(|threads| {
        threads.spawn(|| {
            let _current = tele.override_current();
            // One after the other: each kind of record has a store of its own that publishes it.
            (0..TIMES).for_each(|_| drop(scope!("bare")));
            (0..TIMES).for_each(|n| drop(scope!("filled", n = n)));
            (0..TIMES).for_each(|n| metric!("plain", n));
            (0..TIMES).for_each(|n| metric!("with", n, kind = "x"));
        });
        while tele.stats().emitted() < 4 * TIMES {
            thread::yield_now();
        }
    });
    assert!(tele.flush(LONG).is_complete());
    let report = tele.report();
    let calls = |path| report.scope(path).map(|scope| scope.calls());
    assert_eq!((calls("bare"), calls("filled")), (Some(TIMES), Some(TIMES)));
    assert_eq!((recording.len(), recording.dropped()), (4 * TIMES, 0));
}
