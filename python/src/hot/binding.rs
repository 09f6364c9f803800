//! The descriptor that binds a scope to itself.
//!
//! `with` looks `__enter__` and `__exit__` up in the type; up to 3.13 an ordinary method makes a bound object each time. This
//! descriptor answers with the scope, which is callable: no argument enters, three leave. `contextlib.ExitStack` asks the
//! type alone and passes the scope: then the descriptor itself is called, with one argument more.

use std::ptr;

use pyo3::ffi::{self, PyObject};

use super::{cell, object::new_ref, scope};

/// The descriptor.
#[repr(C)]
pub(crate) struct Binding {
    head: PyObject,
    pub(crate) call: Option<ffi::vectorcallfunc>,
}

/// Makes one.
///
/// # Safety
/// `class` is the type; the thread is attached.
pub(crate) unsafe fn new(class: *mut ffi::PyTypeObject) -> *mut PyObject {
    // SAFETY: as the caller says; the memory is zeroed but for its head.
    unsafe {
        let binding = ffi::PyType_GenericAlloc(class, 0).cast::<Binding>();
        if !binding.is_null() {
            (*binding).call = Some(call);
        }
        binding.cast()
    }
}

/// `tp_descr_get`.
pub(crate) unsafe extern "C" fn get(object: *mut PyObject, scope: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: the interpreter passes objects that are alive; null where the type itself was asked.
    unsafe { new_ref(if scope.is_null() { object } else { scope }) }
}

unsafe extern "C" fn call(
    _: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    _: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the vectorcall protocol; the type of the scope is checked.
    unsafe {
        let given = ffi::PyVectorcall_NARGS(nargsf);
        if given > 0 && ffi::Py_TYPE(*args) == cell::TYPE.load(std::sync::atomic::Ordering::Relaxed) {
            match given {
                1 => return scope::enter((*args).cast()),
                4 => return scope::exit((*args).cast(), *args.add(1), *args.add(2)),
                _ => {}
            }
        }
        ffi::PyErr_SetString(ffi::PyExc_TypeError, c"expected a kastor scope".as_ptr());
        ptr::null_mut()
    }
}

/// `tp_dealloc`.
pub(crate) unsafe extern "C" fn dealloc(object: *mut PyObject) {
    // SAFETY: the interpreter frees an object that nobody refers to.
    unsafe {
        let class = ffi::Py_TYPE(object);
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}
