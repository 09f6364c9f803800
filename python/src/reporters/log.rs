//! `LogReporter`: one structured line per event, through Python's `logging`.

use kastor::Builder;
use pyo3::{prelude::*, types::PyDict};

use super::feed::Feed;

/// Writes every event to the logger `kastor.events`, at level `DEBUG`, and at `WARNING` for a scope that failed.
#[pyclass(module = "kastor._native", frozen, weakref)]
#[derive(Default)]
pub(crate) struct LogReporter {
    feed: Feed,
}

#[pymethods]
impl LogReporter {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Writes a timing that was measured elsewhere; `duration` in seconds.
    #[pyo3(signature = (scope, duration, /, **metadata))]
    fn record_timing(&self, scope: &str, duration: f64, metadata: Option<&Bound<'_, PyDict>>) {
        self.feed.timing(add, (scope, duration), metadata);
    }

    /// Writes a metric that was recorded elsewhere.
    #[pyo3(signature = (scope, value, /, **metadata))]
    fn record_metric(&self, scope: &str, value: &Bound<'_, PyAny>, metadata: Option<&Bound<'_, PyDict>>) {
        self.feed.metric(add, (scope, value), metadata);
    }

    fn __repr__(&self) -> &'static str {
        "LogReporter()"
    }
}

fn add(builder: Builder) -> Builder {
    builder.reporter(kastor::LogReporter::new())
}
