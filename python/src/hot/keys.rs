//! Keyword names of call sites: interned, and merged with the built-in keys once for all calls.
//!
//! A call site passes one constant tuple of names. What follows from it (the interned names for records, the tuple that
//! Python reporters are called with) is worked out once, and found again by the tuple's address. A call with `**mapping`
//! makes a new tuple each time; those are found by content.

use kastor::raw::{self, Name};
use pyo3::ffi::{self, PyObject};

use super::object::{Owned, items, lossy_text, new_text};

/// The built-in keys of a timing, in order.
pub(crate) const TIMING_KEYS: [&str; 7] = [
    "depth",
    "parent_scope",
    "call_count",
    "start_monotonic_s",
    "end_monotonic_s",
    "start_wall_time_s",
    "end_wall_time_s",
];
/// The built-in keys of a metric, in order.
pub(crate) const METRIC_KEYS: [&str; 2] = ["depth", "parent_scope"];
/// The key of an instrument's type.
pub(crate) const METRIC_TYPE: &str = "metric_type";
/// The key of a failure.
pub(crate) const ERROR_TYPE: &str = "error_type";

/// How an event is delivered decides which keys are its method's own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `record_timing(scope, duration, …)`.
    Timing,
    /// `record_metric(scope, value, …)`.
    Metric,
    /// The same, with `metric_type` among the built-in keys.
    Typed,
}

impl Kind {
    /// The keys that come first.
    pub(crate) fn built_in(self) -> &'static [&'static str] {
        match self {
            Kind::Timing => &TIMING_KEYS,
            Kind::Metric => &METRIC_KEYS,
            Kind::Typed => &["depth", "parent_scope", METRIC_TYPE],
        }
    }

    /// Whether a key is a parameter of the method that delivers it.
    pub(crate) fn takes_key(self, key: &str) -> bool {
        matches!(key, "scope" | "self" | "name") || key == if self == Kind::Timing { "duration" } else { "value" }
    }
}

/// The keyword names of a call, in every form that is needed.
pub(crate) struct Keys {
    /// As they stand in records.
    pub(crate) names: Box<[Name]>,
    /// As Python reporters get them: the built-in keys, then these.
    pub(crate) merged: Owned,
    /// Where each value goes among the merged ones.
    pub(crate) places: Box<[usize]>,
    /// Each has the place behind the one before it, the first behind the built-in ones.
    pub(crate) are_behind: bool,
    /// The keys themselves, with another name where their own is the method's.
    pub(crate) texts: Box<[Owned]>,
}

impl Keys {
    /// # Safety
    /// `keys` is a tuple of `str`s; the thread is attached.
    unsafe fn new(keys: *mut PyObject, kind: Kind) -> Option<Self> {
        // SAFETY: a tuple of `str`s, as the caller says.
        let given = unsafe { items(keys).iter().map(|key| lossy_text(*key)).collect::<Vec<_>>() };
        let mut texts = Vec::with_capacity(given.len());
        for (at, text) in given.iter().enumerate() {
            texts.push(if kind.takes_key(text) {
                let mut other = format!("{text}_");
                while given.contains(&other) {
                    other.push('_');
                }
                (interned(&other)?, other)
            } else {
                // SAFETY: an item of the tuple.
                (unsafe { Owned::share(*items(keys).get(at)?)? }, text.clone())
            });
        }
        let mut all = Vec::new();
        for key in kind.built_in() {
            all.push((interned(key)?, (*key).to_owned()));
        }
        let mut places = Vec::with_capacity(texts.len());
        for (object, text) in &texts {
            let place = all.iter().position(|(_, known)| known == text).unwrap_or(all.len());
            if place == all.len() {
                all.push((object.clone(), text.clone()));
            }
            places.push(place);
        }
        let names = texts.iter().map(|(_, text)| raw::name(text)).collect();
        let merged = all.into_iter().map(|(object, _)| object).collect();
        Some(Self {
            names,
            merged: tuple(merged)?,
            are_behind: places.iter().copied().eq(kind.built_in().len()..kind.built_in().len() + places.len()),
            places: places.into(),
            texts: texts.into_iter().map(|(object, _)| object).collect(),
        })
    }
}

/// A key as the interpreter itself would have it: functions find their parameters by address first.
pub(crate) fn interned(text: &str) -> Option<Owned> {
    let mut object = new_text(text);
    // SAFETY: a new `str`, or null; interning replaces it by one that is equal.
    unsafe {
        if !object.is_null() {
            ffi::PyUnicode_InternInPlace(&raw mut object);
        }
        Owned::take(object)
    }
}

/// What follows from keyword names is shared by their call sites.
#[cfg(not(free_threaded))]
pub(crate) type Shared<T> = std::rc::Rc<T>;
/// What follows from keyword names is shared by their call sites.
#[cfg(free_threaded)]
pub(crate) type Shared<T> = std::sync::Arc<T>;

/// A new tuple of these.
pub(crate) fn tuple(all: Vec<Owned>) -> Option<Owned> {
    // SAFETY: a new tuple, whose places are filled before anyone else sees it.
    unsafe {
        let tuple = ffi::PyTuple_New(all.len() as ffi::Py_ssize_t);
        if tuple.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        for (at, object) in all.into_iter().enumerate() {
            ffi::PyTuple_SET_ITEM(tuple, at as ffi::Py_ssize_t, object.into_ptr());
        }
        Owned::take(tuple)
    }
}

/// What follows from a tuple of keyword names; none without memory. The empty tuple is null.
///
/// # Safety
/// `keys` is null or a tuple of `str`s; the thread is attached.
#[inline]
pub(crate) unsafe fn find(keys: *mut PyObject, kind: Kind) -> Option<Shared<Keys>> {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(not(free_threaded))]
        return table::find(keys, kind);
        #[cfg(free_threaded)]
        Keys::new(keys, kind).map(Shared::new)
    }
}

#[cfg(not(free_threaded))]
mod table {
    use std::{cell::UnsafeCell, collections::HashMap};

    use kastor::raw::Name;
    use pyo3::ffi::PyObject;

    use super::{Keys, Kind, Shared};
    use crate::hot::{
        names,
        object::{Owned, items},
    };

    /// Tuples that are found by address; a power of two.
    const SLOTS: usize = 1 << 10;
    /// Sets of keys that are found by content.
    const MAX_KNOWN: usize = 1 << 12;

    #[derive(Clone)]
    struct Slot {
        /// Holds the address; none is the empty tuple's.
        tuple: Option<Owned>,
        kind: Kind,
        keys: Shared<Keys>,
    }

    struct Table {
        slots: Vec<Option<Slot>>,
        known: HashMap<(u8, Vec<Name>), Shared<Keys>>,
    }

    struct TableCell(UnsafeCell<Option<Table>>);

    // SAFETY: touched with the GIL held alone.
    unsafe impl Sync for TableCell {}

    static TABLE: TableCell = TableCell(UnsafeCell::new(None));

    /// # Safety
    /// `keys` is null or a tuple of `str`s, and the GIL is held.
    #[inline]
    pub(super) unsafe fn find(keys: *mut PyObject, kind: Kind) -> Option<Shared<Keys>> {
        // SAFETY: the GIL is held, and no reference into the table outlives this block; nothing in it runs Python code.
        let found = unsafe {
            (&*TABLE.0.get()).as_ref().and_then(|table| {
                let slot = table.slots.get(place(keys, kind))?.as_ref()?;
                let address = slot.tuple.as_ref().map_or(std::ptr::null_mut(), Owned::as_ptr);
                (address == keys && slot.kind == kind).then(|| Shared::clone(&slot.keys))
            })
        };
        // SAFETY: as above.
        found.or_else(|| unsafe { add(keys, kind) })
    }

    #[cold]
    #[inline(never)]
    unsafe fn add(keys: *mut PyObject, kind: Kind) -> Option<Shared<Keys>> {
        // SAFETY: a tuple of `str`s; the GIL is held. Making keys and dropping slots may run the allocator and the
        // destructors of `str`s and tuples of them alone, and no reference into the table is held meanwhile.
        unsafe {
            // A key that was cut is not told apart by its name from others that begin alike: no content lookup for it.
            let names: Option<Vec<Name>> = items(keys)
                .iter()
                .map(|key| names::find(*key).filter(|known| !known.is_cut).map(|known| known.name))
                .collect();
            let content = names.map(|names| (kind as u8, names));
            let known = content
                .as_ref()
                .and_then(|content| (&*TABLE.0.get()).as_ref().and_then(|table| table.known.get(content).cloned()));
            let made = match known {
                Some(known) => known,
                None => Shared::new(Keys::new(keys, kind)?),
            };
            let tuple = Owned::share(keys);
            let table =
                (&mut *TABLE.0.get()).get_or_insert_with(|| Table { slots: vec![None; SLOTS], known: HashMap::new() });
            let forgotten = match content {
                Some(_) if table.known.len() >= MAX_KNOWN => Some(std::mem::take(&mut table.known)),
                _ => None,
            };
            if let Some(content) = content {
                table.known.insert(content, Shared::clone(&made));
            }
            let slot = table.slots.get_mut(place(keys, kind));
            let old = slot.and_then(|slot| slot.replace(Slot { tuple, kind, keys: Shared::clone(&made) }));
            drop((forgotten, old));
            Some(made)
        }
    }

    #[inline(always)]
    fn place(keys: *mut PyObject, kind: Kind) -> usize {
        ((keys as usize >> 4) + kind as usize).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> (usize::BITS - SLOTS.trailing_zeros())
    }
}
