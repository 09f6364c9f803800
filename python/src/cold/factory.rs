//! How a context comes to be.

use std::{ffi::OsString, sync::atomic::Ordering::Relaxed, time::Duration};

use kastor::{Builder, Sampler, Telemetry, raw};
use kastor_export::capture::Capture;
use pyo3::{
    exceptions::PyValueError,
    ffi,
    prelude::*,
    types::{PyString, PyTuple},
};

use super::{
    clock::MockClock,
    contexts::{duration, enabled},
    lifecycle, logging,
};
use crate::{
    hot::{
        calls,
        context::{self, Settings},
        disabled,
        object::Owned,
        reporter::PythonReporter,
        value::class_name,
    },
    reporters,
};

/// What a scope costs where it runs, in pairs of clock reads, by the benchmark: for the overhead budget.
const READ_PAIRS: f64 = 8.0;

/// What may be chosen besides the reporters.
struct Options<'a, 'py> {
    is_strict: bool,
    captures_repr: bool,
    interval: Duration,
    queue_bytes: Option<usize>,
    exit_flush: Option<Duration>,
    clock: Option<&'a Bound<'py, MockClock>>,
    sampler: Sampler,
    overhead_budget: Option<f64>,
    /// A folder for a capture that is added to the reporters.
    capture: Option<OsString>,
}

impl Default for Options<'_, '_> {
    fn default() -> Self {
        Self {
            is_strict: false,
            captures_repr: false,
            interval: Duration::from_secs(10),
            queue_bytes: None,
            exit_flush: None,
            clock: None,
            sampler: Sampler::ALWAYS,
            overhead_budget: None,
            capture: None,
        }
    }
}

/// Makes an enabled context, whatever the environment says. Without a reporter it still adds up.
///
/// `strict`: whether names must have the recommended form; by default the environment decides
/// (`KASTOR_TELEMETRY_STRICT_SCOPES=1`). `interval`: seconds between the aggregates that background reporters get.
/// `queue_bytes`: bound on what waits for them. `exit_flush`: seconds that the end of the process may wait for them.
/// `capture_repr`: whether values that are not copied are kept as their `repr`. `clock`: a `MockClock`, for tests.
/// `sample`: the share of all traces that `Otlp` and `JsonLines` export. `sample_parent`: whether under a parent from elsewhere
/// its decision holds instead. `overhead_budget`: the share of one processor that the scopes of one path may cost.
#[pyfunction]
#[pyo3(signature = (*reporters, strict=None, interval=10.0, queue_bytes=None, exit_flush=None, capture_repr=false, clock=None,
    sample=1.0, sample_parent=true, overhead_budget=None))]
#[allow(clippy::too_many_arguments, reason = "keyword arguments")]
pub(crate) fn enable<'py>(
    reporters: &Bound<'py, PyTuple>,
    strict: Option<bool>,
    interval: f64,
    queue_bytes: Option<usize>,
    exit_flush: Option<f64>,
    capture_repr: bool,
    clock: Option<&Bound<'py, MockClock>>,
    sample: f64,
    sample_parent: bool,
    overhead_budget: Option<f64>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = Options {
        is_strict: strict.unwrap_or_else(|| raw::read(&["KASTOR"]).is_strict),
        captures_repr: capture_repr,
        interval: duration(interval),
        queue_bytes,
        exit_flush: exit_flush.map(duration),
        clock,
        sampler: sampler(sample, sample_parent)?,
        overhead_budget: overhead_budget.map(budget).transpose()?,
        capture: None,
    };
    build(reporters, &options)
}

fn sampler(share: f64, follows_parents: bool) -> PyResult<Sampler> {
    if !(0.0..=1.0).contains(&share) {
        let message = format!("sample is {share}: it is a share of all traces, from 0 to 1; 0.1 keeps one in ten");
        return Err(PyValueError::new_err(message));
    }
    let sampler = Sampler::ratio(share);
    Ok(if follows_parents { sampler } else { sampler.ignoring_parents() })
}

fn budget(share: f64) -> PyResult<f64> {
    if share > 0.0 && share <= 1.0 {
        return Ok(share);
    }
    Err(PyValueError::new_err(format!(
        "overhead_budget is {share}: it is a share of one processor, above 0 and up to 1; 0.01 is one per cent, and None no \
         budget"
    )))
}

/// Makes an enabled context if the environment says so (`KASTOR_TELEMETRY=1` or `DEBUG=1`, and not `KASTOR_TELEMETRY=0`) and
/// there is a reporter; otherwise the disabled one. The environment is read now. `KASTOR_CAPTURE` names a folder for a
/// capture that an enabled one gets besides.
#[pyfunction]
#[pyo3(name = "TelemetryContext", signature = (*reporters))]
pub(crate) fn telemetry_context<'py>(reporters: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    from_environment(&["KASTOR"], reporters)
}

/// The same, with the variables that begin with any of the prefixes.
#[pyfunction]
pub(crate) fn context_from_environment<'py>(
    prefixes: Vec<String>,
    reporters: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    from_environment(&prefixes, &PyTuple::new(reporters.py(), reporters.try_iter()?.collect::<PyResult<Vec<_>>>()?)?)
}

fn from_environment<'py>(prefixes: &[&str], reporters: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let config = raw::read(prefixes);
    if config.is_enabled && !reporters.is_empty() {
        let capture = std::env::var_os("KASTOR_CAPTURE").filter(|folder| !folder.is_empty());
        return build(reporters, &Options { is_strict: config.is_strict, capture, ..Options::default() });
    }
    // SAFETY: the one object, which lives for ever.
    Ok(unsafe { Bound::from_borrowed_ptr(reporters.py(), disabled::SINGLETON.load(Relaxed)) })
}

fn build<'py>(given: &Bound<'py, PyTuple>, options: &Options<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let python = given.py();
    let mut builder = Telemetry::builder().strict_names(options.is_strict).interval(options.interval);
    builder = options.queue_bytes.into_iter().fold(builder, Builder::queue_bytes);
    builder = options.exit_flush.into_iter().fold(builder, Builder::exit_flush);
    builder = options.clock.into_iter().fold(builder, |builder, clock| builder.clock(clock.get().clock.clone()));
    builder = builder.sampler(options.sampler);
    builder = options
        .overhead_budget
        .into_iter()
        .fold(builder, |builder, share| raw::scope_cost(builder, READ_PAIRS).overhead_budget(share));
    builder = options.capture.iter().fold(builder, |builder, folder| builder.reporter(Capture::new(folder)));
    let (mut of_python, mut native) = (Vec::new(), Vec::new());
    for reporter in given.iter() {
        // SAFETY: the tuple holds it.
        let Some(owned) = (unsafe { Owned::share(reporter.as_ptr()) }) else { continue };
        builder = match reporters::add(builder, &reporter)? {
            (builder, true) => {
                native.push(owned);
                builder
            }
            (builder, false) => {
                let (timings, metrics) = (has(&reporter, "record_timing")?, has(&reporter, "record_metric")?);
                if !timings && !metrics {
                    // SAFETY: an object that is alive.
                    let name = unsafe { class_name(ffi::Py_TYPE(reporter.as_ptr()).cast()) };
                    let message = format!(
                        "reporter {name} gets nothing: it has neither record_timing(scope, duration, **metadata) nor \
                         record_metric(scope, value, **metadata)"
                    );
                    logging::warn(python, &message);
                }
                of_python.push(PythonReporter::new(owned, timings, metrics));
                builder
            }
        };
    }
    let telemetry = builder.build();
    given.iter().for_each(|reporter| reporters::start(&telemetry, &reporter));
    let settings = Settings {
        keeps_attributes: !native.is_empty() || options.capture.is_some(),
        telemetry,
        reporters: of_python,
        native,
        is_strict: options.is_strict,
        captures_repr: options.captures_repr,
    };
    lifecycle::register(python, options.exit_flush)?;
    // SAFETY: the thread is attached, and the module is made; the answer is a new reference or null with an error.
    let context = unsafe { Bound::from_owned_ptr_or_err(python, context::new(settings))? };
    if let Some(context) = enabled(&context)?.filter(|_| options.overhead_budget.is_some()) {
        // The budget sets and lifts rules when it likes.
        context.has_name_rules.store(true, Relaxed);
        context.has_path_rules.store(true, Relaxed);
    }
    Ok(context)
}

/// Whether a reporter has a method. What its attributes raise is no method; what is no `Exception` goes on.
fn has(reporter: &Bound<'_, PyAny>, method: &str) -> PyResult<bool> {
    match calls::get(reporter, &PyString::new(reporter.py(), method)) {
        Ok(method) => Ok(method.is_callable()),
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(reporter.py()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Adds the functions to the module.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(enable, module)?)?;
    module.add_function(wrap_pyfunction!(telemetry_context, module)?)?;
    module.add_function(wrap_pyfunction!(context_from_environment, module)?)
}
