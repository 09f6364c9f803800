//! `install_from_env` in processes of their own, since the environment is read and the default installed once.
#![cfg(feature = "otlp")]

mod other_side;

use std::{
    io::{Read as _, Write as _},
    process::Command,
};

use kastor::{Telemetry, count, scope};
use other_side::{LONG, server::Server};

/// Set for the child that a test starts.
const IN_CHILD: &str = "KASTOR_TEST_IN_CHILD";

/// What every child does: installs, works, shuts down, and says what became of it.
#[test]
fn child() {
    if std::env::var_os(IN_CHILD).is_none() {
        return;
    }
    let tele = kastor_export::install_from_env();
    for _ in 0..20 {
        let _scope = scope!("work");
        count!("items", 2);
    }
    let is_default = Telemetry::current().is_enabled();
    let again = kastor_export::install_from_env();
    let is_same = again.stats().emitted() == tele.stats().emitted();
    let is_complete = tele.shutdown(LONG).is_complete();
    println!(
        "\nsaid: enabled {} default {is_default} same {is_same} complete {is_complete}",
        tele.stats().emitted() > 0
    );
}

/// A child whose metrics are fetched, by itself: says how many samples of the counter there are.
#[test]
fn child_that_is_scraped() {
    if std::env::var_os(IN_CHILD).is_none() {
        return;
    }
    let tele = kastor_export::install_from_env();
    count!("items", 2);
    let port: u16 = std::env::var("OTEL_EXPORTER_PROMETHEUS_PORT").unwrap().parse().unwrap();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let samples: Vec<&str> = answer.lines().filter(|line| line.starts_with("items_total")).collect();
    println!("\nsaid: {samples:?} {}", tele.shutdown(LONG).is_complete());
}

/// Runs the child under these variables and returns what it said.
fn run(variables: &[(&str, &str)]) -> String {
    run_child("child", variables)
}

fn run_child(child: &str, variables: &[(&str, &str)]) -> String {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", child, "--nocapture"]).env(IN_CHILD, "1");
    for (name, _) in std::env::vars() {
        if name.starts_with("OTEL_") || name.starts_with("KASTOR_") && name != IN_CHILD || name == "DEBUG" {
            program.env_remove(name);
        }
    }
    let output = program.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().find_map(|line| line.strip_prefix("said: ")).unwrap_or_else(|| panic!("{text}")).to_owned()
}

const ENABLED: &str = "enabled true default true same true complete true";
const DISABLED: &str = "enabled false default false same true complete true";

#[test]
fn an_endpoint_and_the_switch_together_install_a_context_that_delivers() {
    let server = Server::start();
    let url = server.url();
    let said = run(&[
        ("KASTOR_TELEMETRY", "1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
        ("OTEL_SERVICE_NAME", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ]);
    assert_eq!(said, ENABLED);
    assert_eq!(server.spans().len(), 20);
    assert!(server.metrics().iter().any(|metric| metric.name == "items"));
    for received in server.received() {
        assert_eq!(received.headers["x-tenant"], "a b");
        assert_eq!(received.headers["content-encoding"], "gzip");
        let is_json = received.headers["content-type"] == "application/json";
        assert_eq!(is_json, received.path == "/v1/metrics");
        let request = format!("{:?}{:?}", received.traces(), received.metrics());
        assert!(request.contains("\"shop\"") && request.contains("deployment.environment.name"));
    }
}

#[test]
fn nothing_happens_unless_the_environment_enables_and_names_a_place() {
    let server = Server::start();
    let url = server.url();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    for variables in [
        vec![endpoint],
        vec![("KASTOR_TELEMETRY", "1")],
        vec![("KASTOR_TELEMETRY", "true"), endpoint],
        vec![("KASTOR_TELEMETRY", "0"), ("DEBUG", "1"), endpoint],
        vec![("KASTOR_TELEMETRY", "1"), ("OTEL_SDK_DISABLED", "true"), endpoint],
        vec![("KASTOR_TELEMETRY", "1"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none"), endpoint],
        vec![("KASTOR_TELEMETRY", "1"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "no address")],
    ] {
        assert_eq!(run(&variables), DISABLED, "{variables:?}");
    }
    assert_eq!(server.received().len(), 0);
    assert_eq!(run(&[("DEBUG", "1"), endpoint]), ENABLED);
    assert_eq!(server.spans().len(), 20);
}

#[test]
fn a_sampler_leaves_traces_out_and_no_sums() {
    let server = Server::start();
    let url = server.url();
    let said = run(&[
        ("KASTOR_TELEMETRY", "1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
    ]);
    assert_eq!(said, ENABLED);
    assert_eq!(server.spans().len(), 0);
    let durations = server.metrics().into_iter().rfind(|metric| metric.name == "kastor.scope.duration").unwrap();
    assert!(format!("{durations:?}").contains("count: 20"), "{durations:?}");
}

#[test]
fn metrics_are_served_where_prometheus_is_named() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let variables = [
        ("KASTOR_TELEMETRY", "1"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", &port),
    ];
    assert_eq!(run_child("child_that_is_scraped", &variables), "[\"items_total 2\"] true");
}

#[test]
fn a_capture_is_a_place_too() {
    let folder = tempfile::tempdir().unwrap();
    let captures = folder.path().join("made/captures");
    let said = run(&[("KASTOR_TELEMETRY", "1"), ("KASTOR_CAPTURE", captures.to_str().unwrap())]);
    assert_eq!(said, ENABLED);
    assert_eq!(std::fs::read_dir(&captures).unwrap().count(), 1, "one file per process");
    // Not enabled: nothing is made.
    let other = folder.path().join("other");
    assert_eq!(run(&[("KASTOR_CAPTURE", other.to_str().unwrap())]), DISABLED);
    assert!(!other.exists());
}
