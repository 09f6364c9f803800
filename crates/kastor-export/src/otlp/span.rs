//! From an event to the bytes of one span.
//!
//! A span's bytes stand alone: they are put into a request, split over several, or held back until a trace is decided,
//! without being read again. The message is built in place, in memory that is used for every span.

use kastor::{Batch, Metric, Outcome, Timing, Value};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span, status};
use prost::Message;

use super::value::{AttributeWriter, integer, text};
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

/// Sampled, of the W3C's trace flags.
const SAMPLED: u32 = 1;
/// The number of `attributes` among a span's fields, and that it has a length.
const ATTRIBUTE_TAG: u8 = 9 << 3 | 2;

pub(crate) struct SpanEncoder {
    limits: SpanLimits,
    attributes: AttributeWriter,
    span: Span,
    /// The attributes that all spans of a thread share, encoded.
    of_thread: Vec<u8>,
    bytes: Vec<u8>,
}

impl SpanEncoder {
    pub(crate) fn new(limits: SpanLimits, redaction: Redaction) -> Self {
        Self {
            limits,
            attributes: AttributeWriter::new(redaction),
            span: Span::default(),
            of_thread: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// What is the same for all events of a batch.
    pub(crate) fn begin(&mut self, batch: &Batch<'_>) {
        self.of_thread.clear();
        let thread = batch.thread();
        let id = integer("thread.id", i64::try_from(thread.os_id()).unwrap_or(i64::MAX));
        let name = text("thread.name", self.attributes.free_text(thread.name()));
        for attribute in [Some(id), (!thread.name().is_empty()).then_some(name)].into_iter().flatten() {
            self.of_thread.push(ATTRIBUTE_TAG);
            let encoded = attribute.encode_length_delimited_to_vec();
            self.of_thread.extend_from_slice(&encoded);
        }
    }

    /// The bytes of the span of a scope.
    pub(crate) fn timing(&mut self, timing: &Timing<'_>) -> &[u8] {
        self.reset();
        let Self { limits, attributes: writer, span, .. } = self;
        let start_ns = timing.start_unix_ns();
        set_id(&mut span.trace_id, &timing.trace_id().to_be_bytes());
        set_id(&mut span.span_id, &timing.span_id().to_be_bytes());
        if let Some(parent) = timing.parent_span_id() {
            set_id(&mut span.parent_span_id, &parent.to_be_bytes());
        }
        span.flags = SAMPLED;
        span.name.push_str(timing.name());
        span.start_time_unix_nano = start_ns;
        span.end_time_unix_nano = start_ns.saturating_add(timing.duration_ns());
        span.kind = span::SpanKind::Internal as i32;

        // Room for the error's type, which must not be what a limit leaves out.
        let has_failed = timing.outcome() == Outcome::Failed;
        let most = limits.attributes.saturating_sub(usize::from(has_failed));
        let mut names_its_error = false;
        let own = timing.attributes().filter(|(key, value)| {
            names_its_error |= *key == "error.type";
            match (*key, kind(value)) {
                ("span.kind", Some(kind)) => {
                    span.kind = kind as i32;
                    false
                }
                _ => true,
            }
        });
        let left_out = writer.write(&mut span.attributes, own, most, limits.value_characters);
        span.dropped_attributes_count =
            left_out.saturating_add(u32::try_from(timing.dropped_items()).unwrap_or(u32::MAX));
        if has_failed {
            span.status = Some(Status { message: String::new(), code: status::StatusCode::Error as i32 });
            if !names_its_error {
                let error_type = Value::Str(timing.error_type().unwrap_or("_OTHER"));
                writer.push(&mut span.attributes, "error.type", &error_type, limits.value_characters);
            }
        }
        for event in timing.events() {
            if span.events.len() >= limits.events {
                span.dropped_events_count += 1;
                continue;
            }
            let mut attributes = Vec::new();
            let (most, longest) = (limits.event_attributes, limits.value_characters);
            let dropped_attributes_count = writer.write(&mut attributes, event.attributes(), most, longest);
            let (time_unix_nano, name) = (event.unix_ns(), event.name().to_owned());
            span.events.push(span::Event { time_unix_nano, name, attributes, dropped_attributes_count });
        }
        for link in timing.links() {
            if span.links.len() >= limits.links {
                span.dropped_links_count += 1;
                continue;
            }
            span.links.push(span::Link {
                trace_id: link.trace_id.to_be_bytes().to_vec(),
                span_id: link.span_id.to_be_bytes().to_vec(),
                ..span::Link::default()
            });
        }
        self.finish()
    }

    /// The bytes of a span of no length, for a metric event that is no number: there is no place for it among metrics.
    /// It needs an id of its own, which `span_id` is.
    pub(crate) fn metric(&mut self, metric: &Metric<'_>, trace_id: u128, span_id: u64) -> &[u8] {
        self.reset();
        let Self { limits, attributes: writer, span, .. } = self;
        set_id(&mut span.trace_id, &trace_id.to_be_bytes());
        set_id(&mut span.span_id, &span_id.to_be_bytes());
        if let Some(parent) = metric.parent_span_id() {
            set_id(&mut span.parent_span_id, &parent.to_be_bytes());
        }
        span.flags = SAMPLED;
        span.name.push_str(metric.name());
        span.kind = span::SpanKind::Internal as i32;
        (span.start_time_unix_nano, span.end_time_unix_nano) = (metric.unix_ns(), metric.unix_ns());
        writer.push(&mut span.attributes, "kastor.metric.value", &metric.value(), limits.value_characters);
        let (most, longest) = (limits.attributes, limits.value_characters);
        span.dropped_attributes_count = writer.write(&mut span.attributes, metric.attributes(), most, longest);
        self.finish()
    }

    /// Writes the message, and behind it what the thread adds: fields of a message may stand in any order.
    fn finish(&mut self) -> &[u8] {
        self.bytes.clear();
        // Writing into a `Vec` cannot fail for want of room.
        let _ = self.span.encode(&mut self.bytes);
        self.bytes.extend_from_slice(&self.of_thread);
        &self.bytes
    }

    fn reset(&mut self) {
        let Self { attributes: writer, span, .. } = self;
        writer.take_back(&mut span.attributes);
        for event in &mut span.events {
            writer.take_back(&mut event.attributes);
        }
        span.events.clear();
        span.links.clear();
        span.name.clear();
        span.parent_span_id.clear();
        span.status = None;
        (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count) = (0, 0, 0);
    }
}

fn set_id(field: &mut Vec<u8>, id: &[u8]) {
    field.clear();
    field.extend_from_slice(id);
}

/// The kind of a span that an attribute `span.kind` names.
fn kind(value: &Value<'_>) -> Option<span::SpanKind> {
    Some(match value.as_str()? {
        "internal" => span::SpanKind::Internal,
        "server" => span::SpanKind::Server,
        "client" => span::SpanKind::Client,
        "producer" => span::SpanKind::Producer,
        "consumer" => span::SpanKind::Consumer,
        _ => return None,
    })
}
