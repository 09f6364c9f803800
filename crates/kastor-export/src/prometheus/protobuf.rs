//! The protobuf format: one `io.prometheus.client.MetricFamily` after another, each behind its length.
//!
//! The messages are the part of the `client_model` schema that is used here. Histograms are native ones of schema 3, which
//! is the scale that kastor records in, and carry the classic buckets besides, since those have the exemplars.
//!
//! A native bucket's bounds are powers of 2^(1/8) in the unit that is written. Values of the program's own histograms are
//! written in the unit that they were recorded in, so their buckets are the recorded ones. Scope durations are recorded
//! in nanoseconds and written in seconds, and a second is no power of 2^(1/8) of nanoseconds: each bucket keeps its
//! count, under bounds that are 1.6 % too high.

use std::borrow::Cow;

use kastor::{Buckets, Exemplar as KastorExemplar, Number};
use prost::Message;

use super::family::{Distribution, Family, Kind, Labels, NS, SampleValue};

/// kastor's scale.
const SCHEMA: i32 = kastor::Histogram::SCALE;
/// A bucket of nanoseconds is called this much less in seconds: 8 · log2(10^9) = 239.18, rounded.
const SECONDS_SHIFT: i32 = 239;
/// Empty buckets in a row that are cheaper written than left out.
const MAX_GAP: usize = 2;
/// Below it, values count as zero: kastor has a bucket for every normal number.
const ZERO_THRESHOLD: f64 = f64::MIN_POSITIVE;

/// Appends all families.
pub(super) fn encode(families: &[Family<'_>], out: &mut Vec<u8>) {
    for family in families {
        let message = MetricFamily {
            name: match family.kind {
                Kind::Counter => format!("{}_total", family.name),
                _ => family.name.clone(),
            },
            help: family.help.to_string(),
            kind: Some(match family.kind {
                Kind::Counter => 0,
                Kind::Gauge => 1,
                Kind::Histogram => 4,
            }),
            metric: family.samples.iter().map(|sample| metric(family.kind, &sample.labels, &sample.value)).collect(),
            unit: family.unit.clone(),
        };
        // A vector grows as needed, so there is always room.
        let _ = message.encode_length_delimited(out);
    }
}

fn metric(kind: Kind, labels: &Labels<'_>, value: &SampleValue<'_>) -> Metric {
    let label = labels.iter().map(|(name, value)| pair(name, value.clone())).collect();
    let number = match value {
        SampleValue::Distribution(distribution) => {
            return Metric { label, histogram: Some(histogram(distribution)), ..Metric::default() };
        }
        SampleValue::Number(Number::Integer(integer)) => *integer as f64,
        SampleValue::Number(Number::Float(float)) => *float,
        SampleValue::Seconds(ns) => *ns as f64 / NS,
    };
    match kind {
        Kind::Counter => Metric { label, counter: Some(Counter { value: Some(number) }), ..Metric::default() },
        _ => Metric { label, gauge: Some(Gauge { value: Some(number) }), ..Metric::default() },
    }
}

fn histogram(distribution: &Distribution<'_>) -> Histogram {
    let shift = if distribution.is_duration { SECONDS_SHIFT } else { 0 };
    let source = &distribution.histogram;
    let (positive_span, positive_delta) = spans(source.positive(), shift);
    let (negative_span, negative_delta) = spans(source.negative(), shift);
    let bucket = distribution
        .octaves()
        .map(|(bound, has_exemplar, count)| Bucket {
            cumulative_count: Some(count),
            upper_bound: Some(bound),
            exemplar: distribution
                .exemplar
                .as_ref()
                .filter(|_| has_exemplar)
                .map(|found| exemplar(found, distribution.is_duration)),
        })
        .collect();
    Histogram {
        sample_count: Some(distribution.count),
        sample_sum: Some(distribution.sum()),
        bucket,
        schema: Some(SCHEMA),
        zero_threshold: Some(ZERO_THRESHOLD),
        zero_count: Some(source.zeros()),
        negative_span,
        negative_delta,
        positive_span,
        positive_delta,
    }
}

fn exemplar(found: &KastorExemplar, is_duration: bool) -> Exemplar {
    let KastorExemplar { value, unix_ns, trace_id, span_id } = *found;
    Exemplar {
        label: vec![
            pair("span_id", format!("{span_id:016x}").into()),
            pair("trace_id", format!("{trace_id:032x}").into()),
        ],
        value: Some(if is_duration { value / NS } else { value }),
        timestamp: Some(Timestamp {
            seconds: i64::try_from(unix_ns / 1_000_000_000).unwrap_or(i64::MAX),
            nanos: (unix_ns % 1_000_000_000) as i32,
        }),
    }
}

/// Runs of occupied buckets, and each bucket's count less that of the one before.
fn spans(buckets: &Buckets, shift: i32) -> (Vec<BucketSpan>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<BucketSpan>, Vec<i64>) = (Vec::new(), Vec::new());
    let mut before = 0_i64;
    let mut gap = 0_usize;
    for (at, count) in buckets.counts().iter().enumerate() {
        if *count == 0 {
            gap += 1;
            continue;
        }
        match spans.last_mut() {
            Some(span) if gap <= MAX_GAP => {
                for _ in 0..gap {
                    deltas.push(-before);
                    before = 0;
                }
                span.length = Some(span.length.unwrap_or(0).saturating_add(gap as u32 + 1));
            }
            Some(_) => spans.push(BucketSpan { offset: Some(gap as i32), length: Some(1) }),
            None => {
                // Prometheus calls a bucket by its upper bound, kastor by its lower one.
                let index = buckets.offset().saturating_add(at as i32).saturating_add(1 - shift);
                spans.push(BucketSpan { offset: Some(index), length: Some(1) });
            }
        }
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        (before, gap) = (count, 0);
    }
    (spans, deltas)
}

fn pair(name: &str, value: Cow<'_, str>) -> LabelPair {
    LabelPair { name: name.to_owned(), value: value.into_owned() }
}

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    /// 0 counter, 1 gauge, 4 histogram.
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Gauge>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    /// Of the first span the index of its first bucket, of others the empty buckets before it.
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}
