//! `Capture`: kastor's own file, for `python -m kastor report` and the other commands.

use std::path::PathBuf;

use kastor_export::capture::{self, CaptureConfig, Durability};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};

use super::{
    feed::Feed,
    settings::{redaction, seconds, with},
};

/// Writes a capture: one file if `path` ends in `.kcap`, else a folder with a file for each process.
#[pyclass(module = "kastor._native", frozen, weakref)]
pub(crate) struct Capture {
    pub(crate) reporter: capture::Capture,
    feed: Feed,
}

#[pymethods]
impl Capture {
    #[new]
    #[pyo3(signature = (path, *, max_file_bytes=None, max_files=None, max_folder_bytes=None, zstd=None,
        durable_on_flush=false, durable_every=None, redact=true, redact_keys=vec![], allow_keys=vec![]))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        path: PathBuf,
        max_file_bytes: Option<u64>,
        max_files: Option<usize>,
        max_folder_bytes: Option<u64>,
        zstd: Option<i32>,
        durable_on_flush: bool,
        durable_every: Option<f64>,
        redact: bool,
        redact_keys: Vec<String>,
        allow_keys: Vec<String>,
    ) -> PyResult<Self> {
        if let Some(level) = zstd.filter(|level| !(1..=19).contains(level)) {
            return Err(PyValueError::new_err(format!("zstd is {level}: it is a level from 1 to 19")));
        }
        let mut config = CaptureConfig::new(path).redaction(redaction(redact, &redact_keys, &allow_keys));
        config = with(config, max_file_bytes, CaptureConfig::max_file_bytes);
        config = with(config, max_files, CaptureConfig::max_files);
        config = with(config, max_folder_bytes, CaptureConfig::max_folder_bytes);
        config = with(config, zstd, CaptureConfig::zstd);
        config = with(config, durable_on_flush.then_some(Durability::OnFlush), CaptureConfig::durability);
        let every = seconds("durable_every", durable_every)?.map(Durability::Every);
        config = with(config, every, CaptureConfig::durability);
        Ok(Self { reporter: capture::Capture::with(config), feed: Feed::default() })
    }

    /// Where it was asked to be: a file or a folder.
    #[getter]
    fn path(&self) -> String {
        self.reporter.path().to_string_lossy().into_owned()
    }

    /// The files that this process wrote and kept, the newest last.
    fn files(&self, python: Python<'_>) -> Vec<String> {
        let files = python.detach(|| self.reporter.files());
        files.iter().map(|file| file.to_string_lossy().into_owned()).collect()
    }

    /// The newest failure in this process, in words.
    fn last_error(&self, python: Python<'_>) -> Option<String> {
        python.detach(|| self.reporter.last_error())
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
        format!("Capture({:?})", self.path())
    }
}
