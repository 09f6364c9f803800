//! `SimpleReporter`: the text that people know, the entries that tests read, and the bounds of both.

use std::{thread, time::Duration};

use kastor::{MockClock, OwnedValue, SimpleReporter, Telemetry, count, gauge, histogram, metric, scope};

struct Program {
    clock: MockClock,
    simple: SimpleReporter,
    tele: Telemetry,
}

impl Program {
    fn new() -> Self {
        Self::reporting_to(SimpleReporter::new())
    }

    fn reporting_to(simple: SimpleReporter) -> Self {
        let clock = MockClock::new();
        let tele = Telemetry::builder().clock(clock.clone()).reporter(simple.clone()).build();
        Self { clock, simple, tele }
    }

    fn run(&self, name: &str, millis: u64) {
        let _scope = self.tele.scope(name);
        self.clock.advance(Duration::from_millis(millis));
    }
}

fn value<'a>(metadata: &'a kastor::Metadata, key: &str) -> Option<&'a OwnedValue> {
    metadata.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
}

fn text(text: &str) -> OwnedValue {
    OwnedValue::Text(text.to_owned().into())
}

#[test]
fn the_report_has_the_layout_of_the_original() {
    let program = Program::new();
    program.run("pipe.exec", 400);
    program.run("pipe.exec", 600);
    program.run("pipe.plan", 500);
    count!(program.tele, "pipe.items", 3);
    count!(program.tele, "pipe.items", 4);
    assert_eq!(
        program.simple.report(),
        "\
=== Telemetry Report ===

--- Timings ---
pipe:
  exec                         | Calls: 2    | Avg: 0.5000s | Total: 1.0000s
  plan                         | Calls: 1    | Avg: 0.5000s | Total: 0.5000s

--- Metrics ---
pipe.items                               | Count: 2    | Total: 7"
    );
}

#[test]
fn a_scope_has_its_own_row_above_its_children_whichever_came_first() {
    for leaf_first in [false, true] {
        let program = Program::new();
        if leaf_first {
            program.run("a.b.c", 100);
        }
        {
            let _a = program.tele.scope("a");
            program.run("b", 1_000);
            program.run("z.y", 1);
        }
        if !leaf_first {
            program.run("a.b.c", 100);
        }
        program.run("b", 1);
        assert_eq!(
            program.simple.report(),
            "\
=== Telemetry Report ===

--- Timings ---
a                              | Calls: 1    | Avg: 1.0010s | Total: 1.0010s
  b                            | Calls: 1    | Avg: 1.0000s | Total: 1.0000s
    c                          | Calls: 1    | Avg: 0.1000s | Total: 0.1000s
  z:
    y                          | Calls: 1    | Avg: 0.0010s | Total: 0.0010s
b                              | Calls: 1    | Avg: 0.0010s | Total: 0.0010s"
        );
    }
}

#[test]
fn gauges_are_never_added_up_and_numbers_always() {
    let program = Program::new();
    for depth in [4.0, 1.5, 2.0] {
        gauge!(program.tele, "depth", depth);
    }
    for _ in 0..3 {
        count!(program.tele, "items", 500_000);
    }
    count!(program.tele, "minus", -1_234);
    histogram!(program.tele, "size_bytes", 1.5);
    histogram!(program.tele, "size_bytes", 2.0);
    metric!(program.tele, "note", "no number");
    metric!(program.tele, "note", f64::NAN);
    metric!(program.tele, "note", f64::INFINITY);
    metric!(program.tele, "note", 7);
    gauge!(program.tele, "odd", f64::NAN);
    let report = program.simple.report();
    let (_, metrics) = report.split_once("--- Metrics ---\n").unwrap();
    assert_eq!(
        metrics,
        "\
depth                                    | Count: 3    | Last: 2 | Min: 1.5 | Max: 4
items                                    | Count: 3    | Total: 1,500,000
minus                                    | Count: 1    | Total: -1,234
note                                     | Count: 4    | Total: 7 | Not finite: 2
odd                                      | Count: 1    | Last: none | Not finite: 1
size_bytes                               | Count: 2    | Total: 4"
    );
}

#[test]
fn an_entry_has_the_built_in_keys_and_then_the_programs() {
    let program = Program::new();
    {
        let _outer = scope!(program.tele, "outer");
        let inner = scope!(program.tele, "inner", file = "a.md", depth = "mine", rows = 3);
        program.clock.advance(Duration::from_millis(250));
        inner.fail("timeout");
    }
    let timings = program.simple.timings();
    assert_eq!(timings.keys().collect::<Vec<_>>(), ["outer", "outer.inner"]);
    let (duration, outer) = &timings["outer"][0];
    assert_eq!(*duration, Duration::from_millis(250));
    assert_eq!(
        outer.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        [
            "depth",
            "parent_scope",
            "call_count",
            "start_monotonic_s",
            "end_monotonic_s",
            "start_wall_time_s",
            "end_wall_time_s"
        ]
    );
    let expected = [
        ("depth", text("mine")),
        ("parent_scope", text("outer")),
        ("call_count", OwnedValue::U64(1)),
        ("start_monotonic_s", OwnedValue::F64(1.0)),
        ("end_monotonic_s", OwnedValue::F64(1.25)),
        ("start_wall_time_s", OwnedValue::F64(1_000_000_000.0)),
        ("end_wall_time_s", OwnedValue::F64(1_000_000_000.25)),
        ("error_type", text("timeout")),
        ("file", text("a.md")),
    ];
    let (_, inner) = &timings["outer.inner"][0];
    assert_eq!(inner[..9], expected);
    assert_eq!(inner[9].0, "rows");
}

#[test]
fn a_metric_keeps_its_value_and_its_place() {
    let program = Program::new();
    count!(program.tele, "items", 3, kind = "md");
    {
        let _outer = scope!(program.tele, "outer");
        metric!(program.tele, "note", "hello", metric_type = "mine");
    }
    let metrics = program.simple.metrics();
    let (_, items) = &metrics["items"][0];
    assert_eq!(items[0], ("depth", OwnedValue::U64(0)));
    assert_eq!(
        items[1..],
        [("parent_scope", OwnedValue::Null), ("metric_type", text("counter")), ("kind", text("md"))]
    );
    let (note, metadata) = &metrics["outer.note"][0];
    assert_eq!(*note, text("hello"));
    assert_eq!(value(metadata, "parent_scope"), Some(&text("outer")));
    assert_eq!(value(metadata, "metric_type"), Some(&text("mine")));
}

#[test]
fn only_the_newest_entries_are_kept_but_everything_is_counted() {
    let program = Program::reporting_to(SimpleReporter::with_max_entries_per_scope(3));
    for millis in 1..=10 {
        program.run("step", millis);
        count!(program.tele, "items", millis);
    }
    let kept: Vec<u128> = program.simple.timings()["step"].iter().map(|(duration, _)| duration.as_millis()).collect();
    assert_eq!(kept, [8, 9, 10]);
    assert_eq!(program.simple.metrics()["items"].len(), 3);
    let report = program.simple.report();
    assert!(report.contains("| Calls: 10   | Avg: 0.0055s | Total: 0.0550s"), "{report}");
    assert!(report.contains("| Count: 10   | Total: 55"), "{report}");

    let sums_only = Program::reporting_to(SimpleReporter::with_max_entries_per_scope(0));
    sums_only.run("step", 5);
    assert!(sums_only.simple.timings()["step"].is_empty());
    assert!(sums_only.simple.report().contains("| Calls: 1    |"));
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_thousand_entries_are_the_default() {
    let program = Program::new();
    (0..1_500).for_each(|_| program.run("step", 1));
    assert_eq!(program.simple.timings()["step"].len(), 1_000);
    assert!(program.simple.report().contains("| Calls: 1500 | Avg: 0.0010s | Total: 1.5000s"));
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn the_number_of_scopes_is_bounded_and_the_rest_is_counted_together() {
    let program = Program::reporting_to(SimpleReporter::with_max_entries_per_scope(1));
    for number in 0..10_100 {
        program.run(&format!("s{number}"), 1);
    }
    program.run("s7", 1);
    assert_eq!(program.simple.timings().len(), 10_001);
    let report = program.simple.report();
    let row = report.lines().find(|line| line.starts_with("(overflow)")).unwrap();
    assert_eq!(row, "(overflow)                     | Calls: 100  | Avg: 0.0010s | Total: 0.1000s");
    assert!(report.contains("\ns7                             | Calls: 2 "));
}

#[test]
fn json_holds_every_entry() {
    let program = Program::new();
    {
        let _step =
            scope!(program.tele, "step", text = "a\"\\\n\u{202e}", nan = f64::NAN, none = None::<i64>, yes = true);
        program.clock.advance(Duration::from_millis(500));
    }
    gauge!(program.tele, "depth", 2.5);
    assert_eq!(
        program.simple.to_json(),
        concat!(
            r#"{"timings": {"step": [[0.5, {"depth": 0, "parent_scope": null, "call_count": 0, "start_monotonic_s": 1.0, "#,
            r#""end_monotonic_s": 1.5, "start_wall_time_s": 1000000000.0, "end_wall_time_s": 1000000000.5, "#,
            r#""text": "a\"\\\u000a\u202e", "nan": "NaN", "none": null, "yes": true}]]}, "#,
            r#""metrics": {"depth": [[2.5, {"depth": 0, "parent_scope": null, "metric_type": "gauge"}]]}}"#
        )
    );
    assert_eq!(SimpleReporter::new().to_json(), r#"{"timings": {}, "metrics": {}}"#);
}

#[test]
fn copies_are_fresh_and_a_reset_forgets_everything() {
    let program = Program::new();
    program.run("step", 1);
    let before = program.simple.timings();
    program.simple.reset();
    assert_eq!(before.len(), 1);
    assert!(program.simple.timings().is_empty() && program.simple.metrics().is_empty());
    assert!(!program.simple.report().contains("step"));
    program.simple.print_report();
    program.run("step", 2);
    assert!(program.simple.clone().report().contains("| Calls: 1    | Avg: 0.0020s"));
}

#[test]
fn hostile_names_never_reach_the_report_raw() {
    let program = Program::new();
    program.run("\u{1b}[2Jred\nline\u{202e}.x\u{200b}", 1);
    metric!(program.tele, "plain", 1);
    program.tele.counter("\r\u{9b}m", &[]).add(1);
    let report = program.simple.report();
    assert!(report.chars().all(|c| c == '\n' || !c.is_control() && !"\u{202e}\u{200b}".contains(c)), "{report:?}");
    assert!(report.contains("\\u{1b}[2Jred\\nline\\u{202e}:\n"), "{report:?}");
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_very_deep_path_is_printed_without_recursion_and_in_bounded_space() {
    let program = Program::new();
    for _ in 0..3 {
        program.run(&".".repeat(250), 1);
    }
    let mut scopes = Vec::new();
    for _ in 0..1_000 {
        scopes.push(program.tele.scope(&"a.".repeat(120)));
    }
    while let Some(scope) = scopes.pop() {
        drop(scope);
    }
    assert!(program.simple.report().len() < 64 << 20);
    assert!(program.simple.to_json().len() < 64 << 20);
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn many_threads_write_while_others_read() {
    let program = Program::new();
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..2_000 {
                    let _step = program.tele.scope("step");
                    count!(program.tele, "items");
                }
            });
        }
        threads.spawn(|| {
            for _ in 0..50 {
                let _ = (program.simple.report(), program.simple.to_json(), program.simple.timings());
            }
        });
    });
    let report = program.simple.report();
    assert!(report.contains("| Calls: 8000 |") && report.contains("| Count: 8000 | Total: 8,000"), "{report}");
}
