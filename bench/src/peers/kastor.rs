//! kastor: off, off by name, on with a background reporter that does nothing, inline, and keeping everything.

use super::{PROBES, Probe, expect, some_text};
use crate::case::{Case, Keeper, OpenLevels, Peer, busy, dynamic_names, owned_levels};
use crate::machine::ticks;
use crate::results::Sample;
use crate::{eight_parents, sixty_four_callsites};
use kastor::{
    Batch, Error, FutureExt as _, Metric, Recording, Reporter, Telemetry, Timing, background, count, metric, scope,
};
use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// All configurations of kastor.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Off), Box::new(Named), Box::new(On), Box::new(Inline), Box::new(Keep)]
}

/// The gate's measurements that are no cases.
pub fn probe(name: &str) -> Option<Probe> {
    let probes: [Probe; 3] = [emit_cost_plain, emit_cost_chaos, refuse_1gib];
    PROBES.iter().zip(probes).find(|(known, _)| **known == name).map(|(_, probe)| probe)
}

const PATIENCE: Duration = Duration::from_secs(10);

static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();

fn install(telemetry: Telemetry) {
    assert!(telemetry.clone().install().is_ok(), "one configuration per process");
    let _ = TELEMETRY.set(telemetry);
}

#[inline(always)]
fn tele() -> &'static Telemetry {
    TELEMETRY.get().expect("installed by set_up")
}

macro_rules! open {
    ($name:literal) => {
        scope!($name)
    };
}
macro_rules! child {
    ($index:expr, $name:literal) => {{
        let _scope = open!($name);
        black_box($index);
    }};
}

fn scope0(index: u64) {
    let _scope = scope!("scope0");
    black_box(index);
}

fn scope2(index: u64) {
    let _scope = scope!("scope2", index = index, text = some_text());
    black_box(index);
}

/// A background reporter with an empty `record_batch`.
struct NoOp;
impl Reporter for NoOp {
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        Ok(())
    }
}

struct Off;
impl Peer for Off {
    fn name(&self) -> &'static str {
        "kastor/off"
    }
    fn note(&self) -> &'static str {
        "process default with a background reporter, switched off by set_enabled(false)"
    }
    fn set_up(&self) {
        install(Telemetry::builder().reporter(background(NoOp)).build());
        tele().set_enabled(false);
    }
    fn cases(&self) -> Vec<Case> {
        // One name: choosing among many is no part of opening a scope.
        let name = black_box(dynamic_names("d")[0].clone());
        vec![
            Case::new("off_scope0", scope0).verify(|_| expect_calls("scope0", 0)),
            Case::new("off_scope2", scope2).verify(|_| expect_calls("scope2", 0)),
            Case::new("off_counter", |_| count!("off", black_box(1))).verify(|_| expect_sum("off", 0)),
            Case::new("off_dynamic", move |index| {
                let _scope = tele().scope(&name);
                black_box(index);
            })
            .verify(|_| expect_calls("d0", 0)),
        ]
    }
}

struct Named;
impl Peer for Named {
    fn name(&self) -> &'static str {
        "kastor/named"
    }
    fn note(&self) -> &'static str {
        "enabled with a background no-op reporter, the scope's name switched off by a glob"
    }
    fn set_up(&self) {
        install(Telemetry::builder().reporter(background(NoOp)).build());
        tele().switch_scopes("switched.*", false);
    }
    fn cases(&self) -> Vec<Case> {
        let case = Case::new("off_named", |index| {
            let _scope = scope!("switched.off");
            black_box(index);
        });
        vec![case.verify(|_| expect_calls("switched.off", 0))]
    }
}

struct Inline;
impl Peer for Inline {
    fn name(&self) -> &'static str {
        "kastor/inline"
    }
    fn note(&self) -> &'static str {
        "an inline reporter with empty methods; exact aggregates per path"
    }
    fn set_up(&self) {
        struct Empty;
        impl Reporter for Empty {
            fn record_timing(&self, event: &Timing<'_>) {
                black_box(event);
            }
            fn record_metric(&self, event: &Metric<'_>) {
                black_box(event);
            }
        }
        install(Telemetry::builder().reporter(Empty).build());
    }
    fn cases(&self) -> Vec<Case> {
        vec![Case::new("on_inline", scope0).verify(|ran| expect_calls("scope0", ran.iterations))]
    }
    fn flush(&self) {
        tele().flush(PATIENCE);
    }
}

struct On;
impl Peer for On {
    fn name(&self) -> &'static str {
        "kastor/on"
    }
    fn note(&self) -> &'static str {
        "background reporter with an empty record_batch: every scope is recorded, aggregated exactly per path, and offered in batches"
    }
    fn set_up(&self) {
        install(Telemetry::builder().reporter(background(NoOp)).build());
    }
    fn flush(&self) {
        tele().flush(PATIENCE);
    }
    fn dropped(&self) -> Option<u64> {
        Some(tele().stats().reporters().iter().map(|reporter| reporter.dropped().total()).sum())
    }
    fn sustains(&self) -> bool {
        true
    }
    fn open_levels(&self) -> Option<OpenLevels> {
        Some(|depth, mark| owned_levels(|| scope!("deep"), depth, mark))
    }
    fn cases(&self) -> Vec<Case> {
        let called = |case: Case, path: &'static str| case.verify(move |ran| expect_calls(path, ran.iterations));
        let counted = |case: Case, path: &'static str| case.verify(move |ran| expect_sum(path, ran.iterations));
        let (names, parents) = (dynamic_names("d"), dynamic_names("parent"));
        vec![
            called(Case::new("on_scope0", scope0), "scope0"),
            called(Case::new("on_scope2", scope2), "scope2"),
            called(Case::new("on_nest5", nest5).operations(5), "n1.n2.n3.n4.n5"),
            Case::new("on_many_paths", |index| eight_parents!(open, index, sixty_four_callsites!(child, index)))
                .operations(65)
                .verify(|ran| expect_calls_ending("p", ".c63", ran.iterations)),
            // 64 parents named at run time above 64 callsites: 4,096 paths, and the parents' own 64.
            Case::new("on_many_paths_4096", move |index| {
                let _parent = tele().scope(&parents[index as usize % 64]);
                sixty_four_callsites!(child, index)
            })
            .operations(65)
            .verify(|ran| expect_calls_ending("parent", ".c63", ran.iterations)),
            Case::new("on_dynamic", move |index| {
                let _scope = tele().scope(&names[index as usize % 64]);
                black_box(index);
            })
            .verify(|ran| expect_calls_ending("d", "", ran.iterations)),
            // A program has many callsites of each shape; alone, one would be compiled as if there were no others.
            Case::new("on_scope2_numbers", |index| {
                let _scope = scope!("scope2_numbers", index = index, half = index as f64);
                black_box(index);
            })
            .verify(|ran| expect_calls("scope2_numbers", ran.iterations)),
            Case::new("on_metric_event2_numbers", |index| {
                metric!("metric2_numbers", index, index = index, half = index as f64)
            })
            .verify(|ran| expect_metrics(ran.iterations)),
            counted(Case::new("on_counter", |_| count!("counter", black_box(1))), "counter"),
            counted(
                Case::new("on_counter2", |_| count!("counter2", black_box(1), kind = "md", host = "a")),
                "counter2",
            ),
            counted(counter_handle(), "counter_handle"),
            counted(
                Case::new("on_counter_labels", |_| count!("counter_labels", black_box(1), host = some_text())),
                "counter_labels",
            ),
            Case::new("on_metric_event", |index| metric!("metric", index as f64))
                .verify(|ran| expect_metrics(ran.iterations)),
            Case::new("on_metric_event2", |index| metric!("metric2", index as f64, index = index, text = some_text()))
                .verify(|ran| expect_metrics(ran.iterations)),
            Case::poll(|future| future.in_scope(scope!("poll"))).verify(|ran| expect_cancelled("poll", ran.loops)),
            called(Case::two_threads(two_threads), "two_threads"),
            called(Case::busy_body(body), "body"),
            called(Case::fresh_threads(fresh), "fresh"),
        ]
    }
}

fn nest5(index: u64) {
    let _first = scope!("n1");
    let _second = scope!("n2");
    let _third = scope!("n3");
    let _fourth = scope!("n4");
    let _fifth = scope!("n5");
    black_box(index);
}

fn two_threads(index: u64) {
    let _scope = scope!("two_threads");
    black_box(index);
}

fn body(index: u64) {
    let _scope = scope!("body");
    busy(index);
}

fn fresh(index: u64) {
    let _scope = scope!("fresh");
    black_box(index);
}

fn counter_handle() -> Case {
    let counter = tele_or_default().counter("counter_handle", &[]);
    Case::new("on_counter_handle", move |_| counter.add(black_box(1)))
}

/// Cases are also listed where nothing is installed: a handle needs some context to be made from.
fn tele_or_default() -> Telemetry {
    TELEMETRY.get().cloned().unwrap_or_else(Telemetry::disabled)
}

/// Calls exactly, errors none, and a total that the extremes allow.
fn expect_calls(path: &str, expected: u64) -> Result<(), String> {
    let report = tele().report();
    let rows = report.scopes();
    let Some(row) = rows.iter().find(|row| row.path() == path) else { return expect(path, 0, expected) };
    expect(path, row.calls(), expected)?;
    expect(&format!("{path}: errors"), row.errors(), 0)?;
    expect_possible_total(path, row.calls(), row.total(), row.min(), row.max())
}

fn expect_possible_total(path: &str, calls: u64, total: Duration, min: Duration, max: Duration) -> Result<(), String> {
    let total_ns = total.as_nanos();
    // Ticks become nanoseconds once for each of the three: a nanosecond of rounding per call.
    let possible = min.as_nanos().saturating_sub(1) * u128::from(calls)..=(max.as_nanos() + 1) * u128::from(calls);
    if possible.contains(&total_ns) {
        Ok(())
    } else {
        Err(format!("{path}: a total of {total_ns} ns is not within {possible:?}"))
    }
}

/// Calls of all paths that begin and end like this.
fn expect_calls_ending(start: &str, end: &str, expected: u64) -> Result<(), String> {
    let report = tele().report();
    let rows = report.scopes();
    let found = rows.iter().filter(|row| row.path().starts_with(start) && row.path().ends_with(end));
    let (calls, errors) = found.fold((0, 0), |(calls, errors), row| (calls + row.calls(), errors + row.errors()));
    expect(&format!("{start}…{end}"), calls, expected)?;
    expect(&format!("{start}…{end}: errors"), errors, 0)
}

/// A future that is dropped before it is ready is cancelled: as many errors as calls.
fn expect_cancelled(path: &str, expected: u64) -> Result<(), String> {
    let report = tele().report();
    let rows = report.scopes();
    let found = rows.iter().find(|row| row.path() == path).map_or((0, 0), |row| (row.calls(), row.errors()));
    expect(path, found.0, expected)?;
    expect(&format!("{path}: cancelled"), found.1, expected)
}

fn expect_sum(path: &str, expected: u64) -> Result<(), String> {
    let report = tele().report();
    let rows = report.series();
    let found = rows.iter().filter(|row| row.path() == path).map(|row| row.sum().as_f64() as u64).sum();
    expect(path, found, expected)
}

/// Metric events since the case before.
fn expect_metrics(expected: u64) -> Result<(), String> {
    static VERIFIED: AtomicU64 = AtomicU64::new(0);
    let total = tele().stats().metrics();
    expect("metrics", total - VERIFIED.swap(total, Relaxed), expected)
}

/// Everything into a [`Recording`].
struct Keep;
static RECORDING: OnceLock<Recording> = OnceLock::new();

impl Peer for Keep {
    fn name(&self) -> &'static str {
        "kastor/recording"
    }
    fn note(&self) -> &'static str {
        "a Recording keeps every record; exact aggregates per path besides"
    }
    fn cases(&self) -> Vec<Case> {
        Vec::new()
    }
    fn keeper(&self) -> Option<Box<dyn Keeper>> {
        Some(Box::new(Keep))
    }
}

impl Keeper for Keep {
    fn set_up(&self) {
        let recording = RECORDING.get_or_init(|| Recording::new(256 << 20));
        // Room for a second of a collector that gets no CPU: nothing may be lost here.
        install(Telemetry::builder().reporter(recording.clone()).queue_bytes(64 << 20).build());
    }
    fn record(&self, roots: u64, children: u64) {
        for _ in 0..roots {
            let _root = scope!("root");
            for index in 0..children {
                let _child = scope!("child");
                black_box(index);
            }
        }
    }
    fn flush(&self) {
        tele().flush(PATIENCE);
    }
    fn count(&self) -> u64 {
        let mut scopes = 0;
        if let Some(recording) = RECORDING.get() {
            recording.for_each_batch(|batch| scopes += batch.timings().count() as u64);
        }
        scopes
    }
}

/// What a reporter beside the measured one saw.
static SEEN: AtomicU64 = AtomicU64::new(0);

struct CountEvents;
impl Reporter for CountEvents {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        SEEN.fetch_add(batch.timings().count() as u64, Relaxed);
        Ok(())
    }
}

/// Panics, blocks and works, in turns.
struct Chaos(AtomicU64);
impl Reporter for Chaos {
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        match self.0.fetch_add(1, Relaxed) % 3 {
            0 => panic!("chaos"),
            1 => std::thread::sleep(Duration::from_millis(20)),
            _ => {}
        }
        Ok(())
    }
}

fn emit_cost_plain() -> Sample {
    install(Telemetry::builder().reporter(background(NoOp)).reporter(background(CountEvents)).build());
    emit_cost(PROBES[0])
}

fn emit_cost_chaos() -> Sample {
    // The panics are on purpose; a message for each would be the figure.
    std::panic::set_hook(Box::new(|_| ()));
    install(
        Telemetry::builder().reporter(background(Chaos(AtomicU64::new(0)))).reporter(background(CountEvents)).build(),
    );
    emit_cost(PROBES[1])
}

/// The distribution of single scopes over about two seconds, with pauses, so that the queues are those of a program
/// and not of a loop. A full chunk is retired by the scope that fills it, once per some seven hundred root scopes:
/// p99.9 is the cost of that, not of an ordinary scope, and moves when retiring gets slower.
fn emit_cost(probe: &'static str) -> Sample {
    const SCOPES: usize = 1_000_000;
    let mut costs: Vec<u64> = Vec::with_capacity(SCOPES);
    let (start, first) = (Instant::now(), ticks());
    for index in 0..SCOPES as u64 {
        if index % 10_000 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let before = ticks();
        scope0(black_box(index));
        costs.push(ticks().wrapping_sub(before));
    }
    let ns_per_tick = start.elapsed().as_nanos() as f64 / ticks().wrapping_sub(first) as f64;
    tele().flush(PATIENCE);
    let lost = (SCOPES as u64).saturating_sub(SEEN.load(Relaxed));
    costs.sort_unstable();
    let mut sample = Sample::new(probe);
    sample.more("p50_ns", costs[SCOPES / 2] as f64 * ns_per_tick);
    sample.more("p999_ns", costs[SCOPES / 1000 * 999] as f64 * ns_per_tick);
    sample.more("lost", lost as f64);
    sample
}

/// What a scope with a value of 1 GiB costs above one with a short value.
fn refuse_1gib() -> Sample {
    install(Telemetry::builder().reporter(background(NoOp)).build());
    // Zeroed pages that nobody touches: a library that reads on beyond its limit shows at once.
    let zeros = vec![0_u8; 1 << 30];
    // SAFETY: zeros are valid UTF-8; checking would touch every page.
    let text = unsafe { std::str::from_utf8_unchecked(&zeros) };
    let per_scope = |text: &str| {
        let start = Instant::now();
        for index in 0..1000_u64 {
            let _scope = scope!("refused", text = black_box(text));
            black_box(index);
        }
        start.elapsed().as_nanos() as f64 / 1000.0
    };
    let best = |text: &str| (0..10).map(|_| per_scope(text)).fold(f64::INFINITY, f64::min);
    let (short, long) = (best("some text"), best(text));
    let mut sample = Sample::new(PROBES[2]);
    sample.more("refuse_ns", long - short);
    sample
}
