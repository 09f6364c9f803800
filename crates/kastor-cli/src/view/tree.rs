//! The call tree: per path how often, how long, how it is spread.
//!
//! Without a filter the figures are those of the sums in the capture wherever these know of more calls than records are
//! there (records can be dropped, sums never are); else they are added up from the records.

use std::collections::HashMap;

use kastor::Histogram;
use kastor_export::capture::Timing;
use serde::Serialize;

use super::bits::Bits;
use super::capture::{Capture, Content};
use super::filter::{self, Filter, Ready};
use super::scopes::Scopes;
use crate::failure::Failure;

/// Scopes whose children were met and which themselves were not yet; more are open in no program at once.
const MOST_OPEN: usize = 1 << 20;

/// The tree in columns; a path that never occurred is left out.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallTree {
    pub(super) path: Vec<u32>,
    pub(super) calls: Vec<u64>,
    pub(super) errors: Vec<u64>,
    pub(super) total_ns: Vec<u64>,
    pub(super) self_ns: Vec<u64>,
    pub(super) min_ns: Vec<u64>,
    pub(super) max_ns: Vec<u64>,
    pub(super) p50_ns: Vec<u64>,
    pub(super) p95_ns: Vec<u64>,
    pub(super) p99_ns: Vec<u64>,
    /// Whether everything that closed is in it.
    pub(super) exact: bool,
}

/// Figures of one path.
#[derive(Clone, Debug, Default)]
struct Totals {
    calls: u64,
    errors: u64,
    total_ns: u64,
    self_ns: u64,
    durations_ns: Histogram,
}

impl Totals {
    #[inline]
    fn add(&mut self, duration_ns: u64, self_ns: u64, is_failed: bool) {
        self.calls += 1;
        self.errors += u64::from(is_failed);
        self.total_ns = self.total_ns.saturating_add(duration_ns);
        self.self_ns = self.self_ns.saturating_add(self_ns);
        self.durations_ns.record(duration_ns as f64);
    }

    fn merge(&mut self, other: &Totals) {
        self.calls = self.calls.saturating_add(other.calls);
        self.errors = self.errors.saturating_add(other.errors);
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.self_ns = self.self_ns.saturating_add(other.self_ns);
        self.durations_ns.merge(&other.durations_ns);
    }
}

/// The tree of what a filter wants.
pub(super) fn call_tree(capture: &Capture, filter: &Filter, selection: Option<&Bits>) -> Result<CallTree, Failure> {
    let mut by_process: HashMap<u32, Vec<Totals>> = HashMap::new();
    let is_whole = filter.is_empty();
    match &capture.content {
        Content::Scopes(scopes) => add_scopes(&mut by_process, capture, scopes, selection),
        Content::Windows(_) if is_whole && !capture.sums.scopes.is_empty() => {}
        Content::Windows(_) => add_records(&mut by_process, capture, filter)?,
    }
    let mut exact = true;
    if is_whole {
        let is_newer = capture.sums.until_ns >= capture.end_ns;
        exact = filter::is_in_memory(capture) || capture.sums.scopes.is_empty() || is_newer;
        prefer_sums(&mut by_process, capture);
    }
    let mut all = vec![Totals::default(); capture.paths.len()];
    for totals in by_process.values() {
        for (all, totals) in all.iter_mut().zip(totals) {
            if totals.calls > 0 {
                all.merge(totals);
            }
        }
    }
    let mut tree = CallTree { exact, ..CallTree::default() };
    for (path, totals) in (0..).zip(&all).skip(1).filter(|(_, totals)| totals.calls > 0) {
        tree.push(path - 1, totals);
    }
    Ok(tree)
}

impl CallTree {
    fn push(&mut self, path: u32, totals: &Totals) {
        let durations = &totals.durations_ns;
        let quantile = |q| durations.quantile(q).unwrap_or(0.0) as u64;
        self.path.push(path);
        self.calls.push(totals.calls);
        self.errors.push(totals.errors);
        self.total_ns.push(totals.total_ns);
        self.self_ns.push(totals.self_ns);
        self.min_ns.push(durations.min().unwrap_or(0.0) as u64);
        self.max_ns.push(durations.max().unwrap_or(0.0) as u64);
        self.p50_ns.push(quantile(0.50));
        self.p95_ns.push(quantile(0.95));
        self.p99_ns.push(quantile(0.99));
    }
}

fn of(totals: &mut Vec<Totals>, path: u32) -> Option<&mut Totals> {
    if totals.len() <= path as usize {
        totals.resize_with(path as usize + 1, Totals::default);
    }
    totals.get_mut(path as usize)
}

fn add_scopes(
    by_process: &mut HashMap<u32, Vec<Totals>>,
    capture: &Capture,
    scopes: &Scopes,
    selection: Option<&Bits>,
) {
    for lane in &scopes.lanes {
        let process = capture.threads.get(lane.thread as usize).map_or(0, |thread| thread.process);
        let totals = by_process.entry(process).or_default();
        for row in lane.rows.clone().filter_map(|row| scopes.rows.get(row as usize)) {
            for place in row.scopes.clone() {
                if selection.is_some_and(|selection| !selection.has(place)) {
                    continue;
                }
                if let Some(totals) = of(totals, scopes.path[place]) {
                    totals.add(scopes.duration_ns[place], scopes.self_ns[place], scopes.is_failed(place));
                }
            }
        }
    }
}

/// Reads everything once: a child's record comes before its parent's.
fn add_records(by_process: &mut HashMap<u32, Vec<Totals>>, capture: &Capture, filter: &Filter) -> Result<(), Failure> {
    let ready = Ready::new(filter, capture);
    let mut inside: HashMap<u64, u64> = HashMap::new();
    capture.for_each_block(0..capture.blocks.len() as u32, |_, entry, block| {
        let Some(segment) = capture.segment(entry) else { return };
        let totals = by_process.entry(segment.process).or_default();
        block.for_each_timing(|timing: Timing<'_>| {
            let duration_ns = timing.duration_ns();
            let own_ns = duration_ns.saturating_sub(inside.remove(&timing.span_id()).unwrap_or(0));
            if let Some(parent) = timing.parent_span_id().filter(|_| !timing.is_detached()) {
                if inside.len() >= MOST_OPEN {
                    inside.clear();
                }
                let within = inside.entry(parent).or_default();
                *within = within.saturating_add(duration_ns);
            }
            let path = segment.numbers.find(timing.path_id());
            let is_failed = timing.outcome() == kastor::Outcome::Failed;
            let is_wanted = ready.may_want(path, entry.thread, duration_ns, is_failed) && ready.wants(&timing);
            if let Some(totals) = of(totals, path).filter(|_| is_wanted) {
                totals.add(duration_ns, own_ns, is_failed);
            }
        });
    })
}

/// Takes the sums of a process for a path where they know of more calls.
fn prefer_sums(by_process: &mut HashMap<u32, Vec<Totals>>, capture: &Capture) {
    if capture.sums.scopes.is_empty() {
        return;
    }
    let places: HashMap<String, u32> =
        (1..capture.paths.len() as u32).map(|place| (capture.paths.text(place), place)).collect();
    for ((process, path), sums) in &capture.sums.scopes {
        let Some(place) = places.get(&**path) else { continue };
        let totals = by_process.entry(*process).or_default();
        if let Some(totals) = of(totals, *place).filter(|totals| totals.calls < sums.calls) {
            *totals = Totals {
                calls: sums.calls,
                errors: sums.errors,
                total_ns: sums.total_ns,
                self_ns: sums.self_ns,
                durations_ns: sums.durations_ns.clone(),
            };
        }
    }
}
