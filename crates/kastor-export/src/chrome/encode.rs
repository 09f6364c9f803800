//! Batches and snapshots as events of a Chrome trace, each a line of its own.

use std::{collections::HashMap, io::Write as _};

use kastor::{Batch, Event, Metric, MetricType, Number, Outcome, Process, Snapshot, ThreadIdentity, Timing, Value};

use super::{
    Config,
    json::{push_attribute, push_attributes, push_member, push_number, push_text, push_us, push_value},
};
use crate::{
    axis::Axis,
    flows::Flows,
    front::{Front, fronts},
    perfetto::{program_name, push_labels},
    sink::Encode,
    tracks::{Interval, Step, Tracks},
};

/// Track numbers that are no thread's begin here: above those of Linux, within what readers take.
const FIRST_FURTHER_TRACK: u64 = 1_000_000_000;
/// Tracks that are remembered; beyond, all get new numbers.
const MOST_NAMED: usize = 1 << 16;

const DAY_NS: u64 = 86_400_000_000_000;

/// A point on a track.
#[derive(Clone, Copy, Debug)]
struct Spot {
    tid: u64,
    ns: u64,
}

/// Turns batches and snapshots of one process into the events of a Chrome trace.
#[derive(Debug)]
pub struct Encoder {
    config: Config,
    axis: Axis,
    tracks: Tracks,
    flows: Flows<Spot>,
    process: Option<Process>,
    /// What is 0 in the file: a midnight, so that microseconds stay exact in the floating-point numbers of readers.
    zero_ns: u64,
    /// The number in the file of each track: thread, generation, track.
    named: HashMap<(u32, u32, u32), u64>,
    further: u64,
    /// No event stands before the next one.
    is_first: bool,
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
            zero_ns: 0,
            named: HashMap::new(),
            further: 0,
            is_first: true,
        }
    }

    /// Appends what a file begins with.
    pub fn head(&mut self, out: &mut Vec<u8>) {
        out.push(b'[');
        self.is_first = true;
    }

    /// Appends the events of a batch.
    pub fn batch(&mut self, batch: &Batch<'_>, out: &mut Vec<u8>) {
        let anchor = batch.anchor();
        self.axis.see(anchor);
        self.begin(batch.process(), self.axis.of_monotonic(anchor.monotonic_ns), out);
        let (mut scopes, mut metrics): (Vec<(Timing<'_>, Front)>, Vec<Metric<'_>>) = (Vec::new(), Vec::new());
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
            let Step::Begin(index) = *step else { continue };
            if let (Some((timing, front)), Some(place)) = (scopes.get(index), placed.places.get(index)) {
                let tid = self.tid(thread, placed.generation, place.track, out);
                self.scope(timing, front, tid, (place.begin_ns, place.end_ns), out);
            }
        }
        // Last: to readers an instant is a slice, and would be around a scope without length at the same time.
        metrics.iter().for_each(|metric| self.metric(metric, out));
    }

    /// Appends the newest values of counters (their sum), gauges (the last value) and histograms (the number of values).
    pub fn snapshot(&mut self, snapshot: &Snapshot<'_>, out: &mut Vec<u8>) {
        let at_ns = self.axis.of_unix(snapshot.unix_ns());
        self.begin(snapshot.process(), at_ns, out);
        for series in snapshot.series() {
            let value = match series.metric_type() {
                MetricType::Counter => series.sum(),
                MetricType::Gauge => Number::Float(series.last().unwrap_or(f64::NAN)),
                _ => Number::Integer(series.calls().into()),
            };
            let mut name = series.path().to_owned();
            push_labels(&mut name, &self.config.redaction, series.labels());
            if series.metric_type() == MetricType::Histogram {
                name.push_str(" (values)");
            }
            self.counter(&name, at_ns, value, out);
        }
    }

    /// Nothing written so far is in the file: names are told anew.
    pub fn forget_written(&mut self) {
        self.process = None;
        self.named.clear();
    }

    fn scope(
        &mut self,
        timing: &Timing<'_>,
        front: &Front,
        tid: u64,
        (begin_ns, end_ns): (u64, u64),
        out: &mut Vec<u8>,
    ) {
        let is_failed = timing.outcome() == Outcome::Failed;
        self.event("X", tid, begin_ns, out);
        out.extend_from_slice(b",\"dur\":");
        push_us(out, i128::from(end_ns) - i128::from(begin_ns));
        named(out, timing.name(), if is_failed { "scope,failed" } else { "scope" });
        if is_failed {
            out.extend_from_slice(b",\"cname\":\"terrible\"");
        }
        out.extend_from_slice(b",\"args\":{");
        let mut is_first = !push_attributes(out, &self.config.redaction, timing.attributes());
        if is_failed {
            let error_type = self.config.redaction.free_text(timing.error_type().unwrap_or(""));
            push_member(out, &mut is_first, "error_type", Value::Str(&error_type));
        }
        if timing.dropped_items() > 0 {
            push_member(out, &mut is_first, "dropped_items", Value::U64(timing.dropped_items()));
        }
        if self.config.ids {
            push_member(out, &mut is_first, "trace_id", Value::Str(&format!("{:032x}", timing.trace_id())));
            push_member(out, &mut is_first, "span_id", Value::Str(&format!("{:016x}", timing.span_id())));
        }
        out.extend_from_slice(b"}}");

        for point in timing.events() {
            let at_ns = self.axis.of_unix(point.unix_ns()).clamp(begin_ns, end_ns);
            self.event("i", tid, at_ns, out);
            named(out, point.name(), "event");
            out.extend_from_slice(b",\"s\":\"t\",\"args\":{");
            push_attributes(out, &self.config.redaction, point.attributes());
            out.extend_from_slice(b"}}");
        }
        self.arrows(timing, front, Spot { tid, ns: begin_ns }, out);
    }

    /// Arrows that end here, and those that have waited to begin here.
    fn arrows(&mut self, timing: &Timing<'_>, front: &Front, here: Spot, out: &mut Vec<u8>) {
        let id = timing.span_id();
        let parent = timing.parent_span_id().filter(|_| front.has_carried_parent);
        let links = timing.links().map(|link| link.span_id).filter(|from| *from != 0);
        for from in parent.into_iter().chain(links) {
            let number = Flows::<Spot>::number(from, id);
            if let Some(spot) = self.flows.arrow(from, id) {
                self.arrow("s", number, spot, out);
            }
            self.arrow("f", number, here, out);
        }
        for number in self.flows.closed(id, here) {
            self.arrow("s", number, here, out);
        }
    }

    fn arrow(&mut self, phase: &str, number: u64, at: Spot, out: &mut Vec<u8>) {
        self.event(phase, at.tid, at.ns, out);
        named(out, "carried", "flow");
        // An end belongs to the slice around it, not to the one that follows.
        let bind = if phase == "f" { ",\"bp\":\"e\"" } else { "" };
        let _ = write!(out, ",\"id\":\"0x{number:x}\"{bind}}}");
    }

    /// A number becomes a value of its path's counter, anything else a point on its thread.
    fn metric(&mut self, metric: &Metric<'_>, out: &mut Vec<u8>) {
        let at_ns = self.axis.of_monotonic(metric.monotonic_ns());
        let number = match metric.value() {
            Value::I64(value) => Some(Number::Integer(value.into())),
            Value::U64(value) => Some(Number::Integer(value.into())),
            Value::F64(value) if value.is_finite() => Some(Number::Float(value)),
            _ => None,
        };
        if let Some(number) = number {
            return self.counter(metric.scope(), at_ns, number, out);
        }
        let tid = self.tid(metric.thread(), 0, 0, out);
        self.event("i", tid, at_ns, out);
        named(out, metric.scope(), "event");
        out.extend_from_slice(b",\"s\":\"t\",\"args\":{\"value\":");
        let value = metric.value();
        let replacement = self.config.redaction.replacement(metric.name(), &value);
        push_value(out, replacement.as_deref().map_or(value, Value::Str));
        for (key, value) in metric.attributes() {
            push_attribute(out, &mut false, &self.config.redaction, key, value);
        }
        out.extend_from_slice(b"}}");
    }

    fn counter(&mut self, name: &str, at_ns: u64, value: Number, out: &mut Vec<u8>) {
        if !value.as_f64().is_finite() {
            // A counter has no place for it, and a gap says more than a wrong number.
            return;
        }
        self.event("C", 0, at_ns, out);
        named(out, name, "metric");
        out.extend_from_slice(b",\"args\":{\"value\":");
        push_number(out, value);
        out.extend_from_slice(b"}}");
    }

    /// The number of a thread's track in the file; its name is told first.
    fn tid(&mut self, thread: ThreadIdentity<'_>, generation: u32, track: u32, out: &mut Vec<u8>) -> u64 {
        // A thread's own track is the same whatever was forgotten.
        let key = (thread.index(), if track == 0 { 0 } else { generation }, track);
        if let Some(tid) = self.named.get(&key) {
            return *tid;
        }
        if self.named.len() >= MOST_NAMED {
            self.named.clear();
        }
        let own = if thread.os_id() == 0 { u64::from(thread.index()) } else { thread.os_id() };
        let mut name = match thread.name() {
            "" => format!("thread {}", thread.index()),
            name => name.to_owned(),
        };
        let tid = if track == 0 {
            own
        } else {
            name.push_str(&format!(" ({})", u64::from(track) + 1));
            self.further += 1;
            FIRST_FURTHER_TRACK + self.further
        };
        self.named.insert(key, tid);
        self.metadata("thread_name", "name", &name, tid, out);
        tid
    }

    /// The first events of a file, or of what follows a failure.
    fn begin(&mut self, process: Process, now_ns: u64, out: &mut Vec<u8>) {
        if self.process.is_some() {
            return;
        }
        self.process = Some(process);
        if self.zero_ns == 0 {
            // Scopes may have begun before; a day is enough for most.
            self.zero_ns = self.config.zero_unix_ns.unwrap_or((now_ns / DAY_NS).saturating_sub(1) * DAY_NS);
        }
        let name = self.config.process_name.clone().unwrap_or_else(program_name);
        self.metadata("process_name", "name", &name, 0, out);
        self.metadata("kastor_clock", "zero_unix_ns", &self.zero_ns.to_string(), 0, out);
    }

    fn metadata(&mut self, what: &str, key: &str, value: &str, tid: u64, out: &mut Vec<u8>) {
        self.event("M", tid, self.zero_ns, out);
        let _ = write!(out, ",\"name\":\"{what}\",\"args\":{{\"{key}\":");
        push_text(out, value);
        out.extend_from_slice(b"}}");
    }

    /// The part that all events begin with; the rest of the object follows.
    fn event(&mut self, phase: &str, tid: u64, at_ns: u64, out: &mut Vec<u8>) {
        let separator = if std::mem::replace(&mut self.is_first, false) { "\n" } else { ",\n" };
        let pid = self.process.map_or(0, |process| process.id);
        let _ = write!(out, "{separator}{{\"ph\":\"{phase}\",\"pid\":{pid},\"tid\":{tid},\"ts\":");
        push_us(out, i128::from(at_ns) - i128::from(self.zero_ns));
    }
}

fn named(out: &mut Vec<u8>, name: &str, category: &str) {
    out.extend_from_slice(b",\"name\":");
    push_text(out, name);
    let _ = write!(out, ",\"cat\":\"{category}\"");
}

impl Encode for Encoder {
    const TAIL: &'static [u8] = b"\n]\n";

    fn head(&mut self, out: &mut Vec<u8>) {
        self.head(out);
    }

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
