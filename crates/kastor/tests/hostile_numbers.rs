//! R12: counters neither wrap nor forget, NaN and the infinities are counted apart, and every class of number has a place.

use kastor::{Amount, Number, Telemetry, count, gauge, histogram, metric};

/// Whether a JSON text holds a word for a number that JSON does not have.
fn is_poisoned(json: &str) -> bool {
    [":NaN", ": NaN", ":nan", ":inf", ": inf", ":-inf", ": -inf", "Infinity"].iter().any(|it| json.contains(it))
}

#[test]
fn a_counter_neither_wraps_nor_forgets() {
    let tele = Telemetry::builder().build();
    let _current = tele.override_current();
    let bound = tele.counter("bound", &[]);
    for _ in 0..5 {
        count!("up", u64::MAX);
        bound.add(u64::MAX);
        count!("down", i64::MIN);
        count!("both", i64::MAX);
        count!("both", i64::MIN);
    }
    count!("up", 5);
    let report = tele.report();
    let series = |path: &'static str| report.series_of(path).next().map(|it| (it.sum(), it.calls(), it.is_monotonic()));
    assert_eq!(series("up"), Some((Number::Integer(5 * i128::from(u64::MAX) + 5), 6, true)));
    assert_eq!(series("bound"), Some((Number::Integer(5 * i128::from(u64::MAX)), 5, true)));
    assert_eq!(series("down"), Some((Number::Integer(5 * i128::from(i64::MIN)), 5, false)));
    assert_eq!(series("both"), Some((Number::Integer(-5), 10, false)));
    assert!(!is_poisoned(&report.to_json()), "{}", report.to_json());
}

#[test]
fn what_is_not_finite_is_counted_apart_and_poisons_nothing() {
    let tele = Telemetry::builder().build();
    let _current = tele.override_current();
    let odd = [f64::NAN, f64::INFINITY, -f64::NAN, f64::NEG_INFINITY];
    for value in [2.0, odd[0], -1.0, odd[1], 0.5, odd[2], odd[3]] {
        count!("counter", value);
        gauge!("gauge", value);
        histogram!("histogram", value);
        metric!("event", value);
    }
    let report = tele.report();
    let series = |path: &'static str| report.series_of(path).next().unwrap().clone();
    assert_eq!((series("counter").sum().as_f64(), series("counter").calls()), (1.5, 7));
    let gauge = series("gauge");
    assert_eq!((gauge.min(), gauge.max(), gauge.calls()), (Some(-1.0), Some(2.0), 7));
    let values = series("histogram");
    assert_eq!((values.values().count(), values.values().sum(), values.values().not_finite()), (3, 1.5, 4));
    assert_eq!((values.min(), values.max()), (Some(-1.0), Some(2.0)));
    for q in [0.0, 0.5, 1.0, -1.0, 2.0, f64::NAN] {
        assert!(values.values().quantile(q).is_none_or(f64::is_finite), "{q}");
    }
    assert!(!is_poisoned(&report.to_json()), "{}", report.to_json());
}

#[test]
fn every_class_of_number_finds_its_place_in_a_histogram() {
    let classes = [0.0, 5e-324, 2.2e-308, f64::MIN_POSITIVE, 1e-9, 0.1, 1.0, 1.5, 1e9, 2f64.powi(53), 1e300, f64::MAX];
    let mut all = kastor::Histogram::default();
    for value in classes.into_iter().flat_map(|it| [it, -it]) {
        all.record(value);
        let mut one = kastor::Histogram::default();
        one.record(value);
        let in_buckets: u64 = one.positive().counts().iter().chain(one.negative().counts()).sum();
        assert_eq!((one.count(), in_buckets + one.zeros(), one.not_finite()), (1, 1, 0), "{value:e}");
        let [low, middle] = [0.0, 0.5].map(|q| one.quantile(q).unwrap());
        assert!(
            low.is_finite() && (middle - value).abs() <= value.abs() * 0.046 + f64::MIN_POSITIVE,
            "{value:e}: {middle:e}"
        );
        one.merge(&all);
        assert_eq!(one.count(), all.count() + 1);
    }
    assert_eq!((all.count(), all.not_finite(), all.min(), all.max()), (24, 0, Some(f64::MIN), Some(f64::MAX)));
    assert!(!all.sum().is_nan());
    let amounts = [Amount::from(u64::MAX), Amount::from(i64::MIN), Amount::from(f64::MIN_POSITIVE), Amount::from(-0.0)];
    let tele = Telemetry::builder().build();
    let (gauge, histogram) = (tele.gauge("g", &[]), tele.histogram("h", &[]));
    amounts.iter().for_each(|it| (gauge.set(*it), histogram.record(*it)).0);
    assert_eq!(tele.report().series_of("h").next().map(|it| it.values().count()), Some(4));
    assert_eq!(tele.report().series_of("g").next().and_then(|it| it.max()), Some(u64::MAX as f64));
}
