//! Models of the library's own threads: a worker's queue and its wake-ups, and the rest before a fork.
//!
//! Their sources are included here as they are; see `loom_table.rs`. A condition variable of a model never times out, so
//! whoever waits has to be woken. Run with `RUSTFLAGS="--cfg loom" cargo test -p kastor --release --test 'loom*'`;
//! otherwise there is nothing here.
#![cfg(loom)]

#[path = "../src/dispatch/rest.rs"]
#[allow(dead_code, reason = "the models use what starts, ends and waits")]
mod rest;
#[path = "loom/sync.rs"]
mod sync;
#[path = "../src/dispatch/worker.rs"]
#[allow(dead_code, reason = "the models use what queues, wakes and flushes")]
mod worker;

// What the two sources name of the other rooms.
mod buffer {
    pub(crate) fn give_back(_: crate::thread::Chunk) {}
    pub(crate) fn stock_pool() {}
}
mod clock {
    pub(crate) struct Anchors;

    impl Anchors {
        pub(crate) fn fresh_now(&self) {}
    }
    pub(crate) fn thread_ns() -> u64 {
        0
    }
}
mod event {
    use crate::{sampler::Sampler, thread::Delivery};

    #[derive(Clone, Copy)]
    pub(crate) struct Process;
    #[allow(dead_code, reason = "as the library's")]
    pub(crate) struct BatchFacts {
        pub(crate) timeline: (),
        pub(crate) process: Process,
        pub(crate) sampler: Sampler,
    }
    pub(crate) struct Batch(pub(crate) u64);
    pub(crate) struct Collected;

    impl Collected {
        pub(crate) fn as_snapshot(&self, _: &dyn Fn() -> crate::health::Stats) {}
    }

    impl Batch {
        pub(crate) fn new(part: u64, _: u64, _: BatchFacts) -> Self {
            Self(part)
        }
    }

    impl Delivery {
        /// The number that it was made with, instead of records.
        pub(crate) fn part(&self) -> u64 {
            self.number
        }
        pub(crate) fn bytes(&self) -> usize {
            MAX_CHUNK_BYTES
        }
    }
    use crate::MAX_CHUNK_BYTES;
}
mod health {
    #[derive(Debug, PartialEq)]
    pub(crate) enum DropReason {
        QueueFull,
        Shutdown,
    }
    #[derive(Default)]
    pub(crate) struct Stats;
    pub(crate) struct ReporterStats;
}
mod reporter {
    use std::{sync::Mutex, time::Duration};

    use crate::{event::Batch, health::*, sync::Held};

    /// A moment that never comes.
    #[derive(Clone, Copy)]
    pub(crate) struct Deadline;

    impl Deadline {
        pub(crate) fn after(_: Duration) -> Self {
            Self
        }
        pub(crate) fn later(self, _: Self) -> Self {
            Self
        }
        pub(crate) fn has_passed(&self) -> bool {
            false
        }
        pub(crate) fn remaining(&self) -> Duration {
            Duration::MAX
        }
    }

    #[derive(Clone, Copy, PartialEq)]
    pub(crate) enum Goal {
        Durable,
        Delivered,
    }

    pub(crate) trait Source: Send + Sync {
        fn stats(&self) -> Stats;
    }

    /// Writes down what it gets: numbers of deliveries, `FLUSH` for a flush, and what was dropped.
    #[derive(Default)]
    pub(crate) struct Guarded {
        pub(crate) seen: Mutex<Vec<u64>>,
        pub(crate) lost: Mutex<Vec<(DropReason, u64)>>,
    }

    pub(crate) const FLUSH: u64 = u64::MAX;

    impl Guarded {
        pub(crate) fn batch(&self, batch: &Batch, _: u64) {
            self.seen.lock().unwrap().push(batch.0);
        }
        pub(crate) fn flush(&self, _: Goal, _: Deadline) -> bool {
            self.seen.lock().unwrap().push(FLUSH);
            true
        }
        pub(crate) fn aggregates(&self, (): &()) {}
        pub(crate) fn ledger(&self) -> &Self {
            self
        }
        pub(crate) fn dropped(&self, reason: DropReason, events: u64) {
            self.lost.lock().unwrap().push((reason, events));
        }
        pub(crate) fn stats(&self, _: u64) -> ReporterStats {
            ReporterStats
        }
        pub(crate) fn hold<'a>(&'a self, _: &mut Vec<Box<dyn Held + 'a>>) {}
        pub(crate) fn reset(&self) {}
    }
}
mod sampler {
    #[derive(Clone, Copy)]
    pub(crate) struct Sampler;
}
mod spawn {
    use std::{cell::RefCell, ffi::CStr};

    use loom::thread::JoinHandle;

    use crate::{rest, sync::AtomicBool};

    thread_local! {
        /// Threads that were started in this execution. The threads of a model are all within one thread.
        static STARTED: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
    }
    loom::lazy_static! {
        /// Which of two threads are there, as the system knows; the first has number 1.
        pub(crate) static ref THERE: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
    }
    loom::thread_local! {
        static NUMBER: std::cell::Cell<i32> = std::cell::Cell::new(0);
    }

    pub(crate) fn start_thread(_: &'static CStr, run: impl FnOnce() + Send + 'static) -> bool {
        rest::announce(true);
        let number = STARTED.with_borrow(Vec::len) + 1;
        // The system knows it before it runs.
        THERE[number - 1].store(true, loom::sync::atomic::Ordering::SeqCst);
        let handle = loom::thread::spawn(move || {
            NUMBER.with(|own| own.set(number as i32));
            rest::enter();
            run();
            THERE[number - 1].store(false, loom::sync::atomic::Ordering::SeqCst);
        });
        STARTED.with_borrow_mut(|started| started.push(handle));
        true
    }

    pub(crate) fn own_number() -> i32 {
        NUMBER.with(std::cell::Cell::get)
    }

    pub(crate) fn is_there(number: i32) -> bool {
        THERE[number as usize - 1].load(loom::sync::atomic::Ordering::SeqCst)
    }

    pub(crate) fn pause() {
        loom::thread::yield_now();
    }

    /// Waits for all that were started. Returns how many.
    pub(crate) fn join_all() -> usize {
        let started = STARTED.take();
        let count = started.len();
        started.into_iter().for_each(|handle| handle.join().unwrap());
        count
    }
}
mod thread {
    pub(crate) const MAX_CHUNK_WORDS: usize = 8;
    pub(crate) struct Chunk;
    pub(crate) struct Delivery {
        pub(crate) chunk: Chunk,
        pub(crate) events: u64,
        pub(crate) number: u64,
    }
}

/// What happens to events when the queue has reached its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
enum OnFull {
    Drop,
    Wait(Duration),
}

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use event::Process;
use health::DropReason;
use loom::thread as threads;
use reporter::{Deadline, FLUSH, Goal, Guarded, Source};
use sampler::Sampler;
use spawn::join_all;
use sync::large_model;
use thread::{Chunk, Delivery};
use worker::{Environment, Shared, Worker};

const MAX_CHUNK_BYTES: usize = thread::MAX_CHUNK_WORDS * 8;

struct NoContext;

impl Source for NoContext {
    fn stats(&self) -> health::Stats {
        health::Stats
    }
}

/// A worker with room for so many deliveries.
#[derive(Clone)]
struct Reporting {
    worker: Arc<Worker>,
    environment: Arc<Environment>,
}

impl Reporting {
    fn new(on_full: OnFull, room: usize) -> Self {
        let worker = Arc::new(Worker::new(Guarded::default(), on_full, room * MAX_CHUNK_BYTES));
        let context: OnceLock<Weak<dyn Source>> = OnceLock::new();
        let _ = context.set(Weak::<NoContext>::new());
        let process = || Process;
        let environment =
            Environment { anchors: Arc::new(clock::Anchors), process, sampler: Sampler, is_weighed: false, context };
        Self { worker, environment: Arc::new(environment) }
    }

    /// As `Context::deliver` does when a chunk is full.
    fn push(&self, number: u64) {
        let had_room = self.worker.wait_for_room();
        let delivery = Delivery { chunk: Chunk, events: 1, number };
        self.worker.push(Shared::One(delivery), had_room, &self.environment);
    }

    fn flush(&self) {
        let ticket = self.worker.ask_flush(Goal::Delivered, Deadline, &self.environment);
        assert_eq!(self.worker.wait_flush(Goal::Delivered, ticket, Deadline), 0, "nothing is pending");
    }

    /// What the reporter got so far, in order.
    fn seen(&self) -> Vec<u64> {
        self.worker.guarded.seen.lock().unwrap().clone()
    }

    /// The deliveries that it got when it has ended, in order.
    fn ended(&self) -> Vec<u64> {
        self.worker.close();
        join_all();
        self.seen().into_iter().filter(|seen| *seen != FLUSH).collect()
    }

    fn lost(&self) -> usize {
        self.worker.guarded.lost.lock().unwrap().len()
    }
}

#[test]
fn what_is_queued_is_delivered_before_the_worker_ends() {
    large_model(|| {
        let reporting = Reporting::new(OnFull::Drop, 4);
        reporting.push(1);
        reporting.push(2);
        assert_eq!((reporting.ended(), reporting.lost()), (vec![1, 2], 0));
    });
}

#[test]
fn a_flush_returns_when_everything_pushed_before_it_was_delivered() {
    large_model(|| {
        let reporting = Reporting::new(OnFull::Drop, 4);
        reporting.push(1);
        reporting.flush();
        assert_eq!(reporting.seen(), [1, FLUSH]);
        // Now it sleeps, or is about to.
        reporting.push(2);
        reporting.flush();
        assert_eq!(reporting.seen(), [1, FLUSH, 2, FLUSH]);
        assert_eq!(reporting.ended(), [1, 2]);
    });
}

#[test]
fn two_flushes_at_once_both_return() {
    large_model(|| {
        let reporting = Reporting::new(OnFull::Drop, 4);
        let other = threads::spawn({
            let reporting = reporting.clone();
            move || {
                reporting.push(1);
                reporting.flush();
                let seen = reporting.seen();
                let at = seen.iter().position(|it| *it == 1).expect("it was delivered");
                assert!(seen[at..].contains(&FLUSH), "and flushed after that: {seen:?}");
            }
        });
        reporting.flush();
        other.join().unwrap();
        assert_eq!(reporting.ended(), [1]);
    });
}

#[test]
fn whoever_waits_for_room_gets_it() {
    large_model(|| {
        let reporting = Reporting::new(OnFull::Wait(Duration::MAX), 1);
        reporting.push(1);
        reporting.push(2);
        reporting.push(3);
        assert_eq!((reporting.ended(), reporting.lost()), (vec![1, 2, 3], 0));
    });
}

#[test]
fn two_that_wait_for_room_both_get_it() {
    large_model(|| {
        let reporting = Reporting::new(OnFull::Wait(Duration::MAX), 1);
        reporting.push(1);
        let other = threads::spawn({
            let reporting = reporting.clone();
            move || reporting.push(2)
        });
        reporting.push(3);
        other.join().unwrap();
        let mut seen = reporting.ended();
        seen.sort_unstable();
        assert_eq!((seen, reporting.lost()), (vec![1, 2, 3], 0));
    });
}

#[test]
fn a_worker_that_sleeps_is_woken_by_the_next_tick() {
    large_model(|| {
        // Too little to wake it for by itself.
        let reporting = Reporting::new(OnFull::Drop, 64);
        reporting.push(1);
        reporting.worker.nudge(&reporting.environment);
        while reporting.worker.pending() > 0 {
            threads::yield_now();
        }
        reporting.push(2);
        reporting.worker.nudge(&reporting.environment);
        while reporting.worker.pending() > 0 {
            threads::yield_now();
        }
        assert_eq!(reporting.ended(), [1, 2]);
    });
}

#[test]
fn what_comes_while_the_worker_is_closed_is_delivered_or_counted() {
    large_model(|| {
        let reporting = Reporting::new(OnFull::Drop, 4);
        reporting.push(1);
        let other = threads::spawn({
            let reporting = reporting.clone();
            move || reporting.push(2)
        });
        reporting.worker.close();
        other.join().unwrap();
        assert_eq!(reporting.ended().len() + reporting.lost(), 2);
    });
}

#[test]
fn what_finds_the_queue_full_is_delivered_or_counted() {
    large_model(|| {
        let reporting = Reporting::new(OnFull::Drop, 1);
        (1..=3).for_each(|number| reporting.push(number));
        let delivered = reporting.ended();
        assert_eq!(delivered.len() + reporting.lost(), 3);
        assert_eq!(delivered[0], 1, "there was room for the first");
        let lost = reporting.worker.guarded.lost.lock().unwrap();
        assert!(lost.iter().all(|lost| *lost == (DropReason::QueueFull, 1)));
    });
}

#[test]
fn a_rest_before_a_fork_leaves_no_thread_and_loses_nothing() {
    large_model(|| {
        let reporting = Reporting::new(OnFull::Drop, 4);
        let other = threads::spawn({
            let reporting = reporting.clone();
            move || reporting.push(1)
        });
        // As `collector::rest` does.
        rest::set_resting(true);
        reporting.worker.wake();
        assert!(rest::wait_until_alone(Deadline));
        assert!(spawn::THERE.iter().all(|it| !it.load(loom::sync::atomic::Ordering::SeqCst)), "the process is alone");
        // The fork would be here. As `collector::wake` and the next tick do:
        rest::set_resting(false);
        other.join().unwrap();
        reporting.worker.nudge(&reporting.environment);
        assert_eq!(reporting.ended(), [1]);
    });
}
