//! Runs peers in child processes and collects their figures.
//!
//! Every configuration of every peer runs in processes of its own, because most of these libraries are configured
//! once per process and some run threads for ever. Rounds are interleaved: the first round of all, then the second
//! of all, so that a slow minute of the machine hits everybody. A figure is the minimum or the median over all
//! batches of all rounds.

use crate::alloc::{allocations_of_thread, live_bytes};
use crate::case::{Case, Keeper, Peer, Ran, TWO_CLOCK_READS};
use crate::machine::{pin, process_cpu_ns, thread_cpu_ns, wall_ns};
use crate::peers::{self, floor};
use crate::results::{Results, Sample};
use std::cell::Cell;
use std::ops::{Add, Sub};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What the command line asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Peers whose name starts with this; the floors run anyway.
    pub only: Option<String>,
    /// How often every configuration runs.
    pub rounds: u32,
    /// Shorter batches and a tenth of the sustained run.
    pub quick: bool,
    /// Leaves the seconds-long cases out.
    pub micro: bool,
}

const E2E_SHAPES: [(&str, u64, u64); 2] = [("e2e_many_roots", 10_000, 99), ("e2e_one_root", 1, 999_999)];
const DEPTHS: [usize; 3] = [100, 1_000, 100_000];

/// The peers that the settings select.
pub fn selected(settings: &Settings) -> Vec<Box<dyn Peer>> {
    let wanted = |peer: &dyn Peer| {
        peer.name() == floor::NAME
            || settings.only.as_ref().is_none_or(|prefix| peer.name().starts_with(prefix.as_str()))
    };
    peers::all().into_iter().filter(|peer| wanted(peer.as_ref())).collect()
}

/// Runs everything that the settings select.
pub fn run(settings: &Settings) -> Results {
    let peers = selected(settings);
    let mut results = Results::default();
    for round in 0..settings.rounds {
        for peer in &peers {
            for task in tasks(peer.as_ref(), settings, round) {
                eprint!("\r\x1b[Kround {}/{}: {} {task}", round + 1, settings.rounds, peer.name());
                run_child(peer.name(), &task, settings.quick, &mut results);
            }
        }
    }
    eprint!("\r\x1b[K");
    results
}

/// What a peer's child processes do in a round: all short cases in one, every long one in its own.
fn tasks(peer: &dyn Peer, settings: &Settings, round: u32) -> Vec<String> {
    let mut tasks = Vec::new();
    if !peer.cases().is_empty() {
        tasks.push("micro".to_owned());
    }
    if settings.micro {
        return tasks;
    }
    if peer.keeper().is_some() {
        tasks.extend(E2E_SHAPES.iter().map(|(id, ..)| (*id).to_owned()));
    }
    // Ten seconds are their own median, and heap bytes do not vary.
    if round == 0 && peer.sustains() {
        tasks.push("sustained_10s".to_owned());
    }
    if round == 0 && peer.open_levels().is_some() {
        tasks.extend(DEPTHS.iter().map(|depth| format!("open_level_bytes/{depth}")));
    }
    tasks
}

/// Runs this binary again for one task of one peer. Its lines are samples, also where it ends badly, which is a failure.
pub fn run_child(peer: &str, task: &str, quick: bool, results: &mut Results) {
    let mut failed = |error: String| results.failures.push(format!("{peer} {task}: {error}"));
    let output = match std::env::current_exe()
        .and_then(|program| as_child(&mut Command::new(program), peer, task, quick).output())
    {
        Ok(output) => output,
        Err(error) => return failed(error.to_string()),
    };
    if !output.status.success() {
        failed(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    String::from_utf8_lossy(&output.stdout).lines().for_each(|line| results.add(peer, line));
}

/// Turns a command that starts this binary, or valgrind with it, into a child for one task of one peer.
pub fn as_child<'a>(command: &'a mut Command, peer: &str, task: &str, quick: bool) -> &'a mut Command {
    command.args(["--child", peer, task]).args(quick.then_some("--quick")).stdin(Stdio::null());
    // Tracy refuses to start where a hypervisor (or valgrind) hides that the counter is invariant; its zones cost
    // the same there.
    command.env("TRACY_NO_INVARIANT_CHECK", "1")
}

/// The child process: does one task of one peer and prints a sample a line. Returns whether all was in order.
pub fn child(peer: &str, task: &str, quick: bool) -> bool {
    if let Some(probe) = peers::probe(task) {
        probe().print();
        return true;
    }
    let Some(peer) = peers::all().into_iter().find(|candidate| candidate.name() == peer) else {
        eprintln!("no such peer: {peer}");
        return false;
    };
    let peer = peer.as_ref();
    if let Some((id, roots, children)) = E2E_SHAPES.iter().find(|(id, ..)| *id == task) {
        let Some(keeper) = peer.keeper() else { return false };
        keeper.set_up();
        end_to_end(id, keeper.as_ref(), *roots, *children).print();
        return true;
    }
    peer.set_up();
    if let Some(depth) = task.strip_prefix("open_level_bytes/").and_then(|depth| depth.parse().ok()) {
        return open_level_bytes(peer, depth);
    }
    if let Some(case) = task.strip_prefix("instructions/") {
        return crate::instructions::child(peer, case);
    }
    if task == "sustained_10s" {
        return sustained(peer, quick);
    }
    let batch_ns = if quick { 1e6 } else { 5e6 };
    // All cases run, even after one that failed: the failures are told together.
    peer.cases().iter().map(|case| measure(peer, case, batch_ns)).fold(true, |all, good| all & good)
}

/// Measures one short case and verifies what the peer saw.
fn measure(peer: &dyn Peer, case: &Case, batch_ns: f64) -> bool {
    let ran = Cell::new(Ran::default());
    let run = |iterations: u64| {
        (case.run)(iterations);
        let before = ran.get();
        ran.set(Ran { iterations: before.iterations + iterations, loops: before.loops + 1 });
    };
    let iterations = calibrate(&run, batch_ns, case.most_iterations);
    // As much again unmeasured: buffers grow, pages are touched and caches fill at first, in every peer.
    (0..case.batches).for_each(|_| run(iterations));
    let sample = if case.two_threads {
        two_threads(peer, case, iterations, &ran)
    } else {
        one_thread(peer, case, iterations, &run)
    };
    sample.print();
    peer.flush();
    match case.verify.as_ref().map_or(Ok(()), |verify| verify(ran.get())) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("{} {}: {error}", peer.name(), case.id);
            false
        }
    }
}

/// How many iterations take about `batch_ns`. Unpinned, so that threads which the peer starts on first use are free.
fn calibrate(run: &dyn Fn(u64), batch_ns: f64, most: u64) -> u64 {
    let mut iterations = 16.min(most);
    loop {
        // The faster of two: a peer that is still starting up would make the batches too small.
        let taken_ns = wall_ns(|| run(iterations)).min(wall_ns(|| run(iterations))).max(1.0);
        if taken_ns >= batch_ns / 4.0 || iterations >= most {
            let fitting = (iterations as f64 * batch_ns / taken_ns) as u64;
            return fitting.clamp(1, most);
        }
        iterations = (iterations * 4).min(most);
    }
}

fn one_thread(peer: &dyn Peer, case: &Case, iterations: u64, run: &dyn Fn(u64)) -> Sample {
    let operations = (iterations * case.operations) as f64;
    let mut sample = Sample::new(case.id);
    let _pinned = pin(0);
    peer.flush();
    let before = Spent::now();
    let mut baseline_spent = Spent::default();
    for _ in 0..case.batches {
        sample.ns.push(wall_ns(|| run(iterations)) / operations);
        // Between the batches, not after them: the difference of the two should be of the same moment.
        if let Some(baseline) = &case.baseline {
            let before = Spent::now();
            sample.baseline_ns.push(wall_ns(|| baseline(iterations)) / operations);
            baseline_spent = baseline_spent + (Spent::now() - before);
        }
    }
    let allocations = Spent::now().allocations;
    peer.flush();
    let cpu_ns = process_cpu_ns();
    let whole = Spent { allocations, cpu_ns: cpu_ns as f64 } - before;
    // Twice: the baseline's own batches are no part of the case, and the case is told above its baseline.
    let spent = whole - baseline_spent - baseline_spent;
    sample.allocations = spent.allocations / (case.batches as f64 * operations);
    sample.cpu_ns = spent.cpu_ns / (case.batches as f64 * operations);
    sample
}

/// Allocations of this thread and CPU time of this process.
#[derive(Clone, Copy, Default)]
struct Spent {
    allocations: f64,
    cpu_ns: f64,
}

impl Spent {
    fn now() -> Spent {
        Spent { allocations: allocations_of_thread() as f64, cpu_ns: process_cpu_ns() as f64 }
    }
}

impl Add for Spent {
    type Output = Spent;
    fn add(self, other: Spent) -> Spent {
        Spent { allocations: self.allocations + other.allocations, cpu_ns: self.cpu_ns + other.cpu_ns }
    }
}

impl Sub for Spent {
    type Output = Spent;
    fn sub(self, other: Spent) -> Spent {
        Spent { allocations: self.allocations - other.allocations, cpu_ns: self.cpu_ns - other.cpu_ns }
    }
}

/// CPU time per operation on two threads at once, and relative to one thread. Both sides start fresh threads, so
/// that starting them costs both the same.
fn two_threads(peer: &dyn Peer, case: &Case, iterations: u64, ran: &Cell<Ran>) -> Sample {
    let iterations = iterations * case.batches as u64;
    let run = &case.run;
    let cpu_per_operation = |threads: u64| {
        let barrier = Barrier::new(threads as usize);
        peer.flush();
        let before = process_cpu_ns();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let barrier = &barrier;
                scope.spawn(move || {
                    let _pinned = pin(thread as usize);
                    barrier.wait();
                    run(iterations);
                });
            }
        });
        peer.flush();
        let before_run = ran.get();
        let done = Ran { iterations: before_run.iterations + threads * iterations, loops: before_run.loops + threads };
        ran.set(done);
        (process_cpu_ns() - before) as f64 / (threads * iterations * case.operations) as f64
    };
    let mut sample = Sample::new(case.id);
    for _ in 0..case.batches {
        sample.baseline_relative.push(cpu_per_operation(1));
        sample.ns.push(cpu_per_operation(2));
    }
    sample.cpu_ns = sample.ns.iter().copied().fold(f64::INFINITY, f64::min);
    sample
}

/// Seconds of `on_scope0`, in slices of a second between which the clock reads are measured, so that the ratio is
/// of the same minute. CPU time is that of the whole process, with everything the peer does behind.
fn sustained(peer: &dyn Peer, quick: bool) -> bool {
    let cases = peer.cases();
    let Some(case) = cases.iter().find(|case| case.id == "on_scope0") else { return false };
    let floor = Case::new(TWO_CLOCK_READS, floor::two_clock_reads);
    let mut ran = Ran::default();
    (case.run)(1000);
    ran.iterations += 1000;
    ran.loops += 1;
    peer.flush();
    let dropped_before = peer.dropped().unwrap_or(0);
    let slice = if quick { Duration::from_millis(100) } else { Duration::from_secs(1) };
    let (mut floor_cpu_ns, mut floor_reads) = (0, 0);
    let (before, start, first) = (process_cpu_ns(), Instant::now(), ran.iterations);
    let mut scopes_wall_ns = 0.0;
    for _ in 0..10 {
        let slice_start = Instant::now();
        while slice_start.elapsed() < slice {
            (case.run)(10_000_u64.div_ceil(case.operations));
            ran.iterations += 10_000_u64.div_ceil(case.operations);
            ran.loops += 1;
        }
        scopes_wall_ns += slice_start.elapsed().as_nanos() as f64;
        let (floor_start, floor_before) = (Instant::now(), thread_cpu_ns());
        while floor_start.elapsed() < slice / 10 {
            (floor.run)(10_000);
            floor_reads += 10_000;
        }
        floor_cpu_ns += thread_cpu_ns() - floor_before;
    }
    peer.flush();
    let operations = ((ran.iterations - first) * case.operations) as f64;
    let mut sample = Sample::new("sustained_10s");
    sample.ns.push(scopes_wall_ns / operations);
    sample.cpu_ns = (process_cpu_ns() - before - floor_cpu_ns) as f64 / operations;
    sample.more("floor_cpu_ns", floor_cpu_ns as f64 / floor_reads as f64);
    sample.more("scopes", operations);
    sample.more("seconds", start.elapsed().as_secs_f64());
    if let Some(dropped) = peer.dropped() {
        sample.more("lost", (dropped - dropped_before) as f64);
    }
    sample.print();
    match case.verify.as_ref().map_or(Ok(()), |verify| verify(ran)) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("{} sustained_10s: {error}", peer.name());
            false
        }
    }
}

/// Records, flushes, counts. The time is that of all three; what a second of patience finds after the flush is late.
fn end_to_end(id: &'static str, keeper: &dyn Keeper, roots: u64, children: u64) -> Sample {
    let scopes = roots * (children + 1);
    let live_before = live_bytes();
    let cpu_before = process_cpu_ns();
    let allocations = allocations_of_thread();
    let start = Instant::now();
    keeper.record(roots, children);
    let recorded_ns = start.elapsed().as_nanos() as f64;
    let allocations = allocations_of_thread() - allocations;
    keeper.flush();
    let counted = keeper.count();
    let all_ns = start.elapsed().as_nanos() as f64;
    let cpu_ns = (process_cpu_ns() - cpu_before) as f64;
    let live = (live_bytes() - live_before) as f64;
    let mut last = counted;
    let patience = Instant::now();
    while last < scopes && patience.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(50));
        last = keeper.count();
    }
    let mut sample = Sample::new(id);
    sample.ns.push(all_ns / scopes as f64);
    sample.cpu_ns = cpu_ns / scopes as f64;
    sample.allocations = allocations as f64 / scopes as f64;
    sample.more("record_ns", recorded_ns / scopes as f64);
    sample.more("bytes", live / scopes as f64);
    sample.more("late", last as f64 - counted as f64);
    sample.more("lost", scopes as f64 - last as f64);
    sample
}

/// Heap bytes per open scope at one depth. A scope is opened and closed first: what a thread needs once is not a level's.
fn open_level_bytes(peer: &dyn Peer, depth: usize) -> bool {
    let Some(open_levels) = peer.open_levels() else { return false };
    let mut marks = Vec::with_capacity(2);
    // What a process pays once for the paths is no cost of an open level: they are all there, from another thread. Its
    // end gives the levels back.
    let prime = || open_levels(depth, &mut || ());
    let work = || {
        open_levels(1, &mut || ());
        // Only this thread runs scopes; what a background thread of the peer does meanwhile is its own, and small.
        open_levels(depth, &mut || marks.push(live_bytes()));
    };
    // Peers whose guards borrow open their levels by recursion. The stack is address space until it is used.
    std::thread::scope(|scope| {
        for work in [Box::new(prime) as Box<dyn FnOnce() + Send>, Box::new(work)] {
            let thread = std::thread::Builder::new().stack_size(1 << 30).spawn_scoped(scope, work);
            thread.map(|thread| thread.join()).expect("a thread with a large stack").expect("the levels do not panic");
            // What the first thread left in queues is gone before the second one measures.
            peer.flush();
        }
    });
    let [before, open] = marks[..] else {
        eprintln!("{}: open_levels must mark twice", peer.name());
        return false;
    };
    let mut sample = Sample::new("open_level_bytes");
    sample.more(&format!("at_{depth}"), (open - before) as f64 / depth as f64);
    sample.print();
    true
}
