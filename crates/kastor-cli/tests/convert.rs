//! `kastor convert`: every format holds what the capture holds, exactly.

#[path = "common/captures.rs"]
mod captures;
mod common;

use std::path::Path;

use captures::{START_NS, pass, recorded, written};
use common::{assert_neutral, kastor, transcript};
use kastor::{count, metric, scope};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One job of 10 µs with a step of 3 µs that failed, a point event, a metric event and a counter.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    recorded(&folder.path().join("run.kcap"), |telemetry, clock| {
        let _current = telemetry.override_current();
        let _job = scope!("job", user = "ann\u{202e}");
        pass(clock, 4_000);
        {
            let step = telemetry.scope("step;one");
            pass(clock, 3_000);
            step.event_with("retry", &[("attempt", 2.into())]);
            step.fail("timeout");
        }
        metric!("load", 1.5);
        count!("rows", 7);
        pass(clock, 3_000);
    });
    folder
}

fn convert(folder: &Path, to: &str, more: &[&str]) -> String {
    let arguments = [&["convert", folder.to_str().unwrap(), "--to", to], more].concat();
    let transcript = transcript(&mut kastor(&arguments));
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
    assert_neutral(&transcript.stdout);
    transcript.stdout
}

#[test]
fn chrome_has_every_scope_with_its_duration() {
    let text = convert(folder().path(), "chrome", &[]);
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
    let scopes = of("X");
    let find = |name: &str| *scopes.iter().find(|scope| scope["name"] == name).unwrap();
    let (job, step) = (find("job"), find("step;one"));
    assert_eq!((scopes.len(), &job["dur"], &step["dur"]), (2, &json!(10.0), &json!(3.0)));
    assert_eq!(step["ts"].as_f64().unwrap() - job["ts"].as_f64().unwrap(), 4.0);
    assert_eq!(job["args"]["user"], json!("ann\u{202e}"));
    assert_eq!((&step["cat"], &step["args"]["error_type"]), (&json!("scope,failed"), &json!("timeout")));
    assert_eq!(of("i")[0]["name"], json!("retry"));
    let counters: Vec<_> =
        of("C").iter().map(|event| (event["name"].clone(), event["args"]["value"].clone())).collect();
    assert!(counters.contains(&(json!("job.load"), json!(1.5))), "{counters:?}");
    assert!(counters.contains(&(json!("job.rows"), json!(7))), "{counters:?}");
    let clock = events.iter().find(|event| event["name"] == "kastor_clock").unwrap();
    let zero_ns: u64 = clock["args"]["zero_unix_ns"].as_str().unwrap().parse().unwrap();
    assert_eq!(zero_ns as f64 / 1e3 + job["ts"].as_f64().unwrap(), START_NS as f64 / 1e3);
}

#[test]
fn opentelemetrys_json_has_a_span_for_every_scope() {
    let text = convert(folder().path(), "otlp-json", &["--service-name", "shop"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests = |key: &'static str| lines.iter().filter_map(move |line| line[key].as_array()).flatten();
    let spans: Vec<&Value> =
        requests("resourceSpans").flat_map(|resource| resource["scopeSpans"][0]["spans"].as_array().unwrap()).collect();
    assert_eq!(spans.len(), 2);
    let step = spans.iter().find(|span| span["name"] == "step;one").unwrap();
    let job = spans.iter().find(|span| span["name"] == "job").unwrap();
    assert_eq!(job["startTimeUnixNano"], json!(START_NS.to_string()));
    assert_eq!(job["endTimeUnixNano"], json!((START_NS + 10_000).to_string()));
    assert_eq!((&step["parentSpanId"], &step["traceId"]), (&job["spanId"], &job["traceId"]));
    assert_eq!(step["status"]["code"], json!(2));
    let resource = &requests("resourceSpans").next().unwrap()["resource"];
    assert!(resource.to_string().contains("shop") && !resource.to_string().contains("host.name"), "{resource}");
    let names: Vec<&str> = requests("resourceMetrics")
        .flat_map(|resource| resource["scopeMetrics"][0]["metrics"].as_array().unwrap())
        .map(|metric| metric["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"rows") && names.contains(&"load") && names.contains(&"kastor.scope.duration"),
        "{names:?}"
    );
    assert!(!names.iter().any(|name| name.starts_with("kastor.reporter")), "nobody knows these any more: {names:?}");
}

#[test]
fn folded_stacks_have_self_time() {
    assert_eq!(convert(folder().path(), "folded", &[]), "job 7000\njob;step_one 3000\n");
}

#[test]
fn a_perfetto_trace_has_a_pair_of_packets_for_every_scope() {
    let (folder, out) = (folder(), tempfile::tempdir().unwrap());
    let file = out.path().join("run.perfetto-trace");
    assert_eq!(convert(folder.path(), "perfetto", &["--output", file.to_str().unwrap()]), "");
    let trace = std::fs::read(file).unwrap();
    let mut types = Vec::new();
    for packet in messages(&trace, 1) {
        // TracePacket.track_event = 11, TrackEvent.type = 9: 1 begin, 2 end, 3 instant, 4 counter.
        for event in messages(packet, 11) {
            types.extend(fields(event).filter_map(|(number, value)| (number == 9).then_some(value.0)));
        }
    }
    let count = |wanted: u64| types.iter().filter(|found| **found == wanted).count();
    assert_eq!((count(1), count(2), count(3)), (2, 2, 1), "{types:?}");
}

#[test]
fn several_files_are_one_document() {
    let folder = folder();
    recorded(&folder.path().join("second.kcap"), |telemetry, clock| {
        let _scope = telemetry.scope("other");
        pass(clock, 500);
    });
    let events: Vec<Value> = serde_json::from_str(&convert(folder.path(), "chrome", &[])).unwrap();
    assert_eq!(events.iter().filter(|event| event["ph"] == "X").count(), 3);
    assert_eq!(convert(folder.path(), "folded", &[]), "job 7000\njob;step_one 3000\nother 500\n");
}

#[test]
fn a_damaged_capture_is_converted_as_far_as_it_goes() {
    let folder = folder();
    let file = folder.path().join("run.kcap");
    let whole = std::fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(37) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&file, &flipped).unwrap();
        for format in ["chrome", "otlp-json", "folded", "perfetto"] {
            let arguments = ["convert", file.to_str().unwrap(), "--to", format, "-o", "/dev/null"];
            let transcript = transcript(&mut kastor(&arguments));
            assert!(matches!(transcript.code, Some(0 | 2)), "{at}, {format}: {}", transcript.stderr);
            assert_neutral(&transcript.stderr);
        }
    }
}

#[test]
fn paths_beyond_the_limit_share_one_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wide.kcap");
    written(&file, (1..=150_000).map(|number| (number, 0, format!("p{number}"))));
    for format in ["chrome", "folded"] {
        let transcript = transcript(&mut kastor(&["convert", file.to_str().unwrap(), "--to", format]));
        assert_eq!(transcript.code, Some(0));
        assert!(transcript.stderr.starts_with("kastor: note: 50"), "{}", transcript.stderr);
        assert!(transcript.stderr.contains("beyond the limit of 100000 share '(overflow)'"), "{}", transcript.stderr);
        assert!(transcript.stdout.contains("(overflow)"));
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = folder();
    let folder = folder.path().to_str().unwrap();
    transcript(&mut kastor(&["convert", folder])).assert_refused("--to");
    transcript(&mut kastor(&["convert", folder, "--to", "pdf"])).assert_refused("pdf");
    transcript(&mut kastor(&["convert", folder, "--to", "chrome", "-o", "/no/such/folder/out"]))
        .assert_refused("/no/such/folder");
}

/// The fields of a protobuf message: number, and a value or bytes.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, (u64, &[u8]))> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    fn skip<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(taken)
    }
    std::iter::from_fn(move || {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => (varint(&mut bytes)?, &[][..]),
            1 => (0, skip(&mut bytes, 8)?),
            5 => (0, skip(&mut bytes, 4)?),
            _ => {
                let length = varint(&mut bytes)? as usize;
                (0, skip(&mut bytes, length)?)
            }
        };
        Some((tag >> 3, value))
    })
}

fn messages(bytes: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields(bytes).filter_map(move |(number, (_, message))| (number == wanted).then_some(message))
}
