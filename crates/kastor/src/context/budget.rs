//! The overhead budget: scopes that cost the program more than it allowed are degraded, visibly, and restored later.
//!
//! Opt-in, and nothing of it is on the hot path. About once a second, at the collector's tick or in a flush, the calls of
//! every path since the last time are weighed. A call costs what opening and closing costs on this machine (two reads of
//! the clock and a quarter more), and what the background reporters' threads took for an event so far. A path beyond the
//! budget is aggregated only; if recording alone is still beyond it, the scope's name is switched off. What is
//! aggregated only comes back when it would need half of the budget at most. What is off is tried again, aggregated
//! only, after 10 s; each further time after twice as long, up to 5 minutes.

use std::collections::{BTreeMap, HashMap};

use crate::{
    clock::read_pair_ns,
    health::{Degradation, Degraded},
    name::Path,
    sync::{Mutex, MutexGuard, lock},
};

/// What a scope costs where it runs, in pairs of clock reads; `cargo xtask bench` measures less.
pub(super) const READ_PAIRS: f64 = 1.25;
/// Calls are weighed over at least so long.
const WINDOW_NS: u64 = 1_000_000_000;
/// How long a name is off at first, and at most.
const FIRST_PAUSE_NS: u64 = 10 * WINDOW_NS;
const LONGEST_PAUSE_NS: u64 = 300 * WINDOW_NS;

/// What one path's scopes may cost.
pub(super) struct Budget {
    /// The share of one processor.
    share: f64,
    /// What a scope costs where it runs, in pairs of clock reads.
    read_pairs: f64,
    state: Mutex<State>,
}

struct State {
    /// When calls were weighed last, and how many there were by then.
    weighed_ns: u64,
    calls: HashMap<Path, u64>,
    /// Paths that went beyond the budget.
    cases: BTreeMap<Path, Case>,
}

#[derive(Clone, Copy)]
struct Case {
    level: Degradation,
    load: Load,
    /// Until when its name is off, and how often it was switched off in a row.
    until_ns: u64,
    times: u32,
}

/// What a path's scopes took lately, in shares of a processor.
#[derive(Clone, Copy)]
struct Load {
    calls_per_second: f64,
    recording: f64,
    delivery: f64,
}

/// A path of which something is new, and what becomes of it; none if it is recorded again.
pub(super) type Change = (Path, Option<Degraded>);

impl Budget {
    /// None if the share is not a positive number.
    pub(super) fn new(share: f64, read_pairs: f64, now_ns: u64) -> Option<Self> {
        let state = State { weighed_ns: now_ns, calls: HashMap::new(), cases: BTreeMap::new() };
        (share > 0.0).then_some(Self { share, read_pairs, state: Mutex::new(state) })
    }

    /// Weighs all paths' calls, if it is time to. Returns what is new, after `apply` has seen it.
    pub(super) fn weigh(
        &self,
        now_ns: u64,
        delivery_ns: f64,
        each_path: impl FnOnce(&mut dyn FnMut(Path, u64)),
        apply: impl FnMut(&Change),
    ) -> Vec<Change> {
        let mut state = lock(&self.state);
        let elapsed_ns = now_ns.saturating_sub(state.weighed_ns);
        if elapsed_ns < WINDOW_NS {
            return Vec::new();
        }
        state.weighed_ns = now_ns;
        let mut calls: HashMap<Path, u64> = HashMap::new();
        each_path(&mut |path, of_shard| *calls.entry(path).or_default() += of_shard);
        let recording_ns = read_pair_ns() * self.read_pairs;
        let mut changes = Vec::new();
        for (path, total) in &calls {
            let known = state.calls.get(path).copied().unwrap_or(0);
            // In a forked child the sums began anew.
            let new = total.checked_sub(known).unwrap_or(*total) as f64 / elapsed_ns as f64;
            let load = Load { calls_per_second: new * 1e9, recording: new * recording_ns, delivery: new * delivery_ns };
            changes.extend(state.judge(*path, self.share, load, now_ns));
        }
        state.calls = calls;
        // Under the lock: what is decided later is applied later.
        changes.iter().for_each(apply);
        changes
    }

    /// What is degraded now, in the order of the texts.
    pub(super) fn degraded(&self) -> Vec<Degraded> {
        let mut all: Vec<Degraded> = lock(&self.state).cases.iter().map(|(path, case)| case.shown(*path)).collect();
        all.sort_unstable_by_key(|degraded| degraded.path);
        all
    }

    /// Holds the state still, for a fork.
    pub(super) fn hold(&self) -> MutexGuard<'_, impl Sized> {
        lock(&self.state)
    }
}

impl State {
    fn judge(&mut self, path: Path, budget: f64, load: Load, now_ns: u64) -> Option<Change> {
        let all = load.recording + load.delivery;
        let (level, load, times) = match self.cases.get(&path).copied() {
            None if all > budget => (Degradation::Aggregated, load, 0),
            // What it took before it was switched off is the last that is known.
            Some(Case { level: Degradation::Off, load, until_ns, times }) if now_ns >= until_ns => {
                (Degradation::Aggregated, load, times)
            }
            Some(Case { level: Degradation::Aggregated, times, .. }) if load.recording > budget => {
                (Degradation::Off, load, times.saturating_add(1))
            }
            Some(Case { level: Degradation::Aggregated, .. }) if all <= budget / 2.0 => {
                self.cases.remove(&path);
                return Some((path, None));
            }
            _ => return None,
        };
        let pause_ns = (FIRST_PAUSE_NS << times.saturating_sub(1).min(20)).min(LONGEST_PAUSE_NS);
        let case = Case { level, load, until_ns: now_ns.saturating_add(pause_ns), times };
        self.cases.insert(path, case);
        Some((path, Some(case.shown(path))))
    }
}

impl Case {
    fn shown(&self, path: Path) -> Degraded {
        let Load { calls_per_second, recording, delivery } = self.load;
        Degraded { path: path.text(), level: self.level, calls_per_second, share: recording + delivery }
    }
}
