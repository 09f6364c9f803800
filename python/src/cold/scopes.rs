//! The methods of scopes that run rarely: what is attached while a scope is open.

use std::sync::atomic::Ordering::Relaxed;

use kastor::{Carrier, TraceParent, raw};
use pyo3::{exceptions::PyTypeError, ffi, prelude::*, types::PyDict};

use super::{attach, contexts::add_method};
use crate::hot::{
    cell::{self, Cell, Extra, PointEvent, flag},
    context::owner,
    object::{Owned, lossy_text},
    scope, value,
};

/// Attributes that one scope keeps; records keep fewer.
const MAX_KEPT: usize = 1 << 10;

/// The cell that is meant: the scope, or the one that it stands for after it was entered again. Held by the object.
fn cell_of(object: &Bound<'_, PyAny>) -> PyResult<*mut Cell> {
    if object.get_type_ptr() != cell::TYPE.load(Relaxed) {
        return Err(PyTypeError::new_err("expected a kastor scope"));
    }
    let cell = object.as_ptr().cast::<Cell>();
    // SAFETY: the type says what it is, and the object is held.
    unsafe {
        let inner = (*cell).token().cast::<Cell>();
        Ok(if (*cell).state() == flag::PASSING && !inner.is_null() { inner } else { cell })
    }
}

/// Changes what a scope carries, unless it is closed already.
fn change(object: &Bound<'_, PyAny>, f: impl FnOnce(&mut Extra)) -> PyResult<()> {
    // SAFETY: held by the object; `f` calls no code of the program, so nobody else looks at the cell meanwhile.
    let cell = unsafe { &mut *cell_of(object)? };
    if matches!(cell.state(), flag::FRESH | flag::OPEN) && !cell.has(flag::ANCHOR | flag::STAND_IN) {
        f(cell.make_rich());
    }
    Ok(())
}

/// Sets attributes; the last value of a key counts.
#[pyfunction]
#[pyo3(signature = (this, /, **attributes), text_signature = "(self, /, **attributes)")]
pub(crate) fn set(this: &Bound<'_, PyAny>, attributes: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let pairs = pairs(attributes);
    let mut replaced = Vec::new();
    change(this, |rich| {
        for (key, value) in pairs {
            // SAFETY: keyword names are `str`s; the thread is attached.
            let is_same = |known: &Owned| unsafe { lossy_text(known.as_ptr()) == lossy_text(key.as_ptr()) };
            let is_it = |known: &Owned| known.as_ptr() == key.as_ptr() || is_same(known);
            let at = rich.late.iter().position(|(known, _)| is_it(known));
            let has_room = rich.late.len() < MAX_KEPT;
            match at.and_then(|at| rich.late.get_mut(at)) {
                Some((_, known)) => replaced.push(std::mem::replace(known, value)),
                None if has_room => rich.late.push((key, value)),
                None => replaced.push(value),
            }
        }
    })
    // Old values may run code of the program when they go: here, where nothing is borrowed any more.
}

/// Adds a point event. A name that is no text is named by its type: this raises nothing.
#[pyfunction]
#[pyo3(signature = (this, name, /, **attributes), text_signature = "(self, name, /, **attributes)")]
pub(crate) fn event(
    this: &Bound<'_, PyAny>,
    name: &Bound<'_, PyAny>,
    attributes: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    // SAFETY: held by the object.
    let context = owner(unsafe { (*cell_of(this)?).owner });
    if context.is_null() {
        return Ok(());
    }
    // SAFETY: the scope keeps its context.
    let tick = raw::tick(unsafe { &(*context).telemetry });
    // SAFETY: an object that is alive; its type is checked before it is read as a `str`.
    let text = unsafe {
        match ffi::PyUnicode_Check(name.as_ptr()) {
            0 => format!("<{}>", value::class_name(ffi::Py_TYPE(name.as_ptr()).cast())),
            _ => lossy_text(name.as_ptr()),
        }
    };
    let event = PointEvent { name: raw::name(&text), tick, attributes: pairs(attributes) };
    let mut event = Some(event);
    change(this, |rich| {
        if rich.events.len() < MAX_KEPT {
            rich.events.extend(event.take());
        }
    })
}

/// Adds a link to another scope, by its traceparent. What is no traceparent is left out.
#[pyfunction]
#[pyo3(signature = (this, traceparent), text_signature = "(self, traceparent)")]
pub(crate) fn link(this: &Bound<'_, PyAny>, traceparent: &Bound<'_, PyAny>) -> PyResult<()> {
    let parsed = traceparent.extract::<String>().ok().and_then(|text| TraceParent::parse(&text).ok());
    let Some(parsed) = parsed else { return Ok(()) };
    change(this, |rich| {
        if rich.links.len() < MAX_KEPT {
            rich.links.push(Carrier::from_trace_parent(&parsed));
        }
    })
}

/// Marks the scope as failed: by an exception, its class, or a text.
#[pyfunction]
#[pyo3(signature = (this, error), text_signature = "(self, error)")]
pub(crate) fn fail(this: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: an object that is alive; checked before it is read as a `str`.
    let text = unsafe {
        if ffi::PyUnicode_Check(error.as_ptr()) != 0 {
            lossy_text(error.as_ptr())
        } else if ffi::PyType_Check(error.as_ptr()) != 0 {
            value::class_name(error.as_ptr())
        } else {
            value::class_name(ffi::Py_TYPE(error.as_ptr()).cast())
        }
    };
    change(this, |rich| rich.error = Some(text))
}

/// Lets the scope close without an event.
#[pyfunction]
#[pyo3(text_signature = "(self)")]
pub(crate) fn discard(this: &Bound<'_, PyAny>) -> PyResult<()> {
    change(this, |rich| rich.is_discarded = true)
}

/// The scope's traceparent while it is open, for another process; None before and after.
#[pyfunction]
#[pyo3(text_signature = "(self)")]
pub(crate) fn traceparent(this: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let cell = cell_of(this)?;
    // SAFETY: held by the object, and no stand-in: those are never handed out.
    unsafe {
        if (*cell).state() != flag::OPEN {
            return Ok(None);
        }
        Ok(attach::traceparent_of(cell))
    }
}

/// A new scope of the same context, name and metadata.
#[pyfunction]
pub(crate) fn _copy<'py>(scope: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let cell = cell_of(scope)?;
    // SAFETY: a scope that is held; the answer is a new reference or null with an error.
    unsafe { Bound::from_owned_ptr_or_err(scope.py(), scope::copy(cell)) }
}

fn pairs(attributes: Option<&Bound<'_, PyDict>>) -> Vec<(Owned, Owned)> {
    let owned = |object: Bound<'_, PyAny>| {
        // SAFETY: the reference is given up by its owner.
        unsafe { Owned::take(object.into_ptr()) }
    };
    let all = attributes.into_iter().flat_map(|attributes| attributes.iter());
    all.filter_map(|(key, value)| Some((owned(key)?, owned(value)?))).collect()
}

/// Puts the methods into the type.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = module.getattr("Scope")?;
    for function in [
        wrap_pyfunction!(set, module)?,
        wrap_pyfunction!(event, module)?,
        wrap_pyfunction!(link, module)?,
        wrap_pyfunction!(fail, module)?,
        wrap_pyfunction!(discard, module)?,
        wrap_pyfunction!(traceparent, module)?,
    ] {
        add_method(module.py(), &class, &function)?;
    }
    module.add_function(wrap_pyfunction!(_copy, module)?)
}
