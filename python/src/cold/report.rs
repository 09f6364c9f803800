//! A context's own report: text for people, a dict for programs, a table in notebooks.

use pyo3::prelude::*;

use crate::hot::calls;

/// What a context has aggregated up to one moment.
#[pyclass(module = "kastor._native", frozen)]
pub(crate) struct Report {
    report: kastor::Report,
}

impl Report {
    pub(crate) fn new(report: kastor::Report) -> Self {
        Self { report }
    }
}

#[pymethods]
impl Report {
    /// Tables of the call tree and of the metrics.
    #[getter]
    fn text(&self) -> String {
        self.report.to_string()
    }

    /// `{"scopes": [...], "metrics": [...]}`; durations in seconds, as the keys say.
    fn as_dict<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        calls::object(&calls::module(python, "json")?.getattr("loads")?, (self.report.to_json(),), None)
    }

    /// The figures of the scopes of one path, as in `as_dict`; None if none closed under it.
    fn scope<'py>(&self, python: Python<'py>, path: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        entry(&self.as_dict(python)?, "scopes", path)
    }

    /// The figures of the first series of one metric, as in `as_dict`; None if there is none.
    fn metric<'py>(&self, python: Python<'py>, path: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        entry(&self.as_dict(python)?, "metrics", path)
    }

    /// The same as JSON text.
    fn to_json(&self) -> String {
        self.report.to_json()
    }

    fn __str__(&self) -> String {
        self.report.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<Report: {} scopes, {} metrics>", self.report.scopes().len(), self.report.series().len())
    }

    fn _repr_html_(&self) -> String {
        kastor_export::report_html(&self.report)
    }
}

/// The first entry of a list in `all` whose path is this.
fn entry<'py>(all: &Bound<'py, PyAny>, list: &str, path: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    for entry in all.get_item(list)?.try_iter()? {
        let entry = entry?;
        if entry.get_item("path")?.extract::<String>()? == path {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
