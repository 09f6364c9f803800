//! `Perfetto`: a trace for Perfetto (`ui.perfetto.dev`).

use std::{path::PathBuf, sync::Arc};

use kastor_export::perfetto::{self, Config};
use pyo3::{prelude::*, types::PyDict};

use super::{
    feed::Feed,
    settings::{raised, redaction, with},
};

/// Writes a trace for Perfetto (`ui.perfetto.dev`), to a file that is made or emptied. Flush the context before reading it.
#[pyclass(module = "kastor._native", frozen, weakref)]
pub(crate) struct Perfetto {
    pub(crate) reporter: Arc<perfetto::Perfetto>,
    path: PathBuf,
    feed: Feed,
}

#[pymethods]
impl Perfetto {
    #[new]
    #[pyo3(signature = (path, *, max_bytes=None, ids=false, process_name=None, redact=true, redact_keys=vec![],
        allow_keys=vec![]))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        path: PathBuf,
        max_bytes: Option<u64>,
        ids: bool,
        process_name: Option<String>,
        redact: bool,
        redact_keys: Vec<String>,
        allow_keys: Vec<String>,
    ) -> PyResult<Self> {
        let mut config = Config::default().ids(ids).redaction(redaction(redact, &redact_keys, &allow_keys));
        config = with(config, max_bytes, Config::max_bytes);
        config = with(config, process_name, Config::process_name);
        let reporter = Arc::new(perfetto::Perfetto::create(&path, config).map_err(raised)?);
        Ok(Self { reporter, path, feed: Feed::default() })
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
        format!("Perfetto({:?})", self.path)
    }
}
