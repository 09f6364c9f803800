//! R1 and R13: hostile values at every entry point. Nothing escapes into the program, one bad event never costs its batch,
//! and what is printed stays printable (R21). Numbers are in `hostile_numbers.rs`.

use std::{
    cell::Cell,
    error::Error as StdError,
    fmt::{self, Debug, Display},
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    time::Duration,
};

use kastor::{
    Carrier, FutureExt, LogReporter, OwnedValue, Recording, Scope, SimpleReporter, Telemetry, Value, count, gauge,
    histogram, metric, scope,
};

const LONG: Duration = Duration::from_secs(10);

/// A value that runs code of the program while it is printed.
struct Runs<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> Display for Runs<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> Debug for Runs<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> StdError for Runs<F> {}

/// A panic's payload that panics in turn, once, when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new("the payload's own"));
    }
}

const TEXTS: [&str; 24] = [
    "",
    " ",
    "\0",
    "\r\n\t",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{9b}31m",
    "\u{7f}\u{80}\u{9f}",
    "\u{202e}txt.exe\u{202c}",
    "\u{200b}\u{200d}\u{feff}",
    "\u{2028}\u{2029}",
    "\u{fffd}\u{10ffff}",
    "e\u{301}\u{301}\u{301}",
    "…",
    "(deeper)",
    "(overflow)",
    "(invalid_name)",
    ".",
    "..a..",
    "\"quoted\" \\ 'back'",
    "{\"json\": [1, 2",
    "<script>alert(1)</script>",
    "%s%n{}{0}$(id)`id`;",
    "kastor.overflow",
    "scope",
];

const KEYS: [&str; 14] = [
    "scope",
    "self",
    "duration",
    "depth",
    "parent_scope",
    "call_count",
    "start_monotonic_s",
    "end_wall_time_s",
    "error_type",
    "metric_type",
    "value",
    "name",
    "",
    "\u{1b}]0;title\u{7}",
];

/// Calls `f` with every hostile value.
fn with_values(tele: &Telemetry, mut f: impl FnMut(&str, Value<'_>)) {
    let huge = "x".repeat(1 << 20);
    let bytes = vec![0xff; 10_000];
    for text in TEXTS {
        f("text", Value::Str(text));
    }
    let numbers =
        [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324];
    for number in numbers {
        f("float", Value::F64(number));
    }
    for value in [Value::U64(u64::MAX), Value::I64(i64::MIN), Value::I64(i64::MAX), Value::Null, Value::Bool(true)] {
        f("plain", value);
    }
    for value in
        [Value::Str(&huge), Value::Bytes(&bytes), Value::Bytes(&[]), Value::Bytes(b"\xc3\x28"), Value::Debug(&huge)]
    {
        f("large", value);
    }
    let printed =
        |name: &str, run: &dyn Fn(&mut fmt::Formatter<'_>) -> fmt::Result, f: &mut dyn FnMut(&str, Value<'_>)| {
            let runs = Runs(run);
            f(name, Value::Display(&runs));
            f(name, Value::Debug(&runs));
        };
    printed("panics", &|_| resume_unwind(Box::new("from Display")), &mut f);
    printed("panics late", &|it| it.write_str("some").and_then(|()| resume_unwind(Box::new(1))), &mut f);
    printed("fails", &|_| Err(fmt::Error), &mut f);
    printed("fails late", &|it| it.write_str("some").and(Err(fmt::Error)), &mut f);
    printed("ignores errors", &|it| (0..100_000).try_for_each(|_| it.write_str("y").or(Ok(()))), &mut f);
    printed("opens", &|it| it.write_str(if scope!(tele, "opened").is_recording() { "on" } else { "off" }), &mut f);
    printed("opens with", &|it| it.write_fmt(format_args!("{}", scope!("nested", n = ?"v").is_recording())), &mut f);
    printed(
        "records",
        &|it| it.write_fmt(format_args!("{:?}", [count!("inner", 1, l = it.width()), metric!("m", "v")])),
        &mut f,
    );
    printed("reports", &|it| it.write_str(&tele.report().to_json()), &mut f);
    printed("flushes", &|it| it.write_str(&tele.flush(Duration::from_secs(5)).to_string()), &mut f);
    printed("counts", &|it| it.write_str(&tele.stats().to_string()), &mut f);
    printed(
        "switches",
        &|it| {
            [false, true]
                .iter()
                .try_for_each(|on| it.write_str(["", " "][usize::from(*on)]).map(|()| tele.set_enabled(*on)))
        },
        &mut f,
    );
    printed(
        "attaches",
        &|_| {
            let _attached = Carrier::current().attach();
            let _override = Telemetry::disabled().override_current();
            drop(scope!("elsewhere"));
            Ok(())
        },
        &mut f,
    );
    let depth = Cell::new(0);
    printed(
        "recurses",
        &|_| {
            if depth.replace(depth.get() + 1) < 20 {
                drop(scope!("recursive", again = %Runs(|_: &mut fmt::Formatter<'_>| Err(fmt::Error))));
            }
            Ok(())
        },
        &mut f,
    );
}

/// What is wrong with a JSON text.
fn check_json(text: &str) -> Result<(), String> {
    fn value(rest: &str) -> Result<&str, String> {
        let shown = || rest.chars().take(40).collect::<String>();
        match rest.bytes().next() {
            Some(open @ (b'{' | b'[')) => {
                let close = if open == b'{' { '}' } else { ']' };
                let mut rest = rest[1..].trim_start();
                if let Some(rest) = rest.strip_prefix(close) {
                    return Ok(rest);
                }
                loop {
                    if open == b'{' {
                        rest = value(rest)?.trim_start().strip_prefix(':').ok_or("no colon")?.trim_start();
                    }
                    rest = value(rest)?.trim_start();
                    match rest.strip_prefix(',') {
                        Some(more) => rest = more.trim_start(),
                        None => return rest.strip_prefix(close).ok_or(format!("not closed: {}", shown())),
                    }
                }
            }
            Some(b'"') => {
                let mut chars = rest.char_indices().skip(1);
                while let Some((at, it)) = chars.next() {
                    match it {
                        '"' => return Ok(&rest[at + 1..]),
                        '\\' => match chars.next() {
                            Some((_, 'u'))
                                if (0..4).all(|_| chars.next().is_some_and(|it| it.1.is_ascii_hexdigit())) => {}
                            Some((_, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {}
                            other => return Err(format!("escape {other:?}")),
                        },
                        '\0'..' ' => return Err(format!("raw control {it:?}")),
                        _ => {}
                    }
                }
                Err("open string".into())
            }
            _ => {
                let end = rest.find([',', '}', ']', ' ', '\n']).unwrap_or(rest.len());
                let is_number = rest[..end].parse::<f64>().is_ok_and(f64::is_finite);
                let is_word = matches!(&rest[..end], "null" | "true" | "false");
                if is_number || is_word { Ok(&rest[end..]) } else { Err(format!("no value: {}", shown())) }
            }
        }
    }
    value(text.trim())?.trim().is_empty().then_some(()).ok_or("more behind it".to_owned())
}

fn is_printable(text: &str) -> bool {
    let is_hidden = |it: char| matches!(it, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    !text.chars().any(|it| (it.is_control() && it != '\n') || is_hidden(it))
}

/// A context with every kind of reporter, what it kept, and a check that all is well.
struct Watched {
    tele: Telemetry,
    simple: SimpleReporter,
    recording: Recording,
    canaries: Cell<u64>,
}

impl Watched {
    fn new() -> Self {
        let (simple, recording) = (SimpleReporter::new(), Recording::new(512 << 20));
        let tele = Telemetry::builder()
            .queue_bytes(512 << 20)
            .strict_names(false)
            .reporter(LogReporter::new())
            .reporter(simple.clone())
            .reporter(recording.clone())
            .build();
        Self { tele, simple, recording, canaries: Cell::new(0) }
    }

    /// Tries one cell of the matrix, and that a good event behind it is as it should be.
    fn tries(&self, what: &str, act: impl FnOnce()) {
        assert_eq!(Carrier::current(), Carrier::NONE);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(act)) {
            mem::forget(payload);
            panic!("{what}: a panic reached the program");
        }
        assert_eq!(Carrier::current(), Carrier::NONE, "{what}: something is left on the stack");
        assert!(self.tele.is_enabled());
        drop(scope!(self.tele, "canary", n = self.canaries.get()));
        self.canaries.set(self.canaries.get() + 1);
    }

    fn check(self) {
        let flush = self.tele.flush(LONG);
        assert!(flush.is_complete(), "{flush}");
        let (mut canaries, mut events) = (0, 0);
        self.recording.for_each_batch(|batch| {
            for it in batch.timings().filter(|it| it.scope() == "canary") {
                assert_eq!(it.attributes().get("n"), Some(Value::U64(canaries)), "none is lost, none is out of order");
                assert_eq!((it.attributes().count(), it.depth(), it.error_type()), (1, 0, None));
                canaries += 1;
            }
            events += batch.events().count() as u64;
        });
        assert_eq!(canaries, self.canaries.get());
        let stats = self.tele.stats();
        assert_eq!(events, stats.emitted());
        for it in stats.reporters() {
            assert_eq!((it.delivered(), it.failures(), it.is_suspended()), (stats.emitted(), 0, false), "{stats}");
        }
        let report = self.tele.report();
        assert_eq!(report.scope("canary").map(|it| it.calls()), Some(canaries));
        assert_eq!(report.scopes().iter().map(|it| it.calls()).sum::<u64>(), stats.timings());
        assert_eq!(check_json(&report.to_json()), Ok(()));
        assert_eq!(check_json(&self.simple.to_json()), Ok(()));
        assert!(is_printable(&report.to_string()), "{:?}", report.to_string());
        assert!(is_printable(&self.simple.report()), "{:?}", self.simple.report());
        assert!(is_printable(&stats.to_string()));
    }
}

#[test]
fn no_value_escapes_from_any_entry_point() {
    let watched = Watched::new();
    let tele = &watched.tele;
    let _current = tele.override_current();
    with_values(tele, |what, value| {
        watched.tries(what, || drop(scope!("opening", key = value, other = 1)));
        watched.tries(what, || drop(scope!(tele, "opening.in", key = value, scope = value, depth = value)));
        for key in KEYS {
            watched.tries(what, || {
                let scope = scope!("setting", before = 1);
                scope.set(key, value);
                scope.set(key, value);
            });
        }
        watched.tries(what, || scope!("event").event_with("event", &[("key", value), ("key", value), ("", value)]));
        watched.tries(what, || tele.metric("dynamic", value, &[("key", value)]));
        watched.tries(what, || metric!("static", value));
        watched.tries(what, || metric!("static.with", value, key = value));
        watched.tries(what, || metric!(tele, "static.in", value, key = value));
        watched.tries(what, || count!("counter", 1, key = value));
        watched.tries(what, || gauge!("gauge", 1, key = value));
        watched.tries(what, || histogram!(tele, "histogram", 1, key = value));
        watched.tries(what, || tele.counter("bound", &[("key", value), ("", value)]).add(1));
        watched.tries(what, || drop(async {}.in_scope(scope!("task", key = value))));
    });
    watched.check();
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn no_text_escapes_from_any_entry_point() {
    let watched = Watched::new();
    let tele = &watched.tele;
    let _current = tele.override_current();
    let huge = "h".repeat(1 << 20);
    for text in TEXTS.into_iter().chain([huge.as_str()]) {
        watched.tries(text, || drop(tele.scope(text)));
        watched.tries(text, || tele.scope(text).event(text));
        watched.tries(text, || scope!("failing").fail(text));
        watched.tries(text, || scope!("failing.with").fail_with(&Runs(|f| f.write_str(text))));
        watched.tries(text, || tele.metric(text, text, &[(text, text.into())]));
        watched.tries(text, || tele.counter(text, &[(text, text.into())]).add(1));
        watched.tries(text, || tele.gauge(text, &[]).set(1));
        watched.tries(text, || tele.histogram(text, &[]).record(1));
        watched.tries(text, || tele.describe(text, text, text));
        watched.tries(text, || assert!(kastor::TraceParent::parse(text).is_err()));
    }
    let other = Telemetry::builder().build();
    for text in TEXTS.into_iter().chain([huge.as_str(), "*", "**", "?*?*?*?*", "[", "a{b", &"*a".repeat(10_000)]) {
        other.switch_scopes(text, false);
        other.record_paths(text, false);
        drop(other.scope(text));
        drop(other.scope(&"a".repeat(256)));
        other.switch_scopes("*", true);
    }
    watched.check();
}

#[test]
fn an_error_that_cannot_be_printed_still_fails_the_scope() {
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    let run = |print: &dyn Fn(&mut fmt::Formatter<'_>) -> fmt::Result| {
        scope!(tele, "a", kept = 1).fail_with(&Runs(print));
    };
    run(&|_| resume_unwind(Box::new(1)));
    run(&|_| Err(fmt::Error));
    run(&|_| Ok(()));
    assert!(tele.flush(LONG).is_complete());
    let mut found = 0;
    recording.for_each_batch(|batch| {
        for it in batch.timings() {
            assert!(it.error_type().is_some_and(|it| !it.is_empty()));
            assert_eq!(it.attributes().get("kept"), Some(Value::I64(1)));
            found += 1;
        }
    });
    assert_eq!((found, tele.report().scope("a").map(|it| it.errors())), (3, Some(3)));
}

#[test]
fn a_panic_whose_payload_panics_in_turn_does_not_escape_either() {
    let watched = Watched::new();
    let bomb = Runs(|_: &mut fmt::Formatter<'_>| resume_unwind(Box::new(Bomb)));
    watched.tries("opening", || drop(scope!(watched.tele, "a", key = %bomb)));
    watched.tries("setting", || scope!(watched.tele, "a").set("key", Value::Debug(&bomb)));
    watched.tries("recording", || watched.tele.metric("m", Value::Display(&bomb), &[]));
    watched.tries("failing", || scope!(watched.tele, "a").fail_with(&bomb));
    watched.check();
}

#[test]
fn a_value_may_set_attributes_on_the_scope_that_it_is_printed_for() {
    let simple = SimpleReporter::new();
    let tele = Telemetry::builder().reporter(simple.clone()).build();
    let scope = Rc::new(scope!(tele, "a", first = 1));
    let inner = Rc::clone(&scope);
    let again = Runs(move |f: &mut fmt::Formatter<'_>| {
        inner.set("inner", "i");
        inner.event("printed");
        inner.fail("inside");
        let same = Rc::clone(&inner);
        inner.set(
            "innermost",
            Value::Display(&Runs(move |f| {
                same.set("deepest", 3);
                f.write_str("im")
            })),
        );
        f.write_str("outer text")
    });
    scope.set("outer", Value::Display(&again));
    scope.set("last", 9);
    drop(again);
    drop(scope);
    let timings = simple.timings();
    let metadata = &timings["a"][0].1;
    let value = |key: &str| metadata.iter().find(|it| it.0 == key).map(|it| it.1.clone());
    let text = |text: &'static str| Some(OwnedValue::Text(text.into()));
    assert_eq!((value("first"), value("last")), (Some(OwnedValue::I64(1)), Some(OwnedValue::I64(9))));
    assert_eq!((value("inner"), value("innermost"), value("outer")), (text("i"), text("im"), text("outer text")));
    assert_eq!((value("deepest"), value("error_type")), (Some(OwnedValue::I64(3)), text("inside")));
}

#[test]
fn the_text_before_a_panic_or_a_refusal_costs_only_its_own_value() {
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    drop(scope!(tele, "a", one = 1, bad = %Runs(|_| resume_unwind(Box::new(1))), two = 2));
    drop(scope!(tele, "b", one = 1, bad = ?Runs(|f| f.write_str("x").and(Err(fmt::Error))), two = 2));
    assert!(tele.flush(LONG).is_complete());
    recording.for_each_batch(|batch| {
        for it in batch.timings() {
            assert_eq!((it.attributes().get("one"), it.attributes().get("two")), (Some(1.into()), Some(2.into())));
            assert_eq!(it.error_type(), None, "the program did not fail");
        }
    });
    assert_eq!(recording.len(), 2);
}

/// Fills a scope's event, and again while a value for it is printed, and so on.
fn fill(scope: &Rc<Scope>, levels: u32) {
    let value = "v".repeat(4096);
    (0..14).for_each(|_| scope.event_with("event", &[("key", Value::Str(&value))]));
    if levels > 0 {
        let inner = Rc::clone(scope);
        let refills = move |f: &mut fmt::Formatter<'_>| {
            fill(&inner, levels - 1);
            f.write_str("filled")
        };
        scope.set("refilled", Value::Display(&Runs(refills)));
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn an_event_that_fills_itself_while_it_is_printed_keeps_its_limit_and_its_batch() {
    for levels in [1, 3, 20, 300] {
        let recording = Recording::new(1 << 30);
        let tele = Telemetry::builder().queue_bytes(1 << 30).reporter(recording.clone()).build();
        drop(scope!(tele, "before"));
        let full = Rc::new(scope!(tele, "full"));
        fill(&full, levels);
        drop(full);
        drop(scope!(tele, "after"));
        assert!(tele.flush(LONG).is_complete());
        let mut paths = Vec::new();
        recording.for_each_batch(|batch| batch.timings().for_each(|it| paths.push(it.scope())));
        assert!(paths == ["before", "full", "after"], "{levels} levels: {} events", paths.len());
        assert!(recording.bytes() <= (64 << 10) + 1024, "{levels} levels: {} bytes", recording.bytes());
    }
}
