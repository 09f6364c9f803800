//! The few things that everything here does with objects. All of it needs an attached thread.

use std::ptr::{self, NonNull};

use pyo3::ffi::{self, PyObject};

use super::calls::give_back;

/// A reference that is given back when it is dropped.
pub(crate) struct Owned(NonNull<PyObject>);

// SAFETY: dropped and used by attached threads alone: what holds one belongs to a Python object, or to a table that only
// Python threads touch.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Owned {
    /// Takes a reference over; none for null.
    ///
    /// # Safety
    /// The caller owns one reference, and gives it up.
    pub(crate) unsafe fn take(object: *mut PyObject) -> Option<Self> {
        NonNull::new(object).map(Self)
    }

    /// A reference of one's own to an object.
    ///
    /// # Safety
    /// The object is alive.
    pub(crate) unsafe fn share(object: *mut PyObject) -> Option<Self> {
        // SAFETY: as the caller says; null is left alone.
        unsafe {
            ffi::Py_XINCREF(object);
            Self::take(object)
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut PyObject {
        self.0.as_ptr()
    }

    /// Gives the reference away.
    pub(crate) fn into_ptr(self) -> *mut PyObject {
        let object = self.as_ptr();
        std::mem::forget(self);
        object
    }
}

impl Clone for Owned {
    fn clone(&self) -> Self {
        // SAFETY: alive, since this holds a reference.
        unsafe { ffi::Py_INCREF(self.as_ptr()) };
        Self(self.0)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: this owns one reference.
        unsafe { give_back(self.as_ptr()) };
    }
}

/// A new reference to the same object.
///
/// # Safety
/// The object is alive.
#[inline(always)]
pub(crate) unsafe fn new_ref<T>(object: *mut T) -> *mut T {
    // SAFETY: as the caller says.
    unsafe { ffi::Py_INCREF(object.cast()) };
    object
}

/// A new reference to None.
#[inline(always)]
pub(crate) fn none() -> *mut PyObject {
    // SAFETY: None is alive as long as the interpreter.
    unsafe { new_ref(ffi::Py_None()) }
}

/// Gives a reference back and forgets it.
///
/// # Safety
/// `place` is null or owns a reference.
#[inline(always)]
pub(crate) unsafe fn clear<T>(place: &mut *mut T) {
    let object = std::mem::replace(place, ptr::null_mut());
    // SAFETY: as the caller says.
    unsafe { ffi::Py_XDECREF(object.cast()) };
}

/// Runs `f` while no other thread is at it with the same object: as the holder of its lock where there is no GIL.
///
/// # Safety
/// The object is alive, and the thread is attached; `f` does not unwind.
#[inline(always)]
pub(crate) unsafe fn locked<T>(object: *mut PyObject, f: impl FnOnce() -> T) -> T {
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: as the caller says; the section is ended below, in the order of nesting.
    unsafe {
        let mut section = std::mem::MaybeUninit::uninit();
        ffi::PyCriticalSection_Begin(section.as_mut_ptr(), object);
        let answer = f();
        ffi::PyCriticalSection_End(section.as_mut_ptr());
        answer
    }
    #[cfg(not(Py_GIL_DISABLED))]
    {
        let _ = object;
        f()
    }
}

/// Whether an object is decorated: a function, or what a class keeps instead of one.
///
/// # Safety
/// The object is alive.
pub(crate) unsafe fn is_function(object: *mut PyObject) -> bool {
    // SAFETY: as the caller says.
    unsafe { ffi::PyCallable_Check(object) != 0 || (*ffi::Py_TYPE(object)).tp_descr_get.is_some() }
}

/// The UTF-8 text of a `str`, if it has one: not with lone surrogates. The text lives as long as the object.
///
/// # Safety
/// `text` is a `str`.
#[inline]
pub(crate) unsafe fn utf8<'a>(text: *mut PyObject) -> Option<&'a str> {
    let mut len = 0;
    // SAFETY: a `str`, as the caller says; the bytes are valid UTF-8 and live as long as the object.
    unsafe {
        let bytes = ffi::PyUnicode_AsUTF8AndSize(text, &raw mut len);
        if bytes.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        Some(std::str::from_utf8_unchecked(std::slice::from_raw_parts(bytes.cast(), len as usize)))
    }
}

/// The text of a `str` with U+FFFD for every lone surrogate.
///
/// # Safety
/// `text` is a `str`.
pub(crate) unsafe fn lossy_text(text: *mut PyObject) -> String {
    // SAFETY: as the caller says.
    unsafe {
        if let Some(text) = utf8(text) {
            return text.to_owned();
        }
        let len = ffi::PyUnicode_GetLength(text);
        (0..len).map(|at| char::from_u32(ffi::PyUnicode_ReadChar(text, at)).unwrap_or('\u{fffd}')).collect()
    }
}

/// A new `str`; null, with an error set, without memory.
pub(crate) fn new_text(text: &str) -> *mut PyObject {
    // SAFETY: pointer and length are of one text, and it is UTF-8.
    unsafe { ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as ffi::Py_ssize_t) }
}

/// The items of a tuple.
///
/// # Safety
/// `tuple` is a tuple or null, and stays alive as long as the answer is used.
#[inline(always)]
pub(crate) unsafe fn items<'a>(tuple: *mut PyObject) -> &'a [*mut PyObject] {
    if tuple.is_null() {
        return &[];
    }
    // SAFETY: a tuple, whose items lie one after another.
    unsafe {
        let len = ffi::PyTuple_GET_SIZE(tuple) as usize;
        std::slice::from_raw_parts((*tuple.cast::<ffi::PyTupleObject>()).ob_item.as_ptr(), len)
    }
}

/// The values of a call: positional ones first, then those of `keys`.
///
/// # Safety
/// As the vectorcall protocol says of `args`, `nargs` and `keys`.
#[inline(always)]
pub(crate) unsafe fn call_arguments<'a>(
    args: *const *mut PyObject,
    nargs: usize,
    keys: *mut PyObject,
) -> (&'a [*mut PyObject], &'a [*mut PyObject]) {
    // SAFETY: as the caller says. `args` may be null if there are none.
    unsafe {
        let named = items(keys).len();
        if nargs + named == 0 {
            return (&[], &[]);
        }
        (std::slice::from_raw_parts(args, nargs), std::slice::from_raw_parts(args.add(nargs), named))
    }
}
