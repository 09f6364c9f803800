//! Fork in the middle of delivery: the child delivers its own events, once, under an identity of its own, and none of its
//! parent's.
#![cfg(all(unix, feature = "otlp"))]

mod other_side;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use kastor::Telemetry;
use kastor_export::{Otlp, OtlpConfig, Retry};
use other_side::{
    LONG,
    server::{Reply, Server},
};

/// Runs `in_child` in a forked child, which ends with what it returns.
fn fork(in_child: impl FnOnce() -> i32) -> libc::pid_t {
    // SAFETY: the child does what the library promises to work there, and ends without unwinding.
    match unsafe { libc::fork() } {
        -1 => panic!("no fork: {}", std::io::Error::last_os_error()),
        // SAFETY: ends the process at once.
        0 => unsafe { libc::_exit(in_child()) },
        child => child,
    }
}

/// Waits for a child that must not hang.
#[track_caller]
fn assert_ends_well(child: libc::pid_t) {
    other_side::wait_until("the child ends", || {
        let mut status = 0;
        // SAFETY: the place for the status lives during the call.
        let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        assert!(ended == 0 || status == 0, "the child ended with {status:x}");
        ended == child
    });
}

fn told(server: &Server) -> Telemetry {
    let retry = Retry { initial: Duration::from_millis(5), longest: Duration::from_millis(20), ..Retry::default() };
    let config = OtlpConfig::new(server.url()).retry(retry).linger(Duration::from_millis(10));
    Telemetry::builder().reporter(Otlp::new(config).unwrap()).build()
}

/// Spans by name, each counted once; and the processes that sent them.
fn arrived(server: &Server) -> (HashMap<String, usize>, usize, HashSet<String>) {
    let (mut names, mut ids, mut processes) = (HashMap::new(), HashSet::new(), HashSet::new());
    let mut count = 0;
    for request in server.received().iter().filter(|it| it.is_taken).filter_map(|it| it.traces()) {
        for of_resource in request.resource_spans {
            let attributes = of_resource.resource.unwrap().attributes;
            let instance = attributes.iter().find(|it| it.key == "service.instance.id").unwrap();
            for span in of_resource.scope_spans.into_iter().flat_map(|it| it.spans) {
                count += 1;
                *names.entry(span.name).or_default() += 1;
                ids.insert((span.trace_id, span.span_id));
                processes.insert(format!("{:?}", instance.value));
            }
        }
    }
    assert_eq!(ids.len(), count, "a span came twice, or two spans have one id");
    (names, count, processes)
}

#[test]
fn children_of_a_busy_process_deliver_their_own_events_and_no_others() {
    const FORKS: usize = 8;
    let server = Server::start();
    let tele = told(&server);
    let is_over = Arc::new(AtomicBool::new(false));
    let emitters: Vec<_> = (0..3)
        .map(|_| {
            let (tele, is_over) = (tele.clone(), Arc::clone(&is_over));
            thread::spawn(move || {
                let mut emitted = 0;
                while !is_over.load(SeqCst) {
                    (0..50).for_each(|_| drop(tele.scope("parent")));
                    emitted += 50;
                    thread::yield_now();
                }
                emitted
            })
        })
        .collect();
    for _ in 0..FORKS {
        let child = fork(|| {
            (0..100).for_each(|_| drop(tele.scope("child")));
            let is_complete = tele.flush(LONG).is_complete();
            let stats = tele.stats();
            let is_right = stats.emitted() == 100 && stats.reporters()[0].delivered() == 100;
            i32::from(!is_complete) + 2 * i32::from(!is_right)
        });
        assert_ends_well(child);
    }
    is_over.store(true, SeqCst);
    let emitted: usize = emitters.into_iter().map(|emitter| emitter.join().unwrap()).sum();
    assert!(tele.flush(LONG).is_complete());
    let stats = tele.stats();
    let of_reporter = &stats.reporters()[0];
    assert_eq!(of_reporter.delivered() + of_reporter.dropped().total(), emitted as u64);
    let (names, _, processes) = arrived(&server);
    assert_eq!(names["child"], FORKS * 100);
    assert_eq!(names["parent"] as u64, of_reporter.delivered());
    assert_eq!(processes.len(), FORKS + 1);
}

#[test]
fn a_fork_while_the_sender_is_stuck_leaves_the_child_free() {
    let server = Server::scripted(|received, _| {
        // The parent's first request is held up; the child's are not.
        let is_parents = received.traces().is_some_and(|request| format!("{request:?}").contains("\"parent\""));
        if is_parents { Reply::Slow(Duration::from_secs(2)) } else { Reply::Ok }
    });
    let tele = told(&server);
    (0..10).for_each(|_| drop(tele.scope("parent")));
    tele.flush(Duration::from_millis(100));
    let child = fork(|| {
        (0..10).for_each(|_| drop(tele.scope("child")));
        i32::from(!tele.flush(Duration::from_secs(10)).is_complete())
    });
    assert_ends_well(child);
    assert!(tele.flush(LONG).is_complete());
    let (names, count, processes) = arrived(&server);
    assert_eq!((names["parent"], names["child"], count, processes.len()), (10, 10, 20, 2));
}

#[test]
fn a_child_that_records_nothing_has_nothing_to_account_for() {
    let server = Server::start();
    let tele = told(&server);
    (0..10).for_each(|_| drop(tele.scope("parent")));
    assert!(tele.flush(LONG).is_complete());
    let child = fork(|| {
        let stats = tele.stats();
        i32::from(stats.emitted() != 0 || stats.reporters()[0].delivered() != 0)
    });
    assert_ends_well(child);
}
