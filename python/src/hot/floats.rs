//! `float` objects that are used again.
//!
//! A timing is delivered with six of them, and a reporter seldom keeps one: what nobody else refers to after the call gets
//! the next event's number, instead of being freed and made anew.

use pyo3::ffi::{self, PyObject};

use super::object::clear;

/// A new reference to a `float`; null, with an error set, without memory.
///
/// # Safety
/// The thread is attached.
#[inline(always)]
pub(crate) unsafe fn take(number: f64) -> *mut PyObject {
    // SAFETY: as the caller says; what is kept is a `float` that nobody else refers to, so that nobody sees it change.
    unsafe {
        #[cfg(not(Py_GIL_DISABLED))]
        if let Some(object) = kept::take() {
            (*object.cast::<ffi::PyFloatObject>()).ob_fval = number;
            return object;
        }
        ffi::PyFloat_FromDouble(number)
    }
}

/// Gives a reference to any object back, or null; keeps a `float` that nobody else refers to.
///
/// # Safety
/// Null, or a reference of the caller's; the thread is attached.
#[inline(always)]
pub(crate) unsafe fn give_back(mut object: *mut PyObject) {
    // SAFETY: as the caller says; the type is exact, so that the object has no more than its number.
    unsafe {
        #[cfg(not(Py_GIL_DISABLED))]
        if !object.is_null()
            && ffi::Py_REFCNT(object) == 1
            && ffi::Py_TYPE(object) == &raw mut ffi::PyFloat_Type
            && kept::give(object)
        {
            return;
        }
        clear(&mut object);
    }
}

#[cfg(not(Py_GIL_DISABLED))]
mod kept {
    use std::{cell::UnsafeCell, ptr};

    use super::PyObject;

    /// As many as two events need, one of them reported while another one is.
    const MAX: usize = 12;

    struct Kept(UnsafeCell<([*mut PyObject; MAX], usize)>);

    // SAFETY: touched with the GIL held alone.
    unsafe impl Sync for Kept {}

    static KEPT: Kept = Kept(UnsafeCell::new(([ptr::null_mut(); MAX], 0)));

    #[inline(always)]
    pub(super) unsafe fn take() -> Option<*mut PyObject> {
        // SAFETY: the GIL is held; nothing else refers to the list meanwhile.
        let (list, len) = unsafe { &mut *KEPT.0.get() };
        let at = len.checked_sub(1)?;
        *len = at;
        list.get(at).copied()
    }

    #[inline(always)]
    pub(super) unsafe fn give(object: *mut PyObject) -> bool {
        // SAFETY: as in `take`.
        let (list, len) = unsafe { &mut *KEPT.0.get() };
        match list.get_mut(*len) {
            Some(place) => {
                *place = object;
                *len += 1;
                true
            }
            None => false,
        }
    }
}
