//! tracing with tracing-subscriber's registry and the timing layer a user would write: start time and attributes
//! in the span's extensions, calls and total per callsite.

use super::{SHARDS, expect, shard_of_thread, some_text};
use crate::case::{Case, Keeper, OpenLevels, Peer, busy, owned_levels};
use crate::{eight_parents, sixty_four_callsites};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Instrument as _, Subscriber, info, info_span};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// All configurations of tracing.
pub fn peers() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Off), Box::new(Named), Box::new(On), Box::new(NoOpLayer)]
}

macro_rules! open {
    ($name:literal) => {
        info_span!($name).entered()
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
    let _span = info_span!("scope2", index, text = some_text()).entered();
    black_box(index);
}

struct Off;
impl Peer for Off {
    fn name(&self) -> &'static str {
        "tracing/off"
    }
    fn note(&self) -> &'static str {
        "registry and timing layer installed under LevelFilter::OFF"
    }
    fn set_up(&self) {
        install(tracing_subscriber::registry().with(LevelFilter::OFF).with(TimingLayer));
    }
    fn cases(&self) -> Vec<Case> {
        vec![Case::new("off_scope0", scope0), Case::new("off_scope2", scope2)]
    }
}

struct Named;
impl Peer for Named {
    fn name(&self) -> &'static str {
        "tracing/named"
    }
    fn note(&self) -> &'static str {
        "registry and timing layer on, one span name switched off by filter_fn (decided once per callsite)"
    }
    fn set_up(&self) {
        let filter = filter_fn(|metadata| metadata.name() != "switched_off");
        install(tracing_subscriber::registry().with(filter).with(TimingLayer));
    }
    fn cases(&self) -> Vec<Case> {
        vec![Case::new("off_named", |index| {
            let _span = open!("switched_off");
            black_box(index);
        })]
    }
}

struct NoOpLayer;
impl Peer for NoOpLayer {
    fn name(&self) -> &'static str {
        "tracing/noop-layer"
    }
    fn note(&self) -> &'static str {
        "registry and a layer that does nothing: no clock is read, nothing is aggregated"
    }
    fn set_up(&self) {
        struct NoOp;
        impl<S: Subscriber> Layer<S> for NoOp {}
        install(tracing_subscriber::registry().with(NoOp));
    }
    fn cases(&self) -> Vec<Case> {
        vec![Case::new("on_inline", scope0)]
    }
}

struct On;
impl Peer for On {
    fn name(&self) -> &'static str {
        "tracing/on"
    }
    fn note(&self) -> &'static str {
        "registry + timing layer: calls and total per callsite (not per path) in a locked map per thread, attributes copied; nothing kept or exported"
    }
    fn set_up(&self) {
        install(tracing_subscriber::registry().with(TimingLayer));
    }
    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("on_scope0", scope0).verify(|ran| expect_calls("scope0", ran.iterations)),
            Case::new("on_scope2", scope2).verify(|ran| expect_calls("scope2", ran.iterations)),
            Case::new("on_nest5", |index| {
                let _first = open!("n1");
                let _second = open!("n2");
                let _third = open!("n3");
                let _fourth = open!("n4");
                let _fifth = open!("n5");
                black_box(index);
            })
            .operations(5)
            .verify(|ran| expect_calls("n5", ran.iterations)),
            Case::new("on_many_paths", |index| eight_parents!(open, index, sixty_four_callsites!(child, index)))
                .operations(65)
                .verify(|ran| expect_calls("c63", ran.iterations)),
            Case::new("on_metric_event", |index| info!(name: "metric", value = index as f64))
                .verify(|ran| expect_calls("metric", ran.iterations)),
            Case::new(
                "on_metric_event2",
                |index| info!(name: "metric2", value = index as f64, index, text = some_text()),
            )
            .verify(|ran| expect_calls("metric2", ran.iterations)),
            Case::poll(|future| future.instrument(info_span!("poll"))).verify(|ran| expect_calls("poll", ran.loops)),
            Case::two_threads(|index| {
                let _span = open!("two_threads");
                black_box(index);
            })
            .verify(|ran| expect_calls("two_threads", ran.iterations)),
            Case::busy_body(|index| {
                let _span = open!("body");
                busy(index);
            })
            .verify(|ran| expect_calls("body", ran.iterations)),
            Case::fresh_threads(|index| {
                let _span = open!("fresh");
                black_box(index);
            })
            .verify(|ran| expect_calls("fresh", ran.iterations)),
        ]
    }
    fn sustains(&self) -> bool {
        true
    }
    fn keeper(&self) -> Option<Box<dyn Keeper>> {
        Some(Box::new(Keep))
    }
    fn open_levels(&self) -> Option<OpenLevels> {
        Some(|depth, mark| owned_levels(|| open!("deep"), depth, mark))
    }
}

/// Calls and total of one callsite.
struct Aggregate {
    name: &'static str,
    calls: u64,
    total: Duration,
}

type Aggregates = HashMap<tracing::callsite::Identifier, Aggregate, Multiply>;

/// In shards, so that two threads pay for tracing and not for this map.
static AGGREGATES: [Mutex<Option<Aggregates>>; SHARDS] = [const { Mutex::new(None) }; SHARDS];
static EVENT_BYTES: AtomicU64 = AtomicU64::new(0);

fn aggregate(metadata: &'static tracing::Metadata<'static>, elapsed: Duration) {
    let mut aggregates = AGGREGATES[shard_of_thread()].lock().expect("no panic under this lock");
    let entry = aggregates.get_or_insert_default().entry(metadata.callsite());
    let entry = entry.or_insert(Aggregate { name: metadata.name(), calls: 0, total: Duration::ZERO });
    entry.calls += 1;
    entry.total += elapsed;
}

fn expect_calls(name: &str, expected: u64) -> Result<(), String> {
    let calls = |shard: &Mutex<Option<Aggregates>>| -> u64 {
        let aggregates = shard.lock().expect("no panic under this lock");
        let entries = aggregates.iter().flat_map(|entries| entries.values());
        entries.filter(|entry| entry.name == name).map(|entry| black_box(entry).calls).sum()
    };
    expect(name, AGGREGATES.iter().map(calls).sum(), expected)
}

struct TimingLayer;

struct Start(Instant);

/// The attributes of a span or event, copied.
#[derive(Default)]
struct Copied(Vec<(&'static str, Value)>);

#[allow(dead_code)] // Kept as an exporter would need them; nobody reads them here.
enum Value {
    Integer(u64),
    Float(f64),
    Text(String),
}

impl Visit for Copied {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), Value::Integer(value)));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.push((field.name(), Value::Float(value)));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), Value::Text(value.to_owned())));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.name(), Value::Text(format!("{value:?}"))));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TimingLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if !attributes.is_empty() {
            let mut copied = Copied::default();
            attributes.record(&mut copied);
            extensions.insert(copied);
        }
        extensions.insert(Start(Instant::now()));
    }
    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(elapsed) = span.extensions().get::<Start>().map(|start| start.0.elapsed()) else { return };
        aggregate(span.metadata(), elapsed);
    }
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut copied = Copied::default();
        event.record(&mut copied);
        EVENT_BYTES.fetch_add(black_box(copied).0.len() as u64, Relaxed);
        aggregate(event.metadata(), Duration::ZERO);
    }
}

/// Callsite identifiers hash as a pointer; SipHash would be half of the layer's cost and not tracing's fault.
#[derive(Clone, Default)]
struct Multiply(u64);
impl BuildHasher for Multiply {
    type Hasher = Multiply;
    fn build_hasher(&self) -> Multiply {
        Multiply(0)
    }
}
impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            byte.hash(self);
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_usize(value.into());
    }
    fn write_usize(&mut self, value: usize) {
        self.0 = (self.0 ^ value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// Keeps every span as a plain struct: the storing layer a user would write.
struct Keep;

#[allow(dead_code)] // Kept for the bytes; only the name is read back.
struct KeptSpan {
    name: &'static str,
    id: u64,
    parent: u64,
    start: Instant,
    elapsed: Duration,
}

static KEPT: Mutex<Vec<KeptSpan>> = Mutex::new(Vec::new());

struct StoringLayer;
impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for StoringLayer {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        span.extensions_mut().insert(Start(Instant::now()));
    }
    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(start) = span.extensions().get::<Start>().map(|start| start.0) else { return };
        let parent = span.parent().map_or(0, |parent| parent.id().into_u64());
        let kept = KeptSpan { name: span.name(), id: id.into_u64(), parent, start, elapsed: start.elapsed() };
        KEPT.lock().expect("no panic under this lock").push(kept);
    }
}

impl Keeper for Keep {
    fn set_up(&self) {
        install(tracing_subscriber::registry().with(StoringLayer));
    }
    fn record(&self, roots: u64, children: u64) {
        for _ in 0..roots {
            let _root = open!("root");
            for index in 0..children {
                let _child = open!("child");
                black_box(index);
            }
        }
    }
    fn count(&self) -> u64 {
        let kept = KEPT.lock().expect("no panic under this lock");
        kept.iter().filter(|span| !black_box(span.name).is_empty()).count() as u64
    }
}

fn install(subscriber: impl Subscriber + Send + Sync) {
    tracing::subscriber::set_global_default(subscriber).expect("one configuration per process");
}
