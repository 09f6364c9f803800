//! Which scope is drawn on which lane and at which level, so that what is inside a box is drawn below it.
//!
//! The same rules by which traces for Perfetto are made (`kastor_export`'s `tracks`), with one difference: there scopes come
//! as they close, here all of them are there, so each goes to the lane of its parent whenever that has room. A thread has a
//! lane of its own; what does not nest there (futures that take turns, scopes that came from another thread) gets further
//! ones. Order and nesting are decided in ticks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::scopes::{Raw, flag};
use crate::report::Tree;

/// Lanes of one thread. What finds no place on the last one is drawn there at the first level that is free.
const MOST_LANES: usize = 64;
/// Scopes that are open around one that nests elsewhere, and are asked whether it is theirs.
const MOST_ASKED: usize = 64;

/// Where a scope is drawn, and how much of its time is no child's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its number in the thread; 0 is the thread's own.
    pub(super) lane: u32,
    pub(super) level: u32,
    pub(super) self_ns: u64,
}

/// Places the scopes of one thread, which are in the order in which they began, enclosing ones first.
pub(super) fn place(scopes: &[Raw], paths: &Tree) -> Vec<Place> {
    let mut lanes = vec![Lane::default()];
    let mut places: Vec<Place> = Vec::with_capacity(scopes.len());
    let mut heap = Heap::default();
    for (at, scope) in scopes.iter().enumerate() {
        lanes.iter_mut().for_each(|lane| lane.close_before(scope));
        let first = usize::from(scope.has(flag::MOVED));
        while lanes.len() <= first {
            lanes.push(Lane::default());
        }
        let candidates = || lanes.iter().enumerate().skip(first);
        let of_parent = candidates().find(|(_, lane)| lane.is_topped_by_parent_of(scope));
        let found = of_parent.or_else(|| candidates().find(|(_, lane)| lane.has_room_for(scope, paths)));
        let number = found.map_or(lanes.len(), |(number, _)| number);
        if !scope.has(flag::DETACHED) && scope.parent != 0 {
            let parent = lanes.iter().find_map(|lane| lane.open_with_id(scope.parent));
            if let Some(parent) = parent.and_then(|parent| places.get_mut(parent)) {
                parent.self_ns = parent.self_ns.saturating_sub(scope.duration_ns);
            }
        }
        let level = if number < MOST_LANES {
            if number == lanes.len() {
                lanes.push(Lane::default());
            }
            lanes.get_mut(number).map_or(0, |lane| lane.push(scope, at))
        } else {
            heap.level(scope)
        };
        let lane = number.min(MOST_LANES) as u32;
        places.push(Place { lane, level, self_ns: scope.duration_ns });
    }
    places
}

#[derive(Default)]
struct Lane {
    open: Vec<Open>,
}

/// A scope that encloses what comes next.
struct Open {
    end: u64,
    id: u64,
    path: u32,
    is_task: bool,
    at: usize,
}

impl Lane {
    /// Forgets what ended before a scope began. One without length at its parent's very end is still the parent's.
    fn close_before(&mut self, scope: &Raw) {
        while let Some(top) = self.open.last() {
            let is_child_at_end = top.end == scope.begin && scope.end == scope.begin && top.id == scope.parent;
            if top.end > scope.begin || is_child_at_end {
                break;
            }
            self.open.pop();
        }
    }

    fn is_topped_by_parent_of(&self, scope: &Raw) -> bool {
        self.open.last().is_some_and(|top| top.id == scope.parent && top.end >= scope.end)
    }

    fn has_room_for(&self, scope: &Raw, paths: &Tree) -> bool {
        self.open.last().is_none_or(|top| top.end >= scope.end && top.owns(scope, paths))
    }

    fn open_with_id(&self, id: u64) -> Option<usize> {
        self.open.iter().rev().take(MOST_ASKED).find(|open| open.id == id).map(|open| open.at)
    }

    fn push(&mut self, scope: &Raw, at: usize) -> u32 {
        let is_task = scope.has(flag::TASK);
        self.open.push(Open { end: scope.end, id: scope.span, path: scope.path, is_task, at });
        (self.open.len() - 1) as u32
    }
}

impl Open {
    /// Whether what runs within this scope's time is part of it, and not what another future did between two polls.
    fn owns(&self, inner: &Raw, paths: &Tree) -> bool {
        if inner.parent == self.id {
            return true;
        }
        if self.is_task {
            return false;
        }
        let is_plain = inner.parent != 0 && !inner.has(flag::TASK) && !inner.has(flag::CARRIED);
        // The scopes between the two may have been left out by a rule, or be another context's.
        !is_plain || is_below(inner.path, self.path, paths)
    }
}

/// Whether a path is below another one, by two levels or more.
fn is_below(path: u32, above: u32, paths: &Tree) -> bool {
    let depth = |place: u32| paths.node(place).map_or(0, |node| node.depth);
    let least = depth(above);
    if depth(path) < least + 2 {
        return false;
    }
    let mut at = path;
    while depth(at) > least {
        let Some(node) = paths.node(at) else { return false };
        at = node.parent;
    }
    at == above
}

/// A lane on which nothing nests: each scope at a level that is free when it begins.
#[derive(Default)]
struct Heap {
    /// When each level is free again, the earliest on top.
    levels: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Heap {
    fn level(&mut self, scope: &Raw) -> u32 {
        let level = match self.levels.peek() {
            Some(Reverse((end, level))) if *end <= scope.begin => {
                let level = *level;
                self.levels.pop();
                level
            }
            _ => self.levels.len() as u32,
        };
        self.levels.push(Reverse((scope.end, level)));
        level
    }
}
