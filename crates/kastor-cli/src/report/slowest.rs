//! The slowest individual scopes, with what is known of each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use jiff::Timestamp;
use kastor_export::capture::{Block, Timing};
use serde::Serialize;

use super::series::value_text;
use crate::glob::Glob;

/// One scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SlowScope {
    pub(crate) path: String,
    pub(crate) duration_ns: u64,
    pub(crate) start: Option<Timestamp>,
    pub(crate) thread: String,
    pub(crate) error_type: Option<String>,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    /// In the order in which they were given.
    pub(crate) attributes: Vec<(String, String)>,
}

/// The slowest so far.
#[derive(Debug)]
pub(crate) struct Slowest {
    most: usize,
    glob: Option<Glob>,
    /// Whether a path is wanted, by its number in this session.
    wanted: HashMap<u32, bool>,
    /// The fastest of them on top.
    found: BinaryHeap<Reverse<(u64, u64)>>,
    scopes: HashMap<u64, SlowScope>,
    next: u64,
    pub(crate) threshold_ns: u64,
}

impl Slowest {
    pub(crate) fn new(most: usize, glob: Option<Glob>) -> Self {
        Self {
            most,
            glob,
            wanted: HashMap::new(),
            found: BinaryHeap::new(),
            scopes: HashMap::new(),
            next: 0,
            threshold_ns: if most == 0 { u64::MAX } else { 0 },
        }
    }

    /// Looks at a scope that took at least the threshold; returns the new threshold.
    #[cold]
    pub(crate) fn look(&mut self, block: &Block<'_>, timing: &Timing<'_>) -> u64 {
        if self.most == 0 || !self.is_wanted(block, timing.path_id()) {
            return self.threshold_ns;
        }
        let duration_ns = timing.duration_ns();
        if self.found.len() >= self.most {
            let fastest = self.found.peek().map_or(0, |Reverse((ns, _))| *ns);
            if duration_ns <= fastest {
                return self.threshold_ns;
            }
            if let Some(Reverse((_, number))) = self.found.pop() {
                self.scopes.remove(&number);
            }
        }
        // Of equal ones the first stays.
        self.next += 1;
        self.found.push(Reverse((duration_ns, u64::MAX - self.next)));
        self.scopes.insert(u64::MAX - self.next, described(block, timing));
        if self.found.len() >= self.most {
            self.threshold_ns = self.found.peek().map_or(0, |Reverse((ns, _))| ns.saturating_add(1));
        }
        self.threshold_ns
    }

    /// Numbers mean other paths from now on.
    pub(crate) fn end_session(&mut self) {
        self.wanted.clear();
    }

    /// The slowest first.
    pub(crate) fn finish(mut self) -> Vec<SlowScope> {
        let ordered = std::mem::take(&mut self.found).into_sorted_vec();
        ordered.iter().filter_map(|Reverse((_, number))| self.scopes.remove(number)).collect()
    }

    fn is_wanted(&mut self, block: &Block<'_>, path: u32) -> bool {
        let Some(glob) = &self.glob else { return true };
        *self.wanted.entry(path).or_insert_with(|| glob.matches(&block.tables().path_text(path)))
    }
}

fn described(block: &Block<'_>, timing: &Timing<'_>) -> SlowScope {
    let thread = match block.tables().thread(block.thread()).map_or("", |thread| &*thread.name) {
        "" => format!("thread {}", block.thread()),
        name => name.to_owned(),
    };
    SlowScope {
        path: block.tables().path_text(timing.path_id()),
        duration_ns: timing.duration_ns(),
        start: Timestamp::from_nanosecond(i128::from(timing.start_unix_ns())).ok(),
        thread,
        error_type: timing.error_type().map(str::to_owned),
        trace_id: format!("{:032x}", timing.trace_id()),
        span_id: format!("{:016x}", timing.span_id()),
        attributes: timing.attributes().map(|it| (it.key.to_owned(), value_text(&it.value))).collect(),
    }
}
