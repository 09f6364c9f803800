//! Metrics of a face that keeps the stack: what is recorded under which scope is said with every call.

use super::{Attributes, Ids, Name, Path, local::is_here, on_lane, with_attached};
pub use crate::metric::Amount;
use crate::{
    aggregate::Cell,
    buffer::metric_front,
    callsite,
    context::Telemetry,
    metric::{number, record_in_lane},
    name,
    record::flag as record_flag,
    scope::{finish, item_flags},
    stack::{self, Carrier},
    sync::Ordering::Relaxed,
    thread::{Block, CellWanted, Lane, block},
    value::{MetricType, Value},
};

/// The scope that a metric is recorded under.
#[derive(Clone, Copy, Debug)]
pub struct Under {
    /// The path of its metrics' parents; none outside of any scope.
    pub path: Option<Path>,
    /// Number of scopes that are open there.
    pub levels: u32,
    /// Its ids; none where there is no scope, or [`Under::carrier`] says them in full.
    pub ids: Option<Ids>,
    /// The ids in full, where no [`Ids`] stand for them.
    pub carrier: Carrier,
}

/// A place of the program that records an instrument. It remembers, per thread and context, the series that it used last.
///
/// A face makes a bounded number of them: they are never freed.
#[derive(Clone, Copy, Debug)]
pub struct Instrument {
    index: u32,
    name: Name,
    metric_type: MetricType,
}

impl Instrument {
    /// A place that remembers.
    pub fn new(name: Name, metric_type: MetricType) -> Self {
        Self { index: callsite::take_index(), name, metric_type }
    }

    /// One that looks its series up each time.
    pub fn forgetful(name: Name, metric_type: MetricType) -> Self {
        Self { index: u32::MAX, name, metric_type }
    }
}

/// Adds to the series of an instrument under a scope.
///
/// `labels` attaches the labels, if there are any. Where an instrument has labels at one call and none at another, the
/// face makes two of it.
#[inline]
pub fn add<L: FnOnce(&mut Attributes<'_>)>(
    telemetry: &Telemetry,
    instrument: &Instrument,
    under: &Under,
    amount: Amount,
    labels: Option<L>,
) {
    block(|t| {
        let Some(lane) = on_lane(t, telemetry) else { return };
        let parent = under.path.unwrap_or(Path::ROOT);
        let known = remembered(lane, instrument.index, parent.0);
        let Some(labels) = labels else {
            return match known {
                Some(cell) => amount.record(instrument.metric_type, cell, t),
                None => look_up(t, lane, instrument, under, amount, &[]),
            };
        };
        with_attached(t, labels, |items| match known.filter(|cell| *cell.labels == *items.items()) {
            Some(cell) => amount.record(instrument.metric_type, cell, t),
            None => look_up(t, lane, instrument, under, amount, items.items()),
        });
    });
}

/// The cell in a lane's slot, if that remembers one for the path `key`.
#[inline(always)]
fn remembered(lane: &Lane, index: u32, key: u32) -> Option<&Cell> {
    if index >= lane.cursor.cells_len.load(Relaxed) {
        return None;
    }
    // SAFETY: within the slots, whose memory the lane keeps.
    let slot = unsafe { &*lane.cursor.cells.get().add(index as usize) };
    // SAFETY: a slot with a key holds a cell that the lane keeps.
    if slot.key == key { Some(unsafe { slot.cell.cast::<Cell>().as_ref() }) } else { None }
}

#[cold]
fn look_up(t: &Block, lane: &Lane, instrument: &Instrument, under: &Under, amount: Amount, labels: &[u64]) {
    let parent = under.path.unwrap_or(Path::ROOT);
    let path = name::path(parent, instrument.name);
    let slot = (instrument.index != u32::MAX).then_some((instrument.index, parent.0));
    let wanted = CellWanted { path, metric_type: instrument.metric_type, labels, slot };
    record_in_lane(t, lane, &wanted, under.levels, amount);
}

/// Records a metric event under a scope. `attach` adds attributes. Returns whether it did: not if the context is off.
pub fn event(
    telemetry: &Telemetry,
    name: Name,
    under: &Under,
    value: Value<'_>,
    attach: impl FnOnce(&mut Attributes<'_>),
) -> bool {
    block(|t| {
        let Some(lane) = on_lane(t, telemetry) else { return false };
        let path = name::path(under.path.unwrap_or(Path::ROOT), name);
        let number = number(&value);
        let attach = |attributes: &mut Attributes<'_>| {
            if number.is_none() {
                attributes.set(Name::NONE, &value);
            }
            attach(attributes);
        };
        with_attached(t, attach, |items| {
            let (word, value_flags) = number.unwrap_or((0, record_flag::VALUE_ITEM));
            let near = under.ids.filter(|ids| is_here(*ids, lane));
            let carrier = match (near, under.ids) {
                (None, Some(ids)) => ids.carrier(path, under.levels),
                _ => under.carrier,
            };
            let (mut flags, mut alias) = (value_flags | item_flags(lane, items), None);
            let ids = match near {
                Some(ids) => (ids.span, ids.root),
                None if carrier.is_some() => {
                    let drawn = t.draw();
                    stack::add_flow(carrier.flow(drawn));
                    alias = Some(drawn);
                    flags |= record_flag::FOREIGN | if carrier.is_sampled() { 0 } else { record_flag::UNSAMPLED };
                    (drawn, drawn)
                }
                None => (0, 0),
            };
            let front = metric_front((path, under.levels), ids, (word, t.newest_tick()), flags);
            finish(lane, front, items, alias.as_slice());
        });
        true
    })
}
