//! Where the interpreter's thread state keeps the current context.
//!
//! The field has no accessor that is cheap enough; its place differs between versions. It is found once, at import: inside
//! `Context.run` exactly one of the first words of the thread state is that context's address. Where that is not so, the
//! stack keeps every token, and resetting one tells which context it belongs to.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::{ffi, prelude::*};

use crate::hot::stack::CONTEXT_OFFSET;

/// Words that are looked at: all versions have it among these, and no thread state is smaller.
const WORDS: usize = 64;

/// Looks for the context inside of which it runs.
#[pyfunction]
fn _probe(context: &Bound<'_, PyAny>) -> usize {
    // SAFETY: the thread state of an attached thread, of which only words that are part of it are read.
    let words = unsafe { std::slice::from_raw_parts(ffi::PyThreadState_Get().cast::<usize>(), WORDS) };
    let mut hits = words.iter().enumerate().filter(|(_, word)| **word == context.as_ptr() as usize);
    match (hits.next(), hits.next()) {
        (Some((at, _)), None) => at * size_of::<usize>(),
        _ => 0,
    }
}

/// Finds the place, twice the same.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let probe = wrap_pyfunction!(_probe, module)?;
    let look = || -> PyResult<usize> {
        // SAFETY: a new reference or null.
        let context = unsafe { Bound::from_owned_ptr_or_err(module.py(), ffi::PyContext_New())? };
        context.call_method1("run", (&probe, &context))?.extract()
    };
    let (first, second) = (look()?, look()?);
    CONTEXT_OFFSET.store(if first == second { first } else { 0 }, Relaxed);
    Ok(())
}
