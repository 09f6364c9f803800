//! Scopes from elsewhere: a remote parent, and functions that take the current scope along.

use kastor::{Carrier, TraceParent, raw};
use pyo3::{
    ffi,
    prelude::*,
    types::{PyDict, PyString, PyTuple},
};

use crate::hot::{
    calls,
    cell::{self, Cell, Extra, Foreign, Named, Parts, carrier_of, flag, origin_of},
    context::{self, Context},
    object::{clear, lossy_text},
    stack,
};

/// A context manager inside of which a remote scope is the parent. A header that is none starts a new trace, as the W3C
/// says.
pub(crate) fn anchor<'py>(
    python: Python<'py>,
    owner: *mut Context,
    traceparent: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let parsed = traceparent.extract::<String>().ok().and_then(|text| TraceParent::parse(&text).ok());
    let carrier = parsed.map_or(Carrier::NONE, |parent| Carrier::from_trace_parent(&parent));
    let foreign = Some(Foreign { carrier, parent_span_id: 0 });
    // SAFETY: a new cell; what is passed is owned by it from here on.
    unsafe {
        let cell = cell::allocate();
        if cell.is_null() {
            return Err(PyErr::fetch(python));
        }
        let extra = Box::new(Extra { foreign, ..Extra::default() });
        let parts = Parts {
            owner,
            below: std::ptr::null_mut(),
            extra: Box::into_raw(extra).cast(),
            named: Named { name: raw::name("") },
            depth: 0,
            flags: flag::FRESH | flag::RICH | flag::ANCHOR,
        };
        cell::fill(cell, parts);
        Bound::from_owned_ptr_or_err(python, cell.cast())
    }
}

/// Makes a remote scope the parent of what is opened inside a `with` block.
#[pyfunction]
#[pyo3(signature = (traceparent))]
pub(crate) fn attach<'py>(traceparent: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    anchor(traceparent.py(), std::ptr::null_mut(), traceparent)
}

/// The current scope's traceparent, for another process; None outside of any scope.
#[pyfunction]
pub(crate) fn current_traceparent(python: Python<'_>) -> Option<String> {
    let cell = current(python)?;
    // SAFETY: held by `cell`, and no stand-in.
    unsafe { traceparent_of(cell.as_ptr().cast()) }
}

/// What another process gets of a scope: with the decision of its context's sampler. An anchor's is the remote scope's own.
///
/// # Safety
/// As for [`carrier_of`].
pub(crate) unsafe fn traceparent_of(cell: *mut Cell) -> Option<String> {
    // SAFETY: as the caller says; a cell keeps its context.
    let carrier = unsafe {
        match context::owner((*cell).owner).as_ref().filter(|_| !(*cell).has(flag::ANCHOR)) {
            Some(context) => raw::sampled(&context.telemetry, carrier_of(cell)),
            None => carrier_of(cell),
        }
    };
    carrier.trace_parent().map(|parent| parent.to_string())
}

/// The innermost scope of this flow.
fn current(python: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached; `value` is held until a reference of one's own to the scope is taken.
    unsafe {
        let mut value = stack::value();
        let top = stack::top_of(value);
        let origin = if top.is_null() { top } else { origin_of(top) };
        let found = Bound::from_borrowed_ptr_or_opt(python, origin.cast());
        clear(&mut value);
        found
    }
}

/// The scopes that count in this flow as (last name, depth), outermost first; for tests.
#[pyfunction]
pub(crate) fn _stack(python: Python<'_>) -> Vec<(String, u32)> {
    // SAFETY: the thread is attached; `kept` holds the cells.
    unsafe {
        let value = stack::value();
        let kept = Bound::from_owned_ptr_or_opt(python, value.cast());
        let (mut found, mut cell) = (Vec::new(), stack::top_of(value));
        while !cell.is_null() {
            let origin = &*origin_of(cell);
            if origin.has_path() {
                let name = origin.rich().and_then(|rich| rich.name.as_ref());
                let name = name.map_or_else(|| origin.name().text().to_owned(), |name| lossy_text(name.as_ptr()));
                found.push((name, origin.depth()));
            }
            cell = stack::counting((*cell).below);
        }
        found.reverse();
        drop(kept);
        found
    }
}

/// The value of the stack's variable.
pub(super) fn innermost(python: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached; a new reference, or null.
    unsafe { Bound::from_owned_ptr_or_opt(python, stack::value().cast()) }
}

/// Replaces the value of the stack's variable, which is a cell or none; returns the old one.
pub(super) fn swapped(python: Python<'_>, value: Option<Py<PyAny>>) -> Option<Py<PyAny>> {
    let old = innermost(python);
    let new = value.as_ref().map_or(std::ptr::null_mut(), Py::as_ptr);
    if old.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr) != new {
        // SAFETY: the thread is attached; only cells become the value.
        unsafe {
            let mut token = stack::set(new.cast());
            clear(&mut token);
        }
    }
    old.map(Bound::unbind)
}

/// The value of the stack's variable, replaced: for carried coroutines.
#[pyfunction]
pub(crate) fn _swap(python: Python<'_>, value: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    let is_cell = value.get_type_ptr() == cell::TYPE.load(std::sync::atomic::Ordering::Relaxed);
    swapped(python, is_cell.then(|| value.clone().unbind()))
}

/// Wraps a function so that it runs under the scope that is current now, on whatever thread.
#[pyfunction]
#[pyo3(name = "carry")]
pub(crate) fn carry(function: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let python = function.py();
    match current(python) {
        Some(scope) => {
            let of_coroutine = calls::module(python, "kastor._decorate")?.getattr("carried")?;
            let made = calls::object(&of_coroutine, (&scope, &function), None)?;
            if !made.is_none() {
                return Ok(made);
            }
            let carried = Carried { function: function.unbind(), scope: scope.unbind() };
            Ok(Bound::new(python, carried)?.into_any())
        }
        None => Ok(function),
    }
}

/// A function that takes a scope along.
#[pyclass(module = "kastor._native", frozen, weakref)]
pub(crate) struct Carried {
    #[pyo3(get, name = "__wrapped__")]
    function: Py<PyAny>,
    scope: Py<PyAny>,
}

#[pymethods]
impl Carried {
    #[pyo3(signature = (*arguments, **named))]
    fn __call__<'py>(
        &self,
        python: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the scope is a cell; the token is used in the context that made it, or refused.
        unsafe {
            let mut token = stack::set(self.scope.as_ptr().cast());
            let answer = calls::object(self.function.bind(python), arguments.clone(), named);
            if !token.is_null() {
                let variable = stack::VARIABLE.load(std::sync::atomic::Ordering::Relaxed);
                if ffi::PyContextVar_Reset(variable, token) < 0 {
                    ffi::PyErr_Clear();
                }
            }
            clear(&mut token);
            answer
        }
    }

    fn __getattr__<'py>(&self, python: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        calls::get(self.function.bind(python), &PyString::new(python, name))
    }

    fn __repr__(&self, python: Python<'_>) -> PyResult<String> {
        Ok(format!("<carried {}>", self.function.bind(python).repr()?))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.scope)
    }
}

/// Adds the functions to the module.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(attach, module)?)?;
    module.add_function(wrap_pyfunction!(current_traceparent, module)?)?;
    module.add_function(wrap_pyfunction!(carry, module)?)?;
    module.add_function(wrap_pyfunction!(_stack, module)?)?;
    module.add_function(wrap_pyfunction!(_swap, module)?)
}
