//! The disabled context: one shared object that does nothing, allocates nothing and checks nothing.
//!
//! `tele("name")` is the object itself; called with a function it returns the function. Up to 3.13 half the cost of a
//! `with` on an ordinary context manager is the making of two bound methods: here `__enter__` and `__exit__` are plain
//! built-in functions in the type, which bind nothing. From 3.14 methods are as fast.

use std::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering::Relaxed},
};

use pyo3::ffi::{self, PyObject};

use super::object::{call_arguments, is_function, new_ref, none};

/// The object.
#[repr(C)]
pub(crate) struct Disabled {
    head: PyObject,
    pub(crate) call: Option<ffi::vectorcallfunc>,
}

/// The one object; set when the module is made.
pub(crate) static SINGLETON: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Makes the one object.
///
/// # Safety
/// `class` is the type; the thread is attached.
pub(crate) unsafe fn new(class: *mut ffi::PyTypeObject) -> *mut PyObject {
    // SAFETY: as the caller says; the memory is zeroed but for its head.
    unsafe {
        let disabled = ffi::PyType_GenericAlloc(class, 0).cast::<Disabled>();
        if !disabled.is_null() {
            (*disabled).call = Some(call);
        }
        disabled.cast()
    }
}

unsafe extern "C" fn call(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the vectorcall protocol.
    unsafe {
        let given = ffi::PyVectorcall_NARGS(nargsf) as usize;
        if given == 1 && keys.is_null() && ffi::PyUnicode_CheckExact(*args) == 0 && is_function(*args) {
            return new_ref(*args);
        }
        new_ref(object)
    }
}

/// `time(name, **metadata)`.
pub(crate) unsafe extern "C" fn time(
    object: *mut PyObject,
    _: *const *mut PyObject,
    _: ffi::Py_ssize_t,
    _: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: a method's object is alive.
    unsafe { new_ref(object) }
}

/// Every method that would record something.
pub(crate) unsafe extern "C" fn nothing(
    _: *mut PyObject,
    _: *const *mut PyObject,
    _: ffi::Py_ssize_t,
    _: *mut PyObject,
) -> *mut PyObject {
    none()
}

/// `__enter__`, called with the object, or without anything.
pub(crate) unsafe extern "C" fn enter(_: *mut PyObject, _: *mut *mut PyObject, _: ffi::Py_ssize_t) -> *mut PyObject {
    // SAFETY: the object lives for ever.
    unsafe { new_ref(SINGLETON.load(Relaxed)) }
}

/// `__exit__`.
pub(crate) unsafe extern "C" fn exit(_: *mut PyObject, _: *mut *mut PyObject, _: ffi::Py_ssize_t) -> *mut PyObject {
    none()
}

/// `carry(function)`: the function.
pub(crate) unsafe extern "C" fn carry(
    _: *mut PyObject,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the protocol of fast calls.
    unsafe { call_arguments(args, nargs as usize, keys).0.first().map_or_else(none, |function| new_ref(*function)) }
}

/// `tp_dealloc`: never called in order.
pub(crate) unsafe extern "C" fn dealloc(object: *mut PyObject) {
    // SAFETY: the one object is not freed: bring it back.
    unsafe { ffi::Py_INCREF(object) };
}
