//! Writes the traces that `cargo xtask integration` reads back: `trace_workload FOLDER [mock|real]`.
//!
//! The same program is recorded as a Perfetto trace, a Chrome trace, folded stacks, a capture, and, by the core's own
//! [`Recording`], as `expected.json`: what the readers have to find. With the mock clock every number has to be equal.

use std::{
    fs,
    future::poll_fn,
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use kastor::{
    Error, Event, FutureExt as _, MetricType, MockClock, Recording, Reporter, Snapshot, Telemetry, Value, background,
    count, gauge, histogram, metric, scope,
};
use kastor_export::{capture::Capture, chrome, folded, perfetto};
use serde_json::{Value as Json, json};

/// Only ever an upper bound.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, is_real) = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [folder] | [folder, "mock"] => (PathBuf::from(folder), false),
        [folder, "real"] => (PathBuf::from(folder), true),
        _ => {
            eprintln!("usage: trace_workload FOLDER [mock|real]");
            return ExitCode::from(2);
        }
    };
    match run(&folder, is_real) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trace_workload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &std::path::Path, is_real: bool) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(folder)?;
    let (recording, series) = (Recording::new(256 << 20), Series::default());
    let perfetto_config = perfetto::Config::default().ids(true).process_name("workload");
    let chrome_config = chrome::Config::default().ids(true).process_name("workload");
    let mut builder = Telemetry::builder()
        .reporter(recording.clone())
        .reporter(background(series.clone()))
        .reporter(perfetto::Perfetto::create(folder.join("trace.perfetto-trace"), perfetto_config)?)
        .reporter(chrome::Chrome::create(folder.join("trace.json"), chrome_config)?)
        .reporter(folded::Folded::create(folder.join("stacks.folded"), folded::Config::default())?)
        .reporter(Capture::new(folder.join("run.kcap")));
    let time = if is_real { Time(None) } else { Time(Some(MockClock::new())) };
    if let Some(clock) = &time.0 {
        builder = builder.clock(clock.clone());
    }
    let tele = builder.build();
    program(&tele, &time);
    if !tele.flush(PATIENCE).is_complete() {
        return Err("the flush was not complete".into());
    }
    let stats = tele.stats();
    for reporter in stats.reporters() {
        if reporter.delivered() != stats.emitted() {
            return Err(format!("not everything was delivered: {stats}").into());
        }
    }
    let (scopes, metrics) = recorded(&recording);
    let expected = json!({
        // Two batches may turn one tick into times that differ by the error of their lines.
        "tolerance_ns": if is_real { 1_000 } else { 0 },
        "pid": std::process::id(),
        "process": "workload",
        "scopes": scopes,
        "metrics": metrics,
        "series": *series.0.lock().map_err(|_| "a lock is poisoned")?,
        "folded": folded_from(&tele),
    });
    fs::write(folder.join("expected.json"), serde_json::to_vec_pretty(&expected)?)?;
    Ok(())
}

/// Time passes by itself, or when it is told to.
struct Time(Option<MockClock>);

impl Time {
    fn spend(&self, ns: u64) {
        let duration = Duration::from_nanos(ns);
        match &self.0 {
            Some(clock) => clock.advance(duration),
            None => thread::sleep(duration),
        }
    }
}

/// One of everything: nesting, failures, attributes of every type, points, links, threads with and without a carrier,
/// futures that take turns, scopes closed out of order, parents that arrive long after their children, metrics.
fn program(tele: &Telemetry, time: &Time) {
    let _current = tele.override_current();
    tele.describe("bytes", "By", "bytes that were read");
    let main = scope!("main", text = "ann", whole = -3, natural = u64::MAX, part = 0.5, yes = true);
    time.spend(1_000);
    for number in 0..2_000_u32 {
        let step = scope!("step", number = number);
        time.spend(10);
        if number % 500 == 0 {
            let detail = scope!("detail");
            detail.event_with("retry", &[("attempt", number.into())]);
            time.spend(5);
            detail.fail("bad");
        }
        time.spend(1);
        drop(step);
        time.spend(1);
    }
    tele.flush(PATIENCE);
    hostile(tele, time);
    threads(tele, time, &main);
    futures(time);
    time.spend(3);
    let first = scope!("first");
    time.spend(10);
    let second = scope!("second");
    time.spend(10);
    drop(first);
    time.spend(10);
    drop(second);
    metrics(time);
    time.spend(100);
}

fn hostile(tele: &Telemetry, time: &Time) {
    let text = "a\"b\\c\n\t\u{1b}[31m\u{9b}\u{202e}\u{200b};{}é😀";
    let scope = tele.scope(text);
    scope.set("hostile", text);
    time.spend(7);
    scope.fail(text);
    drop(scope);
    time.spend(1);
}

fn threads(tele: &Telemetry, time: &Time, main: &kastor::Scope) {
    let carrier = main.carrier();
    for number in 0..3 {
        thread::scope(|threads| {
            let work = || {
                let _current = tele.override_current();
                let _attached = (number > 0).then(|| carrier.attach());
                let job = scope!("job");
                time.spend(20);
                if number == 0 {
                    job.link(carrier);
                }
                let _part = scope!("part");
                time.spend(10);
            };
            let thread = thread::Builder::new().name(format!("worker {number}"));
            if let Ok(thread) = thread.spawn_scoped(threads, work) {
                let _ = thread.join();
            }
        });
        time.spend(5);
    }
}

fn futures(time: &Time) {
    let work = |name: &'static str| {
        let mut polls = 0;
        poll_fn(move |_| {
            let piece = Telemetry::current().scope(name);
            time.spend(10);
            drop(piece);
            time.spend(1);
            polls += 1;
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        })
    };
    let mut first = pin!(work("piece_one").in_scope(scope!("task_one")));
    time.spend(1);
    let mut second = pin!(work("piece_two").in_scope(scope!("task_two")));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        let _ = first.as_mut().poll(&mut context);
        let _ = second.as_mut().poll(&mut context);
        time.spend(1);
    }
}

fn metrics(time: &Time) {
    for value in 1..=3 {
        // A metric's time is the last tick that its thread read.
        drop(scope!("tick"));
        metric!("size", value);
        metric!("ratio", f64::from(value) / 4.0);
        count!("bytes", 512, kind = "a");
        count!("bytes", 8, kind = "b");
        gauge!("load", f64::from(value));
        histogram!("latency", f64::from(value));
        time.spend(10);
    }
    metric!("state", "ready");
}

/// The newest value of each series.
#[derive(Clone, Default)]
struct Series(Arc<Mutex<Vec<Json>>>);

impl Reporter for Series {
    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        let one = |series: &kastor::SeriesAggregate| {
            let labels: serde_json::Map<String, Json> =
                series.labels().map(|(key, value)| (key.to_owned(), value_json(value))).collect();
            let value = match series.metric_type() {
                MetricType::Counter => series.sum().as_f64(),
                MetricType::Gauge => series.last().unwrap_or(f64::NAN),
                _ => series.calls() as f64,
            };
            let kind = series.metric_type().as_str();
            json!({"path": series.path(), "labels": labels, "type": kind, "value": value, "unit": series.unit()})
        };
        let all = snapshot.series().iter().map(one).collect();
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = all;
        Ok(())
    }
}

fn recorded(recording: &Recording) -> (Vec<Json>, Vec<Json>) {
    let (mut scopes, mut metrics) = (Vec::new(), Vec::new());
    recording.for_each_batch(|batch| {
        for event in batch.events() {
            match event {
                Event::Timing(timing) => scopes.push(scope_json(&timing)),
                Event::Metric(metric) => metrics.push(json!({
                    "path": metric.scope(), "value": value_json(metric.value()), "at_ns": metric.unix_ns(),
                })),
            }
        }
    });
    (scopes, metrics)
}

fn scope_json(timing: &kastor::Timing<'_>) -> Json {
    let thread = timing.thread();
    let attributes = |attributes: kastor::Attributes<'_>| -> serde_json::Map<String, Json> {
        attributes.map(|(key, value)| (key.to_owned(), value_json(value))).collect()
    };
    let point = |point: kastor::PointEvent<'_>| json!({"name": point.name(), "at_ns": point.unix_ns(), "attributes": attributes(point.attributes())});
    json!({
        "path": timing.scope(),
        "name": timing.name(),
        "begin_ns": timing.start_unix_ns(),
        "duration_ns": timing.duration_ns(),
        "trace_id": format!("{:032x}", timing.trace_id()),
        "span_id": format!("{:016x}", timing.span_id()),
        "parent_span_id": timing.parent_span_id().map(|id| format!("{id:016x}")),
        "error_type": timing.error_type(),
        "attributes": attributes(timing.attributes()),
        "points": timing.events().map(point).collect::<Vec<_>>(),
        "links": timing.links().map(|link| format!("{:016x}", link.span_id)).collect::<Vec<_>>(),
        "thread": thread.name(),
        "tid": thread.os_id(),
    })
}

fn value_json(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => value.into(),
        Value::I64(value) => value.into(),
        Value::U64(value) => value.into(),
        Value::F64(value) => value.into(),
        other => other.to_string().into(),
    }
}

/// Self times by path, from the report.
fn folded_from(tele: &Telemetry) -> Json {
    let report = tele.report();
    let times = report.scopes().iter().map(|scope| (scope.path().to_owned(), scope.self_time().as_nanos() as u64));
    times.filter(|(_, ns)| *ns > 0).map(|(path, ns)| (path, Json::from(ns))).collect::<serde_json::Map<_, _>>().into()
}
