//! A metric event.

use std::fmt;

use super::{batch::Source, timing::Attributes};
use crate::{
    getters::getters,
    name::Path,
    record::{self, Record},
    thread::Call,
    value::{Items, MetricType, Value},
};

getters! {
    /// One metric event.
    ///
    /// A metric event reads no clock: its time is the last one that its thread read, usually the moment at which the
    /// innermost scope was opened or the previous one closed.
    #[derive(Clone, Copy)]
    pub struct Metric<'a> {
        /// Number of scopes around it.
        depth: u32,
        /// The value.
        value: Value<'a>,
        /// The instrument, if it was one: plain `metric!` has none.
        metric_type: Option<MetricType>,
    } with {
        path: Path,
        ticks: u64,
        items: Items<'a>,
        record: Option<Record<'a>>,
        source: &'a Source<'a>,
    }
}

impl<'a> Metric<'a> {
    /// A view of a metric record.
    pub(crate) fn from_record(record: Record<'a>, source: &'a Source<'a>) -> Self {
        let mut items = Items(record.items());
        let value = match record.flags() & record::flag::VALUE {
            record::flag::VALUE_I64 => Value::I64(record.value() as i64),
            record::flag::VALUE_U64 => Value::U64(record.value()),
            record::flag::VALUE_F64 => Value::F64(f64::from_bits(record.value())),
            _ => items.next().and_then(|item| item.value()).unwrap_or(Value::Null),
        };
        let ticks = record.start();
        let (path, depth) = (record.path(), record.depth());
        Self { path, depth, value, metric_type: None, ticks, items, record: Some(record), source }
    }

    /// An event that never becomes a record: a call of an aggregated instrument, for inline reporters.
    pub(crate) fn from_call(call: &Call<'a>, source: &'a Source<'a>) -> Self {
        let &Call { path, depth, metric_type, value, labels, tick } = call;
        let metric_type = Some(metric_type);
        Self { path, depth, value, metric_type, ticks: tick, items: Items(labels), record: None, source }
    }

    pub(crate) fn record_path(&self) -> Path {
        self.path
    }

    /// The path of the enclosing scope and the metric's name, joined with `.`.
    pub fn scope(&self) -> &'static str {
        self.path.text()
    }

    /// The metric's own name.
    pub fn name(&self) -> &'static str {
        self.path.name().text()
    }

    /// The path's number in this process.
    pub fn path_id(&self) -> u32 {
        self.path.0
    }

    /// The path of the enclosing scope, if there is one.
    pub fn parent_scope(&self) -> Option<&'static str> {
        self.path.parent_text(self.depth)
    }

    /// Keys and values, as they were given.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.items.0)
    }

    /// The last time that the thread read before the event: nanoseconds since 1970-01-01 UTC.
    pub fn unix_ns(&self) -> u64 {
        self.source.timeline().unix_ns(self.ticks)
    }

    /// The same time on the monotonic clock, in nanoseconds.
    pub fn monotonic_ns(&self) -> u64 {
        self.source.timeline().monotonic_ns(self.ticks)
    }

    /// The trace of the enclosing scope, if there is one.
    pub fn trace_id(&self) -> Option<u128> {
        self.record.filter(|record| record.parent() != 0).map(|record| self.source.trace_id(&record))
    }

    /// The enclosing scope's id, if there is one.
    pub fn parent_span_id(&self) -> Option<u64> {
        self.source.parent_span_id(&self.record?)
    }

    /// The thread that recorded it.
    pub fn thread(&self) -> super::ThreadIdentity<'a> {
        self.source.thread_identity()
    }
}

impl fmt::Debug for Metric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metric")
            .field("scope", &self.scope())
            .field("value", &self.value())
            .field("metric_type", &self.metric_type())
            .field("attributes", &self.attributes().collect::<Vec<_>>())
            .finish()
    }
}
