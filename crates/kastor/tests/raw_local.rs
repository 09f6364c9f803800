//! The border for language faces that keep the parts of a scope themselves: ids of ten bytes, records written the short way.

use std::{thread, time::Duration};

use kastor::{
    Carrier, MetricType, MockClock, OwnedValue, Recording, Sampler, SimpleReporter, Telemetry, TraceParent, Value,
    raw::{self, Amount, Frame, Instrument, Outcome, Recorded, Scope, Under},
};

const LONG: Duration = Duration::from_secs(if cfg!(miri) { 1000 } else { 60 });

fn program() -> (MockClock, Recording, Telemetry) {
    let (clock, recording) = (MockClock::new(), Recording::new(1 << 20));
    let tele = Telemetry::builder().clock(clock.clone()).reporter(recording.clone()).build();
    (clock, recording, tele)
}

/// (scope, depth, duration in ns, span, parent) of all timings.
fn timings(recording: &Recording, tele: &Telemetry) -> Vec<(String, u32, u64, u64, Option<u64>)> {
    assert!(tele.flush(LONG).is_complete());
    let mut all = Vec::new();
    recording.for_each_batch(|batch| {
        let of = |it: kastor::Timing<'_>| {
            (it.scope().to_owned(), it.depth(), it.duration_ns(), it.span_id(), it.parent_span_id())
        };
        all.extend(batch.timings().map(of));
    });
    all
}

#[test]
fn a_scope_kept_in_parts_is_recorded_as_any_other() {
    let (clock, recording, tele) = program();
    let path = raw::path(None, raw::name("local.root"));
    let child_path = raw::path(Some(path), raw::name("child"));
    let root = raw::draw(&tele).unwrap();
    let start = raw::tick(&tele);
    let mut child = raw::draw(&tele).unwrap();
    child.root = root.root;
    clock.advance(Duration::from_nanos(7));
    let end = raw::tick(&tele);
    let scope = |path, depth, ids, parent| Scope { path, depth, ids, parent, ticks: (start, end), is_detached: false };
    assert_eq!(raw::record(&tele, &scope(child_path, 1, child, root.span)), Recorded::Yes);
    assert_eq!(raw::record(&tele, &scope(path, 0, root, 0)), Recorded::Yes);
    let (root_span, child_span) = (root.carrier(path, 1).span_id(), child.carrier(child_path, 2).span_id());
    assert_eq!(
        timings(&recording, &tele),
        [
            ("local.root.child".to_owned(), 1, 7, child_span, Some(root_span)),
            ("local.root".to_owned(), 0, 7, root_span, None),
        ]
    );
    assert_eq!(root.carrier(path, 1).trace_id(), child.carrier(child_path, 2).trace_id());
}

#[test]
fn a_record_of_another_threads_ids_is_refused_and_taken_as_a_frame() {
    let (_, recording, tele) = program();
    let path = raw::path(None, raw::name("local.elsewhere"));
    let (ids, start) = (raw::draw(&tele).unwrap(), raw::tick(&tele));
    assert!(ids.are_of_this_process());
    let other = tele.clone();
    thread::spawn(move || {
        let scope = Scope { path, depth: 0, ids, parent: 0, ticks: (start, start), is_detached: false };
        assert_eq!(raw::record(&other, &scope), Recorded::Elsewhere);
        let with = raw::record_with(&other, &scope, Outcome::Completed, |_| unreachable!());
        assert_eq!(with, Recorded::Elsewhere);
        let frame = Frame::new(ids.carrier(path, 1), 0, (path, 0), start);
        assert!(raw::close_at(&other, &frame, start, Outcome::Completed, |_| {}));
    })
    .join()
    .unwrap();
    let span = ids.carrier(path, 1).span_id();
    assert_eq!(timings(&recording, &tele), [("local.elsewhere".to_owned(), 0, 0, span, None)]);
}

#[test]
fn nothing_is_drawn_or_recorded_while_the_context_is_off() {
    let (_, _, tele) = program();
    let path = raw::path(None, raw::name("local.off"));
    let ids = raw::draw(&tele).unwrap();
    tele.set_enabled(false);
    assert_eq!(raw::draw(&tele), None);
    assert_eq!(raw::tick(&tele), 0);
    let scope = Scope { path, depth: 0, ids, parent: 0, ticks: (0, 0), is_detached: false };
    assert_eq!(raw::record(&tele, &scope), Recorded::Off);
}

#[test]
fn instruments_add_up_per_parent_and_labels() {
    let (_, _, tele) = program();
    let instrument = Instrument::new(raw::name("local_items"), MetricType::Counter);
    let parent = raw::path(None, raw::name("local.parent"));
    let under = |path| Under { path, levels: u32::from(path.is_some()), ids: None, carrier: kastor::Carrier::NONE };
    for kind in ["a", "b", "a"] {
        let labels = |attributes: &mut raw::Attributes<'_>| attributes.set(raw::name("kind"), &Value::Str(kind));
        raw::add(&tele, &instrument, &under(Some(parent)), Amount::Unsigned(2), Some(labels));
    }
    raw::add(&tele, &instrument, &under(None), Amount::Unsigned(5), None::<fn(&mut raw::Attributes<'_>)>);
    let report = tele.report();
    let calls = |path: &'static str| report.series_of(path).map(|it| it.calls()).collect::<Vec<_>>();
    assert_eq!(calls("local_items"), [1]);
    let mut labelled = calls("local.parent.local_items");
    labelled.sort_unstable();
    assert_eq!(labelled, [1, 2]);
}

#[test]
fn the_library_rests_and_wakes() {
    let (_, recording, tele) = program();
    drop(tele.scope("before"));
    assert!(tele.flush(LONG).is_complete());
    raw::rest(LONG);
    drop(tele.scope("during"));
    raw::wake();
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(recording.len(), 2);
}

#[test]
fn the_simple_reporter_keeps_what_was_measured_elsewhere() {
    let simple = SimpleReporter::new();
    simple.add_timing("far.away", Duration::from_millis(500), &[("depth", Value::U64(1))]);
    simple.add_metric("far.items", Value::I64(3), &[]);
    let kept = simple.timings();
    assert_eq!(kept["far.away"], [(Duration::from_millis(500), vec![("depth", OwnedValue::U64(1))])]);
    assert_eq!(simple.metrics()["far.items"], [(OwnedValue::I64(3), vec![])]);
}

#[test]
fn a_share_decides_alike_for_a_record_a_frame_and_what_is_handed_on() {
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).sampler(Sampler::ratio(0.5)).build();
    let path = raw::path(None, raw::name("local.sampled"));
    let mut decided = Vec::new();
    for _ in 0..64 {
        let (ids, start) = (raw::draw(&tele).unwrap(), raw::tick(&tele));
        let carrier = ids.carrier(path, 1);
        decided.push((carrier.trace_id(), raw::sampled(&tele, carrier).is_sampled()));
        let scope = Scope { path, depth: 0, ids, parent: 0, ticks: (start, start), is_detached: false };
        assert_eq!(raw::record(&tele, &scope), Recorded::Yes);
        raw::close_at(&tele, &Frame::new(carrier, 0, (path, 0), start), start, Outcome::Completed, |_| {});
    }
    assert!(decided.iter().any(|it| it.1) && decided.iter().any(|it| !it.1));
    assert!(tele.flush(LONG).is_complete());
    let mut reported = Vec::new();
    recording.for_each_batch(|batch| reported.extend(batch.timings().map(|it| (it.trace_id(), it.is_sampled()))));
    let twice: Vec<_> = decided.iter().flat_map(|it| [*it, *it]).collect();
    assert_eq!(reported, twice);
}

#[test]
fn what_is_handed_on_from_below_a_parent_elsewhere_says_what_that_one_decided() {
    let (tele, anew) = (Telemetry::builder(), Telemetry::builder().sampler(Sampler::ALWAYS.ignoring_parents()));
    let (tele, anew) = (tele.sampler(Sampler::NEVER).build(), anew.build());
    for is_sampled in [true, false] {
        let parent = Carrier::from_trace_parent(&TraceParent::new(5, 6, is_sampled).unwrap());
        let path = raw::path(None, raw::name("local.served"));
        let below = raw::in_trace_of(raw::draw(&tele).unwrap().carrier(path, 1), &parent, 1);
        assert_eq!(raw::sampled(&tele, below).is_sampled(), is_sampled);
        assert!(raw::sampled(&anew, below).is_sampled());
        assert_eq!(raw::sampled(&Telemetry::DISABLED, below).is_sampled(), is_sampled);
    }
}
