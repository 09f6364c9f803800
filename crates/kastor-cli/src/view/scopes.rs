//! Scopes in columns, in the order in which they are drawn: lane by lane, level by level, by time.
//!
//! A row (one level of one lane) holds boxes that do not overlap, so everything that is visible of it is found by two binary
//! searches and read from memory in one go.

use std::ops::Range;

use super::lanes;
use crate::report::Tree;

/// What is worth knowing of a scope beside its time, as bits.
pub(super) mod flag {
    pub(in super::super) const FAILED: u8 = 1;
    /// Its time is no part of its parent's.
    pub(in super::super) const DETACHED: u8 = 2;
    /// It belongs to a future.
    pub(in super::super) const TASK: u8 = 4;
    /// It was opened on another thread.
    pub(in super::super) const MOVED: u8 = 8;
    /// Its parent is elsewhere.
    pub(in super::super) const CARRIED: u8 = 16;
}

/// A scope as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    /// Ticks.
    pub(super) begin: u64,
    /// Ticks.
    pub(super) end: u64,
    pub(super) start_ns: u64,
    pub(super) duration_ns: u64,
    pub(super) span: u64,
    /// 0 for none.
    pub(super) parent: u64,
    pub(super) path: u32,
    /// Its number among all that were read.
    pub(super) record: u32,
    pub(super) thread: u32,
    pub(super) flags: u8,
}

impl Raw {
    pub(super) fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// See the module. All columns are equally long.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    pub(super) start_ns: Vec<u64>,
    pub(super) duration_ns: Vec<u64>,
    /// Time that is no child's.
    pub(super) self_ns: Vec<u64>,
    pub(super) path: Vec<u32>,
    /// Numbers of the records.
    pub(super) record: Vec<u32>,
    pub(super) flags: Vec<u8>,
    /// Ids, to find parents by.
    span: Vec<u64>,
    pub(super) lanes: Vec<Lane>,
    pub(super) rows: Vec<Row>,
    /// Scopes whose parent is on another lane: child and parent, by the child's place.
    pub(super) arrows: Vec<(u32, u32)>,
    /// Number of the first record of each block, and the block.
    origins: Vec<(u32, u32)>,
    /// Where the scope with the number of a record is, plus 1; by that number.
    places: Vec<u32>,
}

/// A lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) thread: u32,
    /// Its number in the thread; 0 is the thread's own.
    pub(super) number: u32,
    /// Its rows.
    pub(super) rows: Range<u32>,
    pub(super) scopes: u64,
    pub(super) failed: u64,
}

/// A level of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) lane: u32,
    pub(super) level: u32,
    pub(super) scopes: Range<usize>,
}

impl Scopes {
    /// Puts scopes in order. `origins` has the number of the first record of each block, and the block's place among all.
    /// Each thread has a lane even without scopes.
    pub(super) fn new(mut raws: Vec<Raw>, origins: Vec<(u32, u32)>, threads: usize, paths: &Tree) -> Self {
        // A parent begins no later than its children and closes after them.
        raws.sort_by(|one, other| {
            let key = |raw: &Raw| (raw.thread, raw.begin);
            key(one).cmp(&key(other)).then(other.end.cmp(&one.end)).then(other.record.cmp(&one.record))
        });
        let records = raws.iter().map(|raw| raw.record as usize + 1).max().unwrap_or(0);
        let mut scopes = Self { origins, ..Self::default() };
        let mut places = Vec::with_capacity(raws.len());
        let mut at = 0;
        for thread in 0..threads as u32 {
            let end = at + raws.get(at..).unwrap_or(&[]).partition_point(|raw| raw.thread <= thread);
            let of_thread = lanes::place(raws.get(at..end).unwrap_or(&[]), paths);
            scopes.add_lanes(thread, &of_thread);
            places.extend(of_thread);
            at = end;
        }
        raws.truncate(at);
        scopes.fill(&raws, &places, records);
        scopes.find_arrows(&raws);
        scopes
    }

    pub(super) fn len(&self) -> usize {
        self.start_ns.len()
    }

    /// The block that a scope is from, and its number among the scopes of that.
    pub(super) fn origin(&self, place: usize) -> Option<(u32, u32)> {
        let record = *self.record.get(place)?;
        let at = self.origins.partition_point(|(first, _)| *first <= record).checked_sub(1)?;
        let (first, block) = *self.origins.get(at)?;
        Some((block, record - first))
    }

    /// The scope with this origin.
    pub(super) fn of_origin(&self, (block, index): (u32, u32)) -> Option<usize> {
        let at = self.origins.iter().position(|(_, of)| *of == block)?;
        let (first, _) = *self.origins.get(at)?;
        let end = self.origins.get(at + 1).map_or(u32::MAX, |(next, _)| *next);
        let record = first.checked_add(index).filter(|record| *record < end)?;
        self.place_of(record)
    }

    /// The scope with this record's number.
    pub(super) fn place_of(&self, record: u32) -> Option<usize> {
        (self.places.get(record as usize).copied()? as usize).checked_sub(1)
    }

    /// The row that a scope is in.
    pub(super) fn row_of(&self, place: usize) -> Option<&Row> {
        self.rows.get(self.rows.partition_point(|row| row.scopes.end <= place))
    }

    /// The scopes of a row that reach into a time.
    pub(super) fn visible(&self, row: &Row, from_ns: u64, to_ns: u64) -> Range<usize> {
        let starts = self.start_ns.get(row.scopes.clone()).unwrap_or(&[]);
        let mut first = row.scopes.start + starts.partition_point(|start| *start < from_ns);
        let end = row.scopes.start + starts.partition_point(|start| *start < to_ns);
        if first > row.scopes.start && self.end_ns(first - 1) > from_ns {
            first -= 1;
        }
        first..end.max(first)
    }

    pub(super) fn end_ns(&self, place: usize) -> u64 {
        let start = self.start_ns.get(place).copied().unwrap_or(0);
        start.saturating_add(self.duration_ns.get(place).copied().unwrap_or(0))
    }

    pub(super) fn is_failed(&self, place: usize) -> bool {
        self.flags.get(place).is_some_and(|flags| flags & flag::FAILED != 0)
    }

    pub(super) fn span(&self, place: usize) -> u64 {
        self.span.get(place).copied().unwrap_or(0)
    }

    /// The scope with this id: a search, for single questions.
    pub(super) fn with_span(&self, id: u64) -> Option<usize> {
        self.span.iter().position(|span| *span == id)
    }

    /// Whether a block's scopes are among these.
    pub(super) fn has_block(&self, block: u32) -> bool {
        self.origins.iter().any(|(_, of)| *of == block)
    }

    fn add_lanes(&mut self, thread: u32, places: &[lanes::Place]) {
        let mut levels: Vec<Vec<usize>> = vec![Vec::new()];
        for place in places {
            let (lane, level) = (place.lane as usize, place.level as usize);
            if levels.len() <= lane {
                levels.resize_with(lane + 1, Vec::new);
            }
            let Some(levels) = levels.get_mut(lane) else { continue };
            if levels.len() <= level {
                levels.resize(level + 1, 0);
            }
            if let Some(count) = levels.get_mut(level) {
                *count += 1;
            }
        }
        let mut at = self.rows.last().map_or(0, |row| row.scopes.end);
        for (number, levels) in (0..).zip(levels) {
            let first = self.rows.len() as u32;
            let lane = self.lanes.len() as u32;
            let scopes = levels.iter().sum::<usize>() as u64;
            for (level, count) in (0..).zip(levels) {
                self.rows.push(Row { lane, level, scopes: at..at + count });
                at += count;
            }
            self.lanes.push(Lane { thread, number, rows: first..self.rows.len() as u32, scopes, failed: 0 });
        }
    }

    fn fill(&mut self, raws: &[Raw], places: &[lanes::Place], records: usize) {
        let len = raws.len();
        self.start_ns = vec![0; len];
        self.duration_ns = vec![0; len];
        self.self_ns = vec![0; len];
        self.path = vec![0; len];
        self.record = vec![0; len];
        self.flags = vec![0; len];
        self.span = vec![0; len];
        self.places = vec![0; records];
        // Where the next scope of each row goes.
        let mut next: Vec<usize> = self.rows.iter().map(|row| row.scopes.start).collect();
        let mut lane_of_thread = 0;
        let mut thread = 0;
        for (raw, place) in raws.iter().zip(places) {
            if raw.thread != thread {
                thread = raw.thread;
                lane_of_thread = self.lanes.partition_point(|lane| lane.thread < thread);
            }
            let Some(lane) = self.lanes.get_mut(lane_of_thread + place.lane as usize) else { continue };
            lane.failed += u64::from(raw.has(flag::FAILED));
            let row = lane.rows.start as usize + place.level as usize;
            let Some(at) = next.get_mut(row) else { continue };
            let to = *at;
            *at += 1;
            let is_first = self.rows.get(row).is_none_or(|row| row.scopes.start == to);
            let before = if is_first { 0 } else { self.start_ns.get(to.wrapping_sub(1)).copied().unwrap_or(0) };
            // Lines may disagree about a tick by nanoseconds; a row is in order all the same.
            set(&mut self.start_ns, to, raw.start_ns.max(before));
            set(&mut self.duration_ns, to, raw.duration_ns);
            set(&mut self.self_ns, to, place.self_ns);
            set(&mut self.path, to, raw.path);
            set(&mut self.record, to, raw.record);
            set(&mut self.flags, to, raw.flags);
            set(&mut self.span, to, raw.span);
            set(&mut self.places, raw.record as usize, to as u32 + 1);
        }
    }

    fn find_arrows(&mut self, raws: &[Raw]) {
        let carried = raws.iter().filter(|raw| raw.parent != 0 && raw.has(flag::CARRIED));
        let mut wanted: Vec<(u64, u32)> =
            carried.filter_map(|raw| Some((raw.parent, self.place_of(raw.record)? as u32))).collect();
        if wanted.is_empty() {
            return;
        }
        wanted.sort_unstable();
        for (parent, id) in (0..).zip(&self.span) {
            let from = wanted.partition_point(|(wanted, _)| wanted < id);
            let children = wanted.get(from..).unwrap_or(&[]).iter().take_while(|(wanted, _)| wanted == id);
            self.arrows.extend(children.map(|(_, child)| (*child, parent)));
        }
        self.arrows.sort_unstable();
    }
}

fn set<T>(column: &mut [T], at: usize, value: T) {
    if let Some(place) = column.get_mut(at) {
        *place = value;
    }
}
