//! The cell of one thread for one series: written by its owner without a locked instruction, read by anyone.
//!
//! All fields are relaxed atomics that only the owner writes (load, add, store). What a reader sees is each field at
//! some moment; at rest it is exact. Calls and sum of small increments are one word, so that the usual call is one
//! addition. Justified by the `on_counter*` cases of the benchmark.

use crate::{
    event::{Histogram, MetricType, Number},
    sync::{AtomicBool, AtomicU64, Mutex, Ordering::Relaxed, lock},
};

/// Bits of NaN: no value so far.
const NONE: u64 = f64::NAN.to_bits();

/// What one call adds to [`Cell::packed`], besides its increment.
// In a model there is room for one.
const PACKED_CALL: u64 = 1 << if cfg!(loom) { 62 } else { 40 };
/// Increments beyond this are not packed: 2²³ of them fit below the calls.
pub(crate) const MAX_PACKED: u64 = u16::MAX as u64;

/// What one thread recorded into one series.
pub(crate) struct Cell {
    /// Calls with small increments that are not negative, from bit 40 on, and the sum of those increments below: one
    /// addition counts both. Emptied into the fields below, under the lock of `carried`, when the highest bit is set.
    packed: AtomicU64,
    /// The labels that were asked for.
    pub(crate) labels: Box<[u64]>,
    /// Calls and sum of the increments that are not negative, of all that was not packed or was unpacked.
    calls: AtomicU64,
    integers: AtomicU64,
    /// Bits of the sum of everything that is no integer.
    floats: AtomicU64,
    is_float: AtomicBool,
    was_negative: AtomicBool,
    /// What does not fit into `integers`, and all that is negative.
    carried: Mutex<i128>,
    /// Bits of a gauge's newest value, its tick, and the bits of the extremes; NaN while there is none.
    last: AtomicU64,
    last_tick: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    /// The distribution of a histogram, and what is not finite in any instrument: behind a lock that only a reader
    /// ever contends for.
    values: Mutex<Histogram>,
}

/// Cells summed up.
#[derive(Clone, Debug, Default)]
pub(crate) struct CellSum {
    pub(crate) calls: u64,
    pub(crate) integers: i128,
    pub(crate) floats: f64,
    pub(crate) is_float: bool,
    pub(crate) was_negative: bool,
    /// Of a gauge.
    pub(crate) last: Option<(u64, f64)>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) values: Histogram,
}

impl Cell {
    pub(crate) fn new(labels: &[u64]) -> Self {
        Self {
            packed: AtomicU64::new(0),
            labels: labels.into(),
            calls: AtomicU64::new(0),
            integers: AtomicU64::new(0),
            floats: AtomicU64::new(0),
            is_float: AtomicBool::new(false),
            was_negative: AtomicBool::new(false),
            carried: Mutex::new(0),
            last: AtomicU64::new(NONE),
            last_tick: AtomicU64::new(0),
            min: AtomicU64::new(NONE),
            max: AtomicU64::new(NONE),
            values: Mutex::new(Histogram::default()),
        }
    }

    /// Adds an increment of at most [`MAX_PACKED`]. Owner only.
    #[inline(always)]
    pub(crate) fn add_packed(&self, increment: u64) {
        let packed = self.packed.load(Relaxed).wrapping_add(PACKED_CALL + increment);
        self.packed.store(packed, Relaxed);
        if packed as i64 <= -1 {
            self.unpack();
        }
    }

    /// Makes room in `packed`: once in 2²³ calls, so it did not overflow.
    #[cold]
    #[inline(never)]
    fn unpack(&self) {
        let mut carried = lock(&self.carried);
        let packed = self.packed.load(Relaxed);
        self.calls.store(self.calls.load(Relaxed).wrapping_add(packed / PACKED_CALL), Relaxed);
        *carried += i128::from(packed % PACKED_CALL);
        self.packed.store(0, Relaxed);
    }

    /// Adds an increment that is not negative. Owner only.
    #[inline(never)]
    pub(crate) fn add_unsigned(&self, increment: u64) {
        self.calls.store(self.calls.load(Relaxed).wrapping_add(1), Relaxed);
        match self.integers.load(Relaxed).checked_add(increment) {
            Some(sum) => self.integers.store(sum, Relaxed),
            None => self.carry(i128::from(increment)),
        }
    }

    /// Adds any integer. Owner only.
    #[inline(never)]
    pub(crate) fn add_signed(&self, increment: i64) {
        if increment >= 0 {
            return self.add_unsigned(increment.unsigned_abs());
        }
        self.was_negative.store(true, Relaxed);
        self.calls.store(self.calls.load(Relaxed).wrapping_add(1), Relaxed);
        self.carry(i128::from(increment));
    }

    /// Adds a number that may be no integer; NaN and infinities are counted apart. Owner only.
    #[inline(never)]
    pub(crate) fn add_float(&self, increment: f64) {
        self.calls.store(self.calls.load(Relaxed).wrapping_add(1), Relaxed);
        if !increment.is_finite() {
            lock(&self.values).record(increment);
            return;
        }
        self.is_float.store(true, Relaxed);
        if increment < 0.0 {
            self.was_negative.store(true, Relaxed);
        }
        self.floats.store((f64::from_bits(self.floats.load(Relaxed)) + increment).to_bits(), Relaxed);
    }

    /// Records a value of a gauge or histogram. Owner only.
    pub(crate) fn record(&self, metric_type: MetricType, value: f64, tick: u64) {
        self.calls.store(self.calls.load(Relaxed).wrapping_add(1), Relaxed);
        if metric_type != MetricType::Gauge || !value.is_finite() {
            return lock(&self.values).record(value);
        }
        self.last.store(value.to_bits(), Relaxed);
        self.last_tick.store(tick, Relaxed);
        self.floats.store((f64::from_bits(self.floats.load(Relaxed)) + value).to_bits(), Relaxed);
        // `min` and `max` of a number and NaN are the number.
        self.min.store(f64::from_bits(self.min.load(Relaxed)).min(value).to_bits(), Relaxed);
        self.max.store(f64::from_bits(self.max.load(Relaxed)).max(value).to_bits(), Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn carry(&self, increment: i128) {
        *lock(&self.carried) += increment;
    }

    /// Adds what the cell holds to `sum`.
    pub(crate) fn add_to(&self, sum: &mut CellSum) {
        {
            // Nothing is unpacked meanwhile: it is found in one of the two places.
            let carried = lock(&self.carried);
            let packed = self.packed.load(Relaxed);
            sum.calls += self.calls.load(Relaxed) + packed / PACKED_CALL;
            sum.integers += i128::from(self.integers.load(Relaxed)) + i128::from(packed % PACKED_CALL) + *carried;
        }
        sum.floats += f64::from_bits(self.floats.load(Relaxed));
        sum.is_float |= self.is_float.load(Relaxed);
        sum.was_negative |= self.was_negative.load(Relaxed);
        sum.values.merge(&lock(&self.values));
        let value = |bits: &AtomicU64| Some(f64::from_bits(bits.load(Relaxed))).filter(|value| !value.is_nan());
        let newest = value(&self.last).map(|last| (self.last_tick.load(Relaxed), last));
        if let Some(newest) = newest.filter(|newest| sum.last.is_none_or(|(tick, _)| tick <= newest.0)) {
            sum.last = Some(newest);
        }
        let pick = |one: Option<f64>, other: Option<f64>, pick: fn(f64, f64) -> f64| match (one, other) {
            (Some(one), Some(other)) => Some(pick(one, other)),
            (one, other) => one.or(other),
        };
        sum.min = pick(sum.min, value(&self.min), f64::min);
        sum.max = pick(sum.max, value(&self.max), f64::max);
    }
}

impl CellSum {
    /// Integers while all were, else everything as a float.
    pub(crate) fn sum(&self, metric_type: MetricType) -> Number {
        match (metric_type, self.is_float) {
            (MetricType::Counter, false) => Number::Integer(self.integers),
            (MetricType::Counter, true) => Number::Float(self.integers as f64 + self.floats),
            (MetricType::Gauge, _) => Number::Float(self.floats),
            (MetricType::Histogram, _) => Number::Float(self.values.sum()),
        }
    }
}
