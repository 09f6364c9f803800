//! What is said to the program: through Python's `logging`, under the name `kastor`.
//!
//! The core logs through the `log` crate, on whatever thread. A thread that is attached to the interpreter logs at once;
//! what others say waits, bounded, until a Python thread comes by: our own threads never call the interpreter.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use log::{Level, Log, Metadata, Record};
use pyo3::{
    PyErr, Python,
    exceptions::{PyException, PyKeyboardInterrupt},
    ffi,
    prelude::*,
    types::PyDict,
};

use crate::hot::calls;

/// Lines that wait; later ones are counted.
const MAX_WAITING: usize = 100;

struct Waiting {
    lines: VecDeque<(Level, String, String)>,
    left_out: u64,
}

static WAITING: Mutex<Waiting> = Mutex::new(Waiting { lines: VecDeque::new(), left_out: 0 });

struct Bridge;

/// Lets the core log through Python.
pub(crate) fn set_up() {
    if log::set_logger(&Bridge).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match attached() {
            Some(python) => {
                let ask = |python: Python<'_>| -> PyResult<bool> {
                    let logger = logger(python, metadata.target())?;
                    calls::object(&logger.getattr("isEnabledFor")?, (level_number(metadata.level()),), None)?.extract()
                };
                contained(python, ask).unwrap_or(false)
            }
            None => metadata.level() <= Level::Warn,
        }
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.target().to_owned(), record.args().to_string());
        match attached() {
            Some(python) => {
                contained(python, |python| emit(python, &line));
            }
            None if record.level() <= Level::Warn => {
                let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.lines.len() < MAX_WAITING {
                    waiting.lines.push_back(line);
                } else {
                    waiting.left_out += 1;
                }
            }
            None => {}
        }
    }

    fn flush(&self) {}
}

/// The interpreter, if this thread is attached to it already: nothing here attaches one. `PyGILState_Check` is no help: it
/// says yes to everybody once the process has had a second interpreter.
fn attached<'py>() -> Option<Python<'py>> {
    // SAFETY: these may be asked at any time; only an attached thread goes on.
    unsafe {
        if ffi::Py_IsInitialized() == 0 {
            return None;
        }
        let current = ffi::compat::PyThreadState_GetUnchecked();
        // On 3.11 that is the state of whichever thread has the lock.
        let is_own = cfg!(Py_3_12) || current == ffi::PyGILState_GetThisThreadState();
        (!current.is_null() && is_own).then(|| Python::assume_attached())
    }
}

/// Calls code of the program; an error that was set before stays set, and one of its own is gone, but for Ctrl-C, which comes
/// again as soon as the interpreter looks.
fn contained<R>(python: Python<'_>, f: impl FnOnce(Python<'_>) -> PyResult<R>) -> Option<R> {
    let before = PyErr::take(python);
    let answer = f(python).inspect_err(|error| {
        if error.is_instance_of::<PyKeyboardInterrupt>(python) {
            // SAFETY: may be called at any time.
            unsafe { ffi::PyErr_SetInterrupt() };
        }
    });
    let answer = answer.ok();
    if let Some(before) = before {
        before.restore(python);
    }
    answer
}

/// A logger; those of the parts are below `kastor`, so that a program sets one level for all.
fn logger<'py>(python: Python<'py>, target: &str) -> PyResult<Bound<'py, PyAny>> {
    let name = target.replace("::", ".").replacen("kastor_", "kastor.", 1);
    calls::object(&calls::module(python, "logging")?.getattr("getLogger")?, (name,), None)
}

fn level_number(level: Level) -> u8 {
    match level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug | Level::Trace => 10,
    }
}

fn emit(python: Python<'_>, (level, target, text): &(Level, String, String)) -> PyResult<()> {
    calls::object(&logger(python, target)?.getattr("log")?, (level_number(*level), "%s", text), None)?;
    Ok(())
}

/// Says what waits. Called where a program asks for something that takes a while anyway.
pub(crate) fn drain(python: Python<'_>) {
    let (lines, left_out) = {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.left_out))
    };
    for line in &lines {
        contained(python, |python| emit(python, line));
    }
    if left_out > 0 {
        let line = (Level::Warn, "kastor".to_owned(), format!("{left_out} further messages were left out"));
        contained(python, |python| emit(python, &line));
    }
}

/// Forgets what waits, in a forked child: it is the parent's.
pub(crate) fn forget() {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.lines.clear();
    waiting.left_out = 0;
}

/// Logs a warning.
pub(crate) fn warn(python: Python<'_>, message: &str) {
    contained(python, |python| {
        calls::object(&logger(python, "kastor")?.getattr("warning")?, ("%s", message), None)?;
        Ok(())
    });
}

/// Logs a failure, with its traceback or without. Returns what the program's logging raised that is no `Exception`.
pub(crate) fn error(python: Python<'_>, message: &str, error: &PyErr, with_traceback: bool) -> Option<PyErr> {
    let log = || -> PyResult<()> {
        let log = logger(python, "kastor")?.getattr("error")?;
        let arguments = PyDict::new(python);
        if with_traceback {
            arguments.set_item("exc_info", error.value(python))?;
            calls::object(&log, ("%s", message), Some(&arguments))?;
        } else {
            calls::object(&log, ("%s: %r", message, error.value(python)), None)?;
        }
        Ok(())
    };
    log().err().filter(|error| !error.is_instance_of::<PyException>(python))
}
