//! The native reporters as Python classes, one file each.
//!
//! A class holds its reporter, adds it to a builder, and has `record_timing` and `record_metric` for programs that feed
//! that one reporter themselves. A further one is added to [`add`] and to [`set_up`].

pub(crate) mod background;
mod feed;
mod log;
mod recording;
mod simple;

use kastor::Builder;
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
    Ok((builder, false))
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
    module.add_class::<log::LogReporter>()
}
