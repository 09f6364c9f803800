//! The keyword arguments of a scope, from the call until its record is written.

use std::ptr;

use pyo3::ffi::{self, PyObject};

use super::{
    calls::give_back,
    object::{items, new_ref},
};

/// Keyword arguments as they were given: the call site's tuple of names, and the values.
#[repr(C)]
pub(crate) struct Arguments {
    pub(crate) keys: *mut PyObject,
    values: [*mut PyObject; 0],
}

/// A pointer to arguments that is freed with its owner.
pub(crate) struct ArgumentsPtr(pub(crate) *mut Arguments);

impl Drop for ArgumentsPtr {
    fn drop(&mut self) {
        // SAFETY: this owns them.
        unsafe { free_arguments(self.0) };
    }
}

/// The arguments of a call; null, with an error set, without memory.
///
/// # Safety
/// `keys` is a tuple as long as `values`; all are alive.
#[inline]
pub(crate) unsafe fn new_arguments(keys: *mut PyObject, values: &[*mut PyObject]) -> *mut Arguments {
    // SAFETY: the memory has room for the head and all values, which are written before anyone reads them.
    unsafe {
        let arguments = block::allocate(values.len()).cast::<Arguments>();
        if arguments.is_null() {
            ffi::PyErr_NoMemory();
            return arguments;
        }
        (*arguments).keys = new_ref(keys);
        let place = (&raw mut (*arguments).values).cast::<*mut PyObject>();
        for (at, value) in values.iter().enumerate() {
            place.add(at).write(new_ref(*value));
        }
        arguments
    }
}

/// Names and values of arguments.
///
/// # Safety
/// `arguments` is null or alive as long as the answer is used.
#[inline]
pub(crate) unsafe fn values_of<'a>(arguments: *mut Arguments) -> (*mut PyObject, &'a [*mut PyObject]) {
    if arguments.is_null() {
        return (ptr::null_mut(), &[]);
    }
    // SAFETY: there are as many values as names.
    unsafe {
        let keys = (*arguments).keys;
        let values = (&raw const (*arguments).values).cast::<*mut PyObject>();
        (keys, std::slice::from_raw_parts(values, items(keys).len()))
    }
}

/// # Safety
/// Nobody uses them any more.
pub(crate) unsafe fn free_arguments(arguments: *mut Arguments) {
    if arguments.is_null() {
        return;
    }
    // SAFETY: as the caller says; each reference was taken in `new_arguments`.
    unsafe {
        let (keys, values) = values_of(arguments);
        let len = values.len();
        values.iter().rev().for_each(|value| give_back(*value));
        ffi::Py_DECREF(keys);
        block::free(arguments.cast(), len);
    }
}

/// Memory for the names and values of a call: the usual sizes are kept and used again.
mod block {
    use std::ffi::c_void;

    use pyo3::ffi;

    /// # Safety
    /// The thread is attached.
    #[inline(always)]
    pub(super) unsafe fn allocate(values: usize) -> *mut c_void {
        // SAFETY: as the caller says.
        unsafe {
            #[cfg(not(free_threaded))]
            if let Some(block) = kept::take(values) {
                return block;
            }
            ffi::PyMem_Malloc((values + 1) * size_of::<usize>())
        }
    }

    /// # Safety
    /// `block` comes from [`allocate`] with as many values, and nobody uses it any more; the thread is attached.
    #[inline(always)]
    pub(super) unsafe fn free(block: *mut c_void, values: usize) {
        // SAFETY: as the caller says.
        unsafe {
            #[cfg(not(free_threaded))]
            if kept::give(block, values) {
                return;
            }
            let _ = values;
            ffi::PyMem_Free(block);
        }
    }

    #[cfg(not(free_threaded))]
    mod kept {
        use std::{cell::UnsafeCell, ffi::c_void, ptr};

        /// Sizes that are kept: up to so many values.
        const SIZES: usize = 4;
        /// Blocks of each size.
        const BLOCKS: usize = 16;

        type Blocks = ([*mut c_void; BLOCKS], usize);

        struct Kept(UnsafeCell<[Blocks; SIZES]>);

        // SAFETY: touched with the GIL held alone.
        unsafe impl Sync for Kept {}

        static KEPT: Kept = Kept(UnsafeCell::new([([ptr::null_mut(); BLOCKS], 0); SIZES]));

        #[inline(always)]
        pub(super) unsafe fn take(values: usize) -> Option<*mut c_void> {
            // SAFETY: the GIL is held; nothing else refers to the blocks meanwhile.
            let all = unsafe { &mut *KEPT.0.get() };
            let (blocks, len) = all.get_mut(values.wrapping_sub(1))?;
            let at = len.checked_sub(1)?;
            *len = at;
            blocks.get(at).copied()
        }

        #[inline(always)]
        pub(super) unsafe fn give(block: *mut c_void, values: usize) -> bool {
            // SAFETY: as in `take`.
            let all = unsafe { &mut *KEPT.0.get() };
            let Some((blocks, len)) = all.get_mut(values.wrapping_sub(1)) else { return false };
            match blocks.get_mut(*len) {
                Some(place) => {
                    *place = block;
                    *len += 1;
                    true
                }
                None => false,
            }
        }
    }
}
