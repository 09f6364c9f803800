//! The Python face of kastor.
//!
//! Translation only: what is measured, added up, encoded or delivered is the core's business. `hot` has the raw types
//! that every scope and metric passes through, `cold` the rest of the interface, `reporters` the native reporters as
//! Python classes.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cold;
mod hot;
mod reporters;

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use pyo3::{exceptions::PyImportError, ffi, prelude::*};

/// The native part of the package `kastor`.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    refuse_other_interpreters()?;
    module.add("_FREE_THREADED", cfg!(free_threaded))?;
    hot::types::set_up(module)?;
    cold::set_up(module)?;
    reporters::set_up(module)
}

/// The types and the stack's variable exist once in a process, so a second interpreter in it would take them from the first.
fn refuse_other_interpreters() -> PyResult<()> {
    static FIRST: AtomicI64 = AtomicI64::new(-1);
    // SAFETY: the thread is attached to the interpreter that imports the module.
    let this = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    match FIRST.compare_exchange(-1, this, Relaxed, Relaxed) {
        Err(first) if first != this => Err(PyImportError::new_err(
            "kastor is in use by another interpreter of this process and does not support subinterpreters",
        )),
        _ => Ok(()),
    }
}
