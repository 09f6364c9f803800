//! The command `kastor`, as the wheel brings it: the same program as the one of the crate.

use std::{ffi::OsString, process::ExitCode};

use pyo3::prelude::*;

/// Runs the command `kastor` with `sys.argv`; gives its exit code.
#[pyfunction]
fn cli(python: Python<'_>) -> PyResult<u8> {
    let given: Vec<OsString> = python.import("sys")?.getattr("argv")?.extract()?;
    // The program's own name may be `python -m kastor` or a script's path: it is called `kastor` either way.
    let arguments = std::iter::once(OsString::from("kastor")).chain(given.into_iter().skip(1));
    let code = python.detach(|| kastor_cli::run(arguments));
    Ok((0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(2))
}

/// Adds the function to the module.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cli, module)?)
}
