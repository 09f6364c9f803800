//! R13 to R16: what is too long, too many or too deep is cut, counted or shared, and everything else stays exact; deep
//! stacks on small threads; many threads, short and long lived. What fills tables of the whole process, or measures its
//! memory, runs in a child process.

use std::{
    mem,
    sync::{
        Arc, Barrier, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use kastor::{
    MockClock, Number, OwnedValue, Recording, Reporter, Scope, Telemetry, Timing, Value, background, count, scope,
};

const LONG: Duration = Duration::from_secs(60);

fn is_deep() -> bool {
    std::env::var_os("KASTOR_DEEP").is_some_and(|it| it == "1")
}

#[derive(Clone, Debug, Default)]
struct Closed {
    scope: String,
    parent: Option<String>,
    depth: u32,
    attributes: Vec<(String, OwnedValue)>,
    events: usize,
    links: usize,
    dropped: u64,
    error: Option<String>,
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Closed>>>);

impl Reporter for Seen {
    fn record_timing(&self, event: &Timing<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Closed {
            scope: event.scope().to_owned(),
            parent: event.parent_scope().map(str::to_owned),
            depth: event.depth(),
            attributes: event.attributes().map(|(key, value)| (key.to_owned(), value.into())).collect(),
            events: event.events().count(),
            links: event.links().count(),
            dropped: event.dropped_items(),
            error: event.error_type().map(str::to_owned),
        });
    }
}

impl Seen {
    fn take(&self) -> Vec<Closed> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn only(&self) -> Closed {
        let [one] = <[Closed; 1]>::try_from(self.take()).expect("exactly one event");
        one
    }
}

fn context() -> (Telemetry, Seen) {
    let seen = Seen::default();
    (Telemetry::builder().clock(MockClock::new()).reporter(seen.clone()).strict_names(false).build(), seen)
}

fn text(value: &OwnedValue) -> &str {
    match value {
        OwnedValue::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

struct Endless;
impl std::fmt::Display for Endless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        loop {
            f.write_str("0123456789abcdef")?;
        }
    }
}

#[test]
fn the_documented_limits_are_the_ones_that_hold() {
    use kastor::limits::*;
    assert_eq!((MAX_NAME_BYTES, MAX_VALUE_BYTES, MAX_ATTRIBUTES), (256, 4096, 128));
    assert_eq!((MAX_EVENT_BYTES, MAX_LEVELS, MAX_TEXT_BYTES), (64 << 10, 256, 64 << 10));
    assert_eq!((MAX_SERIES_PER_INSTRUMENT, MAX_SERIES, QUEUE_BYTES), (2_000, 100_000, 16 << 20));
}

#[test]
fn a_name_is_cut_to_256_bytes_at_a_character() {
    let (tele, seen) = context();
    let whole = "n".repeat(256);
    drop(tele.scope(&whole));
    assert_eq!(seen.only().scope, whole);
    drop(tele.scope(&format!("{whole}x")));
    assert_eq!(seen.only().scope, whole);
    let umlauts = format!("n{}", "ä".repeat(200));
    drop(tele.scope(&umlauts));
    assert_eq!(seen.only().scope, umlauts[..255]);
    let flag = format!("{}{}", "f".repeat(254), "🦀");
    let scope = tele.scope("keys");
    scope.event_with(&flag, &[(&flag, 1.into())]);
    drop(scope);
    assert_eq!(seen.only().events, 1);
    tele.metric(&whole, 1, &[]);
    tele.counter(&format!("{whole}y"), &[]).add(1);
    assert_eq!(tele.report().series()[0].path(), whole);
}

#[test]
fn a_value_is_cut_to_4_kib_at_a_character_and_that_is_counted() {
    let (tele, seen) = context();
    let fits = "v".repeat(4096);
    drop(scope!(tele, "a", fits = &fits));
    let closed = seen.only();
    assert_eq!((text(&closed.attributes[0].1), closed.dropped), (fits.as_str(), 0));
    let (long, wide) = ("v".repeat(4097), format!("v{}", "€".repeat(2000)));
    let bytes = vec![7u8; 5000];
    drop(scope!(tele, "a", long = &long, wide = &wide, shown = %long, debugged = ?long, bytes = &bytes[..], n = 1));
    let closed = seen.only();
    let values: Vec<&OwnedValue> = closed.attributes.iter().map(|it| &it.1).collect();
    assert_eq!((text(values[0]), text(values[1]), text(values[2])), (&long[..4096], &wide[..4096], &long[..4096]));
    assert_eq!(text(values[3]), &format!("{long:?}")[..4096]);
    assert_eq!((values[4], values[5]), (&OwnedValue::Bytes(bytes[..4096].to_vec()), &OwnedValue::I64(1)));
    assert_eq!(closed.dropped, 5, "each cut is counted in the event");
    assert!(tele.stats().cut_values() >= 5, "and in the accounts, with the names that any test here cuts");
    drop(scope!(tele, "a", endless = %Endless));
    assert_eq!(text(&seen.only().attributes[0].1), "0123456789abcdef".repeat(256), "printing stops at the limit");
    let scope = scope!(tele, "a");
    scope.fail(&"e".repeat(10_000));
    drop(scope);
    assert_eq!(seen.only().error, Some("e".repeat(4096)));
}

#[test]
fn a_scope_keeps_128_attributes_events_and_links() {
    let key = |length: usize| -> &'static str { Box::leak("k".repeat(length).into_boxed_str()) };
    let keys: Vec<&'static str> = (1..=200).map(key).collect();
    let (tele, seen) = context();
    let scope = scope!(tele, "a");
    keys.iter().enumerate().for_each(|(n, key)| scope.set(key, n));
    drop(scope);
    let closed = seen.only();
    assert_eq!((closed.attributes.len(), closed.dropped), (128, 72));
    assert_eq!(closed.attributes[127], (keys[127].to_owned(), OwnedValue::U64(127)));
    let scope = scope!(tele, "b");
    (0..1000).for_each(|_| scope.event("again"));
    drop(scope);
    let closed = seen.only();
    assert_eq!((closed.events, closed.dropped), (128, 872));
    let scope = scope!(tele, "c");
    let carrier = scope.carrier();
    (0..129).for_each(|_| scope.link(carrier));
    drop(scope);
    let closed = seen.only();
    assert_eq!((closed.links, closed.dropped), (128, 1));
}

#[test]
fn a_failure_finds_room_in_a_full_scope() {
    let (tele, seen) = context();
    let scope = scope!(tele, "a");
    (0..1000).for_each(|_| scope.event("again"));
    scope.fail("bad");
    drop(scope);
    assert_eq!(seen.only().error.as_deref(), Some("bad"));
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn the_last_value_of_a_key_wins_however_often_it_is_set() {
    let (tele, seen) = context();
    let scope = scope!(tele, "a");
    scope.set("first", "kept");
    (0..10_000).for_each(|n| scope.set("n", n));
    drop(scope);
    let closed = seen.only();
    let expected = [("first", OwnedValue::Text("kept".into())), ("n", OwnedValue::I64(9_999))];
    assert_eq!(
        closed.attributes,
        expected.map(|(key, value)| (key.to_owned(), value)),
        "one attribute, its last value"
    );
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn an_event_keeps_64_kib_of_everything() {
    let recording = Recording::new(1 << 20);
    let (seen, value) = (Seen::default(), "v".repeat(4096));
    let tele = Telemetry::builder().reporter(seen.clone()).reporter(recording.clone()).build();
    let scope = scope!(tele, "a");
    for _ in 0..100 {
        scope.event_with("big", &[("value", Value::Str(&value))]);
    }
    drop(scope);
    drop(scope!(tele, "next"));
    let [closed, _] = <[Closed; 2]>::try_from(seen.take()).unwrap();
    assert_eq!(closed.events as u64 + closed.dropped, 100, "{closed:?}");
    assert!((14..=15).contains(&closed.events), "64 KiB hold {} events of 4 KiB", closed.events);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(recording.len(), 2);
    assert!(recording.bytes() <= (64 << 10) + 1024, "{}", recording.bytes());
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_string_of_a_gibibyte_is_refused_in_no_time() {
    let size = if is_deep() { 1 << 30 } else { 1 << 28 };
    // SAFETY: zeros are UTF-8; checking would read, and so allocate, all of it.
    let huge = unsafe { String::from_utf8_unchecked(vec![0; size]) };
    let (tele, seen) = context();
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        let scope = scope!(tele, "a", huge = &huge);
        scope.set("again", &huge);
        scope.fail(&huge);
        drop(scope);
        tele.metric("huge", &huge, &[("label", Value::Str(&huge))]);
        drop(tele.scope(&huge));
        fastest = fastest.min(start.elapsed());
        let seen = seen.take();
        assert_eq!((text(&seen[0].attributes[0].1).len(), seen[1].scope.len()), (4096, 256));
        assert!(seen[0].dropped >= 2);
    }
    assert!(fastest < Duration::from_millis(2), "{fastest:?} for five uses, of a string of {size} bytes");
}

/// The path that is expected of a chain of this name, and whether it is cut.
fn expected_path(name: &str, depth: usize) -> (String, bool) {
    let levels = depth + 1;
    let fits = levels.min(256).min(((64 << 10) + 1) / (name.len() + 1));
    let path = vec![name; fits].join(".");
    if fits == levels { (path, false) } else { (format!("{path}….(deeper)"), true) }
}

#[test]
fn the_self_times_add_up_beyond_the_limits_too() {
    let clock = MockClock::new();
    let tele = Telemetry::builder().clock(clock.clone()).build();
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(tele.scope("level"));
        clock.advance(Duration::from_nanos(1));
    }
    while open.pop().is_some() {
        clock.advance(Duration::from_nanos(2));
    }
    let report = tele.report();
    let self_ns: u128 = report.scopes().iter().map(|scope| scope.self_time().as_nanos()).sum();
    assert_eq!(self_ns, 300 + 299 * 2, "the last advance is after the outermost closed");
    let deeper = report.scopes().iter().find(|scope| scope.path().ends_with("(deeper)")).unwrap();
    assert_eq!((deeper.calls(), deeper.self_time().as_nanos()), (44, 44 + 43 * 2));
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn beyond_the_limits_a_path_ends_in_deeper_and_the_depth_stays_exact() {
    let (tele, seen) = context();
    for (name, depth) in [("d", 1000), (&*"w".repeat(256), 300), (&*"x".repeat(255), 257)] {
        for first_first in [false, true] {
            let mut scopes: Vec<Scope> = (0..depth).map(|_| tele.scope(name)).collect();
            tele.metric("m", 1, &[]);
            match first_first {
                true => scopes.drain(..).for_each(drop),
                false => while scopes.pop().is_some() {},
            }
            let mut closed = seen.take();
            if !first_first {
                closed.reverse();
            }
            assert_eq!(closed.len(), depth);
            for (n, closed) in closed.iter().enumerate() {
                assert_eq!(closed.depth as usize, n);
                assert!(closed.scope == expected_path(name, n).0, "at {n}: {}", closed.scope);
                // The first level beyond has a test of its own.
                if n > 0 && expected_path(name, n).1 == expected_path(name, n - 1).1 {
                    assert!(
                        closed.parent.as_deref() == Some(&expected_path(name, n - 1).0),
                        "at {n}: {:?}",
                        closed.parent
                    );
                }
            }
        }
    }
    drop(scope!(tele, "after"));
    let after = seen.only();
    assert_eq!((after.scope.as_str(), after.depth), ("after", 0));
}

#[test]
fn the_parent_of_the_first_level_beyond_the_limits_is_within_them() {
    let (tele, seen) = context();
    let mut scopes: Vec<Scope> = (0..257).map(|_| tele.scope("d")).collect();
    drop(scopes.pop());
    let closed = seen.only();
    assert_eq!((closed.depth, closed.parent), (256, Some(expected_path("d", 255).0)));
    while scopes.pop().is_some() {}
}

#[derive(Default)]
struct Depths {
    sum: AtomicU64,
    count: AtomicU64,
}
impl Reporter for Depths {
    fn record_timing(&self, event: &Timing<'_>) {
        self.sum.fetch_add(u64::from(event.depth()), SeqCst);
        self.count.fetch_add(1, SeqCst);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_million_scopes_may_be_open_on_a_small_thread_and_close_in_any_order() {
    const MANY: u64 = 1_000_000;
    let order = |first_first: bool| {
        let depths = Arc::new(Depths::default());
        let tele = Telemetry::builder()
            .queue_bytes(256 << 20)
            .reporter(background(Arc::clone(&depths)).on_full(kastor::OnFull::Wait(LONG)))
            .build();
        let there = tele.clone();
        let work = move || {
            let _current = there.override_current();
            let before = resident_bytes();
            let mut scopes = Vec::with_capacity(MANY as usize);
            (0..MANY).for_each(|_| scopes.push(scope!("level")));
            if let (Some(before), Some(after)) = (before, resident_bytes()) {
                let handles = mem::size_of::<Scope>() as u64 * MANY;
                let per_level = after.saturating_sub(before).saturating_sub(handles) / MANY;
                assert!(per_level <= 100, "{per_level} bytes a level");
            }
            let start = Instant::now();
            match first_first {
                true => scopes.drain(..).for_each(drop),
                false => while scopes.pop().is_some() {},
            }
            assert!(start.elapsed() < Duration::from_secs(30), "closing is no longer O(1): {:?}", start.elapsed());
            drop(scope!("root"));
        };
        thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap().join().unwrap();
        assert!(tele.flush(LONG).is_complete());
        assert_eq!((depths.count.load(SeqCst), depths.sum.load(SeqCst)), (MANY + 1, MANY * (MANY - 1) / 2));
        let report = tele.report();
        assert_eq!(report.scopes().iter().map(|it| it.calls()).sum::<u64>(), MANY + 1);
        assert_eq!(report.scope("root").map(|it| it.calls()), Some(1), "a root again afterwards");
        assert!(!report.to_string().is_empty() && !report.to_json().is_empty());
    };
    order(true);
    order(false);
}

#[cfg(target_os = "linux")]
fn resident_bytes() -> Option<u64> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
#[cfg(not(target_os = "linux"))]
fn resident_bytes() -> Option<u64> {
    eprintln!("SKIPPED: memory is read on Linux alone");
    None
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn labels_beyond_2000_sets_share_one_series_with_exact_sums() {
    let (tele, _) = context();
    let _current = tele.override_current();
    let sets: u64 = if is_deep() { 1_000_000 } else { 20_000 };
    for n in 0..sets {
        let label = n.to_string();
        count!("wide", n, id = &label);
        count!("narrow", 1, id = n % 10);
    }
    let report = tele.report();
    let wide: Vec<_> = report.series_of("wide").collect();
    assert!(wide.len() <= 2001, "{}", wide.len());
    let sum = |it: &kastor::SeriesAggregate| match it.sum() {
        Number::Integer(sum) => sum as u64,
        other => panic!("{other:?}"),
    };
    assert_eq!(wide.iter().map(|it| sum(it)).sum::<u64>(), sets * (sets - 1) / 2);
    assert_eq!(wide.iter().map(|it| it.calls()).sum::<u64>(), sets);
    let overflow: Vec<_> = wide.iter().filter(|it| it.labels().get("kastor.overflow").is_some()).collect();
    assert_eq!((overflow.len(), overflow[0].calls(), overflow[0].labels().count()), (1, sets - 2000, 1));
    let kept: u64 = wide.iter().filter(|it| it.labels().get("id").is_some()).map(|it| it.calls()).sum();
    assert_eq!(kept, 2000, "the first 2,000 are kept apart");
    assert_eq!(tele.stats().overflowed_series(), sets - 2000);
    assert_eq!(report.series_of("narrow").count(), 10, "another metric is not touched");
    assert!(report.series_of("narrow").all(|it| sum(it) == sets / 10));
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn the_last_events_of_dying_threads_arrive() {
    let recording = Recording::new(64 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    for _ in 0..20 {
        let threads: Vec<_> = (0..20)
            .map(|_| {
                let tele = tele.clone();
                thread::spawn(move || {
                    let _current = tele.override_current();
                    let _outer = scope!("outer");
                    (0..7).for_each(|_| drop(scope!("inner")));
                    count!("items", 3);
                })
            })
            .collect();
        threads.into_iter().for_each(|it| it.join().unwrap());
    }
    assert!(tele.flush(LONG).is_complete());
    assert_eq!((recording.len(), recording.dropped()), (400 * 8, 0));
    let report = tele.report();
    let calls = |path| report.scope(path).map(|it| it.calls());
    assert_eq!((calls("outer"), calls("outer.inner")), (Some(400), Some(2800)));
    assert_eq!(report.series_of("outer.items").next().map(|it| it.sum()), Some(Number::Integer(1200)));
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn thousands_of_live_threads_work() {
    let count = if is_deep() { 10_000 } else { 2_000 };
    let recording = Recording::new(64 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    let (all_in, may_go) = (Arc::new(Barrier::new(count + 1)), Arc::new(Barrier::new(count + 1)));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let (tele, all_in, may_go) = (tele.clone(), Arc::clone(&all_in), Arc::clone(&may_go));
            let work = move || {
                let scope = scope!(tele, "live");
                drop(scope!(tele, "inner"));
                all_in.wait();
                may_go.wait();
                drop(scope);
            };
            thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap()
        })
        .collect();
    all_in.wait();
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(recording.len(), count as u64, "events of live threads arrive too");
    assert_eq!(tele.open_scopes().iter().filter(|it| it.scope() == "live").count(), count);
    may_go.wait();
    threads.into_iter().for_each(|it| it.join().unwrap());
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(recording.len(), 2 * count as u64);
}

/// Runs `body` in a process of its own: this binary again, with this test alone.
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "KASTOR_TEST_ALONE";
    if std::env::var_os(ALONE).is_some_and(|it| it == test) {
        return body();
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args([test, "--exact", "--nocapture"]).env(ALONE, test).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    eprint!("{errors}");
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn dynamic_names_beyond_the_bound_share_one_and_everything_is_counted() {
    alone("dynamic_names_beyond_the_bound_share_one_and_everything_is_counted", || {
        let names: u64 = if is_deep() { 1_000_000 } else { 150_000 };
        let tele = Telemetry::builder().build();
        let before = resident_bytes();
        for n in 0..names {
            drop(tele.scope(&format!("dynamic.{n}")));
        }
        drop(tele.scope("dynamic.0"));
        let report = tele.report();
        assert_eq!(report.scopes().iter().map(|it| it.calls()).sum::<u64>(), names + 1);
        let paths = report.scopes().len() as u64;
        assert!((1000..=100_001).contains(&paths), "{paths}");
        assert_eq!(report.scope("dynamic.0").map(|it| it.calls()), Some(2), "what is known stays known");
        let shared = report.scopes().iter().filter(|it| it.path().contains("(overflow)"));
        assert_eq!(shared.map(|it| it.calls()).collect::<Vec<_>>(), [names - (paths - 1)]);
        assert!(tele.stats().overflowed_names() > 0);
        drop(scope!(tele, "literal.and.late"));
        if let (Some(before), Some(after)) = (before, resident_bytes()) {
            assert!(after - before < 256 << 20, "{} MiB", (after - before) >> 20);
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn many_short_threads_leave_the_memory_flat() {
    alone("many_short_threads_leave_the_memory_flat", || {
        let count = if is_deep() { 100_000 } else { 20_000 };
        let tele = Telemetry::builder().build();
        let run = |threads: u64| {
            for n in 0..threads {
                let tele = tele.clone();
                let work = move || {
                    let _current = tele.override_current();
                    let _scope = scope!("short", n = n);
                    drop(scope!("inner"));
                    count!("items", 1, kind = n % 5);
                };
                thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap().join().unwrap();
            }
        };
        run(count / 4);
        assert!(tele.flush(LONG).is_complete());
        let before = resident_bytes();
        run(count);
        assert!(tele.flush(LONG).is_complete());
        if let (Some(before), Some(after)) = (before, resident_bytes()) {
            let growth = after.saturating_sub(before);
            assert!(growth < 2 << 20, "{} KiB more after {count} threads", growth >> 10);
        }
        let report = tele.report();
        assert_eq!(report.scope("short.inner").map(|it| it.calls()), Some(count + count / 4));
        let sums = report.series_of("short.items").map(|it| it.sum().as_f64());
        assert_eq!(sums.sum::<f64>(), (count + count / 4) as f64);
    });
}
