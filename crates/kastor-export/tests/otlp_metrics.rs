//! Aggregates and numeric events as a collector gets them, value by value.
#![cfg(feature = "otlp")]

mod other_side;

use std::time::Duration;

use kastor::{MockClock, Telemetry, Value, count, gauge, histogram, metric, scope};
use kastor_export::{DurationUnit, Otlp, OtlpConfig, Protocol};
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value},
    metrics::v1::{Metric, NumberDataPoint, exemplar, metric::Data, number_data_point},
};
use other_side::{LONG, server::Server};

fn told(server: &Server, change: impl FnOnce(OtlpConfig) -> OtlpConfig) -> (Telemetry, MockClock) {
    let clock = MockClock::new();
    let otlp = Otlp::new(change(OtlpConfig::new(server.url()))).unwrap();
    // No interval passes during a test: what comes is what a flush brings.
    let builder = Telemetry::builder().clock(clock.clone()).interval(Duration::from_secs(3600));
    (builder.reporter(otlp).build(), clock)
}

/// The newest of a name.
#[track_caller]
fn newest(server: &Server, name: &str) -> Metric {
    let metrics = server.metrics();
    let found = metrics.into_iter().rev().find(|metric| metric.name == name);
    found.unwrap_or_else(|| panic!("no metric {name}"))
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

/// The points of a sum or gauge.
#[track_caller]
fn points(metric: &Metric) -> &[NumberDataPoint] {
    match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => &sum.data_points,
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    }
}

fn integer(point: &NumberDataPoint) -> Option<i64> {
    match point.value {
        Some(number_data_point::Value::AsInt(value)) => Some(value),
        _ => None,
    }
}

fn float(point: &NumberDataPoint) -> Option<f64> {
    match point.value {
        Some(number_data_point::Value::AsDouble(value)) => Some(value),
        _ => None,
    }
}

/// 3 calls of `job` with 1, 2 and 4 ms, and in each of them `job.step` with half of that, of which one fails.
fn work(tele: &Telemetry, clock: &MockClock) {
    let _current = tele.override_current();
    for ms in [1, 2, 4] {
        let _job = scope!("job");
        let step = scope!("step");
        clock.advance(Duration::from_micros(ms * 500));
        if ms == 2 {
            step.fail("bad");
        }
        drop(step);
        clock.advance(Duration::from_micros(ms * 500));
    }
}

#[test]
fn durations_of_a_path_are_an_exponential_histogram_in_seconds_with_the_longest_as_exemplar() {
    let server = Server::start();
    let (tele, clock) = told(&server, |config| config);
    let began = clock.unix_ns();
    work(&tele, &clock);
    assert!(tele.flush(LONG).is_complete());

    let metric = newest(&server, "kastor.scope.duration");
    assert_eq!((metric.unit.as_str(), metric.description.is_empty()), ("s", false));
    let Some(Data::ExponentialHistogram(histogram)) = &metric.data else { panic!("{metric:?}") };
    assert_eq!(histogram.aggregation_temporality, 2, "cumulative");
    assert_eq!(histogram.data_points.len(), 2);
    for (path, scale) in [("job", 1e-3), ("job.step", 0.5e-3)] {
        let has_path = |attributes: &[KeyValue]| text(attributes, "kastor.scope").as_deref() == Some(path);
        let point = histogram.data_points.iter().find(|point| has_path(&point.attributes)).unwrap();
        assert_eq!((point.count, point.scale, point.zero_count, &point.negative), (3, 3, 0, &None));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (began, clock.unix_ns()));
        let near =
            |value: Option<f64>, of: f64| assert!((value.unwrap() / of - 1.0).abs() < 1e-12, "{path}: {value:?}");
        near(point.sum, 7.0 * scale);
        near(point.min, scale);
        near(point.max, 4.0 * scale);
        let buckets = point.positive.as_ref().unwrap();
        assert_eq!(buckets.bucket_counts.iter().sum::<u64>(), 3);
        for (at, count) in buckets.bucket_counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let middle = ((f64::from(buckets.offset + at as i32) + 0.5) / 8.0).exp2();
            let is_near = [1.0, 2.0, 4.0].iter().any(|value| (middle / (value * scale) - 1.0).abs() < 0.061);
            assert!(is_near && *count == 1, "{path}: {middle} s");
        }
        let [exemplar] = &point.exemplars[..] else { panic!("{point:?}") };
        let span = server.spans().into_iter().find(|span| span.span_id == exemplar.span_id).unwrap();
        assert_eq!(exemplar.trace_id, span.trace_id);
        let longest = (span.end_time_unix_nano - span.start_time_unix_nano) as f64 / 1e9;
        assert_eq!(exemplar.value, Some(exemplar::Value::AsDouble(longest)));
        near(Some(longest), 4.0 * scale);
    }

    let own = newest(&server, "kastor.scope.self_time");
    let Some(Data::Sum(sum)) = &own.data else { panic!("{own:?}") };
    assert!(!sum.is_monotonic && own.unit == "s");
    let of_job = sum.data_points.iter().find(|point| text(&point.attributes, "kastor.scope").as_deref() == Some("job"));
    assert!((float(of_job.unwrap()).unwrap() - 3.5e-3).abs() < 1e-12);

    let errors = newest(&server, "kastor.scope.errors");
    let [point] = points(&errors) else { panic!("{errors:?}") };
    assert_eq!((integer(point), text(&point.attributes, "kastor.scope").as_deref()), (Some(1), Some("job.step")));
}

#[test]
fn durations_in_nanoseconds_have_the_buckets_as_they_were_counted() {
    let server = Server::start();
    let (tele, clock) = told(&server, |config| config.duration_unit(DurationUnit::Nanoseconds));
    work(&tele, &clock);
    assert!(tele.flush(LONG).is_complete());
    let metric = newest(&server, "kastor.scope.duration");
    assert_eq!(metric.unit, "ns");
    let Some(Data::ExponentialHistogram(histogram)) = &metric.data else { panic!("{metric:?}") };
    for point in &histogram.data_points {
        let scale = if text(&point.attributes, "kastor.scope").as_deref() == Some("job") { 1e6 } else { 0.5e6 };
        assert_eq!((point.sum, point.min, point.max), (Some(7.0 * scale), Some(scale), Some(4.0 * scale)));
        let buckets = point.positive.as_ref().unwrap();
        let full = buckets.bucket_counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let bounds: Vec<i32> = full.map(|(at, _)| buckets.offset + at as i32).collect();
        // Upper bounds belong to their bucket.
        let expected = [1.0, 2.0, 4.0].map(|value: f64| (value * scale).log2() * 8.0).map(|at| at.ceil() as i32 - 1);
        assert_eq!(bounds, expected);
    }
}

#[test]
fn instruments_keep_their_kind_unit_help_labels_and_place() {
    let server = Server::start();
    let (tele, _) = told(&server, |config| config);
    tele.describe("items", "{item}", "What was done.");
    tele.describe("size", "By", "How large.");
    let _current = tele.override_current();
    {
        let _scope = scope!("job");
        count!("items", 3, kind = "a");
        count!("items", 4, kind = "a");
        count!("items", u64::MAX, kind = "b");
        count!("items", u64::MAX, kind = "b");
        gauge!("level", 5);
        gauge!("level", 2.5);
        for value in [0.0, -1.0, 100.0, 100.0, f64::NAN] {
            histogram!("size", value);
        }
    }
    count!("credit", 5);
    count!("credit", -7);
    assert!(tele.flush(LONG).is_complete());

    let items = newest(&server, "items");
    assert_eq!((items.unit.as_str(), items.description.as_str()), ("{item}", "What was done."));
    let Some(Data::Sum(sum)) = &items.data else { panic!("{items:?}") };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
    let of_kind =
        |kind| sum.data_points.iter().find(|it| text(&it.attributes, "kind").as_deref() == Some(kind)).unwrap();
    assert_eq!(integer(of_kind("a")), Some(7));
    assert_eq!(text(&of_kind("a").attributes, "kastor.scope").as_deref(), Some("job"));
    assert_eq!(float(of_kind("b")), Some(2.0 * u64::MAX as f64), "beyond 64 bits");

    let credit = newest(&server, "credit");
    let Some(Data::Sum(sum)) = &credit.data else { panic!("{credit:?}") };
    assert!(!sum.is_monotonic);
    assert_eq!((integer(&sum.data_points[0]), sum.data_points[0].attributes.len()), (Some(-2), 0));

    let level = newest(&server, "level");
    assert!(matches!(level.data, Some(Data::Gauge(_))));
    assert_eq!(float(&points(&level)[0]), Some(2.5));

    let size = newest(&server, "size");
    let Some(Data::ExponentialHistogram(histogram)) = &size.data else { panic!("{size:?}") };
    let point = &histogram.data_points[0];
    assert_eq!((size.unit.as_str(), point.count, point.zero_count, point.sum), ("By", 4, 1, Some(199.0)));
    assert_eq!((point.min, point.max), (Some(-1.0), Some(100.0)));
    let negative = point.negative.as_ref().unwrap();
    assert_eq!((negative.offset, negative.bucket_counts.as_slice()), (-1, &[1][..]), "1 is an upper bound");
    let positive = point.positive.as_ref().unwrap();
    assert_eq!(
        (positive.offset, positive.bucket_counts.as_slice()),
        (53, &[2][..]),
        "100 lies in (2^(53/8), 2^(54/8)]"
    );
}

#[test]
fn a_numeric_metric_event_is_a_point_of_its_own_with_its_trace() {
    let server = Server::start();
    let (tele, clock) = told(&server, |config| config);
    let _current = tele.override_current();
    {
        let _scope = scope!("job");
        metric!("ratio", 0.5, zone = "b");
    }
    clock.advance(Duration::from_millis(1));
    metric!("ratio", 7);
    assert!(tele.flush(LONG).is_complete());
    let all: Vec<Metric> = server.metrics().into_iter().filter(|metric| metric.name == "ratio").collect();
    let all: Vec<&NumberDataPoint> = all.iter().flat_map(|metric| points(metric)).collect();
    let [inside, outside] = all[..] else { panic!("{all:?}") };
    let job = &server.spans()[0];
    assert_eq!((float(inside), text(&inside.attributes, "zone").as_deref()), (Some(0.5), Some("b")));
    assert_eq!(text(&inside.attributes, "kastor.scope").as_deref(), Some("job"));
    assert_eq!(inside.time_unix_nano, job.start_time_unix_nano);
    let [exemplar] = &inside.exemplars[..] else { panic!("{inside:?}") };
    assert_eq!((&exemplar.trace_id, &exemplar.span_id), (&job.trace_id, &job.span_id));
    assert_eq!((integer(outside), outside.exemplars.len(), outside.attributes.len()), (Some(7), 0, 0));
}

#[test]
fn what_kastor_says_of_itself_comes_along() {
    let server = Server::start();
    let (tele, clock) = told(&server, |config| config);
    tele.record_paths("quiet", false);
    work(&tele, &clock);
    drop(tele.scope("quiet"));
    assert!(tele.flush(LONG).is_complete());
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(integer(&points(&newest(&server, "kastor.events.emitted"))[0]), Some(7));
    for (name, expected) in [("delivered", 6), ("queued", 0), ("spooled", 0), ("failures", 0)] {
        let metric = newest(&server, &format!("kastor.reporter.{name}"));
        let [point] = points(&metric) else { panic!("{metric:?}") };
        assert_eq!(integer(point), Some(expected), "{name}");
        assert_eq!(text(&point.attributes, "reporter").as_deref(), Some("0:Otlp"));
    }
    let dropped = newest(&server, "kastor.reporter.dropped");
    let [point] = points(&dropped) else { panic!("{dropped:?}") };
    assert_eq!((integer(point), text(&point.attributes, "reason").as_deref()), (Some(1), Some("sampled")));
}

#[test]
fn ten_thousand_series_come_in_requests_of_bounded_size_all_of_them() {
    for protocol in [Protocol::HttpProtobuf, Protocol::HttpJson] {
        let server = Server::start();
        let (tele, _) = told(&server, |config| config.max_request_bytes(64 << 10).protocol(protocol));
        for name in 0..10 {
            for label in 0..1_000_u64 {
                tele.counter(&format!("metric_{name}"), &[("label", Value::U64(label))]).add(label);
            }
        }
        assert!(tele.flush(LONG).is_complete());
        let requests: Vec<_> = server.received().into_iter().filter_map(|received| received.metrics()).collect();
        assert!(requests.len() > 5, "{} requests", requests.len());
        if protocol == Protocol::HttpProtobuf {
            assert!(server.received().iter().all(|received| received.body.len() <= 64 << 10));
        }
        let metrics = server.metrics();
        let of_names = metrics.iter().filter(|metric| metric.name.starts_with("metric_"));
        let (mut count, mut sum) = (0, 0);
        for point in of_names.flat_map(|metric| points(metric)) {
            (count, sum) = (count + 1, sum + integer(point).unwrap());
        }
        assert_eq!((count, sum), (10_000, 10 * 499_500));
    }
}
