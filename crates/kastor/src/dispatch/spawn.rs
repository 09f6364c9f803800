//! How the library's own threads start.
//!
//! Not by `std::thread`: a thread that starts or ends holds a lock of the standard library for a moment (its table of
//! stack guards), and a fork in that moment leaves it taken in the child for ever, where the next start would hang. The
//! system's own call has no such lock. Signals of the program are not for these threads: all are blocked in them.

/// Starts a thread with a name of at most 15 bytes, which nobody will wait for. Returns whether that was possible.
#[cfg(all(unix, not(miri)))]
pub fn start_thread(name: &'static std::ffi::CStr, run: impl FnOnce() + Send + 'static) -> bool {
    use std::{ffi::c_void, mem::MaybeUninit, ptr};

    use crate::{sync::survived, thread::mark_as_own};

    /// Enough for reporters of any kind; only what is touched becomes memory.
    const STACK_BYTES: usize = 2 << 20;

    struct Start {
        name: &'static std::ffi::CStr,
        run: Box<dyn FnOnce() + Send>,
    }

    extern "C" fn main(start: *mut c_void) -> *mut c_void {
        // SAFETY: the box that `start_thread` handed over to this thread alone.
        let start = unsafe { Box::from_raw(start.cast::<Start>()) };
        #[cfg(target_os = "linux")]
        // SAFETY: a name that ends with a zero byte, for the calling thread.
        unsafe {
            libc::pthread_setname_np(libc::pthread_self(), start.name.as_ptr());
        }
        mark_as_own();
        super::rest::enter();
        survived(start.run);
        ptr::null_mut()
    }

    let start = Box::into_raw(Box::new(Start { name, run: Box::new(run) }));
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let (mut attributes, mut thread) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    super::rest::announce(true);
    // SAFETY: each place is written by the call that is given it before another one reads it; the new thread takes the
    // box over if, and only if, it was started.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        libc::pthread_attr_init(attributes.as_mut_ptr());
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK_BYTES);
        let status = libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), main, start.cast());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        if status != 0 {
            drop(Box::from_raw(start));
            super::rest::announce(false);
        }
        status == 0
    }
}

/// The same where there are no forks, or no system to ask.
#[cfg(any(not(unix), miri))]
pub fn start_thread(name: &'static std::ffi::CStr, run: impl FnOnce() + Send + 'static) -> bool {
    super::rest::announce(true);
    let builder = std::thread::Builder::new().name(name.to_string_lossy().into_owned());
    let is_started = builder
        .spawn(|| {
            crate::thread::mark_as_own();
            super::rest::enter();
            run();
        })
        .is_ok();
    if !is_started {
        super::rest::announce(false);
    }
    is_started
}

/// The system's number of the calling thread; 0 where there is none.
pub(super) fn own_number() -> i32 {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: the call takes no arguments and cannot fail.
    return unsafe { libc::gettid() };
    #[cfg(not(all(target_os = "linux", not(miri))))]
    return 0;
}

/// Whether a thread of this process has that number.
pub(super) fn is_there(number: i32) -> bool {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: signal 0 is sent to nobody; the system says whether the thread is there.
    return unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), number, 0) } == 0;
    #[cfg(not(all(target_os = "linux", not(miri))))]
    return number != 0;
}

/// A moment, for whoever waits for threads to end: the system tells nobody when one has.
pub(super) fn pause() {
    std::thread::sleep(std::time::Duration::from_micros(100));
}
