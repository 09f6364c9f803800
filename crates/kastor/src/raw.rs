//! The border for language faces: scopes as plain values, names and paths as numbers.
//!
//! A face that keeps the stack itself (Python's, in a context variable) opens and closes frames here and says which one
//! is current while it calls native code. **Exempt from semantic versioning**: this may change in any release.

use crate::{
    buffer,
    context::Telemetry,
    metric::write_event,
    name,
    record::flag as record_flag,
    scope::{deliver_inline, is_awake},
    stack::{self, Carrier},
    sync::Ordering::Relaxed,
    thread::{Block, Flow, ItemBuffer, Lane, block, lane_flag},
    value::Value,
};
pub use crate::{
    config::{Config, read},
    name::{Name, Path},
};

/// Interns a name or key.
pub fn name(text: &str) -> Name {
    name::name(text)
}

/// Interns the path of `name` under `parent`.
pub fn path(parent: Option<Path>, name: Name) -> Path {
    name::path(parent.unwrap_or(Path::ROOT), name)
}

/// An open scope, as a value: the face that opened it keeps it, and may close it on any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    carrier: Carrier,
    parent_span_id: u64,
    path: Path,
    depth: u32,
    start: u64,
}

impl Frame {
    /// Its path.
    pub fn path(&self) -> Path {
        self.path
    }

    /// Number of scopes above it.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// When it was opened, in ticks of its context's clock.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// What carries it elsewhere.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }
}

/// How a frame ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// In order.
    Completed,
    /// With this error type.
    Failed(&'a str),
    /// Without an event.
    Discarded,
}

/// What is attached to a frame while it closes.
pub struct Attributes<'a> {
    items: &'a mut ItemBuffer,
}

impl Attributes<'_> {
    /// Adds an attribute; the last value of a key wins.
    pub fn set(&mut self, key: Name, value: &Value<'_>) {
        self.items.attribute(key, value);
    }

    /// Adds a point event at a tick.
    pub fn event(&mut self, event: Name, tick: u64, attributes: &[(Name, Value<'_>)]) {
        self.items.event(event, tick, attributes);
    }

    /// Adds a link.
    pub fn link(&mut self, to: Carrier) {
        if to.is_some() {
            self.items.link(to.trace_id(), to.span_id());
        }
    }
}

/// Opens a frame under `parent`, or as a root. None if the context is off.
pub fn open(telemetry: &Telemetry, parent: Option<&Frame>, path: Path) -> Option<Frame> {
    block(|t| {
        let lane = on_lane(t, telemetry)?;
        if t.is_worn() {
            buffer::renew_sequence(t, &lane.thread);
        }
        let own = Carrier::native(path, t.draw(), lane.thread.prefix.load(Relaxed));
        let (carrier, parent_span_id, depth) = match parent {
            Some(parent) => {
                (own.in_trace_of(&parent.carrier, parent.depth + 2), parent.carrier.span_id(), parent.depth + 1)
            }
            None => (own, 0, 0),
        };
        let start = lane.sink.ticks();
        t.last_tick.set(start);
        Some(Frame { carrier, parent_span_id, path, depth, start })
    })
}

/// Closes a frame on the current thread. Closing it twice records it twice: the face keeps count.
pub fn close(telemetry: &Telemetry, frame: &Frame, outcome: Outcome<'_>, attach: impl FnOnce(&mut Attributes<'_>)) {
    block(|t| {
        let Some(lane) = on_lane(t, telemetry) else { return };
        let end = lane.sink.ticks();
        t.last_tick.set(end);
        if outcome == Outcome::Discarded {
            return;
        }
        let pointer = buffer::take_items(t);
        // SAFETY: just taken from the pool; given back below.
        let items = unsafe { &mut *pointer };
        attach(&mut Attributes { items });
        if let Outcome::Failed(error_type) = outcome {
            items.fail(error_type);
        }
        if items.dropped() > 0 {
            lane.sink.cut(items.dropped());
        }
        let aliases = [t.draw(), t.draw()];
        stack::add_flow(frame.carrier.flow(aliases[0]));
        stack::add_flow(Flow { span_id: frame.parent_span_id, ..frame.carrier.flow(aliases[1]) });
        let parent = if frame.parent_span_id == 0 { 0 } else { aliases[1] };
        let mut flags = record_flag::FOREIGN;
        flags |= if items.is_failed { record_flag::FAILED } else { 0 };
        flags |= if items.has_items() { record_flag::ITEMS } else { 0 };
        flags |= if frame.carrier.is_sampled() { 0 } else { record_flag::UNSAMPLED };
        let times = (frame.start, end.saturating_sub(frame.start));
        let front = buffer::timing_front((frame.path, frame.depth), (aliases[0], parent, aliases[0]), times, flags);
        let written = buffer::write(lane, front, Some(items));
        let flows = front.flows();
        aliases.iter().for_each(|alias| stack::remove_flow(*alias));
        if lane.cursor.flags.load(Relaxed) & lane_flag::INLINE != 0 {
            deliver_inline(lane, written.words(), &flows);
        }
        // SAFETY: taken above and not used any more.
        unsafe { buffer::give_back_items(t, pointer) };
    });
}

/// Records a metric event under the current frame. `attach` adds attributes.
pub fn metric(telemetry: &Telemetry, path: Path, value: Value<'_>, attach: impl FnOnce(&mut Attributes<'_>)) {
    block(|t| {
        if let Some(lane) = on_lane(t, telemetry) {
            write_event(t, lane, path, value, |items| attach(&mut Attributes { items }));
        }
    });
}

/// Says which frame is current on this thread while native code runs, and returns what was so before: what is opened
/// with the macros is its child.
pub fn set_current(carrier: Option<Carrier>) -> stack::Attached {
    carrier.unwrap_or(Carrier::NONE).attach()
}

/// A tick of the context's clock as (monotonic, Unix) nanoseconds; none for the disabled context.
pub fn times_ns(telemetry: &Telemetry, tick: u64) -> Option<(u64, u64)> {
    let timeline = telemetry.context()?.timeline(tick);
    Some((timeline.monotonic_ns(tick), timeline.unix_ns(tick)))
}

fn on_lane<'t>(t: &'t Block, telemetry: &Telemetry) -> Option<&'t Lane> {
    // SAFETY: lanes of this thread live until it ends.
    let lane = telemetry.lane(t).and_then(|lane| unsafe { lane.as_ref() })?;
    is_awake(lane).then_some(lane)
}
