//! Events as plain data, from a capture and from what the core's own getters say, to be compared.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use kastor::{Event, Outcome, Recording, Telemetry, Value, count, gauge, histogram, metric, scope};
use kastor_export::capture::{Attribute, Part, Reader, Record, StoredValue};

/// Only ever an upper bound: nothing waits this long unless it is broken.
pub const LONG: Duration = Duration::from_secs(30);

/// One event, in words.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub struct Seen {
    pub path: String,
    pub thread: u32,
    pub start_unix_ns: u64,
    pub duration_ns: u64,
    pub depth: u32,
    pub ids: (Option<u128>, u64, Option<u64>),
    pub is_failed: bool,
    pub error_type: Option<String>,
    pub attributes: Vec<(String, String)>,
    /// Point events, links, the value of a metric.
    pub rest: Vec<String>,
}

fn words(value: &Value<'_>) -> String {
    match value {
        Value::I64(value) => format!("i{value}"),
        Value::U64(value) => format!("u{value}"),
        Value::F64(value) => format!("f{value:?}"),
        Value::Str(value) => format!("s{value}"),
        Value::Bytes(value) => format!("b{value:?}"),
        Value::Bool(value) => format!("{value}"),
        _ => "null".into(),
    }
}

fn stored_words(value: &StoredValue<'_>) -> String {
    match value {
        StoredValue::I64(value) => format!("i{value}"),
        StoredValue::U64(value) => format!("u{value}"),
        StoredValue::F64(value) => format!("f{value:?}"),
        StoredValue::Str(value) => format!("s{value}"),
        StoredValue::Bytes(value) => format!("b{value:?}"),
        StoredValue::Bool(value) => format!("{value}"),
        StoredValue::Null => "null".into(),
    }
}

fn stored_pairs<'a>(attributes: impl Iterator<Item = Attribute<'a>>) -> Vec<(String, String)> {
    attributes.map(|it| (it.key.to_owned(), stored_words(&it.value))).collect()
}

fn pairs<'a>(attributes: impl Iterator<Item = (&'static str, Value<'a>)>) -> Vec<(String, String)> {
    attributes.map(|(key, value)| (key.to_owned(), words(&value))).collect()
}

/// What a recording holds.
pub fn recorded(recording: &Recording) -> Vec<Seen> {
    let mut all = Vec::new();
    recording.for_each_batch(|batch| {
        all.extend(batch.events().map(|event| {
            match event {
                Event::Timing(it) => Seen {
                    path: it.scope().into(),
                    thread: it.thread().index(),
                    start_unix_ns: it.start_unix_ns(),
                    duration_ns: it.duration_ns(),
                    depth: it.depth(),
                    ids: (Some(it.trace_id()), it.span_id(), it.parent_span_id()),
                    is_failed: it.outcome() == Outcome::Failed,
                    error_type: it.error_type().map(str::to_owned),
                    attributes: pairs(it.attributes()),
                    rest: it
                        .events()
                        .map(|event| format!("{} {} {:?}", event.name(), event.unix_ns(), pairs(event.attributes())))
                        .chain(it.links().map(|link| format!("{link:?}")))
                        .chain([format!("{} {}", it.is_sampled(), it.dropped_items())])
                        .collect(),
                },
                Event::Metric(it) => Seen {
                    path: it.scope().into(),
                    thread: it.thread().index(),
                    start_unix_ns: it.unix_ns(),
                    duration_ns: 0,
                    depth: it.depth(),
                    ids: (it.trace_id(), 0, it.parent_span_id()),
                    is_failed: false,
                    error_type: None,
                    attributes: pairs(it.attributes()),
                    rest: vec![words(&it.value())],
                },
            }
        }));
    });
    all
}

/// What a capture holds; panics at damage.
pub fn captured(path: &Path) -> Vec<Seen> {
    let mut reader = Reader::open(path).unwrap();
    let mut all = Vec::new();
    while let Some(part) = reader.read().unwrap() {
        let block = match part {
            Part::Block(block) => block,
            Part::Damage(damage) => panic!("{}: {damage}", path.display()),
            _ => continue,
        };
        let (tables, thread) = (block.tables(), block.thread());
        assert_eq!(block.len() as usize, block.records().count());
        all.extend(block.records().map(|record| {
            match record {
                Record::Timing(it) => Seen {
                    path: tables.path_text(it.path_id()),
                    thread,
                    start_unix_ns: it.start_unix_ns(),
                    duration_ns: it.duration_ns(),
                    depth: it.depth(),
                    ids: (Some(it.trace_id()), it.span_id(), it.parent_span_id()),
                    is_failed: it.outcome() == Outcome::Failed,
                    error_type: it.error_type().map(str::to_owned),
                    attributes: stored_pairs(it.attributes()),
                    rest: it
                        .events()
                        .map(|event| {
                            format!("{} {} {:?}", event.name(), event.unix_ns(), stored_pairs(event.attributes()))
                        })
                        .chain(it.links().map(|link| format!("{link:?}")))
                        .chain([format!("{} {}", it.is_sampled(), it.dropped_items())])
                        .collect(),
                },
                Record::Metric(it) => Seen {
                    path: tables.path_text(it.path_id()),
                    thread,
                    start_unix_ns: it.unix_ns(),
                    duration_ns: 0,
                    depth: it.depth(),
                    ids: (it.trace_id(), 0, it.parent_span_id()),
                    is_failed: false,
                    error_type: None,
                    attributes: stored_pairs(it.attributes()),
                    rest: vec![stored_words(&it.value())],
                },
            }
        }));
    }
    assert_eq!(reader.torn_bytes(), 0, "{}", path.display());
    all
}

/// Scopes of all kinds. The context is the current one, too.
pub fn work(telemetry: &Telemetry, turn: u64) {
    let job = scope!("job", turn = turn, name = "näme", ratio = 0.5, big = u64::MAX, raw = &[1u8, 2, 255][..]);
    job.event("begun");
    {
        let parse = scope!("parse", rows = -3);
        parse.set("rows", 4);
        parse.set("ok", true);
        if turn % 2 == 1 {
            parse.fail("bad_input");
        }
        let carrier = job.carrier();
        std::thread::scope(|threads| {
            threads.spawn(move || {
                let _attached = carrier.attach();
                drop(scope!(telemetry, "elsewhere"));
            });
        });
    }
    metric!("size", 1.5, unit = "B");
    metric!("label", "text");
    metric!("count", 7u64);
    count!("done", 2, kind = "x");
    gauge!("level", 3.5);
    histogram!("wait", 0.25);
}

/// Runs the test `name` of this same executable in a process of its own, where the variable is set.
pub fn again(name: &str, value: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env("KASTOR_TEST_CHILD", value);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// In a process that `again` started: what it was started with.
pub fn child_of(_name: &str) -> Option<String> {
    std::env::var("KASTOR_TEST_CHILD").ok()
}

/// The captures in a folder, by name.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
