//! Single scopes of a time, the slowest first, or the earliest.

use std::collections::BinaryHeap;

use kastor_export::capture::Timing;
use serde::Serialize;

use super::bits::Bits;
use super::capture::{Capture, Entry};
use super::filter::{Asked, Ready};
use super::scopes::Scopes;
use super::timeline::{Range, reference};
use crate::failure::Failure;

/// Rows of one answer.
pub(super) const MOST_ROWS: usize = 1000;

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Slowest,
    Fastest,
    Earliest,
    Latest,
}

impl Sort {
    /// As the page writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "duration" => Self::Slowest,
            "-duration" => Self::Fastest,
            "start" => Self::Earliest,
            "-start" => Self::Latest,
            _ => return None,
        })
    }

    /// What is smallest comes first.
    fn key(self, start_ns: u64, duration_ns: u64) -> u64 {
        match self {
            Self::Slowest => u64::MAX - duration_ns,
            Self::Fastest => duration_ns,
            Self::Earliest => start_ns,
            Self::Latest => u64::MAX - start_ns,
        }
    }

    /// No scope of a block has a smaller key.
    fn least(self, entry: &Entry) -> u64 {
        match self {
            Self::Slowest => self.key(0, entry.index.longest_ns),
            Self::Fastest => 0,
            Self::Earliest => self.key(entry.index.first_unix_ns, 0),
            Self::Latest => self.key(entry.index.last_unix_ns, 0),
        }
    }
}

/// The list.
#[derive(Debug, Default, Serialize)]
pub(super) struct List {
    rows: Vec<ListRow>,
    /// How many there are in all; none where only the blocks that matter were read.
    total: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListRow {
    #[serde(rename = "ref")]
    reference: String,
    path: i64,
    start_ns: u64,
    duration_ns: u64,
    lane: u32,
    level: u32,
    error_type: Option<String>,
}

/// The list of scopes that are in memory.
pub(super) fn of_scopes(
    capture: &Capture,
    scopes: &Scopes,
    range: Range,
    selection: Option<&Bits>,
    (sort, limit): (Sort, usize),
    lane_id: impl Fn(u32) -> u32,
) -> Result<List, Failure> {
    let mut total = 0;
    let mut best = Best::new(limit);
    for row in &scopes.rows {
        for place in scopes.visible(row, range.from_ns, range.to_ns) {
            if selection.is_none_or(|selection| selection.has(place)) {
                total += 1;
                best.add(sort.key(scopes.start_ns[place], scopes.duration_ns[place]), place);
            }
        }
    }
    let mut rows = Vec::new();
    for place in best.finish() {
        let row = scopes.row_of(place);
        rows.push(ListRow {
            reference: reference(scopes, place),
            path: i64::from(scopes.path[place]) - 1,
            start_ns: scopes.start_ns[place].saturating_sub(capture.start_ns),
            duration_ns: scopes.duration_ns[place],
            lane: row.map_or(0, |row| lane_id(row.lane)),
            level: row.map_or(0, |row| row.level),
            error_type: if scopes.is_failed(place) { error_type(capture, scopes, place)? } else { None },
        });
    }
    Ok(List { rows, total: Some(total) })
}

/// Why a scope failed; empty if nobody said.
fn error_type(capture: &Capture, scopes: &Scopes, place: usize) -> Result<Option<String>, Failure> {
    let Some((block, index)) = scopes.origin(place) else { return Ok(None) };
    let mut error = String::new();
    capture.for_each_block([block], |_, _, block| {
        let timing = block.timings().nth(index as usize);
        error = timing.and_then(|timing| timing.error_type().map(str::to_owned)).unwrap_or_default();
    })?;
    Ok(Some(error))
}

/// The list of scopes that have to be read for it: blocks that cannot have any of it are not read.
pub(super) fn of_blocks(
    capture: &Capture,
    range: Range,
    asked: &Asked,
    (sort, limit): (Sort, usize),
) -> Result<List, Failure> {
    let ready = Ready::new(&asked.filter, capture);
    let is_within =
        |entry: &Entry| entry.index.last_unix_ns >= range.from_ns && entry.index.first_unix_ns < range.to_ns;
    let mut blocks: Vec<(u64, u32)> = (0..)
        .zip(&capture.blocks)
        .filter(|(_, entry)| is_within(entry))
        .map(|(number, entry)| (sort.least(entry), number))
        .collect();
    blocks.sort_unstable();
    let mut rows: Vec<ListRow> = Vec::new();
    let mut best = Best::new(limit);
    for (least, block) in blocks {
        if best.is_full_below(least) {
            break;
        }
        let mut index = 0;
        capture.for_each_block([block], |number, entry, content| {
            let Some(segment) = capture.segment(entry) else { return };
            content.for_each_timing(|timing: Timing<'_>| {
                let reference = (number, index);
                index += 1;
                let (start_ns, duration_ns) = (timing.start_unix_ns(), timing.duration_ns());
                let is_failed = timing.outcome() == kastor::Outcome::Failed;
                let path = segment.numbers.find(timing.path_id());
                let key = sort.key(start_ns, duration_ns);
                let is_visible = start_ns < range.to_ns && start_ns.saturating_add(duration_ns) >= range.from_ns;
                if !is_visible
                    || best.is_full_below(key)
                    || !ready.may_want(path, entry.thread, duration_ns, is_failed)
                    || !ready.wants(&timing)
                {
                    return;
                }
                best.add(key, rows.len());
                rows.push(ListRow {
                    reference: format!("{}:{}", reference.0, reference.1),
                    path: i64::from(path) - 1,
                    start_ns: start_ns.saturating_sub(capture.start_ns),
                    duration_ns,
                    lane: entry.thread,
                    level: timing.depth(),
                    error_type: is_failed.then(|| timing.error_type().unwrap_or("").to_owned()),
                });
            });
        })?;
        if rows.len() > 8 * MOST_ROWS {
            rows = best.keep(rows);
        }
    }
    Ok(List { rows: best.keep(rows), total: None })
}

/// The smallest keys so far, each with where it belongs to.
struct Best {
    limit: usize,
    /// The largest on top.
    heap: BinaryHeap<(u64, usize)>,
}

impl Best {
    fn new(limit: usize) -> Self {
        Self { limit: limit.min(MOST_ROWS), heap: BinaryHeap::new() }
    }

    fn add(&mut self, key: u64, of: usize) {
        if self.heap.len() < self.limit {
            self.heap.push((key, of));
        } else if let Some(mut top) = self.heap.peek_mut().filter(|top| (key, of) < **top) {
            *top = (key, of);
        }
    }

    /// Whether nothing with such a key or a larger one gets in any more.
    fn is_full_below(&self, key: u64) -> bool {
        self.heap.len() >= self.limit && self.heap.peek().is_none_or(|(most, _)| *most <= key)
    }

    fn finish(self) -> Vec<usize> {
        self.heap.into_sorted_vec().into_iter().map(|(_, of)| of).collect()
    }

    /// Keeps the rows that are among the best, in order.
    fn keep(&mut self, rows: Vec<ListRow>) -> Vec<ListRow> {
        let mut rows: Vec<Option<ListRow>> = rows.into_iter().map(Some).collect();
        let sorted = std::mem::take(&mut self.heap).into_sorted_vec();
        let kept = sorted.iter().filter_map(|(_, of)| rows.get_mut(*of)?.take()).collect();
        self.heap = sorted.iter().enumerate().map(|(place, (key, _))| (*key, place)).collect();
        kept
    }
}
