//! What the structures see in a model instead of the library's own `sync`: loom's atomics and locks.
#![allow(dead_code, unused_macros, unused_imports, reason = "no structure uses all of it")]

pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic::*};

macro_rules! constant {
    ($($(#[$about:meta])* $visibility:vis fn $name:ident($($takes:tt)*) -> $gives:ty $body:block)*) => {
        $($(#[$about])* $visibility fn $name($($takes)*) -> $gives $body)*
    };
}
pub(crate) use constant;

macro_rules! repeated {
    ($value:expr; $len:expr) => {
        std::array::from_fn(|_| $value)
    };
}
pub(crate) use repeated;

macro_rules! global {
    ($(#[$about:meta])* $(pub($within:tt))? static $name:ident: $of:ty = $value:expr;) => {
        loom::lazy_static! { $(pub($within))? static ref $name: $of = $value; }
    };
}
pub(crate) use global;

pub(crate) unsafe fn own(number: &AtomicU32) -> u32 {
    // SAFETY: as the caller says; loom checks it.
    unsafe { number.unsync_load() }
}

pub(crate) fn null_pointers<T, const N: usize>() -> [AtomicPtr<T>; N] {
    std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut()))
}

pub(crate) fn zeros<const N: usize>() -> [AtomicI32; N] {
    std::array::from_fn(|_| AtomicI32::new(0))
}

/// Anything that is kept for a while, a lock above all.
pub(crate) trait Held {}
impl<T> Held for T {}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// Runs a model of many steps: with up to three preemptions, with `KASTOR_DEEP=1` up to five.
pub(crate) fn large_model(f: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    let is_deep = std::env::var_os("KASTOR_DEEP").is_some_and(|set| set == "1");
    model.preemption_bound = Some(if is_deep { 5 } else { 3 });
    model.check(f);
}
