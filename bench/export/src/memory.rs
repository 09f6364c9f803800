//! Memory while the collector is dead: the bound that was set, and next to nothing above it.

use std::{fs, hint::black_box, net::TcpListener, time::Duration};

use kastor::{OnFull, Telemetry, background, limits::QUEUE_BYTES, scope};
use kastor_export::{Otlp, OtlpConfig};
use serde_json::{Value, json};

use crate::Order;

/// Scopes into a context whose collector refuses connections: how far the resident memory grows.
pub fn dead_collector(order: &Order) -> Result<Value, String> {
    let scopes: u64 = if order.quick { 5_000_000 } else { 100_000_000 };
    // A port that was free a moment ago, and that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| error.to_string())?
        .port();
    let config = OtlpConfig::new(format!("http://127.0.0.1:{port}"));
    let otlp = Otlp::new(config).map_err(|error| error.to_string())?;
    let telemetry = Telemetry::builder().reporter(background(otlp).on_full(OnFull::Drop)).build();
    telemetry.clone().install().map_err(|error| error.to_string())?;
    drop(scope!("lost"));
    let before = resident_bytes("VmRSS")?;
    for _ in 0..scopes {
        drop(black_box(scope!("lost")));
    }
    let peak = resident_bytes("VmHWM")?;
    let stats = telemetry.stats();
    let reporter = stats.reporters().first().ok_or("no reporter")?;
    let accounted = reporter.delivered() + reporter.dropped().total() + reporter.queued() + reporter.spooled();
    telemetry.shutdown(Duration::from_millis(100));
    Ok(json!({
        "scopes": scopes, "growth_bytes": peak.saturating_sub(before), "bound_bytes": QUEUE_BYTES,
        "unaccounted": stats.emitted().abs_diff(accounted),
    }))
}

fn resident_bytes(what: &str) -> Result<u64, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).ok_or("no such line")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("{what}: {line}"))?;
    Ok(kib * 1024)
}
