//! Handles: a series that is looked up once, with path and labels fixed when the handle is made.
//!
//! Justified by the `on_counter_handle` case of the benchmark.

use std::sync::Arc;

use super::{Amount, hot_cell, keep_hot, lane, path_here, record_in_lane, remembered, with_items};
use crate::{
    callsite,
    context::{Telemetry, current_lane},
    name::{Path, name, path},
    scope::checked,
    stack,
    sync::{AtomicU32, Ordering::*},
    thread::{Block, CellWanted, Here, block, lane_flag},
    value::{MetricType, Value},
};

impl Telemetry {
    /// A counter under the current path, with fixed labels.
    pub fn counter(&self, metric: &str, labels: &[(&str, Value<'_>)]) -> Counter {
        Counter(Handle::new(self, metric, labels))
    }

    /// A gauge under the current path, with fixed labels.
    pub fn gauge(&self, metric: &str, labels: &[(&str, Value<'_>)]) -> Gauge {
        Gauge(Handle::new(self, metric, labels))
    }

    /// A histogram under the current path, with fixed labels.
    pub fn histogram(&self, metric: &str, labels: &[(&str, Value<'_>)]) -> Histogram {
        Histogram(Handle::new(self, metric, labels))
    }
}

/// Adds to one series. Cheap to clone, and to use from any thread.
#[derive(Clone)]
pub struct Counter(Handle);

impl Counter {
    /// Adds an increment. A negative one makes the series no longer monotonic.
    #[inline]
    pub fn add(&self, increment: impl Into<Amount>) {
        self.0.record(MetricType::Counter, increment.into());
    }
}

/// Sets one series. Cheap to clone, and to use from any thread.
#[derive(Clone)]
pub struct Gauge(Handle);

impl Gauge {
    /// Sets the current value.
    #[inline]
    pub fn set(&self, value: impl Into<Amount>) {
        self.0.record(MetricType::Gauge, value.into());
    }
}

/// Collects a distribution in one series. Cheap to clone, and to use from any thread.
#[derive(Clone)]
pub struct Histogram(Handle);

impl Histogram {
    /// Adds a value.
    #[inline]
    pub fn record(&self, value: impl Into<Amount>) {
        self.0.record(MetricType::Histogram, value.into());
    }
}

#[derive(Clone)]
struct Handle {
    /// Place of the slot in every thread's block, and the key there. At hand for the hot path.
    place: u32,
    serial: u32,
    bound: Option<Arc<Bound>>,
}

struct Bound {
    telemetry: Telemetry,
    path: Path,
    depth: u32,
    labels: Box<[u64]>,
    index: u32,
}

/// No two handles share a serial; bit 31 keeps them apart from paths.
static NEXT_SERIAL: AtomicU32 = AtomicU32::new(0);

impl Drop for Bound {
    fn drop(&mut self) {
        callsite::give_back_index(self.index);
    }
}

impl Handle {
    fn new(telemetry: &Telemetry, metric: &str, labels: &[(&str, Value<'_>)]) -> Self {
        let bound = block(|t| {
            let lane = lane(t, Some(telemetry), None)?;
            let path = path(path_here(t), checked(lane, metric));
            with_items(t, &[], &[], |items| {
                labels.iter().for_each(|(key, value)| items.attribute(name(key), value));
                let index = callsite::take_index();
                let (telemetry, depth) = (telemetry.clone(), stack::levels(t));
                Some(Arc::new(Bound { telemetry, path, depth, labels: items.items().into(), index }))
            })
        });
        let serial = NEXT_SERIAL.fetch_add(1, Relaxed) & !(1 << 31) | 1 << 31;
        Self { place: callsite::hot_place(bound.as_ref().map_or(0, |bound| bound.index)), serial, bound }
    }

    #[inline(always)]
    fn record(&self, metric_type: MetricType, amount: Amount) {
        let here = Here::new();
        let t = here.block();
        match hot_cell(t, self.place, self.serial) {
            Some(cell) => amount.record(metric_type, cell, t),
            None => {
                let (kind, word) = amount.split();
                self.record_warm(metric_type, kind, word);
            }
        }
    }

    /// The slot in the thread's block is empty, or another handle's. That of the lane may have what is wanted.
    #[inline(never)]
    fn record_warm(&self, metric_type: MetricType, kind: u8, word: u64) {
        let Some(bound) = &self.bound else { return };
        let amount = Amount::joined((kind, word));
        block(|t| match remembered(t, bound.index, self.serial) {
            Some(cell) => {
                amount.record(metric_type, cell, t);
                keep_hot(t, bound.index, self.serial, cell);
            }
            None => self.record_cold(t, metric_type, amount),
        });
    }

    #[cold]
    #[inline(never)]
    fn record_cold(&self, t: &Block, metric_type: MetricType, amount: Amount) {
        let Some(bound) = &self.bound else { return };
        // SAFETY: the vacant cursor or one of a lane of this thread.
        if unsafe { &*t.lane.get() }.flags.load(Relaxed) & lane_flag::VACANT != 0 {
            // Where the handle's context is the current one, the hot path finds its lane from now on.
            current_lane(t);
        }
        let Some(lane) = lane(t, Some(&bound.telemetry), None) else { return };
        let Bound { path, depth, ref labels, index, .. } = **bound;
        let slot = Some((index, self.serial));
        let wanted = CellWanted { path, metric_type, labels, slot };
        record_in_lane(t, lane, &wanted, depth, amount);
    }
}
