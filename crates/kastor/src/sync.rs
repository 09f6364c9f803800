//! The atomics of the lock-free structures, and locks that outlive a panic.
//!
//! A structure takes its atomics from here, so that a model (`tests/loom_*.rs`) can include its source file next to a
//! `sync` of its own with loom's. Locks recover from poisoning: a panic in a reporter must not turn every later event
//! into one.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic::*};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::PoisonError,
};

/// Makes functions `const`. In a model it does not: loom's atomics cannot be made at compile time.
macro_rules! constant {
    ($($(#[$about:meta])* $visibility:vis fn $name:ident($($takes:tt)*) -> $gives:ty $body:block)*) => {
        $($(#[$about])* $visibility const fn $name($($takes)*) -> $gives $body)*
    };
}
pub(crate) use constant;

/// An array of as many values as are asked for.
macro_rules! repeated {
    ($value:expr; $len:expr) => {
        [const { $value }; $len]
    };
}
pub(crate) use repeated;

/// What there is once in a process; in a model once in every execution.
macro_rules! global {
    ($(#[$about:meta])* $visibility:vis static $name:ident: $of:ty = $value:expr;) => {
        $(#[$about])* $visibility static $name: $of = $value;
    };
}
pub(crate) use global;

/// What a thread reads that alone writes it: a plain load, which the compiler may fold into the instruction that wants
/// it, unlike an atomic one.
///
/// # Safety
/// Only the calling thread writes it.
#[inline(always)]
pub(crate) unsafe fn own(number: &AtomicU32) -> u32 {
    // SAFETY: with no other writer the load races with nothing: others only read.
    unsafe { number.as_ptr().read() }
}

/// Pointers to nothing.
pub(crate) const fn null_pointers<T, const N: usize>() -> [AtomicPtr<T>; N] {
    [const { AtomicPtr::new(std::ptr::null_mut()) }; N]
}

/// Numbers that are zero.
pub(crate) const fn zeros<const N: usize>() -> [AtomicI32; N] {
    [const { AtomicI32::new(0) }; N]
}

/// Locks `mutex`; what a panicking holder left behind is still used.
#[inline]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls user code that may panic; none if it did. What a panic carries is dropped with the same care.
pub(crate) fn contained<R>(f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Calls user code that may panic, where it does not matter with what; none if it did.
pub(crate) fn survived<R>(f: impl FnOnce() -> R) -> Option<R> {
    contained(f).map_err(drop_contained).ok()
}

/// Drops what a panic carried, whose own destructor may panic.
pub(crate) fn drop_contained(panic: Box<dyn Any + Send>) {
    if let Err(again) = contained(|| drop(panic)) {
        std::mem::forget(again);
    }
}

/// Anything that is kept for a while, a lock above all.
pub trait Held {}
impl<T> Held for T {}
