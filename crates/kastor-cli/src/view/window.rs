//! Looking into captures with more scopes than are kept in memory: where it is looked closely, the blocks there are read and
//! put in order; from afar, what the index says of blocks has to do.

use std::sync::{Arc, Mutex, PoisonError};

use super::capture::{Capture, Entry};
use super::filter::Selections;
use super::load;
use super::scopes::{Lane, Raw, Scopes};
use crate::failure::Failure;

/// Records of one window.
const MOST_RECORDS: u64 = 300_000;
/// Windows that are kept: some 30 MB each at most.
const MOST_WINDOWS: usize = 3;

/// Windows that were looked into lately.
pub(super) struct Windows {
    kept: Mutex<Vec<Arc<Window>>>,
    most_records: u64,
}

/// All scopes of a time.
pub(super) struct Window {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) scopes: Scopes,
    pub(super) selections: Selections,
    /// Blocks that reach into the time from afar were left out.
    pub(super) is_truncated: bool,
}

impl Window {
    /// The ids of the lanes: a thread's own has the thread's, further ones come behind all threads.
    pub(super) fn lane_ids(&self, threads: usize) -> Vec<u32> {
        let mut next = threads as u32;
        let id = |lane: &Lane| {
            if lane.number == 0 {
                return lane.thread;
            }
            next += 1;
            next - 1
        };
        self.scopes.lanes.iter().map(id).collect()
    }
}

impl Windows {
    /// None yet, each of no more than so many records.
    pub(super) fn new(most_records: u64) -> Self {
        Self { kept: Mutex::default(), most_records: most_records.min(MOST_RECORDS) }
    }

    /// The window around a time (Unix nanoseconds); none if there is too much in it.
    pub(super) fn around(&self, capture: &Capture, from_ns: u64, to_ns: u64) -> Result<Option<Arc<Window>>, Failure> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fits = |window: &&Arc<Window>| window.from_ns <= from_ns && window.to_ns >= to_ns;
        if let Some(window) = kept.iter().rev().find(fits) {
            return Ok(Some(Arc::clone(window)));
        }
        let Some((from_ns, to_ns, blocks, is_truncated)) = choose(capture, from_ns, to_ns, self.most_records) else {
            return Ok(None);
        };
        let scopes = read(capture, &blocks)?;
        let window = Arc::new(Window { from_ns, to_ns, scopes, selections: Selections::default(), is_truncated });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_WINDOWS {
            kept.remove(0);
        }
        kept.push(Arc::clone(&window));
        Ok(Some(window))
    }
}

impl Windows {
    /// A kept window that has this block.
    pub(super) fn with(&self, block: u32) -> Option<Arc<Window>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find(|window| window.scopes.has_block(block)).cloned()
    }
}

/// The blocks of a time, which is made longer as long as there is room.
fn choose(capture: &Capture, from_ns: u64, to_ns: u64, most_records: u64) -> Option<(u64, u64, Vec<u32>, bool)> {
    let length = to_ns.saturating_sub(from_ns).max(1);
    let wider = (from_ns.saturating_sub(length), to_ns.saturating_add(length));
    for (from_ns, to_ns) in [wider, (from_ns, to_ns)] {
        let blocks = within(capture, from_ns, to_ns);
        if records(capture, &blocks) <= most_records {
            return Some((from_ns, to_ns, blocks, false));
        }
    }
    // Blocks that span a long time, for the sake of one long scope, have little of it here.
    let mut blocks = within(capture, from_ns, to_ns);
    let here: f64 = blocks
        .iter()
        .filter_map(|block| capture.blocks.get(*block as usize))
        .map(|entry| {
            let (first, last) = (entry.index.first_unix_ns, entry.index.last_unix_ns);
            let share =
                to_ns.min(last).saturating_sub(from_ns.max(first)) as f64 / last.saturating_sub(first).max(1) as f64;
            share.min(1.0) * f64::from(entry.index.records)
        })
        .sum();
    if here > most_records as f64 {
        return None;
    }
    let span = |entry: &Entry| entry.index.last_unix_ns.saturating_sub(entry.index.first_unix_ns);
    blocks.sort_by_key(|block| capture.blocks.get(*block as usize).map_or(0, span));
    let mut room = most_records;
    blocks.retain(|block| {
        let records = capture.blocks.get(*block as usize).map_or(0, |entry| u64::from(entry.index.records));
        let has_room = records <= room;
        room -= if has_room { records } else { 0 };
        has_room
    });
    blocks.sort_unstable();
    Some((from_ns, to_ns, blocks, true))
}

fn within(capture: &Capture, from_ns: u64, to_ns: u64) -> Vec<u32> {
    let is_within = |entry: &Entry| entry.index.last_unix_ns >= from_ns && entry.index.first_unix_ns < to_ns;
    (0..).zip(&capture.blocks).filter(|(_, entry)| is_within(entry)).map(|(number, _)| number).collect()
}

fn records(capture: &Capture, blocks: &[u32]) -> u64 {
    let of = |block: &u32| capture.blocks.get(*block as usize).map_or(0, |entry| u64::from(entry.index.records));
    blocks.iter().map(of).sum()
}

/// Reads blocks and puts their scopes in order.
fn read(capture: &Capture, blocks: &[u32]) -> Result<Scopes, Failure> {
    let mut raws = Vec::with_capacity(records(capture, blocks) as usize);
    let mut origins = Vec::with_capacity(blocks.len());
    capture.for_each_block(blocks.iter().copied(), |number, entry, block| {
        origins.push((raws.len() as u32, number));
        let Some(segment) = capture.segment(entry) else { return };
        block.for_each_timing(|timing| {
            // The index has Unix times: what is chosen by them is shown by them.
            let axis_ns = i128::from(timing.start_unix_ns()) - i128::from(timing.start_monotonic_ns());
            let path = segment.numbers.find(timing.path_id());
            raws.push(Raw { path, record: raws.len() as u32, thread: entry.thread, ..load::raw(&timing, axis_ns) });
        });
    })?;
    Ok(Scopes::new(raws, origins, capture.threads.len(), &capture.paths))
}
