//! The processor's counter: one unordered read, the cheapest clock there is.
//!
//! On x86-64 it counts only if the kernel chose `tsc` as its own clocksource (then it is constant, synchronised and
//! survives idle states); a virtual machine or an old processor without that falls back to the monotonic clock. On
//! aarch64 the generic timer is architected to be usable. Justified by every `on_*` case of the benchmark.

/// Name of the counter, for `doctor`.
#[cfg(target_arch = "x86_64")]
pub(crate) const NAME: &str = "time-stamp counter (rdtsc)";
#[cfg(target_arch = "aarch64")]
pub(crate) const NAME: &str = "generic timer (cntvct_el0)";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) const NAME: &str = "monotonic clock of the operating system";

/// Raw ticks: rdtsc.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(crate) fn raw_ticks() -> u64 {
    // SAFETY: the instruction only reads a register; it is available on every x86-64 processor, and a kernel that
    // forbids it to a process (PR_SET_TSC) is one where that process asked for it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Raw ticks: the virtual count register.
#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline(always)]
pub(crate) fn raw_ticks() -> u64 {
    let ticks: u64;
    // SAFETY: reads a register that the architecture makes readable from user space on all supported systems.
    unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags)) };
    ticks
}

/// Raw ticks where there is no counter.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[inline]
pub(crate) fn raw_ticks() -> u64 {
    super::os::monotonic_ns()
}

/// Whether the kernel itself keeps time with the counter.
pub(crate) fn is_trusted() -> bool {
    if cfg!(miri) {
        // In an interpreter the monotonic clock stands for the counter: with it the hot paths run, most of the `unsafe`.
        return true;
    }
    if cfg!(target_arch = "aarch64") {
        return true;
    }
    cfg!(all(target_arch = "x86_64", target_os = "linux"))
        && std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .is_ok_and(|source| source.trim() == "tsc")
}
