//! The ends: of the interpreter, of a forked child's past, of a worker process.
//!
//! - At exit every context is flushed, all together within one second or the longest that any of them asked for; what was not delivered is said in one line, and
//!   given up, so that nothing waits a second time.
//! - A forked child forgets the accounts of Python reporters, as the core forgets its own.
//! - Children that `multiprocessing` forks skip the interpreter's exit hooks: they flush by a finalizer.

use std::{
    ffi::{c_int, c_void},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use kastor::{Deadline, Telemetry, raw};
use pyo3::{
    ffi, intern,
    prelude::*,
    types::{PyDict, PyTuple},
};

use super::{contexts::enabled, flushed::Flushed, logging};
use crate::{
    hot::{calls, context},
    reporters,
};

/// What idle threads may take to end before a fork.
const FORK_BUDGET: Duration = Duration::from_millis(50);
/// What all contexts together may take at the end, if none of them says otherwise.
const EXIT_BUDGET: Duration = Duration::from_secs(1);
/// The longest that any of them asked for.
static EXIT_BUDGET_MS: AtomicU64 = AtomicU64::new(0);

/// Asks to be told of the ends; with the first context, so that importing costs nothing. `exit_flush` is what the context
/// asks for.
pub(crate) fn register(python: Python<'_>, exit_flush: Option<Duration>) -> PyResult<()> {
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
    let milliseconds = exit_flush.unwrap_or(EXIT_BUDGET).as_millis();
    EXIT_BUDGET_MS.fetch_max(u64::try_from(milliseconds).unwrap_or(u64::MAX), Relaxed);
    if IS_REGISTERED.swap(true, Relaxed) {
        return Ok(());
    }
    let module = calls::module(python, "kastor._native")?;
    calls::module(python, "atexit")?.call_method1("register", (module.getattr("_at_exit")?,))?;
    let os = calls::module(python, "os")?;
    if os.hasattr("register_at_fork")? {
        let hooks = PyDict::new(python);
        hooks.set_item("before", module.getattr("_before_fork")?)?;
        hooks.set_item("after_in_parent", module.getattr("_after_fork_in_parent")?)?;
        hooks.set_item("after_in_child", module.getattr("_after_fork_in_child")?)?;
        os.call_method("register_at_fork", (), Some(&hooks))?;
    }
    finalize_worker(python)
}

/// Flushes everything within the budget; says what was not delivered, and gives that up.
#[pyfunction]
pub(crate) fn _at_exit(python: Python<'_>) -> PyResult<()> {
    let deadline = Deadline::after(Duration::from_millis(EXIT_BUDGET_MS.load(Relaxed)));
    for owned in context::all() {
        // SAFETY: an owned reference to a context.
        let object = unsafe { Bound::from_owned_ptr(python, owned.into_ptr()) };
        // Another copy of this module has contexts of its own kind.
        let Ok(Some(context)) = enabled(&object) else { continue };
        let telemetry = Telemetry::clone(&context.telemetry);
        if raw::is_shut_down(&telemetry) {
            continue;
        }
        let flush = python.detach(|| telemetry.flush(deadline.remaining()));
        let mut flushed = Flushed::of(&flush);
        reporters::background::flush(python, context, deadline, &mut flushed)?;
        if !flush.is_complete() {
            // Otherwise the end of the process would wait for it again.
            python.detach(|| telemetry.shutdown(Duration::ZERO));
        }
        if flushed.pending() > 0 {
            logging::warn(python, &format!("not delivered at exit: {}", flushed.__str__()));
        }
    }
    logging::drain(python);
    Ok(())
}

/// Idle threads of ours end: the interpreter warns of forks where there are others than the forking one. The attached
/// thread keeps the others from emitting meanwhile.
#[pyfunction]
pub(crate) fn _before_fork() {
    raw::rest(FORK_BUDGET);
}

/// Threads start again. CPython 3.13.0 warns of those that start before the fork has returned.
#[pyfunction]
pub(crate) fn _after_fork_in_parent(python: Python<'_>) -> PyResult<()> {
    if cfg!(all(Py_3_13, not(Py_3_14))) && is_main_thread(python)? {
        // SAFETY: a function that may be called at any time; the main thread calls it as soon as it runs Python code again.
        if unsafe { ffi::Py_AddPendingCall(Some(wake), std::ptr::null_mut()) } == 0 {
            return Ok(());
        }
    }
    raw::wake();
    Ok(())
}

extern "C" fn wake(_: *mut c_void) -> c_int {
    raw::wake();
    0
}

fn is_main_thread(python: Python<'_>) -> PyResult<bool> {
    let threading = calls::module(python, "threading")?;
    let nothing = || PyTuple::empty(python);
    let main = calls::object(&threading.getattr("main_thread")?, nothing(), None)?;
    calls::get(&main, intern!(python, "ident"))?.eq(threading.getattr("get_ident")?.call0()?)
}

/// Nothing is logged here and nobody waited for: other threads' locks may be held for ever.
#[pyfunction]
pub(crate) fn _after_fork_in_child(python: Python<'_>) -> PyResult<()> {
    logging::forget();
    for owned in context::all() {
        // SAFETY: an owned reference to a context.
        let object = unsafe { Bound::from_owned_ptr(python, owned.into_ptr()) };
        if let Ok(Some(context)) = enabled(&object) {
            context.reporters.iter().for_each(|reporter| reporter.reset());
        }
    }
    // A process of `multiprocessing` clears its finalizers first, and then asks who wants to be told.
    let Some(util) = loaded(python, "multiprocessing.util")? else { return Ok(()) };
    let module = calls::module(python, "kastor._native")?;
    util.call_method1("register_after_fork", (&module, module.getattr("_finalize_worker")?))?;
    Ok(())
}

/// In a worker of `multiprocessing`: flushes when it ends.
#[pyfunction]
#[pyo3(signature = (_module=None))]
pub(crate) fn _finalize_worker(python: Python<'_>, _module: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    finalize_worker(python)
}

fn finalize_worker(python: Python<'_>) -> PyResult<()> {
    let Some(process) = loaded(python, "multiprocessing.process")? else { return Ok(()) };
    if process.call_method0("parent_process")?.is_none() {
        return Ok(());
    }
    let util = calls::module(python, "multiprocessing.util")?;
    let arguments = PyDict::new(python);
    arguments.set_item("exitpriority", 0)?;
    let at_exit = calls::module(python, "kastor._native")?.getattr("_at_exit")?;
    let nothing: Bound<'_, PyAny> = python.None().into_bound(python);
    util.call_method("Finalize", PyTuple::new(python, [nothing, at_exit])?, Some(&arguments))?;
    Ok(())
}

/// A module that the program has imported.
fn loaded<'py>(python: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    // SAFETY: borrowed from the interpreter, which keeps it.
    let modules = unsafe { Bound::from_borrowed_ptr(python, ffi::PyImport_GetModuleDict()) };
    Ok(modules.cast_into::<PyDict>()?.get_item(name)?.filter(|module| !module.is_none()))
}

/// Adds the functions to the module.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_at_exit, module)?)?;
    module.add_function(wrap_pyfunction!(_before_fork, module)?)?;
    module.add_function(wrap_pyfunction!(_after_fork_in_parent, module)?)?;
    module.add_function(wrap_pyfunction!(_after_fork_in_child, module)?)?;
    module.add_function(wrap_pyfunction!(_finalize_worker, module)?)
}
