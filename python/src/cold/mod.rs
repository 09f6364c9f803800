//! What runs rarely: by PyO3.

pub(crate) mod attach;
mod cli;
pub(crate) mod clock;
pub(crate) mod contexts;
pub(crate) mod factory;
pub(crate) mod flow;
pub(crate) mod flushed;
pub(crate) mod lifecycle;
pub(crate) mod logging;
pub(crate) mod open_scopes;
pub(crate) mod probe;
pub(crate) mod report;
pub(crate) mod scopes;
pub(crate) mod stats;

use pyo3::prelude::*;

/// Adds everything to the module.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    logging::set_up();
    probe::set_up(module)?;
    attach::set_up(module)?;
    cli::set_up(module)?;
    contexts::set_up(module)?;
    factory::set_up(module)?;
    lifecycle::set_up(module)?;
    scopes::set_up(module)?;
    module.add_class::<attach::Carried>()?;
    module.add_class::<clock::MockClock>()?;
    module.add_class::<flow::Flow>()?;
    module.add_class::<flushed::Flushed>()?;
    module.add_class::<open_scopes::OpenScope>()?;
    module.add_class::<report::Report>()
}
