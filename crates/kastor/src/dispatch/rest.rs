//! Rest before a fork: threads of the library that have nothing to do end, and start again when they are needed.
//!
//! A fork copies one thread alone, and runtimes warn of forks in a process with others (Python does from 3.12 on). What
//! keeps a thread busy, as a server that does not answer, is not waited for beyond the deadline.

use std::{
    sync::atomic::{
        AtomicBool, AtomicI32, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    },
    time::Duration,
};

use crate::reporter::Deadline;

static IS_RESTING: AtomicBool = AtomicBool::new(false);
/// Threads that were started and have not said their number yet.
static STARTING: AtomicUsize = AtomicUsize::new(0);
/// Threads that may be there, by the system's number; 0 where there is none. No lock: a fork could leave it taken.
static THREADS: [AtomicI32; 64] = [const { AtomicI32::new(0) }; 64];

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
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        // SAFETY: the call takes no arguments and cannot fail.
        let number = unsafe { libc::gettid() };
        // One that finds no place is not waited for.
        let _ = THREADS.iter().any(|place| place.compare_exchange(0, number, AcqRel, Relaxed).is_ok());
    }
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
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// In a forked child: the parent's threads are not here.
pub(crate) fn forget_threads() {
    STARTING.store(0, Release);
    THREADS.iter().for_each(|place| place.store(0, Release));
    set_resting(false);
}

#[cfg(all(target_os = "linux", not(miri)))]
fn is_gone(place: &AtomicI32) -> bool {
    let number = place.load(Acquire);
    if number == 0 {
        return true;
    }
    // SAFETY: signal 0 is sent to nobody; the system says whether the thread is there.
    let is_there = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), number, 0) } == 0;
    if !is_there {
        let _ = place.compare_exchange(number, 0, AcqRel, Relaxed);
    }
    !is_there
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn is_gone(_: &AtomicI32) -> bool {
    true
}
