//! Python reporters: called inline, on the thread that closed the scope, by vectorcall and without a dict.
//!
//! The keys' tuple is made once per call site (`keys`), and paths once (`texts`); the usual timing is `usual`'s. What a
//! reporter raises is `reporter`'s business; what is no `Exception` (Ctrl-C, `SystemExit`) goes on after the other
//! reporters were served.

use std::{
    cell::Cell as Place,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicPtr, Ordering::Relaxed},
};

use kastor::{
    DropReason, MetricType,
    raw::{self, Name},
};
use pyo3::{
    PyErr, Python,
    ffi::{self, PyObject},
};

use super::{
    arguments::values_of,
    calls,
    cell::{Cell, Extra},
    context::Context,
    keys::{self, ERROR_TYPE, Keys, Kind},
    object::{Owned, clear, lossy_text, new_ref, new_text},
    texts,
    usual::{self, Times},
};

thread_local! {
    /// Whether a reporter is being served on this thread: what it emits is not delivered to Python reporters again.
    static IS_SERVING: Place<bool> = const { Place::new(false) };
}

/// Whether this thread is inside a reporter.
pub(crate) fn is_serving() -> bool {
    IS_SERVING.with(Place::get)
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

    /// Whether no value is missing.
    fn are_whole(&mut self) -> bool {
        self.all().iter().skip(Self::HEAD).all(|value| !value.is_null())
    }

    /// Puts an owned reference into a place.
    #[inline(always)]
    unsafe fn put(&mut self, at: usize, object: *mut PyObject) {
        if let Some(place) = self.all().get_mut(at) {
            // SAFETY: null or owned.
            unsafe { calls::give_back(std::mem::replace(place, object)) };
        }
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        let all = self.all().iter().skip(Self::HEAD);
        // SAFETY: null or owned; the thread is attached, as it was when they were put here. None is used after this.
        all.for_each(|object| unsafe { calls::give_back(*object) });
    }
}

/// Reports a scope that closed to the context's Python reporters. False if an exception is set that has to go on.
///
/// # Safety
/// The cell is alive, or on its way to be freed; the thread is attached, and no error is set.
#[inline(always)]
pub(crate) unsafe fn timing(context: &Context, cell: *mut Cell, end: u64, error: Option<&str>) -> bool {
    // Nothing is put together for nobody: a path that is not interned whole is as long as the stack is deep.
    // SAFETY: as the caller says.
    !context.takes_timings || unsafe { timing_for_some(context, cell, end, error) }
}

unsafe fn timing_for_some(context: &Context, cell: *mut Cell, end: u64, error: Option<&str>) -> bool {
    IS_SERVING.with(|is_serving| {
        // SAFETY: as for `timing`.
        unsafe {
            if !begin(context, is_serving, Kind::Timing, (*cell).path()) {
                return true;
            }
            let Some(line) = context.timeline(end) else { return true };
            let times = Times::new(&line, (*cell).start, end);
            let arguments = values_of((*cell).arguments());
            let rich = (*cell).rich();
            let Some(keys) = keys::find(arguments.0, Kind::Timing) else { return true };
            let is_usual = error.is_none() && keys.are_behind && arguments.1.len() <= usual::MAX_OWN;
            if is_usual && rich.is_none_or(|rich| rich.late().attributes.is_empty()) {
                return usual::timing(context, cell, &times, (&keys, arguments.1), is_serving);
            }
            let [duration, monotonic, monotonic_end, wall, wall_end] = times.seconds();
            let seconds = |number: f64| ffi::PyFloat_FromDouble(number);
            let depth = ffi::PyLong_FromLong(std::ffi::c_long::from((*cell).depth() as i32));
            ffi::Py_XINCREF(depth);
            let built_in = [
                depth,
                texts::of_parent(cell),
                depth,
                seconds(monotonic),
                seconds(monotonic_end),
                seconds(wall),
                seconds(wall_end),
            ];
            let first = (texts::of_scope(cell), seconds(duration));
            let event = Event { kind: Kind::Timing, first, built_in: &built_in, arguments, rich, error };
            serve(context, is_serving, event)
        }
    })
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

/// Reports a metric to the context's Python reporters. False if an exception is set that has to go on.
///
/// # Safety
/// Everything is alive; the thread is attached, and no error is set.
pub(crate) unsafe fn metric(context: &Context, metric: Metric<'_>) -> bool {
    IS_SERVING.with(|is_serving| {
        // SAFETY: as the caller says; the owned references are taken over by the event, or given back.
        unsafe {
            let Metric { mut path, mut parent, .. } = metric;
            if !begin(context, is_serving, Kind::Metric, metric.interned) {
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
            serve(context, is_serving, event)
        }
    })
}

/// Whether an event is to be delivered at all; what is not is counted.
#[inline(always)]
fn begin(context: &Context, is_serving: &Place<bool>, kind: Kind, path: raw::Path) -> bool {
    let reason = if is_serving.get() {
        DropReason::Reentrant
    } else if context.has_path_rules.load(Relaxed) && !raw::records_path(&context.telemetry, path) {
        DropReason::Sampled
    } else {
        return true;
    };
    let reporters = context.reporters.iter().filter(|reporter| reporter.takes(kind));
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
#[inline]
unsafe fn serve(context: &Context, is_serving: &Place<bool>, event: Event<'_>) -> bool {
    // SAFETY: the event's references are owned, and go into `values`, which gives them back.
    unsafe {
        let (keys, given) = event.arguments;
        let found = keys::find(keys, event.kind);
        let late = event.rich.map_or(&[][..], |rich| &rich.late().attributes);
        let mut values = Values::none();
        // What holds the names while reporters run: they may make the table forget them.
        let mut own = None;
        let names = match &found {
            Some(keys) if late.is_empty() && event.error.is_none() => in_place(&event, keys, given, &mut values),
            Some(keys) => {
                own = put_together(&event, keys, given, late, &mut values);
                own.as_ref().filter(|_| values.are_whole()).map_or(ptr::null_mut(), Owned::as_ptr)
            }
            None => {
                give_back(&event);
                ptr::null_mut()
            }
        };
        if names.is_null() {
            // Without memory for the event there is none.
            ffi::PyErr_Clear();
            return true;
        }
        let escaped = serve_all(context, event.kind, values.all().as_mut_ptr(), names, is_serving);
        // Values may run code of the program when they go: before the error is set.
        drop(values);
        drop((found, own));
        raise(escaped)
    }
}

/// Calls every reporter that takes the events of a kind, as [`PythonReporter::serve`](super::reporter::PythonReporter::serve)
/// says. Returns what has to go on.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn serve_all(
    context: &Context,
    kind: Kind,
    arguments: *mut *mut PyObject,
    names: *mut PyObject,
    is_serving: &Place<bool>,
) -> Option<PyErr> {
    // SAFETY: as the caller says.
    unsafe {
        let method = method_name(kind);
        let mut escaped = None;
        is_serving.set(true);
        for reporter in context.reporters.iter().filter(|reporter| reporter.takes(kind)) {
            if reporter.is_suspended() && !reporter.may_try() {
                reporter.count_drop(DropReason::ReporterSuspended);
            } else if let Some(error) = reporter.serve(method, arguments, names) {
                escaped = Some(chained(error, escaped));
            }
        }
        is_serving.set(false);
        escaped
    }
}

/// Sets an error that has to go on; true if there is none.
///
/// # Safety
/// The thread is attached.
#[inline(always)]
pub(crate) unsafe fn raise(escaped: Option<PyErr>) -> bool {
    let Some(error) = escaped else { return true };
    // SAFETY: as the caller says.
    error.restore(unsafe { Python::assume_attached() });
    false
}

/// The built-in values, then those of the call, each in the place that its key has. Returns the names, or
/// null if a value could not be made.
#[inline(always)]
unsafe fn in_place(event: &Event<'_>, keys: &Keys, given: &[*mut PyObject], values: &mut Values) -> *mut PyObject {
    // SAFETY: as for `serve`.
    unsafe {
        let names = keys.merged.as_ptr();
        values.begin(Values::FIRST + super::object::items(names).len());
        let own = [event.first.0, event.first.1].into_iter().chain(event.built_in.iter().copied());
        let mut is_whole = true;
        for (place, object) in values.all().iter_mut().skip(Values::HEAD).zip(own) {
            *place = object;
            is_whole &= !object.is_null();
        }
        for (place, object) in keys.places.iter().zip(given) {
            values.put(Values::FIRST + place, new_ref(*object));
        }
        if is_whole { names } else { ptr::null_mut() }
    }
}

/// Gives the references of an event back that is not delivered.
#[cold]
unsafe fn give_back(event: &Event<'_>) {
    // SAFETY: null or owned by the event, which nobody uses any more.
    unsafe {
        let own = [event.first.0, event.first.1].into_iter().chain(event.built_in.iter().copied());
        own.for_each(|object| calls::give_back(object));
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
#[inline(always)]
unsafe fn method_name(kind: Kind) -> *mut PyObject {
    static NAMES: [AtomicPtr<PyObject>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];
    let (at, text) = if kind == Kind::Timing { (0, c"record_timing") } else { (1, c"record_metric") };
    let Some(place) = NAMES.get(at) else { return ptr::null_mut() };
    let known = place.load(Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: the thread is attached. Made twice at worst.
    place.store(unsafe { ffi::PyUnicode_InternFromString(text.as_ptr()) }, Relaxed);
    place.load(Relaxed)
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
