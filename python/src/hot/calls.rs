//! Calls to the interpreter in which the program's code may run, and with it another thread.
//!
//! Up to 3.13 an interpreter that finalizes ends daemon threads where they wait for the GIL: it unwinds them, without the
//! GIL. What they own must not be given back then, and a Rust frame that catches panics aborts the process. So a thread that
//! is ended in one of these calls stays in it until the process ends, as the interpreter itself has it from 3.14 on.
//!
//! Nothing that is dropped may stand between such a call and the guard, and the compiler must not know what is called: `ffi`
//! declares that none of this unwinds, and frames of such calls lead to the wrong landing pad.

use std::{ffi::CStr, ptr};

use pyo3::{
    ffi::{self, PyObject},
    prelude::*,
    types::{PyDict, PyString, PyTuple},
};

use super::object::Owned;

/// Dropped while a thread is unwound.
struct Ended;

impl Drop for Ended {
    #[cold]
    fn drop(&mut self) {
        // A panic of our own goes on.
        while !std::thread::panicking() {
            std::thread::park();
        }
    }
}

/// Calls a function of the interpreter, given with its types. Unsafe as that function: the pointer is to the same one, of
/// which no more is said than that it may unwind.
macro_rules! call {
    ($function:path: ($($argument:expr => $type:ty),*) $(-> $answer:ty)?) => {{
        let function: unsafe extern "C" fn($($type),*) $(-> $answer)? = $function;
        let function: unsafe extern "C-unwind" fn($($type),*) $(-> $answer)? =
            std::mem::transmute(std::hint::black_box(function));
        let ended = Ended;
        let answer = function($($argument),*);
        std::mem::forget(ended);
        answer
    }};
}

/// Calls a method: as `PyObject_VectorcallMethod`.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn method(
    name: *mut PyObject,
    arguments: *const *mut PyObject,
    positional: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as the caller says.
    unsafe {
        call!(ffi::PyObject_VectorcallMethod: (
            name => *mut PyObject, arguments => *const *mut PyObject, positional => usize, names => *mut PyObject
        ) -> *mut PyObject)
    }
}

/// A module, imported if need be: another thread may be at it.
pub(crate) fn module<'py>(python: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let name = PyString::new(python, name);
    // SAFETY: the name is held; the answer is a new reference, or null with an error.
    unsafe {
        let module = call!(ffi::PyImport_Import: (name.as_ptr() => *mut PyObject) -> *mut PyObject);
        Bound::from_owned_ptr_or_err(python, module)
    }
}

/// Calls an object.
pub(crate) fn object<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
    named: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let arguments = arguments.into_pyobject(callable.py()).map_err(Into::into)?;
    let named = named.map_or(ptr::null_mut(), |named| named.as_ptr());
    // SAFETY: all of them are held; the answer is a new reference, or null with an error.
    unsafe {
        let answer = call!(ffi::PyObject_Call: (
            callable.as_ptr() => *mut PyObject, arguments.as_ptr() => *mut PyObject, named => *mut PyObject
        ) -> *mut PyObject);
        Bound::from_owned_ptr_or_err(callable.py(), answer)
    }
}

/// Calls an object with one argument; none, with an error set, if it raised.
///
/// # Safety
/// Both are alive, and the thread is attached.
pub(crate) unsafe fn with_one(callable: *mut PyObject, argument: *mut PyObject) -> Option<Owned> {
    // SAFETY: as the caller says; the answer is a new reference, or null.
    unsafe {
        let arguments = super::keys::tuple(vec![Owned::share(argument)?])?;
        Owned::take(call!(ffi::PyObject_Call: (
            callable => *mut PyObject, arguments.as_ptr() => *mut PyObject, ptr::null_mut() => *mut PyObject
        ) -> *mut PyObject))
    }
}

/// An attribute of an object.
pub(crate) fn get<'py>(object: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both are held; the answer is a new reference, or null with an error.
    unsafe {
        let answer = call!(ffi::PyObject_GetAttr: (
            object.as_ptr() => *mut PyObject, name.as_ptr() => *mut PyObject
        ) -> *mut PyObject);
        Bound::from_owned_ptr_or_err(object.py(), answer)
    }
}

/// An attribute; none, with an error set, if there is none.
///
/// # Safety
/// The object is alive, and the thread is attached.
pub(crate) unsafe fn attribute(object: *mut PyObject, name: &CStr) -> Option<Owned> {
    // SAFETY: as the caller says; the answer is a new reference, or null.
    unsafe {
        Owned::take(call!(ffi::PyObject_GetAttrString: (
            object => *mut PyObject, name.as_ptr() => *const std::ffi::c_char
        ) -> *mut PyObject))
    }
}

/// The `repr` of an object; none, with an error set, if it raised.
///
/// # Safety
/// The object is alive, and the thread is attached.
pub(crate) unsafe fn repr(object: *mut PyObject) -> Option<Owned> {
    // SAFETY: as the caller says; the answer is a new reference, or null.
    unsafe { Owned::take(call!(ffi::PyObject_Repr: (object => *mut PyObject) -> *mut PyObject)) }
}

/// An object as a number; with an error set if it raised.
///
/// # Safety
/// The object is alive, and the thread is attached.
pub(crate) unsafe fn float(object: *mut PyObject) -> f64 {
    // SAFETY: as the caller says.
    unsafe { call!(ffi::PyFloat_AsDouble: (object => *mut PyObject) -> f64) }
}

/// Gives a reference back to an object of the program, which may have a finalizer.
///
/// # Safety
/// `object` is null or a reference of the caller's, and the thread is attached.
#[inline(always)]
pub(crate) unsafe fn give_back(object: *mut PyObject) {
    // SAFETY: as the caller says.
    unsafe {
        if cfg!(not(Py_3_14)) && !object.is_null() && ffi::Py_REFCNT(object) == 1 {
            free(object);
        } else {
            ffi::Py_XDECREF(object);
        }
    }
}

#[inline(never)]
unsafe fn free(object: *mut PyObject) {
    // SAFETY: as for `give_back`.
    unsafe { call!(ffi::Py_DecRef: (object => *mut PyObject)) }
}
