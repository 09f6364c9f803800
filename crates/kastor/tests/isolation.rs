//! Isolation: a reporter or logger that misbehaves harms neither the program nor other reporters, and feeds nothing back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::Command,
    sync::{
        Arc, Condvar, Mutex, Once,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use kastor::{
    Accounts, Batch, Deadline, DropReason, Error, LogReporter, Metric, Reporter, ReporterStats, Snapshot, Telemetry,
    Timing, background, count, metric, scope,
};
use log::{Level, LevelFilter, Log, Record};

/// Only ever an upper bound: nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(60);

/// What the program's logger does when a line contains a text.
type Hook = (&'static str, Arc<dyn Fn() + Send + Sync>);

/// The program's logger: keeps every line, and runs hooks. Tests know their lines by the type of their reporter.
struct Capture {
    lines: Mutex<Vec<(Level, String)>>,
    hooks: Mutex<Vec<Hook>>,
}

static CAPTURE: Capture = Capture { lines: Mutex::new(Vec::new()), hooks: Mutex::new(Vec::new()) };

impl Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        let hooks = self.hooks.lock().unwrap().clone();
        self.lines.lock().unwrap().push((record.level(), line.clone()));
        hooks.iter().filter(|(text, _)| line.contains(text)).for_each(|(_, hook)| hook());
    }
    fn flush(&self) {}
}

fn capture_log() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| log::set_logger(&CAPTURE).map(|()| log::set_max_level(LevelFilter::Debug)).unwrap());
}

fn on_line(text: &'static str, hook: impl Fn() + Send + Sync + 'static) {
    capture_log();
    CAPTURE.hooks.lock().unwrap().push((text, Arc::new(hook)));
}

fn lines_with(text: &str) -> Vec<(Level, String)> {
    CAPTURE.lines.lock().unwrap().iter().filter(|(_, line)| line.contains(text)).cloned().collect()
}

/// Counts the timings and metrics that it gets.
#[derive(Clone, Default)]
struct Tally(Arc<AtomicU64>);

impl Tally {
    fn now(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

impl Reporter for Tally {
    fn record_timing(&self, _: &Timing<'_>) {
        self.0.fetch_add(1, SeqCst);
    }
    fn record_metric(&self, _: &Metric<'_>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Calls a function on every event, in every method that may fail.
#[derive(Clone)]
struct Chaos(Arc<dyn Fn() -> Result<(), Error> + Send + Sync>);

impl Reporter for Chaos {
    fn record_timing(&self, _: &Timing<'_>) {
        let _ = (self.0)();
    }
    fn record_metric(&self, _: &Metric<'_>) {
        let _ = (self.0)();
    }
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        (self.0)()
    }
    fn record_aggregates(&self, _: &Snapshot<'_>) -> Result<(), Error> {
        (self.0)()
    }
    fn flush(&self, _: Deadline) -> Result<(), Error> {
        (self.0)()
    }
}

fn chaos(f: impl Fn() -> Result<(), Error> + Send + Sync + 'static) -> Chaos {
    Chaos(Arc::new(f))
}

/// A panic payload that panics when it is dropped, and so on.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new(Bomb));
    }
}

fn misbehaviours() -> Vec<(&'static str, Chaos)> {
    vec![
        ("error", chaos(|| Err(Error::temporary("\u{1b}[31mred\nline")))),
        ("panic", chaos(|| resume_unwind(Box::new("text")))),
        ("panic with a number", chaos(|| resume_unwind(Box::new(7)))),
        ("panic with a payload that panics when dropped", chaos(|| resume_unwind(Box::new(Bomb)))),
    ]
}

fn stats_of(tele: &Telemetry, at: usize) -> ReporterStats {
    tele.stats().reporters()[at].clone()
}

#[track_caller]
fn assert_accounted(tele: &Telemetry) {
    let stats = tele.stats();
    for it in stats.reporters() {
        assert_eq!(stats.emitted(), it.delivered() + it.dropped().total() + it.queued() + it.spooled(), "{stats}");
    }
}

fn emit(tele: &Telemetry, times: usize) {
    let _current = tele.override_current();
    for _ in 0..times {
        let _step = scope!("step");
        metric!("note", 1);
        count!("items");
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn an_inline_reporter_that_fails_harms_neither_the_program_nor_its_neighbours() {
    for (what, chaos) in misbehaviours() {
        let neighbours = [Tally::default(), Tally::default()];
        let [before, after] = neighbours.clone();
        let tele = Telemetry::builder().reporter(before).reporter(chaos).reporter(after).build();
        emit(&tele, 1_000);
        // Each call of the counter is one more for inline reporters, and no event of the accounts.
        assert_eq!(neighbours.map(|it| it.now()), [3_000; 2], "{what}");
        if what != "error" {
            let failed = stats_of(&tele, 1);
            assert_eq!((failed.failures(), failed.is_suspended(), failed.delivered()), (5, true, 0), "{what}");
        }
        assert_accounted(&tele);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_background_reporter_that_fails_harms_neither_the_program_nor_its_neighbours() {
    for (what, chaos) in misbehaviours() {
        let neighbours = [Tally::default(), Tally::default()];
        let [before, after] = neighbours.clone().map(background);
        let tele = Telemetry::builder().reporter(before).reporter(background(chaos)).reporter(after).build();
        for round in 1..=10 {
            emit(&tele, 100);
            // A reporter whose own flush fails is not complete; its neighbours are.
            let flushed = tele.flush(LONG);
            assert_eq!([0, 2].map(|at: usize| flushed.reporters()[at].pending), [0; 2], "{what}");
            assert_eq!(neighbours.each_ref().map(Tally::now), [round * 200; 2], "{what}");
        }
        let failed = stats_of(&tele, 1);
        assert!(failed.failures() >= 5 && failed.is_suspended() && failed.delivered() == 0, "{what}: {failed:?}");
        assert_eq!(failed.dropped().total(), 2_000, "{what}: {failed:?}");
        assert_accounted(&tele);
    }
}

/// Panics or fails on each call while told to.
#[derive(Clone, Default)]
struct Moody<const TEST: u8> {
    is_healthy: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    fails_every_second_time: bool,
}

impl<const TEST: u8> Reporter for Moody<TEST> {
    fn record_timing(&self, _: &Timing<'_>) {
        let call = self.calls.fetch_add(1, SeqCst);
        let fails = if self.fails_every_second_time { call % 2 == 0 } else { !self.is_healthy.load(SeqCst) };
        if fails {
            resume_unwind(Box::new("moody \u{1b}[31m"));
        }
    }
}

/// Closes scopes until the reporter delivered one again; returns how many it took.
fn emit_until_delivered(tele: &Telemetry) -> u64 {
    let deadline = Instant::now() + LONG;
    for scopes in 1.. {
        drop(tele.scope("step"));
        if stats_of(tele, 0).delivered() > 0 {
            return scopes;
        }
        assert!(Instant::now() < deadline, "never probed: {}", tele.stats());
        thread::yield_now();
    }
    unreachable!()
}

#[test]
fn a_reporter_that_fails_five_times_in_a_row_is_left_out_and_probed_again() {
    capture_log();
    let moody = Moody::<1>::default();
    let tele = Telemetry::builder().reporter(moody.clone()).build();
    (0..100).for_each(|_| drop(tele.scope("step")));
    let it = stats_of(&tele, 0);
    assert_eq!((it.failures(), it.is_suspended()), (5, true));
    assert_eq!((it.dropped().of(DropReason::ReporterFailed), it.dropped().of(DropReason::ReporterSuspended)), (5, 95));
    assert!(tele.stats().to_string().contains(", suspended"), "{}", tele.stats());
    assert_eq!(moody.calls.load(SeqCst), 5);

    moody.is_healthy.store(true, SeqCst);
    let scopes = emit_until_delivered(&tele);
    let it = stats_of(&tele, 0);
    assert_eq!((it.failures(), it.is_suspended(), it.delivered()), (5, false, 1));
    assert_eq!(it.dropped().of(DropReason::ReporterSuspended), 95 + scopes - 1);
    (0..10).for_each(|_| drop(tele.scope("step")));
    assert_eq!(stats_of(&tele, 0).delivered(), 11);
    assert_accounted(&tele);
    let again = lines_with("Moody<1> works again");
    assert_eq!((again.len(), again[0].0), (1, Level::Warn));
}

/// Takes aggregates, and fails on events.
struct FailsOnEvents;

impl Reporter for FailsOnEvents {
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        Err(Error::temporary("no events today"))
    }
}

#[test]
fn aggregates_that_are_taken_do_not_hide_that_events_are_not() {
    capture_log();
    let tele = Telemetry::builder().reporter(background(FailsOnEvents)).build();
    for _ in 0..10 {
        drop(tele.scope("step"));
        // Hands aggregates over too.
        tele.flush(LONG);
    }
    let it = stats_of(&tele, 0);
    assert!(it.is_suspended() && it.failures() >= 5, "{it:?}");
    let (failed, left_out) = (DropReason::ReporterFailed, DropReason::ReporterSuspended);
    assert_eq!((it.dropped().of(failed) + it.dropped().of(left_out), it.delivered()), (10, 0));
    assert!(it.dropped().of(left_out) > 0, "{it:?}");
    assert_eq!(lines_with("FailsOnEvents works again"), []);
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn failures_are_logged_ever_more_rarely_with_their_number_and_neutralised() {
    capture_log();
    let moody = Moody::<2> { fails_every_second_time: true, ..Moody::default() };
    let tele = Telemetry::builder().reporter(moody).build();
    (0..2_000).for_each(|_| drop(tele.scope("step")));
    assert_eq!((stats_of(&tele, 0).failures(), stats_of(&tele, 0).delivered()), (1_000, 1_000));
    let lines = lines_with("Moody<2> failed");
    let counts = [1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512].map(|count| format!("({count} so far)"));
    assert_eq!(lines.len(), counts.len(), "{lines:?}");
    for ((level, line), count) in lines.iter().zip(&counts) {
        assert_eq!(*level, Level::Error);
        assert!(line.contains(count) && line.contains("moody") && !line.contains('\u{1b}'), "{line:?}");
    }
}

#[test]
fn a_logger_that_panics_about_a_failure_does_not_reach_the_program() {
    on_line("Moody<3> failed", || resume_unwind(Box::new("the logger")));
    let tele = Telemetry::builder().reporter(Moody::<3>::default()).build();
    assert!(catch_unwind(AssertUnwindSafe(|| (0..9).for_each(|_| drop(tele.scope("step"))))).is_ok());
    // The first four, the fifth, with which it is left out; what is left out does not fail.
    assert_eq!(lines_with("Moody<3> failed").len(), 5);
}

#[test]
fn a_logger_that_panics_about_a_recovery_does_not_reach_the_program() {
    on_line("Moody<4> works again", || resume_unwind(Box::new("the logger")));
    let (moody, neighbour) = (Moody::<4>::default(), Tally::default());
    let tele = Telemetry::builder().reporter(moody.clone()).reporter(neighbour.clone()).build();
    (0..5).for_each(|_| drop(tele.scope("step")));
    moody.is_healthy.store(true, SeqCst);
    let until_delivered = catch_unwind(AssertUnwindSafe(|| emit_until_delivered(&tele)));
    assert!(until_delivered.is_ok(), "the logger's panic reached the program");
    assert_eq!(neighbour.now(), 5 + until_delivered.unwrap());
}

#[test]
fn what_a_logger_emits_about_a_failing_reporter_does_not_come_back() {
    let tele = Telemetry::builder().reporter(Moody::<5>::default()).build();
    let inner = tele.clone();
    on_line("Moody<5> failed", move || emit(&inner, 1));
    (0..5).for_each(|_| drop(tele.scope("step")));
    let it = stats_of(&tele, 0);
    // Failures 1 to 4 were logged, and the fifth, with which it is left out; each line made a scope and a metric, which
    // the reporter must not get.
    assert_eq!(lines_with("Moody<5> failed").len(), 5);
    assert_eq!((it.failures(), it.dropped().of(DropReason::Reentrant)), (5, 10), "{}", tele.stats());
    assert_accounted(&tele);
}

#[test]
fn a_log_reporter_and_a_logger_that_opens_scopes_do_not_feed_each_other() {
    let tele = Telemetry::builder().reporter(LogReporter::new()).build();
    let inner = tele.clone();
    on_line("scope=\"fed_back\"", move || drop(inner.scope("fed_back")));
    (0..10).for_each(|_| drop(tele.scope("fed_back")));
    assert_eq!(lines_with("scope=\"fed_back\"").len(), 10);
    let it = stats_of(&tele, 0);
    assert_eq!((tele.stats().emitted(), it.delivered(), it.dropped().of(DropReason::Reentrant)), (20, 10, 10));
}

#[test]
fn what_a_background_reporter_emits_itself_is_counted_and_does_not_come_back() {
    let got = Tally::default();
    let own: Arc<Mutex<Option<Telemetry>>> = Arc::default();
    let feeding = chaos({
        let (own, got) = (Arc::clone(&own), got.clone());
        move || {
            got.0.fetch_add(1, SeqCst);
            let tele = own.lock().unwrap().clone();
            tele.iter().for_each(|tele| emit(tele, 1));
            Ok(())
        }
    });
    let tele = Telemetry::builder().interval(LONG * 60).reporter(background(feeding)).build();
    *own.lock().unwrap() = Some(tele.clone());
    emit(&tele, 1);
    for round in 1..=20 {
        assert!(tele.flush(LONG).is_complete());
        // One batch in all; one snapshot and one flush a round.
        assert_eq!(got.now(), 1 + 2 * round);
    }
    let (stats, it) = (tele.stats(), stats_of(&tele, 0));
    assert_eq!((stats.emitted(), it.delivered(), it.dropped().of(DropReason::Reentrant)), (2 + 82, 2, 82), "{stats}");
    own.lock().unwrap().take();
}

/// Everything that a reporter may do with its context while it is being served.
fn use_everything(tele: &Telemetry) {
    emit(tele, 3);
    let before = Instant::now();
    let _ = (tele.flush(LONG), tele.stats().to_string(), tele.report().to_string(), tele.open_scopes());
    assert!(before.elapsed() < LONG / 2, "a flush inside a reporter returns at once");
    tele.counter("inside", &[]).add(1);
    tele.switch_scopes("never_used", false);
    tele.record_paths("never_used", false);
    tele.describe("inside", "1", "from a reporter");
    let _ = tele.override_current();
    drop(Telemetry::builder().reporter(background(Tally::default())).build());
}

#[test]
fn a_reporter_may_use_its_context_from_inside() {
    for is_inline in [true, false] {
        let (own, neighbour): (Arc<Mutex<Option<Telemetry>>>, _) = (Arc::default(), Tally::default());
        let busy = chaos({
            let own = Arc::clone(&own);
            move || {
                let tele = own.lock().unwrap().clone();
                tele.iter().for_each(use_everything);
                Ok(())
            }
        });
        let builder = Telemetry::builder();
        let builder = if is_inline { builder.reporter(busy) } else { builder.reporter(background(busy)) };
        let tele = builder.reporter(background(neighbour.clone())).build();
        *own.lock().unwrap() = Some(tele.clone());
        for _ in 0..20 {
            drop(tele.scope("outside"));
            assert!(tele.flush(LONG).is_complete());
        }
        assert_eq!(stats_of(&tele, 0).failures(), 0);
        // Inline, 6 events of the reporter's own come with each of the program's timings; behind, they are not handed on.
        assert_eq!(neighbour.now(), if is_inline { 20 * 7 } else { 20 });
        assert_accounted(&tele);
        own.lock().unwrap().take();
    }
}

#[test]
fn a_reporter_may_shut_its_context_down_from_inside() {
    for is_inline in [true, false] {
        let own: Arc<(Mutex<Option<Telemetry>>, Condvar)> = Arc::default();
        let closing = chaos({
            let own = Arc::clone(&own);
            move || {
                let tele = own.0.lock().unwrap().take();
                let _ = tele.map(|tele| tele.shutdown(LONG));
                own.1.notify_all();
                Ok(())
            }
        });
        let builder = Telemetry::builder();
        let builder = if is_inline { builder.reporter(closing) } else { builder.reporter(background(closing)) };
        let tele = builder.build();
        *own.0.lock().unwrap() = Some(tele.clone());
        drop(tele.scope("step"));
        let _ = tele.flush(LONG);
        let (gone, _) = own.1.wait_timeout_while(own.0.lock().unwrap(), LONG, |tele| tele.is_some()).unwrap();
        assert!(gone.is_none(), "it never got the event");
        drop(gone);
        let deadline = Instant::now() + LONG;
        while tele.is_enabled() {
            assert!(Instant::now() < deadline, "the shutdown inside never ended");
            thread::yield_now();
        }
        let _ = tele.flush(LONG);
        assert_accounted(&tele);
    }
}

/// Panics wherever a reporter is asked about itself.
struct Rude;

impl Reporter for Rude {
    fn accounts(&self) -> Option<Accounts> {
        resume_unwind(Box::new("accounts"))
    }
    fn prefers_batches(&self) -> bool {
        resume_unwind(Box::new("prefers_batches"))
    }
}

#[test]
fn panics_in_the_questions_to_a_reporter_are_contained() {
    let tele = Telemetry::builder().reporter(Rude).reporter(background(Rude)).build();
    emit(&tele, 10);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(stats_of(&tele, 0).delivered(), 20);
    assert_eq!(stats_of(&tele, 1).delivered(), 20);
    assert!(tele.shutdown(LONG).is_complete());
}

/// Panics when it is dropped.
struct Sore;

impl Reporter for Sore {}

impl Drop for Sore {
    fn drop(&mut self) {
        if !thread::panicking() {
            resume_unwind(Box::new("dropped"));
        }
    }
}

#[test]
fn a_reporter_that_panics_when_dropped_does_not_reach_the_program() {
    for is_inline in [true, false] {
        let builder = Telemetry::builder();
        let builder = if is_inline { builder.reporter(Sore) } else { builder.reporter(background(Sore)) };
        let tele = builder.build();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(tele))).is_ok(), "is_inline: {is_inline}");
    }
}

/// A thread's lanes keep a context: the reporter is dropped by the destructor of a thread-local, where a panic aborts.
#[test]
fn a_reporter_that_panics_when_dropped_at_the_end_of_a_thread_does_not_abort_the_program() {
    const NAME: &str = "a_reporter_that_panics_when_dropped_at_the_end_of_a_thread_does_not_abort_the_program";
    if std::env::var_os("KASTOR_TEST_ALONE").is_some() {
        let tele = Telemetry::builder().reporter(Sore).build();
        thread::spawn(move || drop(tele.scope("step"))).join().unwrap();
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", NAME]).env("KASTOR_TEST_ALONE", "1").output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}
