//! What the harness asks of the machine: clocks, the raw counter, and the choice of a CPU.

use std::time::Instant;

/// The rawest time-stamp the machine has: what a scope cannot do without, twice.
#[inline(always)]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: rdtsc has no preconditions.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reading the virtual counter has no preconditions; Linux and macOS allow it to programs.
    unsafe {
        let ticks: u64;
        std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack));
        ticks
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        clock_ns(libc::CLOCK_MONOTONIC)
    }
}

/// CPU time of all threads of this process.
pub fn process_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of the calling thread.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Time since boot: comparable between processes, which `Instant` does not show.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds that `work` takes on the wall.
pub fn wall_ns(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

/// Binds the calling thread to one CPU until dropped. Threads it starts meanwhile inherit the binding.
pub struct Pinned {
    #[cfg(target_os = "linux")]
    before: libc::cpu_set_t,
}

/// Binds the calling thread to the `nth` of the CPUs it may use; does nothing where the system cannot.
pub fn pin(nth: usize) -> Option<Pinned> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: an all-zero cpu_set_t is a valid empty set, the calls get its true size, and CPU numbers stay
        // below CPU_SETSIZE.
        unsafe {
            let size = size_of::<libc::cpu_set_t>();
            let mut before: libc::cpu_set_t = std::mem::zeroed();
            if libc::sched_getaffinity(0, size, &mut before) != 0 {
                return None;
            }
            let usable: Vec<usize> =
                (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &before)).collect();
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            // From the last one down: interrupts tend to land on the first.
            let cpu = usable[usable.len() - 1 - nth % usable.len()];
            libc::CPU_SET(cpu, &mut one);
            (libc::sched_setaffinity(0, size, &one) == 0).then_some(Pinned { before })
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = nth;
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: `before` was filled by sched_getaffinity.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.before) };
    }
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clocks asked for exist on every system this runs on.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
