//! Chunks: how records get into them, and how full ones are retired.
//!
//! The owner appends and retires, others claim what was published: [`claim`]. A thread's set-up and end
//! ([`owner`](self::owner)) live here too, because ending means retiring.

mod claim;
mod front;
mod owner;
mod pool;

use std::sync::Arc;

use self::claim::{make_room, publish, restart};
pub(crate) use self::{
    claim::{append, append_foreign},
    front::{Front, frame_flags, frame_front, inherited_flags, metric_front, timing_front, write},
    owner::{forget_past, hold, lane, renew_sequence, set_lane_flags, thread, threads},
    pool::{give_back, give_back_items, stock_pool, take_items, trim_pool},
};
use crate::{
    sync::lock,
    thread::{Lane, Sink},
};

/// Claims what all threads have published, into the contexts that `of` accepts.
///
/// Returns whether nothing was left; see [`publish`].
pub(crate) fn publish_all(of: impl Fn(&dyn Sink) -> bool, is_forced: bool) -> bool {
    let mut is_all = true;
    for thread in threads() {
        let lanes: Vec<Arc<Lane>> = lock(&thread.lanes).iter().filter(|lane| of(&*lane.sink)).cloned().collect();
        lanes.iter().for_each(|lane| is_all &= publish(lane, is_forced));
    }
    is_all
}

/// Records that were aggregated but wait in their lanes to be delivered.
pub(crate) fn undelivered(of: &dyn Sink) -> u64 {
    let mut events = 0;
    for thread in threads() {
        let lanes: Vec<Arc<Lane>> = lock(&thread.lanes).clone();
        events +=
            lanes.iter().filter(|lane| lane.sink.id() == of.id()).map(|it| lock(&it.claim).undelivered).sum::<u64>();
    }
    events
}
