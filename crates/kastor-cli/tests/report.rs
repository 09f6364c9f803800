//! `kastor report` over captures with known content.

#[path = "common/captures.rs"]
mod captures;
mod common;

use std::path::Path;
use std::process::Stdio;

use captures::{frame, pass, recorded, session, written};
use common::{Transcript, assert_neutral, kastor, transcript};
use kastor::{MockClock, Telemetry, count, gauge, histogram, metric, scope};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Two runs of a pipeline: 1 µs of its own, then two steps, of which the second failed once.
fn pipeline(telemetry: &Telemetry, clock: &MockClock) {
    let _current = telemetry.override_current();
    for run in 0..2_u64 {
        let _pipeline = scope!("pipeline", run = run);
        pass(clock, 1_000);
        for rows in [10_u64, 20] {
            let _parse = scope!("parse", rows = rows);
            count!("rows", rows, kind = "csv");
            pass(clock, 100 * rows);
        }
        let exec = scope!("exec.all", job = "a | b");
        gauge!("load", 0.5 + run as f64);
        histogram!("size", 8.0);
        metric!("ratio", 0.25);
        pass(clock, 5_000 + 1_000 * run);
        if run == 1 {
            exec.fail("timeout");
        }
    }
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    recorded(&folder.path().join("run.kcap"), pipeline);
    folder
}

fn run(folder: &Path, more: &[&str]) -> Transcript {
    let arguments = [&["report", folder.to_str().unwrap()], more].concat();
    transcript(&mut kastor(&arguments))
}

fn report(folder: &Path, more: &[&str]) -> Value {
    let transcript = run(folder, &[&["--json"], more].concat());
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
    assert_neutral(&transcript.stdout);
    serde_json::from_str(&transcript.stdout).unwrap()
}

fn paths(report: &Value) -> Vec<&str> {
    report["scopes"].as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap()).collect()
}

#[test]
fn the_tree_has_exact_figures() {
    let report = report(folder().path(), &[]);
    assert_eq!(paths(&report), ["pipeline", "pipeline.exec.all", "pipeline.parse"]);
    let rows = &report["scopes"];
    let exactly = |row: &Value| {
        json!([row["calls"], row["errors"], row["total_ns"], row["self_ns"], row["min_ns"], row["max_ns"]])
    };
    assert_eq!(exactly(&rows[0]), json!([2, 0, 19_000, 2_000, 9_000, 10_000]));
    assert_eq!(exactly(&rows[1]), json!([2, 1, 11_000, 11_000, 5_000, 6_000]));
    assert_eq!(exactly(&rows[2]), json!([4, 0, 6_000, 6_000, 1_000, 2_000]));
    assert_eq!(rows[0]["share"], json!(1.0));
    assert_eq!(rows[1]["share"], json!(11.0 / 19.0));
    assert_eq!(rows[1]["depth"], json!(1));
    let p50 = rows[2]["p50_ns"].as_f64().unwrap();
    assert!((p50 / 1_000.0 - 1.0).abs() <= 0.045, "{p50}");
    assert_eq!(report["captures"]["events"], json!(10));
    assert_eq!(report["captures"]["missing"]["events"], json!(0));
    assert_eq!(report["captures"]["first"], json!("2026-11-20T10:00:00Z"));
}

#[test]
fn metrics_are_those_of_the_newest_sums_and_of_the_events() {
    let report = report(folder().path(), &[]);
    let metrics = report["metrics"].as_array().unwrap();
    let of = |path: &str| metrics.iter().find(|metric| metric["path"] == path).unwrap();
    let rows = of("pipeline.parse.rows");
    assert_eq!(
        json!([rows["kind"], rows["labels"], rows["calls"], rows["sum"]]),
        json!(["counter", {"kind": "csv"}, 4, 60.0])
    );
    let load = of("pipeline.exec.all.load");
    assert_eq!(json!([load["kind"], load["last"], load["min"], load["max"]]), json!(["gauge", 1.5, 0.5, 1.5]));
    assert_eq!(of("pipeline.exec.all.size")["calls"], json!(2));
    let ratio = of("pipeline.exec.all.ratio");
    assert_eq!(json!([ratio["kind"], ratio["calls"], ratio["sum"]]), json!(["metric", 2, 0.5]));
}

#[test]
fn rows_are_sorted_and_chosen_as_asked() {
    let folder = folder();
    let folder = folder.path();
    assert_eq!(paths(&report(folder, &["--sort", "calls"])), ["pipeline", "pipeline.parse", "pipeline.exec.all"]);
    assert_eq!(
        paths(&report(folder, &["--flat", "--sort", "self"])),
        ["pipeline.exec.all", "pipeline.parse", "pipeline"]
    );
    assert_eq!(paths(&report(folder, &["--flat", "--sort", "errors", "--limit", "1"])), ["pipeline.exec.all"]);
    assert_eq!(report(folder, &["--limit", "1"])["more_paths"], json!(2));
    assert_eq!(paths(&report(folder, &["--depth", "1"])), ["pipeline"]);
    assert_eq!(paths(&report(folder, &["--path", "*.parse"])), ["pipeline", "pipeline.parse"]);
    assert_eq!(paths(&report(folder, &["--path", "*.parse", "--flat"])), ["pipeline.parse"]);
    assert_eq!(report(folder, &["--path", "nothing"])["scopes"], json!([]));
}

#[test]
fn a_window_of_time_has_what_began_in_it() {
    let folder = folder();
    // The second run begins after 9 µs.
    let second = "2026-11-20T10:00:00.000009Z";
    let calls = |report: Value| {
        report["scopes"].as_array().unwrap().iter().map(|row| row["calls"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(calls(report(folder.path(), &["--since", second])), [1, 1, 2]);
    assert_eq!(calls(report(folder.path(), &["--until", second])), [1, 1, 2]);
    assert_eq!(calls(report(folder.path(), &["--since", second, "--until", second])), [0_u64; 0]);
    run(folder.path(), &["--since", "soon"]).assert_refused("--since");
}

#[test]
fn the_slowest_are_named_with_their_attributes() {
    let report = report(folder().path(), &["--path", "*.exec.all", "--slowest", "1"]);
    let slowest = report["slowest"].as_array().unwrap();
    assert_eq!(slowest.len(), 1);
    let scope = &slowest[0];
    assert_eq!(
        json!([scope["path"], scope["duration_ns"], scope["error_type"]]),
        json!(["pipeline.exec.all", 6_000, "timeout"])
    );
    assert_eq!(scope["attributes"], json!([["job", "a | b"]]));
    assert_eq!(scope["start"], json!("2026-11-20T10:00:00.000013Z"));
}

#[test]
fn the_text_shows_the_same() {
    let transcript = run(folder().path(), &["--slowest", "1"]);
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
    assert_neutral(&transcript.stdout);
    let has = |words: &str| {
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(words);
        assert!(transcript.stdout.lines().any(line), "no line '{words} …' in\n{}", transcript.stdout);
    };
    has("1 file, ");
    has("scope calls errors total share self min p50 p95 p99 max");
    has("pipeline 2 0 19.0 µs 100.0 % 2.00 µs 9.00 µs ");
    has("exec.all 2 1 11.0 µs 57.9 % 11.0 µs 5.00 µs ");
    has("pipeline.parse.rows {kind=csv} counter 4 60");
    has("10.0 µs pipeline 2026-11-20T10:00:00.000009Z ");
    has("run = 1");
}

#[test]
fn markdown_is_the_same_for_the_same_capture_and_hides_nothing() {
    let folder = folder();
    let [one, two] = [(), ()].map(|()| run(folder.path(), &["--markdown", "--slowest", "3"]).stdout);
    assert_eq!(one, two);
    assert!(one.contains("| &emsp;`exec.all` | 2 | 1 | 11.0 µs | 57.9 % |"), "{one}");
    assert!(one.contains("  - `job = a | b`"), "{one}");
    assert_neutral(&one);
}

#[test]
fn files_of_one_folder_are_added_up() {
    let folder = folder();
    recorded(&folder.path().join("more.kcap"), pipeline);
    std::fs::write(folder.path().join("notes.txt"), "no capture").unwrap();
    let report = report(folder.path(), &[]);
    assert_eq!(report["captures"]["files"], json!(2));
    assert_eq!(report["scopes"][2]["calls"], json!(8));
}

#[test]
fn what_cannot_be_read_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &[]).assert_refused("no capture under");
    run(Path::new("/no/such/place"), &[]).assert_refused("/no/such/place");
    let text = folder.path().join("text\u{1b}.kcap");
    std::fs::write(&text, "this is no capture, only text of some length").unwrap();
    run(&text, &[]).assert_refused("no capture");
    let future = folder.path().join("future.kcap");
    std::fs::write(&future, frame(1, 0, &session(999))).unwrap();
    run(&future, &[]).assert_refused("format 999");
}

#[test]
fn hostile_names_and_values_never_reach_the_reader_raw() {
    const HOSTILE: &str = "a\u{1b}[31m<script>alert(1)</script>`|\n\u{202e}\u{9b}b";
    let folder = tempfile::tempdir().unwrap();
    recorded(&folder.path().join("hostile.kcap"), |telemetry, clock| {
        let outer = telemetry.scope(HOSTILE);
        outer.set("key", HOSTILE);
        outer.fail(HOSTILE);
        pass(clock, 10);
        telemetry.counter(HOSTILE, &[]).add(1);
    });
    for format in [&[][..], &["--markdown"], &["--flat"]] {
        let transcript = run(folder.path(), &[format, &["--slowest", "3"]].concat());
        assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
        assert_neutral(&transcript.stdout);
        assert!(transcript.stdout.contains("a\\u{1b}[31m"), "{}", transcript.stdout);
    }
    let report = report(folder.path(), &["--slowest", "3"]);
    assert_eq!(paths(&report), [HOSTILE]);
    assert_eq!(report["slowest"][0]["attributes"][0][1], json!(HOSTILE));
}

#[test]
fn a_torn_capture_is_read_up_to_the_tear_and_says_so() {
    let folder = folder();
    let file = folder.path().join("run.kcap");
    let whole = std::fs::read(&file).unwrap();
    for kept in (0..whole.len()).step_by(97) {
        std::fs::write(&file, &whole[..kept]).unwrap();
        let transcript = run(&file, &["--slowest", "2"]);
        assert!(matches!(transcript.code, Some(0 | 2)), "{kept}: {}", transcript.stderr);
    }
    std::fs::write(&file, &whole[..whole.len() - 13]).unwrap();
    let transcript = run(&file, &[]);
    assert!(transcript.stdout.contains("missing: 1 torn ends ("), "{}", transcript.stdout);
}

#[test]
fn a_flipped_bit_costs_what_it_hit_and_is_told() {
    let folder = folder();
    let file = folder.path().join("run.kcap");
    let whole = std::fs::read(&file).unwrap();
    let mut told = 0;
    for at in (0..whole.len()).step_by(61) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&file, &flipped).unwrap();
        let transcript = run(&file, &["--slowest", "2"]);
        assert!(matches!(transcript.code, Some(0 | 2)), "{at}: {}", transcript.stderr);
        assert_neutral(&transcript.stdout);
        told += u32::from(transcript.code == Some(2) || transcript.stdout.contains("missing: "));
    }
    assert!(told > 0);
}

#[test]
fn a_million_paths_and_a_million_levels_are_read_in_bounded_time_and_shown_in_bounded_space() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wide.kcap");
    written(&file, (1..=1_000_000).map(|number| (number, 0, format!("p{number}"))));
    let wide = report(&file, &[]);
    assert_eq!(wide["captures"]["events"], json!(1_000_000));
    assert_eq!((wide["scopes"].as_array().unwrap().len(), &wide["more_paths"]), (1000, &json!(999_000)));

    let file = folder.path().join("deep.kcap");
    written(&file, (1..=1_000_000).map(|number| (number, number - 1, "x".to_owned())));
    let deep = report(&file, &["--limit", "0"]);
    let rows = deep["scopes"].as_array().unwrap();
    let calls: u64 = rows.iter().map(|row| row["calls"].as_u64().unwrap()).sum();
    // A path may have 512 levels. The one below has no name, and what is below that lies under `(unknown)`.
    assert_eq!((calls, rows.len()), (1_000_000, 512 + 513));
    assert_eq!(deep["captures"]["missing"]["nameless"], json!(1_000_000 / 513));
    assert_eq!(run(&file, &[]).code, Some(0));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    let folder = folder.path().to_str().unwrap();
    for arguments in [
        &["report", folder][..],
        &["report", folder, "--json"],
        &["diff", folder, folder],
        &["convert", folder, "--to", "chrome"],
        &["completions", "bash"],
    ] {
        let mut child = kastor(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), "", "{arguments:?}");
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
    }
}
