//! Futures in scopes, on executors written here: interleaved, moved between threads, dropped, panicking, nested.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    future::poll_fn,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use kastor::{Carrier, FutureExt, MockClock, Recording, Reporter, Scope, Telemetry, Timing, scope, scoped};

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Debug, PartialEq)]
struct Closed {
    scope: String,
    depth: u32,
    duration: Duration,
    error: Option<String>,
    busy: Option<f64>,
    trace: u128,
    span: u64,
    parent: Option<u64>,
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Closed>>>);

impl Reporter for Seen {
    fn record_timing(&self, event: &Timing<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Closed {
            scope: event.scope().to_owned(),
            depth: event.depth(),
            duration: event.duration(),
            error: event.error_type().map(str::to_owned),
            busy: event.attributes().get("busy_ns").and_then(|it| it.as_f64()),
            trace: event.trace_id(),
            span: event.span_id(),
            parent: event.parent_span_id(),
        });
    }
}

impl Seen {
    fn take(&self) -> Vec<Closed> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn paths(&self) -> Vec<String> {
        let text = |it: Closed| it.error.map_or(it.scope.clone(), |error| format!("{}: {error}", it.scope));
        self.take().into_iter().map(text).collect()
    }
}

fn context() -> (Telemetry, Seen, MockClock) {
    let (seen, clock) = (Seen::default(), MockClock::new());
    (Telemetry::builder().clock(clock.clone()).reporter(seen.clone()).build(), seen, clock)
}

/// Is pending once.
async fn yield_now() {
    let polled = Cell::new(false);
    poll_fn(move |_| if polled.replace(true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
    }
}

/// Polls all in turn until all are done, as an executor on one thread does.
fn run_all(futures: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    let mut queue = VecDeque::from(futures);
    while let Some(mut future) = queue.pop_front() {
        if poll(future.as_mut()).is_pending() {
            queue.push_back(future);
        }
    }
}

fn ids_lead_to(child: &Closed, parent: &Closed) {
    assert_eq!((child.trace, child.parent), (parent.trace, Some(parent.span)), "{child:?} {parent:?}");
}

#[test]
fn a_scope_follows_its_future_and_is_current_only_in_its_polls() {
    let (tele, seen, clock) = context();
    let _current = tele.override_current();
    let root = scope!("root");
    let task = async {
        drop(scope!("first"));
        yield_now().await;
        drop(scope!("second"));
        7
    };
    let mut task = pin!(task.in_scope(scope!("task", key = 1)));
    assert_eq!(Carrier::current(), root.carrier(), "not yet polled");
    clock.advance(MS);
    assert!(poll(task.as_mut()).is_pending());
    drop(scope!("between"));
    clock.advance(MS);
    assert_eq!(poll(task.as_mut()), Poll::Ready(7));
    clock.advance(MS);
    drop(scope!("after"));
    drop(root);
    let [first, between, second, task, after, root] = <[Closed; 6]>::try_from(seen.take()).unwrap();
    let paths = [&first, &second, &task, &between, &after].map(|it| (it.scope.as_str(), it.depth));
    assert_eq!(
        paths,
        [("root.task.first", 2), ("root.task.second", 2), ("root.task", 1), ("root.between", 1), ("root.after", 1)]
    );
    [&first, &second].into_iter().for_each(|it| ids_lead_to(it, &task));
    [&task, &between, &after].into_iter().for_each(|it| ids_lead_to(it, &root));
    assert_eq!((task.duration, task.error), (2 * MS, None), "from opening to being done");
}

#[test]
fn the_place_of_a_scope_is_where_it_was_opened_not_where_its_future_is_polled() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let task = {
        let _opener = scope!("opener");
        Box::pin(
            async {
                yield_now().await;
                drop(scope!("child"));
            }
            .in_scope(scope!("task")),
        )
    };
    let _elsewhere = scope!("elsewhere");
    run(task);
    drop(scope!("next"));
    assert_eq!(seen.paths(), ["opener", "opener.task.child", "opener.task", "elsewhere.next"]);
}

#[test]
fn interleaved_futures_on_one_thread_keep_the_scopes_they_hold_across_awaits() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let root = scope!("root");
    async fn task(rounds: usize) {
        let _outer = scope!("held");
        for _ in 0..rounds {
            let _inner = scope!("inner");
            yield_now().await;
            drop(scope!("leaf"));
            yield_now().await;
        }
    }
    let tele = &tele;
    let names: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    let tasks = names
        .iter()
        .enumerate()
        .map(|(n, name)| -> Pin<Box<dyn Future<Output = ()>>> { Box::pin(task(1 + n % 7).in_scope(tele.scope(name))) });
    run_all(tasks.collect());
    drop(scope!("after"));
    drop(root);
    let closed = seen.take();
    let spans: HashMap<u64, &Closed> = closed.iter().map(|it| (it.span, it)).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for it in &closed {
        *counts.entry(&it.scope).or_default() += 1;
        assert_eq!(it.error, None);
        match (it.scope.rsplit_once('.'), it.parent) {
            (None, parent) => assert_eq!((it.scope.as_str(), parent), ("root", None)),
            (Some((above, _)), Some(parent)) => {
                assert_eq!(spans[&parent].scope, above);
                ids_lead_to(it, spans[&parent]);
            }
            other => panic!("{other:?}"),
        }
    }
    for (n, name) in names.iter().enumerate() {
        let count = |path: &str| counts.get(format!("root.{name}{path}").as_str()).copied();
        let rounds = 1 + n % 7;
        assert_eq!((count(""), count(".held")), (Some(1), Some(1)));
        assert_eq!((count(".held.inner"), count(".held.inner.leaf")), (Some(rounds), Some(rounds)));
    }
    assert_eq!(counts["root.after"], 1);
    assert_eq!(counts.len(), 2 + 4 * 50);
}

#[test]
fn a_future_may_be_moved_to_another_thread_between_any_two_polls() {
    let recording = Recording::new(32 << 20);
    let seen = Seen::default();
    let tele = Telemetry::builder().reporter(recording.clone()).reporter(seen.clone()).build();
    const TASKS: usize = if cfg!(miri) { 3 } else { 200 };
    async fn part(n: usize) {
        drop(scope!("leaf"));
        yield_now().await;
        drop(scope!("leaf", n = n));
    }
    async fn task(tele: Telemetry) {
        for n in 0..10 {
            let part = {
                let _current = tele.override_current();
                part(n).in_scope(scope!("part"))
            };
            let mut part = Box::pin(part);
            poll_fn(|context| {
                let _current = tele.override_current();
                part.as_mut().poll(context)
            })
            .await;
            yield_now().await;
        }
    }
    type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
    let tasks = (0..TASKS).map(|_| -> Task { Box::pin(task(tele.clone()).in_scope(scope!(tele, "task"))) });
    let queue = Mutex::new(tasks.collect::<VecDeque<Task>>());
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                loop {
                    let Some(mut task) = queue.lock().unwrap().pop_front() else { return };
                    if poll(task.as_mut()).is_pending() {
                        queue.lock().unwrap().push_back(task);
                    }
                    assert_eq!(Carrier::current(), Carrier::NONE, "nothing stays behind on the thread");
                }
            });
        }
    });
    assert!(tele.flush(Duration::from_secs(10)).is_complete());
    let inline = seen.take();
    let mut ids = HashMap::new();
    recording.for_each_batch(|batch| {
        for it in batch.timings() {
            assert!(it.error_type().is_none());
            ids.insert(it.span_id(), (it.scope(), it.parent_span_id(), it.trace_id()));
        }
    });
    assert_eq!((ids.len(), inline.len()), (TASKS * 31, TASKS * 31), "each once, with an id of its own");
    assert!(inline.iter().all(|it| ids[&it.span] == (it.scope.as_str(), it.parent, it.trace)));
    let mut children: HashMap<u64, usize> = HashMap::new();
    for (scope, parent, trace) in ids.values() {
        let Some(parent) = parent else {
            assert_eq!(*scope, "task");
            continue;
        };
        *children.entry(*parent).or_default() += 1;
        let above = ids[parent];
        assert_eq!((scope.rsplit_once('.').map(|it| it.0), *trace), (Some(above.0), above.2));
    }
    for (span, (scope, ..)) in &ids {
        let expected = match *scope {
            "task" => Some(10),
            "task.part" => Some(2),
            _ => None,
        };
        assert_eq!(children.get(span).copied(), expected, "{scope}");
    }
}

#[test]
fn a_future_dropped_unfinished_is_cancelled_wherever_it_was() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    async fn wait() {
        let _held = scope!("held");
        yield_now().await;
        unreachable!("it is dropped before");
    }
    drop(wait().in_scope(scope!("never.polled")));
    assert_eq!(seen.paths(), ["never.polled: cancelled"]);
    let mut task = Box::pin(wait().in_scope(scope!("task")));
    assert!(poll(task.as_mut()).is_pending());
    let other = scope!("other");
    drop(task);
    drop(scope!("child"));
    drop(other);
    assert_eq!(seen.paths(), ["task.held", "task: cancelled", "other.child", "other"]);
    let elsewhere = async { yield_now().await }.in_scope(scope!("elsewhere"));
    let mut elsewhere = Box::pin(elsewhere);
    assert!(poll(elsewhere.as_mut()).is_pending());
    thread::spawn(move || drop(elsewhere)).join().unwrap();
    assert_eq!(seen.paths(), ["elsewhere: cancelled"]);
    assert_eq!(tele.report().scope("task").map(|it| (it.calls(), it.errors())), Some((1, 1)));
}

#[test]
fn a_panic_in_a_poll_fails_what_it_passes_and_goes_on() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let bad = async {
        yield_now().await;
        let _held = scope!("held");
        resume_unwind(Box::new("payload"));
    };
    let outer = async {
        let mut bad = Box::pin(bad.in_scope(scope!("bad")));
        assert!(poll(bad.as_mut()).is_pending());
        yield_now().await;
        let payload = catch_unwind(AssertUnwindSafe(|| poll(bad.as_mut()))).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"payload"));
        drop(bad);
        drop(scope!("next"));
    };
    run(outer.in_scope(scope!("outer")));
    assert_eq!(Carrier::current(), Carrier::NONE);
    assert_eq!(seen.paths(), ["outer.bad.held: panic", "outer.bad: panic", "outer.next", "outer"]);
}

#[test]
fn scopes_of_futures_nest() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let task = async {
        async {
            yield_now().await;
            drop(scope!("leaf"));
            async { yield_now().await }.in_scope(scope!("third")).await;
        }
        .in_scope(scope!("second"))
        .await;
        drop(scope!("leaf"));
    };
    run(task.in_scope(scope!("first")));
    let closed = seen.take();
    let paths: Vec<_> = closed.iter().map(|it| it.scope.as_str()).collect();
    assert_eq!(paths, ["first.second.leaf", "first.second.third", "first.second", "first.leaf", "first"]);
    ids_lead_to(&closed[0], &closed[2]);
    ids_lead_to(&closed[1], &closed[2]);
    ids_lead_to(&closed[2], &closed[4]);
    ids_lead_to(&closed[3], &closed[4]);
    let around = async { drop(scope!("leaf")) }.in_scope(scope!("inner"));
    run(around.in_scope(scope!("around")));
    assert_eq!(seen.paths(), ["inner.leaf", "inner", "around"], "each is where it was opened");
}

#[test]
fn the_loser_of_a_race_is_cancelled_and_its_siblings_go_on() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let race = async {
        let mut fast = Box::pin(async { yield_now().await }.in_scope(scope!("fast")));
        let mut slow = Box::pin(
            async {
                let _held = scope!("held");
                loop {
                    drop(scope!("turn"));
                    yield_now().await;
                }
            }
            .in_scope(scope!("slow")),
        );
        poll_fn(|context| {
            let slow: Poll<()> = slow.as_mut().poll(context);
            assert!(slow.is_pending());
            fast.as_mut().poll(context)
        })
        .await;
        drop(slow);
        drop(scope!("after"));
    };
    run(race.in_scope(scope!("race")));
    let turn = "race.slow.held.turn";
    assert_eq!(seen.paths(), [turn, turn, "race.fast", "race.slow.held", "race.slow: cancelled", "race.after", "race"]);
}

#[test]
fn busy_time_is_the_time_in_polls_alone() {
    let (tele, seen, clock) = context();
    let work = async {
        clock.advance(2 * MS);
        yield_now().await;
        clock.advance(3 * MS);
    };
    let mut work = pin!(work.in_scope(scope!(tele, "work")).with_busy_time());
    clock.advance(10 * MS);
    assert!(poll(work.as_mut()).is_pending());
    clock.advance(100 * MS);
    assert!(poll(work.as_mut()).is_ready());
    let plain = async { yield_now().await }.in_scope(scope!(tele, "plain"));
    run(plain);
    let [work, plain] = <[Closed; 2]>::try_from(seen.take()).unwrap();
    assert_eq!((work.duration, work.busy), (115 * MS, Some(5e6)));
    assert_eq!(plain.busy, None, "only if asked for");
}

#[test]
fn a_future_in_a_scope_that_records_nothing_is_just_polled() {
    let (tele, seen, _) = context();
    let off = Telemetry::disabled();
    let _outer = scope!(tele, "outer");
    let inner = tele.clone();
    let task = async move {
        yield_now().await;
        drop(scope!(inner, "child"));
        5
    };
    assert_eq!(run(task.in_scope(scope!(off, "off")).with_busy_time()), 5);
    assert_eq!(seen.paths(), ["outer.child"]);
}

#[test]
fn switched_off_between_polls_a_future_goes_on_without_an_event() {
    let (tele, seen, _) = context();
    let mut task = Box::pin(async { yield_now().await }.in_scope(scope!(tele, "task")));
    assert!(poll(task.as_mut()).is_pending());
    tele.set_enabled(false);
    assert!(poll(task.as_mut()).is_ready());
    tele.set_enabled(true);
    drop(task);
    drop(scope!(tele, "next"));
    assert_eq!(seen.paths(), ["next"]);
}

#[test]
fn a_scope_leaked_in_a_poll_is_unfinished_and_no_ones_parent_outside() {
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    let there = tele.clone();
    let work = move || {
        let _current = there.override_current();
        let task = async {
            mem::forget(scope!("leaked"));
            drop(scope!("under"));
            yield_now().await;
            drop(scope!("later"));
        };
        let mut task = Box::pin(task.in_scope(scope!("task")));
        assert!(poll(task.as_mut()).is_pending());
        drop(scope!("outside"));
        assert!(poll(task.as_mut()).is_ready());
        drop(scope!("after"));
    };
    thread::spawn(work).join().unwrap();
    assert!(tele.flush(Duration::from_secs(10)).is_complete());
    let mut all = Vec::new();
    recording.for_each_batch(|batch| {
        all.extend(batch.timings().map(|it| (it.scope(), it.error_type().map(str::to_owned))));
    });
    all.sort();
    let done = |path| (path, None);
    let unfinished = ("task.leaked", Some("unfinished".to_owned()));
    let expected = [
        done("after"),
        done("outside"),
        done("task"),
        unfinished,
        done("task.leaked.later"),
        done("task.leaked.under"),
    ];
    assert_eq!(all, expected);
}

#[test]
fn the_scope_of_an_async_function_has_its_children_and_its_ids() {
    #[scoped]
    async fn parent() {
        child(1).await;
        yield_now().await;
        let _held: Scope = scope!("held");
        child(2).await;
    }
    #[scoped("child.named")]
    async fn child(turns: u32) {
        for _ in 0..turns {
            yield_now().await;
        }
        drop(scope!("leaf"));
    }
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    run_all(vec![Box::pin(parent()), Box::pin(parent())]);
    let closed = seen.take();
    assert_eq!(closed.len(), 12);
    let spans: HashMap<u64, &Closed> = closed.iter().map(|it| (it.span, it)).collect();
    let mut counts: HashMap<(&str, Option<&str>), usize> = HashMap::new();
    for it in &closed {
        let parent = it.parent.map(|parent| spans[&parent].scope.as_str());
        *counts.entry((&it.scope, parent)).or_default() += 1;
    }
    let expected = [
        (("parent", None), 2),
        (("parent.held", Some("parent")), 2),
        (("parent.child.named", Some("parent")), 2),
        (("parent.child.named.leaf", Some("parent.child.named")), 2),
        (("parent.held.child.named", Some("parent.held")), 2),
        (("parent.held.child.named.leaf", Some("parent.held.child.named")), 2),
    ];
    assert_eq!(counts, HashMap::from(expected));
}
