//! Contexts: what each one gets, overrides, switches, reporters in order and their use of the context they serve,
//! aggregates, and flushing. Nothing here is installed; every test has contexts of its own.

use std::{
    mem,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use kastor::{
    DropReason, Flush, Metric, MetricType, MockClock, Number, Recording, Reporter, Snapshot, Telemetry, Timing,
    background, count, gauge, histogram, metric, scope,
};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(if cfg!(miri) { 1000 } else { 10 });

/// Keeps one line for each event that it gets inline.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>, &'static str);

impl Lines {
    fn push(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{}{line}", self.1));
    }
    fn take(&self) -> Vec<String> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reporter for Lines {
    fn record_timing(&self, event: &Timing<'_>) {
        assert_eq!(event.parent_scope().is_none(), event.depth() == 0);
        self.push(event.scope().to_owned());
    }
    fn record_metric(&self, event: &Metric<'_>) {
        let kind = event.metric_type().map_or("metric", MetricType::as_str);
        self.push(format!("{} {}={}", kind, event.scope(), event.value()));
    }
}

fn context() -> (Telemetry, Lines, MockClock) {
    let (lines, clock) = (Lines::default(), MockClock::new());
    (Telemetry::builder().clock(clock.clone()).reporter(lines.clone()).build(), lines, clock)
}

/// (scope, parent span id, span id, trace id) of everything recorded.
fn recorded(recording: &Recording) -> Vec<(&'static str, Option<u64>, u64, u128)> {
    let mut all = Vec::new();
    recording.for_each_batch(|batch| {
        all.extend(batch.timings().map(|it| (it.scope(), it.parent_span_id(), it.span_id(), it.trace_id())));
    });
    all
}

#[test]
fn an_event_goes_to_its_own_context_and_the_hierarchy_is_everyones() {
    let (one, two) = (Recording::new(1 << 20), Recording::new(1 << 20));
    let first = Telemetry::builder().reporter(one.clone()).build();
    let second = Telemetry::builder().reporter(two.clone()).build();
    {
        let _a = scope!(first, "a");
        let _b = scope!(second, "b");
        let _c = first.scope("c");
        drop(scope!(second, "d"));
        count!(second, "n", 2);
    }
    assert!(first.flush(LONG).is_complete() && second.flush(LONG).is_complete());
    let (one, two) = (recorded(&one), recorded(&two));
    let [c, a] = one[..] else { panic!("{one:?}") };
    let [d, b] = two[..] else { panic!("{two:?}") };
    assert_eq!((a.0, b.0, c.0, d.0), ("a", "a.b", "a.b.c", "a.b.c.d"));
    assert_eq!((a.1, b.1, c.1, d.1), (None, Some(a.2), Some(b.2), Some(c.2)));
    assert!([b.3, c.3, d.3].iter().all(|trace| *trace == a.3));
    assert!(first.report().series().is_empty());
    assert_eq!(second.report().series_of("a.b.c.n").next().map(|it| it.sum()), Some(Number::Integer(2)));
    assert_eq!((first.stats().timings(), second.stats().timings()), (2, 2));
}

#[test]
fn the_newest_override_that_is_left_decides_in_whatever_order_they_go() {
    let contexts = [context(), context(), context()];
    let mut guards: Vec<_> = contexts.iter().map(|it| Some(it.0.override_current())).collect();
    let hit = || {
        drop(scope!("probe"));
        let hits: Vec<usize> = contexts.iter().map(|it| it.1.take().len()).collect();
        hits.iter().position(|hits| *hits == 1)
    };
    assert_eq!(hit(), Some(2));
    guards[1] = None;
    assert_eq!(hit(), Some(2));
    guards[2] = None;
    assert_eq!(hit(), Some(0));
    guards[1] = Some(contexts[1].0.override_current());
    assert_eq!(hit(), Some(1));
    guards[0] = None;
    assert_eq!(hit(), Some(1));
    {
        let _again = contexts[1].0.override_current();
        let _none = Telemetry::disabled().override_current();
        assert_eq!(hit(), None);
        assert!(!Telemetry::current().is_enabled());
    }
    assert_eq!(hit(), Some(1));
    guards[1] = None;
    assert_eq!(hit(), None, "there is no default in this process");
}

#[test]
fn an_override_is_this_threads_alone() {
    let (tele, lines, _) = context();
    let _current = tele.override_current();
    thread::scope(|threads| {
        threads.spawn(|| {
            assert!(!Telemetry::current().is_enabled());
            drop(scope!("elsewhere"));
        });
    });
    assert!(Telemetry::current().is_enabled());
    drop(scope!("here"));
    assert_eq!(lines.take(), ["here"]);
}

#[test]
fn an_override_in_the_middle_of_open_scopes_keeps_the_hierarchy() {
    let (first, ones, _) = context();
    let (second, twos, _) = context();
    let one = first.override_current();
    let a = scope!("a");
    let two = second.override_current();
    let b = scope!("b");
    drop(one);
    drop(a);
    drop(scope!("c"));
    drop(two);
    drop(b);
    assert_eq!((ones.take(), twos.take()), (vec!["a".into()], vec!["a.b.c".to_string(), "a.b".into()]));
}

#[test]
fn scopes_that_are_open_when_the_context_is_switched_off_pop_without_an_event() {
    let (tele, lines, _) = context();
    let (other, others, _) = context();
    let _current = tele.override_current();
    let a = scope!("a", key = 1);
    let b = scope!("b");
    tele.set_enabled(false);
    assert!(!tele.is_enabled());
    drop(scope!("off"));
    count!("items");
    metric!("note", 1);
    drop(scope!(other, "elsewhere"));
    drop(b);
    tele.set_enabled(true);
    drop(scope!("c"));
    tele.set_enabled(false);
    drop(a);
    tele.set_enabled(true);
    drop(scope!("root"));
    assert_eq!(lines.take(), ["a.c", "root"]);
    assert_eq!(others.take(), ["a.b.elsewhere"]);
    let paths: Vec<_> = tele.report().scopes().iter().map(|it| (it.path(), it.calls())).collect();
    assert_eq!(paths, [("a.c", 1), ("root", 1)]);
    assert_eq!((tele.stats().emitted(), tele.report().series().len()), (2, 0));
}

#[test]
fn a_scope_that_is_off_by_its_name_is_transparent() {
    let (tele, lines, _) = context();
    let _current = tele.override_current();
    tele.switch_scopes("db.*", false);
    tele.switch_scopes("db.write", true);
    tele.switch_scopes("x?", false);
    let run = |is_on| {
        let _a = scope!("a");
        let off = scope!("db.read");
        assert_eq!(off.is_recording(), is_on);
        let _on = scope!("db.write");
        let _dynamic = tele.scope("db.dynamic");
        let _x1 = scope!("x1");
        drop(scope!("x12"));
    };
    run(false);
    assert_eq!(lines.take(), ["a.db.write.x12", "a.db.write", "a"]);
    tele.switch_scopes("*", true);
    run(true);
    assert_eq!(lines.take().len(), 6, "the last pattern that fits decides");
    tele.switch_scopes("*", false);
    run(false);
    assert_eq!(lines.take(), [""; 0]);
}

#[test]
fn a_name_switched_off_in_one_context_is_on_in_another() {
    let (one, ones, _) = context();
    let (two, twos, _) = context();
    one.switch_scopes("shared", false);
    for tele in [&one, &two] {
        let _outer = scope!(tele, "outer");
        let _shared = scope!(tele, "shared");
        let _current = tele.override_current();
        drop(scope!("inner"));
    }
    assert_eq!(ones.take(), ["outer.inner", "outer"]);
    assert_eq!(twos.take(), ["outer.shared.inner", "outer.shared", "outer"]);
}

#[test]
fn a_path_can_be_aggregated_without_being_recorded() {
    let (tele, lines, _) = context();
    let recording = Recording::new(1 << 20);
    let both = Telemetry::builder().reporter(recording.clone()).reporter(lines.clone()).build();
    drop(tele);
    both.record_paths("job.*.hot", false);
    both.record_paths("job.kept.*", true);
    let _current = both.override_current();
    for _ in 0..10 {
        let _job = scope!("job");
        let _step = scope!("step");
        drop(scope!("hot"));
        drop(_step);
        let _kept = scope!("kept");
        drop(scope!("hot"));
    }
    assert!(both.flush(LONG).is_complete());
    let lines = lines.take();
    let count = |path: &str| lines.iter().filter(|line| *line == path).count();
    assert_eq!((count("job.step.hot"), count("job.kept.hot"), count("job.step"), count("job")), (0, 10, 10, 10));
    assert_eq!(recorded(&recording).iter().filter(|it| it.0 == "job.step.hot").count(), 0);
    assert_eq!(recording.len(), 40);
    assert_eq!(both.report().scope("job.step.hot").map(|it| it.calls()), Some(10));
    let stats = both.stats();
    assert_eq!(stats.emitted(), 50);
    for reporter in stats.reporters() {
        assert_eq!((reporter.delivered(), reporter.dropped().of(DropReason::Sampled)), (40, 10), "{}", reporter.name());
    }
}

#[test]
fn inline_reporters_run_in_the_order_of_registration_on_the_closing_thread() {
    let all = Arc::default();
    let named = |name| Lines(Arc::clone(&all), name);
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder()
        .reporter(named("1 "))
        .reporter(recording.clone())
        .reporter(named("2 "))
        .reporter(named("3 "))
        .build();
    let _current = tele.override_current();
    drop(scope!("a"));
    metric!("m", 1.5, k = "v");
    count!("c", 2);
    gauge!("g", 3);
    histogram!("h", 4);
    let lines = ["a", "metric m=1.5", "counter c=2", "gauge g=3", "histogram h=4"];
    let expected: Vec<String> = lines.iter().flat_map(|it| [1, 2, 3].map(|n| format!("{n} {it}"))).collect();
    assert_eq!(named("").take(), expected);
    assert!(tele.flush(LONG).is_complete());
    let mut metrics = Vec::new();
    recording.for_each_batch(|batch| metrics.extend(batch.metrics().map(|it| it.scope())));
    assert_eq!(metrics, ["m"], "a batch reporter gets plain metrics; the instruments come as aggregates");
    assert_eq!(recording.len(), 2);
    let thread = Arc::new(OnceLock::new());
    struct Where(Arc<OnceLock<thread::ThreadId>>);
    impl Reporter for Where {
        fn record_timing(&self, _: &Timing<'_>) {
            self.0.set(thread::current().id()).unwrap();
        }
    }
    let tele = Telemetry::builder().reporter(Where(Arc::clone(&thread))).build();
    drop(scope!(tele, "a"));
    assert_eq!(thread.get(), Some(&thread::current().id()));
}

#[test]
fn a_background_reporter_gets_series_as_aggregates_on_flush() {
    #[derive(Clone, Default)]
    struct Aggregates(Lines);
    impl Reporter for Aggregates {
        fn record_metric(&self, event: &Metric<'_>) {
            self.0.record_metric(event);
        }
        fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), kastor::Error> {
            for it in snapshot.series() {
                let labels: Vec<String> = it.labels().map(|(key, value)| format!("{key}={value}")).collect();
                self.0.push(format!("{} {} {}", it.path(), labels.join(","), it.sum()));
            }
            for it in snapshot.scopes() {
                self.0.push(format!("{} {}", it.path(), it.calls()));
            }
            Ok(())
        }
    }
    let seen = Aggregates::default();
    let tele = Telemetry::builder().interval(Duration::from_secs(3600)).reporter(background(seen.clone())).build();
    let _current = tele.override_current();
    const TIMES: u64 = if cfg!(miri) { 20 } else { 1000 };
    for n in 0..TIMES {
        let _a = scope!("a");
        count!("items", n, kind = "md");
    }
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(seen.0.take(), [format!("a.items kind=md {}", TIMES * (TIMES - 1) / 2), format!("a {TIMES}")]);
}

#[test]
fn aggregates_are_exact() {
    let (tele, lines, clock) = context();
    let _current = tele.override_current();
    for n in 1..=10u32 {
        let a = scope!("a");
        clock.advance(n * MS);
        {
            let _b = scope!("b");
            clock.advance(MS);
        }
        if n % 5 == 0 {
            a.fail("bad");
        }
        count!("items", n);
        count!("refunds", -2);
        count!("mass", 0.5);
        gauge!("level", f64::from(n) - 3.0);
        histogram!("size", n);
    }
    let report = tele.report();
    let a = report.scope("a").unwrap();
    assert_eq!((a.calls(), a.errors(), a.depth(), a.name(), a.parent()), (10, 2, 0, "a", None));
    assert_eq!((a.total(), a.self_time(), a.min(), a.max()), (65 * MS, 55 * MS, 2 * MS, 11 * MS));
    let b = report.scope("a.b").unwrap();
    assert_eq!((b.calls(), b.errors(), b.depth(), b.name(), b.parent()), (10, 0, 1, "b", Some("a")));
    assert_eq!((b.total(), b.self_time(), b.min(), b.max()), (10 * MS, 10 * MS, MS, MS));
    let within = |found: Duration, real: f64| (found.as_secs_f64() / real - 1.0).abs() <= 0.045;
    assert!(within(b.quantile(0.5), 0.001) && within(b.quantile(0.99), 0.001), "{:?}", b.quantile(0.5));
    assert!(within(a.quantile(1.0), 0.011), "{:?}", a.quantile(1.0));
    let series = |path: &'static str| report.series_of(path).next().unwrap().clone();
    let (items, refunds, mass) = (series("a.items"), series("a.refunds"), series("a.mass"));
    assert_eq!((items.calls(), items.sum(), items.is_monotonic()), (10, Number::Integer(55), true));
    assert_eq!((refunds.sum(), refunds.is_monotonic()), (Number::Integer(-20), false));
    assert_eq!((mass.sum(), mass.is_monotonic(), mass.metric_type()), (Number::Float(5.0), true, MetricType::Counter));
    let level = series("a.level");
    assert_eq!((level.last(), level.min(), level.max(), level.calls()), (Some(7.0), Some(-2.0), Some(7.0), 10));
    let size = series("a.size");
    assert_eq!((size.values().count(), size.values().sum(), size.min(), size.max()), (10, 55.0, Some(1.0), Some(10.0)));
    assert_eq!(report.series().len(), 5);
    assert_eq!(lines.take().len(), 70);
}

#[test]
fn series_are_told_apart_by_path_and_labels_and_handles_keep_theirs() {
    let (tele, _, _) = context();
    let _current = tele.override_current();
    let host = String::from("h1");
    let bound = {
        let _a = scope!("a");
        count!("n", 1, kind = "x");
        count!("n", 2, kind = "y");
        count!("n", 4, kind = "x", host = &host);
        tele.counter("n", &[("kind", "x".into())])
    };
    count!("n", 8, kind = "x");
    bound.add(16);
    thread::scope(|threads| {
        threads.spawn(|| bound.add(32));
    });
    let mut found: Vec<_> = tele
        .report()
        .series()
        .iter()
        .map(|it| (it.path(), it.labels().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(), it.sum()))
        .collect();
    found.sort_by_key(|it| it.2.as_f64() as u64);
    let row =
        |path, labels: &[&str], sum| (path, labels.iter().map(|it| (*it).to_owned()).collect(), Number::Integer(sum));
    let expected = [
        row("a.n", &["kind=y"], 2),
        row("a.n", &["kind=x", "host=h1"], 4),
        row("n", &["kind=x"], 8),
        row("a.n", &["kind=x"], 49),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_description_reaches_every_series_of_its_name() {
    let (tele, _, _) = context();
    let _current = tele.override_current();
    count!("bytes", 1);
    tele.describe("bytes", "By", "bytes read");
    let _a = scope!("a");
    count!("bytes", 1);
    count!("other", 1);
    let report = tele.report();
    let described: Vec<_> = report.series().iter().map(|it| (it.path(), it.unit(), it.help())).collect();
    let text = (Some("By"), Some("bytes read"));
    assert_eq!(described, [("a.bytes", text.0, text.1), ("a.other", None, None), ("bytes", text.0, text.1)]);
}

#[test]
fn an_inline_reporter_may_use_the_context_that_it_serves() {
    struct Busy(OnceLock<Telemetry>, AtomicU64);
    impl Reporter for Busy {
        fn record_timing(&self, event: &Timing<'_>) {
            self.1.fetch_add(1, SeqCst);
            let Some(tele) = self.0.get() else { return };
            let _current = tele.override_current();
            let _scope = scope!("reporting", of = event.scope());
            count!("reported");
            metric!("reported_event", 1);
            drop(tele.report());
            drop(tele.stats());
        }
        fn record_metric(&self, _: &Metric<'_>) {
            self.1.fetch_add(1, SeqCst);
            if let Some(tele) = self.0.get() {
                metric!(tele, "again", 1);
            }
        }
    }
    let busy = Arc::new(Busy(OnceLock::new(), AtomicU64::new(0)));
    let after = Lines::default();
    let tele = Telemetry::builder().reporter(Arc::clone(&busy)).reporter(after.clone()).build();
    busy.0.set(tele.clone()).ok();
    for _ in 0..5 {
        drop(scope!(tele, "a"));
    }
    metric!(tele, "m", 1);
    let lines = after.take();
    assert_eq!(lines.iter().filter(|line| *line == "a").count(), 5, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == "metric m=1").count(), 1);
    assert!(busy.1.load(SeqCst) < 100, "no endless recursion");
    assert_eq!(tele.report().scope("a").map(|it| it.calls()), Some(5));
    let stats = tele.stats();
    for it in stats.reporters() {
        assert_eq!(stats.emitted(), it.delivered() + it.dropped().total() + it.queued() + it.spooled(), "{stats}");
    }
}

#[test]
fn flush_inside_a_reporter_returns_at_once_with_what_is_pending() {
    type Flushed = (Flush, Duration);
    struct Flushing(OnceLock<Telemetry>, mpsc::Sender<Flushed>);
    impl Reporter for Flushing {
        fn record_timing(&self, _: &Timing<'_>) {
            if let Some(tele) = self.0.get() {
                let start = Instant::now();
                let flush = tele.flush(Duration::from_secs(60));
                self.1.send((flush, start.elapsed())).ok();
            }
        }
    }
    for in_background in [false, true] {
        let (sender, flushed) = mpsc::channel();
        let flushing = Arc::new(Flushing(OnceLock::new(), sender));
        let tele = match in_background {
            false => Telemetry::builder().reporter(Arc::clone(&flushing)).reporter(Recording::new(1 << 16)).build(),
            true => Telemetry::builder().reporter(background(Arc::clone(&flushing))).build(),
        };
        flushing.0.set(tele.clone()).ok();
        drop(scope!(tele, "a"));
        assert!(tele.flush(LONG).is_complete());
        let (flush, took) = flushed.recv().unwrap();
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(flush.reporters().len(), 1);
        assert!(!in_background || !flush.is_complete(), "the event that is being reported is pending: {flush:?}");
    }
}

#[test]
fn after_shutdown_events_are_dropped_and_counted_and_nothing_brings_the_context_back() {
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    let _current = tele.override_current();
    let open = scope!("open");
    drop(scope!("a"));
    assert!(tele.shutdown(LONG).is_complete());
    assert!(!tele.is_enabled());
    tele.set_enabled(true);
    assert!(!tele.is_enabled());
    drop(scope!("late"));
    drop(open);
    assert!(tele.shutdown(LONG).is_complete() && tele.flush(LONG).is_complete());
    assert_eq!((recording.len(), tele.stats().emitted()), (1, 1));
    assert_eq!(recorded(&recording)[0].0, "open.a");
    assert!(tele.stats().dropped().of(DropReason::Shutdown) >= 1, "{}", tele.stats());
}
