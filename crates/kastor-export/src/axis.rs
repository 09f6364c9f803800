//! The time axis of a trace file: the monotonic clock, moved to where the wall clock was when the file began.
//!
//! So its numbers are Unix nanoseconds that anyone can read, and no later jump of the wall clock bends them. Where the
//! wall clock jumps, batches and snapshots say so by the difference of their two times.

use kastor::Anchor;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Axis {
    /// From monotonic to axis: fixed with the first anchor.
    offset_ns: Option<i128>,
    /// From monotonic to Unix: that of the newest anchor.
    unix_offset_ns: i128,
}

impl Axis {
    /// Takes note of what the newest batch says about the clocks.
    pub(crate) fn see(&mut self, anchor: Anchor) {
        self.unix_offset_ns = i128::from(anchor.unix_ns) - i128::from(anchor.monotonic_ns);
        self.offset_ns.get_or_insert(self.unix_offset_ns);
    }

    /// The place of a monotonic time, in nanoseconds.
    pub(crate) fn of_monotonic(&self, monotonic_ns: u64) -> u64 {
        saturated(i128::from(monotonic_ns) + self.offset_ns.unwrap_or(0))
    }

    /// The place of a Unix time of the newest batch, or taken after it, in nanoseconds.
    pub(crate) fn of_unix(&self, unix_ns: u64) -> u64 {
        saturated(i128::from(unix_ns) - self.unix_offset_ns + self.offset_ns.unwrap_or(self.unix_offset_ns))
    }
}

fn saturated(ns: i128) -> u64 {
    // Readers take signed numbers.
    ns.clamp(0, i128::from(i64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(monotonic_ns: u64, unix_ns: u64) -> Anchor {
        Anchor { ticks: 0, monotonic_ns, unix_ns }
    }

    #[test]
    fn a_jump_of_the_wall_clock_moves_nothing() {
        let mut axis = Axis::default();
        assert_eq!(axis.of_unix(77), 77, "without an anchor there is only the wall clock");
        axis.see(anchor(1_000, 50_000));
        assert_eq!((axis.of_monotonic(1_200), axis.of_unix(50_200)), (50_200, 50_200));
        axis.see(anchor(2_000, 9_000_000));
        assert_eq!((axis.of_monotonic(2_200), axis.of_unix(9_000_200)), (51_200, 51_200));
    }
}
