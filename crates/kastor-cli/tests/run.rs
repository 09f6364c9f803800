//! `kastor run`: the program's exit code, its signals, its capture.
//!
//! The programs that are run are this test binary itself, in the parts below that do nothing without a variable.

#![allow(clippy::disallowed_methods, reason = "the programs that are run end with codes of their own")]
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Transcript, kastor, transcript};
use serde_json::{Value, json};

const PROGRAM: &str = "KASTOR_TEST_PROGRAM";

/// Runs a part of this binary under the command.
fn run(part: &str, arguments: &[&str]) -> Transcript {
    transcript(&mut command(part, arguments))
}

fn command(part: &str, arguments: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let whole =
        [&["run"], arguments, &["--", program.to_str().unwrap(), part, "--exact", "--nocapture", "-q"]].concat();
    let mut command = kastor(&whole);
    command.env(PROGRAM, "1");
    command
}

fn is_program() -> bool {
    std::env::var_os(PROGRAM).is_some()
}

#[test]
fn program_that_records() {
    if is_program() {
        let telemetry = kastor_export::install_from_env();
        (0..5).for_each(|_| drop(kastor::scope!("request")));
        kastor::count!("served", 5);
        telemetry.shutdown(Duration::from_secs(30));
        std::process::exit(7);
    }
}

#[test]
fn program_that_waits() {
    if is_program() {
        println!("ready");
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn program_that_knows_nothing_of_it() {
    if is_program() {
        std::process::exit(0);
    }
}

#[test]
fn the_exit_code_is_the_programs_and_the_report_follows() {
    let transcript = run("program_that_records", &[]);
    assert_eq!(transcript.code, Some(7), "{}", transcript.stderr);
    assert!(transcript.stdout.contains("Call tree") && transcript.stdout.contains("request"), "{}", transcript.stdout);
}

#[test]
fn captures_of_several_runs_are_kept_and_added_up() {
    let folder = tempfile::tempdir().unwrap();
    let captures = folder.path().join("captures");
    let captures = captures.to_str().unwrap();
    for _ in 0..3 {
        let transcript = run("program_that_records", &["--capture", captures]);
        assert_eq!(transcript.code, Some(7));
        assert!(!transcript.stdout.contains("Call tree"), "nobody asked for a report: {}", transcript.stdout);
    }
    let report: Value = serde_json::from_str(&transcript(&mut kastor(&["report", captures, "--json"])).stdout).unwrap();
    assert_eq!(json!([report["captures"]["processes"], report["scopes"][0]["calls"]]), json!([3, 15]));
    assert_eq!(report["captures"]["missing"]["events"], json!(0));
    assert_eq!(report["metrics"][0]["sum"], json!(15.0));
    // Converted, the processes stand side by side in one document.
    let trace = transcript(&mut kastor(&["convert", captures, "--to", "chrome"])).stdout;
    let events: Vec<Value> = serde_json::from_str(&trace).unwrap();
    let scopes: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    let processes: std::collections::HashSet<u64> = scopes.iter().filter_map(|scope| scope["pid"].as_u64()).collect();
    assert_eq!((scopes.len(), processes.len()), (15, 3));
    // The report of a run is of that run alone.
    let last = run("program_that_records", &["--capture", captures, "--report"]);
    assert!(last.stdout.contains("1 process, "), "{}", last.stdout);
}

#[test]
fn a_signal_goes_on_to_the_program_and_its_end_comes_back() {
    let mut child = command("program_that_waits", &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("ready")));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn a_program_without_telemetry_is_told_what_it_lacks() {
    let transcript = run("program_that_knows_nothing_of_it", &[]);
    assert_eq!(transcript.code, Some(0));
    assert!(transcript.stderr.contains("note: the program left no capture"), "{}", transcript.stderr);
}

#[test]
fn what_cannot_be_run_is_refused() {
    transcript(&mut kastor(&["run", "--", "/no/such/program"])).assert_refused("/no/such/program");
    transcript(&mut kastor(&["run"])).assert_refused("COMMAND");
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = Path::new(file.path()).join("captures");
    transcript(&mut kastor(&["run", "--capture", below.to_str().unwrap(), "--", "true"])).assert_refused("cannot make");
}
