//! What the page asks first: what there is, when, on which lanes; and what the numbers of paths stand for.

use serde::Serialize;

use super::capture::{Capture, Content};
use super::scopes::Lane;

/// Bytes of names in one answer. Beyond, names are cut to nothing.
const MOST_NAME_BYTES: usize = 32 << 20;
/// Paths whose whole text goes with the names; more are put together by the page.
const MOST_TEXTS: usize = 20_000;

/// Everything that is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overview {
    format: u32,
    live: bool,
    version: u64,
    captures: Vec<OfCapture>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfCapture {
    index: usize,
    label: String,
    start_unix_ns: String,
    duration_ns: u64,
    scopes: u64,
    failed: u64,
    metrics: usize,
    /// None: only the index was read, and it does not tell.
    missing_events: Option<u64>,
    damaged_places: u64,
    torn_bytes: u64,
    is_index_only: bool,
    /// What is missing, in words.
    missing: Option<String>,
    processes: Vec<OfProcess>,
    lanes: Vec<OfLane>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfProcess {
    id: usize,
    pid: u32,
    instance_id: String,
    label: String,
}

/// A lane as the page lists it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfLane {
    id: u32,
    process: u32,
    thread: u32,
    kind: &'static str,
    name: String,
    levels: u32,
    scopes: u64,
    failed: u64,
}

/// The overview of one capture or two.
pub(super) fn overview<'c>(captures: impl Iterator<Item = &'c Capture>, live: bool, version: u64) -> Overview {
    Overview {
        format: 1,
        live,
        version,
        captures: captures.enumerate().map(|(index, it)| of_capture(index, it)).collect(),
    }
}

fn of_capture(index: usize, capture: &Capture) -> OfCapture {
    let (scopes, is_index_only) = match &capture.content {
        Content::Scopes(scopes) => (scopes.len() as u64, false),
        Content::Windows(_) => (capture.records, true),
    };
    OfCapture {
        index,
        label: capture.label.clone(),
        start_unix_ns: capture.start_ns.to_string(),
        duration_ns: capture.duration_ns(),
        scopes,
        failed: capture.failed,
        metrics: capture.metrics.series.len(),
        missing_events: (!capture.is_indexed).then_some(capture.missing.events),
        damaged_places: capture.missing.damaged_places,
        torn_bytes: capture.missing.torn_bytes,
        is_index_only,
        missing: capture.missing.in_words(),
        processes: capture
            .processes
            .iter()
            .enumerate()
            .map(|(id, process)| OfProcess {
                id,
                pid: process.id,
                instance_id: format!("{:032x}", process.instance_id),
                label: format!("process {}", process.id),
            })
            .collect(),
        lanes: lanes(capture),
    }
}

fn lanes(capture: &Capture) -> Vec<OfLane> {
    match &capture.content {
        Content::Scopes(scopes) => (0..).zip(&scopes.lanes).map(|(id, lane)| OfLane::new(capture, id, lane)).collect(),
        Content::Windows(_) => {
            let mut lanes: Vec<OfLane> =
                (0..capture.threads.len() as u32).map(|thread| of_lane(capture, thread, thread, 0)).collect();
            for block in &capture.blocks {
                if let Some(lane) = lanes.get_mut(block.thread as usize) {
                    lane.scopes += u64::from(block.index.records);
                    lane.failed += u64::from(block.index.failures);
                }
            }
            lanes
        }
    }
}

impl OfLane {
    /// A lane that came about in a window.
    pub(super) fn new(capture: &Capture, id: u32, lane: &Lane) -> Self {
        let levels = lane.rows.len() as u32;
        OfLane { levels, scopes: lane.scopes, failed: lane.failed, ..of_lane(capture, id, lane.thread, lane.number) }
    }
}

/// A lane of which nothing was counted yet.
fn of_lane(capture: &Capture, id: u32, thread: u32, number: u32) -> OfLane {
    let known = capture.threads.get(thread as usize);
    let name = known.map_or("", |thread| thread.name.as_str());
    let index = known.map_or(0, |thread| thread.index);
    let name = if name.is_empty() { format!("thread {index}") } else { name.to_owned() };
    OfLane {
        id,
        process: known.map_or(0, |thread| thread.process),
        thread: index,
        kind: if number == 0 { "thread" } else { "task" },
        name: if number == 0 { name } else { format!("{name}, tasks {number}") },
        levels: 1,
        scopes: 0,
        failed: 0,
    }
}

/// What the numbers of paths stand for.
#[derive(Debug, Default, Serialize)]
pub(super) struct Paths {
    names: Vec<String>,
    parents: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    texts: Option<Vec<String>>,
}

/// All paths of a capture.
pub(super) fn paths(capture: &Capture) -> Paths {
    let places = 1..capture.paths.len() as u32;
    let mut paths = Paths::default();
    let mut room = MOST_NAME_BYTES;
    for place in places.clone() {
        let node = capture.paths.node(place);
        let name = if node.is_some_and(|node| node.is_deeper) { "….(deeper)" } else { capture.paths.name(place) };
        let name = if name.len() <= room { name } else { "" };
        room -= name.len();
        paths.names.push(name.to_owned());
        paths.parents.push(node.map_or(-1, |node| i64::from(node.parent) - 1));
    }
    if capture.paths.len() <= MOST_TEXTS {
        let mut room = MOST_NAME_BYTES;
        paths.texts = places
            .map(|place| {
                let text = capture.paths.text(place);
                room = room.checked_sub(text.len())?;
                Some(text)
            })
            .collect();
    }
    paths
}
