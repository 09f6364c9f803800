//! What of the timeline is seen at once, with as much detail as there are pixels.
//!
//! A scope that is wider than a pixel is a box. Narrower ones that begin within the same pixel of a row become one, which
//! says how many they are, how many of them failed, and where most of their time went. So an answer has two boxes a pixel
//! and row at the most, whatever the capture holds.

use serde::Serialize;

use super::bits::Bits;
use super::capture::{Capture, Entry};
use super::scopes::{Row, Scopes};

/// Boxes of one answer. Beyond, deeper rows are left out.
const MOST_BOXES: usize = 120_000;
/// Arrows of one answer.
const MOST_ARROWS: usize = 500;
/// Arrows that are looked at for one answer.
const MOST_ARROWS_ASKED: usize = 200_000;
/// Pixels that anyone can have.
const MOST_PIXELS: u32 = 20_000;

/// The visible part of a timeline. Times are nanoseconds since the capture's start.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Timeline {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) lanes: Vec<LaneBoxes>,
    pub(super) arrows: Vec<Arrow>,
    /// Only the index was looked at: boxes are blocks.
    pub(super) is_density: bool,
    /// Something that is there is not shown.
    pub(super) truncated: bool,
}

/// The boxes of a lane, in columns, by level and time.
#[derive(Debug, Default, Serialize)]
pub(super) struct LaneBoxes {
    pub(super) id: u32,
    pub(super) start: Vec<u64>,
    pub(super) duration: Vec<u64>,
    pub(super) level: Vec<u32>,
    /// -1: unknown.
    pub(super) path: Vec<i64>,
    pub(super) count: Vec<u64>,
    pub(super) failed: Vec<u64>,
    /// Of a single scope `block:index`; else empty.
    #[serde(rename = "ref")]
    pub(super) reference: Vec<String>,
}

/// From a scope to one that was begun for it elsewhere.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Arrow {
    from_lane: u32,
    from_level: u32,
    from_ns: u64,
    to_lane: u32,
    to_level: u32,
    to_ns: u64,
}

/// What is asked for: Unix nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) pixels: u32,
}

impl Range {
    /// Nanoseconds of a pixel.
    pub(super) fn pixel_ns(&self) -> u64 {
        let pixels = u64::from(self.pixels.clamp(1, MOST_PIXELS));
        self.to_ns.saturating_sub(self.from_ns).div_ceil(pixels).max(1)
    }
}

/// The boxes of a time.
pub(super) fn boxes(
    scopes: &Scopes,
    range: Range,
    zero_ns: u64,
    selection: Option<&Bits>,
    lane_id: impl Fn(u32) -> u32,
) -> Timeline {
    let mut timeline = Timeline {
        from: range.from_ns.saturating_sub(zero_ns),
        to: range.to_ns.saturating_sub(zero_ns),
        ..Timeline::default()
    };
    let levels = scopes.lanes.iter().map(|lane| lane.rows.len()).max().unwrap_or(0) as u32;
    let mut lanes: Vec<LaneBoxes> =
        (0..).zip(&scopes.lanes).map(|(number, _)| LaneBoxes { id: lane_id(number), ..LaneBoxes::default() }).collect();
    let mut merging = Merging::new(scopes, range.pixel_ns(), zero_ns);
    let mut boxes = 0;
    // Upper levels first, on all lanes: what is left out is what is deepest.
    for level in 0..levels {
        if boxes > MOST_BOXES {
            timeline.truncated = true;
            break;
        }
        for (lane, to) in scopes.lanes.iter().zip(&mut lanes) {
            if level >= lane.rows.len() as u32 {
                continue;
            }
            let Some(row) = scopes.rows.get((lane.rows.start + level) as usize) else { continue };
            let before = to.start.len();
            merging.row(row, range, selection, to);
            boxes += to.start.len() - before;
        }
    }
    lanes.retain(|lane| !lane.start.is_empty());
    timeline.lanes = lanes;
    timeline.arrows = arrows(scopes, range, zero_ns, selection, lane_id);
    timeline
}

/// Makes boxes of a row.
struct Merging<'s> {
    scopes: &'s Scopes,
    pixel_ns: u64,
    zero_ns: u64,
    /// Time in each path of the run.
    time_ns: Vec<u64>,
    paths: Vec<u32>,
    run: Option<Run>,
}

/// Narrow scopes of one pixel.
#[derive(Clone, Copy)]
struct Run {
    pixel: u64,
    start_ns: u64,
    end_ns: u64,
    count: u64,
    failed: u64,
    first: usize,
}

impl<'s> Merging<'s> {
    fn new(scopes: &'s Scopes, pixel_ns: u64, zero_ns: u64) -> Self {
        let paths = scopes.path.iter().max().map_or(0, |most| *most as usize + 1);
        Self { scopes, pixel_ns, zero_ns, time_ns: vec![0; paths], paths: Vec::new(), run: None }
    }

    fn row(&mut self, row: &Row, range: Range, selection: Option<&Bits>, to: &mut LaneBoxes) {
        for place in self.scopes.visible(row, range.from_ns, range.to_ns) {
            if selection.is_some_and(|selection| !selection.has(place)) {
                continue;
            }
            let (start_ns, end_ns) = (self.scopes.start_ns[place], self.scopes.end_ns(place));
            if end_ns - start_ns >= self.pixel_ns {
                self.flush(row.level, to);
                let run = Run {
                    pixel: 0,
                    start_ns,
                    end_ns,
                    count: 1,
                    failed: u64::from(self.scopes.is_failed(place)),
                    first: place,
                };
                self.push(&run, self.scopes.path[place], row.level, to);
                continue;
            }
            let pixel = start_ns.saturating_sub(self.zero_ns) / self.pixel_ns;
            if self.run.is_some_and(|run| run.pixel != pixel) {
                self.flush(row.level, to);
            }
            let run = self.run.get_or_insert(Run { pixel, start_ns, end_ns, count: 0, failed: 0, first: place });
            run.end_ns = run.end_ns.max(end_ns);
            run.count += 1;
            run.failed += u64::from(self.scopes.is_failed(place));
            let path = self.scopes.path[place];
            let time_ns = &mut self.time_ns[path as usize];
            if *time_ns == 0 {
                self.paths.push(path);
            }
            // One of no length counts too.
            *time_ns += end_ns - start_ns + 1;
        }
        self.flush(row.level, to);
    }

    fn flush(&mut self, level: u32, to: &mut LaneBoxes) {
        let Some(run) = self.run.take() else { return };
        let mut most = (0, 0);
        for path in self.paths.drain(..) {
            let time_ns = std::mem::take(&mut self.time_ns[path as usize]);
            if time_ns > most.0 {
                most = (time_ns, path);
            }
        }
        self.push(&run, most.1, level, to);
    }

    fn push(&self, run: &Run, path: u32, level: u32, to: &mut LaneBoxes) {
        to.start.push(run.start_ns.saturating_sub(self.zero_ns));
        to.duration.push(run.end_ns - run.start_ns);
        to.level.push(level);
        to.path.push(i64::from(path) - 1);
        to.count.push(run.count);
        to.failed.push(run.failed);
        to.reference.push(if run.count == 1 { reference(self.scopes, run.first) } else { String::new() });
    }
}

/// The name by which a scope is asked for again.
pub(super) fn reference(scopes: &Scopes, place: usize) -> String {
    scopes.origin(place).map_or_else(String::new, |(block, index)| format!("{block}:{index}"))
}

fn arrows(
    scopes: &Scopes,
    range: Range,
    zero_ns: u64,
    selection: Option<&Bits>,
    lane_id: impl Fn(u32) -> u32,
) -> Vec<Arrow> {
    let is_selected = |place: usize| selection.is_none_or(|selection| selection.has(place));
    let step = scopes.arrows.len() / MOST_ARROWS_ASKED + 1;
    let pairs = scopes.arrows.iter().step_by(step).map(|(child, parent)| (*child as usize, *parent as usize));
    let seen: Vec<_> = pairs
        .filter(|(child, parent)| {
            let is_inside = (range.from_ns..range.to_ns).contains(&scopes.start_ns[*child]);
            is_inside && is_selected(*child) && is_selected(*parent)
        })
        .filter_map(|(child, parent)| Some((child, parent, scopes.row_of(parent)?, scopes.row_of(child)?)))
        .filter(|(_, _, from, to)| from.lane != to.lane)
        .collect();
    // They are in the order of lanes: where there are too many, those that are left out are so evenly.
    let arrow = |(child, parent, from, to): &(usize, usize, &Row, &Row)| {
        let to_ns = scopes.start_ns[*child];
        Arrow {
            from_lane: lane_id(from.lane),
            from_level: from.level,
            from_ns: to_ns.clamp(scopes.start_ns[*parent], scopes.end_ns(*parent)).saturating_sub(zero_ns),
            to_lane: lane_id(to.lane),
            to_level: to.level,
            to_ns: to_ns.saturating_sub(zero_ns),
        }
    };
    seen.iter().step_by(seen.len().div_ceil(MOST_ARROWS).max(1)).map(arrow).collect()
}

/// What the index alone tells: blocks as boxes, one lane a thread.
pub(super) fn density(capture: &Capture, range: Range) -> Timeline {
    let zero_ns = capture.start_ns;
    let mut timeline = Timeline {
        from: range.from_ns.saturating_sub(zero_ns),
        to: range.to_ns.saturating_sub(zero_ns),
        is_density: true,
        lanes: (0..).zip(&capture.threads).map(|(id, _)| LaneBoxes { id, ..LaneBoxes::default() }).collect(),
        ..Timeline::default()
    };
    let mut blocks: Vec<&Entry> = capture
        .blocks
        .iter()
        .filter(|entry| entry.index.last_unix_ns >= range.from_ns && entry.index.first_unix_ns < range.to_ns)
        .collect();
    blocks.sort_unstable_by_key(|entry| entry.index.first_unix_ns);
    let pixel_ns = range.pixel_ns();
    for entry in blocks {
        let Some(lane) = timeline.lanes.get_mut(entry.thread as usize) else { continue };
        let start = entry.index.first_unix_ns.saturating_sub(zero_ns);
        let end = entry.index.last_unix_ns.saturating_sub(zero_ns).max(start);
        let (count, failed) = (u64::from(entry.index.records), u64::from(entry.index.failures));
        // Blocks that begin within a pixel of each other are one.
        let is_near = lane.start.last().is_some_and(|before| start / pixel_ns == before / pixel_ns);
        if let (true, Some(before), Some(duration), Some(counted), Some(counted_failed)) =
            (is_near, lane.start.last(), lane.duration.last_mut(), lane.count.last_mut(), lane.failed.last_mut())
        {
            *duration = (*duration).max(end - before);
            *counted += count;
            *counted_failed += failed;
            continue;
        }
        lane.start.push(start);
        lane.duration.push(end - start);
        lane.level.push(0);
        lane.path.push(-1);
        lane.count.push(count);
        lane.failed.push(failed);
        lane.reference.push(String::new());
    }
    timeline.lanes.retain(|lane| !lane.start.is_empty());
    timeline
}
