//! Everything that writes files, on a disk that fails, for `cargo xtask integration disk`.
//!
//! `disk_workload inject STRACE WRITER FOLDER` finds out which system calls a writer makes on files, and lets each of them
//! fail: once, at the first few times and at the last, and from then on for ever. Whatever fails, the process ends in
//! order and in time, its accounts add up, what it counted as delivered can be read, and what it made durable is there.
//!
//! `disk_workload full WRITER FOLDER` writes into a folder whose file system is small, with a file `ballast` in it, until
//! that is full; takes the ballast away, and goes on.
//!
//! `disk_workload write WRITER FOLDER PORT` is the process that writes: it says so in datagrams, which no failing file can
//! keep from arriving.

use std::{
    collections::HashSet,
    env, fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use kastor::{DropReason, ReporterStats, Telemetry, scope};
use kastor_export::{
    JsonLines, Otlp, OtlpConfig, OtlpReplay, Retry, SpoolConfig,
    capture::{Capture, CaptureConfig, Part, Reader, StoredValue},
    chrome, perfetto,
};
use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value};
use other_side::server::Server;

#[path = "disk_workload/inject.rs"]
mod inject;
#[path = "../tests/other_side/mod.rs"]
mod other_side;

const WRITERS: [&str; 5] = ["capture", "spool", "json-lines", "chrome", "perfetto"];
/// How often the process that writes makes durable what it recorded, and how much it records in between.
const ROUNDS: u64 = 5;
const EVENTS: u64 = 100;
/// So long it waits in between: writers pause a quarter of a second after a failure.
const PAUSE: Duration = Duration::from_millis(80);
/// Only ever an upper bound.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["inject", strace, writer, folder] => inject::inject(strace, known(writer), folder.as_ref()),
        ["full", writer, folder] => full(known(writer), folder.as_ref()),
        ["write", writer, folder, port] => write(known(writer), folder.as_ref(), port.parse().expect("a port")),
        _ => panic!("usage: disk_workload inject STRACE WRITER FOLDER | full WRITER FOLDER"),
    }
}

fn known(writer: &str) -> &str {
    assert!(WRITERS.contains(&writer), "{writer} is none of {WRITERS:?}");
    writer
}

/// A context that writes into this folder. None if what is opened at once could not be.
fn telemetry(writer: &str, folder: &Path) -> Option<Telemetry> {
    let builder = Telemetry::builder().interval(Duration::from_secs(3600));
    let tele = match writer {
        "capture" => {
            // More than one file, so that all that belongs to a new one fails, too.
            let config = CaptureConfig::new(folder).max_file_bytes(64 << 10);
            builder.reporter(Capture::with(config))
        }
        "spool" => {
            // Nobody listens there.
            let retry = Retry { initial: PATIENCE, longest: PATIENCE, ..Retry::default() };
            let spool = SpoolConfig::new(folder).max_segment_bytes(16 << 10);
            let config = OtlpConfig::new("http://127.0.0.1:9").retry(retry).without_metrics().spool(spool);
            builder.reporter(Otlp::new(config.max_request_events(50)).ok()?)
        }
        "json-lines" => builder.reporter(JsonLines::create(folder.join("events.jsonl")).ok()?.rotate(32 << 10, 20)),
        "chrome" => {
            builder.reporter(chrome::Chrome::create(folder.join("trace.json"), chrome::Config::default()).ok()?)
        }
        _ => {
            let path = folder.join("trace.perfetto-trace");
            builder.reporter(perfetto::Perfetto::create(path, perfetto::Config::default()).ok()?)
        }
    };
    Some(tele.build())
}

fn emit(tele: &Telemetry, from: u64, events: u64) {
    let _current = tele.override_current();
    (from..from + events).for_each(|number| drop(scope!("step", number = number, text = "some text value!")));
}

fn of_reporter(tele: &Telemetry) -> ReporterStats {
    tele.stats().reporters()[0].clone()
}

/// The process that writes; see the module. It never touches a file besides what its writer does.
fn write(writer: &str, folder: &Path, port: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(("127.0.0.1", port)).expect("a socket");
    let say = |text: &str| drop(socket.send(text.as_bytes()));
    say("ready");
    let mut go = [0; 2];
    assert!(socket.recv(&mut go).is_ok());
    let Some(tele) = telemetry(writer, folder) else {
        return say("refused");
    };
    for round in 0..ROUNDS {
        emit(&tele, round * EVENTS, EVENTS);
        tele.flush(Duration::from_millis(if writer == "spool" { 1 } else { 2000 }));
        if tele.persist(PATIENCE).is_complete() {
            // Read after the call: what was dropped until then is no part of it.
            say(&format!("kept {} {}", (round + 1) * EVENTS, of_reporter(&tele).dropped().total()));
        }
        thread::sleep(PAUSE);
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let (stats, it) = (tele.stats(), of_reporter(&tele));
        let sum = it.delivered() + it.dropped().total() + it.queued() + it.spooled();
        if stats.emitted() == sum {
            say(&format!("accounts {} {} {}", it.delivered(), it.dropped().total(), it.queued() + it.spooled()));
            break;
        }
        if Instant::now() > until {
            break say(&format!("uneven {stats} spooled {}", it.spooled()));
        }
        thread::sleep(Duration::from_millis(2));
    }
    if writer == "spool" {
        // As hard as can be: what is durable is on the disk.
        kill_oneself();
    }
    drop(tele);
}

fn kill_oneself() {
    #[cfg(unix)]
    // SAFETY: the process ends here.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
}

/// The numbers of the events that can be read in a folder.
fn found(writer: &str, folder: &Path) -> HashSet<u64> {
    match writer {
        "capture" => files(folder, "kcap").iter().flat_map(|file| in_capture(file)).collect(),
        "spool" => in_spool(folder),
        "json-lines" => {
            let texts = files(folder, "jsonl").into_iter().map(|file| fs::read_to_string(file).expect("text"));
            texts.flat_map(|text| text.lines().flat_map(in_line).collect::<Vec<_>>()).collect()
        }
        "chrome" => in_chrome(&folder.join("trace.json")),
        // Its classes belong to Python, see the subject `trace`.
        _ => HashSet::new(),
    }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    // A rotated file has its number behind the name.
    entries.filter(|path| path.to_string_lossy().contains(&format!(".{extension}"))).collect()
}

fn in_capture(file: &Path) -> Vec<u64> {
    let mut reader = Reader::open(file).expect("a capture");
    let mut numbers = Vec::new();
    while let Some(part) = reader.read().expect("a capture of this version") {
        match part {
            Part::Block(block) => numbers.extend(block.timings().map(|timing| {
                match timing.attributes().find(|attribute| attribute.key == "number").map(|attribute| attribute.value) {
                    Some(StoredValue::U64(number)) => number,
                    other => panic!("{other:?} as a number"),
                }
            })),
            Part::Damage(damage) => panic!("{}: {damage}", file.display()),
            _ => {}
        }
    }
    numbers
}

fn in_spool(folder: &Path) -> HashSet<u64> {
    let server = Server::start();
    let replay = OtlpReplay::new(OtlpConfig::new(server.url())).expect("a good configuration");
    let sent = replay.spool(&SpoolConfig::new(folder)).expect("a spool that can be opened");
    assert_eq!((sent.left, sent.refused), (0, 0), "{sent:?}");
    let requests = server.received().into_iter().filter_map(|received| received.traces());
    requests.flat_map(|request| numbers_in(&request)).collect()
}

fn in_line(line: &str) -> Vec<u64> {
    match serde_json::from_str::<ExportTraceServiceRequest>(line) {
        Ok(request) => numbers_in(&request),
        Err(error) => panic!("{error} in {line}"),
    }
}

fn numbers_in(request: &ExportTraceServiceRequest) -> Vec<u64> {
    let spans = request.resource_spans.iter().flat_map(|it| &it.scope_spans).flat_map(|it| &it.spans);
    let numbers = spans.map(|span| {
        let number = span.attributes.iter().find(|attribute| attribute.key == "number");
        match number.and_then(|number| number.value.as_ref()?.value.as_ref()) {
            Some(Value::IntValue(number)) => *number as u64,
            other => panic!("{other:?} as a number"),
        }
    });
    numbers.collect()
}

/// What was cut in the middle of a batch lacks its end, as the format allows.
fn in_chrome(file: &Path) -> HashSet<u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    if text.is_empty() {
        return HashSet::new();
    }
    let whole = serde_json::from_str::<serde_json::Value>(&text)
        .or_else(|_| serde_json::from_str(&format!("{}]", text.trim_end().trim_end_matches(','))));
    let events = whole.unwrap_or_else(|error| panic!("{error} in {text}"));
    let numbers = events.as_array().into_iter().flatten().filter_map(|event| event["args"]["number"].as_u64());
    numbers.collect()
}

/// See the module.
fn full(writer: &str, folder: &Path) {
    let tele = telemetry(writer, folder).expect("room for the beginning");
    let mut next = 0;
    let mut turn = || {
        emit(&tele, next, 500);
        next += 500;
        tele.flush(Duration::from_millis(if writer == "spool" { 1 } else { 2000 }));
        let is_kept = tele.persist(PATIENCE).is_complete();
        (is_kept, of_reporter(&tele))
    };
    let until = Instant::now() + PATIENCE;
    let is_lost = |it: &ReporterStats| it.dropped().total() > 0;
    let mut last = turn();
    while !is_lost(&last.1) {
        assert!(Instant::now() < until, "the disk never fills: {:?}", last.1);
        last = turn();
    }
    fs::remove_file(folder.join("ballast")).expect("the ballast");
    let before = last.1.delivered() + last.1.spooled();
    while last.1.delivered() + last.1.spooled() <= before {
        assert!(Instant::now() < until, "nothing is written though there is room: {:?}", last.1);
        thread::sleep(PAUSE);
        last = turn();
    }
    let (stats, it) = (tele.stats(), of_reporter(&tele));
    let sum = it.delivered() + it.dropped().total() + it.queued() + it.spooled();
    assert_eq!(stats.emitted(), sum, "{stats} spooled {}", it.spooled());
    let reasons = [DropReason::SpoolFull, DropReason::SpoolIo, DropReason::ReporterFailed, DropReason::QueueFull];
    assert_eq!(reasons.iter().map(|reason| it.dropped().of(*reason)).sum::<u64>(), it.dropped().total(), "{it:?}");
    println!(
        "{} of {} written, {} dropped and counted",
        it.delivered() + it.spooled(),
        stats.emitted(),
        it.dropped().total()
    );
}
