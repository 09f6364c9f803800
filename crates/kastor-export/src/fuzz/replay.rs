//! Any bytes as a capture that is handed to reporters and encoders again, and as one that is repaired.

use std::{io::Write as _, path::PathBuf};

use kastor::{Attributes, Batch, Event, Process, Reporter as _, Snapshot};

use crate::{
    Exposition, PrometheusFormat, RecordRedaction, Redaction,
    capture::{Reader, Replay, Replayed, check, repair as repair_file},
    chrome, folded, perfetto,
};

/// Any bytes as a capture that is converted: what every encoder makes of it can be read where that is checked here.
pub fn replay(bytes: &[u8]) {
    let mut replay = Replay::new(Reader::new(bytes));
    let mut encoders = Encoders::new(Process::default());
    while let Ok(Some(part)) = replay.read() {
        match part {
            Replayed::Process(process) => encoders = Encoders::new(process),
            Replayed::Batch(batch) => {
                look_at_batch(&batch);
                encoders.batch(&batch);
            }
            Replayed::Snapshot(snapshot) => {
                look_at_snapshot(&snapshot);
                encoders.snapshot(&snapshot);
            }
            Replayed::Damage(damage) => assert!(damage.offset + damage.bytes <= bytes.len() as u64),
        }
    }
    encoders.finish();
}

fn look_at_batch(batch: &Batch<'_>) {
    let mut events = 0;
    for event in batch.events() {
        events += 1;
        match event {
            Event::Timing(timing) => {
                assert!(timing.depth() == 0 || timing.parent_scope().is_some());
                assert!(timing.end_monotonic_ns() >= timing.start_monotonic_ns());
                let _ = (timing.name(), timing.error_type(), timing.end_unix_ns(), timing.dropped_items());
                let _ = (timing.trace_id(), timing.span_id(), timing.parent_span_id(), timing.links().count());
                look_at_attributes(timing.attributes());
                for event in timing.events() {
                    let _ = (event.name(), event.unix_ns());
                    look_at_attributes(event.attributes());
                }
            }
            Event::Metric(metric) => {
                let _ = (metric.name(), metric.value().to_string(), metric.unix_ns(), metric.depth());
                let _ = (metric.trace_id(), metric.parent_span_id(), metric.metric_type());
                look_at_attributes(metric.attributes());
            }
        }
    }
    assert_eq!(events, batch.len());
    let mut copy = batch.record_bytes().to_vec();
    RecordRedaction::new(Redaction::default()).redact(batch, &mut copy);
    assert_eq!(copy.len(), batch.record_bytes().len());
}

fn look_at_attributes(attributes: Attributes<'_>) {
    for (key, value) in attributes {
        assert!(key.len() <= 1024);
        let _ = value.to_string();
    }
}

fn look_at_snapshot(snapshot: &Snapshot<'_>) {
    for scope in snapshot.scopes() {
        let _ = (scope.name(), scope.parent(), scope.depth(), scope.min(), scope.max(), scope.exemplar());
        let _ = [0.0, 0.5, 1.0].map(|q| scope.quantile(q));
    }
    for series in snapshot.series() {
        look_at_attributes(series.labels());
        let _ = (series.name(), series.sum().as_f64(), series.unit(), series.help());
    }
}

/// Everything that a batch or a snapshot can become.
struct Encoders {
    chrome: chrome::Encoder,
    perfetto: perfetto::Encoder,
    #[cfg(feature = "otlp")]
    otlp: crate::OtlpText,
    statsd: Option<crate::Statsd>,
    events: Vec<u8>,
    lines: Vec<u8>,
}

impl Encoders {
    fn new(process: Process) -> Self {
        let _ = process;
        Self {
            chrome: chrome::Encoder::new(chrome::Config::default().process_name("p").ids(true)),
            perfetto: perfetto::Encoder::new(perfetto::Config::default().process_name("p").ids(true)),
            #[cfg(feature = "otlp")]
            otlp: crate::OtlpText::new(process, &[]),
            // An agent that is not there: the lines are made and refused.
            statsd: crate::Statsd::builder().unix("/nonexistent/agent").ok(),
            events: b"[".to_vec(),
            lines: Vec::new(),
        }
    }

    fn batch(&mut self, batch: &Batch<'_>) {
        self.chrome.batch(batch, &mut self.events);
        self.perfetto.batch(batch, &mut Vec::new());
        #[cfg(feature = "otlp")]
        assert!(self.otlp.batch(batch, &mut self.lines).is_ok());
        if let Some(statsd) = &self.statsd {
            let _ = statsd.record_batch(batch);
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot<'_>) {
        self.chrome.snapshot(snapshot, &mut self.events);
        self.perfetto.snapshot(snapshot, &mut Vec::new());
        #[cfg(feature = "otlp")]
        assert!(self.otlp.snapshot(snapshot, &mut self.lines).is_ok());
        if let Some(statsd) = &self.statsd {
            let _ = statsd.record_aggregates(snapshot);
        }
        folded::folded(snapshot, &folded::Config::default());
        for accept in ["text/plain", "application/openmetrics-text;version=1.0.0"] {
            let text = Exposition::new(PrometheusFormat::negotiate(accept)).text(snapshot);
            assert!(text.lines().all(|line| !line.contains(['\r', '\u{1b}'])));
        }
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        Exposition::new(PrometheusFormat::negotiate(protobuf)).encode(snapshot, &mut Vec::new());
    }

    fn finish(mut self) {
        self.events.extend_from_slice(b"]");
        let events = String::from_utf8(self.events);
        assert!(events.is_ok_and(|text| serde_json::from_str::<serde_json::Value>(&text).is_ok()), "Chrome's JSON");
        #[cfg(feature = "otlp")]
        assert!(self.otlp.finish(&mut self.lines).is_ok());
        for line in self.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            assert!(serde_json::from_slice::<serde_json::Value>(line).is_ok(), "OTLP's JSON");
        }
    }
}

/// Any bytes as a damaged capture: what is repaired is whole, and has the events that could be read before.
pub fn repair(bytes: &[u8]) {
    let folder = Folder::new();
    let (damaged, repaired) = (folder.0.join("damaged.kcap"), folder.0.join("repaired.kcap"));
    let written = std::fs::File::create(&damaged).and_then(|mut file| file.write_all(bytes));
    assert!(written.is_ok(), "{written:?}");
    let Ok(before) = check(&damaged) else { return };
    let Ok(done) = repair_file(&damaged, &repaired) else { return };
    assert!(done.left_bytes <= bytes.len() as u64);
    let after = check(&repaired);
    let after = after.as_ref();
    assert!(after.is_ok_and(|after| after.torn_bytes == 0 && after.damaged_bytes == 0), "{after:?}");
    assert_eq!(after.map_or(0, |after| after.events()), before.events());
}

/// A folder in memory where there is one, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let memory = PathBuf::from("/dev/shm");
        let root = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let folder = root.join(format!("kastor-fuzz-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let made = std::fs::create_dir_all(&folder);
        assert!(made.is_ok(), "{made:?}");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
