//! The enabled context: `tele("name", key=value)` makes a scope, and the metrics are methods.

use std::{
    cell::UnsafeCell,
    collections::BTreeMap,
    mem::ManuallyDrop,
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed},
    },
};

use kastor::{Telemetry, Timeline, raw};
use pyo3::ffi::{self, PyObject};

use super::{
    arguments::{Arguments, ArgumentsPtr, new_arguments},
    cell::{self, Cell, Extra, Named, Parts, flag},
    keys::Kind,
    names,
    object::{Owned, call_arguments, items, new_ref, utf8},
    reporter::PythonReporter,
};

/// The object. `call` has to stand where scopes have it too.
#[repr(C)]
pub(crate) struct Context {
    head: PyObject,
    pub(crate) call: Option<ffi::vectorcallfunc>,
    pub(crate) weak_references: *mut PyObject,
    pub(crate) telemetry: ManuallyDrop<Telemetry>,
    /// Python reporters, in the order of registration.
    pub(crate) reporters: ManuallyDrop<Vec<PythonReporter>>,
    /// Native reporters as they were given: for the program to find again.
    pub(crate) native: ManuallyDrop<Vec<Owned>>,
    /// Names must have the recommended form.
    pub(crate) is_strict: bool,
    /// Values that are not copied are kept as their `repr`.
    pub(crate) captures_repr: bool,
    /// A reporter gets records, and with them the attributes; sums are made without.
    pub(crate) keeps_attributes: bool,
    /// A Python reporter takes these.
    pub(crate) takes_timings: bool,
    pub(crate) takes_metrics: bool,
    /// The line from ticks to time as it was last asked for, and the tick up to which it is fresh enough.
    line: UnsafeCell<(Option<Timeline>, u64)>,
    /// When the context was made, in monotonic nanoseconds of its first line.
    made_ns: u64,
    /// There are patterns over names, or over paths.
    pub(crate) has_name_rules: AtomicBool,
    pub(crate) has_path_rules: AtomicBool,
    /// Its place among all contexts; what scopes remember.
    pub(crate) number: u16,
}

impl Context {
    /// The line from ticks to time, fresh enough for this one.
    #[inline]
    pub(crate) fn timeline(&self, tick: u64) -> Option<Timeline> {
        #[cfg(not(free_threaded))]
        // SAFETY: the GIL is held by everyone who comes by here, and nothing below runs code of the program.
        unsafe {
            if let (Some(line), until) = *self.line.get() {
                if tick <= until {
                    return Some(line);
                }
            }
            let line = raw::timeline(&self.telemetry, tick)?;
            // The slope rests on what has passed since the context was made: at first it is asked for each time.
            let anchor = line.anchor();
            let until = anchor.ticks.saturating_add((FRESH_NS / line.ns_per_tick()) as u64);
            if anchor.monotonic_ns.saturating_sub(self.made_ns) >= SHORT_BASELINE_NS {
                *self.line.get() = (Some(line), until);
            }
            Some(line)
        }
        #[cfg(free_threaded)]
        raw::timeline(&self.telemetry, tick)
    }
}

/// What a context is made of.
pub(crate) struct Settings {
    pub(crate) telemetry: Telemetry,
    pub(crate) reporters: Vec<PythonReporter>,
    pub(crate) native: Vec<Owned>,
    pub(crate) is_strict: bool,
    pub(crate) captures_repr: bool,
    pub(crate) keeps_attributes: bool,
}

/// How long a line is fresh enough, as in the core.
#[cfg(not(free_threaded))]
const FRESH_NS: f64 = 1e9;
/// Below this distance from its making a context's line is not kept.
#[cfg(not(free_threaded))]
const SHORT_BASELINE_NS: u64 = 200_000_000;

/// The type; set when the module is made.
pub(crate) static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// All contexts, by number. Zero is nobody's.
static ALL: [AtomicPtr<Context>; 1 << 16] = [const { AtomicPtr::new(ptr::null_mut()) }; 1 << 16];
/// Which numbers are taken. Nothing runs code of the program, or gives up the GIL, while this is locked.
static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { free: Vec::new(), next: 1, alive: BTreeMap::new() });

struct Numbers {
    /// Below `next`, the first that was never used.
    free: Vec<u16>,
    next: u16,
    /// Weak references to the contexts: what a number leads to may be on its way to be freed.
    alive: BTreeMap<u16, Owned>,
}

fn numbers() -> MutexGuard<'static, Numbers> {
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The context with a number; null for zero.
#[inline(always)]
pub(crate) fn owner(number: u16) -> *mut Context {
    ALL.get(usize::from(number)).map_or(ptr::null_mut(), |context| context.load(Relaxed))
}

/// All contexts that are alive, each a new reference.
pub(crate) fn all() -> Vec<Owned> {
    let weak: Vec<Owned> = numbers().alive.values().cloned().collect();
    let contexts = weak.iter().filter_map(|weak| {
        let mut context = ptr::null_mut();
        // SAFETY: weak references, which are held; the thread is attached. The answer is a new reference, or null.
        unsafe {
            ffi::compat::PyWeakref_GetRef(weak.as_ptr(), &raw mut context);
            Owned::take(context)
        }
    });
    contexts.collect()
}

/// A new context; null, with an error set, if there are 65,535 already.
///
/// # Safety
/// The thread is attached, and the module is made.
pub(crate) unsafe fn new(settings: Settings) -> *mut PyObject {
    let number = {
        let mut numbers = numbers();
        numbers.free.pop().or_else(|| {
            let next = numbers.next;
            numbers.next = next.checked_add(1)?;
            Some(next)
        })
    };
    // SAFETY: as the caller says; every field is written before the object is seen.
    unsafe {
        let Some(number) = number else {
            let message = c"65,535 telemetry contexts are alive: make one and keep it";
            ffi::PyErr_SetString(ffi::PyExc_RuntimeError, message.as_ptr());
            return ptr::null_mut();
        };
        let mut context = ffi::PyObject_GC_New::<Context>(TYPE.load(Relaxed));
        if context.is_null() {
            return context.cast();
        }
        (&raw mut (*context).call).write(Some(call));
        (&raw mut (*context).weak_references).write(ptr::null_mut());
        (&raw mut (*context).telemetry).write(ManuallyDrop::new(settings.telemetry));
        let takes = |kind| settings.reporters.iter().any(|reporter| reporter.takes(kind));
        (&raw mut (*context).takes_timings).write(takes(Kind::Timing));
        (&raw mut (*context).takes_metrics).write(takes(Kind::Metric));
        (&raw mut (*context).keeps_attributes).write(settings.keeps_attributes);
        (&raw mut (*context).reporters).write(ManuallyDrop::new(settings.reporters));
        (&raw mut (*context).native).write(ManuallyDrop::new(settings.native));
        (&raw mut (*context).is_strict).write(settings.is_strict);
        (&raw mut (*context).captures_repr).write(settings.captures_repr);
        let now = raw::tick(&(*context).telemetry);
        let line = raw::timeline(&(*context).telemetry, now);
        (&raw mut (*context).line).write(UnsafeCell::new((None, 0)));
        (&raw mut (*context).made_ns).write(line.map_or(0, |line| line.monotonic_ns(now)));
        (&raw mut (*context).has_name_rules).write(AtomicBool::new(false));
        (&raw mut (*context).has_path_rules).write(AtomicBool::new(false));
        (&raw mut (*context).number).write(number);
        if let Some(place) = ALL.get(usize::from(number)) {
            place.store(context, Relaxed);
        }
        ffi::PyObject_GC_Track(context.cast());
        match Owned::take(ffi::PyWeakref_NewRef(context.cast(), ptr::null_mut())) {
            Some(weak) => drop(numbers().alive.insert(number, weak)),
            None => super::object::clear(&mut context),
        }
        context.cast()
    }
}

/// `tp_dealloc`.
pub(crate) unsafe extern "C" fn dealloc(object: *mut PyObject) {
    let context = object.cast::<Context>();
    // SAFETY: the interpreter frees an object that nobody refers to; each field is dropped once.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*context).weak_references.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        let number = (*context).number;
        if let Some(place) = ALL.get(usize::from(number)) {
            place.store(ptr::null_mut(), Relaxed);
        }
        ManuallyDrop::drop(&mut (*context).telemetry);
        ManuallyDrop::drop(&mut (*context).reporters);
        ManuallyDrop::drop(&mut (*context).native);
        let weak = {
            let mut numbers = numbers();
            numbers.free.push(number);
            numbers.alive.remove(&number)
        };
        drop(weak);
        let class = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

/// `tp_traverse`.
pub(crate) unsafe extern "C" fn traverse(
    object: *mut PyObject,
    visit: ffi::visitproc,
    argument: *mut std::ffi::c_void,
) -> std::ffi::c_int {
    // SAFETY: the collector visits whole objects, and `visit` takes any object.
    unsafe {
        let context = &*object.cast::<Context>();
        let class: *mut PyObject = ffi::Py_TYPE(object).cast();
        let reporters = context.reporters.iter().map(PythonReporter::as_ptr);
        let native = context.native.iter().map(Owned::as_ptr);
        for object in std::iter::once(class).chain(reporters).chain(native) {
            let result = visit(object, argument);
            if result != 0 {
                return result;
            }
        }
        0
    }
}

/// `tp_clear`.
pub(crate) unsafe extern "C" fn clear(object: *mut PyObject) -> std::ffi::c_int {
    // SAFETY: a whole object, which stays alive meanwhile; what is dropped has left it before.
    unsafe {
        let context = &mut *object.cast::<Context>();
        let reporters = std::mem::take(&mut *context.reporters);
        let native = std::mem::take(&mut *context.native);
        drop((reporters, native));
    }
    0
}

/// `tele.is_enabled`.
pub(crate) unsafe extern "C" fn is_enabled(object: *mut PyObject, _: *mut std::ffi::c_void) -> *mut PyObject {
    // SAFETY: a property's object is alive; the answer lives as long as the interpreter.
    unsafe {
        new_ref(if (*object.cast::<Context>()).telemetry.is_enabled() { ffi::Py_True() } else { ffi::Py_False() })
    }
}

/// `tele("name", key=value)`: a scope that is not open yet.
pub(crate) unsafe extern "C" fn call(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the vectorcall protocol.
    unsafe {
        let nargs = ffi::PyVectorcall_NARGS(nargsf) as usize;
        scope(object.cast(), call_arguments(args, nargs, keys), keys)
    }
}

/// `tele.time("name", key=value)`.
pub(crate) unsafe extern "C" fn time(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the protocol of fast calls.
    unsafe { scope(object.cast(), call_arguments(args, nargs as usize, keys), keys) }
}

#[inline(always)]
unsafe fn scope(
    context: *mut Context,
    (given, named): (&[*mut PyObject], &[*mut PyObject]),
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the callers' protocols keep everything alive meanwhile.
    unsafe {
        let &[name] = given else { return scope_by_keyword(context, given.len(), named, keys) };
        let mut extra = ptr::null_mut();
        if !named.is_empty() {
            extra = new_arguments(keys, named);
            if extra.is_null() {
                return ptr::null_mut();
            }
        }
        fresh(context, name, extra)
    }
}

/// A fresh scope of a name that is looked up now and judged on entry. `arguments` is taken over.
pub(crate) unsafe fn fresh(context: *mut Context, name: *mut PyObject, arguments: *mut Arguments) -> *mut PyObject {
    // SAFETY: the context and the name are alive.
    unsafe {
        let known = names::find(name).filter(|known| known.is_recommended || !(*context).is_strict);
        let cell = cell::allocate();
        if cell.is_null() {
            drop(ArgumentsPtr(arguments));
            return ptr::null_mut();
        }
        let mut parts = Parts {
            owner: context,
            below: ptr::null_mut(),
            extra: arguments.cast(),
            // Never looked at where the name is no good: see below.
            named: Named { name: known.map_or_else(|| kastor::raw::name(""), |known| known.name) },
            depth: 0,
            flags: flag::FRESH,
        };
        match known {
            Some(known) if !known.is_cut => cell::fill(cell, parts),
            _ => {
                // The name itself is kept: to say on entry what is wrong with it, or for the path's text.
                let arguments = (!arguments.is_null()).then(|| Box::new(ArgumentsPtr(arguments)));
                let rich = Extra { arguments, name: Owned::share(name), ..Extra::default() };
                parts.extra = Box::into_raw(Box::new(rich)).cast();
                parts.flags = flag::FRESH | flag::RICH | if known.is_some() { flag::CUT } else { 0 };
                cell::fill(cell, parts);
            }
        }
        cell.cast()
    }
}

/// `tele(name="x", …)`.
#[cold]
unsafe fn scope_by_keyword(
    context: *mut Context,
    given: usize,
    named: &[*mut PyObject],
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the callers' protocols keep everything alive meanwhile.
    unsafe {
        let all = items(keys);
        let at = all.iter().position(|key| utf8(*key) == Some("name"));
        let (0, Some(at)) = (given, at) else {
            let message = c"a scope takes its name as the one positional argument, and metadata as keyword arguments";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
            return ptr::null_mut();
        };
        let Some(&name) = named.get(at) else { return ptr::null_mut() };
        let without = |all: &[*mut PyObject]| -> Vec<*mut PyObject> {
            all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, object)| *object).collect()
        };
        let (keys, values) = (without(all), without(named));
        if keys.is_empty() {
            return fresh(context, name, ptr::null_mut());
        }
        let keys = keys.into_iter().filter_map(|key| Owned::share(key)).collect();
        let Some(keys) = super::keys::tuple(keys) else { return ffi::PyErr_NoMemory() };
        let arguments = new_arguments(keys.as_ptr(), &values);
        if arguments.is_null() { ptr::null_mut() } else { fresh(context, name, arguments) }
    }
}

/// A new reference to the context of a cell; to None where there is none.
#[inline(always)]
pub(crate) unsafe fn new_owner(cell: *mut Cell) -> *mut PyObject {
    // SAFETY: a cell keeps its context alive.
    unsafe {
        let context = owner((*cell).owner);
        if context.is_null() { super::object::none() } else { new_ref(context).cast() }
    }
}
