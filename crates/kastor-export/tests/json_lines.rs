//! JSON lines: each line a request, read back by the official types.
#![cfg(feature = "otlp")]

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use kastor::{DropReason, Telemetry, count, scope};
use kastor_export::JsonLines;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    metrics::v1::Metric,
    trace::v1::Span,
};

const LONG: Duration = Duration::from_secs(20);

fn read(text: &str) -> (Vec<Span>, Vec<Metric>) {
    let (mut spans, mut metrics) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if line.starts_with("{\"resourceSpans\":") {
            let request: ExportTraceServiceRequest = serde_json::from_str(line).unwrap();
            spans.extend(request.resource_spans.into_iter().flat_map(|it| it.scope_spans).flat_map(|it| it.spans));
        } else {
            let request: ExportMetricsServiceRequest = serde_json::from_str(line).unwrap();
            assert!(!request.resource_metrics.is_empty(), "{line}");
            metrics
                .extend(request.resource_metrics.into_iter().flat_map(|it| it.scope_metrics).flat_map(|it| it.metrics));
        }
    }
    (spans, metrics)
}

fn lines_in(path: &Path) -> (Vec<Span>, Vec<Metric>) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    read(&text)
}

fn told(lines: JsonLines) -> Telemetry {
    Telemetry::builder().reporter(lines).build()
}

#[test]
fn every_scope_and_the_newest_sums_are_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let tele = told(JsonLines::create(&path).unwrap().service_name("shop"));
    {
        let _current = tele.override_current();
        for number in 0..5_000_u32 {
            let _scope = scope!("step", number = number, text = "line\nbreak \u{1b}");
            count!("steps");
        }
    }
    assert!(tele.persist(LONG).is_complete());
    let (spans, metrics) = lines_in(&path);
    assert_eq!(spans.len(), 5_000);
    let steps = metrics.iter().rfind(|metric| metric.name == "steps").unwrap();
    assert!(format!("{steps:?}").contains("AsInt(5000)"), "{steps:?}");
    assert!(fs::read_to_string(&path).unwrap().contains(r#"{"key":"service.name","value":{"stringValue":"shop"}}"#));
    let stats = tele.stats();
    assert_eq!((stats.reporters()[0].delivered(), stats.reporters()[0].queued()), (5_000, 0));
}

#[test]
fn a_file_that_has_grown_to_its_bound_makes_way_and_the_oldest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let tele = told(JsonLines::create(&path).unwrap().rotate(100_000, 2));
    for _ in 0..40 {
        (0..100).for_each(|_| drop(tele.scope("step")));
        assert!(tele.flush(LONG).is_complete());
    }
    let names = |number: &str| folder.path().join(format!("events.jsonl{number}"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    for name in [names(""), names(".1"), names(".2")] {
        let length = fs::metadata(&name).unwrap().len();
        assert!(length <= 100_000, "{name:?}: {length}");
        lines_in(&name);
    }
    let last = tele.stats();
    assert_eq!(last.reporters()[0].delivered(), 4_000);
}

#[test]
fn it_appends_to_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    for expected in 1..=3 {
        let tele = told(JsonLines::create(&path).unwrap());
        drop(tele.scope("step"));
        assert!(tele.shutdown(LONG).is_complete());
        assert_eq!(lines_in(&path).0.len(), expected);
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let error = JsonLines::create(folder.path().join("missing/events.jsonl")).unwrap_err();
    assert!(error.to_string().contains("missing/events.jsonl"), "{error}");
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_old_file_that_cannot_be_moved_costs_no_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let named = |end: &str| folder.path().join(format!("events.jsonl{end}"));
    // Nothing can be renamed to a folder that is not empty.
    std::fs::create_dir_all(named(".3").join("full")).unwrap();
    let tele = told(JsonLines::create(&path).unwrap().rotate(2_000, 3));
    for _ in 0..20 {
        (0..10).for_each(|_| drop(tele.scope("step")));
        assert!(tele.flush(LONG).is_complete());
    }
    let found: usize = ["", ".1", ".2"].iter().map(|end| lines_in(&named(end)).0.len()).sum();
    assert_eq!(found, 200);
}

#[test]
fn any_writer_will_do() {
    let shared = Shared::default();
    let tele = told(JsonLines::new(shared.clone()));
    drop(tele.scope("step"));
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(read(&String::from_utf8(shared.0.lock().unwrap().clone()).unwrap()).0.len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_counted_and_harms_nothing() {
    let tele = told(JsonLines::create("/dev/full").unwrap());
    (0..100).for_each(|_| drop(tele.scope("step")));
    tele.flush(LONG);
    let stats = tele.stats();
    let of_reporter = &stats.reporters()[0];
    assert_eq!((of_reporter.delivered(), of_reporter.dropped().of(DropReason::ReporterFailed)), (0, 100), "{stats}");
}

#[cfg(unix)]
#[test]
fn a_forked_child_has_a_file_of_its_own_and_writes_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let tele = told(JsonLines::create(&path).unwrap());
    (0..10).for_each(|_| drop(tele.scope("parent")));
    assert!(tele.flush(LONG).is_complete());
    (0..10).for_each(|_| drop(tele.scope("parent")));
    // SAFETY: the child does what the library promises to work there, and ends without unwinding.
    let child = match unsafe { libc::fork() } {
        0 => {
            (0..7).for_each(|_| drop(tele.scope("child")));
            let is_complete = tele.flush(LONG).is_complete();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(!is_complete)) }
        }
        child => child,
    };
    let mut status = 0;
    // SAFETY: the place for the status lives during the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child could not flush");
    assert!(tele.flush(LONG).is_complete());
    let names = |path: &Path| lines_in(path).0.into_iter().map(|span| span.name).collect::<Vec<_>>();
    assert_eq!(names(&path), vec!["parent"; 20]);
    assert_eq!(names(&folder.path().join(format!("events.{child}.jsonl"))), vec!["child"; 7]);
}
