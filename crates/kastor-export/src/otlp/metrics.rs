//! From aggregates to OTLP metrics, and from a numeric metric event to one point.
//!
//! | what | becomes |
//! |---|---|
//! | durations of a path | `kastor.scope.duration`, exponential histogram of scale 3, with the longest call as exemplar |
//! | self time of a path | `kastor.scope.self_time`, a sum that is not monotonic: it may shrink when a child closes |
//! | failures of a path | `kastor.scope.errors`, a monotonic sum |
//! | `count!` | a sum under the metric's name, monotonic unless an increment was negative |
//! | `gauge!` | a gauge: the newest value |
//! | `histogram!` | an exponential histogram of scale 3 |
//! | `metric!` with a number | a gauge with one point, at the event's time, with its trace as exemplar |
//! | the context's own accounts | `kastor.events.emitted`, `kastor.reporter.*`, … |
//!
//! The path of the enclosing scope is the attribute `kastor.scope`. Sums are cumulative since the context was built.
//! Durations are in seconds, as the semantic conventions ask; the buckets were counted in nanoseconds, and the bounds of
//! the two do not coincide: each bucket becomes the one that holds most of it, which moves its bounds by 1.6 %.
//! [`DurationUnit::Nanoseconds`] keeps them as they are. Count, sum, least and greatest are exact in both.

use kastor::{
    Buckets, Exemplar, Histogram, Metric, MetricType, Number, ScopeAggregate, SeriesAggregate, Snapshot, Stats,
};
use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        self as proto, AggregationTemporality::Cumulative, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
        NumberDataPoint, Sum, exemplar, exponential_histogram_data_point as exponential, metric::Data,
        number_data_point,
    },
};
use prost::Message;

use super::value::{AttributeWriter, text};
use crate::redact::Redaction;

/// In what durations of scopes are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DurationUnit {
    /// `s`, as OpenTelemetry's semantic conventions ask.
    #[default]
    Seconds,
    /// `ns`, with the buckets exactly as they were counted.
    Nanoseconds,
}

impl DurationUnit {
    fn name(self) -> &'static str {
        match self {
            DurationUnit::Seconds => "s",
            DurationUnit::Nanoseconds => "ns",
        }
    }

    fn of_ns(self, ns: f64) -> f64 {
        match self {
            DurationUnit::Seconds => ns / 1e9,
            DurationUnit::Nanoseconds => ns,
        }
    }

    /// What to add to a bucket's number: 10^9 is 2^(239.18 / 8).
    fn bucket_shift(self) -> i32 {
        match self {
            DurationUnit::Seconds => -239,
            DurationUnit::Nanoseconds => 0,
        }
    }
}

/// Points of one metric in one message at most; a metric with more comes in several.
const MOST_POINTS: usize = 256;

pub(crate) struct MetricEncoder {
    attributes: AttributeWriter,
    unit: DurationUnit,
    bytes: Vec<u8>,
}

impl MetricEncoder {
    pub(crate) fn new(redaction: Redaction, unit: DurationUnit) -> Self {
        Self { attributes: AttributeWriter::new(redaction), unit, bytes: Vec::new() }
    }

    /// Calls `emit` with the bytes of each metric message of a snapshot, and of the accounts of its context.
    pub(crate) fn snapshot(&mut self, snapshot: &Snapshot<'_>, stats: &Stats, mut emit: impl FnMut(&[u8])) {
        let times = Times { start_ns: snapshot.start_unix_ns(), now_ns: snapshot.unix_ns() };
        self.scopes(snapshot.scopes(), times, &mut emit);
        self.series(snapshot.series(), times, &mut emit);
        // Sums from a capture come without accounts; a context that delivers has a reporter.
        if !stats.reporters().is_empty() {
            self.accounts(stats, times, &mut emit);
        }
    }

    /// The bytes of the metric message of an event; none if its value is no number.
    pub(crate) fn event(&mut self, metric: &Metric<'_>) -> Option<&[u8]> {
        let value = match metric.value() {
            kastor::Value::I64(value) => number_data_point::Value::AsInt(value),
            kastor::Value::U64(value) => number(Number::Integer(i128::from(value))),
            value => number_data_point::Value::AsDouble(value.as_f64()?),
        };
        let mut attributes = self.place(metric.parent_scope());
        self.attributes.write(&mut attributes, metric.attributes(), usize::MAX, usize::MAX);
        let exemplar = metric.trace_id().zip(metric.parent_span_id()).map(|(trace_id, span_id)| proto::Exemplar {
            time_unix_nano: metric.unix_ns(),
            span_id: span_id.to_be_bytes().to_vec(),
            trace_id: trace_id.to_be_bytes().to_vec(),
            value: Some(match value {
                number_data_point::Value::AsInt(value) => exemplar::Value::AsInt(value),
                number_data_point::Value::AsDouble(value) => exemplar::Value::AsDouble(value),
            }),
            ..proto::Exemplar::default()
        });
        let point = NumberDataPoint {
            attributes,
            time_unix_nano: metric.unix_ns(),
            exemplars: exemplar.into_iter().collect(),
            value: Some(value),
            ..NumberDataPoint::default()
        };
        let message = proto::Metric {
            name: metric.name().to_owned(),
            data: Some(Data::Gauge(Gauge { data_points: vec![point] })),
            ..proto::Metric::default()
        };
        Some(self.encode(&message))
    }

    fn scopes(&mut self, scopes: &[ScopeAggregate], times: Times, emit: &mut impl FnMut(&[u8])) {
        let unit = self.unit;
        for scopes in scopes.chunks(MOST_POINTS) {
            let durations = scopes.iter().map(|scope| {
                let exemplar = scope.exemplar().map(|exemplar| as_exemplar(exemplar, unit));
                ExponentialHistogramDataPoint {
                    attributes: self.place(Some(scope.path())),
                    exemplars: exemplar.into_iter().collect(),
                    ..histogram(scope.durations_ns(), unit, times)
                }
            });
            let data = exponential_histogram(durations.collect());
            let about = About { name: "kastor.scope.duration", unit: unit.name(), help: "How long scopes were open." };
            emit(self.encode(&about.with(data)));

            let self_times = scopes.iter().map(|scope| {
                let value = unit.of_ns(scope.self_time().as_nanos() as f64);
                self.point(Some(scope.path()), number_data_point::Value::AsDouble(value), times)
            });
            let data = sum(self_times.collect(), false);
            let help = "Time in scopes less the time in the scopes inside them.";
            emit(self.encode(&About { name: "kastor.scope.self_time", unit: unit.name(), help }.with(data)));

            let failed = scopes.iter().filter(|scope| scope.errors() > 0);
            let errors = failed.map(|scope| self.point(Some(scope.path()), whole(scope.errors()), times));
            let data = sum(errors.collect(), true);
            let about = About { name: "kastor.scope.errors", unit: "{scope}", help: "Scopes that failed." };
            emit_if_any(self.encode(&about.with(data)), scopes.iter().any(|scope| scope.errors() > 0), emit);
        }
    }

    /// Series of one name and instrument are one metric.
    fn series(&mut self, series: &[SeriesAggregate], times: Times, emit: &mut impl FnMut(&[u8])) {
        let key = |series: &SeriesAggregate| (series.name(), series.metric_type());
        let mut sorted: Vec<&SeriesAggregate> = series.iter().collect();
        sorted.sort_by_key(|series| key(series));
        for of_metric in sorted.chunk_by(|a, b| key(a) == key(b)) {
            let Some(first) = of_metric.first() else { continue };
            // A metric whose series do not agree is none to a collector.
            let is_monotonic = of_metric.iter().all(|series| series.is_monotonic());
            let about = About {
                name: first.name(),
                unit: first.unit().unwrap_or_default(),
                help: first.help().unwrap_or_default(),
            };
            for series in of_metric.chunks(MOST_POINTS) {
                let data = match first.metric_type() {
                    MetricType::Gauge => Data::Gauge(Gauge { data_points: self.gauges(series, times) }),
                    MetricType::Histogram => exponential_histogram(self.histograms(series, times)),
                    _ => sum(self.counters(series, times), is_monotonic),
                };
                emit(self.encode(&about.with(data)));
            }
        }
    }

    fn counters(&mut self, series: &[&SeriesAggregate], times: Times) -> Vec<NumberDataPoint> {
        let points = series.iter().map(|series| NumberDataPoint {
            attributes: self.labels(series),
            start_time_unix_nano: times.start_ns,
            time_unix_nano: times.now_ns,
            value: Some(number(series.sum())),
            ..NumberDataPoint::default()
        });
        points.collect()
    }

    /// A gauge that never had a finite value has no point.
    fn gauges(&mut self, series: &[&SeriesAggregate], times: Times) -> Vec<NumberDataPoint> {
        let with_value = series.iter().filter_map(|series| Some((series, series.last()?)));
        let points = with_value.map(|(series, last)| NumberDataPoint {
            attributes: self.labels(series),
            time_unix_nano: times.now_ns,
            value: Some(number_data_point::Value::AsDouble(last)),
            ..NumberDataPoint::default()
        });
        points.collect()
    }

    fn histograms(&mut self, series: &[&SeriesAggregate], times: Times) -> Vec<ExponentialHistogramDataPoint> {
        let points = series.iter().map(|series| ExponentialHistogramDataPoint {
            attributes: self.labels(series),
            ..histogram(series.values(), DurationUnit::Nanoseconds, times)
        });
        points.collect()
    }

    /// What kastor says of itself.
    fn accounts(&mut self, stats: &Stats, times: Times, emit: &mut impl FnMut(&[u8])) {
        let whole_context = [
            ("kastor.events.emitted", "{event}", "Scopes closed and plain metrics recorded.", stats.emitted()),
            (
                "kastor.values.cut",
                "{value}",
                "Values and attributes cut or left out for their size.",
                stats.cut_values(),
            ),
            ("kastor.names.overflowed", "{name}", "Names and paths that found no room.", stats.overflowed_names()),
            ("kastor.series.overflowed", "{series}", "Sets of labels that found no room.", stats.overflowed_series()),
        ];
        for (name, unit, help, value) in whole_context {
            let points = vec![self.point(None, whole(value), times)];
            emit(self.encode(&About { name, unit, help }.with(sum(points, true))));
        }
        let reporters = stats.reporters();
        let each = |value: fn(&kastor::ReporterStats) -> u64| {
            let points = reporters.iter().enumerate().map(|(at, reporter)| NumberDataPoint {
                attributes: vec![reporter_name(at, reporter)],
                start_time_unix_nano: times.start_ns,
                time_unix_nano: times.now_ns,
                value: Some(whole(value(reporter))),
                ..NumberDataPoint::default()
            });
            points.collect::<Vec<_>>()
        };
        let of_reporters = [
            ("kastor.reporter.delivered", "Events that reached their destination.", each(|it| it.delivered()), true),
            ("kastor.reporter.queued", "Events that wait in memory.", each(|it| it.queued()), false),
            ("kastor.reporter.spooled", "Events that wait on disk.", each(|it| it.spooled()), false),
            ("kastor.reporter.failures", "Calls that failed.", each(|it| it.failures()), true),
        ];
        for (name, help, points, is_monotonic) in of_reporters {
            emit(self.encode(&About { name, unit: "{event}", help }.with(sum(points, is_monotonic))));
        }
        let dropped = reporters.iter().enumerate().flat_map(|(at, reporter)| {
            let drops = reporter.dropped();
            let points = drops.iter().map(|(reason, count)| NumberDataPoint {
                attributes: vec![reporter_name(at, reporter), text("reason", reason.as_str())],
                start_time_unix_nano: times.start_ns,
                time_unix_nano: times.now_ns,
                value: Some(whole(count)),
                ..NumberDataPoint::default()
            });
            points.collect::<Vec<_>>()
        });
        let points: Vec<NumberDataPoint> = dropped.collect();
        let has_any = !points.is_empty();
        let about =
            About { name: "kastor.reporter.dropped", unit: "{event}", help: "Events that will not be delivered." };
        emit_if_any(self.encode(&about.with(sum(points, true))), has_any, emit);
    }

    fn point(&mut self, scope: Option<&str>, value: number_data_point::Value, times: Times) -> NumberDataPoint {
        NumberDataPoint {
            attributes: self.place(scope),
            start_time_unix_nano: times.start_ns,
            time_unix_nano: times.now_ns,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    fn labels(&mut self, series: &SeriesAggregate) -> Vec<KeyValue> {
        let mut attributes = match series.labels().get("kastor.scope") {
            None => self.place(parent(series)),
            // The program's own label wins.
            Some(_) => Vec::new(),
        };
        self.attributes.write(&mut attributes, series.labels(), usize::MAX, usize::MAX);
        attributes
    }

    fn place(&mut self, scope: Option<&str>) -> Vec<KeyValue> {
        scope.map(|scope| text("kastor.scope", scope)).into_iter().collect()
    }

    fn encode(&mut self, message: &proto::Metric) -> &[u8] {
        self.bytes.clear();
        // Writing into a `Vec` cannot fail for want of room.
        let _ = message.encode(&mut self.bytes);
        &self.bytes
    }
}

/// The path of the enclosing scope.
fn parent(series: &SeriesAggregate) -> Option<&'static str> {
    series.path().strip_suffix(series.name())?.strip_suffix('.')
}

/// From when to when sums run.
#[derive(Clone, Copy)]
struct Times {
    start_ns: u64,
    now_ns: u64,
}

/// What a metric is, without its points.
struct About<'a> {
    name: &'a str,
    unit: &'a str,
    help: &'a str,
}

impl About<'_> {
    fn with(&self, data: Data) -> proto::Metric {
        proto::Metric {
            name: self.name.to_owned(),
            description: self.help.to_owned(),
            unit: self.unit.to_owned(),
            data: Some(data),
            ..proto::Metric::default()
        }
    }
}

fn emit_if_any(bytes: &[u8], has_any: bool, emit: &mut impl FnMut(&[u8])) {
    if has_any {
        emit(bytes);
    }
}

/// Two reporters of one type are told apart by their place.
fn reporter_name(at: usize, reporter: &kastor::ReporterStats) -> KeyValue {
    let name = reporter.name();
    let short = name.split('<').next().unwrap_or(name).rsplit("::").next().unwrap_or(name);
    text("reporter", format!("{at}:{short}"))
}

fn sum(data_points: Vec<NumberDataPoint>, is_monotonic: bool) -> Data {
    Data::Sum(Sum { data_points, aggregation_temporality: Cumulative as i32, is_monotonic })
}

fn exponential_histogram(data_points: Vec<ExponentialHistogramDataPoint>) -> Data {
    Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality: Cumulative as i32 })
}

fn histogram(values: &Histogram, unit: DurationUnit, times: Times) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        start_time_unix_nano: times.start_ns,
        time_unix_nano: times.now_ns,
        count: values.count(),
        sum: Some(unit.of_ns(values.sum())),
        scale: Histogram::SCALE,
        zero_count: values.zeros(),
        positive: buckets(values.positive(), unit),
        negative: buckets(values.negative(), unit),
        min: values.min().map(|min| unit.of_ns(min)),
        max: values.max().map(|max| unit.of_ns(max)),
        ..ExponentialHistogramDataPoint::default()
    }
}

/// Without the empty buckets at both ends; none if all are.
fn buckets(buckets: &Buckets, unit: DurationUnit) -> Option<exponential::Buckets> {
    let counts = buckets.counts();
    let first = counts.iter().position(|count| *count > 0)?;
    let last = counts.iter().rposition(|count| *count > 0)?;
    Some(exponential::Buckets {
        offset: buckets.offset() + first as i32 + unit.bucket_shift(),
        bucket_counts: counts.get(first..=last)?.to_vec(),
    })
}

fn as_exemplar(exemplar: Exemplar, unit: DurationUnit) -> proto::Exemplar {
    proto::Exemplar {
        time_unix_nano: exemplar.unix_ns,
        span_id: exemplar.span_id.to_be_bytes().to_vec(),
        trace_id: exemplar.trace_id.to_be_bytes().to_vec(),
        value: Some(exemplar::Value::AsDouble(unit.of_ns(exemplar.value))),
        ..proto::Exemplar::default()
    }
}

/// An integer stays one as long as it fits.
fn number(number: Number) -> number_data_point::Value {
    match number {
        Number::Integer(value) => match i64::try_from(value) {
            Ok(value) => number_data_point::Value::AsInt(value),
            Err(_) => number_data_point::Value::AsDouble(value as f64),
        },
        Number::Float(value) => number_data_point::Value::AsDouble(value),
    }
}

fn whole(value: u64) -> number_data_point::Value {
    number(Number::Integer(i128::from(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_seconds_hold_what_those_of_nanoseconds_held() {
        let mut values = Histogram::default();
        for ns in [1.0, 999.0, 1.5e6, 1e9, 3.3e12] {
            values.record(ns);
        }
        let in_seconds = histogram(&values, DurationUnit::Seconds, Times { start_ns: 0, now_ns: 0 });
        let buckets = in_seconds.positive.unwrap();
        for ns in [1.0, 999.0, 1.5e6, 1e9, 3.3e12_f64] {
            // Within a bucket's bounds, moved by less than a fifth of a bucket.
            let at = (ns / 1e9).log2() * 8.0 - f64::from(buckets.offset);
            let holds = |at: f64| buckets.bucket_counts.get(at.floor() as usize).is_some_and(|count| *count > 0);
            assert!(holds(at) || holds(at - 0.2) || holds(at + 0.2), "{ns} ns");
        }
        assert_eq!((in_seconds.count, in_seconds.min, in_seconds.max), (5, Some(1e-9), Some(3300.0)));
        let as_counted = histogram(&values, DurationUnit::Nanoseconds, Times { start_ns: 0, now_ns: 0 });
        assert_eq!(as_counted.positive.unwrap().offset, -1);
    }

    #[test]
    fn integers_that_fit_stay_integers() {
        assert_eq!(whole(7), number_data_point::Value::AsInt(7));
        assert_eq!(whole(u64::MAX), number_data_point::Value::AsDouble(u64::MAX as f64));
        assert_eq!(number(Number::Float(0.5)), number_data_point::Value::AsDouble(0.5));
    }
}
