//! The one switch between the standard library's primitives and loom's.
//!
//! Every lock-free structure of the crate takes its atomics and cells from here, so that `--cfg loom` can put each of
//! them under a model. Locks recover from poisoning: a panic in a reporter must not turn every later event into one.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

#[cfg(loom)]
pub(crate) use loom::sync::atomic;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`; what a panicking holder left behind is still used.
#[inline]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Anything that is kept for a while, a lock above all.
pub(crate) trait Held {}
impl<T> Held for T {}
