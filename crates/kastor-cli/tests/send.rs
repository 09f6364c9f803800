//! `kastor send`: to a collector that takes everything, to one that refuses, and to none.

#[path = "common/captures.rs"]
mod captures;
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use captures::{pass, recorded};
use common::{Transcript, kastor, transcript};
use serde_json::{Value, json};
use tempfile::TempDir;

const SCOPES: u64 = 100;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    recorded(&folder.path().join("run.kcap"), |telemetry, clock| {
        for _ in 0..SCOPES {
            let _scope = telemetry.scope("work");
            pass(clock, 100);
        }
    });
    folder
}

/// A collector on loopback that answers every request alike; and the bodies that it got.
fn collector(status: &'static str, answer: &'static str) -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let bodies = Arc::<Mutex<Vec<Value>>>::default();
    let kept = Arc::clone(&bodies);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let kept = Arc::clone(&kept);
            // Traces and metrics have a connection each, which stays open.
            std::thread::spawn(move || serve(stream.unwrap(), &kept, status, answer));
        }
    });
    (endpoint, bodies)
}

/// Reads requests and answers each, until the other side goes away.
fn serve(stream: TcpStream, kept: &Mutex<Vec<Value>>, status: &str, answer: &str) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        if line.is_empty() {
            return;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        kept.lock().unwrap().extend(serde_json::from_slice::<Value>(&body));
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        reader.get_mut().write_all(format!("{head}{answer}").as_bytes()).unwrap();
    }
}

fn send(folder: &TempDir, endpoint: &str, more: &[&str]) -> Transcript {
    let folder = folder.path().to_str().unwrap();
    let arguments = [&["send", folder, "--endpoint", endpoint, "--protocol", "http-json"], more].concat();
    transcript(&mut kastor(&arguments))
}

#[test]
fn everything_arrives_and_is_counted() {
    let (endpoint, bodies) = collector("200 OK", "{}");
    let transcript = send(&folder(), &endpoint, &["--service-name", "shop", "--json"]);
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
    let told: Value = serde_json::from_str(&transcript.stdout).unwrap();
    assert_eq!(json!([told["accepted"], told["rejected"], told["refused"], told["left"]]), json!([SCOPES, 0, 0, 0]));
    let bodies = bodies.lock().unwrap();
    let spans: usize = bodies
        .iter()
        .filter_map(|body| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(spans as u64, SCOPES);
    assert!(bodies.iter().any(|body| body["resourceMetrics"].is_array()), "no sums");
    assert!(bodies.iter().all(|body| body.to_string().contains("shop")));
}

#[test]
fn a_partial_success_and_a_refusal_are_findings() {
    let answer = r#"{"partialSuccess": {"rejectedSpans": "40", "errorMessage": "too old\u001b"}}"#;
    let (endpoint, _) = collector("200 OK", answer);
    let partial = send(&folder(), &endpoint, &[]);
    assert_eq!(partial.code, Some(1), "{}", partial.stderr);
    assert!(
        partial.stdout.starts_with("60 events accepted in ")
            && partial.stdout.contains("; 40 rejected, 0 refused, 0 left"),
        "{}",
        partial.stdout
    );
    assert!(partial.stdout.contains("too old"), "{}", partial.stdout);
    common::assert_neutral(&partial.stdout);

    let (endpoint, _) = collector("400 Bad Request", "no");
    let refused = send(&folder(), &endpoint, &[]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stdout.starts_with("0 events accepted in 0 requests (0 B); 0 rejected, 100 refused, 0 left"),
        "{}",
        refused.stdout
    );
}

#[test]
fn without_a_collector_everything_is_left() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let transcript = send(&folder(), &format!("http://127.0.0.1:{port}"), &["--patience", "0"]);
    assert_eq!(transcript.code, Some(1), "{}", transcript.stderr);
    assert!(
        transcript.stdout.contains("0 events accepted") && transcript.stdout.contains("100 left"),
        "{}",
        transcript.stdout
    );
}

#[test]
fn what_waits_in_a_spool_is_sent_and_then_gone() {
    use kastor_export::{Otlp, OtlpConfig, Protocol, SpoolConfig};
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    // A program whose collector never answered, and that has ended: its lock went with it.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    if std::env::var_os("KASTOR_TEST_SPOOL").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["what_waits_in_a_spool_is_sent_and_then_gone", "--exact"])
            .env("KASTOR_TEST_SPOOL", &spool)
            .status()
            .unwrap();
        assert!(status.success());
    } else {
        let spool = std::env::var_os("KASTOR_TEST_SPOOL").unwrap();
        let config = OtlpConfig::new(format!("http://127.0.0.1:{closed}"))
            .protocol(Protocol::HttpJson)
            .spool(SpoolConfig::new(spool));
        let telemetry = kastor::Telemetry::builder().reporter(Otlp::new(config).unwrap()).build();
        (0..SCOPES).for_each(|_| drop(telemetry.scope("work")));
        telemetry.shutdown(std::time::Duration::from_millis(500));
        return;
    }
    let (endpoint, bodies) = collector("200 OK", "{}");
    let spool = spool.to_str().unwrap();
    let arguments = ["send", spool, "--endpoint", &endpoint, "--protocol", "http-json", "--json"];
    let first: Value = serde_json::from_str(&transcript(&mut kastor(&arguments)).stdout).unwrap();
    assert_eq!(json!([first["accepted"], first["left"], first["corrupt"]]), json!([SCOPES, 0, 0]), "{first}");
    assert!(!bodies.lock().unwrap().is_empty());
    let again = transcript(&mut kastor(&arguments));
    assert!(again.code == Some(2) || again.stdout.contains("\"accepted\": 0"), "{}", again.stdout);
}

#[test]
fn an_endpoint_that_is_none_is_refused() {
    send(&folder(), "ftp://example.com", &[]).assert_refused("cannot send");
}
