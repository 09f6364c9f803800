//! The flow of one decorated generator: its scope, and whatever is open inside it between two resumes.
//!
//! Each step is one call, in which no signal handler runs: what an interruption leaves behind is one of these states.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::{PyTraverseError, PyVisit, prelude::*};

use super::attach::swapped;
use crate::hot::scope;

/// The flow of a generator.
#[pyclass(module = "kastor._native", name = "_Flow", frozen)]
pub(crate) struct Flow {
    scope: Py<PyAny>,
    state: Mutex<State>,
}

/// What is kept is the value of the stack's variable: of the flow that is not in place.
enum State {
    /// Not begun, or over.
    None,
    /// In place of the caller's.
    Active(Option<Py<PyAny>>),
    /// Taken away.
    Away(Option<Py<PyAny>>),
}

impl Flow {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> State {
        std::mem::replace(&mut *self.state(), State::None)
    }
}

#[pymethods]
impl Flow {
    #[new]
    fn new(scope: Py<PyAny>) -> Self {
        Self { scope, state: Mutex::new(State::None) }
    }

    /// Enters the scope.
    fn start(&self, python: Python<'_>) -> PyResult<()> {
        let outer = super::attach::innermost(python);
        let scope = self.scope.bind(python);
        // SAFETY: a scope that is held: `_copy` made it. The answer is a new reference, or null with an error.
        unsafe { Bound::from_owned_ptr_or_err(python, scope::enter(scope.as_ptr().cast()))? };
        *self.state() = State::Active(outer.map(Bound::unbind));
        Ok(())
    }

    /// Puts the caller's flow in place.
    fn suspend(&self, python: Python<'_>) {
        match self.take() {
            State::Active(outer) => *self.state() = State::Away(swapped(python, outer)),
            other => *self.state() = other,
        }
    }

    /// Puts this flow in place of the caller's.
    fn resume(&self, python: Python<'_>) {
        match self.take() {
            State::Away(inner) => *self.state() = State::Active(swapped(python, inner)),
            other => *self.state() = other,
        }
    }

    /// Leaves the scope, with what `__exit__` is told, and puts the caller's flow in place; once.
    fn end(&self, class: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>, _traceback: &Bound<'_, PyAny>) -> PyResult<()> {
        let python = class.py();
        let outer = match self.take() {
            State::None => return Ok(()),
            State::Active(outer) => outer,
            State::Away(inner) => swapped(python, inner),
        };
        let scope = self.scope.bind(python);
        // SAFETY: as in `start`.
        let answer = unsafe {
            let answer = scope::exit(scope.as_ptr().cast(), class.as_ptr(), error.as_ptr());
            Bound::from_owned_ptr_or_err(python, answer)
        };
        swapped(python, outer);
        answer.map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scope)?;
        match self.state.try_lock().as_deref() {
            Ok(State::Active(Some(value)) | State::Away(Some(value))) => visit.call(value),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let _kept = self.take();
    }
}
