//! `Folded`: folded stacks, for flame graphs.

use std::{path::PathBuf, sync::Arc};

use kastor_export::folded::{self, Config, Unit};
use pyo3::prelude::*;

use super::settings::{raised, unknown};

/// Keeps a file of folded stacks up to date, for flame graphs: it is replaced at every interval and flush. It takes sums, and
/// no single events.
#[pyclass(module = "kastor._native", frozen, weakref)]
pub(crate) struct Folded {
    pub(crate) reporter: Arc<folded::Folded>,
    path: PathBuf,
}

#[pymethods]
impl Folded {
    #[new]
    #[pyo3(signature = (path, *, unit="ns"))]
    fn new(path: PathBuf, unit: &str) -> PyResult<Self> {
        let unit = match unit {
            "ns" => Unit::Nanoseconds,
            "us" => Unit::Microseconds,
            _ => return Err(unknown("unit", unit, "'ns' and 'us'")),
        };
        let reporter = folded::Folded::create(path.clone(), Config::default().unit(unit)).map_err(raised)?;
        Ok(Self { reporter: Arc::new(reporter), path })
    }

    fn __repr__(&self) -> String {
        format!("Folded({:?})", self.path)
    }
}
