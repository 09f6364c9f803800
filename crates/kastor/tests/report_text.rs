//! A context's own report: the tree and the metrics as text, as JSON, and as figures. And the lines of the log reporter.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kastor::{LogReporter, MetricType, MockClock, Telemetry, count, gauge, histogram, metric, scope};

struct Program {
    clock: MockClock,
    tele: Telemetry,
}

impl Program {
    fn new() -> Self {
        let clock = MockClock::new();
        let tele = Telemetry::builder().clock(clock.clone()).build();
        Self { clock, tele }
    }

    fn run(&self, name: &str, duration: Duration) {
        let _scope = self.tele.scope(name);
        self.clock.advance(duration);
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn job(program: &Program) {
    let job = scope!(program.tele, "job");
    program.run("parse", ms(10));
    program.run("parse", ms(30));
    program.run("write", ms(100));
    job.fail("timeout");
    program.clock.advance(ms(60));
}

#[test]
fn the_tree_shows_the_largest_first_with_aligned_figures() {
    let program = Program::new();
    job(&program);
    program.run("tiny", Duration::from_nanos(250));
    assert_eq!(
        program.tele.report().to_string(),
        "\
scope    calls  errors    total     self      min      max      p50      p95      p99
job          1       1   200 ms  60.0 ms   200 ms   200 ms   200 ms   200 ms   200 ms
  write      1       0   100 ms   100 ms   100 ms   100 ms   100 ms   100 ms   100 ms
  parse      2       0  40.0 ms  40.0 ms  10.0 ms  30.0 ms  10.4 ms  29.5 ms  29.5 ms
tiny         1       0   250 ns   250 ns   250 ns   250 ns   250 ns   250 ns   250 ns
"
    );
}

#[test]
fn a_parent_that_never_closed_has_a_line_without_figures() {
    let program = Program::new();
    let _job = program.tele.scope("job");
    program.run("small", ms(1));
    let step = program.tele.scope("step");
    program.run("a", ms(2));
    program.run("b", ms(3));
    assert_eq!(
        program.tele.report().to_string(),
        "\
scope    calls  errors    total     self      min      max      p50      p95      p99
job
  step
    b        1       0  3.00 ms  3.00 ms  3.00 ms  3.00 ms  3.00 ms  3.00 ms  3.00 ms
    a        1       0  2.00 ms  2.00 ms  2.00 ms  2.00 ms  2.00 ms  2.00 ms  2.00 ms
  small      1       0  1.00 ms  1.00 ms  1.00 ms  1.00 ms  1.00 ms  1.00 ms  1.00 ms
"
    );
    drop(step);
}

#[test]
fn scopes_of_equal_weight_stand_in_the_order_of_their_names() {
    let program = Program::new();
    for name in ["c", "a", "b", "d"] {
        program.run(name, ms(5));
    }
    let report = program.tele.report();
    assert_eq!(report.scopes().iter().map(|scope| scope.path()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
}

#[test]
fn each_instrument_shows_its_own_figures() {
    let program = Program::new();
    count!(program.tele, "items", 3, kind = "md");
    count!(program.tele, "items", 4, kind = "md");
    for depth in [4.0, 0.1 + 0.2, f64::NAN] {
        gauge!(program.tele, "queue", depth);
    }
    program.tele.describe("size", "By", "bytes read");
    for size in [100.0, 200.0, 300.0] {
        histogram!(program.tele, "size", size);
    }
    assert_eq!(
        program.tele.report().to_string(),
        "\
metric               type  calls  sum  last  min  max  p50  p95  not finite
items{kind=md}    counter      2    7
queue               gauge      3        0.3  0.3    4                     1
size [By]       histogram      3             100  300  206  292
"
    );
}

#[test]
fn only_columns_with_figures_are_printed_and_nothing_is_said_to_be_nothing() {
    let program = Program::new();
    assert_eq!(program.tele.report().to_string(), "nothing recorded\n");
    assert_eq!(Telemetry::disabled().report().to_string(), "nothing recorded\n");
    assert_eq!(program.tele.report().to_json(), r#"{"scopes": [], "metrics": []}"#);
    count!(program.tele, "items");
    assert_eq!(
        program.tele.report().to_string(),
        "\
metric     type  calls  sum
items   counter      1    1
"
    );
}

#[test]
fn json_has_seconds_and_leaves_out_what_does_not_apply() {
    let program = Program::new();
    job(&program);
    count!(program.tele, "items", 3, kind = "m\"d");
    gauge!(program.tele, "queue", 1.5);
    let json = program.tele.report().to_json();
    let job = concat!(
        r#"{"scopes": [{"path": "job", "depth": 0, "calls": 1, "errors": 1, "total_s": 0.2, "self_s": 0.06, "#,
        r#""min_s": 0.2, "max_s": 0.2, "p50_s": 0.2, "p95_s": 0.2, "p99_s": 0.2}, {"path": "job.write", "depth": 1, "#
    );
    assert!(json.starts_with(job), "{json}");
    let metrics = concat!(
        r#""metrics": [{"path": "items", "type": "counter", "labels": {"kind": "m\"d"}, "calls": 1, "sum": 3, "#,
        r#""is_monotonic": true}, {"path": "queue", "type": "gauge", "labels": {}, "calls": 1, "last": 1.5, "#,
        r#""min": 1.5, "max": 1.5}]}"#
    );
    assert!(json.ends_with(metrics), "{json}");
}

#[test]
fn figures_are_found_by_path() {
    let program = Program::new();
    job(&program);
    for kind in ["md", "pdf"] {
        count!(program.tele, "items", 2, kind = kind);
    }
    let report = program.tele.report();
    let parse = report.scope("job.parse").unwrap();
    assert_eq!((parse.calls(), parse.total(), parse.min(), parse.max()), (2, ms(40), ms(10), ms(30)));
    assert_eq!(report.scope("job").unwrap().self_time(), ms(60));
    assert!(report.scope("parse").is_none() && report.scope("").is_none());
    assert_eq!(report.series_of("items").count(), 2);
    assert!(report.series_of("items").all(|series| series.metric_type() == MetricType::Counter && series.calls() == 1));
    assert_eq!(report.series_of("job").count(), 0);
    assert_eq!(report.series().len(), 2);
}

#[test]
fn times_have_three_digits_and_the_unit_that_fits() {
    let cases = [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (12_340, "12.3 µs"),
        (999_499, "999 µs"),
        (999_500, "1.00 ms"),
        (99_949_999, "99.9 ms"),
        (99_950_000, "100 ms"),
        (1_000_000_000, "1.00 s"),
        (59_999_000_000, "60.0 s"),
        (99_960_000_000, "1 m 40 s"),
        (3_599_400_000_000, "59 m 59 s"),
        (3_599_600_000_000, "1 h 00 m"),
        (90_061_000_000_000, "25 h 01 m"),
    ];
    for (nanos, text) in cases {
        let program = Program::new();
        program.run("a", Duration::from_nanos(nanos));
        let report = program.tele.report().to_string();
        let row = report.lines().nth(1).unwrap();
        assert!(row.ends_with(&format!("  {text}")), "{nanos}: {row}");
    }
}

#[test]
fn hostile_names_and_labels_are_escaped() {
    let program = Program::new();
    program.run("\u{1b}[2J\n\u{202e}", ms(1));
    count!(program.tele, "items", 1, kind = "\r\u{9b}\u{200b}");
    program.tele.describe("items", "\u{7}", "\u{1b}");
    let report = program.tele.report();
    for text in [report.to_string(), report.to_json()] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control() && !"\u{202e}\u{200b}".contains(c)), "{text:?}");
    }
    assert!(report.to_string().contains("\\u{1b}[2J\\n\\u{202e}"));
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_path_beyond_all_limits_is_printed() {
    let program = Program::new();
    let mut scopes: Vec<_> = (0..2_000).map(|_| program.tele.scope("level")).collect();
    while let Some(scope) = scopes.pop() {
        drop(scope);
    }
    let report = program.tele.report();
    assert_eq!(report.scopes().iter().map(|scope| scope.calls()).sum::<u64>(), 2_000);
    assert_eq!(report.to_string().lines().count(), 1 + report.scopes().len());
    assert!(report.to_string().len() < 1 << 20);
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.target() == "kastor.events" {
            let line = format!("{} {}", record.level(), record.args());
            LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
    fn flush(&self) {}
}

#[test]
fn the_log_gets_one_line_per_event() {
    log::set_logger(&Lines).unwrap();
    let clock = MockClock::new();
    let tele = Telemetry::builder().clock(clock.clone()).reporter(LogReporter::new()).build();
    log::set_max_level(log::LevelFilter::Debug);
    let ids = {
        let outer = scope!(tele, "outer");
        let ids = outer.carrier();
        {
            let inner = scope!(tele, "inner", file = "a\" b\n\u{202e}", rows = 3, "odd key" = true);
            clock.advance(Duration::from_micros(1_500));
            inner.fail("timeout");
        }
        metric!(tele, "note", 2.5, kind = "md");
        ids
    };
    count!(tele, "items", 3);
    log::set_max_level(log::LevelFilter::Warn);
    count!(tele, "unseen");
    drop(tele.scope("unseen"));
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let (trace_id, span_id) = (format!("{:032x}", ids.trace_id()), format!("{:016x}", ids.span_id()));
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let begin = format!("WARN scope=\"outer.inner\" duration_s=0.0015 depth=1 trace_id={trace_id} span_id=");
    assert!(lines[0].starts_with(&begin), "{}", lines[0]);
    let end = r#" error_type="timeout" file="a\" b\u000a\u202e" rows=3 "odd key"=true"#;
    assert!(lines[0].ends_with(end), "{}", lines[0]);
    assert_eq!(
        lines[1],
        format!("DEBUG metric=\"outer.note\" value=2.5 trace_id={trace_id} span_id={span_id} kind=\"md\"")
    );
    assert_eq!(
        lines[2],
        format!("DEBUG scope=\"outer\" duration_s=0.0015 depth=0 trace_id={trace_id} span_id={span_id}")
    );
    assert_eq!(lines[3], "DEBUG metric=\"items\" value=3 metric_type=counter");
}
