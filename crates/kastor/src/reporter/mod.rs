//! What receives events, and the boundary around it.
//!
//! A reporter must not block for long, must not panic, and says what it drops. None of this is trusted: every call goes
//! through [`Guarded`], which contains panics, counts errors, logs them ever more rarely, and leaves a reporter out for a
//! while after it failed repeatedly.

mod suspension;

use std::{
    any::type_name,
    sync::{Arc, Weak},
    time::Duration,
};

use self::suspension::{FAILURES, Suspension};
use crate::{
    clock::now_ns,
    error::Error,
    event::{Batch, Event, Metric, Snapshot, Timing},
    health::{DropReason, Drops, Ledger, ReporterStats, Stats},
    sync::{AtomicU64, Held, Ordering::Relaxed, contained, drop_contained, lock, survived},
};

/// Receives the events of the contexts it was given to.
///
/// Inline, on the thread that emits, only [`record_timing`](Reporter::record_timing) and
/// [`record_metric`](Reporter::record_metric) are called, in the order of registration. In the background
/// ([`background`](crate::background)) it gets batches and aggregates on a thread of its own. A panic in any method is
/// contained and counted as a failure of the reporter.
pub trait Reporter: Send + Sync + 'static {
    /// The context was built: where the reporter gets its aggregates from, if it wants them at a time of its own.
    fn start(&self, aggregates: Aggregates) {
        let _ = aggregates;
    }

    /// A scope closed.
    fn record_timing(&self, event: &Timing<'_>) {
        let _ = event;
    }

    /// A metric was recorded: plain metrics always; `count`, `gauge` and `histogram` only inline.
    fn record_metric(&self, event: &Metric<'_>) {
        let _ = event;
    }

    /// Records of one thread. The default hands each event to the two methods above.
    ///
    /// # Errors
    /// The whole batch counts as dropped by this reporter.
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        for event in batch.events() {
            match event {
                Event::Timing(timing) => self.record_timing(&timing),
                Event::Metric(metric) => self.record_metric(&metric),
            }
        }
        Ok(())
    }

    /// All aggregates, at each interval and on flush.
    ///
    /// # Errors
    /// Counts as a failure; the next snapshot holds the same sums and more.
    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        let _ = snapshot;
        Ok(())
    }

    /// Hands on what is held back.
    ///
    /// # Errors
    /// If that was not possible before the deadline.
    fn flush(&self, deadline: Deadline) -> Result<(), Error> {
        let _ = deadline;
        Ok(())
    }

    /// Makes what was accepted durable, delivered or not; see [`Telemetry::persist`](crate::Telemetry::persist).
    ///
    /// # Errors
    /// If that was not possible before the deadline.
    fn persist(&self, deadline: Deadline) -> Result<(), Error> {
        self.flush(deadline)
    }

    /// The reporter's own accounts, if it queues by itself.
    fn accounts(&self) -> Option<Accounts> {
        None
    }

    /// Whether the reporter wants batches: the builder then runs it in the background by itself.
    fn prefers_batches(&self) -> bool {
        false
    }

    /// Locks what a forked child must find unlocked. For the reporters of this crate: a reporter of yours that locks
    /// inline should not share its lock with a thread that may hold it during a fork.
    #[doc(hidden)]
    fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        let _ = held;
    }
}

/// Methods that do as those of what is pointed to.
macro_rules! forward {
    ($(fn $name:ident($($argument:ident: $type:ty)?) $(-> $result:ty)?;)*) => {
        $(fn $name(&self $(, $argument: $type)?) $(-> $result)? {
            (**self).$name($($argument)?)
        })*
    };
}

impl<R: Reporter + ?Sized> Reporter for Arc<R> {
    forward! {
        fn start(aggregates: Aggregates);
        fn record_timing(event: &Timing<'_>);
        fn record_metric(event: &Metric<'_>);
        fn record_batch(batch: &Batch<'_>) -> Result<(), Error>;
        fn record_aggregates(snapshot: &Snapshot<'_>) -> Result<(), Error>;
        fn flush(deadline: Deadline) -> Result<(), Error>;
        fn persist(deadline: Deadline) -> Result<(), Error>;
        fn accounts() -> Option<Accounts>;
        fn prefers_batches() -> bool;
    }

    fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        (**self).hold_for_fork(held);
    }
}

/// What a context tells its reporters of itself.
pub(crate) trait Source: Send + Sync {
    /// Calls `f` with fresh aggregates.
    fn snapshot(&self, f: &mut dyn FnMut(&Snapshot<'_>));
    /// The accounts.
    fn stats(&self) -> Stats;
}

/// The aggregates of a context, for a reporter that serves them when it is asked. Does not keep the context alive.
#[derive(Clone)]
pub struct Aggregates {
    pub(crate) source: Weak<dyn Source>,
}

impl Aggregates {
    /// Calls `f` with fresh aggregates; returns whether the context still exists.
    pub fn snapshot(&self, mut f: impl FnMut(&Snapshot<'_>)) -> bool {
        self.source.upgrade().map(|source| source.snapshot(&mut f)).is_some()
    }
}

/// What a reporter that queues by itself says of the events it accepted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accounts {
    /// Events that reached their destination.
    pub delivered: u64,
    /// Events that never will.
    pub dropped: Drops,
    /// Events that wait in memory.
    pub queued: u64,
    /// Events that wait on disk.
    pub spooled: u64,
}

/// A moment by which something has to be done.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at_ns: u64,
}

impl Deadline {
    /// The moment after `timeout` from now.
    pub fn after(timeout: Duration) -> Self {
        Self { at_ns: now_ns().saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)) }
    }

    /// The later of two.
    pub(crate) fn later(self, other: Self) -> Self {
        Self { at_ns: self.at_ns.max(other.at_ns) }
    }

    /// Time left; zero once it has passed.
    pub fn remaining(&self) -> Duration {
        Duration::from_nanos(self.at_ns.saturating_sub(now_ns()))
    }

    /// Whether it has passed.
    pub fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }
}

/// How far a flush has to bring events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To a place that survives the process.
    Durable,
    /// To where the reporter sends them.
    Delivered,
}

/// A reporter behind its boundary.
pub struct Guarded {
    /// Always there, but for the moment of its end.
    reporter: Option<Box<dyn Reporter>>,
    name: &'static str,
    ledger: Ledger,
    failures: AtomicU64,
    suspensions: AtomicU64,
    suspension: Suspension,
}

/// What a reporter is called: its type; of a shared one the type of what is shared.
fn name_of<R: ?Sized>() -> &'static str {
    let name = type_name::<R>();
    name.strip_prefix("alloc::sync::Arc<").and_then(|it| it.strip_suffix('>')).unwrap_or(name)
}

impl Guarded {
    pub(crate) fn new<R: Reporter>(reporter: R) -> Self {
        Self {
            reporter: Some(Box::new(reporter)),
            name: name_of::<R>(),
            ledger: Ledger::default(),
            failures: AtomicU64::new(0),
            suspensions: AtomicU64::new(0),
            suspension: Suspension::default(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn prefers_batches(&self) -> bool {
        survived(|| self.reporter.as_ref().is_some_and(|reporter| reporter.prefers_batches())).unwrap_or(false)
    }

    pub(crate) fn start(&self, aggregates: Aggregates) {
        self.tell(false, 0, |reporter| reporter.start(aggregates));
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// One event, inline.
    pub(crate) fn timing(&self, event: &Timing<'_>) {
        self.tell(true, 1, |reporter| reporter.record_timing(event));
    }

    /// One event, inline. A call of an aggregated instrument is no event of the accounts.
    pub(crate) fn metric(&self, event: &Metric<'_>, events: u64) {
        self.tell(true, events, |reporter| reporter.record_metric(event));
    }

    /// A batch of so many events.
    pub(crate) fn batch(&self, batch: &Batch<'_>, events: u64) {
        self.call(true, events, events, |reporter| reporter.record_batch(batch));
    }

    pub(crate) fn aggregates(&self, snapshot: &Snapshot<'_>) {
        self.call(false, 0, 0, |reporter| reporter.record_aggregates(snapshot));
    }

    /// Whether nothing is held back; one that is left out holds nothing.
    pub(crate) fn flush(&self, goal: Goal, deadline: Deadline) -> bool {
        self.suspension.is_on()
            || self.call(false, 0, 0, |reporter| match goal {
                Goal::Durable => reporter.persist(deadline),
                Goal::Delivered => reporter.flush(deadline),
            })
    }

    pub(crate) fn stats(&self, queued: u64) -> ReporterStats {
        let (mut delivered, mut dropped) = self.ledger.read();
        let mut stats = ReporterStats {
            name: self.name,
            delivered,
            dropped,
            queued,
            spooled: 0,
            failures: self.failures.load(Relaxed),
            is_suspended: self.suspension.is_on(),
        };
        let own = survived(|| self.reporter.as_ref().and_then(|reporter| reporter.accounts()));
        if let Some(own) = own.flatten() {
            // What it accepted is delivered only when the reporter itself says so.
            delivered = own.delivered;
            own.dropped.iter().for_each(|(reason, count)| dropped.add(reason, count));
            stats = ReporterStats { delivered, dropped, queued: queued + own.queued, spooled: own.spooled, ..stats };
        }
        stats
    }

    /// The accounts of an inline reporter that was offered so many events.
    pub(crate) fn inline_stats(&self, offered: u64) -> ReporterStats {
        let stats = self.stats(0);
        ReporterStats { delivered: offered.saturating_sub(stats.dropped.total()), ..stats }
    }

    /// Holds the reporter still, for a fork.
    pub(crate) fn hold<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(lock(&self.suspension.times)));
        if let Some(reporter) = &self.reporter {
            reporter.hold_for_fork(held);
        }
    }

    /// Forgets the past, in a forked child.
    pub(crate) fn reset(&self) {
        self.ledger.reset();
        self.failures.store(0, Relaxed);
        self.suspensions.store(0, Relaxed);
        self.suspension.recover();
    }

    /// What cannot fail but by a panic. What an inline reporter was offered is not counted event by event.
    #[inline]
    fn tell(&self, is_event: bool, events: u64, f: impl FnOnce(&dyn Reporter)) {
        self.call(is_event, 0, events, |reporter| {
            f(reporter);
            Ok(())
        });
    }

    /// The boundary: suspension, containment, accounts: whether it is about events, how many count as delivered if the call
    /// succeeds, and as dropped if not. Returns whether it succeeded.
    #[inline]
    fn call(
        &self,
        is_event: bool,
        delivered: u64,
        events: u64,
        f: impl FnOnce(&dyn Reporter) -> Result<(), Error>,
    ) -> bool {
        if !self.suspension.lets_pass(is_event, now_ns) {
            self.ledger.dropped(DropReason::ReporterSuspended, events);
            return false;
        }
        let Some(reporter) = &self.reporter else { return false };
        match contained(|| f(&**reporter)) {
            Ok(Ok(())) => {
                if delivered > 0 {
                    self.ledger.delivered(delivered);
                }
                if self.suspension.succeed(is_event) && is_told(self.suspensions.load(Relaxed)) {
                    log_contained(|| log::warn!(target: "kastor", "reporter {} works again", self.name));
                }
                true
            }
            Ok(Err(error)) => self.fail(is_event, events, &error.to_string()),
            Err(panic) => {
                let fails = self.fail(is_event, events, &panic_text(&*panic));
                drop_contained(panic);
                fails
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn fail(&self, is_event: bool, events: u64, why: &str) -> bool {
        self.ledger.dropped(DropReason::ReporterFailed, events);
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let in_a_row = self.suspension.fail(is_event, now_ns);
        let is_left_out = in_a_row == FAILURES && is_told(self.suspensions.fetch_add(1, Relaxed) + 1);
        if is_told(failures) || is_left_out {
            let why = crate::escape::escaped(why);
            let suspended = if in_a_row >= FAILURES { "; it is left out for a while" } else { "" };
            log_contained(|| {
                log::error!(target: "kastor", "reporter {} failed ({failures} so far): {why}{suspended}", self.name);
            });
        }
        false
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let reporter = self.reporter.take();
        survived(|| drop(reporter));
    }
}

/// What happens for the so-manieth time is told the first three times, then each time their number has doubled.
fn is_told(times: u64) -> bool {
    times <= 3 || times.is_power_of_two()
}

/// The program's logger may panic too.
pub(crate) fn log_contained(f: impl FnOnce()) {
    survived(f);
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("(no message)"))
}
