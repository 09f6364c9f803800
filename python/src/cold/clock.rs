//! A clock that a test moves by hand.

use pyo3::prelude::*;

use super::contexts::duration;

/// Time that stands still until it is moved: `enable(..., clock=clock)`.
#[pyclass(module = "kastor._native", frozen)]
pub(crate) struct MockClock {
    pub(crate) clock: kastor::MockClock,
}

#[pymethods]
impl MockClock {
    #[new]
    fn new() -> Self {
        Self { clock: kastor::MockClock::new() }
    }

    /// Moves monotonic and wall-clock time ahead by so many seconds.
    fn advance(&self, seconds: f64) {
        self.clock.advance(duration(seconds));
    }
}
