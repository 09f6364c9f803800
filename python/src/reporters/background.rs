//! `kastor.Background`, which is Python: what a flush and the accounts need of it.

use std::{collections::BTreeMap, time::Duration};

use kastor::Deadline;
use pyo3::{
    exceptions::PyException,
    intern,
    prelude::*,
    types::{PyString, PyTuple},
};

use crate::{
    cold::flushed::Flushed,
    hot::{calls, context::Context, deliver::is_serving, value::class_name},
};

/// Waits for the background reporters of a context; adds to `flushed` what is pending.
pub(crate) fn flush(python: Python<'_>, context: &Context, deadline: Deadline, flushed: &mut Flushed) -> PyResult<()> {
    // Called inside a reporter it says what is pending, and waits for nobody.
    let deadline = if is_serving() { Deadline::after(Duration::ZERO) } else { deadline };
    for reporter in context.reporters.iter() {
        // SAFETY: the context keeps its reporters.
        let object = unsafe { Bound::from_borrowed_ptr(python, reporter.as_ptr()) };
        if !has(&object, intern!(python, "_kastor_flush"))? {
            continue;
        }
        let method = calls::get(&object, intern!(python, "_kastor_flush"))?;
        let (pending, dropped): (u64, u64) =
            calls::object(&method, (deadline.remaining().as_secs_f64(),), None)?.extract()?;
        // SAFETY: an object that is alive.
        let name = unsafe { class_name(pyo3::ffi::Py_TYPE(reporter.as_ptr()).cast()) };
        flushed.reporters.push((name, pending, dropped));
    }
    Ok(())
}

/// What became of the events that an object took, if it delivers them later.
pub(crate) struct Accounts {
    pub(crate) delivered: u64,
    /// By the name of the reason.
    pub(crate) dropped: BTreeMap<String, u64>,
    pub(crate) queued: u64,
    pub(crate) failures: u64,
    pub(crate) is_suspended: bool,
}

/// The accounts of a reporter that has a queue of its own; none of any other.
pub(crate) fn accounts(object: &Bound<'_, PyAny>) -> PyResult<Option<Accounts>> {
    if !has(object, intern!(object.py(), "_kastor_accounts"))? {
        return Ok(None);
    }
    let method = calls::get(object, intern!(object.py(), "_kastor_accounts"))?;
    let (delivered, dropped, queued, failures, is_suspended) =
        calls::object(&method, PyTuple::empty(object.py()), None)?.extract()?;
    Ok(Some(Accounts { delivered, dropped, queued, failures, is_suspended }))
}

/// Whether the class has a method. What a class raises when it is asked has none; what is no `Exception` goes on.
fn has(object: &Bound<'_, PyAny>, method: &Bound<'_, PyString>) -> PyResult<bool> {
    match object.get_type().hasattr(method) {
        Err(error) if error.is_instance_of::<PyException>(object.py()) => Ok(false),
        answer => answer,
    }
}
