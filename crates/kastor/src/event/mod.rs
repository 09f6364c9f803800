//! What happened, as plain data: records in memory, and the views that reporters get of them.
//!
//! A record is written once, when its scope closes, and is complete in itself but for its root's flow
//! (`record` draws the layout). [`Timing`] and [`Metric`] are views of one record, [`Batch`] of many,
//! [`Snapshot`] holds aggregates. Text, time and ids are worked out when a getter asks.

mod batch;
mod histogram;
mod metric;
mod snapshot;
mod timing;

pub use self::{
    batch::{Batch, Event, Events, Process, ThreadIdentity},
    histogram::{Buckets, Histogram},
    metric::Metric,
    snapshot::{Exemplar, Number, ScopeAggregate, SeriesAggregate, Snapshot},
    timing::{Attributes, Link, Outcome, PointEvent, Timing},
};
pub(crate) use self::{
    batch::{BatchFacts, Source, mix, span_id, trace_id},
    histogram::{JUST_BELOW, bucket_inside},
    snapshot::Collected,
};
pub use crate::value::MetricType;
