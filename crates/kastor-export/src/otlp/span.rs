//! From an event to the bytes of one span.
//!
//! A span's bytes stand alone: they are put into a request, split over several, or held back until a trace is decided,
//! without being read again. They are written by hand, field by field in the order of the numbers, from the record where
//! it lies to memory that is used for every span: building the official types and having them encoded took three times
//! as long (`cargo xtask bench --gate export`). The official types are what `tests.rs` compares every byte with.

use kastor::{Batch, Metric, Outcome, PointEvent, Timing, Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::{
    attribute::{AttributeBytes, Role, push_integer, push_text},
    wire::{FIXED32_16, fixed64_key, length_key, push_count, push_field, push_fixed64, push_message, varint_key},
};
use crate::redact::Redaction;

/// Limits of a span, as OpenTelemetry names them. The core has limits of its own, which come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanLimits {
    pub(crate) attributes: usize,
    pub(crate) value_characters: usize,
    pub(crate) events: usize,
    pub(crate) links: usize,
    pub(crate) event_attributes: usize,
}

impl Default for SpanLimits {
    fn default() -> Self {
        Self { attributes: 128, value_characters: usize::MAX, events: 128, links: 128, event_attributes: 128 }
    }
}

/// Field 16, the flags: sampled, of the W3C's trace flags.
const SAMPLED: [u8; 6] = [FIXED32_16[0], FIXED32_16[1], 1, 0, 0, 0];
/// Field 15, the status: its code (field 3) is an error.
const FAILED: [u8; 4] = [length_key(15), 2, varint_key(3), 2];
/// The number of `attributes` among a span's fields.
const ATTRIBUTES: u8 = 9;

pub(crate) struct SpanEncoder {
    limits: SpanLimits,
    redaction: Redaction,
    attributes: AttributeBytes,
    /// The attributes that all spans of a thread share, encoded.
    of_thread: Vec<u8>,
    bytes: Vec<u8>,
}

/// Who a span is.
struct Ids {
    trace: u128,
    span: u64,
    parent: Option<u64>,
}

impl SpanEncoder {
    pub(crate) fn new(limits: SpanLimits, redaction: Redaction) -> Self {
        let attributes = AttributeBytes::new(redaction.clone());
        Self { limits, redaction, attributes, of_thread: Vec::new(), bytes: Vec::new() }
    }

    /// What is the same for all events of a batch.
    pub(crate) fn begin(&mut self, batch: &Batch<'_>) {
        self.of_thread.clear();
        let thread = batch.thread();
        let id = i64::try_from(thread.os_id()).unwrap_or(i64::MAX);
        push_integer(&mut self.of_thread, ATTRIBUTES, "thread.id", id);
        if !thread.name().is_empty() {
            push_text(&mut self.of_thread, ATTRIBUTES, "thread.name", &self.redaction.free_text(thread.name()));
        }
    }

    /// The bytes of the span of a scope.
    pub(crate) fn timing(&mut self, timing: &Timing<'_>) -> &[u8] {
        let Self { limits, attributes, of_thread, bytes: to, .. } = self;
        let (trace, span, parent) = (timing.trace_id(), timing.span_id(), timing.parent_span_id());
        let start_ns = timing.start_unix_ns();
        let times = (start_ns, start_ns.saturating_add(timing.duration_ns()));
        let kind_at = push_front(to, &Ids { trace, span, parent }, timing.name(), times);

        // Room for the error's type, which must not be what a limit leaves out.
        let has_failed = timing.outcome() == Outcome::Failed;
        let most = limits.attributes.saturating_sub(usize::from(has_failed));
        let (mut written, mut left_out, mut names_its_error) = (0, 0_u32, false);
        for (key, value) in timing.attributes() {
            let key = attributes.key(key);
            match key.role {
                Role::Ordinary => {}
                Role::ErrorType => names_its_error = true,
                Role::SpanKind => {
                    if let Some(kind) = kind(&value) {
                        set(to, kind_at, kind);
                        continue;
                    }
                }
            }
            if written < most {
                attributes.push(to, ATTRIBUTES, key, &value, limits.value_characters);
                written += 1;
            } else {
                left_out += 1;
            }
        }
        if has_failed && !names_its_error {
            let key = attributes.key("error.type");
            let error_type = Value::Str(timing.error_type().unwrap_or("_OTHER"));
            attributes.push(to, ATTRIBUTES, key, &error_type, limits.value_characters);
        }
        to.extend_from_slice(of_thread);
        if left_out > 0 || !timing.has_only_attributes() {
            let dropped = u32::try_from(timing.dropped_items()).unwrap_or(u32::MAX);
            push_count(to, 10, left_out.saturating_add(dropped));
            push_events(to, timing, limits, attributes);
            push_links(to, timing, limits);
        }
        if has_failed {
            to.extend_from_slice(&FAILED);
        }
        to.extend_from_slice(&SAMPLED);
        to
    }

    /// The bytes of a span of no length, for a metric event that is no number: there is no place for it among metrics.
    /// It needs an id of its own, which `span` is.
    pub(crate) fn metric(&mut self, metric: &Metric<'_>, trace: u128, span: u64) -> &[u8] {
        let Self { limits, attributes, of_thread, bytes: to, .. } = self;
        let ids = Ids { trace, span, parent: metric.parent_span_id() };
        push_front(to, &ids, metric.name(), (metric.unix_ns(), metric.unix_ns()));
        // It is secret where an attribute of the metric's name would be.
        let key = attributes.key("kastor.metric.value").secret_like(attributes.key(metric.name()));
        attributes.push(to, ATTRIBUTES, key, &metric.value(), limits.value_characters);
        let bounds = (limits.attributes.saturating_sub(1), limits.value_characters);
        let left_out = attributes.push_all(to, ATTRIBUTES, metric.attributes(), bounds);
        to.extend_from_slice(of_thread);
        push_count(to, 10, left_out);
        to.extend_from_slice(&SAMPLED);
        to
    }
}

/// Begins a span with everything in front of its attributes. Returns where its kind stands.
fn push_front(to: &mut Vec<u8>, ids: &Ids, name: &str, (start_ns, end_ns): (u64, u64)) -> usize {
    to.clear();
    let mut id_bytes = [0; 28];
    id_bytes[..2].copy_from_slice(&[length_key(1), 16]);
    id_bytes[2..18].copy_from_slice(&ids.trace.to_be_bytes());
    id_bytes[18..20].copy_from_slice(&[length_key(2), 8]);
    id_bytes[20..].copy_from_slice(&ids.span.to_be_bytes());
    to.extend_from_slice(&id_bytes);
    if let Some(parent) = ids.parent {
        push_field(to, 4, &parent.to_be_bytes());
    }
    if !name.is_empty() {
        push_field(to, 5, name.as_bytes());
    }
    let kind_at = to.len() + 1;
    if start_ns != 0 && end_ns != 0 {
        let mut bytes = [0; 20];
        bytes[..3].copy_from_slice(&[varint_key(6), SpanKind::Internal as u8, fixed64_key(7)]);
        bytes[3..11].copy_from_slice(&start_ns.to_le_bytes());
        bytes[11] = fixed64_key(8);
        bytes[12..].copy_from_slice(&end_ns.to_le_bytes());
        to.extend_from_slice(&bytes);
    } else {
        to.extend_from_slice(&[varint_key(6), SpanKind::Internal as u8]);
        push_fixed64(to, 7, start_ns);
        push_fixed64(to, 8, end_ns);
    }
    kind_at
}

fn set(to: &mut [u8], at: usize, kind: SpanKind) {
    if let Some(place) = to.get_mut(at) {
        // Kinds are below 128: a varint of one byte.
        *place = kind as u8;
    }
}

#[cold]
fn push_events(to: &mut Vec<u8>, timing: &Timing<'_>, limits: &SpanLimits, attributes: &mut AttributeBytes) {
    let (mut written, mut left_out) = (0, 0);
    for event in timing.events() {
        if written >= limits.events {
            left_out += 1;
            continue;
        }
        push_message(to, 11, |to| push_event(to, &event, limits, attributes));
        written += 1;
    }
    push_count(to, 12, left_out);
}

fn push_event(to: &mut Vec<u8>, event: &PointEvent<'_>, limits: &SpanLimits, attributes: &mut AttributeBytes) {
    push_fixed64(to, 1, event.unix_ns());
    if !event.name().is_empty() {
        push_field(to, 2, event.name().as_bytes());
    }
    let bounds = (limits.event_attributes, limits.value_characters);
    let left_out = attributes.push_all(to, 3, event.attributes(), bounds);
    push_count(to, 4, left_out);
}

#[cold]
fn push_links(to: &mut Vec<u8>, timing: &Timing<'_>, limits: &SpanLimits) {
    let (mut written, mut left_out) = (0, 0);
    for link in timing.links() {
        if written >= limits.links {
            left_out += 1;
            continue;
        }
        push_message(to, 13, |to| {
            push_field(to, 1, &link.trace_id.to_be_bytes());
            push_field(to, 2, &link.span_id.to_be_bytes());
        });
        written += 1;
    }
    push_count(to, 14, left_out);
}

/// The kind of a span that an attribute `span.kind` names.
fn kind(value: &Value<'_>) -> Option<SpanKind> {
    Some(match value.as_str()? {
        "internal" => SpanKind::Internal,
        "server" => SpanKind::Server,
        "client" => SpanKind::Client,
        "producer" => SpanKind::Producer,
        "consumer" => SpanKind::Consumer,
        _ => return None,
    })
}
