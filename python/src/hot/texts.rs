//! Paths as `str` objects: made once per path, and whole where the interned path is not.

use kastor::raw::Path;
use pyo3::ffi::PyObject;

use super::{
    cell::{Cell, flag, origin_of},
    object::{lossy_text, new_text},
};

/// The path of a scope that was opened, a new reference; null, with an error set, without memory.
///
/// # Safety
/// The cell is alive and no stand-in.
#[inline]
pub(crate) unsafe fn of_scope(cell: *mut Cell) -> *mut PyObject {
    // SAFETY: as the caller says.
    unsafe { if (*cell).has(flag::CUT) { whole(cell) } else { of_path((*cell).path()) } }
}

/// The path of the scope around a cell, or None; as [`of_scope`].
///
/// # Safety
/// As [`of_scope`].
#[inline]
pub(crate) unsafe fn of_parent(cell: *mut Cell) -> *mut PyObject {
    // SAFETY: a cell keeps the one below; that does not change while the scope is open.
    unsafe {
        let below = (*cell).below;
        if below.is_null() || !(*origin_of(below)).has_path() {
            return super::object::none();
        }
        of_scope(origin_of(below))
    }
}

/// Puts a path together from its cells, for as long as they are not interned whole.
#[cold]
unsafe fn whole(cell: *mut Cell) -> *mut PyObject {
    // SAFETY: a cell keeps the one below.
    unsafe {
        let (mut cut, mut at, mut text) = (Vec::new(), cell, String::new());
        loop {
            let this = &*at;
            if !this.has(flag::CUT) {
                text.push_str(this.path().text());
                break;
            }
            cut.push(at);
            let below = if this.below.is_null() { this.below } else { origin_of(this.below) };
            if below.is_null() || !(*below).has_path() {
                break;
            }
            at = below;
        }
        for cell in cut.into_iter().rev() {
            if !text.is_empty() {
                text.push('.');
            }
            match (*cell).rich().and_then(|rich| rich.name.as_ref()) {
                Some(name) => text.push_str(&lossy_text(name.as_ptr())),
                None => text.push_str((*cell).name().text()),
            }
        }
        new_text(&text)
    }
}

/// The text of an interned path, a new reference; null, with an error set, without memory.
///
/// # Safety
/// The thread is attached.
#[inline]
pub(crate) unsafe fn of_path(path: Path) -> *mut PyObject {
    #[cfg(not(free_threaded))]
    // SAFETY: as the caller says.
    return unsafe { table::find(path) };
    #[cfg(free_threaded)]
    new_text(path.text())
}

#[cfg(not(free_threaded))]
mod table {
    use std::{cell::UnsafeCell, ptr};

    use kastor::raw;
    use pyo3::ffi;

    use super::{Path, PyObject, new_text};
    use crate::hot::object::new_ref;

    /// By the path's number, of which there are boundedly many; null while unknown.
    struct Table(UnsafeCell<Vec<*mut PyObject>>);

    // SAFETY: touched with the GIL held alone.
    unsafe impl Sync for Table {}

    static TABLE: Table = Table(UnsafeCell::new(Vec::new()));

    #[inline]
    pub(super) unsafe fn find(path: Path) -> *mut PyObject {
        // SAFETY: the GIL is held; making a `str` runs no code of the program.
        unsafe {
            let at = raw::path_index(path) as usize;
            if let Some(known) = (&*TABLE.0.get()).get(at).filter(|known| !known.is_null()) {
                return new_ref(*known);
            }
            let mut text = new_text(path.text());
            if !text.is_null() {
                ffi::PyUnicode_InternInPlace(&raw mut text);
                let table = &mut *TABLE.0.get();
                if table.len() <= at {
                    table.resize((at + 1).next_power_of_two(), ptr::null_mut());
                }
                if let Some(place) = table.get_mut(at) {
                    *place = new_ref(text);
                }
            }
            text
        }
    }
}
