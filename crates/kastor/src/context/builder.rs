//! How a context comes to be.

use std::time::Duration;

use super::{Context, Telemetry, budget::READ_PAIRS};
use crate::{
    clock::{Clock, MockClock},
    config,
    dispatch::{Background, OnFull},
    reporter::{Guarded, Reporter},
    sampler::Sampler,
};

/// Bytes that may wait for background reporters, unless [`Builder::queue_bytes`] says otherwise.
pub const QUEUE_BYTES: usize = 16 << 20;

/// Builds a context; made by [`Telemetry::builder`].
#[must_use = "nothing is built before `build`"]
pub struct Builder {
    pub(super) reporters: Vec<(Guarded, Option<OnFull>)>,
    pub(super) interval: Duration,
    pub(super) queue_bytes: usize,
    exit_flush: Duration,
    pub(super) is_strict: bool,
    pub(super) clock: Option<Clock>,
    pub(super) sampler: Sampler,
    pub(super) overhead_budget: Option<f64>,
    /// What a scope costs where it runs, for the overhead budget.
    pub(crate) scope_read_pairs: f64,
}

/// What [`Builder::reporter`] takes: a reporter, or one that [`background`](crate::background) wrapped.
pub trait IntoReporter: sealed::Sealed {}

mod sealed {
    use super::{Guarded, OnFull};

    pub trait Sealed {
        fn guarded(self) -> (Guarded, Option<OnFull>);
    }
}

impl<R: Reporter> IntoReporter for R {}
impl<R: Reporter> sealed::Sealed for R {
    fn guarded(self) -> (Guarded, Option<OnFull>) {
        let guarded = Guarded::new(self);
        let on_full = guarded.prefers_batches().then_some(OnFull::Drop);
        (guarded, on_full)
    }
}

impl<R: Reporter> IntoReporter for Background<R> {}
impl<R: Reporter> sealed::Sealed for Background<R> {
    fn guarded(self) -> (Guarded, Option<OnFull>) {
        (Guarded::new(self.reporter), Some(self.on_full))
    }
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            reporters: Vec::new(),
            interval: Duration::from_secs(10),
            queue_bytes: QUEUE_BYTES,
            exit_flush: Duration::from_secs(1),
            is_strict: config::read(&["KASTOR"]).is_strict,
            clock: None,
            sampler: Sampler::ALWAYS,
            overhead_budget: None,
            scope_read_pairs: READ_PAIRS,
        }
    }

    /// Adds a reporter. Inline reporters run in the order in which they were added; reporters that prefer batches run in
    /// the background by themselves.
    pub fn reporter(mut self, reporter: impl IntoReporter) -> Self {
        self.reporters.push(sealed::Sealed::guarded(reporter));
        self
    }

    /// How often background reporters get the aggregates; 10 s by default.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Bound on the bytes that wait for background reporters, all of them together; 16 MiB by default.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// How long the end of the process may wait for background reporters; 1 s by default, and the longest that any
    /// context asked for counts for all together.
    pub fn exit_flush(mut self, at_most: Duration) -> Self {
        self.exit_flush = at_most;
        self
    }

    /// Whether dynamic names must have the recommended form. The environment decides by default
    /// (`KASTOR_TELEMETRY_STRICT_SCOPES=1`).
    pub fn strict_names(mut self, is_strict: bool) -> Self {
        self.is_strict = is_strict;
        self
    }

    /// Which traces batch reporters are to keep; all by default.
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = sampler;
        self
    }

    /// What the scopes of one path may cost: a share of one processor, so that 0.01 is one per cent. None by default, and
    /// where the share is not a positive number.
    ///
    /// About once a second each path's calls are weighed with what a scope costs on this machine and what the background
    /// reporters took for an event. A path beyond the budget is degraded: its scopes are aggregated only (as by
    /// [`Telemetry::record_paths`]), and if recording alone is beyond it, scopes of its name are switched off (as by
    /// [`Telemetry::switch_scopes`]). [`Stats::degraded`](crate::Stats::degraded), the report and the log show it. It is
    /// undone when the path has become calm; what is off is tried again after 10 s, then ever more rarely.
    pub fn overhead_budget(mut self, share: f64) -> Self {
        self.overhead_budget = Some(share);
        self
    }

    /// Ticks by a clock that a test moves.
    pub fn clock(mut self, clock: MockClock) -> Self {
        self.clock = Some(Clock::Mock(clock));
        self
    }

    /// Ticks by the operating system's monotonic clock, as machines without a trusted counter do.
    pub fn system_clock(mut self) -> Self {
        self.clock = Some(Clock::Os);
        self
    }

    /// Builds an enabled context, whatever the environment says.
    pub fn build(self) -> Telemetry {
        let exit_flush = self.exit_flush;
        Telemetry::from_context(Context::new(self), exit_flush)
    }

    /// Builds an enabled context if the environment enables telemetry (`KASTOR_TELEMETRY=1` or `DEBUG=1`, and not
    /// `KASTOR_TELEMETRY=0`) and at least one reporter was added; otherwise the disabled one. The environment is read
    /// now.
    pub fn build_from_env(self) -> Telemetry {
        if config::read(&["KASTOR"]).is_enabled && !self.reporters.is_empty() {
            self.build()
        } else {
            Telemetry::DISABLED
        }
    }
}
