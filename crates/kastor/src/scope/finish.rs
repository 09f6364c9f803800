//! What all records have in common that are written the long way, whoever kept their parts.

use super::deliver_inline;
use crate::{
    buffer::{self, Front},
    record::flag as record_flag,
    stack::{self, Carrier},
    sync::Ordering::Relaxed,
    thread::{Block, Flow, ItemBuffer, Lane, lane_flag},
};

/// The record flags that follow from what was attached. What had no room is counted.
pub(crate) fn item_flags(lane: &Lane, items: &ItemBuffer) -> u8 {
    if items.dropped() > 0 {
        lane.sink.cut(items.dropped());
    }
    let failed = if items.is_failed { record_flag::FAILED } else { 0 };
    failed | if items.has_items() { record_flag::ITEMS } else { 0 }
}

/// Lets aliases stand for the ids of a scope that was not opened on this thread: as span, parent and root.
pub(crate) fn foreign_ids(t: &Block, carrier: &Carrier, parent_span_id: u64) -> (u32, u32, u32) {
    let (own, parent) = (t.draw(), t.draw());
    stack::add_flow(carrier.flow(own));
    if parent_span_id == 0 {
        return (own, 0, own);
    }
    stack::add_flow(Flow { span_id: parent_span_id, ..carrier.flow(parent) });
    (own, parent, own)
}

/// Writes a record, and serves inline reporters with it. The `aliases` stand for nothing any more.
pub(crate) fn finish(lane: &Lane, front: Front, items: &mut ItemBuffer, aliases: &[u32]) {
    let written = buffer::write(lane, front, Some(items));
    let flows = front.flows();
    aliases.iter().for_each(|alias| stack::remove_flow(*alias));
    if lane.cursor.flags.load(Relaxed) & lane_flag::INLINE != 0 {
        deliver_inline(lane, written.words(), &flows);
    }
}
