//! A context's own report: text for people, a dict for programs, a table in notebooks.

use pyo3::prelude::*;

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
        python.import("json")?.call_method1("loads", (self.report.to_json(),))
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
        let mut escaped = String::new();
        for character in self.report.to_string().chars() {
            match character {
                '&' => escaped.push_str("&amp;"),
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                other => escaped.push(other),
            }
        }
        format!("<pre style=\"line-height: 1.3\">{escaped}</pre>")
    }
}
