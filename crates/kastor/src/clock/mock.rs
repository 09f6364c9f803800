//! Time that only moves when a test says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// A clock for tests: starts at monotonic 1 s and Unix 1,000,000,000 s, and stands still until told to move.
///
/// Clones show and move the same time. Give it to a context with [`Builder::clock`](crate::Builder::clock).
#[derive(Clone, Debug)]
pub struct MockClock {
    times: Arc<[AtomicU64; 2]>,
}

impl MockClock {
    /// A clock that stands still.
    pub fn new() -> Self {
        Self { times: Arc::new([AtomicU64::new(1_000_000_000), AtomicU64::new(1_000_000_000_000_000_000)]) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        for time in self.times.iter() {
            time.fetch_add(by, SeqCst);
        }
    }

    /// Sets the wall clock alone, as an administrator or NTP would: nanoseconds since 1970.
    pub fn set_unix_ns(&self, unix_ns: u64) {
        self.times[1].store(unix_ns, SeqCst);
    }

    /// Monotonic nanoseconds.
    pub fn monotonic_ns(&self) -> u64 {
        self.times[0].load(SeqCst)
    }

    /// Nanoseconds since 1970.
    pub fn unix_ns(&self) -> u64 {
        self.times[1].load(SeqCst)
    }
}

impl Default for MockClock {
    fn default() -> Self {
        Self::new()
    }
}
