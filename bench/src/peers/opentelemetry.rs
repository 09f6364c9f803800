//! The OpenTelemetry SDK: spans made current by a context, as `in_span` does, and its counters.

use super::{Arrivals, expect, some_text};
use crate::case::{Case, Keeper, OpenLevels, Peer, busy, dynamic_names, owned_levels};
use crate::{eight_parents, sixty_four_callsites};
use opentelemetry::metrics::{Counter, MeterProvider as _};
use opentelemetry::trace::{
    FutureExt as _, Span as _, SpanBuilder, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, ContextGuard, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// All configurations of OpenTelemetry.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Off), Box::new(On), Box::new(Simple)]
}

static TRACES: OnceLock<SdkTracerProvider> = OnceLock::new();
static TRACER: OnceLock<SdkTracer> = OnceLock::new();
static METRICS: OnceLock<SdkMeterProvider> = OnceLock::new();
static COUNTER: OnceLock<Counter<u64>> = OnceLock::new();

fn install(traces: SdkTracerProvider, metrics: SdkMeterProvider) {
    let _ = TRACER.set(traces.tracer("bench"));
    let _ = TRACES.set(traces);
    let _ = COUNTER.set(metrics.meter("bench").u64_counter("counter").build());
    let _ = METRICS.set(metrics);
}

#[inline(always)]
fn tracer() -> &'static SdkTracer {
    TRACER.get().expect("installed by set_up")
}

macro_rules! open {
    ($name:expr) => {
        Context::current_with_span(tracer().start($name)).attach()
    };
}
macro_rules! child {
    ($index:expr, $name:literal) => {{
        let _span = open!($name);
        black_box($index);
    }};
}

fn scope0(index: u64) {
    let _span = open!("scope0");
    black_box(index);
}

fn scope2(index: u64) {
    let attributes = [KeyValue::new("index", index as i64), KeyValue::new("text", some_text().to_owned())];
    let span = tracer().build(SpanBuilder::from_name("scope2").with_attributes(attributes));
    let _span = Context::current_with_span(span).attach();
    black_box(index);
}

struct Off;
impl Peer for Off {
    fn name(&self) -> &'static str {
        "opentelemetry/off"
    }
    fn note(&self) -> &'static str {
        "tracer provider with Sampler::AlwaysOff; meter provider without a reader"
    }
    fn set_up(&self) {
        let traces = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).with_span_processor(Count);
        install(traces.build(), SdkMeterProvider::builder().build());
    }
    fn cases(&self) -> Vec<Case> {
        // One name: choosing among many is no part of opening a scope.
        let name = black_box(dynamic_names("d")[0].clone());
        vec![
            Case::new("off_scope0", scope0).verify(|_| ARRIVALS.expect(0)),
            Case::new("off_scope2", scope2).verify(|_| ARRIVALS.expect(0)),
            Case::new("off_counter", |_| counter().add(black_box(1), &[])),
            Case::new("off_dynamic", move |index| {
                let _span = open!(name.clone());
                black_box(index);
            })
            .verify(|_| ARRIVALS.expect(0)),
        ]
    }
}

struct Simple;
impl Peer for Simple {
    fn name(&self) -> &'static str {
        "opentelemetry/simple"
    }
    fn note(&self) -> &'static str {
        "SimpleSpanProcessor with an exporter that only counts, inline"
    }
    fn set_up(&self) {
        #[derive(Debug)]
        struct CountExporter;
        impl SpanExporter for CountExporter {
            async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
                ARRIVALS.add(batch.len() as u64);
                Ok(())
            }
        }
        let traces = SdkTracerProvider::builder().with_simple_exporter(CountExporter);
        install(traces.build(), SdkMeterProvider::builder().build());
    }
    fn cases(&self) -> Vec<Case> {
        vec![Case::new("on_inline", scope0).verify(|ran| ARRIVALS.expect(ran.iterations))]
    }
}

struct On;
impl Peer for On {
    fn name(&self) -> &'static str {
        "opentelemetry/on"
    }
    fn note(&self) -> &'static str {
        "span processor that counts the finished SpanData and drops it: no aggregates, nothing exported; counters under a periodic reader"
    }
    fn set_up(&self) {
        let reader = PeriodicReader::builder(Sums).with_interval(Duration::from_secs(3600)).build();
        let metrics = SdkMeterProvider::builder().with_reader(reader).build();
        install(SdkTracerProvider::builder().with_span_processor(Count).build(), metrics);
    }
    fn cases(&self) -> Vec<Case> {
        let one = |case: Case| case.verify(|ran| ARRIVALS.expect(ran.iterations));
        let names = dynamic_names("d");
        vec![
            one(Case::new("on_scope0", scope0)),
            one(Case::new("on_scope2", scope2)),
            Case::new("on_nest5", |index| {
                let _first = open!("n1");
                let _second = open!("n2");
                let _third = open!("n3");
                let _fourth = open!("n4");
                let _fifth = open!("n5");
                black_box(index);
            })
            .operations(5)
            .verify(|ran| ARRIVALS.expect(ran.iterations * 5)),
            Case::new("on_many_paths", |index| eight_parents!(open, index, sixty_four_callsites!(child, index)))
                .operations(65)
                .verify(|ran| ARRIVALS.expect(ran.iterations * 65)),
            one(Case::new("on_dynamic", move |index| {
                let _span = open!(names[index as usize % 64].clone());
                black_box(index);
            })),
            Case::new("on_counter_handle", |_| counter().add(black_box(1), &[]))
                .verify(|ran| expect_sum("", ran.iterations)),
            Case::new("on_counter2", |_| {
                counter().add(black_box(1), &[KeyValue::new("kind", "md"), KeyValue::new("host", "a")]);
            })
            .verify(|ran| expect_sum("host=a kind=md", ran.iterations)),
            Case::new("on_counter_labels", |_| {
                counter().add(black_box(1), &[KeyValue::new("host", some_text().to_owned())]);
            })
            .verify(|ran| expect_sum("host=some text", ran.iterations)),
            Case::poll(|future| future.with_context(Context::current_with_span(tracer().start("poll"))))
                .verify(|ran| ARRIVALS.expect(ran.loops)),
            one(Case::two_threads(scope0)),
            one(Case::busy_body(|index| {
                let _span = open!("body");
                busy(index);
            })),
            one(Case::fresh_threads(scope0)),
        ]
    }
    fn sustains(&self) -> bool {
        true
    }
    fn keeper(&self) -> Option<Box<dyn Keeper>> {
        Some(Box::new(Keep))
    }
    fn open_levels(&self) -> Option<OpenLevels> {
        Some(|depth, mark| owned_levels(|| -> ContextGuard { open!("deep") }, depth, mark))
    }
}

static ARRIVALS: Arrivals = Arrivals::new();

#[derive(Debug)]
struct Count;
impl SpanProcessor for Count {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, span: SpanData) {
        black_box(span);
        ARRIVALS.add(1);
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[inline(always)]
fn counter() -> &'static Counter<u64> {
    COUNTER.get().expect("installed by set_up")
}

/// The last exported sum of every series, by its sorted labels.
static SUMS: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);

struct Sums;
impl PushMetricExporter for Sums {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut sums = SUMS.lock().expect("no panic under this lock");
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else { continue };
            for point in sum.data_points() {
                let mut labels: Vec<_> =
                    point.attributes().map(|label| format!("{}={}", label.key, label.value)).collect();
                labels.sort();
                sums.get_or_insert_default().insert(labels.join(" "), point.value());
            }
        }
        Ok(())
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn expect_sum(labels: &str, expected: u64) -> Result<(), String> {
    METRICS.get().expect("installed by set_up").force_flush().map_err(|error| error.to_string())?;
    let sums = SUMS.lock().expect("no panic under this lock");
    expect(labels, sums.iter().flatten().find(|(found, _)| *found == labels).map_or(0, |(_, sum)| *sum), expected)
}

static KEPT: Mutex<Vec<SpanData>> = Mutex::new(Vec::new());

/// Keeps the finished spans as they are.
#[derive(Debug)]
struct Keep;
impl SpanProcessor for Keep {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, span: SpanData) {
        KEPT.lock().expect("no panic under this lock").push(span);
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
impl Keeper for Keep {
    fn set_up(&self) {
        let traces = SdkTracerProvider::builder().with_span_processor(Keep);
        install(traces.build(), SdkMeterProvider::builder().build());
    }
    fn record(&self, roots: u64, children: u64) {
        for _ in 0..roots {
            let _root = open!("root");
            // Leaf spans need no context of their own.
            for index in 0..children {
                let mut child = tracer().start("child");
                black_box(index);
                child.end();
            }
        }
    }
    fn count(&self) -> u64 {
        let kept = KEPT.lock().expect("no panic under this lock");
        kept.iter().filter(|span| !black_box(&span.name).is_empty()).count() as u64
    }
}
