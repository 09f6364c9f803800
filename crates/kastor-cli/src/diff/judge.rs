//! Whether a mean has changed, by more than noise explains and by more than one cares about.
//!
//! The logarithm of the ratio of both means has, by the delta method, a standard error that follows from theirs. Student's t
//! with Welch and Satterthwaite's degrees of freedom makes an interval of it, so wide that with all paths together the chance
//! of a single wrong one is 1 % (Bonferroni). A change counts if the whole interval lies on one side of zero and the change
//! itself reaches the threshold.

use serde::Serialize;

use super::batches::Estimate;

/// Fewer calls than this on a side are no ground for a judgement.
pub(crate) const FEWEST_CALLS: u64 = 10;
/// The chance that any path is judged wrongly where nothing changed.
const CHANCE: f64 = 0.01;

/// What is said about one figure of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Longer, by the threshold or more.
    Slower,
    /// Shorter, by the threshold or more.
    Faster,
    /// Changed by less than the threshold, if at all.
    Same,
    /// Too much noise, or too small a change, to say any of these.
    Unclear,
    /// Too few calls to say anything.
    Few,
}

/// How a mean changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Change {
    /// New mean over base mean, less one.
    pub(crate) change: f64,
    /// The interval in which the true one lies; none where there was too little to tell.
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) verdict: Verdict,
}

/// Judges one of `judgements` figures.
pub(crate) fn judge(
    base: Option<Estimate>,
    new: Option<Estimate>,
    means: (f64, f64),
    threshold: f64,
    judgements: usize,
) -> Change {
    // Nothing is measured more exactly than to a nanosecond.
    let change = means.1.max(1.0) / means.0.max(1.0) - 1.0;
    let enough = |estimate: &Estimate| estimate.calls >= FEWEST_CALLS;
    let (Some(base), Some(new)) = (base.filter(enough), new.filter(enough)) else {
        return Change { change, interval: None, verdict: Verdict::Few };
    };
    let relative = |estimate: Estimate| (estimate.error / estimate.mean.max(1.0)).powi(2);
    let (of_base, of_new) = (relative(base), relative(new));
    let error = (of_base + of_new).sqrt();
    let freedom = if error > 0.0 {
        (of_base + of_new).powi(2) / (of_base.powi(2) / base.freedom + of_new.powi(2) / new.freedom)
    } else {
        base.freedom.min(new.freedom)
    };
    let half = error * student_quantile(CHANCE / 2.0 / judgements.max(1) as f64, freedom);
    let middle = change.ln_1p();
    let (low, high) = ((middle - half).exp_m1(), (middle + half).exp_m1());
    // As much faster as the threshold is slower.
    let faster = -threshold / (1.0 + threshold);
    let verdict = if low > 0.0 && change >= threshold {
        Verdict::Slower
    } else if high < 0.0 && change <= faster {
        Verdict::Faster
    } else if low > faster && high < threshold {
        Verdict::Same
    } else {
        Verdict::Unclear
    };
    Change { change, interval: Some((low, high)), verdict }
}

/// The number that a Student variable exceeds with this chance (below one half).
fn student_quantile(chance: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while student_tail(high, freedom) > chance && high < 1e9 {
        (low, high) = (high, high * 2.0);
    }
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if student_tail(middle, freedom) > chance { low = middle } else { high = middle }
    }
    high
}

/// The chance that a Student variable exceeds `t`, at least zero: half the regularised incomplete beta function.
fn student_tail(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5)
}

/// Regularised, by its continued fraction (Lentz's method).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    const TINY: f64 = 1e-300;
    let nonzero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let (mut c, mut d) = (1.0, 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for step in 1..500 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for term in [even, odd] {
            d = 1.0 / nonzero(1.0 + term * d);
            c = nonzero(1.0 + term / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-14 {
            break;
        }
    }
    front * fraction
}

/// Stirling's series, from 10 on; below, by the recurrence.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 0.0);
    while x < 10.0 {
        below += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        for (chance, freedom, expected) in [
            (0.025, 1.0, 12.706),
            (0.025, 10.0, 2.228),
            (0.005, 30.0, 2.750),
            (0.0005, 60.0, 3.460),
            (0.025, 1e6, 1.960),
        ] {
            let found = student_quantile(chance, freedom);
            assert!((found - expected).abs() < 0.001, "{chance} {freedom}: {found}");
        }
    }

    fn estimate(mean: f64, error: f64) -> Option<Estimate> {
        Some(Estimate { calls: 1000, mean, error, freedom: 40.0 })
    }

    fn verdict(base: (f64, f64), new: (f64, f64)) -> Verdict {
        judge(estimate(base.0, base.1), estimate(new.0, new.1), (base.0, new.0), 0.05, 20).verdict
    }

    #[test]
    fn a_change_must_be_beyond_noise_and_beyond_the_threshold() {
        assert_eq!(verdict((1000.0, 5.0), (1100.0, 5.0)), Verdict::Slower);
        assert_eq!(verdict((1100.0, 5.0), (1000.0, 5.0)), Verdict::Faster);
        assert_eq!(verdict((1000.0, 5.0), (1010.0, 5.0)), Verdict::Same, "surely below 5 %");
        assert_eq!(verdict((1000.0, 1.0), (1040.0, 1.0)), Verdict::Same, "real, but below 5 %");
        assert_eq!(verdict((1000.0, 50.0), (1100.0, 50.0)), Verdict::Unclear, "it may be noise");
        let few = Some(Estimate { calls: 9, mean: 1000.0, error: 0.0, freedom: 8.0 });
        assert_eq!(judge(few, estimate(2000.0, 1.0), (1000.0, 2000.0), 0.05, 1).verdict, Verdict::Few);
    }
}
