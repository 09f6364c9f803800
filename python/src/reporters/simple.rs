//! `SimpleReporter`: keeps timings and metrics in memory, for development and tests.

use std::{collections::BTreeMap, time::Duration};

use kastor::{Metadata, OwnedValue, Value};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};

use super::feed;
use crate::hot::calls;

/// What the report says when there is nothing to say.
const NOTHING: &str = "=== Telemetry Report ===\n\n--- Timings ---";

/// Keeps the newest entries of every path, and sums over all of them.
#[pyclass(module = "kastor._native", frozen, subclass, weakref)]
pub(crate) struct SimpleReporter {
    pub(crate) reporter: kastor::SimpleReporter,
}

#[pymethods]
impl SimpleReporter {
    #[new]
    #[pyo3(signature = (max_entries_per_scope=1000))]
    fn new(max_entries_per_scope: usize) -> Self {
        Self { reporter: kastor::SimpleReporter::with_max_entries_per_scope(max_entries_per_scope) }
    }

    /// A text for people: the tree of the timings, then the metrics, over everything since the last reset.
    fn get_report(&self) -> String {
        self.reporter.report()
    }

    /// Prints the report; nothing if nothing was recorded.
    fn print_report(&self, python: Python<'_>) -> PyResult<()> {
        let report = self.reporter.report();
        if report != NOTHING {
            calls::object(&calls::module(python, "builtins")?.getattr("print")?, (report,), None)?;
        }
        Ok(())
    }

    /// `{"timings": {path: [(duration, metadata)]}, "metrics": {path: [(value, metadata)]}}`: copies, safe for JSON.
    fn as_dict<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(python);
        let timings = self.reporter.timings();
        let metrics = self.reporter.metrics();
        all.set_item(
            "timings",
            paths(python, timings, |duration: &Duration| OwnedValue::F64(duration.as_secs_f64()))?,
        )?;
        all.set_item("metrics", paths(python, metrics, OwnedValue::clone)?)?;
        Ok(all)
    }

    /// The same as JSON text.
    fn to_json(&self) -> String {
        self.reporter.to_json()
    }

    /// Forgets everything, sums included.
    fn reset(&self) {
        self.reporter.reset();
    }

    /// Keeps a timing that was measured elsewhere; `duration` in seconds.
    #[pyo3(signature = (scope, duration, /, **metadata))]
    #[pyo3(text_signature = "($self, scope, duration, /, **metadata)")]
    fn record_timing(&self, scope: &str, duration: f64, metadata: Option<&Bound<'_, PyDict>>) {
        let seconds = crate::cold::contexts::duration(duration);
        feed::with_metadata(metadata, |metadata| self.reporter.add_timing(scope, seconds, metadata));
    }

    /// Keeps a metric that was recorded elsewhere.
    #[pyo3(signature = (scope, value, /, **metadata))]
    #[pyo3(text_signature = "($self, scope, value, /, **metadata)")]
    fn record_metric(&self, scope: &str, value: &Bound<'_, PyAny>, metadata: Option<&Bound<'_, PyDict>>) {
        feed::with_metadata(metadata, |metadata| {
            feed::with_value(value, |value| self.reporter.add_metric(scope, *value, metadata));
        });
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.reporter)
    }
}

fn paths<'py, V>(
    python: Python<'py>,
    paths: BTreeMap<String, Vec<(V, Metadata)>>,
    first: impl Fn(&V) -> OwnedValue,
) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(python);
    for (path, entries) in paths {
        let list = PyList::empty(python);
        for (value, metadata) in entries {
            let keys = PyDict::new(python);
            for (key, value) in &metadata {
                keys.set_item(key, to_python(python, value)?)?;
            }
            list.append((to_python(python, &first(&value))?, keys))?;
        }
        all.set_item(path, list)?;
    }
    Ok(all)
}

/// A value that JSON has a place for: bytes are hex text, NaN and the infinities are text.
pub(super) fn to_python<'py>(python: Python<'py>, value: &OwnedValue) -> PyResult<Bound<'py, PyAny>> {
    let text = |text: String| Ok(text.into_pyobject(python)?.into_any());
    Ok(match value {
        OwnedValue::Null => python.None().into_bound(python),
        OwnedValue::Bool(value) => value.into_pyobject(python)?.to_owned().into_any(),
        OwnedValue::I64(value) => value.into_pyobject(python)?.into_any(),
        OwnedValue::U64(value) => value.into_pyobject(python)?.into_any(),
        OwnedValue::F64(value) if value.is_finite() => value.into_pyobject(python)?.into_any(),
        OwnedValue::F64(value) => return text(value.to_string()),
        OwnedValue::Text(value) => value.as_ref().into_pyobject(python)?.into_any(),
        OwnedValue::Bytes(value) => return text(Value::Bytes(value).to_string()),
        _ => return text(String::new()),
    })
}
