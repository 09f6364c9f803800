//! The accounts as a dict.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use kastor::{Degradation, Degraded, Drops, Telemetry};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};

use crate::{
    hot::{context::Context, value::class_name},
    reporters::background,
};

/// `{"emitted", "timings", "metrics", "dropped", "cut_values", "overflowed_names", "overflowed_series", "clock_gaps",
/// "degraded", "reporters"}`; one dict per path beyond the overhead budget, as in the report, and per reporter, the native
/// ones first.
pub(crate) fn stats<'py>(python: Python<'py>, context: Option<&Context>) -> PyResult<Bound<'py, PyDict>> {
    let telemetry = context.map_or(Telemetry::DISABLED, |context| Telemetry::clone(&context.telemetry));
    let stats = python.detach(|| telemetry.stats());
    let all = PyDict::new(python);
    all.set_item("emitted", stats.emitted())?;
    all.set_item("timings", stats.timings())?;
    all.set_item("metrics", stats.metrics())?;
    all.set_item("dropped", drops(python, stats.dropped())?)?;
    all.set_item("cut_values", stats.cut_values())?;
    all.set_item("overflowed_names", stats.overflowed_names())?;
    all.set_item("overflowed_series", stats.overflowed_series())?;
    all.set_item("clock_gaps", stats.clock_gaps())?;
    let degraded = stats.degraded().iter().map(|degraded| shown(python, degraded)).collect::<PyResult<Vec<_>>>()?;
    all.set_item("degraded", degraded)?;
    let reporters = PyList::empty(python);
    for reporter in stats.reporters() {
        let (queued, spooled) = (reporter.queued(), reporter.spooled());
        reporters.append(entry(
            python,
            reporter.name().rsplit("::").next().unwrap_or_default(),
            (reporter.delivered(), reporter.dropped()),
            (queued, spooled),
            (reporter.failures(), reporter.is_suspended()),
        )?)?;
    }
    for reporter in context.iter().flat_map(|context| context.reporters.iter()) {
        // SAFETY: the context keeps its reporters.
        let object = unsafe { Bound::from_borrowed_ptr(python, reporter.as_ptr()) };
        // SAFETY: an object that is alive.
        let name = unsafe { class_name(pyo3::ffi::Py_TYPE(reporter.as_ptr()).cast()) };
        let mut delivered = reporter.delivered.load(Relaxed);
        let mut failures = (reporter.failures.load(Relaxed), reporter.is_suspended());
        let (mut queued, mut later) = (0, BTreeMap::new());
        if let Some(accounts) = background::accounts(&object)? {
            // What the queue took is not delivered yet, and may be dropped there.
            (delivered, queued, later) = (accounts.delivered, accounts.queued, accounts.dropped);
            failures = (failures.0 + accounts.failures, failures.1 || accounts.is_suspended);
        }
        let entry = entry(python, &name, (delivered, reporter.drops()), (queued, 0), failures)?;
        let dropped = entry.get_item("dropped")?.unwrap_or_else(|| PyDict::new(python).into_any());
        for (reason, count) in later.into_iter().filter(|(_, count)| *count > 0) {
            let known = dropped.cast::<PyDict>()?.get_item(&reason)?.map_or(Ok(0), |known| known.extract::<u64>())?;
            dropped.set_item(reason, known + count)?;
        }
        reporters.append(entry)?;
    }
    all.set_item("reporters", reporters)?;
    Ok(all)
}

fn shown<'py>(python: Python<'py>, degraded: &Degraded) -> PyResult<Bound<'py, PyDict>> {
    let shown = PyDict::new(python);
    shown.set_item("path", degraded.path())?;
    shown.set_item("is_off", degraded.level() == Degradation::Off)?;
    shown.set_item("calls_per_second", degraded.calls_per_second())?;
    shown.set_item("share", degraded.share())?;
    Ok(shown)
}

fn entry<'py>(
    python: Python<'py>,
    name: &str,
    (delivered, dropped): (u64, Drops),
    (queued, spooled): (u64, u64),
    (failures, is_suspended): (u64, bool),
) -> PyResult<Bound<'py, PyDict>> {
    let entry = PyDict::new(python);
    entry.set_item("name", name)?;
    entry.set_item("delivered", delivered)?;
    entry.set_item("dropped", drops(python, dropped)?)?;
    entry.set_item("queued", queued)?;
    entry.set_item("spooled", spooled)?;
    entry.set_item("failures", failures)?;
    entry.set_item("is_suspended", is_suspended)?;
    Ok(entry)
}

/// By reason, as the reasons are called in metrics.
fn drops(python: Python<'_>, drops: Drops) -> PyResult<Bound<'_, PyDict>> {
    let all = PyDict::new(python);
    for (reason, count) in drops.iter() {
        all.set_item(reason.as_str(), count)?;
    }
    Ok(all)
}
