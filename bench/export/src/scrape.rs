//! A scrape of 10,000 series, over HTTP on loopback, as Prometheus does it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use kastor::{Telemetry, count};
use kastor_export::Prometheus;
use serde_json::{Value, json};

use crate::Order;

const METRICS: usize = 10;
const SERIES_OF_METRIC: usize = 1_000;

/// Serves 10,000 series and scrapes them: the median and the worst of some scrapes.
pub fn serve(order: &Order) -> Result<Value, String> {
    let builder = Prometheus::builder().least_interval(Duration::ZERO);
    let prometheus = builder.listen("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = prometheus.address();
    let telemetry = Telemetry::builder().reporter(prometheus).build();
    for metric in 0..METRICS {
        for series in 0..SERIES_OF_METRIC {
            let labels = [("host", format!("host-{series}")), ("region", format!("r{}", series % 7))];
            let labels: Vec<_> = labels.iter().map(|(key, value)| (*key, value.as_str().into())).collect();
            telemetry.counter(&format!("requests_{metric}"), &labels).add(series as u64);
        }
    }
    let _current = telemetry.override_current();
    count!("scrapes", 1);
    let mut times_ms = Vec::new();
    let mut bytes = 0;
    for _ in 0..if order.quick { 5 } else { 50 } {
        let start = Instant::now();
        let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(|error| error.to_string())?;
        times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        let text = String::from_utf8_lossy(&answer);
        let series = text.lines().filter(|line| line.contains("requests_") && !line.starts_with('#')).count();
        if series < METRICS * SERIES_OF_METRIC {
            return Err(format!("{series} series came: {}", text.chars().take(200).collect::<String>()));
        }
        bytes = answer.len();
    }
    times_ms.sort_by(f64::total_cmp);
    let median = times_ms.get(times_ms.len() / 2).copied();
    Ok(json!({ "median_ms": median, "worst_ms": times_ms.last(), "bytes": bytes }))
}
