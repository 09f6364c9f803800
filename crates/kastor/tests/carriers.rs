//! Carriers: a scope taken to another thread or process, attached and detached in any order, and the ids that come of it.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use kastor::{Attached, Carrier, Metric, Recording, Reporter, Telemetry, Timing, TraceParent, metric, scope};

const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

#[derive(Clone, Debug, PartialEq)]
struct Closed {
    scope: String,
    parent_scope: Option<String>,
    depth: u32,
    trace: u128,
    span: u64,
    parent: Option<u64>,
    is_sampled: bool,
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Closed>>>);

impl Reporter for Seen {
    fn record_timing(&self, event: &Timing<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Closed {
            scope: event.scope().to_owned(),
            parent_scope: event.parent_scope().map(str::to_owned),
            depth: event.depth(),
            trace: event.trace_id(),
            span: event.span_id(),
            parent: event.parent_span_id(),
            is_sampled: event.is_sampled(),
        });
    }
    fn record_metric(&self, event: &Metric<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Closed {
            scope: event.scope().to_owned(),
            parent_scope: event.parent_scope().map(str::to_owned),
            depth: event.depth(),
            trace: event.trace_id().unwrap_or(0),
            span: 0,
            parent: event.parent_span_id(),
            is_sampled: true,
        });
    }
}

impl Seen {
    fn take(&self) -> Vec<Closed> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn paths(&self) -> Vec<String> {
        self.take().into_iter().map(|it| it.scope).collect()
    }
    fn only(&self) -> Closed {
        let [one] = <[Closed; 1]>::try_from(self.take()).expect("exactly one event");
        one
    }
}

fn context() -> (Telemetry, Seen) {
    let seen = Seen::default();
    (Telemetry::builder().reporter(seen.clone()).build(), seen)
}

/// Carriers of closed roots with these names.
fn carriers<const N: usize>(tele: &Telemetry, seen: &Seen, names: [&str; N]) -> [Carrier; N] {
    let carriers = names.map(|name| tele.scope(name).carrier());
    seen.take();
    carriers
}

/// Where a scope that is opened now belongs: its path without its own name.
fn place(tele: &Telemetry, seen: &Seen) -> String {
    let before = seen.take();
    drop(tele.scope("probe"));
    let probe = seen.only().scope;
    seen.0.lock().unwrap_or_else(PoisonError::into_inner).extend(before);
    probe.trim_end_matches("probe").trim_end_matches('.').to_owned()
}

#[test]
fn a_carrier_takes_the_scope_to_another_thread() {
    let (tele, seen) = context();
    let outer = scope!(tele, "outer");
    let _inner = scope!(tele, "inner");
    let carrier = Carrier::current();
    assert_eq!(carrier, _inner.carrier());
    assert_ne!(carrier, outer.carrier());
    assert!(carrier.is_some());
    thread::scope(|threads| {
        threads.spawn(|| {
            assert_eq!(Carrier::current(), Carrier::NONE, "a new thread starts empty");
            drop(scope!(tele, "alone"));
            let attached = carrier.attach();
            assert_eq!(
                (Carrier::current().trace_id(), Carrier::current().span_id()),
                (carrier.trace_id(), carrier.span_id())
            );
            {
                let _there = scope!(tele, "there");
                drop(scope!(tele, "below"));
                metric!(tele, "note", 1);
            }
            metric!(tele, "note", 2);
            drop(attached);
            assert_eq!(Carrier::current(), Carrier::NONE);
            drop(scope!(tele, "alone.again"));
        });
    });
    drop(_inner);
    drop(outer);
    let [alone, below, note, there, note2, again, inner, outer] = <[Closed; 8]>::try_from(seen.take()).unwrap();
    assert_eq!((alone.scope.as_str(), alone.depth, alone.parent), ("alone", 0, None));
    assert_eq!((again.scope.as_str(), again.depth, again.parent), ("alone.again", 0, None));
    assert_eq!((there.scope.as_str(), there.depth), ("outer.inner.there", 2));
    assert_eq!(there.parent_scope.as_deref(), Some("outer.inner"));
    assert_eq!((below.scope.as_str(), below.depth), ("outer.inner.there.below", 3));
    assert_eq!((note.scope.as_str(), note.depth, note.parent), ("outer.inner.there.note", 3, Some(there.span)));
    assert_eq!((note2.scope.as_str(), note2.depth, note2.parent), ("outer.inner.note", 2, Some(inner.span)));
    assert_eq!((below.parent, there.parent, inner.parent), (Some(there.span), Some(inner.span), Some(outer.span)));
    assert!([&below, &note, &there, &note2, &inner].iter().all(|it| it.trace == outer.trace));
    assert!(alone.trace != outer.trace && again.trace != alone.trace);
}

#[test]
fn a_carrier_is_small_sends_and_outlives_its_scope_and_its_thread() {
    fn is_send_and_copy<T: Send + Sync + Copy + 'static>(_: T) {}
    is_send_and_copy(Carrier::NONE);
    let (tele, seen) = context();
    let there = tele.clone();
    let carrier = thread::spawn(move || scope!(there, "gone").carrier()).join().unwrap();
    let gone = seen.only();
    let _attached = carrier.attach();
    let chained = {
        let _first = scope!(tele, "first");
        Carrier::current()
    };
    let there = tele.clone();
    let work = move || {
        let _attached = chained.attach();
        drop(scope!(there, "second"));
    };
    thread::spawn(work).join().unwrap();
    let [first, second] = <[Closed; 2]>::try_from(seen.take()).unwrap();
    assert_eq!((first.scope.as_str(), first.parent, first.trace), ("gone.first", Some(gone.span), gone.trace));
    assert_eq!((second.scope.as_str(), second.parent), ("gone.first.second", Some(first.span)));
    assert_eq!((second.trace, second.depth), (gone.trace, 2));
}

#[test]
fn what_is_opened_under_the_carrier_of_nothing_is_a_root() {
    let (tele, seen) = context();
    assert!(!Carrier::NONE.is_some());
    assert_eq!((Carrier::NONE.trace_id(), Carrier::NONE.span_id()), (0, 0));
    assert_eq!(Carrier::NONE.trace_parent(), None);
    let outer = scope!(tele, "outer");
    {
        let _attached = Carrier::NONE.attach();
        assert_eq!(Carrier::current(), Carrier::NONE);
        let _root = scope!(tele, "root");
        drop(scope!(tele, "child"));
    }
    drop(scope!(tele, "inner"));
    drop(outer);
    let [child, root, inner, outer] = <[Closed; 4]>::try_from(seen.take()).unwrap();
    assert_eq!((root.scope.as_str(), root.depth, root.parent), ("root", 0, None));
    assert_eq!((child.scope.as_str(), child.parent), ("root.child", Some(root.span)));
    assert_eq!((inner.scope.as_str(), inner.parent), ("outer.inner", Some(outer.span)));
    assert!(root.trace != outer.trace);
}

#[test]
fn the_carrier_of_a_scope_that_records_nothing_is_the_current_one() {
    let (tele, seen) = context();
    let disabled = Telemetry::disabled();
    assert_eq!(scope!(disabled, "off").carrier(), Carrier::NONE);
    let on = scope!(tele, "on");
    assert_eq!(scope!(disabled, "off").carrier(), on.carrier());
    drop(on);
    assert_eq!(seen.paths(), ["on"]);
}

#[test]
fn guards_that_go_in_order_lead_back_step_by_step() {
    let (tele, seen) = context();
    let [a, b] = carriers(&tele, &seen, ["a", "b"]);
    let _own = scope!(tele, "own");
    let in_a = a.attach();
    let inner = scope!(tele, "inner");
    let in_b = b.attach();
    assert_eq!(place(&tele, &seen), "b");
    drop(in_b);
    assert_eq!(place(&tele, &seen), "a.inner");
    drop(inner);
    assert_eq!(place(&tele, &seen), "a");
    drop(in_a);
    assert_eq!(place(&tele, &seen), "own");
}

#[test]
fn a_carrier_stays_current_until_its_own_guard_goes() {
    let (tele, seen) = context();
    let [a, b] = carriers(&tele, &seen, ["a", "b"]);
    let in_a = a.attach();
    let in_b = b.attach();
    drop(in_a);
    assert_eq!(place(&tele, &seen), "b");
    drop(in_b);
    assert_eq!(place(&tele, &seen), "");
}

#[test]
fn whatever_the_order_of_the_guards_nothing_is_left_when_all_are_gone() {
    let (tele, seen) = context();
    let all = carriers(&tele, &seen, ["a", "b", "c"]);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for with_scopes in [false, true] {
            let mut guards: Vec<Option<Attached>> = Vec::new();
            let mut scopes = Vec::new();
            for carrier in &all {
                guards.push(Some(carrier.attach()));
                scopes.push(with_scopes.then(|| scope!(tele, "s")));
            }
            for at in order {
                guards[at] = None;
                if order[0] % 2 == 0 {
                    scopes[at] = None;
                }
            }
            scopes.clear();
            assert_eq!(place(&tele, &seen), "", "{order:?}");
            assert_eq!(Carrier::current(), Carrier::NONE);
            let mut paths = seen.paths();
            paths.sort();
            assert_eq!(paths, if with_scopes { vec!["a.s", "b.s", "c.s"] } else { vec![] }, "{order:?}");
        }
    }
}

#[test]
fn guards_of_nothing_may_go_in_any_order_too() {
    let (tele, seen) = context();
    let [a] = carriers(&tele, &seen, ["a"]);
    for kinds in [[Carrier::NONE, Carrier::NONE], [a, Carrier::NONE], [Carrier::NONE, a]] {
        let own = scope!(tele, "own");
        let [first, second] = kinds.map(|it| it.attach());
        let expected = if kinds[1].is_some() { "a" } else { "" };
        assert_eq!(place(&tele, &seen), expected);
        drop(first);
        assert_eq!(place(&tele, &seen), expected, "the newest guard that is left decides");
        drop(second);
        assert_eq!(place(&tele, &seen), "own");
        drop(own);
        assert_eq!(place(&tele, &seen), "");
    }
}

#[test]
fn a_scope_may_outlive_the_guard_under_which_it_was_opened() {
    let (tele, seen) = context();
    let [a] = carriers(&tele, &seen, ["a"]);
    let attached = a.attach();
    let late = scope!(tele, "late");
    let inner = scope!(tele, "inner");
    drop(attached);
    let carrier = inner.carrier();
    drop(late);
    drop(inner);
    assert_eq!(place(&tele, &seen), "");
    let [late, inner] = <[Closed; 2]>::try_from(seen.take()).unwrap();
    assert_eq!((late.scope.as_str(), late.parent, late.trace), ("a.late", Some(a.span_id()), a.trace_id()));
    assert_eq!((inner.scope.as_str(), inner.parent, inner.trace), ("a.late.inner", Some(late.span), a.trace_id()));
    assert_eq!(carrier.span_id(), inner.span);
}

#[test]
fn a_scope_that_closes_while_something_is_attached_is_not_current_afterwards() {
    let (tele, seen) = context();
    let [a] = carriers(&tele, &seen, ["a"]);
    let own = scope!(tele, "own");
    let attached = a.attach();
    drop(own);
    assert_eq!(place(&tele, &seen), "a");
    drop(attached);
    assert_eq!(place(&tele, &seen), "");
    assert_eq!(seen.paths(), ["own"]);
}

#[test]
fn a_remote_parent_gives_its_ids_and_no_path() {
    let (tele, seen) = context();
    let remote = Carrier::from_trace_parent(&TraceParent::parse(HEADER).unwrap());
    assert_eq!((remote.trace_id(), remote.span_id(), remote.is_sampled()), (TRACE, SPAN, true));
    assert_eq!(remote.trace_parent().map(|it| it.to_string()).as_deref(), Some(HEADER));
    {
        let _attached = remote.attach();
        let _root = scope!(tele, "served");
        drop(scope!(tele, "inside"));
    }
    let [inside, served] = <[Closed; 2]>::try_from(seen.take()).unwrap();
    assert_eq!((served.trace, served.parent, served.depth, served.parent_scope), (TRACE, Some(SPAN), 0, None));
    assert_eq!(served.scope, "served");
    assert_eq!((inside.trace, inside.parent, inside.depth), (TRACE, Some(served.span), 1));
    assert_eq!((inside.scope.as_str(), inside.parent_scope.as_deref()), ("served.inside", Some("served")));
    assert!(served.span != SPAN && served.is_sampled && inside.is_sampled);
}

#[test]
fn a_remote_parent_that_was_not_sampled_is_handed_on_as_such() {
    let (tele, seen) = context();
    let parent = TraceParent::new(TRACE, u64::MAX, false).unwrap();
    let remote = Carrier::from_trace_parent(&parent);
    assert!(!remote.is_sampled());
    let _attached = remote.attach();
    let scope = scope!(tele, "served");
    let onwards = scope.carrier().trace_parent().unwrap();
    assert_eq!((onwards.trace_id(), onwards.is_sampled()), (TRACE, false));
    drop(scope);
    let served = seen.only();
    assert_eq!((served.parent, served.is_sampled, served.span), (Some(u64::MAX), false, onwards.parent_id()));
}

#[test]
fn a_trace_id_is_called_random_by_whoever_made_it() {
    let (tele, _) = context();
    assert!(scope!(tele, "own").carrier().trace_parent().unwrap().is_random());
    for flags in ["00", "01", "02", "03"] {
        let header = format!("00-{TRACE:032x}-{SPAN:016x}-{flags}");
        let remote = Carrier::from_trace_parent(&TraceParent::parse(&header).unwrap());
        assert_eq!(remote.trace_parent().unwrap().to_string(), header);
        let _attached = remote.attach();
        let _served = scope!(tele, "served");
        let inside = scope!(tele, "inside").carrier();
        assert!(inside.trace_parent().unwrap().to_string().ends_with(flags));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let _attached = inside.attach();
                assert!(scope!(tele, "elsewhere").carrier().trace_parent().unwrap().to_string().ends_with(flags));
            });
        });
    }
}

#[test]
fn the_trace_parent_of_an_open_scope_is_what_is_exported_later() {
    let recording = Recording::new(1 << 20);
    let seen = Seen::default();
    let tele = Telemetry::builder().reporter(seen.clone()).reporter(recording.clone()).build();
    let mut announced = Vec::new();
    {
        let remote = Carrier::from_trace_parent(&TraceParent::parse(HEADER).unwrap());
        let root = scope!(tele, "root", key = "value");
        announced.push(("root.child.thread", Carrier::NONE));
        let child = scope!(tele, "child");
        let carrier = child.carrier();
        announced[0].1 = thread::scope(|threads| {
            let there = threads.spawn(|| {
                let _attached = carrier.attach();
                scope!(tele, "thread").carrier()
            });
            there.join().unwrap()
        });
        let attached = remote.attach();
        let served = scope!(tele, "served");
        announced.push(("served", served.carrier()));
        drop(served);
        drop(attached);
        announced.push(("root.child", child.carrier()));
        announced.push(("root", root.carrier()));
        drop(child);
        drop(root);
    }
    assert!(tele.flush(Duration::from_secs(10)).is_complete());
    let mut exported = Vec::new();
    recording.for_each_batch(|batch| {
        exported.extend(batch.timings().map(|it| (it.scope().to_owned(), it.trace_id(), it.span_id())));
    });
    let inline: Vec<_> = seen.take().into_iter().map(|it| (it.scope, it.trace, it.span)).collect();
    for (path, carrier) in announced {
        let header = carrier.trace_parent().unwrap().to_string();
        let expected = (path.to_owned(), carrier.trace_id(), carrier.span_id());
        assert!(exported.contains(&expected), "{path} {header}: {exported:?}");
        assert!(inline.contains(&expected), "{path} {header}: {inline:?}");
        let read = TraceParent::parse(&header).unwrap();
        assert_eq!((read.trace_id(), read.parent_id()), (expected.1, expected.2));
    }
}

#[test]
fn carriers_go_through_a_pool_of_threads() {
    let recording = Recording::new(8 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    let (sender, jobs) = mpsc::channel::<(Carrier, u32)>();
    let jobs = Arc::new(Mutex::new(jobs));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (jobs, tele) = (Arc::clone(&jobs), tele.clone());
            thread::spawn(move || {
                let _current = tele.override_current();
                loop {
                    let Ok((carrier, n)) = jobs.lock().unwrap().recv() else { return };
                    let _attached = carrier.attach();
                    let _work = scope!("work", n = n);
                    drop(scope!("part"));
                }
            })
        })
        .collect();
    const REQUESTS: u32 = if cfg!(miri) { 20 } else { 1000 };
    for n in 0..REQUESTS {
        let _request = scope!(tele, "request", n = n);
        sender.send((Carrier::current(), n)).unwrap();
    }
    drop(sender);
    workers.into_iter().for_each(|it| it.join().unwrap());
    assert!(tele.flush(Duration::from_secs(10)).is_complete());
    let (mut requests, mut work, mut parts) =
        (vec![None; REQUESTS as usize], vec![None; REQUESTS as usize], Vec::new());
    recording.for_each_batch(|batch| {
        for it in batch.timings() {
            let ids = Some((it.trace_id(), it.span_id(), it.parent_span_id()));
            let n = it.attributes().get("n").and_then(|n| n.as_f64()).map(|n| n as usize);
            match (it.scope(), n) {
                ("request", Some(n)) => requests[n] = ids,
                ("request.work", Some(n)) => work[n] = ids,
                ("request.work.part", None) => parts.extend(ids),
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(parts.len(), REQUESTS as usize);
    for (request, work) in requests.iter().zip(&work) {
        let (request, work) = (request.unwrap(), work.unwrap());
        assert_eq!((work.0, work.2), (request.0, Some(request.1)));
        assert_eq!(parts.iter().filter(|part| part.2 == Some(work.1) && part.0 == work.0).count(), 1);
    }
}

#[test]
fn a_scope_leaked_under_a_carrier_keeps_its_trace_and_its_parent() {
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    for keeps_guard in [true, false] {
        let there = tele.clone();
        let work = move || {
            let remote = Carrier::from_trace_parent(&TraceParent::parse(HEADER).unwrap());
            let attached = remote.attach();
            let leaked = scope!(there, "leaked");
            let carrier = leaked.carrier();
            mem::forget(leaked);
            if keeps_guard {
                mem::forget(attached);
            }
            carrier
        };
        let carrier = thread::spawn(work).join().unwrap();
        assert!(tele.flush(Duration::from_secs(10)).is_complete());
        let mut found = Vec::new();
        recording.for_each_batch(|batch| {
            found.extend(batch.timings().map(|it| (it.span_id(), it.trace_id(), it.parent_span_id())));
        });
        recording.clear();
        assert_eq!(found, [(carrier.span_id(), TRACE, Some(SPAN))], "guard kept: {keeps_guard}");
    }
}
