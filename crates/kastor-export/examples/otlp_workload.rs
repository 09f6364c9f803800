//! One of everything over OTLP, for `cargo xtask integration`.
//!
//! `otlp_workload through SINK_PORT PROTOCOL COMPRESSION URL` sends to the collector at URL, is itself the place that this
//! collector sends on to, and compares what comes out of it with what it put in: every span field by field with the
//! records, every metric with the same one sent without a detour.
//!
//! `otlp_workload metrics URL` sends metrics alone to exactly this address, and prints as JSON what a store of them has to
//! hold.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kastor::{
    Builder, Carrier, MockClock, Recording, Telemetry, TraceParent, Value, count, gauge, histogram, metric, scope,
};
use kastor_export::{Compression, Otlp, OtlpConfig, Protocol, Redaction};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use other_side::{LONG, compare::assert_spans_are_the_records, server::Server, wait_until};

#[path = "../tests/other_side/mod.rs"]
mod other_side;

/// Scopes of each of several threads, so that there is more than one request.
const BULK: u64 = 3_000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["through", sink, protocol, compression, url] => {
            through(sink.parse().expect("a port"), protocol_of(protocol), compression_of(compression), url);
        }
        ["metrics", url] => metrics_to(url),
        _ => panic!("usage: otlp_workload through SINK_PORT PROTOCOL COMPRESSION URL | metrics URL"),
    }
}

fn protocol_of(name: &str) -> Protocol {
    match name {
        "http/protobuf" => Protocol::HttpProtobuf,
        "http/json" => Protocol::HttpJson,
        #[cfg(feature = "grpc")]
        "grpc" => Protocol::Grpc,
        _ => panic!("{name} is no protocol of this build"),
    }
}

fn compression_of(name: &str) -> Compression {
    match name {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        _ => panic!("{name} is no compression"),
    }
}

fn builder(clock: &MockClock) -> Builder {
    // The only snapshot is that of the flush: collectors add nothing up.
    Telemetry::builder().clock(clock.clone()).interval(Duration::from_secs(3600))
}

fn through(sink: u16, protocol: Protocol, compression: Compression, url: &str) {
    let (sink, direct) = (Server::on(sink), Server::start());
    let (clock, recording) = (MockClock::new(), Recording::new(64 << 20));
    let config = |url: &str| OtlpConfig::new(url).redaction(Redaction::none()).service_name("workload");
    let through = Otlp::new(config(url).protocol(protocol).compression(compression)).expect("a good configuration");
    let directly = Otlp::new(config(&direct.url())).expect("a good configuration");
    let tele = builder(&clock).reporter(recording.clone()).reporter(through).reporter(directly).build();
    work(&tele, &clock);
    let flushed = tele.flush(LONG);
    let stats = tele.stats();
    assert!(flushed.is_complete(), "{flushed}: {stats}");
    assert_eq!(stats.reporters()[1].delivered(), stats.emitted(), "{stats}");

    wait_until("every span has come through", || sink.spans().len() >= direct.spans().len());
    let mut spans = sink.spans();
    // Texts as metrics are spans without a record of a scope.
    spans.retain(|span| !span.attributes.iter().any(|attribute| attribute.key == "kastor.metric.value"));
    assert_eq!(sink.spans().len() - spans.len(), 1);
    let compared = assert_spans_are_the_records(spans, &recording);

    let expected = sorted(direct.metrics());
    wait_until("every metric has come through", || sorted(sink.metrics()).len() >= expected.len());
    let came = sorted(sink.metrics());
    for (expected, came) in expected.iter().zip(&came) {
        assert_eq!(came, expected);
    }
    assert_eq!(came.len(), expected.len());
    for resource in sink.received().iter().filter_map(|it| it.traces()).flat_map(|it| it.resource_spans) {
        let attributes = resource.resource.expect("a resource").attributes;
        assert!(attributes.iter().any(|it| format!("{it:?}").contains("\"workload\"")), "{attributes:?}");
    }
    println!("{compared} spans and {} metrics equal in every field", came.len());
}

/// By name and content; what kastor says of its reporters differs between the two ways.
fn sorted(mut metrics: Vec<Metric>) -> Vec<Metric> {
    metrics.retain(|metric| !metric.name.starts_with("kastor.reporter."));
    metrics.sort_by_key(|metric| format!("{metric:?}"));
    metrics
}

fn work(tele: &Telemetry, clock: &MockClock) {
    let _current = tele.override_current();
    tele.describe("items", "{item}", "What was done.");
    tele.describe("size", "By", "How large it was.");
    let remote = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let _attached = Carrier::from_trace_parent(&remote.expect("a good header")).attach();
    {
        let job =
            scope!("job", rows = 42, ratio = 0.25, on = true, text = "größe \"\n", bytes = Value::Bytes(&[0, 255]));
        clock.advance(Duration::from_micros(1_500));
        job.event_with("retry", &[("attempt", Value::U64(2))]);
        {
            let step = scope!("step", huge = u64::MAX, least = i64::MIN, nothing = Value::Null);
            clock.advance(Duration::from_micros(250));
            step.link(job.carrier());
            step.fail("timeout");
        }
        count!("items", 3, kind = "a");
        count!("items", 4, kind = "b");
        gauge!("level", 2.5);
        [0.0, 1.0, 100.0, 100.0].into_iter().for_each(|value| histogram!("size", value));
        metric!("temperature", 21.5, room = "b");
        metric!("state", "warm");
    }
    count!("credit", 5);
    count!("credit", -7);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let _current = tele.override_current();
                (0..BULK).for_each(|number| drop(scope!("bulk", number = number, text = "some text")));
            });
        }
    });
}

fn metrics_to(url: &str) {
    let clock = MockClock::new();
    // A store keeps what is recent.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
    clock.set_unix_ns(now.as_nanos() as u64);
    let config = OtlpConfig::default().metrics_endpoint(url).without_traces();
    let tele = builder(&clock).reporter(Otlp::new(config).expect("a good configuration")).build();
    work(&tele, &clock);
    let flushed = tele.flush(LONG);
    assert!(flushed.is_complete(), "{flushed}: {}", tele.stats());
    let stats = tele.stats();
    assert_eq!((stats.reporters()[0].delivered(), stats.reporters()[0].dropped().total()), (1, stats.emitted() - 1));
    let seconds = |path: &str| tele.report().scope(path).map_or(0.0, |scope| scope.total().as_secs_f64());
    // Names as Prometheus has them, with the unit in them.
    let expected = serde_json::json!([
        {"name": "items_total", "labels": {"kind": "a", "kastor.scope": "job"}, "value": 3},
        {"name": "items_total", "labels": {"kind": "b", "kastor.scope": "job"}, "value": 4},
        {"name": "credit", "labels": {}, "value": -2},
        {"name": "level", "labels": {"kastor.scope": "job"}, "value": 2.5},
        {"name": "temperature", "labels": {"room": "b", "kastor.scope": "job"}, "value": 21.5},
        {"name": "size_bytes_count", "labels": {"kastor.scope": "job"}, "value": 4},
        {"name": "size_bytes_sum", "labels": {"kastor.scope": "job"}, "value": 201},
        {"name": "kastor_scope_duration_seconds_count", "labels": {"kastor.scope": "job"}, "value": 1},
        {"name": "kastor_scope_duration_seconds_sum", "labels": {"kastor.scope": "job"}, "value": seconds("job")},
        {"name": "kastor_scope_duration_seconds_count", "labels": {"kastor.scope": "bulk"}, "value": 2 * BULK},
        {"name": "kastor_scope_errors_total", "labels": {"kastor.scope": "job.step"}, "value": 1},
        {"name": "kastor_events_emitted_total", "labels": {}, "value": stats.emitted()},
    ]);
    println!("{expected}");
}
