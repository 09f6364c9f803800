//! OTLP over HTTP with protobuf, uncompressed: kastor and opentelemetry-rust's batch exporter with the same payload.
//!
//! Both send traces of one root and 99 children, each span with an integer and a text. *Paced*: a burst, then a flush,
//! so that neither loses anything; what counts is delivered spans per second of the sender's CPU time, system time
//! included. The receiver is another process and counts by itself.

use std::time::{Duration, Instant};

use kastor::{OnFull, Telemetry, background, scope};
use kastor_export::{Otlp, OtlpConfig};
use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use serde_json::{Value, json};

use crate::{Order, machine::process_cpu_ns, sink};

const CHILDREN: u64 = 99;
/// Traces between two flushes: 10,000 spans, well below either queue.
const BURST: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(60);
const TEXT: &str = "some text value!";

/// kastor, paced.
pub fn kastor_paced(order: &Order) -> Result<Value, String> {
    let bursts = if order.quick { 20 } else { 300 };
    let telemetry = kastor(order.port)?;
    kastor_traces(&telemetry, BURST);
    telemetry.flush(PATIENCE);
    paced(order.port, bursts, || {
        kastor_traces(&telemetry, BURST);
        if telemetry.flush(PATIENCE).is_complete() { Ok(()) } else { Err("kastor's flush did not end".to_owned()) }
    })
}

/// kastor, as fast as it goes: what is lost has to be counted to the last span.
pub fn kastor_unpaced(order: &Order) -> Result<Value, String> {
    let traces = if order.quick { 20_000 } else { 100_000 };
    let before = sink::count(order.port)?;
    let telemetry = kastor(order.port)?;
    let start = Instant::now();
    kastor_traces(&telemetry, traces);
    telemetry.flush(PATIENCE);
    let seconds = start.elapsed().as_secs_f64();
    let arrived = sink::count(order.port)? - before;
    let stats = telemetry.stats();
    let reporter = stats.reporters().first().ok_or("no reporter")?;
    let (emitted, delivered, dropped) = (stats.emitted(), reporter.delivered(), reporter.dropped().total());
    let unaccounted = emitted as i64 - delivered as i64 - dropped as i64;
    Ok(json!({
        "emitted": emitted, "delivered": delivered, "arrived": arrived, "dropped": dropped, "seconds": seconds,
        "unaccounted": unaccounted.abs() + (delivered as i64 - arrived as i64).abs(),
    }))
}

/// opentelemetry-rust, paced.
pub fn opentelemetry_paced(order: &Order) -> Result<Value, String> {
    let bursts = if order.quick { 20 } else { 100 };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("http://127.0.0.1:{}/v1/traces", order.port))
        .build()
        .map_err(|error| error.to_string())?;
    // Room for a whole burst, and requests as large as its own limit lets them be.
    let config = BatchConfigBuilder::default().with_max_queue_size(65_536).with_max_export_batch_size(8_192).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let tracer = provider.tracer("bench");
    let burst = || {
        for index in 0..BURST {
            let attributes = |index: u64| [KeyValue::new("index", index as i64), KeyValue::new("text", TEXT)];
            let mut root = tracer.start("root");
            root.set_attributes(attributes(index));
            let context = Context::current_with_span(root);
            for index in 0..CHILDREN {
                let mut child = tracer.start_with_context("child", &context);
                child.set_attributes(attributes(index));
                child.end();
            }
        }
        provider.force_flush().map_err(|error| error.to_string())
    };
    burst()?;
    paced(order.port, bursts, burst)
}

fn kastor(port: u16) -> Result<Telemetry, String> {
    let config = OtlpConfig::new(format!("http://127.0.0.1:{port}")).without_metrics();
    let otlp = Otlp::new(config).map_err(|error| error.to_string())?;
    let telemetry = Telemetry::builder().reporter(background(otlp).on_full(OnFull::Drop)).build();
    telemetry.clone().install().map_err(|error| error.to_string())?;
    Ok(telemetry)
}

fn kastor_traces(_: &Telemetry, traces: u64) {
    for index in 0..traces {
        let _root = scope!("root", index = index, text = TEXT);
        for index in 0..CHILDREN {
            let _child = scope!("child", index = index, text = TEXT);
        }
    }
}

/// Bursts until so many are through; what arrived per CPU second of this process.
fn paced(port: u16, bursts: u64, burst: impl Fn() -> Result<(), String>) -> Result<Value, String> {
    let (before, cpu_ns, start) = (sink::count(port)?, process_cpu_ns(), Instant::now());
    for _ in 0..bursts {
        burst()?;
    }
    let (cpu_ns, seconds) = (process_cpu_ns() - cpu_ns, start.elapsed().as_secs_f64());
    let (sent, arrived) = (bursts * BURST * (CHILDREN + 1), sink::count(port)? - before);
    let per_cpu_second = arrived as f64 / (cpu_ns as f64 / 1e9);
    Ok(json!({ "sent": sent, "arrived": arrived, "lost": sent.abs_diff(arrived), "seconds": seconds,
        "per_cpu_second": per_cpu_second, "per_second": arrived as f64 / seconds }))
}
