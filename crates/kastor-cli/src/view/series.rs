//! Metrics as the page lists them, and their values over time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::capture::{Capture, Content};
use super::sums::Series;
use super::timeline::Range;

/// Series of one answer.
const MOST_SERIES: usize = 20_000;

/// All metrics of a capture.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub(super) series: Vec<ListedSeries>,
    /// Series that found no room here.
    left_out: u64,
    /// Whether events of `metric!` are among them; they are not where only the index was read.
    has_events: bool,
}

/// One metric.
#[derive(Debug, Serialize)]
pub(super) struct ListedSeries {
    pub(super) id: usize,
    process: u32,
    path: String,
    name: String,
    labels: BTreeMap<String, String>,
    #[serde(rename = "type")]
    kind: &'static str,
    unit: Option<String>,
    help: Option<String>,
    calls: u64,
    sum: Option<f64>,
    last: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

/// Lists the metrics of a capture.
pub(super) fn listed(capture: &Capture) -> Listed {
    let all = &capture.metrics;
    Listed {
        series: all.series.iter().enumerate().take(MOST_SERIES).map(|(id, series)| of_series(id, series)).collect(),
        left_out: all.left_out + all.series.len().saturating_sub(MOST_SERIES) as u64,
        has_events: matches!(capture.content, Content::Scopes(_)),
    }
}

fn of_series(id: usize, series: &Series) -> ListedSeries {
    let has_spread = matches!(series.kind, "histogram" | "event");
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    let quantile = |q| finite(series.values.quantile(q).filter(|_| has_spread));
    ListedSeries {
        id,
        process: series.process,
        path: series.path.to_string(),
        name: series.name().to_owned(),
        labels: series.labels.clone(),
        kind: series.kind,
        unit: series.unit.clone(),
        help: series.help.clone(),
        calls: series.calls,
        sum: finite(series.sum),
        last: finite(series.last),
        min: finite(series.min),
        max: finite(series.max),
        p50: quantile(0.50),
        p95: quantile(0.95),
        p99: quantile(0.99),
    }
}

/// Values over time: one a pixel, the newest, with the smallest and the largest there.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Points {
    t: Vec<u64>,
    value: Vec<f64>,
    min: Vec<f64>,
    max: Vec<f64>,
}

/// The values of a series in a time, and the one before and behind, so that a line can be drawn to the edge.
pub(super) fn points(capture: &Capture, series: &Series, range: Range) -> Points {
    let all = &series.points;
    let first = all.partition_point(|(at_ns, _)| *at_ns < range.from_ns).saturating_sub(1);
    let end = (all.partition_point(|(at_ns, _)| *at_ns < range.to_ns) + 1).min(all.len());
    let pixel_ns = range.pixel_ns();
    let mut points = Points::default();
    let mut pixel = None;
    for (at_ns, value) in all.get(first..end).unwrap_or(&[]) {
        let t = at_ns.saturating_sub(capture.start_ns);
        let is_near = pixel.replace(at_ns / pixel_ns) == Some(at_ns / pixel_ns);
        let last = (points.t.last_mut(), points.value.last_mut(), points.min.last_mut(), points.max.last_mut());
        if let (true, (Some(last_t), Some(last), Some(min), Some(max))) = (is_near, last) {
            (*last_t, *last) = (t, *value);
            (*min, *max) = (min.min(*value), max.max(*value));
            continue;
        }
        points.t.push(t);
        points.value.push(*value);
        points.min.push(*value);
        points.max.push(*value);
    }
    points
}
