//! Time that only moves when a test says so.

use std::{sync::Arc, time::Duration};

use crate::sync::{Mutex, lock};

/// A clock for tests: starts at monotonic 1 s and Unix 1,000,000,000 s, and stands still until told to move.
///
/// Clones show and move the same time. Give it to a context with [`Builder::clock`](crate::Builder::clock).
#[derive(Clone, Debug)]
pub struct MockClock {
    /// Monotonic and Unix nanoseconds, which move together.
    times: Arc<Mutex<(u64, u64)>>,
}

impl MockClock {
    /// A clock that stands still.
    pub fn new() -> Self {
        Self { times: Arc::new(Mutex::new((1_000_000_000, 1_000_000_000_000_000_000))) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let mut times = lock(&self.times);
        *times = (times.0.saturating_add(by), times.1.saturating_add(by));
    }

    /// Sets the wall clock alone, as an administrator or NTP would: nanoseconds since 1970.
    pub fn set_unix_ns(&self, unix_ns: u64) {
        lock(&self.times).1 = unix_ns;
    }

    /// Both times of one moment.
    pub(super) fn times(&self) -> (u64, u64) {
        *lock(&self.times)
    }

    /// Monotonic nanoseconds.
    pub fn monotonic_ns(&self) -> u64 {
        self.times().0
    }

    /// Nanoseconds since 1970.
    pub fn unix_ns(&self) -> u64 {
        self.times().1
    }
}

impl Default for MockClock {
    fn default() -> Self {
        Self::new()
    }
}
