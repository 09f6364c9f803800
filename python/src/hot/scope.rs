//! Entering and leaving a scope: the order of what happens, and nothing else.
//!
//! ```text
//! enter   name judged → stack read → ids drawn → pushed → start tick
//! leave   end tick → popped → record written (native reporters) → Python reporters
//! ```

use std::ptr;

use kastor::{
    Carrier,
    raw::{self, Frame, Outcome, Recorded},
};
use pyo3::ffi::{self, PyObject};

use super::{
    arguments::{Arguments, ArgumentsPtr, new_arguments, values_of},
    cell::{Cell, Foreign, Named, carrier_of, drop_extra, flag, origin_of},
    context::{Context, new_owner, owner},
    deliver,
    keys::{self, Kind},
    object::{clear, is_function, locked, new_ref, none},
    stack, value,
};

/// No argument enters, three leave, one callable is decorated. `with` finds the scope itself under `__enter__` and
/// `__exit__`, so that no bound method is made: see `binding`.
pub(crate) unsafe extern "C" fn call(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the vectorcall protocol.
    unsafe {
        match ffi::PyVectorcall_NARGS(nargsf) {
            0 if keys.is_null() => enter(object.cast()),
            3 if keys.is_null() => exit(object.cast(), *args, *args.add(1)),
            1 if keys.is_null() && is_function(*args) => decorate(object, *args),
            _ => {
                let message = c"a scope is entered with `with`, or decorates one function";
                ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
                ptr::null_mut()
            }
        }
    }
}

/// Opens a scope. Returns its context.
///
/// # Safety
/// `cell` is a scope that is alive.
#[inline(always)]
pub(crate) unsafe fn enter(cell: *mut Cell) -> *mut PyObject {
    // SAFETY: as the caller says.
    unsafe {
        locked(cell.cast(), || {
            if (*cell).state() != flag::FRESH || (*cell).has(flag::RICH) {
                return enter_unusual(cell);
            }
            open(cell, (*cell).named.name);
            new_owner(cell)
        })
    }
}

/// Puts a fresh scope on the stack; if its context is off it passes without being there.
#[inline(always)]
unsafe fn open(cell: *mut Cell, name: raw::Name) {
    // SAFETY: as for `enter`; what is read below is held by `value`.
    unsafe {
        let context = &*owner((*cell).owner);
        let is_off = context.has_name_rules.load(std::sync::atomic::Ordering::Relaxed)
            && !raw::wants(&context.telemetry, name.text());
        let Some(mut ids) = raw::draw(&context.telemetry).filter(|_| !is_off) else {
            (*cell).change_state(flag::FRESH, flag::PASSING);
            return;
        };
        let mut value = stack::value();
        let top = stack::top_of(value);
        let mut inherited = (*cell).has(flag::RICH | flag::CUT);
        let (mut depth, mut path) = (0, None);
        if !top.is_null() {
            let parent = &*origin_of(top);
            depth = parent.levels();
            path = parent.has_path().then(|| parent.path());
            if !parent.has(flag::FOREIGN | flag::ANCHOR | flag::CUT) && parent.epoch == ids.epoch {
                ids.root = parent.root;
            } else {
                inherited = true;
            }
        }
        let path = raw::path(path, name);
        (*cell).named = Named { path };
        (*cell).span = ids.span;
        (*cell).root = ids.root;
        (*cell).epoch = ids.epoch;
        (*cell).below = top;
        ffi::Py_XINCREF(top.cast());
        let kept =
            if (*cell).has(flag::RICH) { flag::RICH } else { 0 } | if (*cell).has(flag::CUT) { flag::CUT } else { 0 };
        (*cell).set_word(depth, flag::OPEN | kept);
        if inherited || raw::is_shared(path) {
            inherit(cell, name);
        }
        stack::push(cell, top);
        clear(&mut value);
        (*cell).start = raw::tick(&context.telemetry);
    }
}

/// What a scope has from the one above that few scopes have: a trace that was begun elsewhere, a path beyond the limits.
#[cold]
unsafe fn inherit(cell: *mut Cell, name: raw::Name) {
    // SAFETY: as for `enter`; the cell is not on the stack yet.
    unsafe {
        let this = &mut *cell;
        let parent = if this.below.is_null() { ptr::null_mut() } else { origin_of(this.below) };
        if !parent.is_null() {
            let parent = &*parent;
            if parent.has(flag::CUT) {
                this.set_flags(flag::CUT);
            }
            let is_near = !parent.has(flag::FOREIGN | flag::ANCHOR) && parent.epoch == this.epoch;
            let around = if is_near { Carrier::NONE } else { carrier_of(ptr::from_ref(parent).cast_mut()) };
            if is_near {
                this.root = parent.root;
            } else if around.is_some() {
                let own = this.ids().carrier(this.path(), this.levels());
                let carrier = raw::in_trace_of(own, &around, this.levels());
                let foreign = Foreign { carrier, parent_span_id: around.span_id() };
                this.make_rich().foreign = Some(foreign);
                this.set_flags(flag::FOREIGN);
            }
        }
        if raw::is_shared(this.path()) {
            this.set_flags(flag::CUT);
            if !cfg!(free_threaded) {
                this.keep_name(name);
            } else if this.rich().is_none_or(|rich| rich.name.is_none()) {
                // Another entry may need the token's place while others read the name.
                this.make_rich().name = super::object::Owned::take(super::object::new_text(name.text()));
                ffi::PyErr_Clear();
            }
        }
    }
}

/// Entering what is no fresh scope of a usual name.
#[cold]
#[inline(never)]
unsafe fn enter_unusual(cell: *mut Cell) -> *mut PyObject {
    // SAFETY: as for `enter`.
    unsafe {
        match (*cell).state() {
            flag::FRESH if (*cell).has(flag::ANCHOR) => {
                enter_anchor(cell);
                new_owner(cell)
            }
            flag::FRESH => {
                // A fresh scope that keeps its name is one whose name is no good, or is not interned whole.
                let name = (*cell).rich().and_then(|rich| rich.name.as_ref()).map(super::object::Owned::as_ptr);
                if let Some(name) = name.filter(|_| !(*cell).has(flag::CUT)) {
                    return refuse_name(name, "scope");
                }
                open(cell, (*cell).named.name);
                new_owner(cell)
            }
            flag::CLOSED if !(*cell).has(flag::ANCHOR) => enter_again(cell),
            flag::CLOSED => {
                let message = c"what attach() returned can be entered once: call attach() again";
                ffi::PyErr_SetString(ffi::PyExc_RuntimeError, message.as_ptr());
                ptr::null_mut()
            }
            _ => {
                let message = c"this scope is open already: open another one with the same name";
                ffi::PyErr_SetString(ffi::PyExc_RuntimeError, message.as_ptr());
                ptr::null_mut()
            }
        }
    }
}

/// Sets the error of a bad name.
///
/// # Safety
/// `name` is alive.
#[cold]
pub(crate) unsafe fn refuse_name(name: *mut PyObject, what: &str) -> *mut PyObject {
    // SAFETY: as the caller says.
    unsafe {
        let is_text = ffi::PyUnicode_Check(name) != 0 && ffi::PyUnicode_GetLength(name) > 0;
        let message = if is_text {
            let text: String = super::object::lossy_text(name).chars().take(100).collect();
            format!(
                "{what} name {text:?} must be lowercase segments of letters, digits and '_', each starting with a \
                 letter, separated by dots, like \"pipeline.plan\""
            )
        } else {
            format!("{what} name must be a non-empty string")
        };
        let message = std::ffi::CString::new(message).unwrap_or_default();
        ffi::PyErr_SetString(ffi::PyExc_ValueError, message.as_ptr());
        ptr::null_mut()
    }
}

/// A scope that was left is the parent of whatever was opened in it: entering it again opens another one, for which it
/// stands.
#[cold]
unsafe fn enter_again(cell: *mut Cell) -> *mut PyObject {
    // SAFETY: as for `enter`.
    unsafe {
        let context = owner((*cell).owner);
        let (keys, values) = values_of((*cell).arguments());
        let mut arguments: *mut Arguments = ptr::null_mut();
        if !keys.is_null() {
            arguments = new_arguments(keys, values);
            if arguments.is_null() {
                return ptr::null_mut();
            }
        }
        let mut name = match (*cell).rich().and_then(|rich| rich.name.clone()) {
            Some(name) => name.into_ptr(),
            None => super::object::new_text((*cell).name().text()),
        };
        if name.is_null() {
            drop(ArgumentsPtr(arguments));
            return name;
        }
        let mut inner = super::context::fresh(context, name, arguments);
        clear(&mut name);
        if inner.is_null() {
            return inner;
        }
        let answer = enter(inner.cast());
        if answer.is_null() {
            clear(&mut inner);
        } else if (*cell).change_state(flag::CLOSED, flag::PASSING) {
            if !(*cell).has_room_for_token() {
                // The token's place has the name: what was opened inside the scope still needs it.
                let text = super::object::new_text((*cell).name().text());
                (*cell).make_rich().name = super::object::Owned::take(text);
                ffi::PyErr_Clear();
            }
            (*cell).set_token(inner);
        }
        answer
    }
}

unsafe fn enter_anchor(cell: *mut Cell) {
    // SAFETY: as for `enter`.
    unsafe {
        let mut value = stack::value();
        let top = stack::top_of(value);
        (*cell).below = top;
        ffi::Py_XINCREF(top.cast());
        (*cell).change_state(flag::FRESH, flag::OPEN);
        stack::push(cell, top);
        clear(&mut value);
    }
}

/// Leaves a scope. Returns None; null only if a reporter raised what is no `Exception`.
///
/// # Safety
/// `cell` is a scope that is alive; the exception's class and the exception are alive, or None.
#[inline(always)]
pub(crate) unsafe fn exit(cell: *mut Cell, class: *mut PyObject, error: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the caller says. The caller's reference keeps the cell.
    unsafe {
        if (*cell).state() != flag::OPEN || (*cell).has(flag::ANCHOR) {
            return exit_unusual(cell, class, error);
        }
        let context = &*owner((*cell).owner);
        let end = raw::tick(&context.telemetry);
        if !locked(cell.cast(), || (*cell).change_state(flag::OPEN, flag::CLOSED)) {
            return none();
        }
        stack::pop(cell);
        // Without a reporter that gets records nobody reads the attributes.
        let is_bare = (*cell).extra.is_null() || !context.keeps_attributes && !(*cell).has(flag::RICH);
        let is_plain = class == ffi::Py_None() && !(*cell).has(flag::FOREIGN) && is_bare;
        let is_done = if is_plain {
            !record_plain(context, cell, end) || deliver::timing(context, cell, end, None)
        } else {
            record_unusual(context, cell, end, class)
        };
        if is_done { none() } else { ptr::null_mut() }
    }
}

/// Whether an event was recorded.
#[inline(always)]
unsafe fn record_plain(context: &Context, cell: *mut Cell, end: u64) -> bool {
    // SAFETY: as for `exit`.
    unsafe {
        match raw::record(&context.telemetry, &parts(cell, end)) {
            Recorded::Yes => true,
            Recorded::Off => false,
            Recorded::Elsewhere => record_native(context, cell, end, Outcome::Completed),
        }
    }
}

/// What the short way writes.
#[inline(always)]
unsafe fn parts(cell: *mut Cell, end: u64) -> raw::Scope {
    // SAFETY: the cell was opened: the one below is as it was then.
    unsafe {
        let this = &*cell;
        let (mut parent, mut is_detached) = (0, false);
        if !this.below.is_null() {
            let below = &*origin_of(this.below);
            parent = below.span;
            is_detached = below.context != this.context;
        }
        raw::Scope {
            path: this.path(),
            depth: this.depth(),
            ids: this.ids(),
            parent,
            ticks: (this.start, end),
            is_detached,
        }
    }
}

#[inline(never)]
unsafe fn record_unusual(context: &Context, cell: *mut Cell, end: u64, class: *mut PyObject) -> bool {
    // SAFETY: as for `exit`.
    unsafe {
        let given = (*cell).rich().and_then(|rich| rich.late().error.clone());
        let error = given.or_else(|| if class == ffi::Py_None() { None } else { error_type(class) });
        finish(context, cell, end, error.as_deref())
    }
}

/// Records and reports a scope that was just left. False if an exception is set that has to go on.
unsafe fn finish(context: &Context, cell: *mut Cell, end: u64, error: Option<&str>) -> bool {
    // SAFETY: as for `exit`.
    unsafe {
        let outcome = match error {
            _ if (*cell).rich().is_some_and(|rich| rich.late().is_discarded) => Outcome::Discarded,
            Some(error) => Outcome::Failed(error),
            None => Outcome::Completed,
        };
        let is_recorded = record_native(context, cell, end, outcome);
        !is_recorded || deliver::timing(context, cell, end, error)
    }
}

unsafe fn record_native(context: &Context, cell: *mut Cell, end: u64, outcome: Outcome<'_>) -> bool {
    // SAFETY: as for `exit`. Values may run code of the standard library; the cell's arguments and late attributes are
    // kept by the cell, which the caller keeps, and nobody changes those of a closed one.
    unsafe {
        let telemetry = &context.telemetry;
        let attach = |attributes: &mut raw::Attributes<'_>| {
            if context.keeps_attributes {
                attach(context, cell, attributes);
            }
        };
        if !(*cell).ids().are_of_this_process() {
            return false;
        }
        if outcome == Outcome::Discarded {
            return false;
        }
        if !(*cell).has(flag::FOREIGN) {
            let scope = parts(cell, end);
            let is_bare = outcome == Outcome::Completed && (!context.keeps_attributes || (*cell).extra.is_null());
            let recorded = if is_bare {
                raw::record(telemetry, &scope)
            } else {
                raw::record_with(telemetry, &scope, outcome, attach)
            };
            if recorded != Recorded::Elsewhere {
                return recorded == Recorded::Yes;
            }
        }
        let below = (*cell).below;
        let parent_span_id = match (*cell).rich().and_then(|rich| rich.foreign) {
            Some(foreign) => foreign.parent_span_id,
            None if below.is_null() => 0,
            None => carrier_of(origin_of(below)).span_id(),
        };
        let place = ((*cell).path(), (*cell).depth());
        let frame = Frame::new(carrier_of(cell), parent_span_id, place, (*cell).start);
        raw::close_at(telemetry, &frame, end, outcome, attach)
    }
}

/// Attaches what a scope carries to its record.
unsafe fn attach(context: &Context, cell: *mut Cell, attributes: &mut raw::Attributes<'_>) {
    // SAFETY: as for `record_native`.
    unsafe {
        let captures = context.captures_repr;
        let (names, values) = values_of((*cell).arguments());
        if let Some(keys) = keys::find(names, Kind::Timing).filter(|_| !names.is_null()) {
            for (name, object) in keys.names.iter().zip(values) {
                value::with(*object, captures, |value| attributes.set(*name, value));
            }
        }
        let Some(late) = (*cell).rich().map(|rich| rich.late()) else { return };
        for (key, object) in &late.attributes {
            let name = deliver::key_name(key, Kind::Timing);
            value::with(object.as_ptr(), captures, |value| attributes.set(name, value));
        }
        for event in &late.events {
            attributes.event_with(event.name, event.tick, |attributes| {
                for (key, object) in &event.attributes {
                    let name = raw::name(&super::object::lossy_text(key.as_ptr()));
                    value::with(object.as_ptr(), captures, |value| attributes.set(name, value));
                }
            });
        }
        for link in &late.links {
            attributes.link(*link);
        }
    }
}

/// What tasks are cancelled with.
const CANCELLATIONS: [&str; 2] = ["asyncio.exceptions.CancelledError", "trio.Cancelled"];

/// What failed: the exception's qualified name. None for `GeneratorExit`, which is no failure.
unsafe fn error_type(class: *mut PyObject) -> Option<String> {
    // SAFETY: an object that is alive.
    unsafe {
        if ffi::PyType_Check(class) == 0
            || ffi::PyType_FastSubclass(class.cast(), ffi::Py_TPFLAGS_BASE_EXC_SUBCLASS) == 0
        {
            return None;
        }
        if ffi::PyType_IsSubtype(class.cast(), ffi::PyExc_GeneratorExit.cast()) != 0 {
            return None;
        }
        let mut ancestor = class.cast::<ffi::PyTypeObject>();
        while !ancestor.is_null() {
            if CANCELLATIONS.contains(&value::class_name(ancestor.cast()).as_str()) {
                return Some("cancelled".to_owned());
            }
            ancestor = (*ancestor).tp_base;
            if ancestor == ffi::PyExc_BaseException.cast() || ancestor == ffi::PyExc_Exception.cast() {
                break;
            }
        }
        Some(value::class_name(class))
    }
}

#[cold]
#[inline(never)]
unsafe fn exit_unusual(cell: *mut Cell, class: *mut PyObject, error: *mut PyObject) -> *mut PyObject {
    // SAFETY: as for `exit`.
    unsafe {
        match (*cell).state() {
            flag::OPEN => {
                if locked(cell.cast(), || (*cell).change_state(flag::OPEN, flag::CLOSED)) {
                    stack::pop(cell);
                }
                none()
            }
            flag::PASSING => {
                let mut inner = locked(cell.cast(), || {
                    let inner = (*cell).take_token().cast::<Cell>();
                    // What never had a path needs a name alone for another entry.
                    let next = if inner.is_null() { flag::FRESH } else { flag::CLOSED };
                    (*cell).change_state(flag::PASSING, next);
                    inner
                });
                if inner.is_null() {
                    return none();
                }
                let answer = exit(inner, class, error);
                clear(&mut inner);
                answer
            }
            // Never entered, or left already.
            _ => none(),
        }
    }
}

/// Ends an open scope that nobody can leave any more.
///
/// # Safety
/// The cell is whole; it may be on its way to be freed.
#[cold]
pub(crate) unsafe fn lose(cell: *mut Cell) {
    // SAFETY: as the caller says. Reporters get texts and values, not the cell. An error that is set meanwhile stays so.
    unsafe {
        if !(*cell).change_state(flag::OPEN, flag::CLOSED) {
            return;
        }
        (*cell).set_flags(flag::OVER);
        // It refers to what was innermost before, and through that to ever older ones.
        (*cell).clear_token();
        if (*cell).has(flag::ANCHOR) {
            return;
        }
        let context = owner((*cell).owner);
        if context.is_null() || ffi::Py_IsInitialized() == 0 {
            return;
        }
        let kept = deliver::KeptError::take();
        let end = raw::tick(&(*context).telemetry);
        if !finish(&*context, cell, end, Some("unfinished")) {
            // There is nobody to whom it could be raised.
            ffi::PyErr_WriteUnraisable(context.cast());
        }
        drop_extra(cell);
        kept.restore();
    }
}

#[cold]
unsafe fn decorate(object: *mut PyObject, function: *mut PyObject) -> *mut PyObject {
    // SAFETY: both are alive.
    unsafe {
        let cell = object.cast::<Cell>();
        if (*cell).state() == flag::OPEN || (*cell).has(flag::ANCHOR) {
            let message = c"a scope that is open does not decorate: use @tele(\"name\")";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
            return ptr::null_mut();
        }
        let module = ffi::PyImport_ImportModule(c"kastor._decorate".as_ptr());
        if module.is_null() {
            return module;
        }
        let mut module = module;
        let mut decorate = ffi::PyObject_GetAttrString(module, c"decorate".as_ptr());
        clear(&mut module);
        if decorate.is_null() {
            return decorate;
        }
        let answer = ffi::PyObject_CallFunctionObjArgs(decorate, object, function, ptr::null_mut::<PyObject>());
        clear(&mut decorate);
        answer
    }
}

/// `__enter__` as an ordinary method.
pub(crate) unsafe extern "C" fn enter_method(object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: a method of the scope type.
    unsafe { enter(object.cast()) }
}

/// `__exit__` as an ordinary method.
pub(crate) unsafe extern "C" fn exit_method(
    object: *mut PyObject,
    args: *mut *mut PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: a method of the scope type, called by the protocol of fast calls.
    unsafe {
        if nargs != 3 {
            let message = c"__exit__ takes an exception's class, the exception and its traceback";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
            return ptr::null_mut();
        }
        exit(object.cast(), *args, *args.add(1))
    }
}

/// A new scope of the same context, name and arguments, for a decorator.
///
/// # Safety
/// `cell` is a scope that is alive.
pub(crate) unsafe fn copy(cell: *mut Cell) -> *mut PyObject {
    // SAFETY: as the caller says.
    unsafe {
        let context = owner((*cell).owner);
        let (keys, values) = values_of((*cell).arguments());
        let mut arguments: *mut Arguments = ptr::null_mut();
        if !keys.is_null() {
            arguments = new_arguments(keys, values);
            if arguments.is_null() {
                return ptr::null_mut();
            }
        }
        let mut name = locked(cell.cast(), || match (*cell).rich().and_then(|rich| rich.name.as_ref()) {
            Some(name) => new_ref(name.as_ptr()),
            None if (*cell).state() == flag::FRESH => super::object::new_text((*cell).named.name.text()),
            None => super::object::new_text((*cell).name().text()),
        });
        if name.is_null() {
            drop(ArgumentsPtr(arguments));
            return name;
        }
        let copied = super::context::fresh(context, name, arguments);
        clear(&mut name);
        copied
    }
}
