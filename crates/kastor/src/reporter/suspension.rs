//! When a failing reporter is left out, and who tries it again.

use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock};

/// Failures in a row after which a reporter is left out.
pub(super) const FAILURES: u32 = 5;
/// The first suspension; each further one is twice as long.
const FIRST_NS: u64 = 1_000_000_000;
/// The longest suspension.
const LONGEST_NS: u64 = 300 * FIRST_NS;

/// How a reporter fared lately. All of it changes under the lock, but that a probe moves the time on.
///
/// Where events failed, only events show that the reporter works again: most reporters have a method that does nothing for
/// aggregates or flushes, and that always succeeds.
#[derive(Default)]
pub(super) struct Suspension {
    failures_in_a_row: AtomicU32,
    /// Whether there was an event among what failed.
    is_of_events: AtomicBool,
    /// Monotonic time at which a suspended reporter is tried again; 0 while it is not suspended.
    until_ns: AtomicU64,
    /// Suspensions since it last worked.
    pub(super) times: Mutex<u32>,
}

impl Suspension {
    pub(super) fn is_on(&self) -> bool {
        self.until_ns.load(Relaxed) != 0
    }

    /// Whether the reporter may be called. One caller gets to try a suspended one once its time is over; the others go
    /// on leaving it out.
    #[inline]
    pub(super) fn lets_pass(&self, is_event: bool, now_ns: fn() -> u64) -> bool {
        // Read once: who sees a suspension may take no other for it, nor the recovery from it.
        let until = self.until_ns.load(Relaxed);
        if until == 0 {
            return true;
        }
        let now = now_ns();
        if !is_event && self.is_of_events.load(Relaxed) {
            // It would show nothing: the probe is for an event.
            return now >= until;
        }
        let pushed = now.saturating_add(FIRST_NS);
        now >= until && self.until_ns.compare_exchange(until, pushed, Relaxed, Relaxed).is_ok()
    }

    /// The reporter worked, on an event or otherwise. Returns whether that ends a suspension.
    #[inline]
    pub(super) fn succeed(&self, is_event: bool) -> bool {
        self.failures_in_a_row.load(Relaxed) != 0 && (is_event || !self.is_of_events.load(Relaxed)) && self.recover()
    }

    /// Forgets all failures. Returns whether that ends a suspension.
    #[cold]
    pub(super) fn recover(&self) -> bool {
        let mut times = lock(&self.times);
        *times = 0;
        self.failures_in_a_row.store(0, Relaxed);
        self.is_of_events.store(false, Relaxed);
        self.until_ns.swap(0, Relaxed) != 0
    }

    /// The reporter failed, on an event or otherwise. Returns how often in a row; from [`FAILURES`] on it is suspended.
    pub(super) fn fail(&self, is_event: bool, now_ns: fn() -> u64) -> u32 {
        let mut times = lock(&self.times);
        self.is_of_events.fetch_or(is_event, Relaxed);
        let in_a_row = self.failures_in_a_row.fetch_add(1, Relaxed) + 1;
        if in_a_row >= FAILURES {
            let pause = (FIRST_NS << (*times).min(20)).min(LONGEST_NS);
            *times = times.saturating_add(1);
            self.until_ns.store(now_ns().saturating_add(pause), Relaxed);
        }
        in_a_row
    }
}
