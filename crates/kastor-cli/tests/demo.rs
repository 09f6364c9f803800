//! `kastor demo` over folders with known content.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use common::{assert_neutral, kastor, transcript};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Four documents, two of them equal, one file that is no text, one too large, and three that are in skipped folders.
fn known() -> TempDir {
    let known = folder(&[
        ("a.txt", b"to be or not to be\n"),
        ("sub/copy.txt", b"to be or not to be\n"),
        ("sub/deep/b.md", "To see, or not: to SEE 42 times 0x1f Straße\n".as_bytes()),
        ("empty", b""),
        ("latin1.txt", b"caf\xe9"),
        (".git/config", b"be be be"),
        ("target/debug/out.txt", b"be be be"),
        ("sub/target/out.txt", b"be be be"),
    ]);
    let large = File::create(known.path().join("large.txt")).unwrap();
    large.set_len((16 << 20) + 1).unwrap(); // sparse: takes no space
    known
}

fn demo(folder: &TempDir, more: &[&str]) -> Value {
    let repeat = if more.contains(&"--repeat") { &[][..] } else { &["--repeat", "1"] };
    let arguments = [&["demo", text(folder.path()), "--json"], repeat, more].concat();
    let transcript = transcript(&mut kastor(&arguments));
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
    assert_neutral(&transcript.stdout);
    serde_json::from_str(&transcript.stdout).unwrap()
}

/// Path → (calls, errors).
fn calls(demonstration: &Value) -> BTreeMap<String, (u64, u64)> {
    let number = |scope: &Value, key: &str| scope[key].as_u64().unwrap();
    let scopes = demonstration["scopes"].as_array().unwrap();
    scopes
        .iter()
        .map(|scope| (scope["path"].as_str().unwrap().to_owned(), (number(scope, "calls"), number(scope, "errors"))))
        .collect()
}

/// The sum of a metric over all its series.
fn sum(demonstration: &Value, path: &str) -> f64 {
    let metrics = demonstration["metrics"].as_array().unwrap();
    metrics.iter().filter(|metric| metric["path"] == path).map(|metric| metric["sum"].as_f64().unwrap()).sum()
}

#[test]
fn one_more_run_is_recorded_into_trace_files() {
    let (known, traces) = (known(), TempDir::new().unwrap());
    let (perfetto, chrome) = (traces.path().join("a.perfetto-trace"), traces.path().join("b.json"));
    let demonstration = demo(&known, &["--perfetto", text(&perfetto), "--chrome", text(&chrome)]);
    let scopes = calls(&demonstration).values().map(|(calls, _)| calls).sum::<u64>();
    let size = |path: &Path| path.metadata().unwrap().len();
    let written = |format: &str, path: &Path| json!({"format": format, "path": text(path), "events": scopes, "missing": 0, "bytes": size(path)});
    assert_eq!(demonstration["traces"], json!([written("perfetto", &perfetto), written("chrome", &chrome)]));
    let events: Vec<Value> = serde_json::from_slice(&std::fs::read(&chrome).unwrap()).unwrap();
    assert_eq!(events.iter().filter(|event| event["ph"] == "X").count() as u64, scopes);
    assert!(size(&perfetto) > scopes * 40);

    let nowhere = transcript(&mut kastor(&["demo", text(known.path()), "--perfetto", "/nowhere/at/all"]));
    nowhere.assert_refused("/nowhere/at/all");
}

#[test]
fn terms_are_counted_exactly() {
    let demonstration = demo(&known(), &[]);
    assert_eq!(
        demonstration["documents"],
        json!({
            "found": 5, "counted": 4, "unreadable": 0, "not_utf8": 1, "too_large": 1, "inaccessible": 0,
            "duplicates": 1, "bytes": 19 + 19 + 45, "terms": 6 + 6 + 8, "distinct_terms": 7,
            "ranking": [
                {"term": "to", "count": 6}, {"term": "be", "count": 4}, {"term": "not", "count": 3},
                {"term": "or", "count": 3}, {"term": "see", "count": 2}, {"term": "straße", "count": 1},
                {"term": "times", "count": 1},
            ],
        })
    );
}

#[test]
fn every_stage_is_a_scope_with_exact_calls_and_errors_for_any_number_of_threads() {
    let known = known();
    for threads in ["1", "2", "7"] {
        let demonstration = demo(&known, &["--threads", threads]);
        let expected = [
            ("demo", (1, 0)),
            ("demo.discover", (1, 0)),
            ("demo.document", (5, 1)),
            ("demo.document.count", (4, 0)),
            ("demo.document.decode", (5, 1)),
            ("demo.document.hash", (4, 0)),
            ("demo.document.tokenize", (4, 0)),
            ("demo.merge", (5, 0)),
            ("demo.rank", (1, 0)),
            ("demo.read", (5, 0)),
            ("demo.read.disk", (5, 0)),
        ];
        let expected: BTreeMap<String, (u64, u64)> = expected.map(|(path, calls)| (path.to_owned(), calls)).into();
        assert_eq!(calls(&demonstration), expected, "{threads} threads");
    }
}

#[test]
fn metrics_agree_with_the_result() {
    let demonstration = demo(&known(), &[]);
    assert_eq!(sum(&demonstration, "demo.discover.files"), 5.0);
    assert_eq!(sum(&demonstration, "demo.discover.files_too_large"), 1.0);
    assert_eq!(sum(&demonstration, "demo.document.documents"), 4.0);
    assert_eq!(sum(&demonstration, "demo.document.terms"), 20.0);
    assert_eq!(sum(&demonstration, "demo.read.disk.file_bytes"), 19.0 + 19.0 + 45.0 + 4.0);
    let metrics = demonstration["metrics"].as_array().unwrap();
    let documents = |kind: &str| {
        let labels = json!({ "kind": kind });
        let is_it = |metric: &&Value| metric["path"] == "demo.document.documents" && metric["labels"] == labels;
        metrics.iter().find(is_it).map(|metric| metric["sum"].as_f64().unwrap())
    };
    assert_eq!([documents("txt"), documents("md"), documents("none")], [Some(2.0), Some(1.0), Some(1.0)]);
}

#[test]
fn no_event_is_lost_and_the_cost_is_measured() {
    let demonstration = demo(&known(), &["--repeat", "3"]);
    let scopes: u64 = calls(&demonstration).values().map(|(calls, _)| calls).sum();
    let telemetry = &demonstration["telemetry"];
    assert_eq!([&telemetry["lost"], &telemetry["late"]], [0, 0]);
    assert_eq!(telemetry["delivered"], telemetry["events"]);
    assert!(telemetry["events"].as_u64().unwrap() >= scopes, "{telemetry} for {scopes} scopes");
    if cfg!(unix) {
        let cost = &demonstration["cost"];
        assert_eq!(cost["rounds"], 3);
        let (off, on) = (cost["off_ns"].as_f64().unwrap(), cost["on_ns"].as_f64().unwrap());
        let share = cost["share_percent"].as_f64().unwrap();
        assert!(off > 0.0 && on > 0.0 && (share - 100.0 * (on - off) / on).abs() < 1e-9, "{cost}");
    }
}

#[test]
fn the_text_shows_the_same() {
    let known = known();
    let transcript = transcript(&mut kastor(&["demo", text(known.path()), "--repeat", "1", "--threads", "3"]));
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
    assert_neutral(&transcript.stdout);
    let has = |words: &str| {
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(words);
        assert!(transcript.stdout.lines().any(line), "no line '{words} …' in\n{}", transcript.stdout);
    };
    has(&format!("{}: 4 documents, 83 B, 20 terms, 7 of them different; 3 workers", text(known.path())));
    has("1 not UTF-8, 1 too large, 1 with the same content as another");
    has("Call tree");
    has("scope calls errors total self p50 p95 p99");
    has("document 5 1 ");
    has("decode 5 1 ");
    has("Metrics");
    has("demo.document.documents {kind=md} counter 1 1");
    has("Top terms");
    has("to 6");
    has("Telemetry itself");
    assert!(transcript.stdout.contains(" events, 0 lost; "), "{}", transcript.stdout);
}

#[test]
#[cfg(target_os = "linux")]
fn an_unreadable_file_is_a_failed_scope_and_no_end() {
    // The kernel's folder on the command itself: some files can be read, others, such as `mem`, cannot, not even by root.
    let transcript = transcript(&mut kastor(&["demo", "/proc/self/task", "--json", "--repeat", "1"]));
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
    let demonstration: Value = serde_json::from_str(&transcript.stdout).unwrap();
    let documents = |key: &str| demonstration["documents"][key].as_u64().unwrap();
    let calls = calls(&demonstration);
    assert!(documents("unreadable") > 0);
    assert_eq!(calls["demo.read.disk"], (documents("found"), documents("unreadable")));
    assert_eq!(calls["demo.document"], (documents("found"), documents("unreadable") + documents("not_utf8")));
    assert_eq!(calls["demo.document.count"], (documents("counted"), 0));
}

#[test]
fn a_single_file_is_a_place_too() {
    let known = known();
    let file = known.path().join("a.txt");
    let transcript = transcript(&mut kastor(&["demo", text(&file), "--json", "--repeat", "1"]));
    assert_eq!(transcript.code, Some(0), "{}", transcript.stderr);
    let demonstration: Value = serde_json::from_str(&transcript.stdout).unwrap();
    assert_eq!(demonstration["documents"]["counted"], 1);
}

#[test]
fn without_a_path_it_reads_the_repository_around_the_current_folder() {
    let repository =
        folder(&[(".git/HEAD", b"ref"), ("top.txt", b"top"), ("a/Cargo.toml", b"[package]"), ("a/b/c.txt", b"below")]);
    let below = repository.path().join("a/b");
    let transcript = transcript(kastor(&["demo", "--json", "--repeat", "1"]).current_dir(below));
    let demonstration: Value = serde_json::from_str(&transcript.stdout).unwrap();
    assert_eq!(demonstration["documents"]["counted"], 3);
}

#[test]
fn a_missing_path_is_refused_in_one_line() {
    transcript(&mut kastor(&["demo", "/no/such/place"])).assert_refused("cannot read '/no/such/place'");
    transcript(&mut kastor(&["demo", "/no/\u{1b}[31m\n\u{202e}"])).assert_refused("/no/\\u{1b}[31m\\u{a}\\u{202e}");
}

#[test]
fn a_place_with_nothing_to_read_is_refused_in_one_line() {
    let empty = folder(&[]);
    transcript(&mut kastor(&["demo", text(empty.path())])).assert_refused("no files under");
    let binary = folder(&[("one", b"\xff"), ("two", b"\xfe")]);
    transcript(&mut kastor(&["demo", text(binary.path())])).assert_refused("none of the 2 files");
}

#[test]
#[cfg(unix)]
fn names_and_contents_never_reach_the_reader_raw() {
    let hostile = folder(&[
        ("x.\u{1b}[31mred\u{202e}", "a\u{1b}b term\u{200b}inal \u{9b}31m".as_bytes()),
        ("\u{7f}\n.t\u{feff}t", b"text"),
    ]);
    let as_text = transcript(&mut kastor(&["demo", text(hostile.path()), "--repeat", "1"]));
    assert_eq!(as_text.code, Some(0));
    assert_neutral(&as_text.stdout);
    assert!(as_text.stdout.contains("{kind=\\u{1b}[31mred\\u{202e}}"), "{}", as_text.stdout);
    let kinds = demo(&hostile, &[]); // asserts that the JSON has none raw, and parses it
    let kinds: Vec<&str> =
        kinds["metrics"].as_array().unwrap().iter().filter_map(|metric| metric["labels"]["kind"].as_str()).collect();
    assert_eq!(kinds, ["\u{1b}[31mred\u{202e}", "t\u{feff}t"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let known = known();
    for arguments in [&["demo", text(known.path()), "--repeat", "1"][..], &["demo", "--help"], &["doctor"]] {
        let mut child = kastor(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), "", "{arguments:?}");
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let known = known();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = kastor(&["demo", text(known.path()), "--repeat", "1"]);
    let child = child.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let message = String::from_utf8(ended.stderr).unwrap();
    assert!(message.starts_with("kastor: cannot write to standard output: ") && message.ends_with('\n'), "{message}");
}

/// A folder with the given files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_last_run_can_be_scraped_until_the_command_ends() {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};

    let known = known();
    let arguments = ["demo", text(known.path()), "--repeat", "1", "--prometheus", "0"];
    let mut child = kastor(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("kastor: serving http://").and_then(|rest| rest.split_once("/metrics")).unwrap().0;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("discover\"} 1\n"), "{answer}");
}

#[test]
fn an_address_that_cannot_be_listened_on_is_refused_before_any_work() {
    let known = known();
    let arguments = ["demo", text(known.path()), "--prometheus", "nowhere"];
    transcript(&mut kastor(&arguments)).assert_refused("no address to listen on");
}
