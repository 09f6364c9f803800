//! `kastor.Background`, which is Python: what a flush needs of it.

use kastor::Deadline;
use pyo3::prelude::*;

use crate::{
    cold::flushed::Flushed,
    hot::{context::Context, value::class_name},
};

/// Waits for the background reporters of a context; adds to `flushed` what is pending.
pub(crate) fn flush(python: Python<'_>, context: &Context, deadline: Deadline, flushed: &mut Flushed) -> PyResult<()> {
    for reporter in context.reporters.iter() {
        // SAFETY: the context keeps its reporters.
        let object = unsafe { Bound::from_borrowed_ptr(python, reporter.as_ptr()) };
        if !object.get_type().hasattr("_kastor_flush")? {
            continue;
        }
        let (pending, dropped): (u64, u64) =
            object.call_method1("_kastor_flush", (deadline.remaining().as_secs_f64(),))?.extract()?;
        // SAFETY: an object that is alive.
        let name = unsafe { class_name(pyo3::ffi::Py_TYPE(reporter.as_ptr()).cast()) };
        flushed.reporters.push((name, pending, dropped));
    }
    Ok(())
}
