//! How far apart the system's clocks are: traces of the system itself are on the clock that goes on while it sleeps.

/// Two clocks of the system at about the same moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SystemClocks {
    pub(super) monotonic_ns: u64,
    boot_ns: u64,
}

impl SystemClocks {
    #[cfg(target_os = "linux")]
    pub(super) fn read() -> Self {
        Self { monotonic_ns: read(libc::CLOCK_MONOTONIC), boot_ns: read(libc::CLOCK_BOOTTIME) }
    }

    /// Where there is only one of them, they are the same.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read() -> Self {
        Self { monotonic_ns: 0, boot_ns: 0 }
    }

    /// How long the system has slept. The two were read one after the other, which is no sleep.
    pub(super) fn suspended_ns(self) -> u64 {
        const BETWEEN_READS_NS: u64 = 1_000_000;
        Some(self.boot_ns.saturating_sub(self.monotonic_ns)).filter(|ns| *ns > BETWEEN_READS_NS).unwrap_or(0)
    }
}

#[cfg(target_os = "linux")]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the time, which lives for the call; a clock that every Linux has, and else zeros stay.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}
