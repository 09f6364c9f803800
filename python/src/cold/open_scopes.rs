//! The dump of open scopes: where does it hang?
//!
//! A scope costs nothing for being found: the cyclic collector knows all of them.

use std::collections::HashMap;

use kastor::raw;
use pyo3::{
    intern,
    prelude::*,
    types::{PyList, PyTuple},
};

use crate::hot::{
    calls,
    cell::{self, Cell, flag},
    context::owner,
    texts,
};

/// A scope that has not closed yet.
#[pyclass(module = "kastor._native", frozen)]
pub(crate) struct OpenScope {
    /// The full path.
    #[pyo3(get)]
    scope: String,
    /// Name of the thread it was opened on; empty if that has ended.
    #[pyo3(get)]
    thread: String,
    /// The operating system's number of that thread.
    #[pyo3(get)]
    thread_id: u64,
    /// How long it has been open, in seconds.
    #[pyo3(get)]
    open_for: f64,
}

#[pymethods]
impl OpenScope {
    fn __repr__(&self) -> String {
        format!("OpenScope(scope={:?}, thread={:?}, open_for={:.6})", self.scope, self.thread, self.open_for)
    }
}

/// All of them, those that have been open longest first.
pub(crate) fn open_scopes(python: Python<'_>) -> PyResult<Vec<OpenScope>> {
    let objects = calls::module(python, "gc")?.call_method0(intern!(python, "get_objects"))?.cast_into::<PyList>()?;
    let threads = thread_names(python).unwrap_or_default();
    let class = cell::TYPE.load(std::sync::atomic::Ordering::Relaxed);
    let mut found = Vec::new();
    for object in objects.iter().filter(|object| object.get_type_ptr() == class) {
        let cell = object.as_ptr().cast::<Cell>();
        // SAFETY: the type says what it is, and `object` holds it. An open scope was opened, and has a context.
        unsafe {
            let this = &*cell;
            if this.state() != flag::OPEN || this.has(flag::ANCHOR) {
                continue;
            }
            let telemetry = &(*owner(this.owner)).telemetry;
            let now = raw::tick(telemetry);
            let open_for =
                raw::timeline(telemetry, now).map_or(0, |line| line.duration_ns(now.saturating_sub(this.start)));
            let thread_id = this.ids().thread_os_id();
            found.push(OpenScope {
                scope: Bound::from_owned_ptr_or_err(python, texts::of_scope(cell))?.extract()?,
                thread: threads.get(&thread_id).cloned().unwrap_or_default(),
                thread_id,
                open_for: open_for as f64 / 1e9,
            });
        }
    }
    found.sort_by(|a, b| b.open_for.total_cmp(&a.open_for));
    Ok(found)
}

fn thread_names(python: Python<'_>) -> PyResult<HashMap<u64, String>> {
    let mut names = HashMap::new();
    let enumerate = calls::module(python, "threading")?.getattr(intern!(python, "enumerate"))?;
    for thread in calls::object(&enumerate, PyTuple::empty(python), None)?.try_iter()? {
        let thread = thread?;
        if let Ok(id) = calls::get(&thread, intern!(python, "native_id"))?.extract() {
            names.insert(id, calls::get(&thread, intern!(python, "name"))?.extract()?);
        }
    }
    Ok(names)
}
