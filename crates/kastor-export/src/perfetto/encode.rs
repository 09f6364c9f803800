//! Batches and snapshots as packets of a trace.
//!
//! The file is one packet sequence. Names are interned as they come up, tracks described before their first event; both
//! anew after [`Encoder::forget_written`]. Each scope is a pair of packets, `SLICE_BEGIN` with everything about it and
//! `SLICE_END` with nothing but its track. A reader sorts packets by time and keeps the order of the file where times are
//! equal; the order here ([`Placed::steps`](crate::tracks::Placed)) makes that right.

use std::collections::{HashMap, HashSet};

use kastor::{
    Attributes, Batch, Event, Metric, MetricType, Number, Outcome, Process, Snapshot, ThreadIdentity, Timing, Value,
};

use super::{
    Config,
    clocks::SystemClocks,
    proto::{
        AnnotationValue, BOOTTIME, Clock, ClockSnapshot, CounterDescriptor, DebugAnnotation, INCREMENTAL_STATE_CLEARED,
        Interned, InternedData, MONOTONIC, NEEDS_INCREMENTAL_STATE, ProcessDescriptor, REALTIME, ThreadDescriptor,
        TracePacket, TracePacketDefaults, TrackDescriptor, TrackEvent, Type, push,
    },
};
use crate::{
    Redaction,
    axis::Axis,
    flows::Flows,
    front::{Front, fronts},
    sink::Encode,
    tracks::{Interval, Placed, Step, Tracks},
};

/// Categories by their numbers: every scope, those that failed, points in time.
const CATEGORIES: [(u64, &str); 3] = [(SCOPE, "scope"), (FAILED, "failed"), (POINT, "event")];
const SCOPE: u64 = 1;
const FAILED: u64 = 2;
const POINT: u64 = 3;

/// How often the pair of clocks is written.
const CLOCK_INTERVAL_NS: u64 = 10_000_000_000;

/// Tracks that are remembered to be described already.
const MOST_DESCRIBED: usize = 1 << 18;

/// Turns batches and snapshots of one process into the bytes of a Perfetto trace.
#[derive(Debug)]
pub struct Encoder {
    config: Config,
    axis: Axis,
    tracks: Tracks,
    flows: Flows<()>,
    /// Who is written about, once something was.
    process: Option<Process>,
    clocks_at_ns: Option<u64>,
    names: Interner,
    keys: Interner,
    described: HashSet<u64>,
}

/// Numbers for texts. What was not told to the reader yet waits in `new`.
#[derive(Debug, Default)]
struct Interner {
    numbers: HashMap<String, u64>,
    new: Vec<Interned>,
}

impl Encoder {
    /// An encoder for one file.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            axis: Axis::default(),
            tracks: Tracks::default(),
            flows: Flows::default(),
            process: None,
            clocks_at_ns: None,
            names: Interner::default(),
            keys: Interner::default(),
            described: HashSet::new(),
        }
    }

    /// Appends the packets of a batch.
    pub fn batch(&mut self, batch: &Batch<'_>, out: &mut Vec<u8>) {
        let anchor = batch.anchor();
        self.axis.see(anchor);
        self.begin(batch.process(), out);
        let now_ns = self.axis.of_monotonic(anchor.monotonic_ns);
        if self.clocks_at_ns.is_none_or(|at| now_ns.saturating_sub(at) >= CLOCK_INTERVAL_NS) {
            self.clocks(now_ns, Some(anchor.monotonic_ns), out);
        }

        let mut scopes: Vec<(Timing<'_>, Front)> = Vec::new();
        let mut metrics: Vec<Metric<'_>> = Vec::new();
        for (event, front) in batch.events().zip(fronts(batch)) {
            match (event, front) {
                (Event::Timing(timing), Some(front)) => scopes.push((timing, front)),
                (Event::Metric(metric), _) => metrics.push(metric),
                (Event::Timing(_), None) => {}
            }
        }
        let intervals: Vec<Interval> =
            scopes.iter().map(|(timing, front)| Interval::new(timing, front, &self.axis)).collect();
        let thread = batch.thread();
        let placed = self.tracks.place(thread.index(), &intervals);
        for step in &placed.steps {
            self.step(*step, &scopes, &placed, thread, out);
        }
        for metric in metrics {
            self.metric(&metric, placed.generation, out);
        }
    }

    /// Appends the newest values of counters (their sum), gauges (the last value) and histograms (the number of values).
    pub fn snapshot(&mut self, snapshot: &Snapshot<'_>, out: &mut Vec<u8>) {
        self.begin(snapshot.process(), out);
        let at_ns = self.axis.of_unix(snapshot.unix_ns());
        if self.clocks_at_ns.is_none() {
            self.clocks(at_ns, None, out);
        }
        for series in snapshot.series() {
            let value = match series.metric_type() {
                MetricType::Counter => series.sum(),
                MetricType::Gauge => Number::Float(series.last().unwrap_or(f64::NAN)),
                _ => Number::Integer(series.calls().into()),
            };
            let mut name = series.path().to_owned();
            push_labels(&mut name, &self.config.redaction, series.labels());
            let unit = series.unit().filter(|_| series.metric_type() != MetricType::Histogram);
            if series.metric_type() == MetricType::Histogram {
                name.push_str(" (values)");
            }
            let uuid = self.counter_track(&name, unit, out);
            self.counter(uuid, at_ns, value, out);
        }
    }

    /// Nothing written so far is in the file: names and tracks are told anew.
    pub fn forget_written(&mut self) {
        self.process = None;
        self.clocks_at_ns = None;
        self.names = Interner::default();
        self.keys = Interner::default();
        self.described.clear();
    }

    fn step(
        &mut self,
        step: Step,
        scopes: &[(Timing<'_>, Front)],
        placed: &Placed,
        thread: ThreadIdentity<'_>,
        out: &mut Vec<u8>,
    ) {
        let (Step::Begin(index) | Step::End(index)) = step;
        let (Some((timing, front)), Some(place)) = (scopes.get(index), placed.places.get(index)) else { return };
        if let Step::End(_) = step {
            let uuid = self.thread_uuid(thread, placed.generation, place.track);
            let event =
                TrackEvent { r#type: Some(Type::SliceEnd.into()), track_uuid: Some(uuid), ..TrackEvent::default() };
            return self.event(place.end_ns, event, out);
        }

        let uuid = self.thread_track(thread, placed.generation, place.track, out);
        let mut categories = vec![SCOPE];
        let mut annotations = self.annotations(timing.attributes());
        if timing.outcome() == Outcome::Failed {
            categories.push(FAILED);
            let error_type = self.config.redaction.free_text(timing.error_type().unwrap_or(""));
            annotations.push(self.annotation("error_type", Value::Str(&error_type)));
        }
        if timing.dropped_items() > 0 {
            annotations.push(self.annotation("dropped_items", Value::U64(timing.dropped_items())));
        }
        if self.config.ids {
            let ids = [
                ("trace_id", format!("{:032x}", timing.trace_id())),
                ("span_id", format!("{:016x}", timing.span_id())),
            ];
            annotations.extend(ids.map(|(key, id)| self.annotation(key, Value::Str(&id))));
        }
        let flows = self.flows(timing, front);
        let event = TrackEvent {
            category_iids: categories,
            debug_annotations: annotations,
            r#type: Some(Type::SliceBegin.into()),
            name_iid: Some(self.names.number(timing.name())),
            track_uuid: Some(uuid),
            flow_ids: flows,
            ..TrackEvent::default()
        };
        self.event(place.begin_ns, event, out);

        for point in timing.events() {
            let at_ns = self.axis.of_unix(point.unix_ns()).clamp(place.begin_ns, place.end_ns);
            let event = TrackEvent {
                category_iids: vec![POINT],
                debug_annotations: self.annotations(point.attributes()),
                r#type: Some(Type::Instant.into()),
                name_iid: Some(self.names.number(point.name())),
                track_uuid: Some(uuid),
                ..TrackEvent::default()
            };
            self.event(at_ns, event, out);
        }
    }

    /// The flows that a slice takes part in. Each arrow is one of its own, as long as the scope that it goes out from is
    /// still to come; where that is written already, the flow has that scope's id, which every slice has for this.
    fn flows(&mut self, timing: &Timing<'_>, front: &Front) -> Vec<u64> {
        let id = timing.span_id();
        let mut flows = vec![id];
        let parent = timing.parent_span_id().filter(|_| front.has_carried_parent);
        let links = timing.links().map(|link| link.span_id).filter(|from| *from != 0);
        for from in parent.into_iter().chain(links) {
            let is_written = self.flows.arrow(from, id).is_some();
            flows.push(if is_written { from } else { Flows::<()>::number(from, id) });
        }
        flows.extend(self.flows.closed(id, ()));
        // One flow twice on a slice would be an arrow from it to itself.
        flows.sort_unstable();
        flows.dedup();
        flows
    }

    /// A number becomes a value of its path's counter, anything else a point on its thread.
    fn metric(&mut self, metric: &Metric<'_>, generation: u32, out: &mut Vec<u8>) {
        let at_ns = self.axis.of_monotonic(metric.monotonic_ns());
        let number = match metric.value() {
            Value::I64(value) => Some(Number::Integer(value.into())),
            Value::U64(value) => Some(Number::Integer(value.into())),
            Value::F64(value) if value.is_finite() => Some(Number::Float(value)),
            _ => None,
        };
        if let Some(number) = number {
            let uuid = self.counter_track(metric.scope(), None, out);
            return self.counter(uuid, at_ns, number, out);
        }
        let uuid = self.thread_track(metric.thread(), generation, 0, out);
        let value = metric.value();
        let replacement = self.config.redaction.replacement(metric.name(), &value);
        let mut annotations = vec![self.annotation("value", replacement.as_deref().map_or(value, Value::Str))];
        annotations.extend(self.annotations(metric.attributes()));
        let event = TrackEvent {
            category_iids: vec![POINT],
            debug_annotations: annotations,
            r#type: Some(Type::Instant.into()),
            name_iid: Some(self.names.number(metric.scope())),
            track_uuid: Some(uuid),
            ..TrackEvent::default()
        };
        self.event(at_ns, event, out);
    }

    fn counter(&mut self, uuid: u64, at_ns: u64, value: Number, out: &mut Vec<u8>) {
        let (mut integer, mut double) = (None, None);
        match value {
            Number::Integer(value) if i64::try_from(value).is_ok() => integer = i64::try_from(value).ok(),
            other if other.as_f64().is_finite() => double = Some(other.as_f64()),
            // A counter has no place for it, and a gap says more than a wrong number.
            _ => return,
        }
        let event = TrackEvent {
            r#type: Some(Type::Counter.into()),
            track_uuid: Some(uuid),
            counter_value: integer,
            double_counter_value: double,
            ..TrackEvent::default()
        };
        self.event(at_ns, event, out);
    }

    fn annotations(&mut self, attributes: Attributes<'_>) -> Vec<DebugAnnotation> {
        attributes
            .map(|(key, value)| {
                let replacement = self.config.redaction.replacement(key, &value);
                self.annotation(key, replacement.as_deref().map_or(value, Value::Str))
            })
            .collect()
    }

    fn annotation(&mut self, key: &str, value: Value<'_>) -> DebugAnnotation {
        let value = match value {
            Value::Bool(value) => AnnotationValue::Bool(value),
            Value::I64(value) => AnnotationValue::Int(value),
            Value::U64(value) => AnnotationValue::Uint(value),
            Value::F64(value) => AnnotationValue::Double(value),
            other => AnnotationValue::String(other.to_string()),
        };
        DebugAnnotation { name_iid: Some(self.keys.number(key)), value: Some(value) }
    }

    fn thread_uuid(&self, thread: ThreadIdentity<'_>, generation: u32, track: u32) -> u64 {
        self.uuid(&[u64::from(thread.index()), u64::from(generation), u64::from(track), 1])
    }

    /// The track with this number of a thread, described if it is new.
    fn thread_track(&mut self, thread: ThreadIdentity<'_>, generation: u32, track: u32, out: &mut Vec<u8>) -> u64 {
        let of_thread = |track: u32| self.thread_uuid(thread, generation, track);
        let (uuid, own) = (of_thread(track), of_thread(0));
        if self.described.contains(&uuid) {
            return uuid;
        }
        if self.described.len() > MOST_DESCRIBED {
            // Threads come and go; a track may be described again.
            self.described.clear();
        }
        let name = match thread.name() {
            "" => format!("thread {}", thread.index()),
            name => name.to_owned(),
        };
        if self.described.insert(own) {
            let id = if thread.os_id() == 0 { u64::from(thread.index()) } else { thread.os_id() };
            let thread = ThreadDescriptor {
                pid: Some(self.process_id()),
                tid: Some(id as i32),
                thread_name: Some(name.clone()),
            };
            let parent_uuid = Some(self.process_track());
            let track =
                TrackDescriptor { uuid: Some(own), parent_uuid, thread: Some(thread), ..TrackDescriptor::default() };
            self.describe(track, out);
        }
        if track != 0 && self.described.insert(uuid) {
            let name = Some(format!("{name} ({})", u64::from(track) + 1));
            let track =
                TrackDescriptor { uuid: Some(uuid), parent_uuid: Some(own), name, ..TrackDescriptor::default() };
            self.describe(track, out);
        }
        uuid
    }

    fn counter_track(&mut self, name: &str, unit: Option<&str>, out: &mut Vec<u8>) -> u64 {
        let uuid = self.uuid(&[text_hash(name), 2]);
        if self.described.insert(uuid) {
            let track = TrackDescriptor {
                uuid: Some(uuid),
                parent_uuid: Some(self.process_track()),
                name: Some(name.to_owned()),
                counter: Some(CounterDescriptor { unit_name: unit.map(str::to_owned) }),
                ..TrackDescriptor::default()
            };
            self.describe(track, out);
        }
        uuid
    }

    fn process_track(&self) -> u64 {
        self.uuid(&[3])
    }

    fn process_id(&self) -> i32 {
        self.process.map_or(0, |process| process.id as i32)
    }

    /// Different for each process and subject, so that the traces of several processes can be joined.
    fn uuid(&self, subject: &[u64]) -> u64 {
        let instance = self.process.map_or(0, |process| process.instance_id);
        let seed = mix(instance as u64 ^ mix((instance >> 64) as u64));
        subject.iter().fold(seed, |hash, word| mix(hash ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15))).max(1)
    }

    /// The first packet of a file, or of what follows a failure.
    fn begin(&mut self, process: Process, out: &mut Vec<u8>) {
        if self.process.is_some() {
            return;
        }
        self.process = Some(process);
        let categories = CATEGORIES.map(|(iid, name)| Interned { iid: Some(iid), name: Some(name.to_owned()) });
        let packet = TracePacket {
            interned_data: Some(InternedData { event_categories: categories.into(), ..InternedData::default() }),
            sequence_flags: Some(INCREMENTAL_STATE_CLEARED),
            trace_packet_defaults: Some(TracePacketDefaults { timestamp_clock_id: Some(REALTIME) }),
            ..self.packet()
        };
        push(&packet, out);
        let descriptor = ProcessDescriptor {
            pid: Some(self.process_id()),
            process_name: Some(self.config.process_name.clone().unwrap_or_else(program_name)),
        };
        let uuid = Some(self.process_track());
        self.describe(TrackDescriptor { uuid, process: Some(descriptor), ..TrackDescriptor::default() }, out);
    }

    fn clocks(&mut self, at_ns: u64, monotonic_ns: Option<u64>, out: &mut Vec<u8>) {
        self.clocks_at_ns = Some(at_ns);
        let clock = |id, timestamp| Clock { clock_id: Some(id), timestamp: Some(timestamp) };
        let system = SystemClocks::read();
        let monotonic_ns = monotonic_ns.unwrap_or(system.monotonic_ns);
        let boot_ns = monotonic_ns.saturating_add(system.suspended_ns());
        let clocks = vec![clock(REALTIME, at_ns), clock(MONOTONIC, monotonic_ns), clock(BOOTTIME, boot_ns)];
        let snapshot = ClockSnapshot { clocks, primary_trace_clock: Some(REALTIME) };
        // Without a time of its own: a reader would translate that before it knows the clocks.
        push(&TracePacket { clock_snapshot: Some(snapshot), ..self.packet() }, out);
    }

    fn describe(&self, track: TrackDescriptor, out: &mut Vec<u8>) {
        push(&TracePacket { track_descriptor: Some(track), ..self.packet() }, out);
    }

    fn event(&mut self, at_ns: u64, event: TrackEvent, out: &mut Vec<u8>) {
        let interned_data = (!self.names.new.is_empty() || !self.keys.new.is_empty()).then(|| InternedData {
            event_categories: Vec::new(),
            event_names: std::mem::take(&mut self.names.new),
            debug_annotation_names: std::mem::take(&mut self.keys.new),
        });
        let packet = TracePacket { timestamp: Some(at_ns), track_event: Some(event), interned_data, ..self.packet() };
        push(&packet, out);
    }

    /// What all packets have.
    fn packet(&self) -> TracePacket {
        let sequence = self.uuid(&[4]) as u32;
        TracePacket {
            trusted_packet_sequence_id: Some(sequence.max(1)),
            sequence_flags: Some(NEEDS_INCREMENTAL_STATE),
            ..TracePacket::default()
        }
    }
}

impl Encode for Encoder {
    const TAIL: &'static [u8] = &[];

    fn head(&mut self, _: &mut Vec<u8>) {}

    fn batch(&mut self, batch: &Batch<'_>, out: &mut Vec<u8>) {
        self.batch(batch, out);
    }

    fn snapshot(&mut self, snapshot: &Snapshot<'_>, out: &mut Vec<u8>) {
        self.snapshot(snapshot, out);
    }

    fn forget_written(&mut self) {
        self.forget_written();
    }

    fn another(&self) -> Self {
        Self::new(self.config.clone())
    }
}

impl Interner {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.numbers.len() as u64 + 1;
        self.numbers.insert(text.to_owned(), number);
        self.new.push(Interned { iid: Some(number), name: Some(text.to_owned()) });
        number
    }
}

/// `{key="value", …}`, if there are any.
pub(crate) fn push_labels(name: &mut String, redaction: &Redaction, labels: Attributes<'_>) {
    let mut separator = "{";
    for (key, value) in labels {
        let shown = redaction.replacement(key, &value).unwrap_or_else(|| value.to_string().into());
        name.push_str(&format!("{separator}{key}={shown:?}"));
        separator = ", ";
    }
    if separator != "{" {
        name.push('}');
    }
}

/// The file name of the running program.
pub(crate) fn program_name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// FNV-1a.
fn text_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of SplitMix64.
fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}
