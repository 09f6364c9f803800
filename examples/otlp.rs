//! Scopes and metrics to an OpenTelemetry collector, which is down at first.
//!
//! The collector here is a few lines of its own, so that the example needs nothing else; give the URL of a real one as argument.
//! It answers "not now" to the first requests. kastor tries again by itself, and accounts for every event meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kastor::{Telemetry, count, scope};
use kastor_export::{Otlp, OtlpConfig, Protocol, Retry};

/// How many requests the collector of this example turns away.
const TURNED_AWAY: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    let url = match std::env::args().nth(1) {
        Some(url) => url,
        None => collector(Arc::clone(&taken))?,
    };
    let config = OtlpConfig::new(&url)
        .service_name("shop")
        // Protobuf is smaller; JSON can be looked at.
        .protocol(Protocol::HttpJson)
        .retry(Retry { initial: Duration::from_millis(20), ..Retry::default() });
    println!("{config:?}");
    let telemetry = Telemetry::builder().reporter(Otlp::new(config)?).build();

    {
        // This thread's current context, in place of the process's: the other way to make the macros find one.
        let _current = telemetry.override_current();
        for order in 0..100_u32 {
            let scope = scope!("checkout", order = order, card = "4111 1111", password = "hunter2");
            count!("orders", 1, country = "CH");
            if order % 10 == 0 {
                scope.fail("declined");
            }
        }
    }

    // Everything arrives, although the collector did not want it at first; with a time limit, it would say what is left.
    let flushed = telemetry.shutdown(Duration::from_secs(10));
    println!("{flushed}; {}", telemetry.stats());
    assert!(flushed.is_complete());
    assert_eq!(telemetry.stats().reporters()[0].delivered(), 100);

    let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
    if !taken.is_empty() {
        let count = |text: &str| taken.iter().map(|body| body.matches(text).count()).sum::<usize>();
        assert_eq!((count("\"name\":\"checkout\""), count("\"stringValue\":\"declined\"")), (100, 10));
        // Sums come as metrics, and secrets do not come at all.
        assert!(count("\"name\":\"orders\"") > 0 && count("hunter2") == 0);
    }
    Ok(())
}

/// Starts a collector on a free port, which keeps the bodies that it takes; its URL.
fn collector(taken: Arc<Mutex<Vec<String>>>) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        let mut requests = 0;
        for connection in listener.incoming().flatten() {
            // An exporter keeps one connection for each signal open; here each gets one request.
            if let Some(body) = request(&connection) {
                requests += 1;
                let status = if requests <= TURNED_AWAY { "503 Not Now" } else { "200 OK" };
                if requests > TURNED_AWAY {
                    taken.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                }
                let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                let _ = (&connection).write_all(answer.as_bytes());
            }
        }
    });
    Ok(url)
}

/// The body of the request that comes over a connection.
fn request(connection: &TcpStream) -> Option<String> {
    let mut input = BufReader::new(connection);
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        input.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = String::new();
    input.take(length).read_to_string(&mut body).ok()?;
    Some(body)
}
