//! `kastor demo --capture` and `kastor check`: captures are written, examined and repaired.

mod common;

use std::fs;
use std::path::Path;

use common::{assert_neutral, kastor, transcript};
use serde_json::Value;
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a capture of the demo over one document, `run.kcap`.
fn captured() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("documents")).unwrap();
    fs::write(folder.path().join("documents/a.txt"), "to be or not to be").unwrap();
    let [documents, capture] = ["documents", "run.kcap"].map(|name| folder.path().join(name));
    let arguments = ["demo", text(&documents), "--repeat", "1", "--capture", text(&capture)];
    let transcript = transcript(&mut kastor(&arguments));
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
    let line = transcript.stdout.lines().find(|line| line.starts_with("one more run captured: ")).unwrap();
    assert!(line.ends_with(text(&capture)) && line.contains(" events, "), "{line}");
    folder
}

fn check(arguments: &[&str]) -> (Option<i32>, Value) {
    let transcript = transcript(&mut kastor(&[&["check", "--json"], arguments].concat()));
    assert_eq!(transcript.stderr, "");
    assert_neutral(&transcript.stdout);
    (transcript.code, serde_json::from_str(&transcript.stdout).unwrap())
}

#[test]
fn a_capture_of_the_demo_is_whole_and_holds_its_events() {
    let folder = captured();
    let path = folder.path().join("run.kcap");
    let (code, findings) = check(&[text(&path)]);
    let file = &findings["files"][0];
    assert_eq!((code, &file["is_whole"], &file["missing_events"]), (Some(0), &true.into(), &0.into()));
    assert_eq!(file["bytes"], path.metadata().unwrap().len());
    let session = &file["sessions"][0];
    assert_eq!(file["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(session["scopes"], file["events"]);
    assert!(session["scopes"].as_u64().unwrap() > 3 && session["aggregates"].as_u64().unwrap() > 0);
    let threads = session["threads"].as_array().unwrap();
    let events: u64 = threads.iter().map(|thread| thread["events"].as_u64().unwrap()).sum();
    assert_eq!(events, file["events"]);

    let shown = transcript(&mut kastor(&["check", text(&path)]));
    assert_eq!((shown.code, &*shown.stderr), (Some(0), ""));
    assert!(shown.stdout.contains(" events, whole\n"), "{}", shown.stdout);
    assert_neutral(&shown.stdout);
}

#[test]
fn a_damaged_capture_is_a_finding_and_its_repair_is_clean() {
    let folder = captured();
    let [path, clean] = ["run.kcap", "clean.kcap"].map(|name| folder.path().join(name));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.extend_from_slice(&[0x9e, b'K']);
    fs::write(&path, bytes).unwrap();

    let (code, findings) = check(&[text(&path)]);
    let file = &findings["files"][0];
    assert_eq!((code, &file["damaged_places"], &file["torn_bytes"]), (Some(1), &1.into(), &2.into()));
    let shown = transcript(&mut kastor(&["check", text(&path), "--repair", text(&clean)]));
    assert_eq!((shown.code, &*shown.stderr), (Some(1), ""));
    assert!(shown.stdout.contains("damaged: ") && shown.stdout.contains("2 bytes at the end"), "{}", shown.stdout);
    assert!(shown.stdout.contains("repaired into "), "{}", shown.stdout);

    let (_, findings) = check(&[text(&clean)]);
    let file = &findings["files"][0];
    assert_eq!((&file["damaged_places"], &file["torn_bytes"]), (&0.into(), &0.into()));
    transcript(&mut kastor(&["check", text(&path), "--repair", text(&clean)])).assert_refused("clean.kcap");
}

#[test]
fn a_folder_stands_for_the_captures_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let [documents, captures] = ["documents", "captures"].map(|name| folder.path().join(name));
    fs::create_dir(&documents).unwrap();
    fs::write(documents.join("a.txt"), "to be").unwrap();
    for _ in 0..2 {
        let arguments = ["demo", text(&documents), "--repeat", "1", "--json", "--capture", text(&captures)];
        let demo = transcript(&mut kastor(&arguments));
        assert_eq!(demo.code, Some(0), "{}", demo.stderr);
        let demo: Value = serde_json::from_str(&demo.stdout).unwrap();
        assert_eq!(demo["captured"]["missing"], 0);
        assert!(fs::exists(demo["captured"]["files"][0].as_str().unwrap()).unwrap());
    }
    let (code, findings) = check(&[text(&captures)]);
    assert_eq!((code, findings["files"].as_array().unwrap().len()), (Some(0), 2));
    let clean = folder.path().join("clean.kcap");
    let both = transcript(&mut kastor(&["check", text(&captures), "--repair", text(&clean)]));
    both.assert_refused("--repair takes one file at a time");
    transcript(&mut kastor(&["check", text(&documents)])).assert_refused("there is no .kcap file");
}

#[test]
fn what_is_no_capture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letter\u{1b}[2J.txt");
    fs::write(&path, "Dear reader, this is no capture, however long it may be.").unwrap();
    transcript(&mut kastor(&["check", text(&path)])).assert_refused("is no capture of kastor");
    transcript(&mut kastor(&["check", text(&folder.path().join("nowhere"))])).assert_refused("nowhere");
    transcript(&mut kastor(&["check"])).assert_refused("FILE");
    fs::write(folder.path().join("a.txt"), "to be").unwrap();
    let inside = path.join("captures");
    let arguments = ["demo", text(folder.path()), "--repeat", "1", "--capture", text(&inside)];
    transcript(&mut kastor(&arguments)).assert_refused("cannot write the capture");
}
