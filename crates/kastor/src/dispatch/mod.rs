//! What happens behind the program's back: the library's threads, and one worker for each background reporter.
//!
//! Threads start on first need. No call of a reporter happens under a lock, and no thread of ours waits without a bound
//! for one of theirs.

pub(crate) mod rest;
mod spawn;
mod worker;

use std::time::Duration;

/// For the threads of reporters: they start like those of this crate.
#[doc(hidden)]
pub use self::spawn::start_thread;
pub(crate) use self::worker::{Environment, Shared, Worker};
use crate::reporter::Reporter;

/// Runs a reporter on a thread of its own, behind a bounded queue.
///
/// ```
/// # use kastor::{Telemetry, Reporter, background, OnFull};
/// struct Quiet;
/// impl Reporter for Quiet {}
/// let tele = Telemetry::builder().reporter(background(Quiet).on_full(OnFull::Drop)).build();
/// # drop(tele);
/// ```
pub fn background<R: Reporter>(reporter: R) -> Background<R> {
    Background { reporter, on_full: OnFull::Drop }
}

/// A reporter that is to run in the background; made by [`background`].
#[derive(Debug)]
pub struct Background<R> {
    pub(crate) reporter: R,
    pub(crate) on_full: OnFull,
}

impl<R> Background<R> {
    /// What happens to events when the queue has reached its bound.
    #[must_use]
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }
}

/// What happens to events when a queue has reached its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// They are dropped and counted.
    #[default]
    Drop,
    /// The emitting thread waits up to this long for room, then drops and counts.
    Wait(Duration),
}
