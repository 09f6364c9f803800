//! The short ways that usual calls take, against what they must not change: with the processor's clock and a background
//! reporter, since anything else takes the long way. Short attributes of every length, counters beyond what one word
//! holds, and the cells that threads find at once, when contexts come, go and are switched.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use kastor::{OwnedValue, Recording, Telemetry, Value, count, metric, scope};

const PATIENCE: Duration = Duration::from_secs(60);

type Attributes = Vec<(String, OwnedValue)>;

/// A context that keeps everything.
fn recorded() -> (Telemetry, Recording) {
    let recording = Recording::new(64 << 20);
    (Telemetry::builder().reporter(recording.clone()).build(), recording)
}

/// The attributes of all scopes, then those of all metric events, in the order in which they came.
fn kept(telemetry: &Telemetry, recording: &Recording) -> (Vec<Attributes>, Vec<(String, f64, Attributes)>) {
    assert!(telemetry.flush(PATIENCE).is_complete());
    let (mut scopes, mut metrics) = (Vec::new(), Vec::new());
    recording.for_each_batch(|batch| {
        let owned = |attributes: kastor::Attributes<'_>| -> Attributes {
            attributes.map(|(key, value)| (key.to_owned(), OwnedValue::from(value))).collect()
        };
        scopes.extend(batch.timings().map(|timing| owned(timing.attributes())));
        metrics.extend(batch.metrics().map(|metric| {
            let value = metric.value().as_f64().unwrap_or(f64::NAN);
            (metric.scope().to_owned(), value, owned(metric.attributes()))
        }));
    });
    (scopes, metrics)
}

/// Calls and sum of a counter; of several series, all together.
fn counted(telemetry: &Telemetry, path: &str) -> (u64, f64) {
    let report = telemetry.report();
    let found = report.series().iter().filter(|series| series.path() == path);
    found.fold((0, 0.0), |(calls, sum), series| (calls + series.calls(), sum + series.sum().as_f64()))
}

fn pair<'a>(key: &str, value: impl Into<Value<'a>>) -> (String, OwnedValue) {
    (key.to_owned(), OwnedValue::from(value.into()))
}

#[test]
fn texts_of_every_length_arrive_as_they_were() {
    let (tele, recording) = recorded();
    let _current = tele.override_current();
    let long: String = ('a'..='z').chain('0'..='9').cycle().take(100).collect();
    let mut expected = (Vec::new(), Vec::new());
    // Twice: the first of each callsite takes the long way.
    for text in (0..=100).map(|len| &long[..len]).chain((0..=100).map(|len| &long[100 - len..])) {
        let number = text.len() as u64;
        drop(scope!("texts", number = number, text = text, after = 1.5));
        metric!("text", -3, text = text, other = text);
        expected.0.push(vec![pair("number", number), pair("text", text), pair("after", 1.5)]);
        expected.1.push(("text".to_owned(), -3.0, vec![pair("text", text), pair("other", text)]));
    }
    let (scopes, metrics) = kept(&tele, &recording);
    assert_eq!(scopes, expected.0);
    assert_eq!(metrics, expected.1);
    assert_eq!((tele.stats().timings(), tele.stats().metrics()), (202, 202));
}

#[test]
fn attributes_of_any_number_stay_whole_and_in_order() {
    let (tele, recording) = recorded();
    let _current = tele.override_current();
    let mut expected = Vec::new();
    for n in 0..100_u64 {
        drop(scope!("one", a = n));
        drop(scope!("two", a = n, b = -1_i64));
        drop(scope!("three", a = n, b = 2.5, c = "c"));
        drop(scope!("four", a = n, b = n, c = "a text of some length", d = n));
        drop(scope!("six", a = n, b = n, c = n, d = n, e = n, f = "f"));
        let outer = scope!("outer", a = n);
        outer.set("late", "set while it was open");
        drop(scope!("inner", a = "under it"));
        drop(outer);
        expected.extend([
            vec![pair("a", n)],
            vec![pair("a", n), pair("b", -1_i64)],
            vec![pair("a", n), pair("b", 2.5), pair("c", "c")],
            vec![pair("a", n), pair("b", n), pair("c", "a text of some length"), pair("d", n)],
            vec![pair("a", n), pair("b", n), pair("c", n), pair("d", n), pair("e", n), pair("f", "f")],
            vec![pair("a", "under it")],
            vec![pair("a", n), pair("late", "set while it was open")],
        ]);
    }
    assert_eq!(kept(&tele, &recording).0, expected);
}

#[test]
fn a_buffer_that_was_filled_beyond_the_usual_serves_the_next_scope_as_new() {
    let (tele, recording) = recorded();
    let _current = tele.override_current();
    for round in 0..3_u64 {
        let full = scope!("full", round = round);
        (0..200_u64).for_each(|n| full.set(["a", "b", "c", "d"][n as usize % 4], n));
        drop(full);
        let failed = scope!("failed", round = round);
        failed.fail("broken");
        drop(failed);
        drop(scope!("after", round = round));
    }
    let (scopes, _) = kept(&tele, &recording);
    assert_eq!(scopes.len(), 9);
    for (round, scopes) in (0_u64..).zip(scopes.chunks(3)) {
        assert_eq!(scopes[0].len(), 5, "the last value of each key");
        assert_eq!(scopes[1..], [vec![pair("round", round)], vec![pair("round", round)]]);
    }
    assert_eq!(tele.report().scopes().iter().map(|row| row.errors()).sum::<u64>(), 3);
}

#[test]
fn metrics_and_scopes_that_alternate_are_all_counted() {
    let (tele, recording) = recorded();
    let _current = tele.override_current();
    for n in 0..10_000_u64 {
        metric!("plain", n);
        if n % 3 == 0 {
            drop(scope!("between"));
        }
        if n % 5000 == 0 {
            // Claimed in between, by another way than that of a full chunk.
            assert_eq!(tele.stats().metrics(), n * 2 + 1);
        }
        metric!("labelled", n as f64, n = n);
    }
    let (scopes, metrics) = kept(&tele, &recording);
    assert_eq!((scopes.len(), metrics.len()), (3_334, 20_000));
    let stats = tele.stats();
    assert_eq!((stats.timings(), stats.metrics(), stats.emitted()), (3_334, 20_000, 23_334));
    assert!(metrics.iter().step_by(2).zip(0..).all(|(it, n)| (it.0.as_str(), it.1) == ("plain", f64::from(n))));
}

#[test]
fn a_counter_is_exact_beyond_what_one_word_holds() {
    const CALLS: u64 = (1 << 23) + 10;
    let (tele, _) = recorded();
    let _current = tele.override_current();
    let handle = tele.counter("handle", &[]);
    for _ in 0..CALLS {
        count!("macro", 65_535);
        handle.add(65_535_u64);
    }
    for large in [65_536, 1_i64 << 40, -1, -65_536] {
        count!("macro", large);
        handle.add(large);
    }
    let expected = (CALLS * 65_535) as f64 + 65_536.0 + (1_u64 << 40) as f64 - 1.0 - 65_536.0;
    assert_eq!(counted(&tele, "macro"), (CALLS + 4, expected));
    assert_eq!(counted(&tele, "handle"), (CALLS + 4, expected));
}

#[test]
fn a_reader_never_finds_less_than_before() {
    let (tele, _) = recorded();
    let done = Arc::new(Barrier::new(2));
    let counting = thread::spawn({
        let (tele, done) = (tele.clone(), Arc::clone(&done));
        move || {
            let counter = tele.counter("counter", &[]);
            (0..9_000_000_u64).for_each(|_| counter.add(3));
            done.wait();
        }
    });
    let mut last = (0, 0.0);
    while last.0 < 9_000_000 {
        let now = counted(&tele, "counter");
        assert!(now.0 >= last.0 && now.1 >= last.1, "{now:?} after {last:?}");
        assert_eq!(now.1, now.0 as f64 * 3.0, "calls and sum are of one moment");
        last = now;
    }
    done.wait();
    counting.join().unwrap();
    assert_eq!(counted(&tele, "counter"), (9_000_000, 27_000_000.0));
}

#[test]
fn calls_reach_the_context_that_is_current() {
    fn tick() {
        count!("ticks", 2);
    }
    let contexts = [recorded().0, recorded().0];
    for round in 0..100 {
        let _current = contexts[round % 2].override_current();
        (0..10).for_each(|_| tick());
        let _inner = contexts[(round + 1) % 2].override_current();
        (0..5).for_each(|_| tick());
    }
    for tele in &contexts {
        assert_eq!(counted(tele, "ticks"), (750, 1_500.0));
    }
}

#[test]
fn nothing_is_counted_while_another_thread_has_switched_the_context_off() {
    let (tele, _) = recorded();
    let (other, _) = recorded();
    let turns = Arc::new(Barrier::new(2));
    let counting = thread::spawn({
        let (tele, turns) = (tele.clone(), Arc::clone(&turns));
        move || {
            let _current = tele.override_current();
            let handle = tele.counter("handle", &[]);
            for _ in 0..4 {
                turns.wait();
                (0..10).for_each(|_| {
                    count!("macro");
                    handle.add(1);
                });
                turns.wait();
            }
        }
    });
    for is_on in [true, false, true, false] {
        tele.set_enabled(is_on);
        turns.wait();
        turns.wait();
    }
    counting.join().unwrap();
    assert!(other.is_enabled(), "one that is on: the callsite is not off, only mixed");
    assert_eq!((counted(&tele, "macro"), counted(&tele, "handle")), ((20, 20.0), (20, 20.0)));
    assert_eq!(counted(&other, "macro"), (0, 0.0));
}

#[test]
fn more_counters_than_a_thread_finds_at_once_are_all_exact() {
    let (tele, _) = recorded();
    let _current = tele.override_current();
    let names: Vec<String> = (0..300).map(|number| format!("counter{number}")).collect();
    let handles: Vec<_> = names.iter().map(|name| tele.counter(name, &[])).collect();
    for _ in 0..20 {
        handles.iter().zip(1_u64..).for_each(|(handle, number)| handle.add(number));
    }
    drop(handles);
    // Their numbers are given out again, to others.
    let again: Vec<_> = names.iter().map(|name| tele.counter(name, &[("again", true.into())])).collect();
    again.iter().for_each(|handle| (0..3).for_each(|_| handle.add(1)));
    for (name, number) in names.iter().zip(1_u64..) {
        assert_eq!(counted(&tele, name), (23, (20 * number + 3) as f64), "{name}");
    }
}

#[test]
fn a_counter_under_many_scopes_keeps_them_apart() {
    let (tele, _) = recorded();
    let _current = tele.override_current();
    for n in 0..30_u64 {
        let _parent = tele.scope(["a", "b", "c"][n as usize % 3]);
        (0..3).for_each(|_| count!("inside", n));
    }
    for (parent, rest) in [("a", 0), ("b", 1), ("c", 2)] {
        let sum: u64 = (0..30).filter(|n| n % 3 == rest).map(|n| 3 * n).sum();
        assert_eq!(counted(&tele, &format!("{parent}.inside")), (30, sum as f64));
    }
}
