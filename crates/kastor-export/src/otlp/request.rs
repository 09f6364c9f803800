//! A request while it is being filled.
//!
//! ```text
//! room for the head ┊ item, item, item …
//! ```
//!
//! Traces and metrics have the same frame: a request holds one resource, that one instrumentation scope, and that the
//! items, all under the same field numbers. The lengths of the frame are known last but stand first, so the head is
//! written into room that was left for it, right before the items.

use opentelemetry_proto::tonic::{common::v1::InstrumentationScope, resource::v1::Resource};
use prost::{Message, encoding::encode_varint};

use crate::delivery::{Request, Signal};

/// The semantic conventions that resource attributes follow.
pub(crate) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.36.0";

/// Fields with a length.
const FIRST: u8 = 1 << 3 | 2;
const SECOND: u8 = 2 << 3 | 2;
const THIRD: u8 = 3 << 3 | 2;
/// A tag and the longest length.
const TAG_AND_LENGTH_BYTES: usize = 1 + 10;

/// What stands in front of the items of every request of a process, encoded.
pub(crate) struct Head {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Head {
    pub(crate) fn new(resource: &Resource) -> Self {
        let scope = InstrumentationScope {
            name: "kastor".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let mut head = Self { resource: Vec::new(), scope: Vec::new() };
        field(&mut head.resource, FIRST, &resource.encode_to_vec());
        field(&mut head.resource, THIRD, SCHEMA_URL.as_bytes());
        field(&mut head.scope, FIRST, &scope.encode_to_vec());
        head
    }

    /// The most that the head of a request can take.
    fn room(&self) -> usize {
        self.resource.len() + self.scope.len() + 2 * TAG_AND_LENGTH_BYTES
    }
}

fn field(to: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    to.push(tag);
    encode_varint(bytes.len() as u64, to);
    to.extend_from_slice(bytes);
}

/// Items that wait for more.
pub(crate) struct OpenRequest {
    signal: Signal,
    head: Head,
    max_bytes: usize,
    max_events: u64,
    bytes: Vec<u8>,
    events: u64,
}

impl OpenRequest {
    /// Nothing yet. A request that reaches `max_bytes` or `max_events` is full.
    pub(crate) fn new(signal: Signal, head: Head, max_bytes: usize, max_events: u64) -> Self {
        Self { signal, head, max_bytes, max_events, bytes: Vec::new(), events: 0 }
    }

    pub(crate) fn signal(&self) -> Signal {
        self.signal
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether one more item of so many bytes would be too much.
    pub(crate) fn is_full_for(&self, item_bytes: usize) -> bool {
        !self.is_empty()
            && (self.events >= self.max_events || self.bytes.len() + TAG_AND_LENGTH_BYTES + item_bytes > self.max_bytes)
    }

    /// Adds an item that counts as so many events.
    pub(crate) fn push(&mut self, item: &[u8], events: u64) {
        if self.bytes.is_empty() {
            // All at once: growing would need the old and the new memory at the same time.
            self.bytes.reserve(self.max_bytes.max(self.head.room() + TAG_AND_LENGTH_BYTES + item.len()));
            self.bytes.resize(self.head.room(), 0);
        }
        field(&mut self.bytes, SECOND, item);
        self.events += events;
    }

    /// The request, if there is anything in it; what comes next begins another.
    pub(crate) fn close(&mut self) -> Option<Request> {
        if self.is_empty() {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        let Head { resource, scope } = &self.head;
        let room = self.head.room();
        let mut head = Vec::with_capacity(room);
        let in_scope = scope.len() + bytes.len() - room;
        let scope_head = {
            let mut scope_head = vec![SECOND];
            encode_varint(in_scope as u64, &mut scope_head);
            scope_head
        };
        head.push(FIRST);
        encode_varint((resource.len() + scope_head.len() + in_scope) as u64, &mut head);
        head.extend_from_slice(resource);
        head.extend_from_slice(&scope_head);
        head.extend_from_slice(scope);
        let from = room - head.len().min(room);
        if let Some(place) = bytes.get_mut(from..room) {
            place.copy_from_slice(&head);
        }
        Some(Request { signal: self.signal, bytes, from, events: std::mem::take(&mut self.events) })
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};

    use super::*;
    use crate::otlp::value::text;

    #[test]
    fn the_frame_is_what_the_official_types_read() {
        let attributes = vec![text("service.name", "x".repeat(300))];
        let resource = Resource { attributes, ..Resource::default() };
        for spans in [1_usize, 3, 2000] {
            let mut open = OpenRequest::new(Signal::Traces, Head::new(&resource), 1 << 20, u64::MAX);
            let span = |at: usize| Span { name: format!("{at}"), ..Span::default() };
            (0..spans).for_each(|at| open.push(&span(at).encode_to_vec(), 1));
            let request = open.close().unwrap();
            assert!(open.close().is_none());
            assert_eq!(request.events, spans as u64);
            let read = ExportTraceServiceRequest::decode(request.body()).unwrap();
            let [of_resource] = &read.resource_spans[..] else { panic!("one resource") };
            assert_eq!(of_resource.resource.as_ref(), Some(&resource));
            assert_eq!(of_resource.schema_url, SCHEMA_URL);
            let [of_scope] = &of_resource.scope_spans[..] else { panic!("one scope") };
            assert_eq!(of_scope.scope.as_ref().unwrap().name, "kastor");
            assert_eq!(of_scope.spans, (0..spans).map(span).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_request_is_full_by_bytes_or_by_events_and_takes_one_item_of_any_size() {
        let open = |max_bytes, max_events| {
            OpenRequest::new(Signal::Traces, Head::new(&Resource::default()), max_bytes, max_events)
        };
        let mut by_events = open(1 << 20, 2);
        assert!(!by_events.is_full_for(1 << 30), "an item alone always fits");
        by_events.push(&[0; 10], 1);
        assert!(!by_events.is_full_for(10));
        by_events.push(&[0; 10], 1);
        assert!(by_events.is_full_for(10));
        let mut by_bytes = open(400, u64::MAX);
        by_bytes.push(&[0; 100], 1);
        assert!(!by_bytes.is_full_for(50) && by_bytes.is_full_for(300));
    }
}
