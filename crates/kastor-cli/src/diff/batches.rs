//! Durations of one path in the order in which they came, as the means of batches.
//!
//! Durations that follow one another are alike: a warm cache, a busy neighbour, a slow minute. Taken one by one they would
//! seem to say more than they do. The means of long batches of consecutive calls are nearly independent, so their spread says
//! how far the mean of all would differ if the run were repeated: the method of batch means (Law and Kelton, *Simulation
//! Modeling and Analysis*). The number of calls need not be known before: when there are twice as many batches as
//! needed, neighbours become one.
//!
//! Where a path occurs in five runs or more, the runs are the batches: they differ by more than batches within a run do.

/// Batches are halved to this many.
const FEWEST: usize = 32;
/// So many runs tell by themselves how much runs differ.
const FEWEST_RUNS: usize = 5;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    calls: u64,
    total: f64,
    /// Calls in each full batch.
    size: u64,
    /// Totals of full batches.
    full: Vec<f64>,
    open: (u64, f64),
    /// Calls and total of each run that has ended.
    runs: Vec<(u64, f64)>,
    /// Calls and total at the end of the last of them.
    ended: (u64, f64),
}

impl Default for Batches {
    fn default() -> Self {
        Self { calls: 0, total: 0.0, size: 1, full: Vec::new(), open: (0, 0.0), runs: Vec::new(), ended: (0, 0.0) }
    }
}

/// What batches say about the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) calls: u64,
    pub(crate) mean: f64,
    /// Standard error of the mean.
    pub(crate) error: f64,
    /// Degrees of freedom of that error.
    pub(crate) freedom: f64,
}

impl Batches {
    #[inline]
    pub(crate) fn add(&mut self, ns: u64) {
        let ns = ns as f64;
        self.calls += 1;
        self.total += ns;
        self.open.0 += 1;
        self.open.1 += ns;
        if self.open.0 >= self.size {
            self.close();
        }
    }

    /// What comes next is another run's.
    pub(crate) fn end_run(&mut self) {
        if self.calls > self.ended.0 {
            self.runs.push((self.calls - self.ended.0, self.total - self.ended.1));
            self.ended = (self.calls, self.total);
        }
    }

    /// Adds what came later in the same run.
    pub(crate) fn append(&mut self, mut later: Batches) {
        if self.calls == 0 {
            (later.runs, later.ended) = (Vec::new(), (0, 0.0));
            *self = later;
            return;
        }
        while self.size < later.size {
            self.halve();
        }
        while later.size < self.size {
            later.halve();
        }
        self.calls += later.calls;
        self.total += later.total;
        self.full.append(&mut later.full);
        self.open.0 += later.open.0;
        self.open.1 += later.open.1;
        if self.open.0 >= self.size {
            // As a batch of the usual size with the same mean.
            self.open.1 *= self.size as f64 / self.open.0 as f64;
            self.close();
        }
        while self.full.len() >= 2 * FEWEST {
            self.halve();
        }
    }

    /// The mean and how uncertain it is; none with fewer than two batches.
    pub(crate) fn estimate(&self) -> Option<Estimate> {
        if self.runs.len() >= FEWEST_RUNS {
            return Some(self.estimate_of_runs());
        }
        let batches = self.full.len();
        if batches < 2 {
            return None;
        }
        let (number, size) = (batches as f64, self.size as f64);
        let mean_of_full = self.full.iter().sum::<f64>() / number;
        let squares: f64 = self.full.iter().map(|total| (total - mean_of_full).powi(2)).sum();
        let variance = squares / (number - 1.0) / (size * size);
        Some(Estimate {
            calls: self.calls,
            mean: self.total / self.calls as f64,
            error: (variance / number).sqrt(),
            freedom: number - 1.0,
        })
    }

    /// Runs may have different numbers of calls: the mean is a ratio of two sums over runs.
    fn estimate_of_runs(&self) -> Estimate {
        let number = self.runs.len() as f64;
        let calls: u64 = self.runs.iter().map(|(calls, _)| calls).sum();
        let total: f64 = self.runs.iter().map(|(_, total)| total).sum();
        let mean = total / calls as f64;
        let squares: f64 = self.runs.iter().map(|(calls, total)| (total - mean * *calls as f64).powi(2)).sum();
        let error = (squares / (number - 1.0) / number).sqrt() / (calls as f64 / number);
        Estimate { calls, mean, error, freedom: number - 1.0 }
    }

    fn close(&mut self) {
        self.full.push(self.open.1);
        self.open = (0, 0.0);
        if self.full.len() >= 2 * FEWEST {
            self.halve();
        }
    }

    /// Makes one batch of two neighbours; one that has no neighbour is open again.
    fn halve(&mut self) {
        if self.full.len() % 2 == 1 {
            if let Some(last) = self.full.pop() {
                self.open.0 += self.size;
                self.open.1 += last;
            }
        }
        self.full = self.full.chunks_exact(2).map(|pair| pair.iter().sum()).collect();
        self.size *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Batches {
        let mut batches = Batches::default();
        values.into_iter().for_each(|value| batches.add(value));
        batches
    }

    #[test]
    fn the_mean_is_exact_and_batches_stay_few() {
        for calls in [2, 63, 64, 65, 1_000, 12_345] {
            let estimate = of(1..=calls).estimate().unwrap();
            assert_eq!((estimate.calls, estimate.mean), (calls, (calls + 1) as f64 / 2.0));
            assert!((1.0..64.0).contains(&estimate.freedom), "{calls}: {estimate:?}");
        }
    }

    #[test]
    fn few_calls_are_taken_one_by_one() {
        let estimate = of([1, 2, 3, 4]).estimate().unwrap();
        assert!((estimate.error - (5.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12, "{estimate:?}");
        assert_eq!(of([7]).estimate(), None);
    }

    #[test]
    fn drift_makes_a_mean_uncertain_that_looks_certain_call_by_call() {
        let calm = of((0..10_000).map(|at| 1000 + at % 2 * 100)).estimate().unwrap();
        let drifting = of((0..10_000).map(|at| 1000 + at / 5000 * 100)).estimate().unwrap();
        assert!(calm.error < 0.01 && drifting.error > 5.0, "{calm:?} {drifting:?}");
    }

    #[test]
    fn runs_that_differ_make_a_mean_uncertain_however_many_calls_they_have() {
        let mut runs = Batches::default();
        for level in [1000, 1100, 900, 1050, 950] {
            runs.append(of((0..1000).map(|at| level + at % 2)));
            runs.end_run();
        }
        let estimate = runs.estimate().unwrap();
        assert_eq!((estimate.calls, estimate.mean, estimate.freedom), (5000, 1000.5, 4.0));
        // The deviation of the five, divided by the root of five.
        assert!((estimate.error - (25_000.0_f64 / 4.0 / 5.0).sqrt()).abs() < 1e-9, "{estimate:?}");
    }

    #[test]
    fn appending_is_nearly_as_if_it_were_one_run() {
        let values: Vec<u64> = (0..5000_u64).map(|at| 1000 + at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 500).collect();
        let whole = of(values.iter().copied()).estimate().unwrap();
        for cut in [1, 100, 2500, 4999] {
            let mut joined = of(values[..cut].iter().copied());
            joined.append(of(values[cut..].iter().copied()));
            let joined = joined.estimate().unwrap();
            assert_eq!((joined.calls, joined.mean), (whole.calls, whole.mean));
            assert!((0.5..2.0).contains(&(joined.error / whole.error)), "{cut}: {joined:?} {whole:?}");
        }
    }
}
