//! What the program did is what the collector gets, field by field: spans against the records themselves.
#![cfg(feature = "otlp")]

mod other_side;

use std::{collections::HashMap, time::Duration};

use kastor::{Carrier, MockClock, Recording, Telemetry, TraceParent, Value, metric, scope};
use kastor_export::{Compression, Otlp, OtlpConfig, Protocol, Redaction, TailSampling};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use other_side::{
    LONG,
    compare::{assert_spans_are_the_records, attribute, expected, value_of},
    server::Server,
};
use proptest::prelude::*;

/// The same events for a server and for a recording, by a clock that makes their times the same.
fn told(server: &Server, change: impl FnOnce(OtlpConfig) -> OtlpConfig) -> (Telemetry, Recording, MockClock) {
    let recording = Recording::new(64 << 20);
    let clock = MockClock::new();
    let otlp = Otlp::new(change(OtlpConfig::new(server.url()).linger(Duration::ZERO))).unwrap();
    let tele = Telemetry::builder().clock(clock.clone()).reporter(recording.clone()).reporter(otlp).build();
    (tele, recording, clock)
}

/// A step of a random program.
#[derive(Clone, Debug)]
enum Step {
    Open(u8),
    Close,
    Set(u8, Thing),
    Event(u8, Option<Thing>),
    Link,
    Fail(u8),
    Wait(u16),
}

#[derive(Clone, Debug)]
enum Thing {
    Null,
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Thing {
    fn value(&self) -> Value<'_> {
        match self {
            Thing::Null => Value::Null,
            Thing::Bool(value) => Value::Bool(*value),
            Thing::I64(value) => Value::I64(*value),
            Thing::U64(value) => Value::U64(*value),
            Thing::F64(value) => Value::F64(*value),
            Thing::Text(text) => Value::Str(text),
            Thing::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

fn things() -> impl Strategy<Value = Thing> {
    prop_oneof![
        Just(Thing::Null),
        any::<bool>().prop_map(Thing::Bool),
        any::<i64>().prop_map(Thing::I64),
        any::<u64>().prop_map(Thing::U64),
        prop::num::f64::ANY.prop_map(Thing::F64),
        "\\PC{0,40}".prop_map(Thing::Text),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Thing::Bytes),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<u8>().prop_map(Step::Open),
        4 => Just(Step::Close),
        4 => (any::<u8>(), things()).prop_map(|(key, thing)| Step::Set(key, thing)),
        1 => (any::<u8>(), prop::option::of(things())).prop_map(|(name, thing)| Step::Event(name, thing)),
        1 => Just(Step::Link),
        1 => any::<u8>().prop_map(Step::Fail),
        2 => any::<u16>().prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

const WORDS: [&str; 8] = ["read", "parse", "db.query", "render", "k", "retry", "cache.miss", "x"];

fn word(number: u8) -> &'static str {
    WORDS[usize::from(number) % WORDS.len()]
}

/// The official types do not read NaN and infinities from JSON; `otlp::json` has a test of its own for them.
fn without_special_floats(mut steps: Vec<Step>) -> Vec<Step> {
    for step in &mut steps {
        if let Step::Set(_, Thing::F64(value)) | Step::Event(_, Some(Thing::F64(value))) = step {
            *value = if value.is_finite() { *value } else { 0.5 };
        }
    }
    steps
}

fn run(steps: &[Step], tele: &Telemetry, clock: &MockClock) {
    let mut open = Vec::new();
    for step in steps {
        match step {
            Step::Open(name) => open.push(tele.scope(word(*name))),
            Step::Close => drop(open.pop()),
            Step::Wait(ns) => clock.advance(Duration::from_nanos(u64::from(*ns))),
            other => {
                let Some(scope) = open.last() else { continue };
                match other {
                    Step::Set(key, thing) => scope.set(word(*key), thing.value()),
                    Step::Event(name, None) => scope.event(word(*name)),
                    Step::Event(name, Some(thing)) => scope.event_with(word(*name), &[("k", thing.value())]),
                    Step::Fail(why) => scope.fail(word(*why)),
                    _ => scope.link(open[0].carrier()),
                }
            }
        }
    }
    while open.pop().is_some() {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_arrives_as_it_was_recorded(steps in steps(), at in 0..4_usize) {
        let server = Server::start();
        let compression = [Compression::None, Compression::Gzip, Compression::Zstd, Compression::None][at];
        let protocol = if at == 3 { Protocol::HttpJson } else { Protocol::HttpProtobuf };
        let change = |config: OtlpConfig| {
            config.compression(compression).protocol(protocol).redaction(Redaction::none()).max_request_bytes(4 << 10)
        };
        let (tele, recording, clock) = told(&server, change);
        let steps = if protocol == Protocol::HttpJson { without_special_floats(steps) } else { steps };
        run(&steps, &tele, &clock);
        prop_assert!(tele.flush(LONG).is_complete());
        assert_spans_are_the_records(server.spans(), &recording);
    }
}

#[test]
fn ten_thousand_scopes_of_four_threads_arrive_once_each() {
    let server = Server::start();
    let (tele, recording, _) = told(&server, |config| config.compression(Compression::Gzip));
    std::thread::scope(|threads| {
        for number in 0..4 {
            let tele = &tele;
            let named = std::thread::Builder::new().name(format!("worker-{number}"));
            let work = move || {
                let _current = tele.override_current();
                for step in 0..2_500_u32 {
                    let _scope = scope!("step", number = step, text = "some text");
                }
            };
            named.spawn_scoped(threads, work).unwrap();
        }
    });
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(server.spans().len(), 10_000);
    assert_eq!(assert_spans_are_the_records(server.spans(), &recording), 10_000);
    let stats = tele.stats();
    assert_eq!((stats.emitted(), stats.reporters()[1].delivered(), stats.reporters()[1].queued()), (10_000, 10_000, 0));
}

#[test]
fn a_failure_has_a_status_and_its_type_even_where_attributes_are_limited() {
    let server = Server::start();
    let (tele, _, _) = told(&server, |config| config.max_span_attributes(2).max_value_characters(3));
    {
        let scope = tele.scope("job");
        scope.set("a", "four");
        scope.set("b", 2);
        scope.set("c", 3);
        scope.fail("timeout");
    }
    assert!(tele.flush(LONG).is_complete());
    let spans = server.spans();
    let [span] = &spans[..] else { panic!("one span: {spans:?}") };
    assert_eq!(span.status.as_ref().unwrap().code, StatusCode::Error as i32);
    assert_eq!(attribute(span, "error.type"), expected(Value::Str("tim")).as_ref());
    assert_eq!(attribute(span, "a"), expected(Value::Str("fou")).as_ref());
    assert_eq!((attribute(span, "b"), span.dropped_attributes_count), (None, 2));
}

#[test]
fn the_kind_of_a_span_is_an_attribute_of_the_program() {
    let server = Server::start();
    let (tele, _, _) = told(&server, |config| config);
    for kind in ["server", "client", "producer", "consumer", "internal", "unheard"] {
        let scope = tele.scope(kind);
        scope.set("span.kind", kind);
    }
    assert!(tele.flush(LONG).is_complete());
    let kinds: HashMap<String, i32> = server.spans().into_iter().map(|span| (span.name, span.kind)).collect();
    let expected = [("internal", 1), ("server", 2), ("client", 3), ("producer", 4), ("consumer", 5), ("unheard", 1)];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)).into());
}

#[test]
fn unsampled_scopes_are_left_out_and_counted_and_their_times_are_in_the_metrics() {
    let server = Server::start();
    let (tele, _, _) = told(&server, |config| config);
    let unsampled = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap();
    {
        let _attached = Carrier::from_trace_parent(&unsampled).attach();
        (0..10).for_each(|_| drop(tele.scope("quiet")));
    }
    (0..3).for_each(|_| drop(tele.scope("loud")));
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(server.spans().iter().filter(|span| span.name == "loud").count(), 3);
    assert_eq!(server.spans().len(), 3);
    let stats = tele.stats();
    let otlp = &stats.reporters()[1];
    assert_eq!((otlp.delivered(), otlp.dropped().of(kastor::DropReason::Sampled)), (3, 10));
    let paths = server.metrics().iter().filter(|metric| metric.name == "kastor.scope.duration").count();
    assert!(paths > 0 && tele.report().scope("quiet").is_some_and(|quiet| quiet.calls() == 10));
}

#[test]
fn tail_sampling_keeps_whole_traces_and_counts_the_rest() {
    let server = Server::start();
    let sampling = TailSampling::ratio_only(0.0).keep_failed(true);
    let (tele, _, _) = told(&server, |config| config.tail_sampling(sampling));
    for number in 0..50 {
        let _root = tele.scope("root");
        let child = tele.scope("child");
        if number % 10 == 0 {
            child.fail("bad");
        }
    }
    assert!(tele.flush(LONG).is_complete());
    let spans = server.spans();
    let traces: std::collections::HashSet<_> = spans.iter().map(|span| span.trace_id.clone()).collect();
    assert_eq!((spans.len(), traces.len()), (10, 5));
    let stats = tele.stats();
    let otlp = &stats.reporters()[1];
    assert_eq!((otlp.delivered(), otlp.dropped().of(kastor::DropReason::Sampled), otlp.queued()), (10, 90, 0));
    assert_eq!(tele.report().scope("root").map(|root| root.calls()), Some(50));
}

#[test]
fn a_metric_event_that_is_no_number_travels_with_the_spans() {
    let server = Server::start();
    let (tele, _, _) = told(&server, |config| config);
    let _current = tele.override_current();
    {
        let _scope = scope!("load");
        metric!("state", "warm", zone = "b");
    }
    metric!("state", "cold");
    assert!(tele.flush(LONG).is_complete());
    let spans = server.spans();
    let load = spans.iter().find(|span| span.name == "load").unwrap();
    let states: Vec<&Span> = spans.iter().filter(|span| span.name == "state").collect();
    let warm = states.iter().find(|span| span.trace_id == load.trace_id).unwrap();
    assert_eq!(warm.parent_span_id, load.span_id);
    assert_eq!(attribute(warm, "kastor.metric.value"), expected(Value::Str("warm")).as_ref());
    assert_eq!(attribute(warm, "zone"), expected(Value::Str("b")).as_ref());
    let cold = states.iter().find(|span| span.trace_id != load.trace_id).unwrap();
    assert!(cold.trace_id != [0; 16] && cold.span_id != [0; 8] && cold.parent_span_id.is_empty());
    assert_eq!(tele.stats().reporters()[1].delivered(), 3);
}

#[test]
fn secrets_are_replaced_in_every_place_that_leaves_the_process() {
    let server = Server::start();
    let (tele, _, _) = told(&server, |config| config.resource_attribute("db.password", "canary"));
    {
        let scope = tele.scope("login");
        scope.set("password", "canary");
        scope.set("url", "https://me:canary@example.org/");
        scope.event_with("sent", &[("api_key", Value::Str("canary"))]);
        scope.fail("Bearer canarycanarycanary");
    }
    tele.metric("state", "https://me:canary@example.org/", &[("secret", Value::Str("canary"))]);
    tele.metric("db.password", "canary", &[]);
    tele.counter("logins", &[("token", Value::Str("canary"))]).add(1);
    assert!(tele.flush(LONG).is_complete());
    assert!(server.spans().len() == 3 && server.metrics().iter().any(|metric| metric.name == "logins"));
    for received in server.received() {
        let body = received.plain_body();
        assert!(!body.windows(6).any(|window| window == b"canary"), "in {}", received.path);
    }
}

#[test]
fn every_request_says_who_speaks() {
    let server = Server::start();
    let (tele, _, _) =
        told(&server, |config| config.service_name("shop").header("x-tenant", "a").header("X-Other", "b"));
    drop(tele.scope("one"));
    assert!(tele.flush(LONG).is_complete());
    let received = server.received();
    assert!(received.len() >= 2, "traces and metrics");
    for request in received {
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        assert_eq!((header("x-tenant"), header("x-other")), (Some("a"), Some("b")));
        assert_eq!(header("content-type"), Some("application/x-protobuf"));
        assert!(header("user-agent").is_some_and(|agent| agent.starts_with("kastor/")));
        let traces = request.traces().into_iter().flat_map(|it| it.resource_spans).map(|it| it.resource);
        let metrics = request.metrics().into_iter().flat_map(|it| it.resource_metrics).map(|it| it.resource);
        for resource in traces.chain(metrics) {
            let attributes = resource.unwrap().attributes;
            let text = |key: &str| attributes.iter().find(|it| it.key == key).and_then(value_of).cloned();
            assert_eq!(text("service.name"), expected(Value::Str("shop")));
            assert_eq!(text("process.pid"), expected(Value::U64(u64::from(std::process::id()))));
            assert!(text("service.instance.id").is_some() && text("telemetry.sdk.name").is_some());
        }
    }
}
