//! One scope with everything that is known of it.

use kastor_export::capture::{Attribute, StoredValue, Timing};
use serde::Serialize;
use serde_json::{Value, json};

use super::capture::{Capture, Content, Entry};
use super::scopes::Scopes;
use super::timeline::reference;
use crate::failure::Failure;

/// The largest number up to which JavaScript has every integer.
const MOST_EXACT: u64 = 1 << 53;
/// Scopes drawn right below one that are named.
const MOST_CHILDREN: usize = 200;

/// A scope. Times are nanoseconds since the capture's start.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Detail {
    path: i64,
    name: String,
    start_ns: u64,
    duration_ns: u64,
    start_unix_ns: String,
    process: u32,
    process_label: String,
    thread: u32,
    thread_name: String,
    /// None where only some scopes are in memory, and this is none of them.
    lane: Option<u32>,
    level: Option<u32>,
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    depth: u32,
    #[serde(flatten)]
    content: Told,
    parent_ref: Option<String>,
    child_refs: Vec<String>,
}

/// What a scope was given.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    pub(super) error_type: Option<String>,
    pub(super) attributes: Vec<Value>,
    pub(super) events: Vec<Value>,
    pub(super) links: Vec<Value>,
    /// Attributes, events and links that found no room when it was recorded.
    pub(super) dropped_items: u64,
}

impl Told {
    /// What a timing was given. `shift_ns` leads from Unix time to the capture's start.
    pub(super) fn of(timing: &Timing<'_>, shift_ns: i128) -> Self {
        let at = |unix_ns: u64| (i128::from(unix_ns) + shift_ns).max(0) as u64;
        Self {
            error_type: timing.error_type().map(str::to_owned),
            attributes: timing.attributes().map(|it| attribute(&it)).collect(),
            events: timing
                .events()
                .map(|event| {
                    let attributes: Vec<Value> = event.attributes().map(|it| attribute(&it)).collect();
                    json!({ "name": event.name(), "atNs": at(event.unix_ns()), "attributes": attributes })
                })
                .collect(),
            links: timing
                .links()
                .map(|link| {
                    json!({ "traceId": format!("{:032x}", link.trace_id), "spanId": format!("{:016x}", link.span_id) })
                })
                .collect(),
            dropped_items: timing.dropped_items(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.error_type.is_none() && self.attributes.is_empty() && self.events.is_empty() && self.links.is_empty()
    }
}

/// Key, type and value.
fn attribute(attribute: &Attribute<'_>) -> Value {
    let (kind, value) = match attribute.value {
        StoredValue::Null => ("null", Value::Null),
        StoredValue::Bool(value) => ("boolean", value.into()),
        StoredValue::I64(value) if value.unsigned_abs() <= MOST_EXACT => ("integer", value.into()),
        StoredValue::I64(value) => ("integer", value.to_string().into()),
        StoredValue::U64(value) if value <= MOST_EXACT => ("integer", value.into()),
        StoredValue::U64(value) => ("integer", value.to_string().into()),
        StoredValue::F64(value) if value.is_finite() => ("real", value.into()),
        StoredValue::F64(value) => ("real", value.to_string().into()),
        StoredValue::Str(text) => ("text", text.into()),
        StoredValue::Bytes(_) => ("bytes", attribute.value.as_value().to_string().into()),
    };
    json!([attribute.key, kind, value])
}

/// From Unix time, as a timing has it, to the capture's start.
pub(super) fn shift_ns(capture: &Capture, entry: &Entry, timing: &Timing<'_>) -> i128 {
    let process = capture.segment(entry).and_then(|segment| capture.processes.get(segment.process as usize));
    let of_unix = i128::from(timing.start_monotonic_ns()) - i128::from(timing.start_unix_ns());
    process.and_then(|process| process.axis_ns).map_or(0, |axis_ns| axis_ns + of_unix) - i128::from(capture.start_ns)
}

/// The scope that a reference names: `block:index`.
pub(super) fn detail(capture: &Capture, reference: &str) -> Result<Option<Detail>, Failure> {
    let Some(origin) = origin(reference) else { return Ok(None) };
    let mut found = None;
    capture.for_each_block([origin.0], |_, entry, block| {
        if let Some(timing) = block.timings().nth(origin.1 as usize) {
            found = Some((of_timing(capture, entry, &timing), timing.parent_span_id()));
        }
    })?;
    let Some((mut detail, parent)) = found else { return Ok(None) };
    match &capture.content {
        Content::Scopes(scopes) => detail.place(scopes, origin, parent, |lane| lane),
        Content::Windows(windows) => {
            if let Some(window) = windows.with(origin.0) {
                let ids = window.lane_ids(capture.threads.len());
                let id = |lane: u32| ids.get(lane as usize).copied().unwrap_or(lane);
                detail.place(&window.scopes, origin, parent, id);
            }
        }
    }
    Ok(Some(detail))
}

/// Block and index.
fn origin(reference: &str) -> Option<(u32, u32)> {
    let (block, index) = reference.split_once(':')?;
    Some((block.parse().ok()?, index.parse().ok()?))
}

fn of_timing(capture: &Capture, entry: &Entry, timing: &Timing<'_>) -> Detail {
    let segment = capture.segment(entry);
    let path = segment.map_or(0, |segment| segment.numbers.find(timing.path_id()));
    let thread = capture.threads.get(entry.thread as usize);
    let process = thread.map_or(0, |thread| thread.process);
    let shift_ns = shift_ns(capture, entry, timing);
    Detail {
        path: i64::from(path) - 1,
        name: capture.paths.name(path).to_owned(),
        start_ns: (i128::from(timing.start_unix_ns()) + shift_ns).max(0) as u64,
        duration_ns: timing.duration_ns(),
        start_unix_ns: timing.start_unix_ns().to_string(),
        process,
        process_label: capture
            .processes
            .get(process as usize)
            .map_or_else(String::new, |process| format!("process {}", process.id)),
        thread: thread.map_or(0, |thread| thread.index),
        thread_name: thread.map_or_else(String::new, |thread| thread.name.clone()),
        lane: None,
        level: None,
        trace_id: format!("{:032x}", timing.trace_id()),
        span_id: format!("{:016x}", timing.span_id()),
        parent_span_id: timing.parent_span_id().map(|id| format!("{id:016x}")),
        depth: timing.depth(),
        content: Told::of(timing, shift_ns),
        parent_ref: None,
        child_refs: Vec::new(),
    }
}

impl Detail {
    /// Adds where it is drawn, and what around it is known.
    fn place(&mut self, scopes: &Scopes, origin: (u32, u32), parent: Option<u64>, lane_id: impl Fn(u32) -> u32) {
        let Some(place) = scopes.of_origin(origin) else { return };
        self.parent_ref = parent.and_then(|id| scopes.with_span(id)).map(|place| reference(scopes, place));
        let Some(row) = scopes.row_of(place) else { return };
        (self.lane, self.level) = (Some(lane_id(row.lane)), Some(row.level));
        let lane = scopes.lanes.get(row.lane as usize);
        let below = lane.and_then(|lane| {
            let row = lane.rows.start + row.level + 1;
            scopes.rows.get(row as usize).filter(|_| row < lane.rows.end)
        });
        let (start_ns, end_ns) = (scopes.start_ns[place], scopes.end_ns(place));
        let drawn_below = below.into_iter().flat_map(|row| scopes.visible(row, start_ns, end_ns + 1));
        let carried =
            scopes.arrows.iter().filter(|(_, parent)| *parent as usize == place).map(|(child, _)| *child as usize);
        self.child_refs =
            drawn_below.chain(carried).take(MOST_CHILDREN).map(|place| reference(scopes, place)).collect();
    }
}
