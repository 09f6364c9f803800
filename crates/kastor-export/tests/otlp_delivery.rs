//! What becomes of a request: every answer that a server can give, and the accounts that follow from it.
#![cfg(feature = "otlp")]

mod other_side;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kastor::{DropReason, ReporterStats, Telemetry};
use kastor_export::{Compression, Otlp, OtlpConfig, Protocol, Retry};
use other_side::{
    LONG,
    proxy::{Fault, Proxy},
    server::{Reply, Server},
    wait_until,
};

const QUICK: Retry = Retry {
    initial: Duration::from_millis(10),
    longest: Duration::from_millis(40),
    give_up_after: Duration::from_secs(3600),
};

fn told(url: String, change: impl FnOnce(OtlpConfig) -> OtlpConfig) -> Telemetry {
    let config = OtlpConfig::new(url).retry(QUICK).linger(Duration::ZERO).without_metrics();
    Telemetry::builder().reporter(Otlp::new(change(config)).unwrap()).build()
}

fn emit(tele: &Telemetry, scopes: u64) {
    (0..scopes).for_each(|_| drop(tele.scope("step")));
}

fn accounts(tele: &Telemetry) -> ReporterStats {
    tele.stats().reporters()[0].clone()
}

/// Every event that was emitted is in exactly one of the accounts.
#[track_caller]
fn assert_nothing_is_missing(tele: &Telemetry) {
    let stats = tele.stats();
    let of_reporter = &stats.reporters()[0];
    let sum = of_reporter.delivered() + of_reporter.dropped().total() + of_reporter.queued() + of_reporter.spooled();
    assert_eq!(stats.emitted(), sum, "{stats}");
}

fn http_date(in_seconds: u64) -> String {
    // Days since 1970-01-01, a Thursday, to a date of the current century.
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + in_seconds;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970, days);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = |year: u64| if is_leap(year) { 366 } else { 365 };
    while day >= length(year) {
        day -= length(year);
        year += 1;
    }
    let months = [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut month = 0;
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{weekday}, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", day + 1, names[month])
}

#[test]
fn every_status_is_either_tried_again_until_it_works_or_dropped_at_once() {
    for status in [
        300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 408, 411, 413, 415, 418, 429, 431, 500, 501, 502, 503, 504,
        505, 507, 511, 599,
    ] {
        let elsewhere = ("location", "http://127.0.0.1:1/elsewhere".to_owned());
        let refusal = Reply::Status(status, vec![elsewhere], b"no".to_vec());
        let server = Server::scripted(move |_, before| if before < 2 { refusal.clone() } else { Reply::Ok });
        let tele = told(server.url(), |config| config);
        emit(&tele, 10);
        assert!(tele.flush(LONG).is_complete(), "{status}");
        let of_reporter = accounts(&tele);
        let is_retried = matches!(status, 429 | 502 | 503 | 504);
        let requests = server.received().len();
        if is_retried {
            assert_eq!((requests, of_reporter.delivered(), of_reporter.dropped().total()), (3, 10, 0), "{status}");
        } else {
            let dropped = of_reporter.dropped().of(DropReason::NonRetryable);
            assert_eq!((requests, of_reporter.delivered(), dropped), (1, 0, 10), "{status}");
        }
        assert_nothing_is_missing(&tele);
    }
}

#[test]
fn no_attempt_comes_before_the_time_that_the_server_named() {
    for is_date in [false, true] {
        for status in [429, 503] {
            // A date has no fractions: it may be up to a second nearer.
            let value = if is_date { http_date(2) } else { "1".to_owned() };
            let at_least = Duration::from_secs(1);
            let header = ("retry-after", value.clone());
            let server = Server::scripted(move |_, before| match before {
                0 => Reply::Status(status, vec![header.clone()], Vec::new()),
                _ => Reply::Ok,
            });
            let tele = told(server.url(), |config| config);
            emit(&tele, 1);
            // A flush in the meantime does not change the server's mind.
            assert!(tele.flush(LONG).is_complete());
            let received = server.received();
            assert_eq!(received.len(), 2, "{status} {value}");
            let waited = received[1].at - received[0].at;
            assert!(waited >= at_least, "{status} {value}: {waited:?}");
            assert_eq!(accounts(&tele).delivered(), 1);
        }
    }
}

#[test]
fn a_retry_after_that_means_nothing_is_as_if_there_were_none() {
    for value in ["", "soon", "-5", "Sun, 06 Nov 1994 08:49:37 CET", "0", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let server = Server::scripted(move |_, before| match before {
            0 => Reply::Status(503, vec![("retry-after", value.to_owned())], Vec::new()),
            _ => Reply::Ok,
        });
        let tele = told(server.url(), |config| config);
        emit(&tele, 1);
        assert!(tele.flush(LONG).is_complete());
        assert_eq!((server.received().len(), accounts(&tele).delivered()), (2, 1), "{value:?}");
    }
}

#[test]
fn partial_success_is_never_tried_again_and_what_was_rejected_is_not_delivered() {
    for (rejected, expected) in [(3, 3), (10, 10), (1_000, 10)] {
        let server = Server::scripted(move |_, _| Reply::Partial(rejected));
        let tele = told(server.url(), |config| config);
        emit(&tele, 10);
        assert!(tele.flush(LONG).is_complete());
        let of_reporter = accounts(&tele);
        let dropped = of_reporter.dropped().of(DropReason::RejectedByServer);
        assert_eq!((server.received().len(), of_reporter.delivered(), dropped), (1, 10 - expected, expected));
        assert_nothing_is_missing(&tele);
    }
}

#[test]
fn partial_success_in_json_counts_the_same() {
    let body = br#"{"partialSuccess":{"rejectedSpans":"4","errorMessage":"bad"}}"#.to_vec();
    let server = Server::scripted(move |_, _| Reply::Status(200, Vec::new(), body.clone()));
    let tele = told(server.url(), |config| config.protocol(Protocol::HttpJson));
    emit(&tele, 10);
    assert!(tele.flush(LONG).is_complete());
    let of_reporter = accounts(&tele);
    assert_eq!((of_reporter.delivered(), of_reporter.dropped().of(DropReason::RejectedByServer)), (6, 4));
}

#[test]
fn an_answer_of_any_length_is_cut_off_and_what_was_taken_stays_taken() {
    for reply in
        [Reply::Oversized { bytes: 32 << 20, is_gzip: false }, Reply::Oversized { bytes: 512 << 20, is_gzip: true }]
    {
        let shown = format!("{reply:?}");
        let server = Server::scripted(move |_, _| reply.clone());
        let tele = told(server.url(), |config| config);
        emit(&tele, 5);
        assert!(tele.flush(LONG).is_complete(), "{shown}");
        assert_eq!((server.received().len(), accounts(&tele).delivered()), (1, 5), "{shown}");
    }
}

#[test]
fn after_an_outage_everything_arrives_once() {
    let server = Server::scripted(|_, before| if before < 12 { Reply::status(503) } else { Reply::Ok });
    let tele = told(server.url(), |config| config.compression(Compression::Gzip).max_request_events(100));
    for _ in 0..10 {
        emit(&tele, 100);
        tele.flush(Duration::from_millis(5));
        assert_nothing_is_missing(&tele);
    }
    wait_until("everything is delivered", || tele.flush(LONG).is_complete());
    let mut ids: Vec<Vec<u8>> = server.spans().into_iter().map(|span| span.span_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), server.spans().len(), accounts(&tele).delivered()), (1_000, 1_000, 1_000));
    assert_nothing_is_missing(&tele);
}

#[test]
fn a_broken_connection_is_no_lost_event() {
    for reply in [Reply::Reset, Reply::Garbage, Reply::Silent(Duration::ZERO)] {
        let shown = format!("{reply:?}");
        let server = Server::scripted(move |_, before| if before < 2 { reply.clone() } else { Reply::Ok });
        let tele = told(server.url(), |config| config);
        emit(&tele, 20);
        assert!(tele.flush(LONG).is_complete(), "{shown}");
        assert_eq!((server.spans().len(), accounts(&tele).delivered()), (20, 20), "{shown}");
    }
}

#[test]
fn a_connection_that_breaks_in_the_middle_of_a_request_is_no_lost_event() {
    let server = Server::start();
    let proxy = Proxy::start(server.address());
    let tele = told(proxy.url(), |config| config);
    proxy.set(Fault::ResetAfter(2_000));
    emit(&tele, 500);
    assert!(!tele.flush(Duration::from_millis(100)).is_complete());
    assert_eq!(server.spans().len(), 0);
    proxy.set(Fault::Refuse);
    assert!(!tele.flush(Duration::from_millis(100)).is_complete());
    assert_nothing_is_missing(&tele);
    proxy.set(Fault::None);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!((server.spans().len(), accounts(&tele).delivered()), (500, 500));
}

#[test]
fn what_is_tried_for_too_long_is_given_up_and_counted() {
    let server = Server::scripted(|_, _| Reply::status(503));
    let retry = Retry { give_up_after: Duration::from_millis(50), ..QUICK };
    let tele = told(server.url(), |config| config.retry(retry).max_request_events(10));
    emit(&tele, 30);
    wait_until("all were given up", || {
        tele.flush(Duration::from_millis(200));
        accounts(&tele).dropped().of(DropReason::RetryExhausted) == 30
    });
    assert_eq!((accounts(&tele).delivered(), accounts(&tele).queued()), (0, 0));
    assert_nothing_is_missing(&tele);
    server.script(|_, _| Reply::Ok);
    emit(&tele, 5);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(accounts(&tele).delivered(), 5);
}

#[test]
fn a_full_queue_drops_and_counts_and_memory_stays_bounded() {
    let server = Server::scripted(|_, _| Reply::status(503));
    let config = OtlpConfig::new(server.url()).retry(QUICK).without_metrics();
    let bound = 256 << 10;
    let tele = Telemetry::builder().queue_bytes(bound).reporter(Otlp::new(config).unwrap()).build();
    emit(&tele, 200_000);
    tele.flush(Duration::from_millis(50));
    let of_reporter = accounts(&tele);
    assert_eq!(of_reporter.delivered(), 0);
    // A record takes 32 bytes, a span in a request more than 64.
    let most = (bound / 32 + 4 * (320 << 10) / 64) as u64;
    assert!(of_reporter.queued() <= most, "{} of at most {most}", of_reporter.queued());
    assert_eq!(of_reporter.dropped().of(DropReason::QueueFull), 200_000 - of_reporter.queued());
    assert_nothing_is_missing(&tele);
    server.script(|_, _| Reply::Ok);
    wait_until("the rest is delivered", || tele.flush(LONG).is_complete());
    assert_eq!(server.spans().len() as u64, accounts(&tele).delivered());
    assert_nothing_is_missing(&tele);
}

#[test]
fn what_lingers_is_sent_without_being_asked_for() {
    let server = Server::start();
    let tele = told(server.url(), |config| config.linger(Duration::from_millis(20)));
    let began = Instant::now();
    emit(&tele, 3);
    wait_until("it was sent", || server.spans().len() == 3);
    assert!(began.elapsed() < LONG);
}

#[test]
fn the_last_handles_end_does_not_lose_what_was_open() {
    let server = Server::start();
    let tele = told(server.url(), |config| config.linger(Duration::from_millis(300)));
    emit(&tele, 50);
    let began = Instant::now();
    drop(tele);
    assert!(began.elapsed() < Duration::from_secs(2), "the end of a handle waits for nobody");
    wait_until("it was sent", || server.spans().len() == 50);
}

#[test]
fn a_newer_snapshot_replaces_an_older_one_that_waits() {
    let server = Server::scripted(|_, _| Reply::status(503));
    let config = OtlpConfig::new(server.url()).retry(QUICK).linger(Duration::ZERO);
    let tele = Telemetry::builder().reporter(Otlp::new(config).unwrap()).build();
    for _ in 0..20 {
        tele.counter("ticks", &[]).add(1);
        tele.flush(Duration::from_millis(10));
    }
    let before = server.received().len();
    server.script(|_, _| Reply::Ok);
    assert!(tele.flush(LONG).is_complete());
    let after = server.received().len() - before;
    // What was in hand, what waited, what the last flush brought.
    assert!(after <= 4, "{after} requests for one newest state");
    let ticks = server.metrics().into_iter().rfind(|metric| metric.name == "ticks").unwrap();
    assert!(format!("{ticks:?}").contains("AsInt(20)"), "{ticks:?}");
}
