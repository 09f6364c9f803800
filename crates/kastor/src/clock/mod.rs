//! Raw ticks on the hot path, time later.
//!
//! A scope reads ticks only: the time-stamp counter where the kernel itself trusts it, else the monotonic clock in
//! nanoseconds. An [`Anchor`] pairs a tick with monotonic and wall time; two of them turn ticks into nanoseconds
//! ([`Timeline`]). Anchors are taken when a context is built and whenever the newest is stale, never by spinning and never before
//! `main`. Durations therefore come from the monotonic clock alone: wall-clock jumps cannot bend them.

mod mock;
mod os;
mod tsc;

use std::{sync::OnceLock, time::Duration};

pub use self::mock::MockClock;
pub(crate) use self::tsc::raw_ticks;
use crate::{
    getters::getters,
    sync::{AtomicU8, Mutex, Ordering::Relaxed, lock},
};

/// Where a context's ticks come from.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The processor's counter.
    Counter,
    /// The operating system's monotonic clock, one tick a nanosecond.
    Os,
    /// Time that a test moves by hand, one tick a nanosecond.
    Mock(MockClock),
}

impl Clock {
    /// The counter if the kernel uses it as its own clocksource, else the monotonic clock. Read once per process.
    pub(crate) fn system() -> Self {
        static CHOICE: AtomicU8 = AtomicU8::new(0);
        if CHOICE.load(Relaxed) == 0 {
            CHOICE.store(if tsc::is_trusted() { 1 } else { 2 }, Relaxed);
        }
        if CHOICE.load(Relaxed) == 1 { Clock::Counter } else { Clock::Os }
    }

    pub(crate) fn ticks(&self) -> u64 {
        match self {
            Clock::Counter => raw_ticks(),
            Clock::Os => os::monotonic_ns(),
            Clock::Mock(mock) => mock.monotonic_ns(),
        }
    }

    pub(crate) fn is_counter(&self) -> bool {
        matches!(self, Clock::Counter)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Clock::Counter => tsc::NAME,
            Clock::Os => "monotonic clock of the operating system",
            Clock::Mock(_) => "mock",
        }
    }

    /// A tick with the two times of the same moment: the tightest of several bracketed reads.
    pub(crate) fn anchor(&self) -> Anchor {
        match self {
            Clock::Mock(mock) => {
                let (monotonic_ns, unix_ns) = mock.times();
                Anchor { ticks: monotonic_ns, monotonic_ns, unix_ns }
            }
            Clock::Os => bracketed(os::monotonic_ns),
            Clock::Counter => bracketed(raw_ticks),
        }
    }
}

fn bracketed(ticks: impl Fn() -> u64) -> Anchor {
    let (ticks, monotonic_ns) = tightest(4, ticks, os::monotonic_ns);
    let (middle_ns, unix_ns) = tightest(3, os::monotonic_ns, os::unix_ns);
    let unix_ns = i128::from(unix_ns) + i128::from(monotonic_ns) - i128::from(middle_ns);
    Anchor { ticks, monotonic_ns, unix_ns: u64::try_from(unix_ns).unwrap_or(0) }
}

/// The same moment on two clocks: the middle of a bracket, and what was read within it. A few attempts are enough to
/// dodge an interrupt; the width of the tightest bracket bounds the error of the pair.
fn tightest(attempts: u32, bracket: impl Fn() -> u64, within: impl Fn() -> u64) -> (u64, u64) {
    let mut best = (u64::MAX, (0, 0));
    for _ in 0..attempts {
        let (before, read, after) = (bracket(), within(), bracket());
        let width = after.wrapping_sub(before);
        if width < best.0 {
            best = (width, (before.wrapping_add(width / 2), read));
        }
    }
    best.1
}

/// One moment on three scales: raw ticks, monotonic nanoseconds, Unix nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Raw ticks of the context's clock.
    pub ticks: u64,
    /// Nanoseconds of the monotonic clock.
    pub monotonic_ns: u64,
    /// Nanoseconds since 1970-01-01 UTC.
    pub unix_ns: u64,
}

getters! {
    /// A straight line through two anchors: what a tick means in time.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Timeline {
        /// The newest anchor, which fixes where the line lies.
        anchor: Anchor,
        /// Nanoseconds in one tick.
        ns_per_tick: f64,
    }
}

impl Timeline {
    /// Where nothing is known.
    pub(crate) const ZERO: Timeline =
        Timeline { anchor: Anchor { ticks: 0, monotonic_ns: 0, unix_ns: 0 }, ns_per_tick: 1.0 };

    /// The line through `anchor` with the given slope.
    pub fn new(anchor: Anchor, ns_per_tick: f64) -> Self {
        Self { anchor, ns_per_tick }
    }

    /// A number of ticks as nanoseconds.
    pub fn duration_ns(&self, ticks: u64) -> u64 {
        if self.ns_per_tick == 1.0 { ticks } else { rounded(ticks as f64 * self.ns_per_tick) }
    }

    /// The monotonic time of a tick, in nanoseconds.
    pub fn monotonic_ns(&self, ticks: u64) -> u64 {
        self.shift(self.anchor.monotonic_ns, ticks)
    }

    /// The wall-clock time of a tick, in nanoseconds since 1970.
    pub fn unix_ns(&self, ticks: u64) -> u64 {
        self.shift(self.anchor.unix_ns, ticks)
    }

    fn shift(&self, origin: u64, ticks: u64) -> u64 {
        let anchor = self.anchor.ticks;
        if ticks >= anchor {
            origin.saturating_add(self.duration_ns(ticks - anchor))
        } else {
            origin.saturating_sub(self.duration_ns(anchor - ticks))
        }
    }
}

/// `ns.round()` for a number that is not negative, without the call that it takes where the processor's instruction for it
/// may not be used.
#[inline]
fn rounded(ns: f64) -> u64 {
    let below = ns as u64;
    below.saturating_add(u64::from(ns - below as f64 >= 0.5))
}

/// The anchors of one context.
#[derive(Debug)]
pub(crate) struct Anchors {
    clock: Clock,
    state: Mutex<Baseline>,
}

/// Between which anchors the slope was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Baseline {
    first: Anchor,
    newest: Anchor,
    ns_per_tick: f64,
    /// How often counter and monotonic clock parted.
    gaps: u64,
}

impl Baseline {
    /// Goes on to a newer anchor. The slope is measured over the longest baseline there is; where the counter and the
    /// monotonic clock have parted, as over a suspension of the machine, a new one begins.
    fn follow(self, newest: Anchor) -> Self {
        let elapsed_ns = |since: Anchor| newest.monotonic_ns.saturating_sub(since.monotonic_ns);
        let (ticks, since_newest) = (newest.ticks.wrapping_sub(self.first.ticks), elapsed_ns(self.newest));
        // As an unsigned number a counter that went back is far ahead.
        let expected = newest.ticks.wrapping_sub(self.newest.ticks) as f64 * self.ns_per_tick;
        let is_trusted = self.newest.monotonic_ns.saturating_sub(self.first.monotonic_ns) >= SHORT_BASELINE_NS;
        let difference = (expected - since_newest as f64).abs();
        if is_trusted && difference > PARTED_NS + since_newest as f64 * PARTED_SHARE {
            return Self { first: newest, newest, gaps: self.gaps + 1, ..self };
        }
        let elapsed = elapsed_ns(self.first);
        let ns_per_tick = if elapsed > 0 && ticks > 0 { elapsed as f64 / ticks as f64 } else { self.ns_per_tick };
        Self { newest, ns_per_tick, ..self }
    }
}

/// Inline delivery is content with a line this fresh.
const FRESH: Duration = Duration::from_secs(1);
/// Below this distance between the anchors the slope is measured again, and not relied on.
const SHORT_BASELINE_NS: u64 = 100_000_000;
/// Counter and monotonic clock have parted if they differ by more than this, and this share of the time between two
/// anchors: far more than the first guess of the slope is wrong by, or NTP slews.
const PARTED_NS: f64 = 10e6;
const PARTED_SHARE: f64 = 0.01;

impl Anchors {
    pub(crate) fn new(clock: Clock) -> Self {
        let first = clock.anchor();
        let ns_per_tick = if clock.is_counter() { *SLOPE.get_or_init(|| measured_slope(first)) } else { 1.0 };
        Self { clock, state: Mutex::new(Baseline { first, newest: first, ns_per_tick, gaps: 0 }) }
    }

    /// Holds the anchors still, for a fork.
    pub(crate) fn hold(&self) -> std::sync::MutexGuard<'_, impl Sized> {
        lock(&self.state)
    }

    /// Takes a new anchor.
    pub(crate) fn renew(&self) -> Timeline {
        let newest = self.clock.anchor();
        let mut state = lock(&self.state);
        *state = if self.clock.is_counter() { state.follow(newest) } else { Baseline { newest, ..*state } };
        Timeline::new(newest, state.ns_per_tick)
    }

    /// How often the counter and the monotonic clock parted.
    pub(crate) fn gaps(&self) -> u64 {
        lock(&self.state).gaps
    }

    /// The current line; renewed first if it is stale or rests on a short baseline.
    pub(crate) fn fresh(&self, now_ticks: u64) -> Timeline {
        let Baseline { first, newest, ns_per_tick, .. } = *lock(&self.state);
        let line = Timeline::new(newest, ns_per_tick);
        let age = line.duration_ns(now_ticks.saturating_sub(newest.ticks));
        let baseline = newest.monotonic_ns.saturating_sub(first.monotonic_ns);
        if u128::from(age) > FRESH.as_nanos() || baseline < SHORT_BASELINE_NS {
            return self.renew();
        }
        line
    }

    /// The current line, fresh enough for now.
    pub(crate) fn fresh_now(&self) -> Timeline {
        self.fresh(self.clock.ticks())
    }

    /// The current line as it stands.
    pub(crate) fn current(&self) -> Timeline {
        let Baseline { newest, ns_per_tick, .. } = *lock(&self.state);
        Timeline::new(newest, ns_per_tick)
    }
}

/// The first context's slope helps the next ones start; each context refines its own.
static SLOPE: OnceLock<f64> = OnceLock::new();

/// A first guess from two anchors taken back to back, good to about a per mille; replaced at the first renewal.
fn measured_slope(first: Anchor) -> f64 {
    let second = Clock::Counter.anchor();
    let ticks = second.ticks.wrapping_sub(first.ticks);
    let elapsed = second.monotonic_ns.saturating_sub(first.monotonic_ns);
    if ticks == 0 || elapsed == 0 { 1.0 } else { elapsed as f64 / ticks as f64 }
}

/// The clock that contexts use on this machine, in words.
pub fn clock_source() -> &'static str {
    Clock::system().name()
}

/// Monotonic nanoseconds now; for deadlines and pauses, not for events.
pub(crate) fn now_ns() -> u64 {
    os::monotonic_ns()
}

/// Nanoseconds that the calling thread has had a processor.
pub(crate) fn thread_ns() -> u64 {
    os::thread_ns()
}

/// What two reads of this machine's clock cost, measured once: the cheapest of some rounds.
pub(crate) fn read_pair_ns() -> f64 {
    static MEASURED: OnceLock<f64> = OnceLock::new();
    const PAIRS: u32 = 64;
    *MEASURED.get_or_init(|| {
        let clock = Clock::system();
        let round = |_| {
            let before = now_ns();
            (0..PAIRS * 2).for_each(|_| _ = std::hint::black_box(clock.ticks()));
            now_ns().saturating_sub(before)
        };
        (0..8).map(round).min().map_or(0.0, |ns| ns.max(1) as f64 / f64::from(PAIRS))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ticks: u64, monotonic_ns: u64) -> Anchor {
        Anchor { ticks, monotonic_ns, unix_ns: monotonic_ns }
    }

    /// Two ticks a nanosecond.
    fn baseline() -> Baseline {
        let first = at(1_000 * MS, 5_000 * MS);
        Baseline { first, newest: first, ns_per_tick: 0.5, gaps: 0 }
    }

    #[test]
    fn nanoseconds_are_rounded_half_up() {
        let edges = [0.0, 0.49999999999999994, 0.5, 1.5, 2.4999999999999996, 2.5, 1e9 + 0.5, 4503599627370495.5];
        let large = [4503599627370497.0, 9007199254740993.0, 1.7976931348623157e308, f64::NAN];
        for ns in edges.into_iter().chain(large) {
            assert_eq!(rounded(ns), ns.round() as u64, "{ns}");
        }
    }

    #[test]
    fn the_slope_is_measured_over_the_longest_baseline() {
        let line = baseline().follow(at(1_200 * MS, 5_100 * MS)).follow(at(3_000 * MS, 6_001 * MS));
        assert_eq!((line.ns_per_tick, line.gaps), (1_001.0 / 2_000.0, 0));
    }

    #[test]
    fn a_counter_that_ran_on_while_the_clock_stood_still_begins_a_new_baseline() {
        let before = baseline().follow(at(1_200 * MS, 5_100 * MS));
        let asleep = at(9_201_200 * MS, 5_101 * MS);
        let line = before.follow(asleep);
        assert_eq!(line, Baseline { first: asleep, newest: asleep, ns_per_tick: 0.5, gaps: 1 });
        assert_eq!(line.follow(at(9_201_600 * MS, 5_301 * MS)).ns_per_tick, 0.5);
    }

    #[test]
    fn a_first_guess_that_is_wrong_is_mended() {
        let line = Baseline { ns_per_tick: 3.0, ..baseline() }.follow(at(1_200 * MS, 5_100 * MS));
        assert_eq!((line.ns_per_tick, line.gaps), (0.5, 0));
    }

    #[test]
    fn a_counter_that_began_anew_begins_a_new_baseline() {
        let line = baseline().follow(at(1_200 * MS, 5_100 * MS)).follow(at(2 * MS, 5_200 * MS));
        assert_eq!((line.first.ticks, line.ns_per_tick, line.gaps), (2 * MS, 0.5, 1));
    }
}
