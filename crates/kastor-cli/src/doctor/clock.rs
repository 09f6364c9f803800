//! The yardstick: one read of the clock that kastor uses for scopes on this machine, without anything around it.
//!
//! The only unsafe code of this crate. It is here because a safe clock of the standard library costs about twice as much as the
//! counter, and dividing by it would flatter kastor by that factor.

/// Whether scopes are timed with the processor's counter.
pub(super) fn is_counter(clock_source: &str) -> bool {
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64"))
        && (clock_source.contains("rdtsc") || clock_source.contains("cntvct"))
}

/// Reads the processor's counter.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn counter() -> u64 {
    // SAFETY: the instruction only reads a register that every x86-64 processor has. It is reached only where the core has
    // chosen the same counter for its scopes.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Reads the processor's counter.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) fn counter() -> u64 {
    let ticks: u64;
    // SAFETY: the instruction only reads a register that the systems we run on make readable to programs. It is reached only
    // where the core has chosen the same counter for its scopes.
    unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags)) };
    ticks
}

/// There is no counter to read here; [`is_counter`] says so.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn counter() -> u64 {
    0
}
