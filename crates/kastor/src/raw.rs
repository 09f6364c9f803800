//! The border for language faces: scopes as plain values, names and paths as numbers.
//!
//! A face that keeps the stack itself (Python's, in a context variable) opens and closes frames here and says which one
//! is current while it calls native code. **Exempt from semantic versioning**: this may change in any release.
//!
//! There are two ways. A [`Frame`] is complete in itself: any thread may close it, at the price of naming its ids in the
//! chunk. A face that counts bytes keeps [`Ids`] of ten bytes, and the parts of a record by itself: [`draw`], [`tick`],
//! then [`record`] writes what the hot path of `scope!` writes, as long as scope, parent and closing are one thread's.
//! Where they are not, [`Ids::carrier`] gives the ids in full, for a [`Frame`].
//!
//! A share of all traces ([`Sampler::ratio`](crate::Sampler::ratio)) holds for both; a carrier that leaves the process or
//! becomes current goes through [`sampled`] first. A rate does not: no root asks for one here, and all of them are recorded.

mod local;
mod metric;

use std::time::Duration;

pub use self::{
    local::{Ids, Recorded, Scope, draw, record, record_with, tick},
    metric::{Amount, Instrument, Under, add, event},
};
use crate::{
    buffer,
    clock::Timeline,
    context::{self, Builder, Telemetry},
    getters::getters,
    metric::{with_items, write_event},
    name,
    record::flag as record_flag,
    reporter::Deadline,
    scope::{finish, foreign_ids, is_awake, item_flags},
    stack::{self, Carrier},
    sync::{AtomicU32, Ordering::Relaxed},
    thread::{Block, ItemBuffer, Lane, block},
    value::{Items, Value},
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

/// Position of a path among all paths of the process, dense from 1.
pub fn path_index(path: Path) -> u32 {
    path.index()
}

/// Whether a path stands for other places too: for all below the limits, or for all that found no room.
#[inline]
pub fn is_shared(path: Path) -> bool {
    static OVERFLOW: AtomicU32 = AtomicU32::new(0);
    if OVERFLOW.load(Relaxed) == 0 {
        OVERFLOW.store(name::path(Path::ROOT, Name::OVERFLOW).0, Relaxed);
    }
    path.is_deeper() || path.0 == OVERFLOW.load(Relaxed)
}

/// Number of a name, from which [`name_at`] finds it again.
pub fn name_index(name: Name) -> u32 {
    name.0
}

/// The name of a number that [`name_index`] gave.
pub fn name_at(index: u32) -> Name {
    Name(index)
}

getters! {
    /// An open scope, as a value: the face that opened it keeps it, and may close it on any thread.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Frame {
        /// What carries it elsewhere.
        carrier: Carrier,
        /// Its path.
        path: Path,
        /// Number of scopes above it.
        depth: u32,
        /// When it was opened, in ticks of its context's clock.
        start: u64,
    } with {
        parent_span_id: u64,
    }
}

impl Frame {
    /// A frame of which the face kept the parts. `parent_span_id` is 0 for a root.
    pub fn new(carrier: Carrier, parent_span_id: u64, (path, depth): (Path, u32), start: u64) -> Self {
        Self { carrier, parent_span_id, path, depth, start }
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

impl Outcome<'_> {
    fn mark(self, items: &mut ItemBuffer) {
        if let Outcome::Failed(error_type) = self {
            items.fail(error_type);
        }
    }
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

    /// Adds a point event at a tick, with the attributes that `attach` sets.
    pub fn event_with(&mut self, event: Name, tick: u64, attach: impl FnOnce(&mut Attributes<'_>)) {
        let mut own = ItemBuffer::new();
        attach(&mut Attributes { items: &mut own });
        let attributes: Vec<_> = Items(own.items()).filter_map(|item| Some((item.key, item.value()?))).collect();
        self.items.event(event, tick, &attributes);
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
    let end = tick(telemetry);
    close_at(telemetry, frame, end, outcome, attach);
}

/// The same, with the tick at which it ended. Returns whether an event was recorded: not if it was discarded, or the
/// context is off.
pub fn close_at(
    telemetry: &Telemetry,
    frame: &Frame,
    end: u64,
    outcome: Outcome<'_>,
    attach: impl FnOnce(&mut Attributes<'_>),
) -> bool {
    block(|t| {
        let Some(lane) = on_lane(t, telemetry).filter(|_| outcome != Outcome::Discarded) else { return false };
        with_attached(t, attach, |items| {
            outcome.mark(items);
            let ids = foreign_ids(t, &frame.carrier, frame.parent_span_id);
            let is_sampled = frame.carrier.sampled_by(lane.sink.sampler()).is_sampled();
            let unsampled = if is_sampled { 0 } else { record_flag::UNSAMPLED };
            let flags = item_flags(lane, items) | record_flag::FOREIGN | unsampled;
            let times = (frame.start, end.saturating_sub(frame.start));
            let front = buffer::timing_front((frame.path, frame.depth), ids, times, flags);
            finish(lane, front, items, &[ids.0, ids.1]);
        });
        true
    })
}

/// Lets the face attach, then calls `then` with all that is attached.
#[inline]
fn with_attached<R>(t: &Block, attach: impl FnOnce(&mut Attributes<'_>), then: impl FnOnce(&mut ItemBuffer) -> R) -> R {
    // Attaching may run code of the program.
    let _pin = t.pin();
    with_items(t, &[], &[], |items| {
        attach(&mut Attributes { items });
        then(items)
    })
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

/// A carrier in the trace of another one, whose levels it has besides its own.
pub fn in_trace_of(carrier: Carrier, around: &Carrier, levels: u32) -> Carrier {
    carrier.in_trace_of(around, levels)
}

/// A scope as its context hands it on, to another process for instance: with the decision of the context's sampler.
pub fn sampled(telemetry: &Telemetry, carrier: Carrier) -> Carrier {
    block(|t| on_lane(t, telemetry).map_or(carrier, |lane| carrier.sampled_by(lane.sink.sampler())))
}

/// What a scope of a face costs where it runs, in pairs of clock reads, for the overhead budget; the core's own by default.
pub fn scope_cost(mut builder: Builder, read_pairs: f64) -> Builder {
    builder.scope_read_pairs = read_pairs;
    builder
}

/// A tick of the context's clock as (monotonic, Unix) nanoseconds; none for the disabled context.
pub fn times_ns(telemetry: &Telemetry, tick: u64) -> Option<(u64, u64)> {
    let timeline = telemetry.context()?.timeline(tick);
    Some((timeline.monotonic_ns(tick), timeline.unix_ns(tick)))
}

/// The line that turns ticks of the context's clock into time, fresh enough for this one; none for the disabled context.
pub fn timeline(telemetry: &Telemetry, tick: u64) -> Option<Timeline> {
    Some(telemetry.context()?.timeline(tick))
}

/// Whether scopes of this name are on, by the patterns of [`Telemetry::switch_scopes`].
pub fn wants(telemetry: &Telemetry, name: &str) -> bool {
    block(|t| on_lane(t, telemetry).is_some_and(|lane| lane.sink.wants(name)))
}

/// Whether the path is recorded, by the patterns of [`Telemetry::record_paths`], or aggregated only.
pub fn records_path(telemetry: &Telemetry, path: Path) -> bool {
    telemetry.context().is_some_and(|context| context.records_path(path))
}

/// Before a fork: lets the library's threads that have nothing to do end. Returns whether none is left after `within`.
/// Until [`wake`], or in the child, none starts; what is emitted meanwhile waits.
pub fn rest(within: Duration) -> bool {
    context::rest(Deadline::after(within))
}

/// Whether a context was shut down. At exit there is nothing to wait for then.
pub fn is_shut_down(telemetry: &Telemetry) -> bool {
    telemetry.is_shut_down()
}

/// After a fork, in the parent: lets threads start again.
pub fn wake() {
    context::wake();
}

/// Whether a name has the recommended form: what strict mode asks for.
pub fn is_recommended(name: &str) -> bool {
    name::is_recommended(name)
}

/// An event came that the context does not take; counted, if that is because it was shut down.
pub fn refuse(telemetry: &Telemetry) {
    telemetry.refuse();
}

fn on_lane<'t>(t: &'t Block, telemetry: &Telemetry) -> Option<&'t Lane> {
    // SAFETY: lanes of this thread live until it ends.
    let lane = telemetry.lane(t).and_then(|lane| unsafe { lane.as_ref() })?;
    is_awake(lane).then_some(lane)
}
