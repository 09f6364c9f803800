//! A background reporter: its queue and its thread.
//!
//! Emitting threads push whole chunks; the worker is woken when half a megabyte is waiting, at the collector's
//! tick, and by a flush. Thus a wake-up is paid once for many chunks.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, PoisonError, Weak},
    time::Duration,
};

use super::{OnFull, rest::is_resting, spawn::start_thread};
use crate::{
    buffer,
    clock::{Anchors, thread_ns},
    event::{Batch, BatchFacts, Collected, Process},
    health::{DropReason, ReporterStats, Stats},
    reporter::{Deadline, Goal, Guarded, Source},
    sampler::Sampler,
    sync::{AtomicU64, Condvar, Held, Mutex, MutexGuard, Ordering::Relaxed, lock},
    thread::{Delivery, MAX_CHUNK_WORDS},
};

/// A delivery for one worker, or for several.
pub(crate) enum Shared {
    One(Delivery),
    Many(Arc<Delivery>),
}

impl Shared {
    fn get(&self) -> &Delivery {
        match self {
            Shared::One(delivery) => delivery,
            Shared::Many(delivery) => delivery,
        }
    }

    /// The last user gives the chunk back.
    fn recycle(self) {
        let delivery = match self {
            Shared::One(delivery) => Some(delivery),
            Shared::Many(shared) => Arc::into_inner(shared),
        };
        if let Some(delivery) = delivery {
            buffer::give_back(delivery.chunk);
        }
    }
}

/// A background reporter.
pub(crate) struct Worker {
    pub(crate) guarded: Guarded,
    on_full: OnFull,
    max_bytes: usize,
    /// Processor time that was taken for batches, and their events, where that is weighed.
    busy_ns: AtomicU64,
    served: AtomicU64,
    queue: Mutex<Queue>,
    /// Something to do.
    wake: Condvar,
    /// Something was done.
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Shared>,
    bytes: usize,
    events: u64,
    /// Events of the delivery that is being worked on.
    in_hand: u64,
    snapshot: Option<Arc<Collected>>,
    durable: Flushes,
    delivered: Flushes,
    is_asleep: bool,
    is_running: bool,
    is_closing: bool,
}

/// The flushes of one goal. Each goal keeps its own time: what is to be durable never waits for somebody who is to take it.
#[derive(Default)]
struct Flushes {
    asked: u64,
    /// The latest deadline of those that are not done yet.
    by: Option<Deadline>,
    done: u64,
    /// The newest that the reporter itself did not finish.
    failed: u64,
}

impl Queue {
    fn flushes(&mut self, goal: Goal) -> &mut Flushes {
        match goal {
            Goal::Durable => &mut self.durable,
            Goal::Delivered => &mut self.delivered,
        }
    }

    /// What has to be done next of what was asked for.
    fn next_goal(&self) -> Option<Goal> {
        let is_asked = |flushes: &Flushes| flushes.done < flushes.asked;
        match (is_asked(&self.durable), is_asked(&self.delivered)) {
            (true, _) => Some(Goal::Durable),
            (false, true) => Some(Goal::Delivered),
            (false, false) => None,
        }
    }
}

/// What a worker needs of its context.
pub(crate) struct Environment {
    pub(crate) anchors: Arc<Anchors>,
    pub(crate) process: fn() -> Process,
    pub(crate) sampler: Sampler,
    /// Whether someone asks what delivering costs.
    pub(crate) is_weighed: bool,
    /// The context, once it exists.
    pub(crate) context: OnceLock<Weak<dyn Source>>,
}

impl Environment {
    fn stats(&self) -> Stats {
        self.context.get().and_then(Weak::upgrade).map(|context| context.stats()).unwrap_or_default()
    }
}

impl Worker {
    pub(crate) fn new(guarded: Guarded, on_full: OnFull, max_bytes: usize) -> Self {
        Self {
            guarded,
            on_full,
            max_bytes,
            busy_ns: AtomicU64::new(0),
            served: AtomicU64::new(0),
            queue: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// Queues a delivery, or drops and counts it.
    pub(crate) fn push(self: &Arc<Self>, delivery: Shared, had_room: bool, environment: &Arc<Environment>) {
        let (bytes, events) = (delivery.get().bytes(), delivery.get().events);
        let mut queue = lock(&self.queue);
        if queue.is_closing {
            drop(queue);
            self.guarded.ledger().dropped(DropReason::Shutdown, events);
            return delivery.recycle();
        }
        // Where there was room to be waited for, no more than a chunk per thread goes beyond the bound.
        let may_exceed = had_room && self.on_full != OnFull::Drop;
        if queue.bytes + bytes > self.max_bytes && !may_exceed {
            drop(queue);
            self.guarded.ledger().dropped(DropReason::QueueFull, events);
            return delivery.recycle();
        }
        queue.bytes += bytes;
        queue.events += events;
        queue.waiting.push_back(delivery);
        if queue.is_asleep && queue.bytes >= self.wake_bytes() {
            queue.is_asleep = false;
            self.wake.notify_one();
        }
        self.ensure_running(&mut queue, environment);
    }

    /// Before a chunk is handed over. Where the queue is full and the reporter is to be waited for: waits for room, at
    /// most as long as was said. Otherwise never waits, but lets the worker have the processor when the queue is nearly
    /// full: with more busy threads than processors it might not get its turn in time.
    /// Returns whether there is room.
    pub(crate) fn wait_for_room(&self) -> bool {
        let mut queue = lock(&self.queue);
        match self.on_full {
            OnFull::Drop => {
                let is_nearly_full = queue.is_running && queue.bytes > self.max_bytes / 4 * 3;
                drop(queue);
                if is_nearly_full {
                    std::thread::yield_now();
                }
                true
            }
            OnFull::Wait(max) => {
                let deadline = Deadline::after(max);
                while !self.fits(&queue) && !queue.is_closing && !deadline.has_passed() {
                    queue.is_asleep = false;
                    self.wake.notify_one();
                    queue = wait(&self.done, queue, deadline.remaining());
                }
                self.fits(&queue)
            }
        }
    }

    /// Whether a delivery finds room, if the reporter is to be waited for.
    pub(crate) fn has_room(&self) -> bool {
        self.on_full == OnFull::Drop || self.fits(&lock(&self.queue))
    }

    /// Whether one more chunk fits. One always does where nothing waits, however small the bound is.
    fn fits(&self, queue: &Queue) -> bool {
        !queue.is_running || queue.bytes == 0 || queue.bytes + MAX_CHUNK_WORDS * 8 <= self.max_bytes
    }

    /// Hands over the newest aggregates; an older snapshot that still waits is replaced, since sums are cumulative.
    pub(crate) fn push_aggregates(self: &Arc<Self>, snapshot: Arc<Collected>, environment: &Arc<Environment>) {
        let mut queue = lock(&self.queue);
        if !queue.is_closing {
            queue.snapshot = Some(snapshot);
            queue.is_asleep = false;
            self.wake.notify_one();
            self.ensure_running(&mut queue, environment);
        }
    }

    /// Wakes the worker if there is anything to do.
    pub(crate) fn nudge(self: &Arc<Self>, environment: &Arc<Environment>) {
        let mut queue = lock(&self.queue);
        if !queue.is_running && !queue.waiting.is_empty() {
            // It went to rest before a fork.
            return self.ensure_running(&mut queue, environment);
        }
        if queue.is_asleep && !queue.waiting.is_empty() {
            queue.is_asleep = false;
            self.wake.notify_one();
        }
    }

    /// Wakes the worker, to look whether it is to rest.
    pub(crate) fn wake(&self) {
        let _queue = lock(&self.queue);
        self.wake.notify_one();
    }

    /// Asks for everything queued so far, and then the reporter itself, to be flushed. Returns a ticket.
    pub(crate) fn ask_flush(self: &Arc<Self>, goal: Goal, deadline: Deadline, environment: &Arc<Environment>) -> u64 {
        let mut queue = lock(&self.queue);
        let flushes = queue.flushes(goal);
        flushes.asked += 1;
        flushes.by = Some(flushes.by.map_or(deadline, |by| by.later(deadline)));
        let ticket = flushes.asked;
        queue.is_asleep = false;
        self.wake.notify_one();
        self.ensure_running(&mut queue, environment);
        ticket
    }

    /// Waits for a flush to be done. Returns the number of events that are still pending.
    pub(crate) fn wait_flush(&self, goal: Goal, ticket: u64, deadline: Deadline) -> u64 {
        let mut queue = lock(&self.queue);
        while queue.flushes(goal).done < ticket && queue.is_running && !deadline.has_passed() {
            queue = wait(&self.done, queue, deadline.remaining());
        }
        // What was queued before the ticket is through once the flush is done; what came later is another flush's.
        let flushes = queue.flushes(goal);
        match flushes.done >= ticket {
            true => u64::from(flushes.failed >= ticket),
            false => (queue.events + queue.in_hand).max(1),
        }
    }

    /// Enough waiting to pay for a wake-up, and little enough to stay in the cache until then.
    fn wake_bytes(&self) -> usize {
        (self.max_bytes / 8).min(768 << 10)
    }

    /// Events that wait.
    pub(crate) fn pending(&self) -> u64 {
        let queue = lock(&self.queue);
        queue.events + queue.in_hand
    }

    /// Lets the worker end once its queue is empty. Never blocks.
    pub(crate) fn close(&self) {
        lock(&self.queue).is_closing = true;
        self.wake.notify_one();
        self.done.notify_all();
    }

    /// Drops what still waits, counted; used when the time is over.
    pub(crate) fn abandon(&self, reason: DropReason) {
        let mut queue = lock(&self.queue);
        let waiting = std::mem::take(&mut queue.waiting);
        let events = std::mem::take(&mut queue.events);
        queue.bytes = 0;
        self.done.notify_all();
        drop(queue);
        self.guarded.ledger().dropped(reason, events);
        waiting.into_iter().for_each(Shared::recycle);
    }

    /// Processor time that delivering one event took so far, on average.
    pub(crate) fn event_ns(&self) -> f64 {
        self.busy_ns.load(Relaxed) as f64 / self.served.load(Relaxed).max(1) as f64
    }

    /// The accounts, with so many events that wait elsewhere.
    pub(crate) fn stats(&self, waiting: u64) -> ReporterStats {
        self.guarded.stats(self.pending() + waiting)
    }

    /// Holds the queue and the reporter still, for a fork.
    pub(crate) fn hold<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(lock(&self.queue)));
        self.guarded.hold(held);
    }

    /// In a forked child: what was queued is the parent's, and its thread does not exist here.
    pub(crate) fn forget(&self) {
        let mut queue = lock(&self.queue);
        let is_closing = queue.is_closing;
        // The chunks of a delivery that is being worked on in the parent are simply never looked at again.
        std::mem::forget(std::mem::take(&mut *queue));
        queue.is_closing = is_closing;
        drop(queue);
        self.guarded.reset();
    }

    fn ensure_running(self: &Arc<Self>, queue: &mut Queue, environment: &Arc<Environment>) {
        if queue.is_running || is_resting() {
            return;
        }
        let (worker, environment) = (Arc::clone(self), Arc::clone(environment));
        // Without a thread everything stays queued and counted, and the next push tries again.
        queue.is_running = start_thread(c"kastor-reporter", move || worker.run(&environment));
    }

    fn run(&self, environment: &Environment) {
        let mut is_flushed_at_last = false;
        let mut queue = lock(&self.queue);
        loop {
            if let Some(delivery) = queue.waiting.pop_front() {
                let events = delivery.get().events;
                queue.bytes -= delivery.get().bytes();
                queue.events -= events;
                queue.in_hand = events;
                drop(queue);
                self.deliver(delivery, environment);
                queue = lock(&self.queue);
                queue.in_hand = 0;
                if self.on_full != OnFull::Drop {
                    self.done.notify_all();
                }
            } else if let Some(snapshot) = queue.snapshot.take() {
                drop(queue);
                self.guarded.aggregates(&snapshot.as_snapshot(&|| environment.stats()));
                queue = lock(&self.queue);
            } else if let Some(goal) = queue.next_goal() {
                let flushes = queue.flushes(goal);
                let (asked, by) = (flushes.asked, flushes.by.take());
                drop(queue);
                let is_flushed = by.is_none_or(|deadline| self.guarded.flush(goal, deadline));
                queue = lock(&self.queue);
                let flushes = queue.flushes(goal);
                if !is_flushed {
                    flushes.failed = asked;
                }
                flushes.done = asked;
                self.done.notify_all();
            } else if queue.is_closing && !is_flushed_at_last {
                drop(queue);
                // Nobody else will ask it to: the last handle may be gone without a flush.
                self.guarded.flush(Goal::Delivered, Deadline::after(LAST_FLUSH));
                is_flushed_at_last = true;
                queue = lock(&self.queue);
            } else if queue.is_closing || is_resting() {
                queue.is_running = false;
                self.done.notify_all();
                return;
            } else {
                queue.is_asleep = true;
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.is_asleep = false;
            }
        }
    }

    fn deliver(&self, delivery: Shared, environment: &Environment) {
        let part = delivery.get().part();
        let before_ns = if environment.is_weighed { thread_ns() } else { 0 };
        let timeline = environment.anchors.fresh_now();
        let events = delivery.get().events;
        let facts = BatchFacts { timeline, process: (environment.process)(), sampler: environment.sampler };
        self.guarded.batch(&Batch::new(part, events, facts), events);
        delivery.recycle();
        if environment.is_weighed {
            self.busy_ns.fetch_add(thread_ns().saturating_sub(before_ns), Relaxed);
            self.served.fetch_add(events, Relaxed);
        }
        buffer::stock_pool();
    }
}

/// What a reporter gets to hand on what it holds back, when its worker ends.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Waits with a bound.
fn wait<'a, T>(on: &Condvar, guard: MutexGuard<'a, T>, at_most: Duration) -> MutexGuard<'a, T> {
    on.wait_timeout(guard, at_most).unwrap_or_else(PoisonError::into_inner).0
}
