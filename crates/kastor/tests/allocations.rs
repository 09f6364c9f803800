//! Memory: recording allocates nothing in steady state, and stays within its bound whatever a reporter does.
#![cfg(not(miri))] // An interpreter allocates otherwise, and is too slow for so many calls.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Write as _,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use kastor::{
    Batch, Error, Metric, Reporter, Scope, SeriesAggregate, Telemetry, Timing, background, count, gauge, histogram,
    metric, scope,
};

thread_local! {
    /// Allocations of this thread: the other tests, and the threads of the library, have counts of their own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts.
struct Counting;

fn counted() {
    // A thread that is past its thread-locals is not counted.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is the system's; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        counted();
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        counted();
        // SAFETY: as the caller says.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does nothing, inline or in batches.
#[derive(Clone, Default)]
struct Quiet;

impl Reporter for Quiet {
    fn record_timing(&self, _: &Timing<'_>) {}
    fn record_metric(&self, _: &Metric<'_>) {}
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Runs `operation` so often, after as many to warm up, and returns how often this thread allocated.
fn allocations(times: u64, operation: impl Fn(u64)) -> u64 {
    (0..times).for_each(&operation);
    let before = ALLOCATIONS.with(Cell::get);
    (0..times).for_each(&operation);
    ALLOCATIONS.with(Cell::get) - before
}

/// One kind of recording, with its name; it is told its number.
type Operation<'a> = (&'static str, Box<dyn Fn(u64) + 'a>);

/// Everything that is recorded without allocating, each by itself.
fn operations<'a>(tele: &'a Telemetry, text: &'a str) -> Vec<Operation<'a>> {
    let counter = tele.counter("handle", &[("kind", "bound".into())]);
    let (level, size) = (tele.gauge("level_handle", &[]), tele.histogram("size_handle", &[]));
    vec![
        ("scope", Box::new(|_| drop(scope!("step")))),
        ("scope with a context", Box::new(move |_| drop(scope!(tele, "step")))),
        ("scope with a number and a copied string", Box::new(move |n| drop(scope!("step", n = n, text = text)))),
        (
            "scope that fails and is given more",
            Box::new(move |n| {
                let step = scope!("step", n = n);
                step.set("rows", n);
                step.event("retry");
                step.fail(text);
            }),
        ),
        ("dynamic scope", Box::new(move |_| drop(tele.scope(text)))),
        (
            "nested scopes",
            Box::new(|_| {
                let _a = scope!("a");
                let _b = scope!("b");
                let _c = scope!("c");
            }),
        ),
        (
            "carried scope",
            Box::new(|_| {
                let a = scope!("a");
                let _attached = a.carrier().attach();
                let _b = scope!("b");
            }),
        ),
        ("counter", Box::new(|_| count!("items"))),
        ("counter with static labels", Box::new(|n| count!("items", n, kind = "md", host = "here"))),
        ("counter with dynamic labels", Box::new(move |n| count!("items", 1, kind = text, shard = n % 4))),
        ("bound counter", Box::new(move |n| counter.add(n))),
        (
            "gauge",
            Box::new(move |n| {
                gauge!("level", n as f64);
                level.set(n);
            }),
        ),
        (
            "histogram",
            Box::new(move |n| {
                histogram!("size", n);
                size.record(n);
            }),
        ),
        ("metric", Box::new(|n| metric!("note", n))),
        ("metric with two attributes", Box::new(move |n| metric!("note", n, text = text, n = n))),
    ]
}

/// Rounds of this many operations: enough for hundreds of chunks.
const TIMES: u64 = 50_000;

fn found(tele: &Telemetry, allowed: impl Fn(&str) -> u64) -> Vec<(&'static str, u64)> {
    let _current = tele.override_current();
    // Made once: what the program itself allocates for its names is the program's.
    let text = String::from("made_at_run_time");
    let count = |(what, operation): Operation<'_>| (what, allocations(TIMES, operation));
    let counts: Vec<_> = operations(tele, &text).into_iter().map(count).collect();
    println!("{counts:?}");
    counts.into_iter().filter(|(what, count)| *count > allowed(what)).collect()
}

/// Not one in thousands of operations: a distribution grows when a duration is of a size never seen before, which is a
/// few times in the life of a path however often it is run.
const RARELY: u64 = 16;

#[test]
fn without_a_reporter_nothing_is_allocated() {
    assert_eq!(found(&Telemetry::builder().build(), |_| RARELY), []);
}

/// A scope under a carrier that was attached hands inline reporters a table of what its ids stand for: for each of the
/// two here, one allocation.
#[test]
fn with_an_inline_reporter_nothing_is_allocated() {
    let allowed = |what: &str| if what == "carried scope" { 2 * TIMES + RARELY } else { RARELY };
    assert_eq!(found(&Telemetry::builder().reporter(Quiet).build(), allowed), []);
}

/// A full chunk leaves for the queue, and the next may have to be made: one allocation in 500 operations at most. An
/// operation of several records, or of long ones, has as many times the share.
#[test]
fn with_a_background_reporter_at_most_a_chunk_is_allocated_in_500_operations() {
    let records = |what: &str| match what {
        "nested scopes" => 3,
        "carried scope" => 4,
        "scope that fails and is given more" => 4,
        what if what.contains("copied string") || what.contains("two attributes") => 2,
        _ => 1,
    };
    let tele = Telemetry::builder().reporter(background(Quiet)).build();
    assert_eq!(found(&tele, |what| TIMES / 500 * records(what) + RARELY), []);
}

#[test]
fn what_is_disabled_allocates_nothing() {
    let tele = Telemetry::builder().reporter(Quiet).build();
    tele.set_enabled(false);
    assert_eq!(found(&tele, |_| 0), []);
    assert_eq!(found(&Telemetry::disabled(), |_| 0), []);
}

#[test]
fn a_scope_is_two_words() {
    assert_eq!(size_of::<Scope>(), 16);
    assert_eq!(size_of::<Telemetry>(), size_of::<usize>());
}

/// A background reporter that blocks in its first batch until it is released.
#[derive(Clone, Default)]
struct Stuck(Arc<(Mutex<bool>, Condvar)>);

impl Stuck {
    fn release(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

impl Reporter for Stuck {
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |released| !*released).unwrap());
        Ok(())
    }
}

fn emit(tele: &Telemetry, scopes: u64) {
    let _current = tele.override_current();
    (0..scopes).for_each(|_| drop(scope!("step")));
}

#[cfg(target_os = "linux")]
fn is_deep() -> bool {
    std::env::var_os("KASTOR_DEEP").is_some_and(|set| set == "1")
}

/// Runs the test of this name alone in a process of its own, whose memory is nobody else's. True there.
#[cfg(target_os = "linux")]
fn is_alone(test: &str) -> bool {
    if std::env::var_os("KASTOR_TEST_ALONE").is_some() {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env("KASTOR_TEST_ALONE", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    false
}

/// Bytes of this process in memory.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// How much more memory is resident after `run` than the bound of the queue; not more than 2 MiB are promised.
#[cfg(target_os = "linux")]
#[track_caller]
fn assert_bounded(bound: usize, run: impl FnOnce(&Telemetry)) {
    let stuck = Stuck::default();
    let tele = Telemetry::builder().queue_bytes(bound).reporter(background(stuck.clone())).build();
    emit(&tele, 1);
    let before = resident();
    run(&tele);
    let grown = resident().saturating_sub(before);
    println!("grown by {grown} bytes with a bound of {bound}");
    let (stats, it) = (tele.stats(), tele.stats().reporters()[0].clone());
    assert_eq!(stats.emitted(), it.delivered() + it.dropped().total() + it.queued(), "{stats}");
    assert!(grown <= bound + (2 << 20), "{} KiB more than the bound of {} KiB", (grown - bound) >> 10, bound >> 10);
    stuck.release();
}

#[test]
#[cfg(target_os = "linux")]
fn memory_stays_bounded_while_a_reporter_is_stuck() {
    if is_alone("memory_stays_bounded_while_a_reporter_is_stuck") {
        assert_bounded(16 << 20, |tele| emit(tele, if is_deep() { 100_000_000 } else { 20_000_000 }));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_million_label_sets_need_little_memory_and_lose_nothing() {
    if is_alone("a_million_label_sets_need_little_memory_and_lose_nothing") {
        let sets: u64 = if is_deep() { 10_000_000 } else { 1_000_000 };
        let tele = Telemetry::builder().build();
        count!(tele, "first", 1);
        let before = resident();
        let mut label = String::new();
        for n in 0..sets {
            label.clear();
            write!(label, "user-{n}").unwrap();
            count!(tele, "logins", 1, user = &label);
        }
        let grown = resident().saturating_sub(before);
        println!("grown by {grown} bytes");
        assert!(grown <= 64 << 20, "{} KiB", grown >> 10);
        let report = tele.report();
        assert_eq!(report.series_of("logins").map(SeriesAggregate::calls).sum::<u64>(), sets);
        assert_eq!(report.series_of("logins").count(), 2_001);
    }
}

/// Who claims a chunk that its owner has just filled copies it whole: such copies must not wait for use without bound.
#[test]
#[cfg(target_os = "linux")]
fn memory_stays_bounded_while_others_ask_and_a_reporter_is_stuck() {
    if is_alone("memory_stays_bounded_while_others_ask_and_a_reporter_is_stuck") {
        assert_bounded(16 << 20, |tele| {
            let is_over = AtomicBool::new(false);
            std::thread::scope(|threads| {
                for _ in 0..3 {
                    threads.spawn(|| {
                        while !is_over.load(Relaxed) {
                            let _ = tele.stats();
                        }
                    });
                }
                emit(tele, 8_000_000);
                is_over.store(true, Relaxed);
            });
        });
    }
}

#[test]
#[cfg(target_os = "linux")]
fn memory_stays_bounded_while_events_are_claimed_one_by_one() {
    if is_alone("memory_stays_bounded_while_events_are_claimed_one_by_one") {
        assert_bounded(4 << 20, |tele| {
            let _current = tele.override_current();
            for _ in 0..300_000 {
                drop(scope!("step"));
                let _ = tele.stats();
            }
        });
    }
}
