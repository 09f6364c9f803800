//! Python reporters: called inline, on the thread that closed the scope, by vectorcall and without a dict.
//!
//! A failing reporter harms nobody: an `Exception` is logged with its traceback the first times, then ever more rarely,
//! and after some failures in a row the reporter is left out for a while. What is no `Exception` (Ctrl-C, `SystemExit`)
//! goes on after the other reporters were served.

use std::{
    cell::Cell as Place,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use kastor::{
    DropReason, Drops, MetricType,
    raw::{self, Name},
};
use pyo3::{
    PyErr, Python,
    ffi::{self, PyObject},
};

use super::{
    arguments::values_of,
    cell::{Cell, Extra},
    context::Context,
    keys::{self, ERROR_TYPE, Keys, Kind},
    object::{Owned, clear, lossy_text, new_ref, new_text},
    texts,
};

/// Failures in a row after which a reporter is left out.
const FAILURES_UNTIL_SUSPENDED: u32 = 5;
const FIRST_SUSPENSION: Duration = Duration::from_secs(1);
const LONGEST_SUSPENSION: Duration = Duration::from_secs(60);

/// A reporter that is a Python object.
pub(crate) struct PythonReporter {
    object: Owned,
    /// Reporters may have one method alone.
    takes_timings: bool,
    takes_metrics: bool,
    pub(crate) delivered: AtomicU64,
    dropped: [AtomicU64; 4],
    pub(crate) failures: AtomicU64,
    in_a_row: AtomicU32,
    suspensions: AtomicU32,
    /// Milliseconds of [`now_ms`] until which it is left out; 0 while it is not.
    suspended_until_ms: AtomicU64,
    is_muted: AtomicBool,
}

/// The reasons for which an event does not reach an inline reporter.
const REASONS: [DropReason; 4] =
    [DropReason::ReporterFailed, DropReason::ReporterSuspended, DropReason::Reentrant, DropReason::Sampled];

impl PythonReporter {
    pub(crate) fn new(object: Owned, takes_timings: bool, takes_metrics: bool) -> Self {
        Self {
            object,
            takes_timings,
            takes_metrics,
            delivered: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; 4],
            failures: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            suspensions: AtomicU32::new(0),
            suspended_until_ms: AtomicU64::new(0),
            is_muted: AtomicBool::new(false),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut PyObject {
        self.object.as_ptr()
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended_until_ms.load(Relaxed) != 0
    }

    /// Events that it did not get, or failed on.
    pub(crate) fn drops(&self) -> Drops {
        let mut drops = Drops::default();
        for (reason, count) in REASONS.iter().zip(&self.dropped) {
            drops.add(*reason, count.load(Relaxed));
        }
        drops
    }

    /// Forgets the past, in a forked child.
    pub(crate) fn reset(&self) {
        self.delivered.store(0, Relaxed);
        self.dropped.iter().for_each(|count| count.store(0, Relaxed));
    }

    #[inline(always)]
    fn count_delivered(&self) {
        #[cfg(not(Py_GIL_DISABLED))]
        self.delivered.store(self.delivered.load(Relaxed) + 1, Relaxed);
        #[cfg(Py_GIL_DISABLED)]
        self.delivered.fetch_add(1, Relaxed);
    }

    fn count_drop(&self, reason: DropReason) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            if let Some(count) = self.dropped.get(at) {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    /// One call gets to try a suspended reporter once its time is over.
    fn may_try(&self) -> bool {
        let until = self.suspended_until_ms.load(Relaxed);
        let now = now_ms();
        let pushed = now + FIRST_SUSPENSION.as_millis() as u64;
        until == 0 || now >= until && self.suspended_until_ms.compare_exchange(until, pushed, Relaxed, Relaxed).is_ok()
    }

    #[cold]
    fn recover(&self) {
        self.in_a_row.store(0, Relaxed);
        self.suspensions.store(0, Relaxed);
        self.suspended_until_ms.store(0, Relaxed);
    }
}

/// Milliseconds since the first call; never 0.
fn now_ms() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

thread_local! {
    /// Whether a reporter is being served on this thread: what it emits is not delivered to Python reporters again.
    static IS_SERVING: Place<bool> = const { Place::new(false) };
}

/// An error that was set, put aside while code of the program runs.
pub(crate) struct KeptError(Option<PyErr>);

impl KeptError {
    /// # Safety
    /// The thread is attached.
    pub(crate) unsafe fn take() -> Self {
        // SAFETY: as the caller says.
        let python = unsafe { Python::assume_attached() };
        Self(PyErr::take(python))
    }

    /// # Safety
    /// The thread is attached.
    pub(crate) unsafe fn restore(self) {
        // SAFETY: as the caller says.
        let python = unsafe { Python::assume_attached() };
        if let Some(error) = self.0 {
            error.restore(python);
        }
    }
}

/// Values on their way to a call: in place up to a usual number.
struct Values {
    few: [MaybeUninit<*mut PyObject>; Values::FEW],
    many: Vec<*mut PyObject>,
    len: usize,
}

impl Values {
    const FEW: usize = 24;
    /// Room for the interpreter's use, and for the reporter.
    const HEAD: usize = 2;
    /// Room for the two positional arguments besides.
    const FIRST: usize = Self::HEAD + 2;

    const fn none() -> Self {
        Self { few: [MaybeUninit::uninit(); Self::FEW], many: Vec::new(), len: 0 }
    }

    /// Makes so many places, all of them empty.
    #[inline(always)]
    fn begin(&mut self, len: usize) {
        if len > Self::FEW {
            self.many.resize(len, ptr::null_mut());
        } else {
            self.few.iter_mut().take(len).for_each(|place| *place = MaybeUninit::new(ptr::null_mut()));
        }
        self.len = len;
    }

    #[inline(always)]
    fn all(&mut self) -> &mut [*mut PyObject] {
        if self.len > Self::FEW {
            return &mut self.many;
        }
        // SAFETY: `begin` has written that many places.
        unsafe { std::slice::from_raw_parts_mut(self.few.as_mut_ptr().cast(), self.len) }
    }

    /// Puts an owned reference into a place.
    #[inline(always)]
    unsafe fn put(&mut self, at: usize, object: *mut PyObject) {
        if let Some(place) = self.all().get_mut(at) {
            let mut old = std::mem::replace(place, object);
            // SAFETY: null or owned.
            unsafe { clear(&mut old) };
        }
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        for object in self.all().iter_mut().skip(Self::HEAD) {
            // SAFETY: null or owned; the thread is attached, as it was when they were put here.
            unsafe { clear(object) };
        }
    }
}

/// Reports a scope that closed to the context's Python reporters. False if an exception is set that has to go on.
///
/// # Safety
/// The cell is alive, or on its way to be freed; the thread is attached, and no error is set.
pub(crate) unsafe fn timing(context: &Context, cell: *mut Cell, end: u64, error: Option<&str>) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        // Nothing is put together for nobody: a path that is not interned whole is as long as the stack is deep.
        let is_wanted = context.reporters.iter().any(|reporter| reporter.takes_timings);
        if !is_wanted || !begin(context, |reporter| reporter.takes_timings, (*cell).path()) {
            return true;
        }
        let Some(line) = context.timeline(end) else { return true };
        let start = (*cell).start;
        let duration_ns = line.duration_ns(end.saturating_sub(start));
        let seconds = |ns: u64| ffi::PyFloat_FromDouble(ns as f64 / 1e9);
        let depth = std::ffi::c_long::from((*cell).depth() as i32);
        let (monotonic_ns, unix_ns) = (line.monotonic_ns(start), line.unix_ns(start));
        let built_in = [
            ffi::PyLong_FromLong(depth),
            texts::of_parent(cell),
            ffi::PyLong_FromLong(depth),
            seconds(monotonic_ns),
            seconds(monotonic_ns.saturating_add(duration_ns)),
            seconds(unix_ns),
            seconds(unix_ns.saturating_add(duration_ns)),
        ];
        let event = Event {
            kind: Kind::Timing,
            first: (texts::of_scope(cell), seconds(duration_ns)),
            built_in: &built_in,
            arguments: values_of((*cell).arguments()),
            rich: (*cell).rich(),
            error,
        };
        serve(context, event, |reporter| reporter.takes_timings)
    }
}

/// A metric as it is reported.
pub(crate) struct Metric<'a> {
    /// The path, an owned reference.
    pub(crate) path: *mut PyObject,
    pub(crate) interned: kastor::raw::Path,
    pub(crate) value: *mut PyObject,
    pub(crate) depth: u32,
    /// The path of the scope around it, an owned reference, or None.
    pub(crate) parent: *mut PyObject,
    pub(crate) metric_type: Option<MetricType>,
    pub(crate) keys: *mut PyObject,
    pub(crate) values: &'a [*mut PyObject],
}

/// Whether any Python reporter of a context wants metrics.
pub(crate) fn wants_metrics(context: &Context) -> bool {
    context.reporters.iter().any(|reporter| reporter.takes_metrics)
}

/// Reports a metric to the context's Python reporters. False if an exception is set that has to go on.
///
/// # Safety
/// Everything is alive; the thread is attached, and no error is set.
pub(crate) unsafe fn metric(context: &Context, metric: Metric<'_>) -> bool {
    // SAFETY: as the caller says; the owned references are taken over by the event, or given back.
    unsafe {
        let Metric { mut path, mut parent, .. } = metric;
        if !begin(context, |reporter| reporter.takes_metrics, metric.interned) {
            clear(&mut path);
            clear(&mut parent);
            return true;
        }
        let depth = ffi::PyLong_FromLong(std::ffi::c_long::from(metric.depth as i32));
        let (mut built_in, mut len) = ([depth, parent, ptr::null_mut()], 2);
        let mut kind = Kind::Metric;
        if let (Some(metric_type), Some(place)) = (metric.metric_type, built_in.last_mut()) {
            *place = new_text(metric_type.as_str());
            (kind, len) = (Kind::Typed, 3);
        }
        let event = Event {
            kind,
            first: (path, new_ref(metric.value)),
            built_in: built_in.get(..len).unwrap_or(&[]),
            arguments: (metric.keys, metric.values),
            rich: None,
            error: None,
        };
        serve(context, event, |reporter| reporter.takes_metrics)
    }
}

/// Whether an event is to be delivered at all; what is not is counted.
#[inline]
fn begin(context: &Context, takes: impl Fn(&PythonReporter) -> bool, path: raw::Path) -> bool {
    let reason = if IS_SERVING.get() {
        DropReason::Reentrant
    } else if context.has_path_rules.load(Relaxed) && !raw::records_path(&context.telemetry, path) {
        DropReason::Sampled
    } else {
        return true;
    };
    let reporters = context.reporters.iter().filter(|reporter| takes(reporter));
    reporters.for_each(|reporter| reporter.count_drop(reason));
    false
}

/// What reporters are called with. All references but those of the arguments are owned.
struct Event<'a> {
    kind: Kind,
    first: (*mut PyObject, *mut PyObject),
    built_in: &'a [*mut PyObject],
    arguments: (*mut PyObject, &'a [*mut PyObject]),
    rich: Option<&'a Extra>,
    error: Option<&'a str>,
}

/// Calls every reporter that takes the event.
unsafe fn serve(context: &Context, event: Event<'_>, takes: impl Fn(&PythonReporter) -> bool) -> bool {
    // SAFETY: the event's references are owned, and go into `values`, which gives them back.
    unsafe {
        let (keys, given) = event.arguments;
        let merged = keys::find(keys, event.kind);
        let late = event.rich.map_or(&[][..], |rich| &rich.late);
        let mut values = Values::none();
        let names = match &merged {
            Some(merged) if late.is_empty() && event.error.is_none() => {
                in_place(&event, merged, given, &mut values);
                Some(merged.merged.clone())
            }
            Some(merged) => put_together(&event, merged, given, late, &mut values),
            None => None,
        };
        // Without memory for the event there is none.
        let Some(names) = names.filter(|_| values.all().iter().skip(Values::HEAD).all(|value| !value.is_null())) else {
            ffi::PyErr_Clear();
            return true;
        };
        IS_SERVING.set(true);
        let mut escaped: Option<PyErr> = None;
        let method = method_name(event.kind);
        for reporter in context.reporters.iter().filter(|reporter| takes(reporter)) {
            if reporter.is_suspended() && !reporter.may_try() {
                reporter.count_drop(DropReason::ReporterSuspended);
                continue;
            }
            if let Some(place) = values.all().get_mut(1) {
                *place = reporter.as_ptr();
            }
            let positional = 3 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
            let arguments = values.all().as_ptr().add(1);
            let mut answer = ffi::PyObject_VectorcallMethod(method, arguments, positional, names.as_ptr());
            if answer.is_null() {
                if let Some(error) = failed(reporter) {
                    escaped = Some(chained(error, escaped));
                }
            } else {
                clear(&mut answer);
                reporter.count_delivered();
                if reporter.in_a_row.load(Relaxed) != 0 {
                    reporter.recover();
                }
            }
        }
        IS_SERVING.set(false);
        // Values may run code of the program when they go: before the error is set.
        drop(values);
        match escaped {
            Some(error) => {
                error.restore(Python::assume_attached());
                false
            }
            None => true,
        }
    }
}

/// The usual case: the built-in values, then those of the call, each in the place that its key has.
#[inline(always)]
unsafe fn in_place(event: &Event<'_>, merged: &Keys, given: &[*mut PyObject], values: &mut Values) {
    // SAFETY: as for `serve`.
    unsafe {
        values.begin(Values::FIRST + super::object::items(merged.merged.as_ptr()).len());
        let own = [event.first.0, event.first.1].into_iter().chain(event.built_in.iter().copied());
        for (place, object) in values.all().iter_mut().skip(Values::HEAD).zip(own) {
            *place = object;
        }
        for (place, object) in merged.places.iter().zip(given) {
            values.put(Values::FIRST + place, new_ref(*object));
        }
    }
}

/// The same with an error, or with attributes that were set late: keys are put together for this event alone.
#[cold]
unsafe fn put_together(
    event: &Event<'_>,
    merged: &Keys,
    given: &[*mut PyObject],
    late: &[(Owned, Owned)],
    values: &mut Values,
) -> Option<Owned> {
    // SAFETY: as for `serve`.
    unsafe {
        let built_in = event.kind.built_in();
        let mut all: Vec<(Owned, String, Owned)> = Vec::new();
        let mut set = |key: Owned, value: Owned| {
            let text = lossy_text(key.as_ptr());
            match all.iter_mut().find(|(_, known, _)| *known == text) {
                Some((_, _, known)) => *known = value,
                None => all.push((key, text, value)),
            }
        };
        for (key, object) in built_in.iter().zip(event.built_in) {
            if let (Some(key), Some(value)) = (Owned::take(new_text(key)), Owned::take(*object)) {
                set(key, value);
            }
        }
        if let Some(error) = event.error {
            if let (Some(key), Some(value)) = (Owned::take(new_text(ERROR_TYPE)), Owned::take(new_text(error))) {
                set(key, value);
            }
        }
        for (key, object) in merged.texts.iter().zip(given) {
            if let Some(value) = Owned::share(*object) {
                set(key.clone(), value);
            }
        }
        for (key, value) in late {
            if let Some(key) = Owned::take(new_text(&delivered_key(&lossy_text(key.as_ptr()), event.kind))) {
                set(key, value.clone());
            }
        }
        values.begin(Values::FIRST + all.len());
        values.put(Values::HEAD, event.first.0);
        values.put(Values::HEAD + 1, event.first.1);
        let mut names = Vec::with_capacity(all.len());
        for (at, (key, _, value)) in all.into_iter().enumerate() {
            values.put(Values::FIRST + at, value.into_ptr());
            names.push(key);
        }
        keys::tuple(names)
    }
}

/// A key as reporters get it: one that is the method's own has an underscore behind.
fn delivered_key(text: &str, kind: Kind) -> String {
    if kind.takes_key(text) { format!("{text}_") } else { text.to_owned() }
}

/// A late key as it stands in records.
pub(crate) fn key_name(key: &Owned, kind: Kind) -> Name {
    // SAFETY: keys are `str`s, and the thread is attached.
    raw::name(&delivered_key(&unsafe { lossy_text(key.as_ptr()) }, kind))
}

/// The method's name as an object that lives for ever.
unsafe fn method_name(kind: Kind) -> *mut PyObject {
    static NAMES: [AtomicPtr<PyObject>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];
    let (at, text) = if kind == Kind::Timing { (0, c"record_timing") } else { (1, c"record_metric") };
    let Some(place) = NAMES.get(at) else { return ptr::null_mut() };
    let known = place.load(Relaxed);
    if known.is_null() {
        // SAFETY: the thread is attached. Made twice at worst.
        place.store(unsafe { ffi::PyUnicode_InternFromString(text.as_ptr()) }, Relaxed);
    }
    place.load(Relaxed)
}

/// An exception of a reporter: contained, counted and logged; returned if it is no `Exception`.
#[cold]
unsafe fn failed(reporter: &PythonReporter) -> Option<PyErr> {
    // SAFETY: an error is set; the thread is attached.
    let python = unsafe { Python::assume_attached() };
    let error = PyErr::take(python)?;
    reporter.count_drop(DropReason::ReporterFailed);
    if !error.is_instance_of::<pyo3::exceptions::PyException>(python) {
        return Some(error);
    }
    let failures = reporter.failures.fetch_add(1, Relaxed) + 1;
    let in_a_row = reporter.in_a_row.fetch_add(1, Relaxed) + 1;
    if in_a_row >= FAILURES_UNTIL_SUSPENDED {
        let times = reporter.suspensions.fetch_add(1, Relaxed);
        let pause = FIRST_SUSPENSION.saturating_mul(1 << times.min(20)).min(LONGEST_SUSPENSION);
        reporter.suspended_until_ms.store(now_ms() + pause.as_millis() as u64, Relaxed);
    }
    let is_first = failures <= 3;
    if (is_first || failures.is_power_of_two() || in_a_row == FAILURES_UNTIL_SUSPENDED)
        && !reporter.is_muted.swap(true, Relaxed)
    {
        // SAFETY: an object that is alive.
        let name = unsafe { super::value::class_name(ffi::Py_TYPE(reporter.as_ptr()).cast()) };
        let suspended = if in_a_row >= FAILURES_UNTIL_SUSPENDED { "; it is left out for a while" } else { "" };
        let message = format!("reporter {name} failed ({failures} so far){suspended}");
        let escaped = crate::cold::logging::error(python, &message, &error, is_first);
        reporter.is_muted.store(false, Relaxed);
        return escaped;
    }
    None
}

/// The newer error, with the older one as its context.
fn chained(newer: PyErr, older: Option<PyErr>) -> PyErr {
    if let Some(older) = older {
        // SAFETY: the thread is attached: this is called with errors of it. The context takes a reference over.
        unsafe {
            let python = Python::assume_attached();
            let context = older.into_value(python).into_ptr();
            let mut known = ffi::PyException_GetContext(newer.value(python).as_ptr());
            if known.is_null() && context != newer.value(python).as_ptr() {
                ffi::PyException_SetContext(newer.value(python).as_ptr(), context);
            } else {
                clear(&mut known);
                ffi::Py_DECREF(context);
            }
        }
    }
    newer
}
