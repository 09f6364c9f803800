//! The usual timing, as Python reporters get it: no failure, nothing that was set late, no key that a built-in one has too.
//!
//! ```text
//!  0 for the interpreter's use
//!  1 the reporter
//!  2 path, 3 duration           the positional arguments
//!  4 the seven built-in values
//! 11 the values of the call     borrowed from the scope, which keeps them
//! ```

use std::{cell::Cell as Place, mem::MaybeUninit, ptr};

use kastor::Timeline;
use pyo3::ffi::{self, PyObject};

use super::{
    cell::Cell,
    context::Context,
    deliver::{raise, serve_all},
    floats::Numbers,
    keys::{Keys, Kind, TIMING_KEYS},
    texts,
};

const BUILT_IN: usize = TIMING_KEYS.len();
const FIRST: usize = 4;
/// Values of a call that have room.
pub(crate) const MAX_OWN: usize = 8;

/// When a scope began, and how long it took.
pub(crate) struct Times {
    duration_ns: u64,
    monotonic_ns: u64,
    unix_ns: u64,
}

impl Times {
    #[inline(always)]
    pub(crate) fn new(line: &Timeline, start: u64, end: u64) -> Self {
        Self {
            duration_ns: line.duration_ns(end.saturating_sub(start)),
            monotonic_ns: line.monotonic_ns(start),
            unix_ns: line.unix_ns(start),
        }
    }

    /// Duration; then start and end, monotonic and by the wall clock.
    #[inline(always)]
    pub(crate) fn seconds(&self) -> [f64; 5] {
        let Self { duration_ns, monotonic_ns, unix_ns } = *self;
        let end_ns = |start_ns: u64| start_ns.saturating_add(duration_ns);
        [duration_ns, monotonic_ns, end_ns(monotonic_ns), unix_ns, end_ns(unix_ns)].map(|ns| ns as f64 / 1e9)
    }
}

/// Reports it. False if an exception is set that has to go on.
///
/// # Safety
/// The cell is alive until the end, and with it `given`; these are at most [`MAX_OWN`], one for each of the keys behind the
/// built-in ones. The thread is attached, and no error is set.
#[inline(always)]
pub(crate) unsafe fn timing(
    context: &Context,
    cell: *mut Cell,
    times: &Times,
    (keys, given): (&Keys, &[*mut PyObject]),
    is_serving: &Place<bool>,
) -> bool {
    // SAFETY: as the caller says. None of the objects that are given back runs code of the program.
    unsafe {
        let numbers = Numbers::new(times.seconds());
        let depth = ffi::PyLong_FromLong(std::ffi::c_long::from((*cell).depth() as i32));
        let (path, parent) = (texts::of_scope(cell), texts::of_parent(cell));
        let mut escaped = None;
        match &numbers {
            Some(numbers) if !depth.is_null() && !path.is_null() && !parent.is_null() => {
                let [duration, start, end, wall_start, wall_end] = numbers.objects();
                let mut places = [const { MaybeUninit::<*mut PyObject>::uninit() }; FIRST + BUILT_IN + MAX_OWN];
                let usual = [
                    ptr::null_mut(),
                    ptr::null_mut(),
                    path,
                    duration,
                    depth,
                    parent,
                    depth,
                    start,
                    end,
                    wall_start,
                    wall_end,
                ];
                let (head, own) = places.split_at_mut(usual.len());
                head.iter_mut().zip(usual).for_each(|(place, object)| *place = MaybeUninit::new(object));
                own.iter_mut().zip(given).for_each(|(place, object)| *place = MaybeUninit::new(*object));
                let arguments = places.as_mut_ptr().cast();
                escaped = serve_all(context, Kind::Timing, arguments, keys.merged.as_ptr(), is_serving);
            }
            // Without memory for the event there is none.
            _ => ffi::PyErr_Clear(),
        }
        if let Some(numbers) = numbers {
            numbers.give_back();
        }
        ffi::Py_XDECREF(depth);
        ffi::Py_XDECREF(path);
        ffi::Py_XDECREF(parent);
        raise(escaped)
    }
}
