//! Appending records, claiming what was published, retiring a full chunk.
//!
//! The owner appends and, when a chunk is full, retires it: the context absorbs its records exactly once, and the chunk is
//! reused or replaced. Others claim what was published so far. The hot paths append by themselves, with the same stores.

use std::sync::Arc;

use super::pool::{give_back, take};
use crate::{
    record, stack,
    sync::{Ordering::*, lock},
    thread::{Block, Claim, Delivery, FLOW_WORDS, Lane, MAX_CHUNK_WORDS, MIN_CHUNK_WORDS, Part, block, lane_flag, put},
};

/// Appends a finished record and publishes it. Owner only.
#[inline]
pub(crate) fn append(lane: &Lane, words: &[u64]) {
    let cursor = &lane.cursor;
    let mut position = cursor.position.load(Relaxed);
    if cursor.left() < size_of_val(words) {
        make_room(lane, words.len());
        position = cursor.position.load(Relaxed);
    }
    if words.first().is_some_and(|head| record::kind_of(*head) == record::METRIC) {
        cursor.count_metric(words.len());
    }
    // SAFETY: between position and end there is room for all words, which only the owner touches until they are
    // published by the store below.
    unsafe {
        put(position, words);
        cursor.position.store(position.add(words.len()), Release);
    }
}

/// Appends a record of a foreign flow: what its aliases stand for goes into the chunk's table first.
#[cold]
pub(crate) fn append_foreign(lane: &Lane, words: &[u64], aliases: &[u32]) {
    let room = words.len() + aliases.len() * FLOW_WORDS;
    let cursor = &lane.cursor;
    if cursor.left() < room * 8 {
        make_room(lane, room);
    }
    for (at, alias) in aliases.iter().enumerate() {
        let Some(flow) = stack::flow(*alias) else { continue };
        if aliases.get(..at).is_some_and(|before| before.contains(alias)) || knows_flow(lane, *alias) {
            continue;
        }
        let end = cursor.end().wrapping_sub(FLOW_WORDS);
        // SAFETY: there is room for every flow and the record between position and end, and nobody reads beyond the
        // published number of flows.
        unsafe { put(end, &flow.encode()) };
        cursor.set_end(end);
        lane.flows.store(lane.flows.load(Relaxed) + 1, Release);
    }
    append(lane, words);
}

/// Whether the chunk's table names the alias. The newest flows stand first.
fn knows_flow(lane: &Lane, alias: u32) -> bool {
    let flows = lane.flows.load(Relaxed) as usize;
    // SAFETY: the table's `flows` entries lie from `end` on, written by this thread.
    let table = unsafe { std::slice::from_raw_parts(lane.cursor.end(), flows * FLOW_WORDS) };
    table.chunks_exact(FLOW_WORDS).any(|flow| flow.first().is_some_and(|first| *first as u32 == alias))
}

/// Retires the chunk: absorbs what nobody claimed yet, and makes room for at least so many words.
#[cold]
#[inline(never)]
pub(super) fn make_room(lane: &Lane, words: usize) {
    // Asked here, once for a thousand scopes: opening then takes the long way, which draws a new prefix. Many more numbers
    // are left than a chunk has records.
    if block(Block::is_worn) {
        lane.cursor.flags.fetch_or(lane_flag::WORN, Relaxed);
    }
    let has_room = lane.sink.wait_for_room();
    let mut claim = lock(&lane.claim);
    absorb_own(lane, &mut claim);
    let capacity = claim.chunk.capacity();
    let wanted = (capacity * 2).clamp(MIN_CHUNK_WORDS, MAX_CHUNK_WORDS).max(words);
    if claim.delivered < claim.absorbed && lane.sink.takes_deliveries() {
        let Claim { delivered: from, absorbed: used, prefix, undelivered: events, .. } = *claim;
        let flows = lane.flows.load(Relaxed) as usize * FLOW_WORDS;
        let chunk = std::mem::replace(&mut claim.chunk, take(wanted));
        let thread = Arc::clone(&lane.thread);
        lane.sink.deliver(Delivery { chunk, from, used, flows, thread, prefix, events }, has_room);
    } else if capacity != wanted {
        give_back(std::mem::replace(&mut claim.chunk, take(wanted)));
    }
    restart(lane, &mut claim);
}

/// Points the cursor to the beginning of the chunk.
pub(super) fn restart(lane: &Lane, claim: &mut Claim) {
    (claim.absorbed, claim.delivered, claim.undelivered) = (0, 0, 0);
    claim.prefix = lane.thread.prefix.load(Relaxed);
    let words = claim.chunk.words();
    lane.flows.store(0, Relaxed);
    lane.cursor.metrics.set(0);
    lane.cursor.position.store(words, Release);
    lane.cursor.set_end(words.wrapping_add(claim.chunk.capacity()));
}

/// Claims everything that the lane's owner has published, from any thread. What waits for room in a queue is only
/// aggregated, and left to be delivered later, unless that is forced. Returns whether nothing was left.
pub(super) fn publish(lane: &Lane, is_forced: bool) -> bool {
    let mut claim = lock(&lane.claim);
    absorb(lane, &mut claim);
    if claim.delivered == claim.absorbed || !lane.sink.takes_deliveries() {
        return true;
    }
    if !is_forced && !lane.sink.has_room() {
        return false;
    }
    let part = published(lane, &claim, claim.delivered);
    lane.sink.deliver(Delivery::copied(part, claim.undelivered), true);
    (claim.delivered, claim.undelivered) = (claim.absorbed, 0);
    true
}

/// The owner's way to aggregate a whole chunk: where it knows that there are metrics alone, nobody has to read them.
fn absorb_own(lane: &Lane, claim: &mut Claim) {
    let used = (lane.cursor.position.load(Relaxed) as usize - claim.chunk.words() as usize) / 8;
    match lane.cursor.only_metrics(used) {
        Some(metrics) if claim.absorbed == 0 => {
            (claim.absorbed, claim.undelivered) = (used, metrics);
            lane.sink.absorb_metrics(metrics);
        }
        _ => absorb(lane, claim),
    }
}

/// Aggregates what was published and not aggregated yet.
fn absorb(lane: &Lane, claim: &mut Claim) {
    let position = lane.cursor.position.load(Acquire);
    let used = (position as usize - claim.chunk.words() as usize) / 8;
    let from = std::mem::replace(&mut claim.absorbed, used);
    if used > from {
        claim.undelivered += lane.sink.absorb(published(lane, claim, from));
    }
}

/// The records from `from` to the absorbed position.
fn published<'a>(lane: &'a Lane, claim: &'a Claim, from: usize) -> Part<'a> {
    let flows = lane.flows.load(Acquire) as usize * FLOW_WORDS;
    let (chunk, capacity) = (&claim.chunk, claim.chunk.capacity());
    // SAFETY: records up to the position and as many flows were published; the claim's lock keeps the owner from
    // replacing or reusing the chunk, and published words are not written again before that.
    let (records, flows) = unsafe { (chunk.slice(from, claim.absorbed), chunk.slice(capacity - flows, capacity)) };
    Part { records, flows, thread: &lane.thread, prefix: claim.prefix }
}
