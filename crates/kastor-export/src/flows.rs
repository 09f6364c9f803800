//! Arrows between scopes. The formats want both ends of an arrow told, and the two scopes arrive in either order: a child
//! that was carried elsewhere before its parent, a scope that is linked to after it closed. Whichever comes first is
//! remembered for a while, in bounded memory; an arrow whose other end is forgotten by then is not drawn.

use std::collections::{HashMap, VecDeque};

/// Scopes that are remembered after they closed.
const MOST_CLOSED: usize = 1 << 15;
/// Arrows that wait for the scope that they go out from.
const MOST_WAITING: usize = 1 << 16;

/// Scopes that closed, each with where it began, and arrows that wait.
#[derive(Debug)]
pub(crate) struct Flows<S> {
    closed: HashMap<u64, S>,
    order: VecDeque<u64>,
    waiting: HashMap<u64, Vec<u64>>,
    waits: usize,
}

impl<S> Default for Flows<S> {
    fn default() -> Self {
        Self { closed: HashMap::new(), order: VecDeque::new(), waiting: HashMap::new(), waits: 0 }
    }
}

impl<S: Copy> Flows<S> {
    /// The number of the arrow between two scopes.
    pub(crate) fn number(from: u64, to: u64) -> u64 {
        from.rotate_left(32) ^ to
    }

    /// An arrow is to go from one scope to another: from where, if that scope has closed; else it waits for that.
    pub(crate) fn arrow(&mut self, from: u64, to: u64) -> Option<S> {
        let spot = self.closed.get(&from).copied();
        if spot.is_none() {
            if self.waits >= MOST_WAITING {
                self.waiting.clear();
                self.waits = 0;
            }
            self.waiting.entry(from).or_default().push(Self::number(from, to));
            self.waits += 1;
        }
        spot
    }

    /// A scope has closed: the arrows that have waited for it.
    pub(crate) fn closed(&mut self, id: u64, spot: S) -> Vec<u64> {
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
