//! What was emitted, delivered and dropped, and why: nothing is lost in silence.

use std::fmt;

use crate::{
    escape::escaped,
    getters::getters,
    sync::{AtomicU64, Ordering::Relaxed},
};

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal,)*) => {
        /// Why an event did not reach a reporter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $reason,)*
        }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: [DropReason; [$($name),*].len()] = [$(DropReason::$reason),*];

            /// The reason's name in metrics and texts.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(DropReason::$reason => $name,)*
                }
            }
        }
    };
}
reasons! {
    /// The reporter's queue had reached its bound.
    QueueFull = "queue_full",
    /// The event was larger than an event may be.
    TooLarge = "too_large",
    /// There was no room for another series or name.
    Cardinality = "cardinality",
    /// It came after `shutdown`.
    Shutdown = "shutdown",
    /// The reporter returned an error or panicked.
    ReporterFailed = "reporter_failed",
    /// The reporter was suspended after repeated failure.
    ReporterSuspended = "reporter_suspended",
    /// A server refused it.
    RejectedByServer = "rejected_by_server",
    /// A server answered with an error that trying again does not mend.
    NonRetryable = "non_retryable",
    /// Trying again did not help in time.
    RetryExhausted = "retry_exhausted",
    /// The disk quota of a spool was reached.
    SpoolFull = "spool_full",
    /// The spool could not be written.
    SpoolIo = "spool_io",
    /// Stored bytes were damaged.
    CorruptOnRead = "corrupt_on_read",
    /// It was emitted by the reporter itself, while that was being served.
    Reentrant = "reentrant",
    /// Sampling, or a rule for its path, left it out.
    Sampled = "sampled",
    /// The process or thread ended first.
    ProcessExit = "process_exit",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Live counters of one reporter.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    delivered: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Ledger {
    pub(crate) fn delivered(&self, events: u64) {
        self.delivered.fetch_add(events, Relaxed);
    }

    pub(crate) fn dropped(&self, reason: DropReason, events: u64) {
        if let Some(count) = self.dropped.get(reason as usize) {
            count.fetch_add(events, Relaxed);
        }
    }

    pub(crate) fn read(&self) -> (u64, Drops) {
        let mut drops = Drops::default();
        for (sum, count) in drops.counts.iter_mut().zip(&self.dropped) {
            *sum = count.load(Relaxed);
        }
        (self.delivered.load(Relaxed), drops)
    }

    /// Forgets everything: a forked child's past is its parent's.
    pub(crate) fn reset(&self) {
        self.delivered.store(0, Relaxed);
        self.dropped.iter().for_each(|count| count.store(0, Relaxed));
    }
}

/// Dropped events by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    counts: [u64; DropReason::ALL.len()],
}

impl Drops {
    /// Events dropped for this reason.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.counts.get(reason as usize).copied().unwrap_or(0)
    }

    /// Events dropped for any reason.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.of(reason))).filter(|(_, count)| *count > 0)
    }

    /// Counts more drops; for reporters that keep accounts of their own.
    pub fn add(&mut self, reason: DropReason, events: u64) {
        if let Some(count) = self.counts.get_mut(reason as usize) {
            *count = count.saturating_add(events);
        }
    }
}

getters! {
    /// The accounts of a context: what [`Telemetry::stats`](crate::Telemetry::stats) returns.
    ///
    /// For every reporter, at rest: `emitted = delivered + dropped + queued + spooled`.
    #[derive(Clone, Debug, Default)]
    pub struct Stats {
        /// Events that the program emitted into this context: scopes that closed and plain metrics.
        pub(crate) emitted: u64,
        /// Of those, scopes.
        pub(crate) timings: u64,
        /// Of those, plain metrics.
        pub(crate) metrics: u64,
        /// Events that were dropped before they became the reporters' business, after `shutdown` for instance. They are
        /// not among the emitted.
        pub(crate) dropped: Drops,
        /// Values and attributes of this context that were cut or left out because of their size or number, and names
        /// that were cut in this process.
        pub(crate) cut_values: u64,
        /// Times that a name or path found no room in this process and shared an overflow entry.
        pub(crate) overflowed_names: u64,
        /// Times that a set of labels found no room and shared an overflow series.
        pub(crate) overflowed_series: u64,
        /// Times that the processor's counter and the monotonic clock parted, as when the machine was suspended: scopes
        /// that were open then have a duration by the counter, and those closed since are timed anew.
        pub(crate) clock_gaps: u64,
        /// Scopes that went beyond the overhead budget, by path; see
        /// [`Builder::overhead_budget`](crate::Builder::overhead_budget).
        pub(crate) degraded: Vec<Degraded> => &[Degraded],
        /// One entry per reporter, in the order of registration.
        pub(crate) reporters: Vec<ReporterStats> => &[ReporterStats],
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "emitted {} ({} scopes, {} metrics)", self.emitted, self.timings, self.metrics)?;
        for (reason, count) in self.dropped.iter() {
            writeln!(f, "dropped before delivery, {reason}: {count}")?;
        }
        for degraded in &self.degraded {
            writeln!(f, "over the overhead budget: {degraded}")?;
        }
        for reporter in &self.reporters {
            write!(f, "{}: delivered {}, queued {}", reporter.name, reporter.delivered, reporter.queued)?;
            for (reason, count) in reporter.dropped.iter() {
                write!(f, ", dropped {reason} {count}")?;
            }
            writeln!(f, "{}", if reporter.is_suspended { ", suspended" } else { "" })?;
        }
        Ok(())
    }
}

/// How much less than everything is kept of a path's scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Degradation {
    /// They are in the aggregates, which stay exact; no reporter gets them (`sampled`).
    Aggregated,
    /// Scopes of this name are switched off: they are in no path, depth or parent.
    Off,
}

getters! {
    /// A path whose scopes went beyond the overhead budget.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Degraded {
        /// The scope's full path.
        pub(crate) path: &'static str,
        /// What is left of it.
        pub(crate) level: Degradation,
        /// How often it was called when that was decided.
        pub(crate) calls_per_second: f64,
        /// The share of one processor that recording and delivering it took then, by estimate.
        pub(crate) share: f64,
    }
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Degradation::Aggregated => "aggregated only",
            Degradation::Off => "switched off",
        };
        let (path, calls, percent) = (escaped(self.path), self.calls_per_second, self.share * 100.0);
        write!(f, "{path}: {level}; {calls:.0} calls/s, about {percent:.2} % of a processor")
    }
}

getters! {
    /// The accounts of one reporter.
    #[derive(Clone, Debug)]
    pub struct ReporterStats {
        /// The reporter's type.
        pub(crate) name: &'static str,
        /// Events that it accepted.
        pub(crate) delivered: u64,
        /// Events that it did not get, or refused.
        pub(crate) dropped: Drops,
        /// Events that wait for it in memory.
        pub(crate) queued: u64,
        /// Events that it keeps on disk.
        pub(crate) spooled: u64,
        /// Calls that returned an error or panicked.
        pub(crate) failures: u64,
        /// Whether it is left out for now, after repeated failure.
        pub(crate) is_suspended: bool,
    }
}
