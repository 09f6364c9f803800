//! Serves the metrics that `cargo xtask integration` has a real Prometheus scrape:
//! `prometheus_workload PORT OPENMETRICS_PORT FILE`.
//!
//! The first port is the endpoint, which offers every format. The second one answers everything with one and the same
//! OpenMetrics text, for a server that would take protobuf where it can get it. What has to be found is written to the
//! file. Runs until it is ended.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use kastor::{MetricType, MockClock, Snapshot, Telemetry, count, gauge, histogram, scope};
use kastor_export::{Exposition, Prometheus, PrometheusFormat};
use serde_json::{Value as Json, json};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, open_port, file] = arguments.as_slice() else {
        eprintln!("usage: prometheus_workload PORT OPENMETRICS_PORT FILE");
        return ExitCode::from(2);
    };
    match run(port, open_port, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prometheus_workload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(port: &str, open_port: &str, file: &str) -> Result<(), Box<dyn std::error::Error>> {
    let clock = MockClock::new();
    clock.set_unix_ns(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64);
    let tele = Telemetry::builder().clock(clock.clone()).build();
    work(&tele, &clock);
    // Exemplars are those since the snapshot before: the text and the endpoint get one each.
    let text = tele.snapshot(|snapshot| Exposition::new(PrometheusFormat::OpenMetrics).text(snapshot));
    work(&tele, &clock);
    let open = tele.snapshot(expected);
    let _endpoint = Prometheus::builder().least_interval(Duration::from_secs(3_600)).listen(port)?.serve(&tele);
    fs::write(file, serde_json::to_vec(&json!({ "all": open, "text": text }))?)?;
    let listener = TcpListener::bind(("127.0.0.1", open_port.parse::<u16>()?))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
            head.push(byte[0]);
        }
        let format = PrometheusFormat::OpenMetrics.content_type();
        let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: {format}\r\n\r\n{text}");
    }
    Ok(())
}

/// One of everything. Called twice, it doubles every sum and count.
fn work(tele: &Telemetry, clock: &MockClock) {
    tele.describe("answer.size", "By", "How large answers are.");
    for round in 1..=50_u32 {
        let request = scope!(tele, "request", route = "/items");
        clock.advance(Duration::from_micros(u64::from(round)));
        count!(tele, "api.requests", 1, code = if round % 10 == 0 { 500 } else { 200 }, route = "/a\"b\\c\nd");
        histogram!(tele, "answer.size", f64::from(round));
        {
            let query = scope!(tele, "query");
            clock.advance(Duration::from_micros(3));
            if round % 5 == 0 {
                query.fail("Timeout");
            }
        }
        drop(request);
    }
    gauge!(tele, "level", -1.25);
    count!(tele, "balance", 5);
    count!(tele, "balance", -7);
}

/// What a reader has to find, written from the snapshot and from nothing that the exporter made.
fn expected(snapshot: &Snapshot<'_>) -> Json {
    let scopes = snapshot.scopes().iter().map(|scope| {
        json!({
            "scope": scope.path(),
            "calls": scope.calls(),
            "errors": scope.errors(),
            "total": scope.total().as_nanos() as f64 / 1e9,
            "self": scope.self_time().as_nanos() as f64 / 1e9,
            "median": scope.quantile(0.5).as_nanos() as f64 / 1e9,
        })
    });
    let series = snapshot.series().iter().map(|series| {
        let labels: serde_json::Map<String, Json> =
            series.labels().map(|(key, value)| (key.to_owned(), Json::String(value.to_string()))).collect();
        json!({
            "name": series.name(),
            "scope": series.path().strip_suffix(series.name()).map(|path| path.trim_end_matches('.')),
            "labels": labels,
            "is_histogram": series.metric_type() == MetricType::Histogram,
            "value": series.last().unwrap_or(series.sum().as_f64()),
            "count": series.values().count(),
            "sum": series.values().sum(),
        })
    });
    json!({ "scopes": scopes.collect::<Vec<_>>(), "series": series.collect::<Vec<_>>() })
}
