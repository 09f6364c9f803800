//! Fork: a child never hangs, delivers its own events and none of its parent's, under ids of its own.
#![cfg(all(unix, not(miri)))]

use std::{
    collections::HashSet,
    os::fd::{AsRawFd as _, OwnedFd},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Waker},
    thread,
    time::Duration,
};

use kastor::{
    Batch, Builder, Carrier, Error, FutureExt as _, Metric, Recording, Reporter, Scope, SimpleReporter, Telemetry,
    Timing, background, count, histogram, metric, scope,
};

/// Only ever an upper bound: nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(10);
/// Scopes that each child closes.
const OF_CHILD: u64 = 100;
const WORDS: usize = 12;

fn forks(few: usize) -> usize {
    if std::env::var_os("KASTOR_DEEP").is_some_and(|set| set == "1") { few * 20 } else { few }
}

/// What a child says: a number for each question, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    /// How far it came, for children that hang.
    steps: u64,
    flushed: u64,
    own_events: u64,
    parents_events: u64,
    emitted: u64,
    delivered: u64,
    instance_id: u128,
    trace_id: u128,
    span_id: u64,
    parent_span_id: u64,
}

/// Counts without locks: a lock of the reporter's own could be held in the moment of the fork.
#[derive(Clone, Default)]
struct Tally(Arc<Counts>);

#[derive(Default)]
struct Counts {
    of_parent: AtomicU64,
    of_child: AtomicU64,
    instance: [AtomicU64; 2],
    trace: [AtomicU64; 2],
    span: AtomicU64,
    parent_span: AtomicU64,
    /// Where a child's reporter writes a byte per event; 0 for nowhere.
    pipe: AtomicI32,
}

fn store(words: &[AtomicU64; 2], value: u128) {
    words[0].store((value >> 64) as u64, SeqCst);
    words[1].store(value as u64, SeqCst);
}

fn load(words: &[AtomicU64; 2]) -> u128 {
    u128::from(words[0].load(SeqCst)) << 64 | u128::from(words[1].load(SeqCst))
}

impl Reporter for Tally {
    fn record_timing(&self, event: &Timing<'_>) {
        if event.name() != "child" {
            self.0.of_parent.fetch_add(1, SeqCst);
            return;
        }
        self.0.of_child.fetch_add(1, SeqCst);
        store(&self.0.trace, event.trace_id());
        self.0.span.store(event.span_id(), SeqCst);
        self.0.parent_span.store(event.parent_span_id().unwrap_or(0), SeqCst);
        let pipe = self.0.pipe.load(SeqCst);
        if pipe != 0 {
            // SAFETY: one byte is read from a live variable.
            unsafe { libc::write(pipe, (&raw const pipe).cast(), 1) };
        }
    }
    fn record_metric(&self, _: &Metric<'_>) {}
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        store(&self.0.instance, batch.process().instance_id);
        batch.timings().for_each(|timing| self.record_timing(&timing));
        Ok(())
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    use std::os::fd::FromRawFd as _;
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors, which nobody else owns afterwards.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

/// Forks, as C does. The child runs `in_child` and ends; the parent gets its number.
fn fork(in_child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child calls what the library promises to work in it, and ends without unwinding into the parent's code.
    match unsafe { libc::fork() } {
        -1 => panic!("no fork: {}", std::io::Error::last_os_error()),
        0 => {
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(in_child)).is_err();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(failed)) }
        }
        child => child,
    }
}

/// Reads so many bytes, or as many as come before the time is over or the other side ends.
fn read(from: &OwnedFd, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    let mut len = 0;
    while len < bytes {
        let mut wanted = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry; then room for the rest of the bytes.
        let got = unsafe {
            match libc::poll(&raw mut wanted, 1, LONG.as_millis() as i32) {
                0 => break,
                _ => libc::read(wanted.fd, read[len..].as_mut_ptr().cast(), bytes - len),
            }
        };
        match got {
            0 => break,
            got if got > 0 => len += got as usize,
            _ => assert_eq!(std::io::Error::last_os_error().kind(), std::io::ErrorKind::Interrupted),
        }
    }
    read.truncate(len);
    read
}

/// Ends a child that may hang; returns whether it had ended well by itself.
fn reap(child: libc::pid_t, is_done: bool) -> bool {
    let mut status = 0;
    // SAFETY: our own child, by its number; a place for its status.
    unsafe {
        if !is_done {
            libc::kill(child, libc::SIGKILL);
        }
        while libc::waitpid(child, &raw mut status, 0) == -1 {}
    }
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// In the child: emits, flushes, and answers word by word.
fn answer(tele: &Telemetry, tally: &Tally, before: Scope, to: &OwnedFd) {
    let say = |word: u64| {
        let word = word.to_ne_bytes();
        // SAFETY: eight bytes of a live variable.
        unsafe { libc::write(to.as_raw_fd(), word.as_ptr().cast(), word.len()) };
    };
    let counts = &*tally.0;
    let (parents, own) = (counts.of_parent.load(SeqCst), counts.of_child.load(SeqCst));
    for _ in 0..OF_CHILD {
        let _child = scope!("child");
        count!("items");
        histogram!("size", 3);
    }
    drop(before);
    say(1);
    say(u64::from(tele.flush(LONG).is_complete()));
    let stats = tele.stats();
    say(counts.of_child.load(SeqCst) - own);
    say(counts.of_parent.load(SeqCst) - parents);
    say(stats.emitted());
    say(stats.reporters()[0].delivered());
    for pair in [&counts.instance, &counts.trace] {
        pair.iter().for_each(|word| say(word.load(SeqCst)));
    }
    say(counts.span.load(SeqCst));
    say(counts.parent_span.load(SeqCst));
}

fn decode(bytes: &[u8]) -> Result<Answer, usize> {
    let words: Vec<u64> = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
    let &[steps, flushed, own_events, parents_events, emitted, delivered, i1, i2, t1, t2, span_id, parent_span_id] =
        &words[..]
    else {
        return Err(words.len());
    };
    let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    let (instance_id, trace_id) = (wide(i1, i2), wide(t1, t2));
    Ok(Answer {
        steps,
        flushed,
        own_events,
        parents_events,
        emitted,
        delivered,
        instance_id,
        trace_id,
        span_id,
        parent_span_id,
    })
}

/// Forks in a loop while 8 threads do `work`, and holds the children and the parent to every promise. The first reporter
/// of the context must be the tally.
fn fork_while(forks: usize, build: impl Fn(Builder) -> Builder, work: impl Fn(&Telemetry) -> u64 + Sync) {
    let (_until_done, done) = mpsc::channel::<()>();
    thread::spawn(move || {
        if done.recv_timeout(LONG * 30) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the parent hangs");
            std::process::abort();
        }
    });
    let tally = Tally::default();
    let tele = build(Telemetry::builder().reporter(background(tally.clone()))).build();
    let is_over = AtomicBool::new(false);
    let (mut emitted, mut faults, mut ids) = (0, Vec::new(), HashSet::new());
    thread::scope(|threads| {
        let run = || {
            let _current = tele.override_current();
            let mut emitted = 0;
            while !is_over.load(SeqCst) {
                emitted += work(&tele);
                thread::yield_now();
            }
            emitted
        };
        let workers: Vec<_> = (0..8).map(|_| threads.spawn(run)).collect();
        let _current = tele.override_current();
        for fork_number in 0..forks {
            let before = scope!("before");
            let carried = Carrier::current();
            let (from, to) = pipe();
            let mut before = Some(before);
            let child = fork(|| answer(&tele, &tally, before.take().unwrap(), &to));
            drop(to);
            let found = decode(&read(&from, WORDS * 8));
            let ended_well = reap(child, found.is_ok());
            // What the parent opens next would have the child's ids, had these not been redrawn.
            let next = scope!("next").carrier();
            drop(before);
            emitted += 2;
            let Ok(found) = found else {
                faults.push(format!("fork {fork_number}: the child hung or ended after {found:?} answers"));
                break;
            };
            let expected = Answer {
                steps: 1,
                flushed: 1,
                own_events: OF_CHILD,
                parents_events: 0,
                emitted: OF_CHILD,
                delivered: OF_CHILD,
                trace_id: carried.trace_id(),
                parent_span_id: carried.span_id(),
                ..found
            };
            if found != expected || !ended_well {
                faults.push(format!("fork {fork_number}: {found:?} instead of {expected:?}, ended well: {ended_well}"));
            }
            for id in [found.instance_id, u128::from(found.span_id), u128::from(next.span_id())] {
                if !ids.insert(id) {
                    faults.push(format!("fork {fork_number}: {id:x} was there before"));
                }
            }
        }
        is_over.store(true, SeqCst);
        emitted += workers.into_iter().map(|worker| worker.join().unwrap()).sum::<u64>();
    });
    assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), &faults[..faults.len().min(5)]);
    // The parent lost nothing, and got nothing twice or from a child.
    assert!(tele.flush(LONG).is_complete());
    let stats = tele.stats();
    let it = stats.reporters().iter().find(|it| it.name().ends_with("::Tally")).unwrap();
    assert_eq!((stats.timings(), it.delivered() + it.dropped().total()), (emitted, stats.emitted()), "{stats}");
    let counts = &*tally.0;
    assert_eq!((counts.of_parent.load(SeqCst), counts.of_child.load(SeqCst)), (it.delivered() - stats.metrics(), 0));
    assert!(!ids.contains(&load(&counts.instance)), "a child had its parent's instance id");
}

fn scopes(_: &Telemetry) -> u64 {
    for _ in 0..50 {
        let _outer = scope!("outer", n = 1);
        let _inner = scope!("inner");
        count!("items", 1, kind = "x");
    }
    100
}

#[test]
fn children_of_a_busy_parent_with_a_background_reporter() {
    fork_while(forks(200), |builder| builder, scopes);
}

#[test]
fn children_of_a_busy_parent_with_an_inline_reporter_too() {
    struct Inline(Tally);
    impl Reporter for Inline {
        fn record_timing(&self, event: &Timing<'_>) {
            self.0.record_timing(event);
        }
    }
    fork_while(forks(200), |builder| builder.reporter(Inline(Tally::default())), scopes);
}

#[test]
fn children_of_a_busy_parent_with_a_recording_too() {
    fork_while(forks(200), |builder| builder.reporter(Recording::new(1 << 20)), scopes);
}

#[test]
fn children_of_a_busy_parent_with_a_simple_reporter_too() {
    fork_while(forks(200), |builder| builder.reporter(SimpleReporter::with_max_entries_per_scope(1)), scopes);
}

fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, SeqCst) % 1_000
}

#[test]
fn children_of_a_parent_whose_threads_make_up_names_and_series() {
    let work = |tele: &Telemetry| {
        drop(tele.scope(&format!("dynamic_{}", number())));
        metric!("note", number());
        histogram!("size", number(), shard = number() % 7);
        1
    };
    fork_while(forks(100), |builder| builder, work);
}

#[test]
fn children_of_a_parent_whose_threads_make_and_drop_handles() {
    let work = |tele: &Telemetry| {
        (0..20).for_each(|_| tele.counter("bound", &[("shard", (number() % 7).into())]).add(1));
        0
    };
    fork_while(forks(100), |builder| builder, work);
}

#[test]
fn children_of_a_parent_whose_threads_change_the_rules_and_are_subject_to_them() {
    let work = |tele: &Telemetry| {
        tele.switch_scopes("never_used", false);
        tele.record_paths("never_used", false);
        (0..20).for_each(|_| drop(tele.scope("step")));
        20
    };
    fork_while(forks(100), |builder| builder, work);
}

#[test]
fn children_of_a_parent_whose_threads_ask_for_reports() {
    let work = |tele: &Telemetry| {
        tele.describe("items", "1", "items read");
        count!("items");
        let _ = (tele.stats(), tele.report(), tele.open_scopes());
        0
    };
    fork_while(forks(100), |builder| builder, work);
}

#[test]
fn children_of_a_parent_whose_threads_poll_futures() {
    let work = |tele: &Telemetry| {
        for _ in 0..20 {
            let future = pin!(async {}.in_scope(tele.scope("future")));
            assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        }
        20
    };
    fork_while(forks(100), |builder| builder, work);
}

#[test]
fn children_of_a_parent_whose_threads_come_and_go() {
    let work = |tele: &Telemetry| {
        thread::scope(|threads| drop(threads.spawn(|| drop(tele.scope("short_thread")))));
        1
    };
    fork_while(forks(100), |builder| builder, work);
}

#[test]
fn children_of_a_parent_whose_threads_build_and_drop_contexts() {
    let work = |_: &Telemetry| {
        let other = Telemetry::builder().reporter(background(Tally::default())).build();
        drop(other.scope("of_another"));
        0
    };
    fork_while(forks(100), |builder| builder, work);
}

#[test]
fn a_child_that_ends_in_order_delivers_its_events_without_a_flush() {
    let tally = Tally::default();
    let tele = Telemetry::builder().reporter(background(tally.clone())).build();
    for _ in 0..forks(20) {
        let _current = tele.override_current();
        let _before = scope!("before");
        let (from, to) = pipe();
        let child = fork(|| {
            tally.0.pipe.store(to.as_raw_fd(), SeqCst);
            (0..OF_CHILD).for_each(|_| drop(scope!("child")));
            // SAFETY: ends the child in order, with its exit handlers.
            unsafe { libc::exit(0) };
        });
        drop(to);
        let bytes = read(&from, OF_CHILD as usize + 1);
        assert!(reap(child, bytes.len() >= OF_CHILD as usize), "hung or failed after {} events", bytes.len());
        assert_eq!(bytes.len(), OF_CHILD as usize);
    }
}

#[test]
fn a_child_of_a_child_has_events_and_ids_of_its_own() {
    let tally = Tally::default();
    let tele = Telemetry::builder().reporter(background(tally.clone())).build();
    let _current = tele.override_current();
    let before = scope!("before");
    let carried = before.carrier();
    let ((from, to), (from_inner, to_inner)) = (pipe(), pipe());
    let mut before = Some(before);
    let child = fork(|| {
        (0..7).for_each(|_| drop(scope!("child")));
        let mut inner = before.take();
        let grandchild = fork(|| answer(&tele, &tally, inner.take().unwrap(), &to_inner));
        answer(&tele, &tally, inner.take().unwrap(), &to);
        assert!(reap(grandchild, true));
    });
    drop((to, to_inner));
    let [outer, inner] = [&from, &from_inner].map(|from| decode(&read(from, WORDS * 8)).unwrap());
    assert!(reap(child, true));
    for found in [outer, inner] {
        assert_eq!((found.flushed, found.parents_events, found.parent_span_id), (1, 0, carried.span_id()), "{found:?}");
    }
    assert_eq!((outer.emitted, inner.emitted, inner.own_events), (OF_CHILD + 7, OF_CHILD, OF_CHILD));
    assert_ne!(outer.instance_id, inner.instance_id);
    assert_ne!(outer.span_id, inner.span_id);
}

/// Fails until it is told to work.
#[derive(Clone, Default)]
struct Moody(Arc<AtomicBool>);

impl Reporter for Moody {
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        if self.0.load(SeqCst) { Ok(()) } else { Err(Error::temporary("not now")) }
    }
}

#[test]
fn a_child_does_not_pay_for_what_a_reporter_failed_to_do_for_its_parent() {
    let moody = Moody::default();
    let tele = Telemetry::builder().reporter(background(moody.clone())).build();
    for _ in 0..5 {
        drop(scope!(tele, "failing"));
        tele.flush(LONG);
    }
    assert!(tele.stats().reporters()[0].is_suspended());
    let child = fork(|| {
        let at_first = tele.stats().reporters()[0].clone();
        assert_eq!((at_first.failures(), at_first.is_suspended(), at_first.dropped().total()), (0, false, 0));
        moody.0.store(true, SeqCst);
        (0..3).for_each(|_| drop(scope!(tele, "child")));
        assert!(tele.flush(LONG).is_complete());
        assert_eq!(tele.stats().reporters()[0].delivered(), 3);
    });
    assert!(reap(child, true), "the child fails");
    assert!(tele.stats().reporters()[0].is_suspended(), "the parent's affairs are its own");
}
