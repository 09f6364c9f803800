//! Scopes that end in other ways than in order: by a panic, out of order, leaked, discarded. Through the public door,
//! with a context for each test.

use std::{
    cell::Cell,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use kastor::{MockClock, Recording, Reporter, Scope, Telemetry, Timing, scope};

const MS: Duration = Duration::from_millis(1);

/// What an inline reporter saw of one scope.
#[derive(Clone, Debug, PartialEq)]
struct Closed {
    scope: String,
    parent: Option<String>,
    depth: u32,
    duration: Duration,
    error: Option<String>,
    ids: (u128, u64, Option<u64>),
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Closed>>>);

impl Reporter for Seen {
    fn record_timing(&self, event: &Timing<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Closed {
            scope: event.scope().to_owned(),
            parent: event.parent_scope().map(str::to_owned),
            depth: event.depth(),
            duration: event.duration(),
            error: event.error_type().map(str::to_owned),
            ids: (event.trace_id(), event.span_id(), event.parent_span_id()),
        });
    }
}

impl Seen {
    fn take(&self) -> Vec<Closed> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// Paths in the order of closing, with the error type where there is one.
    fn paths(&self) -> Vec<String> {
        let text = |it: Closed| it.error.map_or(it.scope.clone(), |error| format!("{}: {error}", it.scope));
        self.take().into_iter().map(text).collect()
    }
}

fn context() -> (Telemetry, Seen, MockClock) {
    let (seen, clock) = (Seen::default(), MockClock::new());
    (Telemetry::builder().clock(clock.clone()).reporter(seen.clone()).build(), seen, clock)
}

/// Opens and closes a scope when it is dropped.
struct Cleanup<F: FnMut()>(F);
impl<F: FnMut()> Drop for Cleanup<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_panic_fails_the_scopes_it_passes_through_and_goes_on_unchanged() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let _outside = scope!("outside");
    let outlives = Cell::new(None);
    let payload = catch_unwind(AssertUnwindSafe(|| {
        let named = scope!("named");
        named.fail("mine");
        let _a = scope!("a");
        outlives.set(Some(scope!("outlives")));
        resume_unwind(Box::new(77u8));
    }))
    .unwrap_err();
    assert_eq!(payload.downcast_ref::<u8>(), Some(&77));
    drop(outlives);
    drop(scope!("next"));
    drop(_outside);
    let paths = seen.paths();
    assert_eq!(paths[0], "outside.named.a: panic");
    assert!(paths[1].starts_with("outside.named: "), "{paths:?}");
    assert_eq!(paths[2..], ["outside.named.a.outlives", "outside.next", "outside"]);
}

#[test]
fn a_scope_of_a_destructor_that_runs_while_unwinding_completes_in_order() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _a = scope!("a");
        let _cleanup = Cleanup(|| {
            let _outer = scope!("cleanup");
            let _inner = scope!("inner", n = 1);
        });
        resume_unwind(Box::new(()));
    }));
    assert!(result.is_err());
    assert_eq!(seen.paths(), ["a.cleanup.inner", "a.cleanup", "a: panic"]);
}

#[test]
#[ignore = "std tells nobody that a second unwinding began inside the first"]
fn a_panic_within_a_destructor_that_runs_while_unwinding_fails_what_it_passes() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _a = scope!("a");
        let _cleanup = Cleanup(|| {
            let _outer = scope!("cleanup");
            let inner = catch_unwind(AssertUnwindSafe(|| {
                let _inner = scope!("inner");
                resume_unwind(Box::new(()));
            }));
            assert!(inner.is_err());
        });
        resume_unwind(Box::new(()));
    }));
    assert!(result.is_err());
    assert_eq!(seen.paths(), ["a.cleanup.inner: panic", "a.cleanup", "a: panic"]);
}

#[test]
fn the_fields_of_a_struct_may_drop_the_outer_scope_first() {
    struct Work {
        _outer: Scope,
        _inner: Scope,
    }
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    for _ in 0..3 {
        drop(Work { _outer: scope!("outer"), _inner: scope!("inner") });
    }
    drop(scope!("after"));
    assert_eq!(seen.paths(), ["outer", "outer.inner", "outer", "outer.inner", "outer", "outer.inner", "after"]);
}

#[test]
fn a_path_stays_as_it_was_when_an_outer_scope_closes_first() {
    let (tele, seen, clock) = context();
    let _current = tele.override_current();
    let a = scope!("a");
    let b = scope!("b");
    clock.advance(MS);
    drop(a);
    clock.advance(MS);
    let c = scope!("c");
    drop(c);
    drop(b);
    drop(scope!("d"));
    let [a, c, b, d] = <[Closed; 4]>::try_from(seen.take()).unwrap();
    assert_eq!((a.scope.as_str(), a.duration), ("a", MS));
    assert_eq!((c.scope.as_str(), c.depth, c.parent.as_deref()), ("a.b.c", 2, Some("a.b")));
    assert_eq!((b.scope.as_str(), b.duration, b.ids.2), ("a.b", 2 * MS, Some(a.ids.1)));
    assert_eq!(c.ids, (a.ids.0, c.ids.1, Some(b.ids.1)));
    assert_eq!((d.scope.as_str(), d.depth, d.parent, d.ids.2), ("d", 0, None, None));
    assert_ne!(d.ids.0, a.ids.0);
}

#[test]
fn a_scope_closed_in_the_middle_leaves_its_parent_current_once_the_inner_one_is_gone() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let a = scope!("a");
    let b = scope!("b");
    let c = scope!("c");
    drop(b);
    drop(scope!("x"));
    drop(c);
    drop(scope!("y"));
    drop(a);
    drop(scope!("z"));
    assert_eq!(seen.paths(), ["a.b", "a.b.c.x", "a.b.c", "a.y", "a", "z"]);
}

#[test]
fn many_scopes_may_close_first_in_first_out() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    for round in 0..20 {
        let mut scopes: Vec<Scope> = (0..200).map(|_| scope!("n")).collect();
        scopes.drain(..).for_each(drop);
        drop(scope!("root"));
        let seen = seen.take();
        assert_eq!(seen.len(), 201);
        for (depth, closed) in seen[..200].iter().enumerate() {
            assert_eq!((closed.depth as usize, closed.scope.len()), (depth, 2 * depth + 1), "round {round}");
            assert_eq!(closed.ids.2, depth.checked_sub(1).map(|outer| seen[outer].ids.1));
        }
        assert_eq!((seen[200].scope.as_str(), seen[200].ids.2), ("root", None));
    }
    assert_eq!(tele.stats().emitted(), 20 * 201);
}

/// A thread leaks the middle one of three scopes. Inline and background see the same, in the same order.
fn leak(tele: &Telemetry) {
    let tele = tele.clone();
    let work = move || {
        let _current = tele.override_current();
        let _a = scope!("a");
        mem::forget(scope!("leaked", key = 7));
        drop(scope!("under"));
    };
    thread::spawn(work).join().unwrap();
}

const LEAKED: [(&str, Option<&str>); 3] = [("a.leaked.under", None), ("a", None), ("a.leaked", Some("unfinished"))];

#[test]
fn a_leaked_scope_is_reported_unfinished_when_its_thread_ends() {
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    leak(&tele);
    assert!(tele.flush(Duration::from_secs(10)).is_complete());
    let mut recorded = Vec::new();
    recording.for_each_batch(|batch| {
        for it in batch.timings() {
            recorded.push((it.scope(), it.error_type().map(str::to_owned), it.span_id(), it.parent_span_id()));
        }
    });
    let paths: Vec<_> = recorded.iter().map(|it| (it.0, it.1.as_deref())).collect();
    assert_eq!(paths, LEAKED);
    assert_eq!(recorded[2].3, Some(recorded[1].2), "the parent is the one it was opened under");
    assert_eq!(recorded[0].3, Some(recorded[2].2));
    assert_eq!(tele.stats().emitted(), 3);
    assert_eq!(tele.report().scope("a.leaked").map(|it| (it.calls(), it.errors())), Some((1, 1)));
}

#[test]
fn an_inline_reporter_hears_of_a_leaked_scope_too() {
    let (tele, seen, _) = context();
    leak(&tele);
    let closed = seen.take();
    let paths: Vec<_> = closed.iter().map(|it| (it.scope.as_str(), it.error.as_deref())).collect();
    assert_eq!(paths, LEAKED);
}

#[test]
fn a_discarded_scope_leaves_no_event_and_no_figure_but_its_children_keep_their_place() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let a = scope!("a", attribute = 1);
    drop(scope!("b"));
    a.discard();
    scope!("c").discard();
    drop(scope!("d"));
    assert_eq!(seen.paths(), ["a.b", "d"]);
    let report = tele.report();
    assert!(report.scope("a").is_none() && report.scope("c").is_none());
    assert_eq!(tele.stats().emitted(), 2);
}

#[test]
fn a_context_that_is_new_to_the_thread_closes_out_of_order_like_any_other() {
    let (first, ones, _) = context();
    let second = Telemetry::builder().build();
    let there = second.clone();
    let work = move || {
        let a = scope!(first, "a");
        let b = scope!(first, "b");
        drop(a);
        let c = scope!(there, "c");
        drop(b);
        drop(c);
        drop(scope!(first, "root"));
    };
    thread::spawn(work).join().unwrap();
    assert_eq!(ones.paths(), ["a", "a.b", "root"]);
    assert_eq!(second.report().scope("a.b.c").map(|it| it.calls()), Some(1));
}
