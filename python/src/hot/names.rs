//! From `str` objects to interned names, by address.
//!
//! A call site's name is one constant object: its address finds the name in one step. The table is bounded and holds a
//! reference to what it knows, so that no address comes to mean another text. Only exact `str`s are in it: their text
//! never changes. Without the GIL there is no such table; the core's own takes no lock for reading.

use kastor::raw::{self, Name};
use pyo3::ffi::{self, PyObject};

use super::object::{lossy_text, utf8};

/// A name, with what else is known of the text.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) name: Name,
    /// Whether it has the form that strict mode asks for.
    pub(crate) is_recommended: bool,
    /// Whether the interned text is not the whole text: too long, too many, or with lone surrogates.
    pub(crate) is_cut: bool,
}

/// What a `str` is called; none if it is empty or no `str`.
///
/// # Safety
/// `text` is an object.
#[inline]
pub(crate) unsafe fn find(text: *mut PyObject) -> Option<Known> {
    // SAFETY: an object, as the caller says.
    unsafe {
        #[cfg(not(free_threaded))]
        if ffi::PyUnicode_CheckExact(text) != 0 {
            return table::find(text);
        }
        look_up(text)
    }
}

#[cold]
#[inline(never)]
unsafe fn look_up(text: *mut PyObject) -> Option<Known> {
    // SAFETY: an object, as the caller says.
    unsafe {
        if ffi::PyUnicode_Check(text) == 0 || ffi::PyUnicode_GetLength(text) == 0 {
            return None;
        }
        Some(match utf8(text) {
            Some(text) => known(text, false),
            None => known(&lossy_text(text), true),
        })
    }
}

fn known(text: &str, is_cut: bool) -> Known {
    let name = raw::name(text);
    Known { name, is_recommended: raw::is_recommended(text), is_cut: is_cut || name.text() != text }
}

#[cfg(not(free_threaded))]
mod table {
    use std::cell::UnsafeCell;

    use kastor::raw::Name;
    use pyo3::ffi::{self, PyObject};

    use super::{Known, look_up};
    use crate::hot::object::new_ref;

    /// A power of two; 64 KiB.
    const SLOTS: usize = 1 << 12;

    #[derive(Clone, Copy)]
    struct Slot {
        /// Holds a reference; null while unused.
        text: *mut PyObject,
        name: Name,
        is_recommended: bool,
        is_cut: bool,
    }

    struct Table(UnsafeCell<Vec<Slot>>);

    // SAFETY: touched with the GIL held alone.
    unsafe impl Sync for Table {}

    static TABLE: Table = Table(UnsafeCell::new(Vec::new()));

    /// # Safety
    /// `text` is an exact `str`, and the GIL is held.
    #[inline]
    pub(super) unsafe fn find(text: *mut PyObject) -> Option<Known> {
        // SAFETY: the GIL is held, and no reference into the table outlives this function.
        let slot = unsafe { (&*TABLE.0.get()).get(place(text)).copied() };
        match slot {
            Some(Slot { text: known, name, is_recommended, is_cut }) if known == text => {
                Some(Known { name, is_recommended, is_cut })
            }
            // SAFETY: as above.
            _ => unsafe { add(text) },
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn add(text: *mut PyObject) -> Option<Known> {
        // SAFETY: an exact `str`; the GIL is held.
        unsafe {
            let known = look_up(text)?;
            let table = &mut *TABLE.0.get();
            if table.is_empty() {
                let unused =
                    Slot { text: std::ptr::null_mut(), name: known.name, is_recommended: false, is_cut: false };
                table.resize(SLOTS, unused);
            }
            if let Some(slot) = table.get_mut(place(text)) {
                let Known { name, is_recommended, is_cut } = known;
                let old = std::mem::replace(slot, Slot { text: new_ref(text), name, is_recommended, is_cut });
                // An exact `str`: giving it back runs no code of the program.
                ffi::Py_XDECREF(old.text);
            }
            Some(known)
        }
    }

    #[inline(always)]
    fn place(text: *mut PyObject) -> usize {
        (text as usize >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - SLOTS.trailing_zeros())
    }
}
