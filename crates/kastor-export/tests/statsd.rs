//! StatsD: what an agent reads off the socket is what was recorded.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    time::{Duration, Instant},
};

use kastor::{DropReason, MockClock, Telemetry, count, gauge, histogram, metric, scope};
use kastor_export::{Statsd, StatsdBuilder, StatsdLines};

/// Only ever an upper bound: nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(20);

/// An agent.
struct Agent(UdpSocket);

impl Agent {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self(socket)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// So many lines, in whole datagrams, none larger than `max_bytes`.
    fn lines(&self, lines: u64, max_bytes: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut datagram = [0; 65_536];
        while (found.len() as u64) < lines {
            let bytes = self.0.recv(&mut datagram).unwrap();
            assert!(bytes <= max_bytes, "{bytes}");
            let text = std::str::from_utf8(&datagram[..bytes]).unwrap();
            found.extend(text.split('\n').map(str::to_owned));
        }
        assert_eq!(found.len() as u64, lines);
        found
    }
}

/// A context on a clock that stands still, with lines to that agent.
fn context(agent: &Agent, builder: StatsdBuilder) -> (Telemetry, MockClock, Statsd) {
    let clock = MockClock::new();
    let statsd = builder.udp(&agent.address()).unwrap();
    (Telemetry::builder().clock(clock.clone()).reporter(statsd.clone()).build(), clock, statsd)
}

/// The lines of one flush, but for those about kastor itself, sorted.
fn flushed(tele: &Telemetry, statsd: &Statsd, agent: &Agent) -> Vec<String> {
    let before = statsd.lines().sent;
    assert!(tele.flush(LONG).is_complete());
    let mut lines = agent.lines(statsd.lines().sent - before, 1_432);
    lines.retain(|line| !line.contains("kastor.events"));
    lines.sort();
    lines
}

#[test]
fn each_aggregate_has_its_line_and_the_next_says_only_what_is_new() {
    let agent = Agent::new();
    let (tele, clock, statsd) = context(&agent, Statsd::builder().prefix("shop").tag("env", "test"));
    {
        let job = scope!(tele, "job");
        clock.advance(Duration::from_millis(3));
        count!(tele, "api.requests", 3, code = 200, url = "http://a:b@c/,|x");
        gauge!(tele, "level", -1.5);
        (0..5).for_each(|_| histogram!(tele, "size", 100));
        job.fail("bad");
    }
    assert_eq!(
        flushed(&tele, &statsd, &agent),
        [
            "shop.api.requests:3|c|#env:test,scope:job,code:200,url:http://[redacted]@c/__x",
            "shop.kastor.scope.duration:3|d|#env:test,scope:job",
            "shop.kastor.scope.errors:1|c|#env:test,scope:job",
            "shop.level:-1.5|g|#env:test,scope:job",
            "shop.size:100|d|@0.2|#env:test,scope:job",
        ]
    );
    count!(tele, "total", 0.5);
    histogram!(tele, "wide", 1.0);
    histogram!(tele, "wide", 1_000.0);
    {
        let _job = scope!(tele, "job");
        count!(tele, "api.requests", 4, code = 200, url = "http://a:b@c/,|x");
        histogram!(tele, "size", 100);
    }
    let lines = flushed(&tele, &statsd, &agent);
    assert!(
        lines.contains(&"shop.api.requests:4|c|#env:test,scope:job,code:200,url:http://[redacted]@c/__x".to_owned())
    );
    assert!(lines.contains(&"shop.size:100|d|#env:test,scope:job".to_owned()));
    assert!(lines.contains(&"shop.level:-1.5|g|#env:test,scope:job".to_owned()), "a gauge is said again");
    assert!(lines.contains(&"shop.total:0.5|c|#env:test".to_owned()));
    assert!(lines.iter().all(|line| !line.contains("errors")), "nothing new failed");
    let wide: Vec<f64> =
        lines.iter().filter_map(|line| line.strip_prefix("shop.wide:")?.split('|').next()?.parse().ok()).collect();
    assert_eq!(wide.len(), 2);
    assert!(wide.contains(&1.0) && wide.iter().any(|value| (value / 1_000.0 - 1.0).abs() <= 0.045));
    tele.shutdown(LONG);
}

#[test]
fn plain_lines_have_no_tags_and_set_a_negative_gauge_by_way_of_zero() {
    let agent = Agent::new();
    let (tele, clock, statsd) = context(&agent, Statsd::builder().plain());
    {
        let _job = scope!(tele, "a.b");
        clock.advance(Duration::from_millis(2));
        tele.counter("n:1|c", &[("k.1", "v.1\nx:9|c".into())]).add(2_u64);
        gauge!(tele, "level", -2);
        metric!(tele, "event", 7);
    }
    let before = statsd.lines().sent;
    assert!(tele.flush(LONG).is_complete());
    // The two lines of the gauge count as one.
    let mut lines = agent.lines(statsd.lines().sent - before + 1, 1_432);
    assert!(lines.windows(2).any(|pair| pair == ["level.scope.a_b:0|g", "level.scope.a_b:-2|g"]), "{lines:?}");
    lines.retain(|line| !line.starts_with("level") && !line.contains("kastor.events"));
    lines.sort();
    let expected = ["event.scope.a_b:7|g", "kastor.scope.duration.scope.a_b:2|ms", "n_1_c.scope.a_b.k_1.v_1_x_9_c:2|c"];
    assert_eq!(lines, expected);
    tele.shutdown(LONG);
}

#[test]
fn events_are_lines_if_they_are_numbers_and_accounted_for_if_not() {
    let agent = Agent::new();
    let (tele, _, statsd) = context(&agent, Statsd::builder());
    metric!(tele, "number", 1.5, kind = "x");
    metric!(tele, "text", "c4n4ry");
    metric!(tele, "nan", f64::NAN);
    drop(scope!(tele, "s"));
    let lines = flushed(&tele, &statsd, &agent);
    assert!(lines.contains(&"number:1.5|d|#kind:x".to_owned()), "{lines:?}");
    let stats = tele.stats();
    let reporter = &stats.reporters()[0];
    assert_eq!((stats.emitted(), reporter.delivered()), (4, 2));
    assert_eq!(reporter.dropped().of(DropReason::NonRetryable), 2);
    tele.shutdown(LONG);
}

#[test]
fn thousands_of_series_come_in_datagrams_of_the_right_size() {
    let agent = Agent::new();
    let (tele, _, statsd) = context(&agent, Statsd::builder().max_datagram_bytes(300));
    for id in 0..200_u64 {
        count!(tele, "n", id + 1, id = id);
    }
    count!(tele, "n", 1, text = "x".repeat(180).as_str(), more = "y".repeat(180).as_str());
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(statsd.lines().too_large, 1);
    let mut values = BTreeMap::new();
    for line in agent.lines(statsd.lines().sent, 300) {
        if let Some((value, id)) = line.strip_prefix("n:").and_then(|line| line.split_once("|c|#id:")) {
            assert!(values.insert(id.parse::<u64>().unwrap(), value.parse::<u64>().unwrap()).is_none());
        }
    }
    assert_eq!(values.len(), 200);
    assert!(values.iter().all(|(id, value)| *value == id + 1));
    tele.shutdown(LONG);
}

#[test]
fn whatever_the_names_and_values_are_a_line_stays_one() {
    let agent = Agent::new();
    let (tele, _, statsd) = context(&agent, Statsd::builder());
    for text in ["", "a|b", "a:1|c\nb:2|c", "#x,y", "\u{1b}[2J", "größe", "@0.1", "a b"] {
        tele.counter(text, &[(text, text.into())]).add(1_u64);
    }
    for line in flushed(&tele, &statsd, &agent) {
        let (name, rest) = line.split_once(':').unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{line}");
        let parts: Vec<&str> = rest.split('|').collect();
        assert_eq!((parts[1], parts.len()), ("c", 3), "{line}");
        assert!(parts[2].starts_with('#') && !parts[2].contains(','), "{line}");
        assert!(!line.chars().any(char::is_control), "{line}");
    }
    tele.shutdown(LONG);
}

#[cfg(unix)]
#[test]
fn an_agent_that_is_not_there_costs_a_count_and_gets_everything_when_it_comes() {
    use std::os::unix::net::UnixDatagram;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let statsd = Statsd::builder().unix(&path).unwrap();
    let tele = Telemetry::builder().reporter(statsd.clone()).build();
    count!(tele, "n", 5);
    tele.flush(LONG);
    let StatsdLines { sent, refused, .. } = statsd.lines();
    assert!(sent == 0 && refused > 0, "{:?}", statsd.lines());
    assert_eq!(tele.stats().reporters()[0].failures(), 1);

    let listen = || {
        let agent = UnixDatagram::bind(&path).unwrap();
        agent.set_read_timeout(Some(LONG)).unwrap();
        agent
    };
    let read = |agent: &UnixDatagram| {
        let mut datagram = [0; 8_192];
        let bytes = agent.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..bytes].to_vec()).unwrap()
    };
    let agent = listen();
    count!(tele, "n", 1);
    tele.flush(LONG);
    assert!(read(&agent).contains("n:6|c"), "what was refused is said again");
    drop(agent);
    std::fs::remove_file(&path).unwrap();
    let agent = listen();
    count!(tele, "n", 2);
    tele.flush(LONG);
    assert!(read(&agent).contains("n:2|c"), "an agent that starts again is found");
    tele.shutdown(LONG);
}

#[cfg(unix)]
#[test]
fn an_agent_that_has_stopped_reading_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let _agent = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let statsd = Statsd::builder().max_datagram_bytes(100).unix(&path).unwrap();
    let tele = Telemetry::builder().reporter(statsd.clone()).build();
    for id in 0..2_000_u64 {
        count!(tele, "n", 1, id = id);
    }
    let started = Instant::now();
    tele.flush(LONG);
    assert!(started.elapsed() < LONG / 4);
    let lines = statsd.lines();
    assert!(lines.refused > 0 && lines.sent > 0, "{lines:?}");
    tele.shutdown(LONG);
}

#[test]
fn an_address_that_is_none_is_an_error_that_says_so() {
    let error = Statsd::builder().udp("nowhere").unwrap_err();
    assert!(error.is_invalid_input() && error.to_string().contains("HOST:PORT"), "{error}");
}
