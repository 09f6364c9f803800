//! The methods of scopes that run rarely: what is attached while a scope is open.

use std::sync::atomic::Ordering::Relaxed;

use kastor::{Carrier, TraceParent, raw};
use pyo3::{exceptions::PyTypeError, ffi, prelude::*, types::PyDict};

use super::{attach, contexts::add_method};
use crate::hot::{
    cell::{self, Cell, Late, PointEvent, flag},
    context::owner,
    object::{Owned, locked, lossy_text},
    scope, value,
};

/// Attributes that one scope keeps; records keep fewer.
const MAX_KEPT: usize = 1 << 10;

/// The scope that is meant: the object, or the one that it stands for after it was entered again.
fn meant<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if object.get_type_ptr() != cell::TYPE.load(Relaxed) {
        return Err(PyTypeError::new_err("expected a kastor scope"));
    }
    let cell = object.as_ptr().cast::<Cell>();
    // SAFETY: the type says what it is, and the object is held; with its lock nobody takes away what it stands for.
    let inner = unsafe {
        locked(object.as_ptr(), || {
            let inner = if (*cell).state() == flag::PASSING { (*cell).token() } else { std::ptr::null_mut() };
            Bound::from_borrowed_ptr_or_opt(object.py(), inner)
        })
    };
    Ok(inner.unwrap_or_else(|| object.clone()))
}

/// Changes what is attached to a scope, unless it is closed already. `f` calls no code of the program.
fn change(object: &Bound<'_, PyAny>, f: impl FnOnce(&mut Late)) -> PyResult<()> {
    let object = meant(object)?;
    // SAFETY: a scope, which is held; while its lock is nobody else looks at what is attached.
    unsafe {
        locked(object.as_ptr(), || {
            let cell = &mut *object.as_ptr().cast::<Cell>();
            if matches!(cell.state(), flag::FRESH | flag::OPEN) && !cell.has(flag::ANCHOR | flag::STAND_IN) {
                cell.make_rich().change_late(f);
            }
        });
    }
    Ok(())
}

/// Sets attributes; the last value of a key counts.
#[pyfunction]
#[pyo3(signature = (this, /, **attributes), text_signature = "(self, /, **attributes)")]
pub(crate) fn set(this: &Bound<'_, PyAny>, attributes: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let pairs = pairs(attributes);
    let mut replaced = Vec::new();
    change(this, |late| {
        for (key, value) in pairs {
            // SAFETY: keyword names are `str`s; the thread is attached.
            let is_same = |known: &Owned| unsafe { lossy_text(known.as_ptr()) == lossy_text(key.as_ptr()) };
            let is_it = |known: &Owned| known.as_ptr() == key.as_ptr() || is_same(known);
            let at = late.attributes.iter().position(|(known, _)| is_it(known));
            let has_room = late.attributes.len() < MAX_KEPT;
            match at.and_then(|at| late.attributes.get_mut(at)) {
                Some((_, known)) => replaced.push(std::mem::replace(known, value)),
                None if has_room => late.attributes.push((key, value)),
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
    let scope = meant(this)?;
    // SAFETY: a scope, which is held.
    let context = owner(unsafe { (*scope.as_ptr().cast::<Cell>()).owner });
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
    change(this, |late| {
        if late.events.len() < MAX_KEPT {
            late.events.extend(event.take());
        }
    })
}

/// Adds a link to another scope, by its traceparent. What is no traceparent is left out.
#[pyfunction]
#[pyo3(signature = (this, traceparent), text_signature = "(self, traceparent)")]
pub(crate) fn link(this: &Bound<'_, PyAny>, traceparent: &Bound<'_, PyAny>) -> PyResult<()> {
    let parsed = traceparent.extract::<String>().ok().and_then(|text| TraceParent::parse(&text).ok());
    let Some(parsed) = parsed else { return Ok(()) };
    change(this, |late| {
        if late.links.len() < MAX_KEPT {
            late.links.push(Carrier::from_trace_parent(&parsed));
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
    change(this, |late| late.error = Some(text))
}

/// Lets the scope close without an event.
#[pyfunction]
#[pyo3(text_signature = "(self)")]
pub(crate) fn discard(this: &Bound<'_, PyAny>) -> PyResult<()> {
    change(this, |late| late.is_discarded = true)
}

/// The scope's traceparent while it is open, for another process; None before and after.
#[pyfunction]
#[pyo3(text_signature = "(self)")]
pub(crate) fn traceparent(this: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let scope = meant(this)?;
    let cell = scope.as_ptr().cast::<Cell>();
    // SAFETY: a scope, which is held, and no stand-in: those are never handed out.
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
    let scope = meant(scope)?;
    // SAFETY: a scope that is held; the answer is a new reference or null with an error.
    unsafe { Bound::from_owned_ptr_or_err(scope.py(), scope::copy(scope.as_ptr().cast())) }
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
