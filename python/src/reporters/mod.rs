//! The native reporters as Python classes, one file each.
//!
//! A class holds its reporter, adds it to a builder, and has `record_timing` and `record_metric` for programs that feed
//! that one reporter themselves. A further one is added to [`add`] and to [`set_up`].

pub(crate) mod background;
mod capture;
mod chrome;
mod feed;
mod folded;
mod json_lines;
mod log;
mod otlp;
mod perfetto;
mod prometheus;
mod recording;
mod settings;
mod simple;
mod statsd;

use kastor::{Builder, Telemetry};
use pyo3::prelude::*;

/// Adds a native reporter to a builder; false if the object is none.
pub(crate) fn add(builder: Builder, object: &Bound<'_, PyAny>) -> PyResult<(Builder, bool)> {
    if let Ok(simple) = object.cast::<simple::SimpleReporter>() {
        // A subclass that records by itself is a Python reporter.
        if is_own(object, &object.py().get_type::<simple::SimpleReporter>())? {
            return Ok((builder.reporter(simple.get().reporter.clone()), true));
        }
    }
    if let Ok(recording) = object.cast_exact::<recording::Recording>() {
        return Ok((builder.reporter(recording.get().recording.clone()), true));
    }
    if object.cast_exact::<log::LogReporter>().is_ok() {
        return Ok((builder.reporter(kastor::LogReporter::new()), true));
    }
    // Those of `kastor-export`: the object and the context hold one reporter together.
    macro_rules! exporters {
        ($($class:path),+) => {
            $(if let Ok(exporter) = object.cast_exact::<$class>() {
                return Ok((builder.reporter(exporter.get().reporter.clone()), true));
            })+
        };
    }
    exporters!(
        capture::Capture,
        chrome::Chrome,
        folded::Folded,
        json_lines::JsonLines,
        otlp::Otlp,
        perfetto::Perfetto,
        statsd::Statsd
    );
    // It takes nothing while the context is built: see `start`.
    let is_endpoint = object.cast_exact::<prometheus::Prometheus>().is_ok();
    Ok((builder, is_endpoint))
}

/// Tells what was given to a context that the context is there.
pub(crate) fn start(telemetry: &Telemetry, object: &Bound<'_, PyAny>) {
    if let Ok(endpoint) = object.cast_exact::<prometheus::Prometheus>() {
        endpoint.get().serve(telemetry);
    }
}

/// Whether a reporter has the methods of the class itself.
fn is_own(object: &Bound<'_, PyAny>, class: &Bound<'_, pyo3::types::PyType>) -> PyResult<bool> {
    for method in ["record_timing", "record_metric"] {
        if !object.get_type().getattr(method)?.is(&class.getattr(method)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Adds the classes to the module.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<simple::SimpleReporter>()?;
    module.add_class::<recording::Recording>()?;
    module.add_class::<log::LogReporter>()?;
    module.add_class::<capture::Capture>()?;
    module.add_class::<chrome::Chrome>()?;
    module.add_class::<folded::Folded>()?;
    module.add_class::<json_lines::JsonLines>()?;
    module.add_class::<otlp::Otlp>()?;
    module.add_class::<perfetto::Perfetto>()?;
    module.add_class::<prometheus::Prometheus>()?;
    module.add_class::<statsd::Statsd>()?;
    module.add_function(wrap_pyfunction!(prometheus::prometheus_text, module)?)
}
