//! The numbers of a timing as `float` objects that are used again.
//!
//! A timing is delivered with five of them, and a reporter seldom keeps one: what nobody else refers to after the call gets
//! the next event's number, instead of being freed and made anew.

use std::ptr;

use pyo3::ffi::{self, PyObject};

/// As many as a timing has.
const COUNT: usize = 5;

/// Owned references to `float`s.
pub(crate) struct Numbers([*mut PyObject; COUNT]);

impl Numbers {
    /// The numbers as objects; none without memory.
    ///
    /// # Safety
    /// The thread is attached.
    #[inline(always)]
    pub(crate) unsafe fn new(numbers: [f64; COUNT]) -> Option<Self> {
        // SAFETY: as the caller says; what is kept is a `float` that nobody else refers to, so that nobody sees it change.
        unsafe {
            let mut objects = kept::take();
            for (object, number) in objects.iter_mut().zip(numbers) {
                if object.is_null() {
                    *object = ffi::PyFloat_FromDouble(number);
                } else {
                    (*object.cast::<ffi::PyFloatObject>()).ob_fval = number;
                }
            }
            if objects.iter().any(|object| object.is_null()) {
                ffi::PyErr_Clear();
                Self(objects).give_back();
                return None;
            }
            Some(Self(objects))
        }
    }

    #[inline(always)]
    pub(crate) fn objects(&self) -> [*mut PyObject; COUNT] {
        self.0
    }

    /// Gives the references back, or keeps them for the next event.
    ///
    /// # Safety
    /// The thread is attached.
    #[inline(always)]
    pub(crate) unsafe fn give_back(self) {
        let mut objects = self.0;
        // SAFETY: owned references, or null. Freeing a `float` runs no code of the program.
        unsafe {
            for object in &mut objects {
                if !kept::IS_KEPT || !object.is_null() && ffi::Py_REFCNT(*object) != 1 {
                    ffi::Py_XDECREF(*object);
                    *object = ptr::null_mut();
                }
            }
            kept::give(objects);
        }
    }
}

#[cfg(not(free_threaded))]
mod kept {
    use std::{cell::UnsafeCell, ptr};

    use super::{COUNT, PyObject, ffi};

    pub(super) const IS_KEPT: bool = true;

    /// All of them null while they are in use.
    struct Kept(UnsafeCell<[*mut PyObject; COUNT]>);

    // SAFETY: touched with the GIL held alone.
    unsafe impl Sync for Kept {}

    static KEPT: Kept = Kept(UnsafeCell::new([ptr::null_mut(); COUNT]));

    #[inline(always)]
    pub(super) unsafe fn take() -> [*mut PyObject; COUNT] {
        // SAFETY: the GIL is held; nothing else refers to the list meanwhile.
        unsafe { std::mem::replace(&mut *KEPT.0.get(), [ptr::null_mut(); COUNT]) }
    }

    #[inline(always)]
    pub(super) unsafe fn give(objects: [*mut PyObject; COUNT]) {
        // SAFETY: as in `take`. What another event gave back meanwhile is freed, which runs no code.
        unsafe {
            for object in std::mem::replace(&mut *KEPT.0.get(), objects) {
                ffi::Py_XDECREF(object);
            }
        }
    }
}

#[cfg(free_threaded)]
mod kept {
    use super::{COUNT, PyObject, ptr};

    pub(super) const IS_KEPT: bool = false;

    pub(super) unsafe fn take() -> [*mut PyObject; COUNT] {
        [ptr::null_mut(); COUNT]
    }

    pub(super) unsafe fn give(_: [*mut PyObject; COUNT]) {}
}
