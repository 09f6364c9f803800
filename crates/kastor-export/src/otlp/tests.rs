//! The bytes of spans against those that the official types make of the same events: each byte, whatever is in the
//! records.

use kastor::{Anchor, Batch, Event, Metric, Outcome, Process, Timing, Value};
use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    trace::v1::{Span, Status, span, status},
};
use proptest::prelude::*;
use prost::Message;

use super::{
    span::{SpanEncoder, SpanLimits},
    value::{AttributeWriter, integer, text},
};
use crate::{
    Redaction,
    capture::{Kept, KeptRecords},
};

/// A span as the official types have it, built the long way.
struct Official {
    limits: SpanLimits,
    redaction: Redaction,
    writer: AttributeWriter,
}

impl Official {
    fn timing(&mut self, timing: &Timing<'_>) -> Span {
        let (start, duration) = (timing.start_unix_ns(), timing.duration_ns());
        let mut span = Span {
            trace_id: timing.trace_id().to_be_bytes().to_vec(),
            span_id: timing.span_id().to_be_bytes().to_vec(),
            parent_span_id: timing.parent_span_id().map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
            flags: 1,
            name: timing.name().to_owned(),
            kind: span::SpanKind::Internal as i32,
            start_time_unix_nano: start,
            end_time_unix_nano: start.saturating_add(duration),
            ..Span::default()
        };
        let (limits, has_failed) = (self.limits, timing.outcome() == Outcome::Failed);
        let mut own: Vec<(&str, Value<'_>)> = timing.attributes().collect();
        own.retain(|(key, value)| {
            let names = ["internal", "server", "client", "producer", "consumer"];
            let kind = names.iter().position(|name| *key == "span.kind" && value.as_str() == Some(name));
            span.kind = kind.map_or(span.kind, |at| at as i32 + 1);
            kind.is_none()
        });
        let most = limits.attributes.saturating_sub(usize::from(has_failed));
        let names_its_error = own.iter().any(|(key, _)| *key == "error.type");
        let left_out = self.writer.write(&mut span.attributes, own.into_iter(), most, limits.value_characters);
        let dropped = u32::try_from(timing.dropped_items()).unwrap_or(u32::MAX);
        span.dropped_attributes_count = left_out.saturating_add(dropped);
        if has_failed {
            span.status = Some(Status { message: String::new(), code: status::StatusCode::Error as i32 });
            if !names_its_error {
                let error_type = Value::Str(timing.error_type().unwrap_or("_OTHER"));
                self.writer.push(&mut span.attributes, "error.type", &error_type, limits.value_characters);
            }
        }
        self.add_thread(&mut span.attributes, timing.thread().os_id(), timing.thread().name());
        for event in timing.events().take(limits.events) {
            let mut attributes = Vec::new();
            let (most, longest) = (limits.event_attributes, limits.value_characters);
            let dropped_attributes_count = self.writer.write(&mut attributes, event.attributes(), most, longest);
            let (time_unix_nano, name) = (event.unix_ns(), event.name().to_owned());
            span.events.push(span::Event { time_unix_nano, name, attributes, dropped_attributes_count });
        }
        for link in timing.links().take(limits.links) {
            let (trace_id, span_id) = (link.trace_id.to_be_bytes().to_vec(), link.span_id.to_be_bytes().to_vec());
            span.links.push(span::Link { trace_id, span_id, ..span::Link::default() });
        }
        span.dropped_events_count = timing.events().skip(limits.events).count() as u32;
        span.dropped_links_count = timing.links().skip(limits.links).count() as u32;
        span
    }

    fn metric(&mut self, metric: &Metric<'_>, thread: (u64, &str), ids: (u128, u64)) -> Span {
        let mut span = Span {
            trace_id: ids.0.to_be_bytes().to_vec(),
            span_id: ids.1.to_be_bytes().to_vec(),
            parent_span_id: metric.parent_span_id().map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
            flags: 1,
            name: metric.name().to_owned(),
            kind: span::SpanKind::Internal as i32,
            start_time_unix_nano: metric.unix_ns(),
            end_time_unix_nano: metric.unix_ns(),
            ..Span::default()
        };
        let (most, longest) = (self.limits.attributes, self.limits.value_characters);
        let replacement = self.redaction.replacement(metric.name(), &metric.value());
        let value = replacement.as_deref().map_or(metric.value(), Value::Str);
        self.writer.push(&mut span.attributes, "kastor.metric.value", &value, longest);
        span.dropped_attributes_count = self.writer.write(&mut span.attributes, metric.attributes(), most, longest);
        self.add_thread(&mut span.attributes, thread.0, thread.1);
        span
    }

    fn add_thread(&self, to: &mut Vec<KeyValue>, os_id: u64, name: &str) {
        to.push(integer("thread.id", i64::try_from(os_id).unwrap_or(i64::MAX)));
        if !name.is_empty() {
            to.push(text("thread.name", self.redaction.free_text(name)));
        }
    }
}

/// Checks every event of a batch; returns how many there were.
fn check(batch: &Batch<'_>, limits: SpanLimits, redaction: &Redaction) -> usize {
    let mut ours = SpanEncoder::new(limits, redaction.clone());
    let writer = AttributeWriter::new(redaction.clone());
    let mut official = Official { limits, redaction: redaction.clone(), writer };
    ours.begin(batch);
    let mut events = 0;
    for event in batch.events() {
        let (bytes, expected) = match event {
            Event::Timing(timing) => (ours.timing(&timing), official.timing(&timing)),
            Event::Metric(metric) => {
                let (thread, ids) = (batch.thread(), (u128::MAX - 5, 7));
                let expected = official.metric(&metric, (thread.os_id(), thread.name()), ids);
                (ours.metric(&metric, ids.0, ids.1), expected)
            }
        };
        // In words, since NaN is not equal to itself.
        assert_eq!(format!("{:?}", Span::decode(bytes).unwrap()), format!("{expected:?}"));
        assert!(bytes == expected.encode_to_vec(), "the same message, written otherwise: {expected:?}");
        events += 1;
    }
    events
}

/// One record in the layout of `docs/format.md`: kind, flags, words 1 to 3, and what follows.
#[derive(Clone, Debug)]
struct Written {
    kind: u8,
    flags: u8,
    path: u32,
    ids: (u32, u32, u32),
    duration: u32,
    start: u64,
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
struct Item {
    key: u32,
    tag: u8,
    payload: Vec<u8>,
    inner: Vec<Item>,
}

impl Item {
    fn words(&self) -> Vec<u8> {
        let mut payload = self.payload.clone();
        if self.tag == 17 {
            // A point event: its tick, then items.
            payload.resize(8, 0);
            payload.extend(self.inner.iter().flat_map(Item::words));
        }
        let head = u64::from(self.key) | u64::from(self.tag) << 32 | (payload.len() as u64) << 40;
        let mut bytes = head.to_le_bytes().to_vec();
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

impl Written {
    fn bytes(&self) -> Vec<u8> {
        let Self { kind, flags, path, ids, duration, start, items } = self;
        let mut rest: Vec<u8> = Vec::new();
        // LONG means something else in a metric.
        for flag in [4, 8] {
            if flags & flag != 0 && (*kind == 1 || flag == 8) {
                rest.extend_from_slice(&(u64::from(*duration) * 3).to_le_bytes());
            }
        }
        if flags & 32 != 0 {
            rest.extend(items.iter().flat_map(Item::words));
        }
        let words = (32 + rest.len()) / 8;
        let head = u64::from(*path) | u64::from(*flags) << 32 | u64::from(*kind) << 40 | (words as u64) << 48;
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let fixed = [head, pair(ids.0, ids.1), pair(ids.2, *duration), *start];
        fixed.into_iter().flat_map(u64::to_le_bytes).chain(rest).collect()
    }
}

const NAMES: [&str; 8] =
    ["", "span.kind", "error.type", "db.password", "größe", "k", "thread.id", "a.rather.long.key.of.many.segments"];
const TEXTS: [&str; 6] = ["server", "consumer", "", "https://me:pw@example.org/", "Bearer abcdef0123456789", "plain"];

fn items(depth: u32) -> BoxedStrategy<Vec<Item>> {
    let payload = prop_oneof![
        2 => any::<u64>().prop_map(|word| word.to_le_bytes().to_vec()),
        2 => (0..TEXTS.len()).prop_map(|at| TEXTS[at].as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (100..300_usize).prop_map(|length| vec![b'x'; length]),
    ];
    let tag = prop_oneof![4 => 0..8_u8, 1 => 16..21_u8];
    let inner = if depth == 0 { Just(Vec::new()).boxed() } else { items(depth - 1) };
    let item =
        (4..12_u32, tag, payload, inner).prop_map(|(key, tag, payload, inner)| Item { key, tag, payload, inner });
    prop::collection::vec(item, 0..6).boxed()
}

fn records() -> impl Strategy<Value = Vec<Written>> {
    let numbers = (any::<u32>(), any::<u64>(), (0..4_u32, 0..4_u32, 0..4_u32));
    let record = (1..3_u8, 0..64_u8, 1..4_u32, numbers, items(1)).prop_map(|(kind, flags, path, numbers, items)| {
        let (duration, start, ids) = numbers;
        Written { kind, flags: flags | 32, path, ids, duration, start, items }
    });
    prop::collection::vec(record, 1..8)
}

fn limits() -> impl Strategy<Value = SpanLimits> {
    let few = || prop_oneof![0..4_usize, Just(128)];
    (few(), few(), few(), few(), prop_oneof![0..6_usize, Just(usize::MAX)]).prop_map(
        |(attributes, events, links, event_attributes, value_characters)| SpanLimits {
            attributes,
            value_characters,
            events,
            links,
            event_attributes,
        },
    )
}

fn with_batch<R>(records: &[u8], flows: &[u8], slope: f64, f: impl FnOnce(&Batch<'_>) -> R) -> R {
    let mut replay = Kept::new(Process { id: 1, instance_id: 2 });
    (4..).zip(NAMES).for_each(|(number, name)| replay.name(number, name));
    [
        (1, 0, "job"),
        (2, 1, ""),
        (3, 1, "ein Name mit ü, and so long that its length takes two bytes: ".repeat(3).as_str()),
    ]
    .iter()
    .for_each(|(number, above, last)| replay.path(*number, *above, last));
    replay.thread(9, u64::MAX, "worker, token=abc");
    let anchor = Anchor { ticks: 1 << 60, monotonic_ns: 1 << 50, unix_ns: 1 << 60 };
    let kept = KeptRecords { thread: 9, id_prefix: 0x1316_d09a_5880_67a4, anchor, ns_per_tick: slope, records, flows };
    f(&replay.batch(&kept))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_is_what_the_official_types_write(
        records in records(),
        flows in prop::collection::vec(any::<u64>(), 0..8),
        limits in limits(),
        hides in any::<bool>(),
        slope in prop_oneof![Just(1.0), 0.1..3.0_f64],
    ) {
        let redaction = if hides { Redaction::default() } else { Redaction::none() };
        let bytes: Vec<u8> = records.iter().flat_map(Written::bytes).collect();
        let flows: Vec<u8> = flows.into_iter().flat_map(u64::to_le_bytes).collect();
        let events = with_batch(&bytes, &flows, slope, |batch| check(batch, limits, &redaction));
        prop_assert!(events > 0);
    }

    #[test]
    fn bytes_that_are_no_records_make_no_wrong_span(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        with_batch(&bytes, &bytes, 0.4, |batch| check(batch, SpanLimits::default(), &Redaction::default()));
    }
}
