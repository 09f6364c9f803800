//! The Python face of kastor.
//!
//! Translation only: what is measured, added up, encoded or delivered is the core's business. `hot` has the raw types
//! that every scope and metric passes through, `cold` the rest of the interface, `reporters` the native reporters as
//! Python classes.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cold;
mod hot;
mod reporters;

use pyo3::prelude::*;

/// The native part of the package `kastor`.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    hot::types::set_up(module)?;
    cold::set_up(module)?;
    reporters::set_up(module)
}
