//! Many processes that send through one collector which stops for a while, for `cargo xtask integration fleet`.
//!
//! `fleet_workload run with-spool|without-spool URL SINK_PORT FOLDER` starts the members, is itself the place that the
//! collector at URL sends on to, and asks for the collector to be stopped and started again: it prints `stop` or `start`
//! on a line and waits for a line in answer. It checks what arrived against what the members say, and prints figures.
//!
//! `fleet_workload wire` measures how many bytes an event is on its way, for each compression.
//!
//! `fleet_workload member NUMBER URL FOLDER|-` is one member: it does what its standard input says, line by line.

use std::{env, time::Duration};

use kastor::{ReporterStats, Telemetry, scope};
use kastor_export::{Compression, Otlp, OtlpConfig, Retry};
use other_side::server::Server;
use serde_json::json;

#[path = "fleet_workload/member.rs"]
mod member;
#[path = "../tests/other_side/mod.rs"]
mod other_side;
#[path = "fleet_workload/run.rs"]
mod run;
#[path = "fleet_workload/sink.rs"]
mod sink;

/// A root and its children.
const TRACE_EVENTS: u64 = 10;
/// Only ever an upper bound.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", spool @ ("with-spool" | "without-spool"), url, sink, folder] => {
            run::run(*spool == "with-spool", url, sink.parse().expect("a port"), folder.as_ref());
        }
        ["wire"] => wire(),
        ["member", number, url, folder] => member::member(number.parse().expect("a number"), url, folder),
        _ => panic!("usage: fleet_workload run with-spool|without-spool URL SINK_PORT FOLDER | wire"),
    }
}

/// What every member is configured with.
fn config(url: &str) -> OtlpConfig {
    let retry = Retry { initial: Duration::from_millis(200), longest: Duration::from_millis(1600), ..Retry::default() };
    OtlpConfig::new(url).service_name("fleet").retry(retry)
}

/// One trace: each event has a number of its own and a text. Returns the next free number.
fn trace(first: u64) -> u64 {
    let _root = scope!("root", number = first, text = "some text value!");
    for number in first + 1..first + TRACE_EVENTS {
        let _child = scope!("child", number = number, text = "some text value!");
    }
    first + TRACE_EVENTS
}

fn of_reporter(tele: &Telemetry) -> ReporterStats {
    tele.stats().reporters()[0].clone()
}

/// Bytes of an event in a request: as a member sends each second, and in one of the largest.
fn wire() {
    const SMALL: u64 = 100;
    const LARGE: u64 = 20_000;
    let mut figures = serde_json::Map::new();
    for (name, compression) in [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        let bytes_of = |events: u64| {
            let server = Server::start();
            let otlp = Otlp::new(config(&server.url()).compression(compression)).expect("a good configuration");
            let tele = Telemetry::builder().reporter(otlp).build();
            let _current = tele.override_current();
            (0..events / TRACE_EVENTS).for_each(|number| _ = trace(number * TRACE_EVENTS));
            assert!(tele.flush(PATIENCE).is_complete(), "{}", tele.stats());
            assert_eq!(of_reporter(&tele).delivered(), events, "{}", tele.stats());
            let bytes = |path: &str| -> usize {
                let requests = server.received();
                requests.iter().filter(|request| request.path.ends_with(path)).map(sink::wire_bytes).sum()
            };
            (bytes("/v1/traces") as f64 / events as f64, bytes("/v1/metrics"))
        };
        let ((small, metrics), (large, _)) = (bytes_of(SMALL), bytes_of(LARGE));
        figures.insert(
            name.into(),
            json!({ "bytes_per_event_in_requests_of_100": round(small), "bytes_per_event_in_large_requests": round(large),
                "bytes_of_metrics_per_interval": metrics }),
        );
    }
    println!("{}", serde_json::Value::Object(figures));
}

/// One decimal is more than the figures are worth.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
