//! What telemetry costs: the same work with it off and on, in turn, in one process.
//!
//! Compared is the CPU time of the whole process, so that work done later and elsewhere counts as well: kastor's own threads, the
//! reporter, the flush at the end. Runs alternate, and their order within a round too, so that a machine that gets slower or faster
//! meanwhile treats both alike. Of each kind the cheapest run counts, since disturbances only ever add.

use std::time::Duration;

use serde::Serialize;

/// CPU time with and without telemetry.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    /// Runs of each kind.
    pub(crate) rounds: usize,
    /// The cheapest run without telemetry.
    pub(crate) off_ns: u64,
    /// The cheapest run with it.
    pub(crate) on_ns: u64,
    /// What telemetry took of the run with it. Can come out below zero where it is less than the machine's noise.
    pub(crate) share_percent: f64,
    /// By how much a middling run without telemetry exceeds the cheapest: what this machine can resolve.
    pub(crate) noise_percent: f64,
}

impl Cost {
    /// Compares runs; none if there are none of one kind, or if the clock saw nothing.
    pub(crate) fn of(mut off: Vec<Duration>, mut on: Vec<Duration>) -> Option<Cost> {
        off.sort_unstable();
        on.sort_unstable();
        let (off_ns, on_ns) = (whole_ns(*off.first()?), whole_ns(*on.first()?));
        let middling_ns = whole_ns(off[off.len() / 2]);
        (off_ns > 0 && on_ns > 0).then(|| Cost {
            rounds: off.len().min(on.len()),
            off_ns,
            on_ns,
            share_percent: 100.0 * (on_ns as f64 - off_ns as f64) / on_ns as f64,
            noise_percent: 100.0 * (middling_ns - off_ns) as f64 / off_ns as f64,
        })
    }
}

/// The CPU time that this process has used on all its threads, where the system tells.
#[cfg(unix)]
pub(crate) fn cpu_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
}

/// The CPU time that this process has used on all its threads: not read on this system.
#[cfg(not(unix))]
pub(crate) fn cpu_time() -> Option<Duration> {
    None
}

fn whole_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_runs_are_compared() {
        let ms = |values: &[u64]| values.iter().map(|ms| Duration::from_millis(*ms)).collect();
        let cost = Cost::of(ms(&[120, 96, 99]), ms(&[150, 100, 101])).unwrap();
        assert_eq!((cost.rounds, cost.off_ns, cost.on_ns), (3, 96_000_000, 100_000_000));
        assert_eq!((cost.share_percent, cost.noise_percent), (4.0, 3.125));
        assert!(Cost::of(ms(&[1]), ms(&[])).is_none());
    }
}
