//! Exponential histograms, in the layout of OpenTelemetry's metrics data model: scale 3, so eight buckets per power of
//! two, each `(2^(i/8), 2^((i+1)/8)]`. The middle of a bucket is within 4.5 % of every value in it.

use crate::getters::getters;

/// Buckets per power of two.
const PER_OCTAVE: i32 = 8;
/// Below the buckets of all normal numbers.
const LEAST: i32 = -1022 * PER_OCTAVE - 1;
/// The bucket of one nanosecond.
const LEAST_DURATION: i32 = -1;
/// Most buckets that a histogram keeps on one side; 160 octaves cover every duration and nearly every metric.
const MAX_BUCKETS: usize = 160 * PER_OCTAVE as usize;

/// The bucket of a positive, finite, normal number.
pub(crate) fn bucket(value: f64) -> i32 {
    // Bounds include their upper end: just below it, an exact power of two falls into the bucket that it belongs to.
    bucket_inside(f64::from_bits(value.to_bits() - 1))
}

/// What to multiply with in order to come just below a bound that is hit exactly.
pub(crate) const JUST_BELOW: f64 = 1.0 - f64::EPSILON / 2.0;

/// The bucket of a number that is no bound; see [`JUST_BELOW`].
#[inline(always)]
pub(crate) fn bucket_inside(value: f64) -> i32 {
    /// Mantissas of 2^(k/8), k = 1..=8: where the next bucket begins within each eighth of an octave.
    const NEXT: [u64; 8] = [
        0x172b83c7d517b << 12,
        0x306fe0a31b715 << 12,
        0x4bfdad5362a27 << 12,
        0x6a09e667f3bcd << 12,
        0x8ace5422aa0db << 12,
        0xae89f995ad3ad << 12,
        0xd5818dcfba487 << 12,
        u64::MAX,
    ];
    let bits = value.to_bits();
    let eighths = bits >> 49;
    (eighths as i32) - 1023 * PER_OCTAVE + i32::from(bits << 12 > NEXT[(eighths & 7) as usize])
}

getters! {
    /// A run of buckets on one side of zero.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Buckets {
        /// Index of the first bucket: it holds values in `(2^(offset/8), 2^((offset+1)/8)]`.
        pub offset: i32,
        /// Values per bucket, from `offset` on.
        pub counts: Vec<u64> => &[u64],
    }
}

impl Buckets {
    #[inline(always)]
    pub(crate) fn add(&mut self, bucket: i32) {
        // Below the offset wraps around to far beyond the end.
        match self.counts.get_mut(bucket.wrapping_sub(self.offset) as u32 as usize) {
            Some(count) => *count += 1,
            None => self.add_outside(bucket, 1),
        }
    }

    /// Makes room in whole octaves; beyond the limit the outermost bucket takes what lies outside.
    #[cold]
    fn add_outside(&mut self, bucket: i32, times: u64) {
        // What is far below any number that is recorded was zero: it counts as the least that has a bucket here.
        let bucket = if bucket < LEAST { LEAST_DURATION } else { bucket };
        let octave = bucket.div_euclid(PER_OCTAVE) * PER_OCTAVE;
        if self.counts.is_empty() {
            self.offset = octave;
        }
        let first = self.offset.min(octave);
        let last = (self.offset + self.counts.len() as i32).max(octave + PER_OCTAVE);
        if (last - first) as usize <= MAX_BUCKETS {
            let mut counts = vec![0; (last - first) as usize];
            let at = (self.offset - first) as usize;
            if let Some(kept) = counts.get_mut(at..at + self.counts.len()) {
                kept.copy_from_slice(&self.counts);
            }
            (self.offset, self.counts) = (first, counts);
        }
        let nearest = bucket.clamp(self.offset, self.offset + self.counts.len() as i32 - 1);
        if let Some(count) = self.counts.get_mut((nearest - self.offset) as usize) {
            *count += times;
        }
    }

    /// Number of values and middle of each bucket.
    fn middles(&self) -> impl DoubleEndedIterator<Item = (u64, f64)> {
        let middle = |bucket: i32| ((f64::from(bucket) + 0.5) / f64::from(PER_OCTAVE)).exp2();
        self.counts.iter().enumerate().map(move |(at, count)| (*count, middle(self.offset + at as i32)))
    }

    pub(crate) fn merge(&mut self, other: &Buckets) {
        for (at, times) in other.counts.iter().enumerate().filter(|(_, times)| **times > 0) {
            let bucket = other.offset + at as i32;
            match self.counts.get_mut(bucket.wrapping_sub(self.offset) as usize) {
                Some(count) => *count += times,
                None => self.add_outside(bucket, *times),
            }
        }
    }
}

getters! {
    /// A distribution of numbers.
    ///
    /// NaN and infinities are counted apart and poison nothing. Two histograms merge without loss.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Histogram {
        /// Buckets of the values above zero.
        pub positive: Buckets => &Buckets,
        /// Buckets of the values below zero, by their absolute value.
        pub negative: Buckets => &Buckets,
        /// Values too close to zero to have a bucket.
        pub zeros: u64,
        /// Number of finite values.
        pub count: u64,
        /// Sum of the finite values.
        pub sum: f64,
        /// The smallest finite value.
        pub min: Option<f64>,
        /// The largest finite value.
        pub max: Option<f64>,
        /// Number of values that were NaN or infinite.
        pub not_finite: u64,
    }
}

impl Histogram {
    /// The scale of the exponential layout: bucket bounds are powers of 2^(2^-3).
    pub const SCALE: i32 = 3;

    /// Adds one value.
    pub fn record(&mut self, value: f64) {
        if !value.is_finite() {
            self.not_finite += 1;
            return;
        }
        self.count += 1;
        self.sum += value;
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
        let size = value.abs();
        match (size.is_normal(), value > 0.0) {
            (false, _) => self.zeros += 1,
            (true, true) => self.positive.add(bucket(size)),
            (true, false) => self.negative.add(bucket(size)),
        }
    }

    /// Positive values in buckets whose bounds are those of the given unit; for scope durations.
    pub(crate) fn from_buckets(positive: Buckets, sum: f64, min: f64, max: f64) -> Self {
        let count = positive.counts.iter().sum();
        let is_some = count > 0;
        Self { positive, count, sum, min: is_some.then_some(min), max: is_some.then_some(max), ..Self::default() }
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &Histogram) {
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
        self.zeros += other.zeros;
        self.count += other.count;
        self.sum += other.sum;
        self.not_finite += other.not_finite;
        for (mine, theirs, pick) in
            [(&mut self.min, other.min, f64::min as fn(f64, f64) -> f64), (&mut self.max, other.max, f64::max)]
        {
            *mine = match (*mine, theirs) {
                (Some(a), Some(b)) => Some(pick(a, b)),
                (a, b) => a.or(b),
            };
        }
    }

    /// The value below which the share `q` (0 to 1) of all values lies, within 4.5 %; none without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let (min, max) = (self.min?, self.max?);
        let rank = ((self.count as f64) * q.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let negative = self.negative.middles().rev().map(|(count, middle)| (count, -middle));
        let mut seen = 0;
        let mut walk = negative.chain([(self.zeros, 0.0)]).chain(self.positive.middles());
        let found = walk.find(|(count, _)| {
            seen += count;
            seen >= rank
        });
        Some(found.map_or(max, |(_, value)| value).clamp(min, max))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bucket_bounds_are_exclusive_below_and_inclusive_above() {
        for exponent in [-40i32, -1, 0, 1, 20, 62] {
            for eighth in 0..8 {
                let bound = (f64::from(exponent) + f64::from(eighth) / 8.0).exp2();
                let index = exponent * 8 + eighth;
                let above = f64::from_bits(bound.to_bits() + 4);
                let below = f64::from_bits(bound.to_bits() - 4);
                assert_eq!(bucket(above), index, "just above 2^({index}/8)");
                assert_eq!(bucket(below), index - 1, "just below 2^({index}/8)");
            }
            assert_eq!(bucket(f64::from(exponent).exp2()), exponent * 8 - 1, "a power of two is an upper bound");
        }
    }

    #[test]
    fn quantiles_are_within_four_and_a_half_per_cent() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|value| histogram.record(f64::from(value)));
        for q in [0.01, 0.5, 0.95, 0.99, 1.0] {
            let exact = 10_000.0 * q;
            let found = histogram.quantile(q).unwrap();
            assert!((found / exact - 1.0).abs() <= 0.045, "q {q}: {found} against {exact}");
        }
    }

    #[test]
    fn merging_is_the_same_as_recording_everything_in_one() {
        let values = [-7.5, 0.0, 1e-300, 3.0, 3.1, 1e12, f64::NAN, f64::INFINITY, 5e-324];
        let mut whole = Histogram::default();
        values.iter().for_each(|value| whole.record(*value));
        let mut merged = Histogram::default();
        for value in values {
            let mut one = Histogram::default();
            one.record(value);
            merged.merge(&one);
        }
        assert_eq!((merged.count, merged.zeros, merged.not_finite), (7, 2, 2));
        assert_eq!((merged.min, merged.max), (whole.min, whole.max));
        for q in [0.0, 0.2, 0.5, 0.9] {
            assert_eq!(merged.quantile(q), whole.quantile(q));
        }
    }
}
