//! The endpoint, over real sockets.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use kastor::{Telemetry, count};
use kastor_export::{Prometheus, PrometheusBuilder, PrometheusFormat};
use proptest::prelude::*;

use crate::{LONG, parser, wire};

/// One that collects for each scrape.
fn fresh() -> PrometheusBuilder {
    Prometheus::builder().least_interval(Duration::ZERO)
}

fn listening(builder: PrometheusBuilder) -> (Telemetry, Prometheus) {
    let tele = Telemetry::builder().build();
    let endpoint = builder.listen("127.0.0.1:0").unwrap().serve(&tele);
    (tele, endpoint)
}

fn connect(endpoint: &Prometheus) -> TcpStream {
    let stream = TcpStream::connect(endpoint.address()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// One answer; its body as long as the head says.
fn answer(stream: &mut TcpStream, has_body: bool) -> Option<Answer> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut answer = Answer { status: head[9..12].parse().unwrap(), head, body: Vec::new() };
    if has_body {
        answer.body = vec![0; answer.field("Content-Length").unwrap().parse().unwrap()];
        stream.read_exact(&mut answer.body).ok()?;
    }
    Some(answer)
}

fn ask(stream: &mut TcpStream, line: &str, fields: &str) -> Answer {
    write!(stream, "{line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").unwrap();
    answer(stream, !line.starts_with("HEAD")).unwrap()
}

fn get(endpoint: &Prometheus, fields: &str) -> Answer {
    ask(&mut connect(endpoint), "GET /metrics", fields)
}

#[test]
fn a_scrape_gets_what_is_there_at_that_moment_and_the_connection_stays() {
    let (tele, endpoint) = listening(fresh());
    let mut stream = connect(&endpoint);
    for scrape in 1..=3 {
        count!(tele, "scrapes");
        let answer = ask(&mut stream, "GET /metrics", "");
        assert_eq!((answer.status, answer.field("Content-Type")), (200, Some(PrometheusFormat::Text.content_type())));
        let families = parser::parse(&answer.text(), false);
        let scrapes = families.iter().find(|family| family.name == "scrapes_total").unwrap();
        assert_eq!(scrapes.samples[0].value, scrape.to_string());
    }
    let head = ask(&mut stream, "HEAD /metrics", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.field("Content-Length").unwrap().parse::<usize>().unwrap() > 0);
    for (name, value) in [
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", "default-src 'none'"),
    ] {
        assert_eq!(head.field(name), Some(value));
    }
}

#[test]
fn the_format_is_what_the_client_prefers() {
    let (tele, endpoint) = listening(fresh());
    count!(tele, "n", 7);
    let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                      application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let answer = get(&endpoint, &format!("Accept: {prometheus}\r\n"));
    assert_eq!(answer.field("Content-Type"), Some(PrometheusFormat::Protobuf.content_type()));
    assert!(wire::families(&answer.body).contains_key("n_total"));
    let without_protobuf = prometheus.split_once(',').unwrap().1;
    let answer = get(&endpoint, &format!("Accept: {without_protobuf}\r\n"));
    assert_eq!(answer.field("Content-Type"), Some(PrometheusFormat::OpenMetrics.content_type()));
    parser::parse(&answer.text(), true);
    let answer = get(&endpoint, "Accept-Encoding: gzip\r\nConnection: close\r\n");
    assert_eq!((answer.field("Content-Encoding"), answer.field("Connection")), (Some("gzip"), Some("close")));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap();
    assert!(text.contains("\nn_total 7\n"));
}

#[test]
fn weights_decide_and_nonsense_falls_back_to_the_classic_text() {
    use PrometheusFormat::{OpenMetrics, Protobuf, Text};
    let family = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    for (accept, format) in [
        ("", Text),
        ("*/*", Text),
        ("text/html", Text),
        ("application/openmetrics-text", OpenMetrics),
        ("application/openmetrics-text; version=\"1.0.0\"", OpenMetrics),
        ("application/openmetrics-text; version=2.0.0", Text),
        ("text/plain;q=0.4, application/openmetrics-text;q=0.5", OpenMetrics),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.5", Text),
        ("application/openmetrics-text;q=0", Text),
        ("application/openmetrics-text;q=nan, */*;q=0.001", Text),
        ("application/openmetrics-text;q=7, */*;q=0.001", Text),
        (family, Protobuf),
        (&format!("{family};q=0.2, application/openmetrics-text;q=0.9"), OpenMetrics),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", Text),
        (",;=,q=;;", Text),
    ] {
        assert_eq!(PrometheusFormat::negotiate(accept), format, "{accept}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_accept_header_is_taken(text in "(\\PC|[;,=/*q.]){0,60}") {
        kastor_export::fuzz::prometheus_accept(&text);
        kastor_export::fuzz::prometheus_request(text.as_bytes());
    }
}

#[test]
fn what_is_not_asked_for_properly_is_refused() {
    let (_tele, endpoint) = listening(fresh());
    for (line, fields, status) in [
        ("GET /", "", 404),
        ("POST /metrics", "", 405),
        ("POST /metrics", "Content-Length: 3\r\n", 413),
        ("GET /metrics", "Transfer-Encoding: chunked\r\n", 413),
        ("GET /metrics", "Host: localhost\r\n", 400),
    ] {
        assert_eq!(ask(&mut connect(&endpoint), line, fields).status, status, "{line} {fields}");
    }
    let mut stream = connect(&endpoint);
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: rebound.example\r\n\r\n").unwrap();
    let refused = answer(&mut stream, true).unwrap();
    assert_eq!(refused.status, 421);
    assert!(refused.text().contains("allow_host"));
    let mut stream = connect(&endpoint);
    stream.write_all(b"\x16\x03\x01\x00\xa5\x01\x00").unwrap();
    assert_eq!(answer(&mut stream, true).unwrap().status, 400);
    let mut stream = connect(&endpoint);
    // Larger than any head may be; the answer arrives although nobody read all of it.
    let _ = stream.write_all(format!("GET /metrics HTTP/1.1\r\nX: {}", "y".repeat(60 << 10)).as_bytes());
    assert_eq!(answer(&mut stream, true).unwrap().status, 431);
}

#[test]
fn names_and_tokens_open_the_door() {
    let (_tele, endpoint) = listening(fresh().allow_host("Node7.example.org").bearer_token("sesame"));
    assert_eq!(get(&endpoint, "").status, 401);
    assert_eq!(get(&endpoint, "Authorization: Bearer sesamE\r\n").status, 401);
    assert_eq!(get(&endpoint, "Authorization: Bearer sesame\r\n").status, 200);
    let mut stream = connect(&endpoint);
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: node7.example.org:9464\r\nAuthorization: Bearer sesame\r\n\r\n")
        .unwrap();
    assert_eq!(answer(&mut stream, true).unwrap().status, 200);
}

#[test]
fn requests_in_one_piece_are_answered_one_by_one() {
    let (_tele, endpoint) = listening(fresh());
    let mut stream = connect(&endpoint);
    let one = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(one.repeat(50).as_bytes()).unwrap();
    for _ in 0..50 {
        assert_eq!(answer(&mut stream, true).unwrap().status, 200);
        assert_eq!(answer(&mut stream, false).unwrap().status, 200);
    }
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(answer(&mut stream, true).unwrap().field("Connection"), Some("close"));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "an old client's connection ends");
}

#[test]
fn a_client_that_dribbles_is_cut_off_and_one_that_says_nothing_is_left() {
    let (_tele, endpoint) = listening(fresh().head_timeout(Duration::from_millis(200)));
    let mut slow = connect(&endpoint);
    let mut silent = connect(&endpoint);
    let started = Instant::now();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").unwrap();
    // A byte every now and then does not help it.
    let mut writer = slow.try_clone().unwrap();
    let dribbler = thread::spawn(move || {
        while started.elapsed() < LONG && writer.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(answer(&mut slow, true).unwrap().status, 408);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert!(started.elapsed() < LONG / 2);
    slow.shutdown(Shutdown::Both).unwrap_or(());
    dribbler.join().unwrap();
}

#[test]
fn an_idle_connection_ends_in_time() {
    let (_tele, endpoint) = listening(fresh().idle_timeout(Duration::from_millis(100)));
    let mut stream = connect(&endpoint);
    assert_eq!(ask(&mut stream, "GET /metrics", "").status, 200);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_new_client_takes_the_place_of_an_idle_one_and_is_told_if_there_is_none() {
    let (_tele, endpoint) = listening(fresh().max_connections(2).head_timeout(LONG));
    let (mut first, mut second) = (connect(&endpoint), connect(&endpoint));
    assert_eq!(ask(&mut first, "GET /metrics", "").status, 200);
    assert_eq!(ask(&mut second, "GET /metrics", "").status, 200);
    let mut third = connect(&endpoint);
    assert_eq!(ask(&mut third, "GET /metrics", "").status, 200);
    assert_eq!(first.read(&mut [0]).unwrap_or(0), 0, "it had idled longest");
    // Both are busy now: in the middle of a request.
    for stream in [&mut second, &mut third] {
        stream.write_all(b"GET /met").unwrap();
    }
    let started = Instant::now();
    loop {
        let mut fourth = connect(&endpoint);
        let _ = write!(fourth, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        // Until both threads have seen the beginning of the request, a busy one counts as idle.
        match answer(&mut fourth, true) {
            Some(answer) if answer.status == 503 => break,
            _ => assert!(started.elapsed() < LONG),
        }
        second = connect(&endpoint);
        third = connect(&endpoint);
        for stream in [&mut second, &mut third] {
            let _ = stream.write_all(b"GET /met");
        }
    }
}

#[test]
fn scrapes_in_quick_succession_get_the_same_bytes() {
    let (tele, endpoint) = listening(Prometheus::builder().least_interval(LONG));
    count!(tele, "n", 1);
    let first = get(&endpoint, "").body;
    count!(tele, "n", 1);
    assert_eq!(get(&endpoint, "").body, first);
}

#[test]
fn as_a_reporter_it_serves_its_context_and_ends_with_it() {
    let endpoint = fresh().listen("0").unwrap();
    let address = endpoint.address();
    assert!(address.ip().is_loopback());
    assert_eq!(get(&endpoint, "").status, 503, "nobody gave it a context yet");
    let tele = Telemetry::builder().reporter(endpoint).build();
    // A thread that recorded holds its context until it ends.
    thread::scope(|threads| {
        threads.spawn(|| {
            count!(tele, "n", 3);
            drop(kastor::scope!(tele, "s"));
        });
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let text = ask(&mut stream, "GET /metrics", "").text();
    assert!(text.contains("\nn_total 3\n") && text.contains("kastor_scope_duration_seconds_count{scope=\"s\"} 1\n"));
    tele.shutdown(LONG);
    assert_eq!(ask(&mut stream, "GET /metrics", "").status, 200, "the sums are still there");
    drop(tele);
    let started = Instant::now();
    // The worker that owns the reporter ends by itself; then the port is free, and the connection is closed.
    while TcpListener::bind(address).is_err() {
        assert!(started.elapsed() < LONG);
        thread::yield_now();
    }
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn dropping_it_frees_the_port_at_once_whoever_is_connected() {
    let (tele, endpoint) = listening(fresh().head_timeout(LONG).idle_timeout(LONG));
    let address = endpoint.address();
    let mut idle = connect(&endpoint);
    assert_eq!(ask(&mut idle, "GET /metrics", "").status, 200);
    let mut busy = connect(&endpoint);
    busy.write_all(b"GET ").unwrap();
    drop(endpoint);
    assert!(TcpListener::bind(address).is_ok());
    assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(busy.read(&mut [0]).unwrap_or(0), 0);
    drop(tele);
}

#[test]
fn an_address_that_cannot_be_listened_on_is_an_error_that_says_so() {
    let (_tele, endpoint) = listening(fresh());
    let taken = fresh().listen(&endpoint.address().to_string()).unwrap_err();
    assert!(taken.is_temporary() && taken.to_string().contains("choose another port"), "{taken}");
    let nonsense = fresh().listen("no address").unwrap_err();
    assert!(nonsense.is_invalid_input() && nonsense.to_string().contains("HOST:PORT"), "{nonsense}");
}
