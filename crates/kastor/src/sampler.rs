//! Head sampling: which traces are recorded, decided from their root. Aggregates are exact whatever is decided here.
//!
//! A share of all traces is a function of the trace id alone, as OpenTelemetry's consistent probability sampling has it
//! (TraceState probability sampling: the lower 56 bits against a threshold). So nothing is decided or remembered while
//! the program runs, and every process that uses the same share agrees. A rate is decided when a root opens.

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Which traces are recorded; for [`Builder::sampler`](crate::Builder::sampler).
///
/// Inline reporters get every event. Batch reporters get all of them too, and those that export leave out, and count as
/// [`Sampled`](crate::DropReason::Sampled), what [`Timing::is_sampled`](crate::Timing::is_sampled) says no to. What is
/// carried elsewhere carries the decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    rule: Rule,
    ignores_parents: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Traces whose lower 56 bits are at least this.
    From(u64),
    /// Nanoseconds between two roots.
    Every(u64),
}

/// One more than the largest number of 56 bits.
const NEVER: u64 = 1 << 56;

impl Sampler {
    /// Every trace.
    pub const ALWAYS: Sampler = Sampler { rule: Rule::From(0), ignores_parents: false };
    /// No trace, but those that a parent elsewhere decided to record.
    pub const NEVER: Sampler = Sampler { rule: Rule::From(NEVER), ignores_parents: false };

    /// This share of all traces, 0 to 1; what is outside of that counts as the nearer end, and NaN as 0.
    pub fn ratio(share: f64) -> Self {
        // Exact for 0 and 1; in between the share is met to within 2^-53.
        let threshold = ((1.0 - share.clamp(0.0, 1.0)) * NEVER as f64) as u64;
        Self { rule: Rule::From(if share.is_nan() { NEVER } else { threshold }), ignores_parents: false }
    }

    /// So many traces a second on average; after a quiet time, up to one second's worth at once. Costs some more on every
    /// scope than a share does.
    pub fn per_second(traces: f64) -> Self {
        match traces > 0.0 {
            true => Self { rule: Rule::Every((1e9 / traces) as u64), ignores_parents: false },
            false => Self::NEVER,
        }
    }

    /// Decides anew under parents from elsewhere, instead of doing as they did. A rate decides for roots alone.
    pub fn ignoring_parents(self) -> Self {
        Self { ignores_parents: true, ..self }
    }

    /// Whether a scope is recorded, given what was decided when its root was opened, here or elsewhere.
    pub(crate) fn takes(&self, is_foreign: bool, was_taken: bool, trace_id: u128) -> bool {
        match self.rule {
            Rule::From(least) if !is_foreign || self.ignores_parents => trace_id as u64 % NEVER >= least,
            _ => was_taken,
        }
    }

    /// Nanoseconds between two roots, if it is for each root to ask.
    pub(crate) fn interval_ns(&self) -> Option<u64> {
        match self.rule {
            Rule::Every(interval_ns) => Some(interval_ns),
            Rule::From(_) => None,
        }
    }
}

/// How far a rate is used up: the generic cell rate algorithm (ITU-T I.371), with a second's worth of tolerance.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// When the next root would be due if all came evenly.
    due_ns: AtomicU64,
}

impl Rate {
    /// Whether a root may be recorded now.
    pub(crate) fn takes(&self, now_ns: u64, interval_ns: u64) -> bool {
        let taken = self.due_ns.fetch_update(Relaxed, Relaxed, |due| {
            let due = due.max(now_ns);
            let latest = now_ns.saturating_add(1_000_000_000_u64.saturating_sub(interval_ns));
            (due <= latest).then(|| due.saturating_add(interval_ns))
        });
        taken.is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_the_traces_with_the_largest_lower_56_bits() {
        let half = Sampler::ratio(0.5);
        assert!(half.takes(false, true, 0x80_0000_0000_0000));
        assert!(!half.takes(false, true, 0x7f_ffff_ffff_ffff));
        assert!(!half.takes(false, true, 0xff00_0000_0000_0000), "the upper bits say nothing");
        assert!(Sampler::ratio(1.0).takes(false, true, 0) && !Sampler::ratio(0.0).takes(false, true, u128::MAX));
        assert_eq!(Sampler::ratio(f64::NAN), Sampler::NEVER);
        assert_eq!(Sampler::ratio(7.0), Sampler::ALWAYS);
    }

    #[test]
    fn a_parent_elsewhere_decides_unless_it_is_ignored() {
        assert!(Sampler::NEVER.takes(true, true, 1) && !Sampler::ALWAYS.takes(true, false, 1));
        assert!(!Sampler::NEVER.ignoring_parents().takes(true, true, 1));
        assert!(Sampler::ALWAYS.ignoring_parents().takes(true, false, 1));
    }

    #[test]
    fn a_rate_allows_a_second_s_worth_at_once_and_then_its_pace() {
        let (rate, tenth) = (Rate::default(), 100_000_000);
        let start = 5_000_000_000;
        assert_eq!((0..100).filter(|_| rate.takes(start, tenth)).count(), 10);
        assert!(!rate.takes(start + tenth - 1, tenth));
        assert!(rate.takes(start + tenth, tenth) && !rate.takes(start + tenth, tenth));
        let slow = Rate::default();
        assert!(slow.takes(start, 3_000_000_000), "less than one a second still is some");
        assert!(!slow.takes(start + 2_999_999_999, 3_000_000_000) && slow.takes(start + 3_000_000_000, 3_000_000_000));
    }
}
