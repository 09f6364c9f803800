//! The scope object: what `with` enters and leaves, and at the same time one cell of the stack.
//!
//! ```text
//!  0 reference count, type    the object's head; 16 bytes of the cyclic collector stand before it
//! 16 call                     the vectorcall function
//! 24 below                    the cell below; never changes while the scope is open
//! 32 token                    makes leaving cheaper; in a scope that was entered again: the scope it stands for;
//!                             where the path is not interned whole, odd: twice the name's number and one
//! 40 extra                    keyword arguments, or more of them, or the scope that a stand-in stands for
//! 48 start                    ticks
//! 56 name, then path          while fresh; from opening on
//! 60 depth (24 bits), flags (8 bits)
//! 64 span, root               sequence numbers
//! 72 context                  where it was opened: the address in units of 16 bytes, compared and never followed
//! 76 owner                    number of the telemetry context
//! 78 epoch                    the thread and prefix that the sequence numbers belong to
//! ```
//!
//! 96 bytes with the collector's head. Of the address of the opening context 32 bits are kept: contexts that lie a
//! multiple of 64 GiB apart look the same, and then a scope of one that is left in the other is taken out there alone.
//!
//! Freeing is a loop with a list of what waits, not recursion: a chain of a million cells needs no stack.

use std::{
    cell::{Cell as Place, UnsafeCell},
    ptr,
    sync::atomic::{
        AtomicPtr, AtomicU32,
        Ordering::{self, Relaxed},
    },
};

use kastor::{
    Carrier,
    raw::{self, Ids, Name, Path},
};
use pyo3::ffi::{self, PyObject};

use super::{
    arguments::{Arguments, ArgumentsPtr, free_arguments, values_of},
    context::{Context, owner},
    object::{Owned, clear},
};

#[repr(C)]
pub(crate) struct Cell {
    pub(crate) head: PyObject,
    pub(crate) call: Option<ffi::vectorcallfunc>,
    pub(crate) below: *mut Cell,
    token: AtomicPtr<PyObject>,
    pub(crate) extra: *mut (),
    pub(crate) start: u64,
    pub(crate) named: Named,
    word: AtomicU32,
    pub(crate) span: u32,
    pub(crate) root: u32,
    pub(crate) context: u32,
    pub(crate) owner: u16,
    pub(crate) epoch: u16,
}

/// With the GIL everything that one thread wrote is there for the next.
const READ: Ordering = if cfg!(free_threaded) { Ordering::Acquire } else { Relaxed };

const _: () = assert!(size_of::<usize>() != 8 || cfg!(Py_GIL_DISABLED) || size_of::<Cell>() == 80);

/// The name of a fresh scope, the path of any other.
#[derive(Clone, Copy)]
pub(crate) union Named {
    pub(crate) name: Name,
    pub(crate) path: Path,
}

/// What a cell is and how far it got: the low byte of the word.
pub(crate) mod flag {
    /// Never entered.
    pub(crate) const FRESH: u32 = 0;
    /// On the stack.
    pub(crate) const OPEN: u32 = 1;
    /// Left.
    pub(crate) const CLOSED: u32 = 2;
    /// Entered without being on the stack: it was off, or stands for a scope of its own.
    pub(crate) const PASSING: u32 = 3;
    pub(crate) const STATE: u32 = 3;
    /// Ended for every context: readers skip it.
    pub(crate) const OVER: u32 = 4;
    /// Stands for `extra` above what was taken out from below it.
    pub(crate) const STAND_IN: u32 = 8;
    /// No scope: what comes from elsewhere, and is the parent of what is opened above it.
    pub(crate) const ANCHOR: u32 = 16;
    /// `extra` is an [`Extra`](super::Extra), not [`Arguments`](super::Arguments).
    pub(crate) const RICH: u32 = 32;
    /// The path's text is not what the program said: a name was cut, or the path is beyond the limits.
    pub(crate) const CUT: u32 = 64;
    /// The ids of its trace are not this epoch's: `Extra::foreign` has them.
    pub(crate) const FOREIGN: u32 = 128;
    pub(crate) const BITS: u32 = 8;
}

/// What few scopes have.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) arguments: Option<Box<ArgumentsPtr>>,
    /// The name, where the interned one is not the whole.
    pub(crate) name: Option<Owned>,
    pub(crate) foreign: Option<Foreign>,
    pub(crate) late: UnsafeCell<Late>,
}

/// What is attached to a scope while it is open, by the holder of its lock alone. A closed scope's does not change.
#[derive(Default)]
pub(crate) struct Late {
    /// The last of a key counts.
    pub(crate) attributes: Vec<(Owned, Owned)>,
    pub(crate) events: Vec<PointEvent>,
    pub(crate) links: Vec<Carrier>,
    /// The error type, if the program said that it failed.
    pub(crate) error: Option<String>,
    pub(crate) is_discarded: bool,
}

impl Extra {
    /// What was attached.
    ///
    /// # Safety
    /// The scope is closed, or nothing else has the thread attached meanwhile; [`change_late`](Self::change_late) does not
    /// run.
    pub(crate) unsafe fn late(&self) -> &Late {
        // SAFETY: as the caller says.
        unsafe { &*self.late.get() }
    }

    /// Changes what is attached.
    ///
    /// # Safety
    /// The scope is fresh or open, and its lock is held; `f` runs no code of the program.
    pub(crate) unsafe fn change_late(&self, f: impl FnOnce(&mut Late)) {
        // SAFETY: as the caller says: nobody else looks at it.
        f(unsafe { &mut *self.late.get() });
    }
}

/// The ids of a scope whose trace was begun elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Foreign {
    pub(crate) carrier: Carrier,
    pub(crate) parent_span_id: u64,
}

/// Something that happened inside a scope.
pub(crate) struct PointEvent {
    pub(crate) name: Name,
    pub(crate) tick: u64,
    pub(crate) attributes: Vec<(Owned, Owned)>,
}

impl Cell {
    #[inline(always)]
    pub(crate) fn has(&self, flags: u32) -> bool {
        self.word.load(READ) & flags != 0
    }

    #[inline(always)]
    pub(crate) fn state(&self) -> u32 {
        self.word.load(READ) & flag::STATE
    }

    /// Number of scopes above it in its path.
    #[inline(always)]
    pub(crate) fn depth(&self) -> u32 {
        self.word.load(Relaxed) >> flag::BITS
    }

    /// Number of scopes that are open above what is opened on top of it.
    #[inline(always)]
    pub(crate) fn levels(&self) -> u32 {
        self.depth() + u32::from(!self.has(flag::ANCHOR))
    }

    #[inline(always)]
    pub(crate) fn set_flags(&self, flags: u32) {
        #[cfg(not(free_threaded))]
        self.word.store(self.word.load(Relaxed) | flags, Relaxed);
        #[cfg(free_threaded)]
        self.word.fetch_or(flags, Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn set_word(&self, depth: u32, flags: u32) {
        self.word.store(depth << flag::BITS | flags, Relaxed);
    }

    /// Goes from one state to another; false if it was in another one.
    #[inline(always)]
    pub(crate) fn change_state(&self, from: u32, to: u32) -> bool {
        let word = self.word.load(Relaxed);
        let is_from = word & flag::STATE == from;
        #[cfg(not(free_threaded))]
        if is_from {
            self.word.store(word & !flag::STATE | to, Relaxed);
        }
        #[cfg(free_threaded)]
        let is_from = is_from
            && self
                .word
                .fetch_update(Ordering::AcqRel, Relaxed, |word| {
                    (word & flag::STATE == from).then_some(word & !flag::STATE | to)
                })
                .is_ok();
        is_from
    }

    #[inline(always)]
    pub(crate) fn ids(&self) -> Ids {
        Ids { span: self.span, root: self.root, epoch: self.epoch }
    }

    /// The path; none of an anchor that carries no path.
    #[inline(always)]
    pub(crate) fn path(&self) -> Path {
        // SAFETY: both are four bytes of the same form; this is asked of cells that were opened.
        unsafe { self.named.path }
    }

    /// The token, or the scope that this one stands for; null if there is none.
    #[inline(always)]
    pub(crate) fn token(&self) -> *mut PyObject {
        let token = self.token.load(Relaxed);
        if token as usize & 1 == 0 { token } else { ptr::null_mut() }
    }

    /// Whether nothing stands in the token's place, not even a name.
    #[inline(always)]
    pub(crate) fn has_room_for_token(&self) -> bool {
        self.token.load(Relaxed).is_null()
    }

    /// Puts an owned reference into the token's place.
    #[inline(always)]
    pub(crate) fn set_token(&self, token: *mut PyObject) {
        self.token.store(token, Relaxed);
    }

    /// The token, with its reference, which the cell has no more; null if there is none.
    #[inline(always)]
    pub(crate) fn take_token(&self) -> *mut PyObject {
        let token = self.token();
        if token.is_null() {
            return token;
        }
        #[cfg(not(free_threaded))]
        self.token.store(ptr::null_mut(), Relaxed);
        // A scope may be left by one thread while the one that opened it enters the next.
        #[cfg(free_threaded)]
        let token = self.token.swap(ptr::null_mut(), Ordering::AcqRel);
        token
    }

    /// Gives the token back, if there is one.
    ///
    /// # Safety
    /// The thread is attached.
    #[inline(always)]
    pub(crate) unsafe fn clear_token(&self) {
        // SAFETY: null, or owned by nobody else now.
        unsafe { clear(&mut self.take_token()) };
    }

    /// Keeps the name in the token's place, for the texts of paths that are not interned whole.
    pub(crate) fn keep_name(&self, name: Name) {
        self.set_token(((raw::name_index(name) as usize) << 1 | 1) as *mut PyObject);
    }

    /// The last name, as it is interned.
    pub(crate) fn name(&self) -> Name {
        let token = self.token.load(Relaxed) as usize;
        if token & 1 == 0 { self.path().name() } else { raw::name_at((token >> 1) as u32) }
    }

    /// Whether it has a path: an anchor may have none.
    #[inline(always)]
    pub(crate) fn has_path(&self) -> bool {
        !self.has(flag::ANCHOR)
    }

    /// What few scopes have, if it has any of it.
    #[inline(always)]
    pub(crate) fn rich(&self) -> Option<&Extra> {
        // SAFETY: with the flag `extra` is a box that lives as long as the cell.
        if self.has(flag::RICH) { unsafe { self.extra.cast::<Extra>().as_ref() } } else { None }
    }

    /// The keyword arguments, null if there are none.
    #[inline(always)]
    pub(crate) fn arguments(&self) -> *mut Arguments {
        match self.rich() {
            Some(rich) => rich.arguments.as_ref().map_or(ptr::null_mut(), |arguments| arguments.0),
            None if self.has(flag::STAND_IN) => ptr::null_mut(),
            None => self.extra.cast(),
        }
    }

    /// Makes room for what few scopes have. Not for stand-ins.
    pub(crate) fn make_rich(&mut self) -> &mut Extra {
        if !self.has(flag::RICH) {
            let arguments = self.extra.cast::<Arguments>();
            let arguments = (!arguments.is_null()).then(|| Box::new(ArgumentsPtr(arguments)));
            self.extra = Box::into_raw(Box::new(Extra { arguments, ..Extra::default() })).cast();
            self.set_flags(flag::RICH);
        }
        // SAFETY: just made sure of; the borrow of the cell covers it.
        unsafe { &mut *self.extra.cast::<Extra>() }
    }
}

/// The scope that a cell stands for: itself, unless it is a stand-in.
///
/// # Safety
/// The cell is alive.
#[inline(always)]
pub(crate) unsafe fn origin_of(cell: *mut Cell) -> *mut Cell {
    // SAFETY: as the caller says; a stand-in keeps its origin.
    unsafe { if (*cell).has(flag::STAND_IN) { (*cell).extra.cast() } else { cell } }
}

/// Drops what a scope carries besides its place in the stack. Values may run code of the program.
///
/// # Safety
/// The cell is alive, and nobody borrows from what it carries.
pub(crate) unsafe fn drop_extra(cell: *mut Cell) {
    // SAFETY: as the caller says. The cell is consistent before anything is dropped.
    unsafe {
        if (*cell).has(flag::STAND_IN) || (*cell).extra.is_null() {
            return;
        }
        let extra = std::mem::replace(&mut (*cell).extra, ptr::null_mut());
        if (*cell).has(flag::RICH) {
            let word = (*cell).word.load(Relaxed);
            (*cell).word.store(word & !flag::RICH, Relaxed);
            drop(Box::from_raw(extra.cast::<Extra>()));
        } else {
            free_arguments(extra.cast());
        }
    }
}

// ---- memory ----

/// The type; set when the module is made.
pub(crate) static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

unsafe extern "C" {
    fn _Py_NewReference(object: *mut PyObject);
}

#[cfg(not(free_threaded))]
mod free {
    use std::{cell::UnsafeCell, ptr};

    use super::Cell;

    /// Cells that wait to be used again.
    const MAX: usize = 64;

    struct List(UnsafeCell<([*mut Cell; MAX], usize)>);

    // SAFETY: touched with the GIL held alone.
    unsafe impl Sync for List {}

    static LIST: List = List(UnsafeCell::new(([ptr::null_mut(); MAX], 0)));

    /// # Safety
    /// The GIL is held.
    #[inline(always)]
    pub(super) unsafe fn take() -> Option<*mut Cell> {
        // SAFETY: the GIL is held; nothing else refers to the list meanwhile.
        let (list, len) = unsafe { &mut *LIST.0.get() };
        let at = len.checked_sub(1)?;
        *len = at;
        list.get(at).copied()
    }

    /// Keeps a cell; false if there are enough.
    ///
    /// # Safety
    /// The GIL is held, and nobody uses the cell.
    #[inline(always)]
    pub(super) unsafe fn give(cell: *mut Cell) -> bool {
        // SAFETY: as in `take`.
        let (list, len) = unsafe { &mut *LIST.0.get() };
        match list.get_mut(*len) {
            Some(place) => {
                *place = cell;
                *len += 1;
                true
            }
            None => false,
        }
    }
}

/// A cell with one reference, not tracked yet; everything behind `head` is for the caller to fill. Null, with an error
/// set, without memory.
///
/// # Safety
/// The thread is attached.
#[inline(always)]
pub(crate) unsafe fn allocate() -> *mut Cell {
    // SAFETY: as the caller says; what the list holds is an unused cell of the type.
    unsafe {
        #[cfg(not(free_threaded))]
        if let Some(cell) = free::take() {
            _Py_NewReference(cell.cast());
            return cell;
        }
        ffi::PyObject_GC_New(TYPE.load(Relaxed))
    }
}

/// What a new cell has besides its place in memory.
pub(crate) struct Parts {
    pub(crate) owner: *mut Context,
    pub(crate) below: *mut Cell,
    pub(crate) extra: *mut (),
    pub(crate) named: Named,
    pub(crate) depth: u32,
    pub(crate) flags: u32,
}

/// Fills a cell and lets the collector know it. `below` and `extra` are taken over.
///
/// # Safety
/// The cell comes from [`allocate`]; the owner is alive.
#[inline(always)]
pub(crate) unsafe fn fill(cell: *mut Cell, parts: Parts) {
    // SAFETY: the memory is a cell's; only the head is in use.
    unsafe {
        (&raw mut (*cell).call).write(Some(super::scope::call));
        (&raw mut (*cell).below).write(parts.below);
        (&raw mut (*cell).token).write(AtomicPtr::new(ptr::null_mut()));
        (&raw mut (*cell).extra).write(parts.extra);
        (&raw mut (*cell).start).write(0);
        (&raw mut (*cell).named).write(parts.named);
        (&raw mut (*cell).word).write(AtomicU32::new(parts.depth << flag::BITS | parts.flags));
        (&raw mut (*cell).span).write(0);
        (&raw mut (*cell).root).write(0);
        (&raw mut (*cell).context).write(0);
        // An anchor may belong to no context.
        let owner = parts.owner;
        ffi::Py_XINCREF(owner.cast());
        (&raw mut (*cell).owner).write(if owner.is_null() { 0 } else { (*owner).number });
        (&raw mut (*cell).epoch).write(0);
        ffi::PyObject_GC_Track(cell.cast());
    }
}

thread_local! {
    /// Cells that wait to be freed, linked by `start`; and whether someone is at it.
    static PENDING: Place<*mut Cell> = const { Place::new(ptr::null_mut()) };
    static IS_RELEASING: Place<bool> = const { Place::new(false) };
}

/// `tp_dealloc`.
pub(crate) unsafe extern "C" fn dealloc(object: *mut PyObject) {
    let cell = object.cast::<Cell>();
    // SAFETY: the interpreter frees an object that nobody refers to.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let below = (*cell).below;
        let ends_chain = below.is_null() || ffi::Py_REFCNT(below.cast()) > 1;
        if ends_chain && !(*cell).has(flag::STAND_IN) {
            return free_cell(cell);
        }
        (*cell).start = PENDING.replace(cell) as u64;
        if IS_RELEASING.replace(true) {
            return;
        }
        loop {
            let cell = PENDING.get();
            if cell.is_null() {
                break;
            }
            PENDING.set((*cell).start as *mut Cell);
            free_cell(cell);
        }
        IS_RELEASING.set(false);
    }
}

/// Frees one cell, which may put the cell below it on the list.
unsafe fn free_cell(cell: *mut Cell) {
    // SAFETY: nobody refers to the cell; each field is given back once.
    unsafe {
        // The type's finalizer has reported it if it was open.
        if (*cell).state() == flag::OPEN {
            super::scope::lose(cell);
        }
        clear_cell(cell);
        let owner = owner((*cell).owner);
        if !keep(cell) {
            let class = ffi::Py_TYPE(cell.cast());
            ffi::PyObject_GC_Del(cell.cast());
            ffi::Py_DECREF(class.cast());
        }
        ffi::Py_XDECREF(owner.cast());
    }
}

#[inline(always)]
unsafe fn keep(cell: *mut Cell) -> bool {
    #[cfg(not(free_threaded))]
    // SAFETY: the GIL is held, and nobody uses the cell.
    return unsafe { free::give(cell) };
    #[cfg(free_threaded)]
    {
        let _ = cell;
        false
    }
}

#[inline(always)]
unsafe fn clear_cell(cell: *mut Cell) {
    // SAFETY: the cell owns these references.
    unsafe {
        (*cell).clear_token();
        clear(&mut (*cell).below);
        if (*cell).has(flag::STAND_IN) {
            let mut origin = std::mem::replace(&mut (*cell).extra, ptr::null_mut()).cast::<Cell>();
            let word = (*cell).word.load(Relaxed);
            (*cell).word.store(word & !flag::STAND_IN, Relaxed);
            clear(&mut origin);
        } else {
            drop_extra(cell);
        }
    }
}

/// `tp_finalize`: an open scope of a cycle that nobody reaches ends before anything of it is taken apart.
pub(crate) unsafe extern "C" fn finalize(object: *mut PyObject) {
    let cell = object.cast::<Cell>();
    // SAFETY: a whole object.
    unsafe {
        if (*cell).state() == flag::OPEN {
            super::scope::lose(cell);
        }
    }
}

/// `tp_clear`.
pub(crate) unsafe extern "C" fn clear_references(object: *mut PyObject) -> std::ffi::c_int {
    // SAFETY: a whole object, which stays alive meanwhile.
    unsafe { clear_cell(object.cast()) };
    0
}

/// `tp_traverse`.
pub(crate) unsafe extern "C" fn traverse(
    object: *mut PyObject,
    visit: ffi::visitproc,
    argument: *mut std::ffi::c_void,
) -> std::ffi::c_int {
    let cell = object.cast::<Cell>();
    // SAFETY: the collector visits whole objects, and `visit` takes any object.
    unsafe {
        let seen = |object: *mut PyObject| if object.is_null() { 0 } else { visit(object, argument) };
        let mut result = seen(ffi::Py_TYPE(object).cast());
        result = if result == 0 { seen(owner((*cell).owner).cast()) } else { result };
        result = if result == 0 { seen((*cell).below.cast()) } else { result };
        result = if result == 0 { seen((*cell).token()) } else { result };
        if (*cell).has(flag::STAND_IN) {
            return if result == 0 { seen((*cell).extra.cast()) } else { result };
        }
        for value in values_of((*cell).arguments()).1 {
            result = if result == 0 { seen(*value) } else { result };
        }
        if let Some(rich) = (*cell).rich() {
            let late = rich.late();
            let attributes = late.events.iter().flat_map(|event| &event.attributes).chain(&late.attributes);
            for (_, value) in attributes {
                result = if result == 0 { seen(value.as_ptr()) } else { result };
            }
        }
        result
    }
}

/// The whole path's ids of a cell that was opened.
///
/// # Safety
/// The cell is alive, no stand-in, and was opened.
pub(crate) unsafe fn carrier_of(cell: *mut Cell) -> Carrier {
    // SAFETY: as the caller says.
    let cell = unsafe { &*cell };
    match cell.rich().and_then(|rich| rich.foreign) {
        Some(foreign) => foreign.carrier,
        None if cell.has(flag::ANCHOR) => Carrier::NONE,
        None => cell.ids().carrier(cell.path(), cell.levels()),
    }
}
