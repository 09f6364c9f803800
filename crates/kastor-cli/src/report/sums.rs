//! Sums by the path numbers of one session: what is done for every scope of a capture, so kept in dense memory and short.

use std::collections::HashMap;

use kastor::{Histogram, Outcome};
use kastor_export::capture::{Block, Timing};

/// Numbers of paths are dense from 1; what is beyond this many comes from no program.
const MOST_PATHS: u32 = 1 << 20;
/// Marks the number of a path that ends at the limits; without it the number is as good.
const DEEPER_BIT: u32 = 1 << 31;

/// What closed under one path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) total_ns: u64,
    /// Part of the total that is part of the parent's too; the rest belongs to another flow.
    pub(crate) in_parent_ns: u64,
    pub(crate) durations_ns: Histogram,
}

impl Sums {
    #[inline]
    fn add(&mut self, timing: &Timing<'_>) {
        let ns = timing.duration_ns();
        self.calls += 1;
        self.total_ns = self.total_ns.saturating_add(ns);
        if !timing.is_detached() {
            self.in_parent_ns = self.in_parent_ns.saturating_add(ns);
        }
        self.errors += u64::from(timing.outcome() == Outcome::Failed);
        self.durations_ns.record(ns as f64);
    }

    pub(crate) fn merge(&mut self, other: &Sums) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.in_parent_ns = self.in_parent_ns.saturating_add(other.in_parent_ns);
        self.durations_ns.merge(&other.durations_ns);
    }
}

/// The sums of one session.
#[derive(Debug, Default)]
pub(crate) struct SessionSums {
    /// Where the sums of a path are, plus 1; by its number.
    places: Vec<u32>,
    sums: Vec<(u32, Sums)>,
    /// Records with numbers that no program writes.
    absurd: Sums,
}

impl SessionSums {
    /// Adds a block and returns how many of its records are no timings. `look` is shown every timing that took at least
    /// `threshold_ns`, and returns the new threshold.
    pub(crate) fn add(
        &mut self,
        block: &Block<'_>,
        is_wanted: Option<&dyn Fn(&Timing<'_>) -> bool>,
        threshold_ns: &mut u64,
        mut look: impl FnMut(&Timing<'_>) -> u64,
    ) -> u32 {
        block.for_each_timing(|timing| {
            if is_wanted.is_some_and(|is_wanted| !is_wanted(&timing)) {
                return;
            }
            if timing.duration_ns() >= *threshold_ns {
                *threshold_ns = look(&timing);
            }
            let number = timing.path_id();
            let place = self.places.get((number & !DEEPER_BIT) as usize).copied().unwrap_or(0);
            match self.sums.get_mut((place as usize).wrapping_sub(1)) {
                Some((of, sums)) if *of == number => sums.add(&timing),
                _ => self.add_new(number, &timing),
            }
        })
    }

    /// The sums by path number. What nothing is known of has the number 0.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (u32, Sums)> + use<> {
        self.places.clear();
        let absurd = std::mem::take(&mut self.absurd);
        let all = std::mem::take(&mut self.sums).into_iter();
        all.chain((absurd.calls > 0).then_some((0, absurd)))
    }

    /// The first of its path.
    #[cold]
    fn add_new(&mut self, number: u32, timing: &Timing<'_>) {
        let index = (number & !DEEPER_BIT) as usize;
        let is_taken = self.places.get(index).is_some_and(|place| *place != 0);
        if is_taken || index >= MOST_PATHS as usize {
            return self.absurd.add(timing);
        }
        if self.places.len() <= index {
            self.places.resize((index + 1).next_power_of_two(), 0);
        }
        let mut sums = Sums::default();
        sums.add(timing);
        self.sums.push((number, sums));
        if let Some(place) = self.places.get_mut(index) {
            *place = self.sums.len() as u32;
        }
    }
}

/// Values of `metric!` under one path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    pub(crate) calls: u64,
    pub(crate) values: Histogram,
    pub(crate) last: Option<f64>,
    last_ns: u64,
}

impl Events {
    pub(crate) fn merge(&mut self, other: &Events) {
        self.calls += other.calls;
        self.values.merge(&other.values);
        if other.last_ns >= self.last_ns {
            (self.last, self.last_ns) = (other.last.or(self.last), other.last_ns);
        }
    }
}

/// The metric events of one session, by the numbers of their paths.
#[derive(Debug, Default)]
pub(crate) struct SessionEvents(pub(crate) HashMap<u32, Events>);

impl SessionEvents {
    pub(crate) fn add(&mut self, block: &Block<'_>, (since_ns, until_ns): (u64, u64)) {
        for record in block.records() {
            let kastor_export::capture::Record::Metric(metric) = record else { continue };
            let at_ns = metric.unix_ns();
            if !(since_ns..until_ns).contains(&at_ns) {
                continue;
            }
            let events = self.0.entry(metric.path_id()).or_default();
            events.calls += 1;
            if let Some(value) = number(&metric.value()) {
                events.values.record(value);
                if at_ns >= events.last_ns {
                    (events.last, events.last_ns) = (Some(value), at_ns);
                }
            }
        }
    }
}

/// A value as a number, if it is one.
pub(crate) fn number(value: &kastor_export::capture::StoredValue<'_>) -> Option<f64> {
    use kastor_export::capture::StoredValue::{F64, I64, U64};
    match *value {
        I64(value) => Some(value as f64),
        U64(value) => Some(value as f64),
        F64(value) => Some(value),
        _ => None,
    }
}
