//! metrics: a recorder over metrics-util's registry with atomic storage, as exporters build theirs.

use super::{expect, some_text};
use crate::case::{Case, Peer};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, counter, histogram};
use metrics_util::registry::{AtomicStorage, Registry};
use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

/// All configurations of metrics.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Off), Box::new(On)]
}

struct Off;
impl Peer for Off {
    fn name(&self) -> &'static str {
        "metrics/off"
    }
    fn note(&self) -> &'static str {
        "no recorder installed"
    }
    fn cases(&self) -> Vec<Case> {
        vec![Case::new("off_counter", |_| counter!("off").increment(black_box(1)))]
    }
}

struct On;
impl Peer for On {
    fn name(&self) -> &'static str {
        "metrics/on"
    }
    fn note(&self) -> &'static str {
        "a registry with atomic storage: one shared atomic per series; on_metric_event is a histogram, which keeps every value until it is drained"
    }
    fn set_up(&self) {
        metrics::set_global_recorder(Registered).expect("one configuration per process");
    }
    fn flush(&self) {
        registry().visit_histograms(|_, values| values.clear());
    }
    fn cases(&self) -> Vec<Case> {
        static HANDLE: OnceLock<Counter> = OnceLock::new();
        let handle = || HANDLE.get_or_init(|| counter!("handle"));
        vec![
            Case::new("on_counter", |_| counter!("macro").increment(black_box(1)))
                .verify(|ran| expect_sum("macro", ran.iterations)),
            Case::new("on_counter2", |_| counter!("labels", "kind" => "md", "host" => "a").increment(black_box(1)))
                .verify(|ran| expect_sum("labels", ran.iterations)),
            Case::new("on_counter_handle", move |_| handle().increment(black_box(1)))
                .verify(|ran| expect_sum("handle", ran.iterations)),
            Case::new("on_counter_labels", |_| {
                counter!("dynamic", "host" => some_text().to_owned()).increment(black_box(1))
            })
            .verify(|ran| expect_sum("dynamic", ran.iterations)),
            Case::new("on_metric_event", |index| histogram!("values").record(index as f64)),
        ]
    }
}

fn registry() -> &'static Registry<Key, AtomicStorage> {
    static REGISTRY: OnceLock<Registry<Key, AtomicStorage>> = OnceLock::new();
    REGISTRY.get_or_init(|| Registry::new(AtomicStorage))
}

fn expect_sum(name: &str, expected: u64) -> Result<(), String> {
    let handles = registry().get_counter_handles();
    let found = handles.iter().filter(|(key, _)| key.name() == name);
    expect(name, found.map(|(_, value)| value.load(Relaxed)).sum(), expected)
}

struct Registered;
impl Recorder for Registered {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        registry().get_or_create_counter(key, |counter| counter.clone().into())
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        registry().get_or_create_gauge(key, |gauge| gauge.clone().into())
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        registry().get_or_create_histogram(key, |histogram| histogram.clone().into())
    }
}
