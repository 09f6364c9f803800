//! OTLP through a real collector and into a real store.
//!
//! Through `rotel`: the program `otlp_workload` sends, and is the place that the collector sends on to, so that it can
//! compare what came out with what went in, field by field. Into VictoriaMetrics: what the store holds afterwards is
//! compared with what the program says it recorded.

use std::process::Command;

use serde_json::Value;

use super::{
    output,
    place::Place,
    servers::{Rotel, VictoriaMetrics, free_port, wait_for},
};
use crate::steps::{NotPassed, Steps};

/// All checks of this subject.
pub(crate) fn checks(steps: &mut Steps, place: &Place) {
    for (protocol, compression) in [
        ("http/protobuf", "none"),
        ("http/protobuf", "gzip"),
        ("http/json", "none"),
        ("http/json", "gzip"),
        ("grpc", "none"),
        ("grpc", "gzip"),
    ] {
        let name = format!("rotel, {protocol}, {compression}");
        steps.attempt(&name, |_| through_rotel(place, protocol, compression));
    }
    steps.attempt("victoria-metrics, OTLP", |_| into_victoria(place));
}

fn through_rotel(place: &Place, protocol: &str, compression: &str) -> Result<String, NotPassed> {
    let program = place.example("otlp_workload", "grpc")?;
    let sink = free_port()?;
    let url = format!("http://127.0.0.1:{sink}");
    let more = ["--exporter", "otlp", "--otlp-exporter-endpoint", &url, "--otlp-exporter-protocol", "http"];
    let check = format!("otlp-{}-{compression}", protocol.replace('/', "-"));
    let rotel = Rotel::start(place, &check, &more)?;
    let port = if protocol == "grpc" { rotel.grpc } else { rotel.http };
    let mut run = Command::new(program);
    run.args(["through", &sink.to_string(), protocol, compression, &format!("http://127.0.0.1:{port}")]);
    Ok(output(run)?.trim_end().to_owned())
}

fn into_victoria(place: &Place) -> Result<String, NotPassed> {
    let program = place.example("otlp_workload", "grpc")?;
    let victoria = VictoriaMetrics::start(place, "otlp-victoria")?;
    let mut run = Command::new(program);
    run.args(["metrics", &format!("http://127.0.0.1:{}/opentelemetry/v1/metrics", victoria.http)]);
    let said = output(run)?;
    let expected: Vec<Value> = serde_json::from_str(&said)
        .map_err(|error| NotPassed::failed(format!("otlp_workload printed {said}: {error}")))?;
    let mut stored = Vec::new();
    // What was sent is stored at once, but shown a moment later.
    let shown = wait_for("every series in the store", || {
        stored = victoria.export("{__name__!=\"\"}")?;
        Ok(expected.iter().all(|series| find(&stored, series).is_some()).then_some(()))
    });
    for series in &expected {
        let Some(found) = find(&stored, series) else {
            let names: Vec<&Value> = stored.iter().map(|series| &series["metric"]).collect();
            return Err(shown.err().unwrap_or_else(|| NotPassed::failed(format!("no {series} in {names:?}"))));
        };
        let values = found["values"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_equal = |value: &Value| match (value.as_f64(), series["value"].as_f64()) {
            // The store keeps decimal digits, not bits.
            (Some(stored), Some(sent)) => (stored - sent).abs() <= sent.abs() * 1e-12,
            _ => false,
        };
        if !values.last().is_some_and(is_equal) {
            return Err(NotPassed::failed(format!("sent {series}, stored {found}")));
        }
    }
    Ok(format!("{} series as sent, of {} stored", expected.len(), stored.len()))
}

/// The stored series of a name with at least these labels; the store replaces dots by underscores.
fn find<'a>(stored: &'a [Value], series: &Value) -> Option<&'a Value> {
    stored.iter().find(|candidate| {
        let labels = &candidate["metric"];
        let has = |(key, value): (&String, &Value)| {
            [key.clone(), key.replace('.', "_")].iter().any(|key| labels[key.as_str()] == *value)
        };
        labels["__name__"] == series["name"]
            && series["labels"].as_object().is_some_and(|wanted| wanted.iter().all(has))
    })
}
