//! `Recording`: keeps the records themselves in memory, for tests and for analysis in the program.

use kastor::{Attributes, OwnedValue};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};

use super::{feed::Feed, simple::to_python};

/// Keeps up to `max_bytes` of records. It runs in the background: flush the context before reading.
#[pyclass(module = "kastor._native", frozen, weakref)]
pub(crate) struct Recording {
    pub(crate) recording: kastor::Recording,
    feed: Feed,
}

#[pymethods]
impl Recording {
    #[new]
    #[pyo3(signature = (max_bytes=16 << 20))]
    fn new(max_bytes: usize) -> Self {
        Self { recording: kastor::Recording::new(max_bytes), feed: Feed::default() }
    }

    fn __len__(&self) -> usize {
        usize::try_from(self.recording.len()).unwrap_or(usize::MAX)
    }

    fn __bool__(&self) -> bool {
        true
    }

    /// Bytes of records kept.
    #[getter]
    fn bytes(&self) -> usize {
        self.recording.bytes()
    }

    /// Events that found no room.
    #[getter]
    fn dropped(&self) -> u64 {
        self.recording.dropped()
    }

    /// Forgets everything.
    fn clear(&self) {
        self.recording.clear();
    }

    /// The scopes that closed, one dict each, thread by thread.
    fn timings<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut kept = Vec::new();
        python.detach(|| {
            self.recording.for_each_batch(|batch| kept.extend(batch.timings().map(|timing| Timing::of(&timing))));
        });
        let list = PyList::empty(python);
        for timing in &kept {
            list.append(timing.to_python(python)?)?;
        }
        Ok(list)
    }

    /// The plain metrics, one dict each, thread by thread.
    fn metrics<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut kept = Vec::new();
        python.detach(|| {
            self.recording.for_each_batch(|batch| kept.extend(batch.metrics().map(|metric| Metric::of(&metric))));
        });
        let list = PyList::empty(python);
        for metric in &kept {
            list.append(metric.to_python(python)?)?;
        }
        Ok(list)
    }

    /// Keeps a timing that was measured elsewhere; `duration` in seconds.
    #[pyo3(signature = (scope, duration, /, **metadata))]
    fn record_timing(&self, scope: &str, duration: f64, metadata: Option<&Bound<'_, PyDict>>) {
        let recording = &self.recording;
        self.feed.timing(|builder| builder.reporter(recording.clone()), (scope, duration), metadata);
    }

    /// Keeps a metric that was recorded elsewhere.
    #[pyo3(signature = (scope, value, /, **metadata))]
    fn record_metric(&self, scope: &str, value: &Bound<'_, PyAny>, metadata: Option<&Bound<'_, PyDict>>) {
        let recording = &self.recording;
        self.feed.metric(|builder| builder.reporter(recording.clone()), (scope, value), metadata);
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.recording)
    }
}

type Keys = Vec<(&'static str, OwnedValue)>;

fn owned(attributes: Attributes<'_>) -> Keys {
    attributes.map(|(key, value)| (key, OwnedValue::from(value))).collect()
}

fn dict<'py>(python: Python<'py>, keys: &Keys) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(python);
    for (key, value) in keys {
        dict.set_item(key, to_python(python, value)?)?;
    }
    Ok(dict)
}

/// A scope that closed, copied.
struct Timing {
    scope: &'static str,
    parent_scope: Option<&'static str>,
    depth: u32,
    times_ns: [u64; 3],
    ids: (u128, u64, Option<u64>),
    is_sampled: bool,
    thread: (u64, String),
    error_type: Option<String>,
    attributes: Keys,
    events: Vec<(&'static str, u64, Keys)>,
    links: Vec<(u128, u64)>,
}

impl Timing {
    fn of(timing: &kastor::Timing<'_>) -> Self {
        Self {
            scope: timing.scope(),
            parent_scope: timing.parent_scope(),
            depth: timing.depth(),
            times_ns: [timing.duration_ns(), timing.start_monotonic_ns(), timing.start_unix_ns()],
            ids: (timing.trace_id(), timing.span_id(), timing.parent_span_id()),
            is_sampled: timing.is_sampled(),
            thread: (timing.thread().os_id(), timing.thread().name().to_owned()),
            error_type: timing.error_type().map(str::to_owned),
            attributes: owned(timing.attributes()),
            events: timing.events().map(|it| (it.name(), it.unix_ns(), owned(it.attributes()))).collect(),
            links: timing.links().map(|it| (it.trace_id, it.span_id)).collect(),
        }
    }

    fn to_python<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (trace_id, span_id, parent_span_id) = self.ids;
        let [duration_ns, start_monotonic_ns, start_unix_ns] = self.times_ns;
        let all = PyDict::new(python);
        all.set_item("scope", self.scope)?;
        all.set_item("parent_scope", self.parent_scope)?;
        all.set_item("depth", self.depth)?;
        all.set_item("duration", duration_ns as f64 / 1e9)?;
        all.set_item("duration_ns", duration_ns)?;
        all.set_item("start_monotonic_ns", start_monotonic_ns)?;
        all.set_item("start_unix_ns", start_unix_ns)?;
        all.set_item("trace_id", format!("{trace_id:032x}"))?;
        all.set_item("span_id", format!("{span_id:016x}"))?;
        all.set_item("parent_span_id", parent_span_id.map(|id| format!("{id:016x}")))?;
        all.set_item("is_sampled", self.is_sampled)?;
        all.set_item("thread_id", self.thread.0)?;
        all.set_item("thread_name", &self.thread.1)?;
        all.set_item("error_type", self.error_type.as_deref())?;
        all.set_item("attributes", dict(python, &self.attributes)?)?;
        let events = PyList::empty(python);
        for (name, unix_ns, attributes) in &self.events {
            let event = PyDict::new(python);
            event.set_item("name", name)?;
            event.set_item("unix_ns", unix_ns)?;
            event.set_item("attributes", dict(python, attributes)?)?;
            events.append(event)?;
        }
        all.set_item("events", events)?;
        let links = self.links.iter().map(|(trace, span)| (format!("{trace:032x}"), format!("{span:016x}")));
        all.set_item("links", PyList::new(python, links.collect::<Vec<_>>())?)?;
        Ok(all)
    }
}

/// A plain metric, copied.
struct Metric {
    scope: &'static str,
    parent_scope: Option<&'static str>,
    depth: u32,
    value: OwnedValue,
    unix_ns: u64,
    ids: (Option<u128>, Option<u64>),
    attributes: Keys,
}

impl Metric {
    fn of(metric: &kastor::Metric<'_>) -> Self {
        Self {
            scope: metric.scope(),
            parent_scope: metric.parent_scope(),
            depth: metric.depth(),
            value: OwnedValue::from(metric.value()),
            unix_ns: metric.unix_ns(),
            ids: (metric.trace_id(), metric.parent_span_id()),
            attributes: owned(metric.attributes()),
        }
    }

    fn to_python<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(python);
        all.set_item("scope", self.scope)?;
        all.set_item("parent_scope", self.parent_scope)?;
        all.set_item("depth", self.depth)?;
        all.set_item("value", to_python(python, &self.value)?)?;
        all.set_item("unix_ns", self.unix_ns)?;
        all.set_item("trace_id", self.ids.0.map(|id| format!("{id:032x}")))?;
        all.set_item("parent_span_id", self.ids.1.map(|id| format!("{id:016x}")))?;
        all.set_item("attributes", dict(python, &self.attributes)?)?;
        Ok(all)
    }
}
