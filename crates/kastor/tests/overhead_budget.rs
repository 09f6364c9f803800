//! The overhead budget: what costs more than the program allowed is degraded, visibly, and restored when it is calm.
//!
//! One call within a second is about 1e-8 of a processor's time: a budget of 1e-12 is exceeded by any call, and one of
//! 0.9 by none of these tests. Time is moved by hand; a flush weighs when a second has passed.

use std::{
    thread,
    time::{Duration, Instant},
};

use kastor::{Degradation, DropReason, MockClock, Recording, Telemetry, raw, scope};

const LONG: Duration = Duration::from_secs(if cfg!(miri) { 1000 } else { 60 });
const SECOND: Duration = Duration::from_secs(1);
const TINY: f64 = 1e-12;

fn context(share: f64) -> (Telemetry, Recording, MockClock) {
    let (clock, recording) = (MockClock::new(), Recording::new(1 << 20));
    let tele = Telemetry::builder()
        .clock(clock.clone())
        .reporter(recording.clone())
        .overhead_budget(share)
        .exit_flush(Duration::ZERO)
        .build();
    (tele, recording, clock)
}

/// A second passes, and what happened in it is weighed.
fn weigh(tele: &Telemetry, clock: &MockClock) {
    clock.advance(SECOND);
    assert!(tele.flush(LONG).is_complete());
}

fn degraded(tele: &Telemetry) -> Vec<(&'static str, Degradation)> {
    tele.stats().degraded().iter().map(|it| (it.path(), it.level())).collect()
}

fn calls(tele: &Telemetry, path: &str) -> u64 {
    tele.report().scope(path).map_or(0, |scope| scope.calls())
}

fn hot(tele: &Telemetry) {
    drop(scope!(tele, "budget.hot"));
}

#[test]
fn a_path_beyond_the_budget_is_aggregated_only_and_says_so() {
    let (tele, recording, clock) = context(TINY);
    (0..3).for_each(|_| hot(&tele));
    weigh(&tele, &clock);
    assert_eq!(recording.len(), 3, "what was recorded before is delivered");
    assert_eq!(degraded(&tele), [("budget.hot", Degradation::Aggregated)]);
    (0..4).for_each(|_| hot(&tele));
    assert!(tele.flush(LONG).is_complete());
    assert_eq!((recording.len(), calls(&tele, "budget.hot")), (3, 7));
    let stats = tele.stats();
    assert_eq!((stats.emitted(), stats.reporters()[0].dropped().of(DropReason::Sampled)), (7, 4));
    let shown = &stats.degraded()[0];
    assert_eq!(shown.calls_per_second(), 3.0);
    assert!(shown.share() > 3e-9 && shown.share() < 1e-2, "{}", shown.share());
    let line = "over the overhead budget: budget.hot: aggregated only; 3 calls/s, about 0.00 % of a processor\n";
    assert!(stats.to_string().contains(line), "{stats}");
    assert!(tele.report().to_string().ends_with(line), "{}", tele.report());
    assert!(
        tele.report()
            .to_json()
            .contains(r#"], "degraded": [{"path": "budget.hot", "is_off": false, "calls_per_second": 3"#)
    );
}

#[test]
fn a_path_that_is_calm_again_is_recorded_again() {
    let (tele, recording, clock) = context(TINY);
    hot(&tele);
    weigh(&tele, &clock);
    assert_eq!(degraded(&tele).len(), 1);
    weigh(&tele, &clock);
    assert_eq!(degraded(&tele), []);
    hot(&tele);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(recording.len(), 2);
    assert!(!tele.report().to_json().contains("degraded"));
}

#[test]
fn a_path_that_costs_too_much_even_so_is_switched_off_and_tried_again_after_a_while() {
    let (tele, recording, clock) = context(TINY);
    let within = |tele: &Telemetry| {
        let _outer = scope!(tele, "budget.hot");
        drop(scope!(tele, "budget.inner"));
    };
    hot(&tele);
    weigh(&tele, &clock);
    hot(&tele);
    weigh(&tele, &clock);
    assert_eq!(degraded(&tele), [("budget.hot", Degradation::Off)]);
    assert!(tele.stats().to_string().contains("budget.hot: switched off; 1 calls/s"));
    // A scope that is off is transparent.
    within(&tele);
    drop(tele.scope("budget.hot"));
    assert_eq!((calls(&tele, "budget.hot"), calls(&tele, "budget.inner")), (2, 1));
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(recording.len(), 2, "the first and the inner one");
    (0..9).for_each(|_| weigh(&tele, &clock));
    assert_eq!(degraded(&tele), [("budget.hot", Degradation::Off)], "10 s are not over");
    weigh(&tele, &clock);
    assert_eq!(degraded(&tele), [("budget.hot", Degradation::Aggregated)]);
    hot(&tele);
    assert_eq!(calls(&tele, "budget.hot"), 3);
    weigh(&tele, &clock);
    assert_eq!(degraded(&tele), [("budget.hot", Degradation::Off)]);
    (0..19).for_each(|_| weigh(&tele, &clock));
    assert_eq!(degraded(&tele), [("budget.hot", Degradation::Off)], "the second time it takes 20 s");
    weigh(&tele, &clock);
    weigh(&tele, &clock);
    assert_eq!(degraded(&tele), [], "and nobody called it since");
}

#[test]
fn what_is_within_the_budget_is_left_alone() {
    let (tele, recording, clock) = context(0.9);
    (0..100).for_each(|_| hot(&tele));
    weigh(&tele, &clock);
    assert_eq!((degraded(&tele), recording.len()), (vec![], 100));
}

#[test]
fn a_share_that_is_no_positive_number_is_no_budget() {
    for share in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
        let (tele, _, clock) = context(share);
        hot(&tele);
        weigh(&tele, &clock);
        assert_eq!(degraded(&tele), [], "{share}");
    }
}

#[test]
fn the_program_s_own_rules_outlive_what_the_budget_did() {
    let (tele, recording, clock) = context(TINY);
    tele.record_paths("budget.kept", false);
    tele.switch_scopes("budget.gone", false);
    let all = |tele: &Telemetry| {
        drop(scope!(tele, "budget.kept"));
        drop(scope!(tele, "budget.gone"));
        hot(tele);
    };
    all(&tele);
    weigh(&tele, &clock);
    assert_eq!(degraded(&tele).len(), 2, "both that were on");
    weigh(&tele, &clock);
    assert_eq!(degraded(&tele), []);
    all(&tele);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!((recording.len(), calls(&tele, "budget.kept"), calls(&tele, "budget.gone")), (2, 2, 0));
}

#[test]
fn inline_reporters_do_not_get_what_is_aggregated_only() {
    let (clock, simple) = (MockClock::new(), kastor::SimpleReporter::new());
    let tele = Telemetry::builder().clock(clock.clone()).reporter(simple.clone()).overhead_budget(TINY).build();
    hot(&tele);
    weigh(&tele, &clock);
    hot(&tele);
    assert_eq!(calls(&tele, "budget.hot"), 2);
    assert!(simple.report().contains("Calls: 1"), "{}", simple.report());
}

#[test]
fn the_collector_decides_by_itself() {
    let (tele, _, clock) = context(TINY);
    let start = Instant::now();
    while degraded(&tele).is_empty() {
        hot(&tele);
        clock.advance(SECOND);
        assert!(start.elapsed() < LONG, "it never decided");
        thread::yield_now();
    }
    assert_eq!(degraded(&tele)[0].0, "budget.hot");
}

#[test]
fn contexts_have_budgets_of_their_own() {
    let ((tight, _, clock), (loose, recording, _)) = (context(TINY), context(0.9));
    for _ in 0..2 {
        hot(&tight);
        hot(&loose);
        weigh(&tight, &clock);
    }
    assert_eq!(degraded(&tight), [("budget.hot", Degradation::Off)]);
    hot(&tight);
    hot(&loose);
    assert!(loose.flush(LONG).is_complete());
    assert_eq!((calls(&tight, "budget.hot"), calls(&loose, "budget.hot"), recording.len()), (2, 3, 3));
}

#[test]
fn a_scope_of_a_face_counts_as_what_it_says() {
    let share = |read_pairs| {
        let clock = MockClock::new();
        let builder = Telemetry::builder().clock(clock.clone()).overhead_budget(TINY);
        let tele = raw::scope_cost(builder, read_pairs).build();
        hot(&tele);
        weigh(&tele, &clock);
        tele.stats().degraded()[0].share()
    };
    let (one, eight) = (share(1.0), share(8.0));
    assert!((eight / one - 8.0).abs() < 1e-6, "{one} {eight}");
}
