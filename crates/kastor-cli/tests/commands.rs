//! What holds for every command alike: help with an example, one line for what is wrong, a closed pipe, hostile captures,
//! captures of another version.

#[path = "common/captures.rs"]
mod captures;
mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use captures::{frame, pass, recorded, session};
use common::{assert_neutral, kastor, transcript};
use tempfile::TempDir;

const COMMANDS: [&str; 10] =
    ["demo", "check", "doctor", "report", "diff", "convert", "send", "run", "view", "completions"];

/// Ways to ask about a capture in text.
fn questions(file: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["report", file, "--slowest", "5"],
        vec!["report", file, "--markdown", "--flat"],
        vec!["report", file, "--json"],
        vec!["diff", file, file],
        vec!["diff", file, file, "--markdown"],
        vec!["diff", file, file, "--json"],
        vec!["check", file],
        vec!["check", file, "--json"],
        vec!["convert", file, "--to", "chrome"],
        vec!["convert", file, "--to", "otlp-json"],
        vec!["convert", file, "--to", "folded"],
    ]
}

fn hostile() -> (TempDir, PathBuf) {
    const HOSTILE: &str = "a\u{1b}[31m<script>alert(1)</script>`|\n\r\u{202e}\u{9b}\u{7f}\u{200b}b";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostile.kcap");
    recorded(&file, |telemetry, clock| {
        let _current = telemetry.override_current();
        for _ in 0..20 {
            let outer = telemetry.scope(HOSTILE);
            outer.set(HOSTILE, HOSTILE);
            outer.event(HOSTILE);
            pass(clock, 10);
            telemetry.counter(HOSTILE, &[]).add(1);
            outer.fail(HOSTILE);
        }
    });
    (folder, file)
}

#[test]
fn every_command_has_help_with_an_example() {
    let all = transcript(&mut kastor(&["--help"]));
    for command in COMMANDS {
        assert!(all.stdout.contains(&format!("\n  {command} ")), "{command} in {}", all.stdout);
        let help = transcript(&mut kastor(&[command, "--help"]));
        assert_eq!((help.code, &*help.stderr), (Some(0), ""), "{command}");
        let example = help.stdout.split("Example").nth(1).unwrap_or_else(|| panic!("no example of {command}"));
        assert!(example.contains(&format!("kastor {command}")), "{example}");
    }
}

#[test]
fn every_shell_is_told_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = transcript(&mut kastor(&["completions", shell]));
        assert_eq!((script.code, &*script.stderr), (Some(0), ""), "{shell}");
        for word in COMMANDS.iter().chain(&["--html", "--base", "--fail-over"]) {
            assert!(script.stdout.contains(word.trim_start_matches('-')), "{word} for {shell}");
        }
    }
}

#[test]
fn wrong_usage_is_one_line_and_code_2() {
    for command in COMMANDS {
        transcript(&mut kastor(&[command, "--no-such-option"])).assert_refused("--no-such-option");
    }
    for command in ["check", "report", "convert", "send", "run", "view", "diff", "completions"] {
        transcript(&mut kastor(&[command])).assert_refused("required");
    }
    transcript(&mut kastor(&["no-such-command"])).assert_refused("no-such-command");
}

#[test]
fn a_reader_that_goes_away_ends_the_output_and_not_the_program() {
    let (_folder, file) = hostile();
    let file = file.to_str().unwrap();
    let more = [vec!["doctor", "--json"], vec!["convert", file, "--to", "perfetto"], vec!["view", "--help"]];
    for arguments in questions(file).into_iter().chain(more) {
        let mut child = kastor(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), "", "{arguments:?}");
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn nothing_of_a_hostile_capture_reaches_a_terminal_raw() {
    let (_folder, file) = hostile();
    for arguments in questions(file.to_str().unwrap()) {
        let said = transcript(&mut kastor(&arguments));
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
        assert!(!said.stdout.is_empty(), "{arguments:?}");
        assert_neutral(&said.stdout);
        assert_neutral(&said.stderr);
    }
}

#[test]
fn a_capture_of_a_later_version_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("future.kcap");
    std::fs::write(&file, frame(1, 0, &session(999))).unwrap();
    let file = file.to_str().unwrap();
    let to = folder.path().join("x.html");
    let more = [
        vec!["view", file, "--no-open"],
        vec!["view", file, "--live", "--no-open"],
        vec!["view", file, "--html", to.to_str().unwrap()],
        vec!["send", file, "--endpoint", "http://127.0.0.1:9"],
    ];
    for arguments in questions(file).into_iter().chain(more) {
        let said = transcript(&mut kastor(&arguments));
        assert_eq!(said.code, Some(2), "{arguments:?}");
        assert!(said.stderr.contains("format 999") && said.stderr.contains("newer"), "{arguments:?}: {}", said.stderr);
        assert_eq!(said.stderr.matches('\n').count(), 1, "{}", said.stderr);
    }
    assert!(!to.exists());
}

#[test]
fn captures_of_every_released_format_are_read_by_every_command() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kastor-export/tests/golden");
    let mut seen = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "kcap") {
            seen += 1;
            for arguments in questions(file.to_str().unwrap()) {
                let said = transcript(&mut kastor(&arguments));
                assert!(said.code == Some(0) || arguments[0] == "check", "{arguments:?}: {}", said.stderr);
                assert!(!said.stdout.is_empty() && !said.stderr.contains("panicked"), "{arguments:?}");
            }
        }
    }
    assert!(seen >= 2);
}
