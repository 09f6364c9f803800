//! Rest before a fork: threads of the library that have nothing to do end, and start again when they are needed.
//!
//! A fork copies one thread alone, and runtimes warn of forks in a process with others (Python does from 3.12 on). What
//! keeps a thread busy, as a server that does not answer, is not waited for beyond the deadline.

use super::spawn::{is_there, own_number, pause};
use crate::{
    reporter::Deadline,
    sync::{AtomicBool, AtomicI32, AtomicUsize, Ordering::*, global, zeros},
};

/// More threads of the library than any program has; further ones are not waited for.
const MAX_THREADS: usize = if cfg!(loom) { 2 } else { 64 };

global! {
    static IS_RESTING: AtomicBool = AtomicBool::new(false);
}
global! {
    /// Threads that were started and have not said their number yet.
    static STARTING: AtomicUsize = AtomicUsize::new(0);
}
global! {
    /// Threads that may be there, by the system's number; 0 where there is none. No lock: a fork could leave it taken.
    static THREADS: [AtomicI32; MAX_THREADS] = zeros();
}

/// Whether idle threads are to end, and none is to start.
pub(crate) fn is_resting() -> bool {
    IS_RESTING.load(Acquire)
}

/// Says that idle threads are to end, or that they may start again.
pub(crate) fn set_resting(is_resting: bool) {
    IS_RESTING.store(is_resting, SeqCst);
}

/// A thread is about to be started; undone where that was not possible.
pub(super) fn announce(is_started: bool) {
    if is_started {
        STARTING.fetch_add(1, AcqRel);
    } else {
        STARTING.fetch_sub(1, AcqRel);
    }
}

/// The calling thread, which was announced, says its number.
pub(super) fn enter() {
    let number = own_number();
    // One that finds no place is not waited for.
    let _ = number != 0 && THREADS.iter().any(|place| place.compare_exchange(0, number, AcqRel, Relaxed).is_ok());
    announce(false);
}

/// Waits until no thread of the library is there any more. Returns whether that is so.
pub(crate) fn wait_until_alone(deadline: Deadline) -> bool {
    loop {
        if STARTING.load(Acquire) == 0 && THREADS.iter().all(is_gone) {
            return true;
        }
        if deadline.has_passed() {
            return false;
        }
        pause();
    }
}

/// In a forked child: the parent's threads are not here.
pub(crate) fn forget_threads() {
    STARTING.store(0, Release);
    THREADS.iter().for_each(|place| place.store(0, Release));
    set_resting(false);
}

fn is_gone(place: &AtomicI32) -> bool {
    let number = place.load(Acquire);
    let is_gone = number == 0 || !is_there(number);
    if number != 0 && is_gone {
        // Unless another thread has taken the place meanwhile.
        let _ = place.compare_exchange(number, 0, AcqRel, Relaxed);
    }
    is_gone
}
