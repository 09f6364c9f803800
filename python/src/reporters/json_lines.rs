//! `JsonLines`: OTLP's JSON, one request a line.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use pyo3::{prelude::*, types::PyDict};

use super::{
    feed::Feed,
    otlp::duration_unit_of,
    settings::{raised, redaction, with},
};

/// Appends scopes as spans, and sums as metrics, to a file: OTLP's JSON, one request a line.
#[pyclass(module = "kastor._native", frozen, weakref)]
pub(crate) struct JsonLines {
    pub(crate) reporter: Arc<kastor_export::JsonLines>,
    path: PathBuf,
    feed: Feed,
}

#[pymethods]
impl JsonLines {
    #[new]
    #[pyo3(signature = (path, *, max_file_bytes=None, old_files=3, service_name=None, resource=None, duration_unit="s",
        redact=true, redact_keys=vec![], allow_keys=vec![]))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        path: PathBuf,
        max_file_bytes: Option<u64>,
        old_files: u32,
        service_name: Option<String>,
        resource: Option<BTreeMap<String, String>>,
        duration_unit: &str,
        redact: bool,
        redact_keys: Vec<String>,
        allow_keys: Vec<String>,
    ) -> PyResult<Self> {
        let unit = duration_unit_of(duration_unit)?;
        let mut lines = kastor_export::JsonLines::create(path.clone()).map_err(raised)?;
        lines = lines.duration_unit(unit).redaction(redaction(redact, &redact_keys, &allow_keys));
        lines = with(lines, max_file_bytes, |lines, bytes| lines.rotate(bytes, old_files));
        lines = with(lines, service_name, kastor_export::JsonLines::service_name);
        let resource = resource.unwrap_or_default();
        lines = resource.into_iter().fold(lines, |lines, (key, value)| lines.resource_attribute(key, value));
        Ok(Self { reporter: Arc::new(lines), path, feed: Feed::default() })
    }

    /// Writes a timing that was measured elsewhere; `duration` in seconds.
    #[pyo3(signature = (scope, duration, /, **metadata))]
    fn record_timing(&self, scope: &str, duration: f64, metadata: Option<&Bound<'_, PyDict>>) {
        self.feed.timing(|builder| builder.reporter(self.reporter.clone()), (scope, duration), metadata);
    }

    /// Writes a metric that was recorded elsewhere.
    #[pyo3(signature = (scope, value, /, **metadata))]
    fn record_metric(&self, scope: &str, value: &Bound<'_, PyAny>, metadata: Option<&Bound<'_, PyDict>>) {
        self.feed.metric(|builder| builder.reporter(self.reporter.clone()), (scope, value), metadata);
    }

    fn __repr__(&self) -> String {
        format!("JsonLines({:?})", self.path)
    }
}
