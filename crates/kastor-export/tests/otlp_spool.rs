//! With a spool: what was recorded outlives outages, forks and the process, and every event is accounted for.
#![cfg(feature = "otlp")]

mod other_side;

use std::{collections::HashSet, path::Path, time::Duration};

use kastor::{DropReason, ReporterStats, Telemetry};
use kastor_export::{Otlp, OtlpConfig, Retry, SpoolConfig};
use other_side::{
    LONG,
    server::{Reply, Server},
    wait_until,
};

fn told(server: &Server, folder: &Path, change: impl FnOnce(OtlpConfig) -> OtlpConfig) -> Telemetry {
    let retry = Retry { initial: Duration::from_millis(5), longest: Duration::from_millis(20), ..Retry::default() };
    let config = OtlpConfig::new(server.url()).retry(retry).without_metrics().linger(Duration::from_millis(10));
    let config = change(config.spool(SpoolConfig::new(folder)));
    Telemetry::builder().reporter(Otlp::new(config).unwrap()).build()
}

fn emit(tele: &Telemetry, name: &str, scopes: u64) {
    (0..scopes).for_each(|_| drop(tele.scope(name)));
}

fn accounts(tele: &Telemetry) -> ReporterStats {
    tele.stats().reporters()[0].clone()
}

#[track_caller]
fn assert_nothing_is_missing(tele: &Telemetry) {
    let stats = tele.stats();
    let of_reporter = &stats.reporters()[0];
    let sum = of_reporter.delivered() + of_reporter.dropped().total() + of_reporter.queued() + of_reporter.spooled();
    assert_eq!(stats.emitted(), sum, "{stats} spooled {}", of_reporter.spooled());
}

/// How many spans of a name arrived; none of them twice.
#[track_caller]
fn arrived(server: &Server, name: &str) -> usize {
    let spans: Vec<_> = server.spans().into_iter().filter(|span| span.name == name).collect();
    let ids: HashSet<_> = spans.iter().map(|span| (span.trace_id.clone(), span.span_id.clone())).collect();
    assert_eq!(ids.len(), spans.len(), "a span came twice");
    spans.len()
}

#[test]
fn an_outage_fills_the_spool_and_its_end_empties_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::scripted(|_, _| Reply::status(503));
    let tele = told(&server, folder.path(), |config| config);
    for round in 1..=5 {
        emit(&tele, "step", 1_000);
        assert!(tele.persist(LONG).is_complete());
        let of_reporter = accounts(&tele);
        assert_eq!((of_reporter.spooled(), of_reporter.queued(), of_reporter.delivered()), (round * 1_000, 0, 0));
        assert_nothing_is_missing(&tele);
    }
    assert!(!tele.flush(Duration::from_millis(50)).is_complete());
    server.script(|_, _| Reply::Ok);
    assert!(tele.flush(LONG).is_complete());
    let of_reporter = accounts(&tele);
    assert_eq!((of_reporter.spooled(), of_reporter.delivered()), (0, 5_000));
    assert_eq!(arrived(&server, "step"), 5_000);
}

#[test]
fn nothing_is_given_up_however_long_the_outage_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::scripted(|_, _| Reply::status(503));
    let retry = Retry {
        initial: Duration::from_millis(1),
        longest: Duration::from_millis(2),
        give_up_after: Duration::from_millis(10),
    };
    let tele = told(&server, folder.path(), |config| config.retry(retry));
    emit(&tele, "step", 100);
    assert!(tele.persist(LONG).is_complete());
    wait_until("many attempts were made", || server.received().len() > 20);
    assert_eq!((accounts(&tele).spooled(), accounts(&tele).dropped().total()), (100, 0));
    server.script(|_, _| Reply::Ok);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(arrived(&server, "step"), 100);
}

#[test]
fn refusals_and_partial_success_are_accounted_for_as_without_a_spool() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::scripted(|_, before| match before {
        0 => Reply::status(400),
        1 => Reply::Partial(3),
        _ => Reply::Ok,
    });
    let tele = told(&server, folder.path(), |config| config.max_request_events(10));
    emit(&tele, "step", 30);
    assert!(tele.flush(LONG).is_complete());
    let of_reporter = accounts(&tele);
    let dropped = of_reporter.dropped();
    assert_eq!((dropped.of(DropReason::NonRetryable), dropped.of(DropReason::RejectedByServer)), (10, 3));
    assert_eq!((of_reporter.delivered(), of_reporter.spooled()), (17, 0));
}

#[test]
fn what_the_quota_does_not_hold_is_dropped_oldest_first_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::scripted(|_, _| Reply::status(503));
    let spool = SpoolConfig::new(folder.path()).max_bytes(64 << 10).max_segment_bytes(8 << 10);
    let tele = told(&server, folder.path(), |config| config.spool(spool).max_request_bytes(4 << 10));
    for name in ["old", "new"] {
        emit(&tele, name, 2_000);
        assert!(tele.persist(LONG).is_complete());
        assert_nothing_is_missing(&tele);
    }
    let of_reporter = accounts(&tele);
    assert!(of_reporter.dropped().of(DropReason::SpoolFull) > 2_000, "{:?}", of_reporter.dropped());
    server.script(|_, _| Reply::Ok);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(arrived(&server, "new") as u64 + arrived(&server, "old") as u64, accounts(&tele).delivered());
    // One request of old ones may have been in hand.
    assert!(arrived(&server, "old") <= 40 && arrived(&server, "new") > 100);
    assert_nothing_is_missing(&tele);
}

#[cfg(unix)]
mod with_children {
    use super::*;

    /// Runs `in_child` in a forked child and waits for its end.
    #[track_caller]
    fn in_child(in_child: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child does what the library promises to work there, and ends without unwinding.
        let child = match unsafe { libc::fork() } {
            -1 => panic!("no fork: {}", std::io::Error::last_os_error()),
            // SAFETY: ends the process at once.
            0 => unsafe { libc::_exit(in_child()) },
            child => child,
        };
        let mut status = 0;
        wait_until("the child ends", || {
            // SAFETY: the place for the status lives during the call.
            unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) == child }
        });
        status
    }

    #[test]
    fn what_was_made_durable_survives_kill_and_the_next_process_delivers_it() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::scripted(|_, _| Reply::status(503));
        let status = in_child(|| {
            let tele = told(&server, folder.path(), |config| config);
            emit(&tele, "killed", 500);
            if !tele.persist(LONG).is_complete() {
                return 1;
            }
            emit(&tele, "lost", 5);
            // SAFETY: the process ends here, as hard as can be.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) }
        });
        assert_eq!(status, libc::SIGKILL);
        server.script(|_, _| Reply::Ok);
        let tele = told(&server, folder.path(), |config| config);
        emit(&tele, "next", 10);
        assert!(tele.flush(LONG).is_complete());
        // The server may have taken the killed process's last request just after its end: one batch may come twice.
        let killed = || server.spans().into_iter().filter(|span| span.name == "killed").map(|span| span.span_id);
        wait_until("the heritage is delivered", || killed().collect::<HashSet<_>>().len() == 500);
        assert!(killed().count() <= 1_000, "more than one batch came twice");
        // What others left is in nobody's accounts.
        let of_reporter = accounts(&tele);
        assert_eq!((of_reporter.delivered(), of_reporter.dropped().total(), of_reporter.spooled()), (10, 0, 0));
        assert_nothing_is_missing(&tele);
    }

    #[test]
    fn a_forked_child_has_a_part_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::scripted(|_, _| Reply::status(503));
        let tele = told(&server, folder.path(), |config| config);
        emit(&tele, "parent", 300);
        assert!(tele.persist(LONG).is_complete());
        let status = in_child(|| {
            emit(&tele, "child", 200);
            let is_durable = tele.persist(Duration::from_secs(10)).is_complete();
            let of_reporter = accounts(&tele);
            let is_right = of_reporter.spooled() == 200 && of_reporter.queued() == 0;
            i32::from(!is_durable) + 2 * i32::from(!is_right)
        });
        assert_eq!(status, 0);
        assert_eq!(accounts(&tele).spooled(), 300);
        server.script(|_, _| Reply::Ok);
        assert!(tele.flush(LONG).is_complete());
        assert_eq!(arrived(&server, "parent"), 300);
        assert_eq!(accounts(&tele).delivered(), 300);
        drop(tele);
        // The child's part is an orphan now.
        let next = told(&server, folder.path(), |config| config);
        emit(&next, "next", 1);
        assert!(next.flush(LONG).is_complete());
        // As above: its last request may have been taken just after its end.
        let child = || server.spans().into_iter().filter(|span| span.name == "child").map(|span| span.span_id);
        wait_until("the child's part is delivered", || child().collect::<HashSet<_>>().len() == 200);
        assert!(child().count() <= 400, "more than one batch came twice");
        assert_eq!(arrived(&server, "parent"), 300);
    }
}

#[test]
fn making_durable_takes_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::scripted(|_, _| Reply::Silent(Duration::from_secs(60)));
    let tele = told(&server, folder.path(), |config| config);
    for _ in 0..5 {
        emit(&tele, "step", 200);
        let began = std::time::Instant::now();
        assert!(tele.persist(Duration::from_secs(10)).is_complete());
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(accounts(&tele).spooled(), 1_000);
}

#[test]
fn a_spool_that_cannot_be_opened_is_said_at_once() {
    let config = OtlpConfig::default().spool(SpoolConfig::new("/proc/no/such/place"));
    let error = Otlp::new(config).unwrap_err();
    assert!(error.to_string().contains("/proc/no/such/place"), "{error}");
}
