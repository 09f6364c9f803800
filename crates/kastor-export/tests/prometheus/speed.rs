//! How long a scrape of 10,000 series takes. Ignored: it is a measurement, for a quiet machine and an optimised build:
//!
//! ```text
//! cargo test --release -p kastor-export --test prometheus -- --ignored --nocapture speed
//! ```

use std::time::{Duration, Instant};

use kastor::{Telemetry, Value};
use kastor_export::{Exposition, PrometheusFormat};

const SERIES: u64 = 10_000;
const ROUNDS: usize = 20;
/// What a scrape may take.
const BAR: Duration = Duration::from_millis(10);

/// 10,000 series: nine counters or gauges of ten, each with two labels, and the rest histograms, counted by their lines.
fn context() -> Telemetry {
    let tele = Telemetry::builder().build();
    for series in 0..SERIES * 9 / 10 {
        let labels = [("route", Value::Str("/api/v1/items")), ("shard", Value::U64(series % 1_000))];
        if series % 2 == 0 {
            tele.counter(&format!("requests_{}", series / 1_000), &labels).add(series);
        } else {
            tele.gauge(&format!("level_{}", series / 1_000), &labels).set(series as f64 + 0.5);
        }
    }
    // Eight octaves, the one below, infinity, count and sum: twelve lines each.
    for series in 0..SERIES / 10 / 12 {
        let histogram = tele.histogram("sizes", &[("shard", Value::U64(series))]);
        (0..800).for_each(|value| histogram.record(f64::from(value % 250 + 1)));
    }
    tele
}

#[test]
#[ignore = "a measurement"]
fn a_scrape_of_ten_thousand_series_takes_at_most_ten_milliseconds() {
    let tele = context();
    for format in [PrometheusFormat::Text, PrometheusFormat::OpenMetrics, PrometheusFormat::Protobuf] {
        let exposition = Exposition::new(format);
        let mut best = (Duration::MAX, Duration::MAX);
        let mut out = Vec::new();
        for _ in 0..ROUNDS {
            out.clear();
            let whole = Instant::now();
            let encoding = tele.snapshot(|snapshot| {
                let encoding = Instant::now();
                exposition.encode(snapshot, &mut out);
                encoding.elapsed()
            });
            best = (best.0.min(whole.elapsed()), best.1.min(encoding));
        }
        println!("{format:?}: {:?} with the snapshot, {:?} of it encoding, {} bytes", best.0, best.1, out.len());
        assert!(best.0 <= BAR, "{format:?} took {:?}", best.0);
    }
}
