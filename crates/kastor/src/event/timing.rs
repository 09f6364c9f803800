//! A scope that closed, and what was attached to it.

use std::{fmt, time::Duration};

use super::batch::Source;
use crate::{
    name::{Name, Path},
    record::{self, Record},
    value::{Items, Value, tag},
};

/// How a scope ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was left in order.
    Completed,
    /// It failed: an error, a panic, a cancellation, or because the program said so.
    Failed,
}

/// One timing event: a scope that closed.
///
/// Everything is worked out on demand; take what you need. Times are in the units that the names say.
#[derive(Clone, Copy)]
pub struct Timing<'a> {
    pub(super) record: Record<'a>,
    pub(super) source: &'a Source<'a>,
}

impl<'a> Timing<'a> {
    pub(crate) fn new(record: Record<'a>, source: &'a Source<'a>) -> Self {
        Self { record, source }
    }

    pub(crate) fn record_path(&self) -> Path {
        self.record.path()
    }

    /// The full path, names joined with `.`.
    pub fn scope(&self) -> &'static str {
        self.record.path().text()
    }

    /// The last name of the path.
    pub fn name(&self) -> &'static str {
        self.record.path().name().text()
    }

    /// The path's number in this process; [`Batch::new_paths`](super::Batch::new_paths) gives the texts.
    pub fn path_id(&self) -> u32 {
        self.record.path().0
    }

    /// How long the scope was open, by the monotonic clock.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.duration_ns())
    }

    /// How long the scope was open, in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.source.timeline().duration_ns(self.record.duration())
    }

    /// Number of scopes around it; 0 for a root.
    pub fn depth(&self) -> u32 {
        self.record.depth()
    }

    /// Equal to the depth; the original specification counts the scopes active in the flow.
    pub fn call_count(&self) -> u32 {
        self.depth()
    }

    /// The path of the enclosing scope.
    pub fn parent_scope(&self) -> Option<&'static str> {
        self.record.path().parent_text(self.depth())
    }

    /// When it was opened: nanoseconds of the monotonic clock.
    pub fn start_monotonic_ns(&self) -> u64 {
        self.source.timeline().monotonic_ns(self.record.start())
    }

    /// When it was closed: the start plus the duration.
    pub fn end_monotonic_ns(&self) -> u64 {
        self.start_monotonic_ns().saturating_add(self.duration_ns())
    }

    /// When it was opened: nanoseconds since 1970-01-01 UTC.
    pub fn start_unix_ns(&self) -> u64 {
        self.source.timeline().unix_ns(self.record.start())
    }

    /// When it was closed: the start plus the duration, so that a jump of the wall clock cannot distort it.
    pub fn end_unix_ns(&self) -> u64 {
        self.start_unix_ns().saturating_add(self.duration_ns())
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        if self.record.has(record::flag::FAILED) { Outcome::Failed } else { Outcome::Completed }
    }

    /// Why it failed: `panic`, `cancelled`, `unfinished`, an error's type, or what the program set.
    pub fn error_type(&self) -> Option<&'a str> {
        if !self.record.has(record::flag::FAILED) {
            return None;
        }
        Items(self.record.items()).filter(|item| item.tag == tag::ERROR).last().map(|item| item.text())
    }

    /// Keys and values in the order in which the keys were first given; a later value of a key replaces the earlier.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.record.items())
    }

    /// The point events, in order.
    pub fn events(&self) -> impl Iterator<Item = PointEvent<'a>> + use<'a> {
        let source = self.source;
        Items(self.record.items()).filter(|item| item.tag == tag::EVENT).map(move |item| PointEvent {
            name: item.key,
            ticks: item.payload.first().copied().unwrap_or(0),
            items: Items(item.payload.get(1..).unwrap_or(&[])),
            source,
        })
    }

    /// The links to other scopes, in order.
    pub fn links(&self) -> impl Iterator<Item = Link> + use<'a> {
        Items(self.record.items()).filter(|item| item.tag == tag::LINK).map(|item| match *item.payload {
            [high, low, span_id] => Link { trace_id: u128::from(high) << 64 | u128::from(low), span_id },
            _ => Link { trace_id: 0, span_id: 0 },
        })
    }

    /// How many attributes, events and links were cut or left out for their size or number.
    pub fn dropped_items(&self) -> u64 {
        Items(self.record.items())
            .filter(|item| item.tag == tag::DROPPED)
            .map(|item| item.payload.first().copied().unwrap_or(0))
            .fold(0, u64::saturating_add)
    }

    /// Whether there is nothing but attributes: no point event, no link, nothing dropped, no error type. True of most scopes;
    /// an encoder that asks saves itself a look for each of them.
    pub fn has_only_attributes(&self) -> bool {
        Items(self.record.items()).all(|item| item.is_attribute())
    }

    /// The trace that the scope belongs to; never zero.
    pub fn trace_id(&self) -> u128 {
        self.source.trace_id(&self.record)
    }

    /// The scope's own id; never zero.
    pub fn span_id(&self) -> u64 {
        self.source.span_id(&self.record, self.record.span())
    }

    /// The id of the enclosing scope, which may be another process's.
    pub fn parent_span_id(&self) -> Option<u64> {
        self.source.parent_span_id(&self.record)
    }

    /// Whether its trace is one that is recorded; see [`Sampler`](crate::Sampler).
    pub fn is_sampled(&self) -> bool {
        self.source.is_sampled(&self.record)
    }

    /// The thread on which it closed.
    pub fn thread(&self) -> super::ThreadIdentity<'a> {
        self.source.thread_identity()
    }
}

impl fmt::Debug for Timing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timing")
            .field("scope", &self.scope())
            .field("duration", &self.duration())
            .field("depth", &self.depth())
            .field("error_type", &self.error_type())
            .field("attributes", &self.attributes().collect::<Vec<_>>())
            .finish()
    }
}

/// Attributes as (key, value); see [`Timing::attributes`].
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    all: Items<'a>,
    rest: Items<'a>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(items: &'a [u64]) -> Self {
        Self { all: Items(items), rest: Items(items) }
    }

    /// The value of `key`, the last one given.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.all.filter(|item| item.key.text() == key).filter_map(|item| item.value()).last()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'static str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut before = Items(self.all.0.get(..self.all.0.len() - self.rest.0.len())?);
            let item = self.rest.next()?;
            if item.is_attribute() && !before.any(|other| other.key == item.key && other.is_attribute()) {
                let later = self.rest.filter(|later| later.key == item.key && later.is_attribute()).last();
                return Some((item.key.text(), later.unwrap_or(item).value()?));
            }
        }
    }
}

/// Something that happened at one moment inside a scope.
#[derive(Clone, Copy)]
pub struct PointEvent<'a> {
    name: Name,
    ticks: u64,
    items: Items<'a>,
    source: &'a Source<'a>,
}

impl<'a> PointEvent<'a> {
    /// What happened.
    pub fn name(&self) -> &'static str {
        self.name.text()
    }

    /// When, in nanoseconds since 1970-01-01 UTC.
    pub fn unix_ns(&self) -> u64 {
        self.source.timeline().unix_ns(self.ticks)
    }

    /// Keys and values.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.items.0)
    }
}

/// A reference to another scope, in this process or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The other scope's trace.
    pub trace_id: u128,
    /// The other scope.
    pub span_id: u64,
}
