//! Chrome traces: re-parsed by serde_json, and held to what their readers make of them.

mod reading;

use std::{thread, time::Duration};

use kastor::{DropReason, MockClock, Telemetry, count, gauge, metric, scope};
use kastor_export::chrome::{Chrome, Config};
use reading::Folder;
use serde_json::Value;

/// Only ever an upper bound.
const LONG: Duration = Duration::from_secs(60);
/// Where the mock clock begins, in the file: its zero is the midnight before the last.
const ZERO_US: f64 = 1_000_000_000_000_000.0 - 999_907_200_000_000.0;

fn ns(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

struct Trace(Vec<Value>);

impl Trace {
    fn read(path: &std::path::Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let Value::Array(events) = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")) else {
            panic!("no array: {text}");
        };
        Self(events)
    }

    fn of(&self, phase: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |event| event["ph"] == phase)
    }

    #[track_caller]
    fn scope(&self, name: &str) -> &Value {
        let mut found = self.of("X").filter(|event| event["name"] == name);
        let first = found.next().unwrap_or_else(|| panic!("no {name}"));
        assert!(found.next().is_none(), "two named {name}");
        first
    }

    /// (begin, duration) in nanoseconds since the mock clock began.
    fn times(&self, name: &str) -> (u64, u64) {
        let scope = self.scope(name);
        let ns = |us: f64| (us * 1_000.0).round() as u64;
        (ns(scope["ts"].as_f64().unwrap() - ZERO_US), ns(scope["dur"].as_f64().unwrap()))
    }

    fn thread_name(&self, event: &Value) -> String {
        let of = |it: &&Value| it["name"] == "thread_name" && it["tid"] == event["tid"] && it["pid"] == event["pid"];
        self.of("M").find(of).expect("a name for every thread")["args"]["name"].as_str().unwrap().to_owned()
    }

    /// Every pair of slices of one thread is disjoint or one inside the other.
    fn assert_nests(&self) {
        let mut slices: Vec<(u64, i64, i64)> = self
            .of("X")
            .map(|event| {
                let ns = |key: &str| (event[key].as_f64().unwrap() * 1_000.0).round() as i64;
                (event["tid"].as_u64().unwrap(), ns("ts"), ns("ts") + ns("dur"))
            })
            .collect();
        slices.sort_by_key(|(tid, begin, end)| (*tid, *begin, -end));
        let mut open: Vec<(u64, i64)> = Vec::new();
        for (tid, begin, end) in slices {
            open.retain(|(of, until)| *of == tid && *until > begin);
            assert!(open.last().is_none_or(|(_, until)| end <= *until), "{begin} to {end} on {tid} crosses another");
            open.push((tid, end));
        }
    }
}

fn trace_with(config: Config, program: impl FnOnce(&Telemetry, &MockClock)) -> Trace {
    let folder = Folder::new();
    let path = folder.file("trace.json");
    let clock = MockClock::new();
    let tele = Telemetry::builder().reporter(Chrome::create(&path, config).unwrap()).clock(clock.clone()).build();
    {
        let _current = tele.override_current();
        program(&tele, &clock);
    }
    assert!(tele.flush(LONG).is_complete());
    let trace = Trace::read(&path);
    trace.assert_nests();
    trace
}

fn trace(program: impl FnOnce(&Telemetry, &MockClock)) -> Trace {
    trace_with(Config::default(), program)
}

#[test]
fn every_field_of_a_scope_is_in_the_trace() {
    let trace = trace_with(Config::default().process_name("prog").ids(true), |tele, clock| {
        let job = scope!("job", rows = 3, ratio = 0.5, ok = true, who = "ann", nan = f64::NAN);
        clock.advance(ns(1_001));
        {
            let parse = scope!("parse");
            parse.event_with("retry", &[("attempt", 2_u64.into())]);
            clock.advance(ns(500));
            parse.fail("bad");
        }
        clock.advance(ns(250));
        metric!("size", 7);
        metric!("state", "ready", why = "asked");
        count!("bytes", 512, kind = "a");
        gauge!("load", 0.5);
        drop(job);
        assert!(tele.flush(LONG).is_complete());
    });
    assert_eq!((trace.times("job"), trace.times("parse")), ((0, 1_751), (1_001, 500)));
    let (job, parse) = (trace.scope("job"), trace.scope("parse"));
    assert_eq!((job["cat"].as_str(), parse["cat"].as_str()), (Some("scope"), Some("scope,failed")));
    assert_eq!((&parse["args"]["error_type"], &parse["cname"]), (&"bad".into(), &"terrible".into()));
    let ids = (job["args"]["trace_id"].as_str().unwrap(), job["args"]["span_id"].as_str().unwrap());
    assert_eq!((ids.0.len(), ids.1.len()), (32, 16));
    let expected = serde_json::json!({"rows": 3, "ratio": 0.5, "ok": true, "who": "ann", "nan": "NaN",
        "trace_id": ids.0, "span_id": ids.1});
    assert_eq!(job["args"], expected);
    assert_eq!(job["pid"], std::process::id());
    assert_eq!(trace.thread_name(job), thread::current().name().unwrap());
    let process = trace.of("M").find(|it| it["name"] == "process_name").unwrap();
    assert_eq!(process["args"]["name"], "prog");
    let clock = trace.of("M").find(|it| it["name"] == "kastor_clock").unwrap();
    assert_eq!(clock["args"]["zero_unix_ns"], "999907200000000000");

    let instants: Vec<_> = trace.of("i").map(|it| (&it["name"], &it["args"])).collect();
    let args = [serde_json::json!({"attempt": 2}), serde_json::json!({"value": "ready", "why": "asked"})];
    assert_eq!(instants, [(&"retry".into(), &args[0]), (&"job.state".into(), &args[1])]);
    let mut counters: Vec<_> =
        trace.of("C").map(|it| (it["name"].as_str().unwrap(), it["args"]["value"].as_f64().unwrap())).collect();
    counters.sort_by(|a, b| a.0.cmp(b.0));
    counters.dedup();
    assert_eq!(counters, [("job.bytes{kind=\"a\"}", 512.0), ("job.load", 0.5), ("job.size", 7.0)]);
}

#[test]
fn a_carried_context_is_an_arrow_whichever_end_comes_first() {
    let trace = trace(|tele, clock| {
        let request = scope!("request");
        let carrier = request.carrier();
        clock.advance(ns(10));
        let job = |name: &'static str| {
            thread::scope(|threads| {
                let work = || {
                    let _current = tele.override_current();
                    let _attached = carrier.attach();
                    let _job = tele.scope(name);
                    clock.advance(ns(10));
                };
                threads.spawn(work).join().unwrap();
            });
            assert!(tele.flush(LONG).is_complete());
        };
        job("early"); // arrives before its parent
        drop(request);
        job("late"); // and this one after it
    });
    let request = trace.scope("request");
    for name in ["early", "late"] {
        let job = trace.scope(name);
        assert_ne!(job["tid"], request["tid"]);
        let end = trace.of("f").find(|it| it["tid"] == job["tid"]).expect("an end");
        let begin = trace.of("s").find(|it| it["id"] == end["id"]).expect("a begin");
        assert_eq!((&begin["tid"], &begin["ts"]), (&request["tid"], &request["ts"]));
        assert_eq!((&end["ts"], &end["bp"], &end["cat"]), (&job["ts"], &"e".into(), &begin["cat"]));
    }
    assert_eq!((trace.of("s").count(), trace.of("f").count()), (2, 2));
}

#[test]
fn hostile_text_neither_breaks_the_file_nor_hides_in_it() {
    let hostile = "a\"b\\c\n\r\t\u{1b}[31m\u{7f}\u{9b}\u{85}\u{202e}\u{200b}\u{feff}\u{2028}\u{e0041};{}]\u{0}é😀";
    let folder = Folder::new();
    let path = folder.file("trace.json");
    let config = Config::default().process_name(hostile);
    let tele = Telemetry::builder().reporter(Chrome::create(&path, config).unwrap()).build();
    let named = tele.clone();
    let thread = thread::Builder::new().name(hostile.replace('\0', ""));
    let program = move || {
        let scope = named.scope(hostile);
        scope.set("text", hostile);
        scope.event(hostile);
        scope.fail(hostile);
    };
    thread.spawn(program).unwrap().join().unwrap();
    assert!(tele.flush(LONG).is_complete());
    let trace = Trace::read(&path);
    let scope = trace.of("X").next().unwrap();
    assert_eq!(
        (&scope["name"], &scope["args"]["text"], &scope["args"]["error_type"]),
        (&hostile.into(), &hostile.into(), &hostile.into())
    );
    assert_eq!(trace.of("i").next().unwrap()["name"], hostile);
    let raw = std::fs::read_to_string(&path).unwrap();
    let controls: Vec<char> = raw
        .chars()
        .filter(|it| (it.is_control() && *it != '\n') || !(it.is_ascii() || *it == 'é' || *it == '😀'))
        .collect();
    assert_eq!(controls, []);
    assert!(raw.lines().all(
        |line| ["[", "]", ""].contains(&line) || serde_json::from_str::<Value>(line.trim_end_matches(',')).is_ok()
    ));
}

#[test]
fn the_file_is_whole_after_every_flush_and_readable_when_cut() {
    let folder = Folder::new();
    let path = folder.file("trace.json");
    let tele = Telemetry::builder().reporter(Chrome::create(&path, Config::default()).unwrap()).build();
    for round in 1..=3 {
        for _ in 0..10 {
            drop(scope!(tele, "job", n = 1));
        }
        assert!(tele.flush(LONG).is_complete());
        assert_eq!(Trace::read(&path).of("X").count(), round * 10);
    }
    let whole = std::fs::read_to_string(&path).unwrap();
    // What a reader does with a file that was cut: it takes the whole lines and closes the array.
    for cut in (1..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
        let kept = whole[..cut].rsplit_once('\n').map_or("[", |(lines, _)| lines);
        let closed = format!("{}]", kept.trim_end_matches([',', '\n', ']']));
        assert!(serde_json::from_str::<Vec<Value>>(&closed).is_ok(), "{closed}");
    }
}

#[test]
fn a_writer_gets_its_closing_bracket_at_the_end() {
    use std::sync::{Arc, Mutex};
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let written = Shared::default();
    let chrome = Chrome::to_writer(written.clone(), Config::default());
    let tele = Telemetry::builder().reporter(chrome).build();
    // A thread keeps the contexts alive that it recorded in; with this one and the handle the reporter ends.
    thread::spawn(move || drop(scope!(tele, "job"))).join().unwrap();
    let started = std::time::Instant::now();
    while !written.0.lock().unwrap().ends_with(b"\n]\n") {
        assert!(started.elapsed() < LONG);
        thread::yield_now();
    }
    let events: Vec<Value> = serde_json::from_slice(&written.0.lock().unwrap()).unwrap();
    assert_eq!(events.iter().filter(|event| event["ph"] == "X").count(), 1);
}

#[test]
fn a_hundred_thousand_levels_nest() {
    let trace = trace(|tele, clock| {
        let mut open = Vec::new();
        for _ in 0..100_000 {
            clock.advance(ns(1));
            open.push(tele.scope("level"));
        }
        while let Some(innermost) = open.pop() {
            clock.advance(ns(1));
            drop(innermost);
        }
    });
    assert_eq!(trace.of("X").count(), 100_000);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_counted() {
    let chrome = Chrome::create("/dev/full", Config::default()).unwrap();
    let tele = Telemetry::builder().reporter(chrome).build();
    drop(scope!(tele, "job"));
    tele.flush(LONG);
    let stats = tele.stats();
    let it = &stats.reporters()[0];
    assert_eq!((it.delivered(), it.dropped().of(DropReason::ReporterFailed)), (0, 1), "{stats}");
}
