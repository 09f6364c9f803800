//! What a flush left behind.

use pyo3::prelude::*;

/// The outcome of `flush` and `shutdown`: true if nothing is pending.
#[pyclass(module = "kastor._native", frozen)]
pub(crate) struct Flushed {
    /// Background reporters as (name, events that are pending, events that it did not get so far).
    #[pyo3(get)]
    pub(crate) reporters: Vec<(String, u64, u64)>,
}

impl Flushed {
    pub(crate) fn of(flush: &kastor::Flush) -> Self {
        let reporters = flush.reporters().iter().map(|it| (it.name.to_owned(), it.pending, it.dropped));
        Self { reporters: reporters.collect() }
    }
}

#[pymethods]
impl Flushed {
    /// Whether nothing is pending.
    #[getter]
    fn is_complete(&self) -> bool {
        self.reporters.iter().all(|(_, pending, _)| *pending == 0)
    }

    /// Events that are pending, of all reporters.
    #[getter]
    pub(crate) fn pending(&self) -> u64 {
        self.reporters.iter().map(|(_, pending, _)| pending).sum()
    }

    fn __bool__(&self) -> bool {
        self.is_complete()
    }

    pub(crate) fn __str__(&self) -> String {
        if self.is_complete() {
            return "everything delivered".to_owned();
        }
        let pending = self.reporters.iter().filter(|(_, pending, _)| *pending > 0);
        pending.map(|(name, pending, _)| format!("{name}: {pending} events pending")).collect::<Vec<_>>().join(", ")
    }

    fn __repr__(&self) -> String {
        format!("<Flushed: {}>", self.__str__())
    }
}
