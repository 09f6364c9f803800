//! Many records of one thread and one context, as a reporter gets them.

use std::{
    cell::{Cell, OnceCell},
    sync::Arc,
};

use super::{metric::Metric, timing::Timing};
use crate::{
    clock::{Anchor, Anchors, Timeline},
    getters::getters,
    name::{Path, known_paths},
    record::{self, Record, Records},
    sampler::Sampler,
    thread::{FLOW_WORDS, Flow, Part, Thread},
    value::as_bytes,
};

/// What turns records into events: the records and whence they come, and the line from ticks to time.
pub(crate) struct Source<'a> {
    part: Part<'a>,
    sampler: Sampler,
    timeline: OnceCell<Timeline>,
    anchors: Option<&'a Anchors>,
    /// The newest trace id that was computed, and of which root: neighbours mostly share theirs.
    newest_trace: Cell<Option<(u32, u128)>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(part: Part<'a>, timeline: Timeline, sampler: Sampler) -> Self {
        Self { part, sampler, timeline: OnceCell::from(timeline), anchors: None, newest_trace: Cell::new(None) }
    }

    /// The line is looked up only if someone asks for a time.
    pub(crate) fn inline(part: Part<'a>, anchors: &'a Anchors, sampler: Sampler) -> Self {
        Self { part, sampler, timeline: OnceCell::new(), anchors: Some(anchors), newest_trace: Cell::new(None) }
    }

    pub(crate) fn events(&self) -> Events<'_> {
        Events { records: Records(self.part.records), source: self }
    }

    pub(crate) fn timeline(&self) -> &Timeline {
        self.timeline.get_or_init(|| self.anchors.map_or(Timeline::ZERO, Anchors::fresh_now))
    }

    pub(crate) fn thread_identity(&self) -> ThreadIdentity<'a> {
        ThreadIdentity { thread: self.part.thread }
    }

    pub(crate) fn trace_id(&self, record: &Record<'_>) -> u128 {
        if let Some(flow) = self.flow(record, record.root()) {
            return flow.trace_id;
        }
        let root = record.root();
        match self.newest_trace.get() {
            Some((known, id)) if known == root => id,
            _ => {
                let id = trace_id(self.part.prefix, root);
                self.newest_trace.set(Some((root, id)));
                id
            }
        }
    }

    pub(crate) fn span_id(&self, record: &Record<'_>, sequence: u32) -> u64 {
        self.flow(record, sequence).map_or_else(|| span_id(self.part.prefix, sequence), |flow| flow.span_id)
    }

    pub(crate) fn parent_span_id(&self, record: &Record<'_>) -> Option<u64> {
        match record.parent() {
            0 => None,
            // A flow without a span id is a trace whose root this scope is.
            parent => Some(self.span_id(record, parent)).filter(|id| *id != 0),
        }
    }

    pub(crate) fn is_sampled(&self, record: &Record<'_>) -> bool {
        let was_taken = !record.has(record::flag::UNSAMPLED);
        self.sampler.takes(record.has(record::flag::FOREIGN), was_taken, self.trace_id(record))
    }

    /// What a number of a record stands for, if it is an alias.
    fn flow(&self, record: &Record<'_>, alias: u32) -> Option<Flow> {
        if !record.has(record::flag::FOREIGN) {
            return None;
        }
        self.part.flows.chunks_exact(FLOW_WORDS).filter_map(Flow::decode).find(|flow| flow.alias == alias)
    }
}

/// The id of the scope that a thread opened as its `sequence`th; never zero.
pub(crate) fn span_id(prefix: u64, sequence: u32) -> u64 {
    mix(prefix.wrapping_add(u64::from(sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15))).max(1)
}

/// The id of the trace whose root a thread opened as its `sequence`th scope; never zero.
pub(crate) fn trace_id(prefix: u64, sequence: u32) -> u128 {
    let low = mix(span_id(prefix, sequence) ^ 0x6a09_e667_f3bc_c908);
    u128::from(mix(prefix ^ 0xbb67_ae85_84ca_a73b).max(1)) << 64 | u128::from(low)
}

/// A bijection that leaves no pattern: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// What holds for a whole batch, beside its part.
#[derive(Clone, Copy)]
pub(crate) struct BatchFacts {
    pub(crate) timeline: Timeline,
    pub(crate) process: Process,
    pub(crate) sampler: Sampler,
}

getters! {
    /// Records of one thread, in the order in which they were written.
    pub struct Batch<'a> {
        /// The process that they come from.
        process: Process,
        /// Number of events.
        len: u64,
    } with {
        source: Source<'a>,
    }
}

impl<'a> Batch<'a> {
    pub(crate) fn new(part: Part<'a>, len: u64, facts: BatchFacts) -> Self {
        let BatchFacts { timeline, process, sampler } = facts;
        Self { source: Source::new(part, timeline, sampler), process, len }
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// For captures: so many records and their flow table, as words. They may be any: reading them checks everything.
    #[doc(hidden)]
    pub fn kept(
        (records, flows): (&'a [u64], &'a [u64]),
        len: u64,
        thread: &'a Arc<Thread>,
        prefix: u64,
        timeline: Timeline,
        process: Process,
    ) -> Self {
        let part = Part { records, flows, thread, prefix };
        Self::new(part, len, BatchFacts { timeline, process, sampler: Sampler::ALWAYS })
    }

    pub(crate) fn facts(&self) -> BatchFacts {
        BatchFacts { timeline: self.timeline(), process: self.process, sampler: self.source.sampler }
    }

    /// What the batch is a view of.
    pub(crate) fn part(&self) -> Part<'_> {
        self.source.part
    }

    /// The events, one by one.
    pub fn events(&self) -> Events<'_> {
        self.source.events()
    }

    /// The timing events alone.
    pub fn timings(&self) -> impl Iterator<Item = Timing<'_>> {
        self.events().filter_map(|event| match event {
            Event::Timing(timing) => Some(timing),
            Event::Metric(_) => None,
        })
    }

    /// The metric events alone.
    pub fn metrics(&self) -> impl Iterator<Item = Metric<'_>> {
        self.events().filter_map(|event| match event {
            Event::Metric(metric) => Some(metric),
            Event::Timing(_) => None,
        })
    }

    /// The thread that they come from.
    pub fn thread(&self) -> ThreadIdentity<'_> {
        self.source.thread_identity()
    }

    /// The line that turns their ticks into time.
    pub fn timeline(&self) -> Timeline {
        *self.source.timeline()
    }

    /// The newest anchor of that line.
    pub fn anchor(&self) -> Anchor {
        self.source.timeline().anchor()
    }

    /// The records as they left the thread, in the layout of `docs/format.md`.
    pub fn record_bytes(&self) -> &[u8] {
        as_bytes(self.source.part.records)
    }

    /// The flow table that the records refer to, in the layout of `docs/format.md`.
    pub fn flow_bytes(&self) -> &[u8] {
        as_bytes(self.source.part.flows)
    }

    /// The thread's prefix, from which the ids follow.
    pub fn id_prefix(&self) -> u64 {
        self.source.part.prefix
    }

    /// The paths that this process knows beyond the first `known`: (id, parent's id, name). A reporter that keeps its
    /// own table asks with the number it knows so far.
    pub fn new_paths(&self, known: u32) -> impl Iterator<Item = (u32, Option<u32>, &'static str)> + use<> {
        (known..known_paths()).map(|index| {
            let path = Path::at(index + 1);
            (path.0, path.parent().map(|parent| parent.0), path.name().text())
        })
    }

    /// The names and keys that this process knows beyond the first `known`: (id, text).
    pub fn new_names(&self, known: u32) -> impl Iterator<Item = (u32, &'static str)> + use<> {
        crate::name::names_from(known)
    }
}

/// One event of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A scope closed.
    Timing(Timing<'a>),
    /// A metric was recorded.
    Metric(Metric<'a>),
}

impl<'a> Event<'a> {
    /// A view of one record.
    #[inline]
    pub(crate) fn new(record: Record<'a>, source: &'a Source<'a>) -> Self {
        match record.kind() {
            record::METRIC => Self::Metric(Metric::from_record(record, source)),
            _ => Self::Timing(Timing::new(record, source)),
        }
    }
}

/// The events of a [`Batch`].
pub struct Events<'a> {
    records: Records<'a>,
    source: &'a Source<'a>,
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        Some(Event::new(self.records.next()?, self.source))
    }
}

/// A thread of this process.
#[derive(Clone, Copy, Debug)]
pub struct ThreadIdentity<'a> {
    thread: &'a Thread,
}

impl<'a> ThreadIdentity<'a> {
    /// Its number in this process, from 1; never used twice.
    pub fn index(&self) -> u32 {
        self.thread.index
    }

    /// The operating system's number for it; 0 where there is none.
    pub fn os_id(&self) -> u64 {
        self.thread.os_id
    }

    /// Its name; empty if it has none.
    pub fn name(&self) -> &'a str {
        &self.thread.name
    }
}

/// The process that events come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// The operating system's number.
    pub id: u32,
    /// Random, different for every run and every forked child.
    pub instance_id: u128,
}
