//! The methods of contexts that run rarely; the disabled context has them too.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use kastor::Telemetry;
use pyo3::{
    Borrowed,
    exceptions::{PyException, PyOverflowError, PyTypeError},
    ffi,
    prelude::*,
    types::PyDict,
};

use super::{attach, flushed::Flushed, logging, open_scopes, report::Report, scopes, stats};
use crate::{
    hot::{
        cell::{Cell, flag, origin_of},
        context::{self, Context},
        disabled, stack,
    },
    reporters,
};

/// An enabled context, or none for the disabled one.
pub(crate) fn enabled<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<Option<&'a Context>> {
    if object.as_ptr() == disabled::SINGLETON.load(Relaxed) {
        return Ok(None);
    }
    if object.get_type_ptr() != context::TYPE.load(Relaxed) {
        return Err(PyTypeError::new_err("expected a telemetry context"));
    }
    // SAFETY: the type says what it is, and the object is held as long as the reference.
    Ok(Some(unsafe { &*object.as_ptr().cast::<Context>() }))
}

/// The telemetry of a context.
pub(crate) fn telemetry(object: &Bound<'_, PyAny>) -> PyResult<Telemetry> {
    Ok(enabled(object)?.map_or(Telemetry::DISABLED, |context| Telemetry::clone(&context.telemetry)))
}

/// Seconds as a duration; what is no usable number is no time at all, and more than 10 years are 10 years.
pub(crate) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, 315_360_000.0)).unwrap_or_default()
}

/// A number of seconds. What is none is a `TypeError`, whatever the object itself raises.
pub(crate) struct Seconds(Duration);

impl Seconds {
    const DEFAULT: Self = Self(Duration::from_secs(5));
}

impl<'a, 'py> FromPyObject<'a, 'py> for Seconds {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<f64>() {
            Ok(seconds) => Ok(Self(duration(seconds))),
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => Ok(Self(duration(f64::MAX))),
            Err(error) if error.is_instance_of::<PyException>(object.py()) => {
                Err(PyTypeError::new_err("expected a number of seconds"))
            }
            Err(error) => Err(error),
        }
    }
}

/// Brings what was emitted to every reporter, or says after `timeout` seconds what is pending.
#[pyfunction]
#[pyo3(signature = (this, timeout=Seconds::DEFAULT), text_signature = "(self, timeout=5.0)")]
pub(crate) fn flush(this: &Bound<'_, PyAny>, timeout: Seconds) -> PyResult<Flushed> {
    let python = this.py();
    let (telemetry, deadline) = (telemetry(this)?, kastor::Deadline::after(timeout.0));
    let mut flushed = Flushed::of(&python.detach(|| telemetry.flush(deadline.remaining())));
    if let Some(context) = enabled(this)? {
        reporters::background::flush(python, context, deadline, &mut flushed)?;
    }
    logging::drain(python);
    Ok(flushed)
}

/// Makes what was emitted durable, delivered or not, as far as reporters can: those with a spool write it to disk.
#[pyfunction]
#[pyo3(signature = (this, timeout=Seconds::DEFAULT), text_signature = "(self, timeout=5.0)")]
pub(crate) fn persist(this: &Bound<'_, PyAny>, timeout: Seconds) -> PyResult<Flushed> {
    let python = this.py();
    let (telemetry, deadline) = (telemetry(this)?, kastor::Deadline::after(timeout.0));
    let mut flushed = Flushed::of(&python.detach(|| telemetry.persist(deadline.remaining())));
    if let Some(context) = enabled(this)? {
        reporters::background::flush(python, context, deadline, &mut flushed)?;
    }
    logging::drain(python);
    Ok(flushed)
}

/// Flushes, and disables the context for ever; what comes later is dropped and counted.
#[pyfunction]
#[pyo3(signature = (this, timeout=Seconds::DEFAULT), text_signature = "(self, timeout=5.0)")]
pub(crate) fn shutdown(this: &Bound<'_, PyAny>, timeout: Seconds) -> PyResult<Flushed> {
    let python = this.py();
    let (telemetry, deadline) = (telemetry(this)?, kastor::Deadline::after(timeout.0));
    let mut flushed = Flushed::of(&python.detach(|| telemetry.shutdown(deadline.remaining())));
    if let Some(context) = enabled(this)? {
        reporters::background::flush(python, context, deadline, &mut flushed)?;
    }
    logging::drain(python);
    Ok(flushed)
}

/// The accounts: what was emitted, delivered and dropped, and why; a dict.
#[pyfunction]
#[pyo3(name = "stats", text_signature = "(self)")]
pub(crate) fn accounts<'py>(this: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    logging::drain(this.py());
    stats::stats(this.py(), enabled(this)?)
}

/// The exact aggregates of everything that closed so far.
#[pyfunction]
#[pyo3(text_signature = "(self)")]
pub(crate) fn report(this: &Bound<'_, PyAny>) -> PyResult<Report> {
    let telemetry = telemetry(this)?;
    Ok(Report::new(this.py().detach(|| telemetry.report())))
}

/// The scopes that are open now, of any context, thread and task: where does it hang?
#[pyfunction]
#[pyo3(name = "open_scopes", text_signature = "(self)")]
pub(crate) fn all_open_scopes(this: &Bound<'_, PyAny>) -> PyResult<Vec<open_scopes::OpenScope>> {
    open_scopes::open_scopes(this.py())
}

/// Sets unit and help text of all metrics of a name.
#[pyfunction]
#[pyo3(signature = (this, name, unit="", help=""), text_signature = "(self, name, unit='', help='')")]
pub(crate) fn describe(this: &Bound<'_, PyAny>, name: &str, unit: &str, help: &str) -> PyResult<()> {
    telemetry(this)?.describe(name, unit, help);
    Ok(())
}

/// Switches the context off, or on again. Scopes that are open still close, without an event.
#[pyfunction]
#[pyo3(signature = (this, is_enabled), text_signature = "(self, is_enabled)")]
pub(crate) fn set_enabled(this: &Bound<'_, PyAny>, is_enabled: bool) -> PyResult<()> {
    telemetry(this)?.set_enabled(is_enabled);
    Ok(())
}

/// Switches scopes off or on by a pattern over their names (`*`, `?`). One that is off is in no path, depth or parent.
#[pyfunction]
#[pyo3(signature = (this, pattern, is_on), text_signature = "(self, pattern, is_on)")]
pub(crate) fn switch_scopes(this: &Bound<'_, PyAny>, pattern: &str, is_on: bool) -> PyResult<()> {
    if let Some(context) = enabled(this)? {
        context.telemetry.switch_scopes(pattern, is_on);
        context.has_name_rules.store(true, Relaxed);
    }
    Ok(())
}

/// Chooses by a pattern over paths what reporters get; the rest is aggregated alone.
#[pyfunction]
#[pyo3(signature = (this, pattern, is_recorded), text_signature = "(self, pattern, is_recorded)")]
pub(crate) fn record_paths(this: &Bound<'_, PyAny>, pattern: &str, is_recorded: bool) -> PyResult<()> {
    if let Some(context) = enabled(this)? {
        context.telemetry.record_paths(pattern, is_recorded);
        context.has_path_rules.store(true, Relaxed);
    }
    Ok(())
}

/// The reporters that the context was made with: native ones first.
#[pyfunction]
#[pyo3(name = "reporters", text_signature = "(self)")]
pub(crate) fn all_reporters<'py>(this: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let Some(context) = enabled(this)? else { return Ok(Vec::new()) };
    let native = context.native.iter().map(|reporter| reporter.as_ptr());
    let all = native.chain(context.reporters.iter().map(|reporter| reporter.as_ptr()));
    // SAFETY: the context keeps its reporters.
    Ok(all.map(|reporter| unsafe { Bound::from_borrowed_ptr(this.py(), reporter) }).collect())
}

/// Sets attributes of the current scope of this context; the last value of a key counts.
#[pyfunction]
#[pyo3(signature = (this, /, **attributes), text_signature = "(self, /, **attributes)")]
pub(crate) fn set(this: &Bound<'_, PyAny>, attributes: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    match current(this)? {
        Some(scope) => scopes::set(&scope, attributes),
        None => Ok(()),
    }
}

/// Adds a point event to the current scope of this context.
#[pyfunction]
#[pyo3(signature = (this, name, /, **attributes), text_signature = "(self, name, /, **attributes)")]
pub(crate) fn event(
    this: &Bound<'_, PyAny>,
    name: &Bound<'_, PyAny>,
    attributes: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    match current(this)? {
        Some(scope) => scopes::event(&scope, name, attributes),
        None => Ok(()),
    }
}

/// Adds a link to another scope, by its traceparent, to the current scope of this context.
#[pyfunction]
#[pyo3(signature = (this, traceparent), text_signature = "(self, traceparent)")]
pub(crate) fn link(this: &Bound<'_, PyAny>, traceparent: &Bound<'_, PyAny>) -> PyResult<()> {
    match current(this)? {
        Some(scope) => scopes::link(&scope, traceparent),
        None => Ok(()),
    }
}

/// Marks the current scope of this context as failed: by an exception, its class, or a text.
#[pyfunction]
#[pyo3(signature = (this, error), text_signature = "(self, error)")]
pub(crate) fn fail(this: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>) -> PyResult<()> {
    match current(this)? {
        Some(scope) => scopes::fail(&scope, error),
        None => Ok(()),
    }
}

/// Lets the current scope of this context close without an event.
#[pyfunction]
#[pyo3(text_signature = "(self)")]
pub(crate) fn discard(this: &Bound<'_, PyAny>) -> PyResult<()> {
    match current(this)? {
        Some(scope) => scopes::discard(&scope),
        None => Ok(()),
    }
}

/// Makes a remote scope the parent of what is opened inside a `with` block.
#[pyfunction]
#[pyo3(name = "attach", text_signature = "(self, traceparent)")]
pub(crate) fn attach_remote<'py>(
    this: &Bound<'py, PyAny>,
    traceparent: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let owner = if enabled(this)?.is_some() { this.as_ptr().cast() } else { std::ptr::null_mut() };
    attach::anchor(this.py(), owner, traceparent)
}

/// Wraps a function so that it runs under the scope that is current now, on whatever thread.
#[pyfunction]
#[pyo3(name = "carry", text_signature = "(self, function)")]
pub(crate) fn carry_function<'py>(
    this: &Bound<'py, PyAny>,
    function: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    enabled(this)?;
    attach::carry(function)
}

/// The innermost open scope of this flow that belongs to the context.
fn current<'py>(this: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(context) = enabled(this)? else { return Ok(None) };
    // SAFETY: the thread is attached; `value` keeps the cells below it until it is dropped at the end.
    unsafe {
        let value = stack::value();
        let kept = Bound::from_owned_ptr_or_opt(this.py(), value.cast());
        let mut cell: *mut Cell = stack::top_of(value);
        while !cell.is_null() {
            let origin = origin_of(cell);
            let is_own = (*origin).owner == context.number && !(*origin).has(flag::ANCHOR);
            if is_own && (*origin).state() == flag::OPEN {
                return Ok(Some(Bound::from_borrowed_ptr(this.py(), origin.cast())));
            }
            cell = stack::counting((*cell).below);
        }
        drop(kept);
        Ok(None)
    }
}

/// Puts the methods into both types.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let python = module.py();
    let on_both = [
        wrap_pyfunction!(flush, module)?,
        wrap_pyfunction!(persist, module)?,
        wrap_pyfunction!(shutdown, module)?,
        wrap_pyfunction!(accounts, module)?,
        wrap_pyfunction!(report, module)?,
        wrap_pyfunction!(all_open_scopes, module)?,
        wrap_pyfunction!(set_enabled, module)?,
        wrap_pyfunction!(switch_scopes, module)?,
        wrap_pyfunction!(record_paths, module)?,
        wrap_pyfunction!(all_reporters, module)?,
        wrap_pyfunction!(copied, module)?,
        wrap_pyfunction!(deeply_copied, module)?,
    ];
    let on_enabled = [
        wrap_pyfunction!(describe, module)?,
        wrap_pyfunction!(set, module)?,
        wrap_pyfunction!(event, module)?,
        wrap_pyfunction!(link, module)?,
        wrap_pyfunction!(fail, module)?,
        wrap_pyfunction!(discard, module)?,
        wrap_pyfunction!(attach_remote, module)?,
        wrap_pyfunction!(carry_function, module)?,
    ];
    let (enabled, disabled) = (module.getattr("Context")?, module.getattr("DisabledContext")?);
    for function in on_both {
        add_method(python, &enabled, &function)?;
        add_method(python, &disabled, &function)?;
    }
    for function in on_enabled {
        add_method(python, &enabled, &function)?;
    }
    disabled.setattr("is_enabled", false)
}

/// A copy of a context is the context: configurations that hold one are copied.
#[pyfunction]
#[pyo3(name = "__copy__", text_signature = "(self)")]
fn copied<'py>(this: Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    this
}

/// A copy of a context is the context.
#[pyfunction]
#[pyo3(name = "__deepcopy__", signature = (this, _memo, /), text_signature = "(self, memo, /)")]
fn deeply_copied<'py>(this: Bound<'py, PyAny>, _memo: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    this
}

/// Adds a built-in function to a type so that it binds like a method.
pub(crate) fn add_method(python: Python<'_>, class: &Bound<'_, PyAny>, function: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: a new reference or null.
    let method = unsafe { Bound::from_owned_ptr_or_err(python, PyInstanceMethod_New(function.as_ptr()))? };
    let name: String = function.getattr("__name__")?.extract()?;
    class.setattr(name, method)
}

unsafe extern "C" {
    fn PyInstanceMethod_New(function: *mut ffi::PyObject) -> *mut ffi::PyObject;
}
