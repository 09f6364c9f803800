//! A Python object as a reporter: how it is called, what was delivered to it, and what becomes of one that fails.
//!
//! A failing reporter harms nobody: an `Exception` is logged with its traceback the first times, then ever more rarely,
//! and after some failures in a row the reporter is left out for a while. What is no `Exception` (Ctrl-C, `SystemExit`)
//! is the caller's to pass on.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use kastor::{DropReason, Drops};
use pyo3::{
    PyErr, Python,
    exceptions::PyException,
    ffi::{self, PyObject},
};

use super::{calls, keys::Kind, object::Owned, value};

/// Failures in a row after which a reporter is left out.
const FAILURES_UNTIL_SUSPENDED: u32 = 5;
const FIRST_SUSPENSION: Duration = Duration::from_secs(1);
const LONGEST_SUSPENSION: Duration = Duration::from_secs(60);

/// A reporter that is a Python object.
pub(crate) struct PythonReporter {
    object: Owned,
    /// Reporters may have one method alone.
    takes_timings: bool,
    takes_metrics: bool,
    pub(crate) delivered: AtomicU64,
    dropped: [AtomicU64; 4],
    pub(crate) failures: AtomicU64,
    in_a_row: AtomicU32,
    suspensions: AtomicU32,
    /// Milliseconds of [`now_ms`] until which it is left out; 0 while it is not.
    suspended_until_ms: AtomicU64,
    is_muted: AtomicBool,
}

/// The reasons for which an event does not reach an inline reporter.
const REASONS: [DropReason; 4] =
    [DropReason::ReporterFailed, DropReason::ReporterSuspended, DropReason::Reentrant, DropReason::Sampled];

impl PythonReporter {
    pub(crate) fn new(object: Owned, takes_timings: bool, takes_metrics: bool) -> Self {
        Self {
            object,
            takes_timings,
            takes_metrics,
            delivered: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; 4],
            failures: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            suspensions: AtomicU32::new(0),
            suspended_until_ms: AtomicU64::new(0),
            is_muted: AtomicBool::new(false),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut PyObject {
        self.object.as_ptr()
    }

    /// Whether it has the method for events of a kind.
    #[inline(always)]
    pub(crate) fn takes(&self, kind: Kind) -> bool {
        if kind == Kind::Timing { self.takes_timings } else { self.takes_metrics }
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended_until_ms.load(Relaxed) != 0
    }

    /// Calls it with `arguments`: a place for the interpreter's use, one for the reporter, and the values, of which two are
    /// positional and the others those of `names`. Returns what it raised, if that is no `Exception`.
    ///
    /// # Safety
    /// The thread is attached, no error is set, and everything is alive; `arguments` has two places more than there are
    /// values.
    #[inline(always)]
    pub(crate) unsafe fn serve(
        &self,
        method: *mut PyObject,
        arguments: *mut *mut PyObject,
        names: *mut PyObject,
    ) -> Option<PyErr> {
        // SAFETY: as the caller says. The method is looked up now: a program may have replaced it.
        unsafe {
            let arguments = arguments.add(1);
            *arguments = self.as_ptr();
            let positional = 3 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
            let answer = calls::method(method, arguments, positional, names);
            if answer.is_null() {
                return self.failed();
            }
            calls::give_back(answer);
        }
        self.count_delivered();
        if self.in_a_row.load(Relaxed) != 0 {
            self.recover();
        }
        None
    }

    /// Events that it did not get, or failed on.
    pub(crate) fn drops(&self) -> Drops {
        let mut drops = Drops::default();
        for (reason, count) in REASONS.iter().zip(&self.dropped) {
            drops.add(*reason, count.load(Relaxed));
        }
        drops
    }

    /// Forgets the past, in a forked child.
    pub(crate) fn reset(&self) {
        self.delivered.store(0, Relaxed);
        self.dropped.iter().for_each(|count| count.store(0, Relaxed));
    }

    #[inline(always)]
    fn count_delivered(&self) {
        #[cfg(not(free_threaded))]
        self.delivered.store(self.delivered.load(Relaxed) + 1, Relaxed);
        #[cfg(free_threaded)]
        self.delivered.fetch_add(1, Relaxed);
    }

    #[cold]
    pub(crate) fn count_drop(&self, reason: DropReason) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            if let Some(count) = self.dropped.get(at) {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    /// One call gets to try a suspended reporter once its time is over.
    pub(crate) fn may_try(&self) -> bool {
        let until = self.suspended_until_ms.load(Relaxed);
        let now = now_ms();
        let pushed = now + FIRST_SUSPENSION.as_millis() as u64;
        until == 0 || now >= until && self.suspended_until_ms.compare_exchange(until, pushed, Relaxed, Relaxed).is_ok()
    }

    /// An exception of its own: contained, counted and logged; returned if it is no `Exception`.
    ///
    /// # Safety
    /// The thread is attached.
    #[cold]
    unsafe fn failed(&self) -> Option<PyErr> {
        // SAFETY: as the caller says.
        let python = unsafe { Python::assume_attached() };
        let error = PyErr::take(python)?;
        self.count_drop(DropReason::ReporterFailed);
        if !error.is_instance_of::<PyException>(python) {
            return Some(error);
        }
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let in_a_row = self.in_a_row.fetch_add(1, Relaxed) + 1;
        if in_a_row >= FAILURES_UNTIL_SUSPENDED {
            let times = self.suspensions.fetch_add(1, Relaxed);
            let pause = FIRST_SUSPENSION.saturating_mul(1 << times.min(20)).min(LONGEST_SUSPENSION);
            self.suspended_until_ms.store(now_ms() + pause.as_millis() as u64, Relaxed);
        }
        let is_first = failures <= 3;
        if (is_first || failures.is_power_of_two() || in_a_row == FAILURES_UNTIL_SUSPENDED)
            && !self.is_muted.swap(true, Relaxed)
        {
            // SAFETY: an object that is alive.
            let name = unsafe { value::class_name(ffi::Py_TYPE(self.as_ptr()).cast()) };
            let suspended = if in_a_row >= FAILURES_UNTIL_SUSPENDED { "; it is left out for a while" } else { "" };
            let message = format!("reporter {name} failed ({failures} so far){suspended}");
            let escaped = crate::cold::logging::error(python, &message, &error, is_first);
            self.is_muted.store(false, Relaxed);
            return escaped;
        }
        None
    }

    #[cold]
    fn recover(&self) {
        self.in_a_row.store(0, Relaxed);
        self.suspensions.store(0, Relaxed);
        self.suspended_until_ms.store(0, Relaxed);
    }
}

/// Milliseconds since the first call; never 0.
fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}
