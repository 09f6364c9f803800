//! A `/metrics` endpoint, and a scrape of it as Prometheus would make one.
//!
//! The endpoint takes a fresh look at the aggregates when it is asked; recording costs nothing more than without it. A program
//! that runs for long keeps the endpoint until its end; its address is fixed, `127.0.0.1:9464` for instance.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use kastor::{Telemetry, count, gauge, histogram, scope};
use kastor_export::Prometheus;

fn main() -> Result<(), Box<dyn Error>> {
    let tele = Telemetry::builder().build();
    tele.describe("answer_size", "By", "How large answers are.");
    let endpoint = Prometheus::builder().listen("127.0.0.1:0")?.serve(&tele);

    for request in 0..20_u32 {
        let _scope = scope!(tele, "request");
        count!(tele, "requests", 1, code = if request % 5 == 0 { 404 } else { 200 });
        histogram!(tele, "answer_size", 1_000 + 10 * request);
    }
    gauge!(tele, "workers", 4);

    let mut stream = TcpStream::connect(endpoint.address())?;
    // OpenMetrics has exemplars: the trace of the slowest request. Plain text is what `curl` gets.
    let accept = "application/openmetrics-text; version=1.0.0";
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let lines = answer.lines().filter(|line| !line.contains("kastor_events") && !line.starts_with("# HELP kastor"));
    for line in lines {
        println!("{line}");
    }
    Ok(())
}
