//! The stack: one context variable, whose value is the innermost cell; each cell points to the one below it.
//!
//! Seen from outside a cell never changes, so that copying a context copies the stack for nothing. Three rules keep it
//! right:
//!
//! - **POP.** A scope that is left in the context that opened it is taken out of that context's stack at once. Contexts
//!   that were copied while it was open keep it: to them it is the parent they inherited.
//! - **OVER.** A scope that is left anywhere else (a generator closed by another task, a thread, a callback), or below
//!   more than 64 others, is marked; every reader in every context skips it. The opening context cannot be written from
//!   outside, and whether it was copied before or after cannot be known: so the scope ends for everybody.
//! - **LOST.** An open scope that is innermost, and to which nothing but the stack refers, can never be left: it ends.
//!
//! Popping must not be put off: nothing tells a copy that was taken after a scope was left from one that was taken
//! before, unless the variable's value changed in between. Leaving never raises, and writes the current context alone.

use std::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed},
};

use pyo3::ffi::{self, PyObject};

use super::{
    cell::{self, Cell, Named, Parts, TYPE, flag, origin_of},
    context::owner,
    object::{clear, new_ref},
};

/// Deeper scopes give up the token of the one below: 64 bytes less per level, and 35 ns more to leave it.
const KEPT_TOKENS: u32 = 8;
/// Cells that are copied to take a scope out from below them; further down it is marked instead.
const REBUILD_LIMIT: usize = 64;

/// The variable; set when the module is made.
pub(crate) static VARIABLE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// Where the current context stands in the interpreter's thread state, in bytes; 0 while that is not known.
pub(crate) static CONTEXT_OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Stands for every context where it is not known which one is current: resetting a token then tells.
const ANY_CONTEXT: u32 = 0;

/// The current context, as a number to compare.
///
/// # Safety
/// The thread is attached.
#[inline(always)]
pub(crate) unsafe fn current_context() -> u32 {
    let offset = CONTEXT_OFFSET.load(Relaxed);
    if offset == 0 {
        return ANY_CONTEXT;
    }
    // SAFETY: the offset was found by looking for a context there; the pointer is compared, never followed.
    let context = unsafe { ffi::PyThreadState_Get().byte_add(offset).cast::<usize>().read() };
    (context >> 4) as u32
}

/// The variable's value, a new reference; null if the stack is empty.
///
/// # Safety
/// The thread is attached.
#[inline(always)]
pub(crate) unsafe fn value() -> *mut Cell {
    let mut value: *mut PyObject = ptr::null_mut();
    // SAFETY: the variable exists as soon as anything that calls this does.
    unsafe {
        if ffi::PyContextVar_Get(VARIABLE.load(Relaxed), ptr::null_mut(), &raw mut value) < 0 {
            ffi::PyErr_Clear();
        }
        if !value.is_null() && ffi::Py_TYPE(value) != TYPE.load(Relaxed) {
            clear(&mut value);
        }
    }
    value.cast()
}

/// The first cell that counts, from `cell` down; borrowed. Cells that are over are cut out: that is for ever, and for all.
///
/// # Safety
/// `cell` is null or alive.
#[inline(always)]
pub(crate) unsafe fn counting(cell: *mut Cell) -> *mut Cell {
    // SAFETY: a cell keeps the one below alive.
    unsafe { if cell.is_null() || !(*origin_of(cell)).has(flag::OVER) { cell } else { counting_below(cell) } }
}

#[cold]
unsafe fn counting_below(cell: *mut Cell) -> *mut Cell {
    // SAFETY: as for `counting`.
    unsafe {
        let first = (*cell).below;
        let mut found = first;
        while !found.is_null() && (*origin_of(found)).has(flag::OVER) {
            found = (*found).below;
        }
        // A path that is put together from its cells needs all of them. Without the GIL others may be reading.
        if found != first && !cfg!(free_threaded) && !(*first).has(flag::CUT) {
            ffi::Py_XINCREF(found.cast());
            (*cell).below = found;
            ffi::Py_DECREF(first.cast());
        }
        found
    }
}

/// The innermost scope that counts; borrowed from `value`, which the caller holds. What is lost ends here.
///
/// # Safety
/// `value` is null or a reference of the caller's.
#[inline(always)]
pub(crate) unsafe fn top_of(value: *mut Cell) -> *mut Cell {
    loop {
        // SAFETY: the caller keeps `value`, and that keeps the rest.
        unsafe {
            let top = counting(value);
            if top.is_null() || cfg!(free_threaded) {
                return top;
            }
            let origin = origin_of(top);
            if (*origin).state() != flag::OPEN || ffi::Py_REFCNT(origin.cast()) != 1 + isize::from(origin == value) {
                return top;
            }
            super::scope::lose(origin);
        }
    }
}

/// Makes a cell the variable's value, or None. Returns the token; null, without an error set, without memory: then the
/// scope is not on the stack, and the program goes on.
///
/// # Safety
/// `cell` is null or alive.
#[inline(always)]
pub(crate) unsafe fn set(cell: *mut Cell) -> *mut PyObject {
    // SAFETY: as the caller says.
    unsafe {
        let value = if cell.is_null() { ffi::Py_None() } else { cell.cast() };
        let token = ffi::PyContextVar_Set(VARIABLE.load(Relaxed), value);
        if token.is_null() {
            ffi::PyErr_Clear();
        }
        token
    }
}

/// Puts an open cell, whose `below` is its own reference, on top. `top` is what was innermost.
///
/// # Safety
/// Both are alive, or `top` is null.
#[inline(always)]
pub(crate) unsafe fn push(cell: *mut Cell, top: *mut Cell) {
    // SAFETY: as the caller says.
    unsafe {
        let mut token = set(cell);
        if (*cell).has_room_for_token() {
            (*cell).set_token(token);
        } else {
            clear(&mut token);
        }
        // Only now: a thread has no context before the first value is set.
        (*cell).context = current_context();
        let is_deep = (*cell).depth() > KEPT_TOKENS && (*cell).context != ANY_CONTEXT;
        if is_deep && !top.is_null() && (*top).context == (*cell).context && (*top).state() == flag::OPEN {
            (*top).clear_token();
        }
    }
}

/// Takes a cell that has just been left out of the stack, or marks it.
///
/// # Safety
/// The cell is alive and was pushed.
#[inline(always)]
pub(crate) unsafe fn pop(cell: *mut Cell) {
    // SAFETY: as the caller says; `value` is held until the end.
    unsafe {
        let mut value = value();
        let top = top_of(value);
        let is_home = !top.is_null() && (*cell).context == current_context();
        let is_popped = is_home && pop_at_home(cell, top);
        if !is_popped {
            (*cell).set_flags(flag::OVER);
        }
        (*cell).clear_token();
        clear(&mut value);
    }
}

#[inline(always)]
unsafe fn pop_at_home(cell: *mut Cell, top: *mut Cell) -> bool {
    // SAFETY: as for `pop`.
    unsafe {
        let token = (*cell).token();
        if top == cell && !token.is_null() {
            if ffi::PyContextVar_Reset(VARIABLE.load(Relaxed), token) == 0 {
                return true;
            }
            ffi::PyErr_Clear();
        }
        if (*cell).context == ANY_CONTEXT {
            return false;
        }
        if origin_of(top) != cell {
            return pull_out(top, cell);
        }
        // Not by a token through a stand-in: that would bring back what was taken out from below.
        let mut token = set(counting((*top).below));
        let is_done = !token.is_null();
        clear(&mut token);
        is_done
    }
}

/// Takes a scope out from below the cells above it, which get stand-ins. False if it is too far down, or not there.
#[cold]
unsafe fn pull_out(top: *mut Cell, scope: *mut Cell) -> bool {
    let mut above = Vec::new();
    let mut at = top;
    // SAFETY: `top` keeps all cells below it; new stand-ins own what they refer to.
    unsafe {
        while !at.is_null() && origin_of(at) != scope {
            if above.len() == REBUILD_LIMIT {
                return false;
            }
            above.push(at);
            at = counting((*at).below);
        }
        if at.is_null() {
            return false;
        }
        let mut below = counting((*at).below);
        ffi::Py_XINCREF(below.cast());
        while let Some(cell) = above.pop() {
            let stand_in = cell::allocate();
            if stand_in.is_null() {
                ffi::PyErr_Clear();
                clear(&mut below);
                return false;
            }
            let origin = origin_of(cell);
            let copied = (*origin).has(flag::ANCHOR);
            let flags = flag::CLOSED | flag::STAND_IN | if copied { flag::ANCHOR } else { 0 };
            let parts = Parts {
                owner: owner((*origin).owner),
                below,
                extra: new_ref(origin).cast(),
                named: Named { path: (*origin).path() },
                depth: (*origin).depth(),
                flags,
            };
            cell::fill(stand_in, parts);
            (*stand_in).context = (*origin).context;
            below = stand_in;
        }
        let mut token = set(below);
        let is_done = !token.is_null();
        clear(&mut token);
        clear(&mut below);
        is_done
    }
}
