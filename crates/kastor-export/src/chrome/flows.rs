//! Arrows between scopes. The format wants both ends of an arrow with thread and time, and the two scopes arrive in either
//! order: whichever comes first is remembered for a while, in bounded memory. An arrow whose other end is forgotten by
//! then is not drawn.

use std::collections::{HashMap, VecDeque};

/// Scopes that are remembered after they closed.
const MOST_CLOSED: usize = 1 << 14;
/// Arrows that wait for the scope that they go out from.
const MOST_WAITING: usize = 1 << 16;

/// A point on a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) tid: u64,
    pub(super) ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Flows {
    closed: HashMap<u64, Spot>,
    order: VecDeque<u64>,
    waiting: HashMap<u64, Vec<u64>>,
    waits: usize,
}

impl Flows {
    /// An arrow of this number is to go out from a scope: from where, if the scope has been seen; else it waits.
    pub(super) fn arrow(&mut self, number: u64, from: u64) -> Option<Spot> {
        let spot = self.closed.get(&from).copied();
        if spot.is_none() {
            if self.waits >= MOST_WAITING {
                self.waiting.clear();
                self.waits = 0;
            }
            self.waiting.entry(from).or_default().push(number);
            self.waits += 1;
        }
        spot
    }

    /// A scope has closed: the arrows that have waited for it.
    pub(super) fn closed(&mut self, id: u64, spot: Spot) -> Vec<u64> {
        if self.closed.insert(id, spot).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > MOST_CLOSED {
            let Some(oldest) = self.order.pop_front() else { break };
            self.closed.remove(&oldest);
        }
        let arrows = self.waiting.remove(&id).unwrap_or_default();
        self.waits = self.waits.saturating_sub(arrows.len());
        arrows
    }
}
