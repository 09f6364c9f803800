//! `kastor doctor`, and the arguments that all commands share.

mod common;

use common::{assert_neutral, kastor, transcript};
use serde_json::Value;

#[test]
fn doctor_prints_its_sections_and_is_content() {
    let transcript = transcript(kastor(&["doctor"]).env("KASTOR_TELEMETRY", "1"));
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""));
    assert_neutral(&transcript.stdout);
    let sections = ["Clock", "Limits", "Environment", "Costs on this machine", "Findings"];
    let found: Vec<&str> = transcript.stdout.lines().filter(|line| sections.contains(line)).collect();
    assert_eq!(found, sections);
    for variable in ["KASTOR_TELEMETRY", "KASTOR_TELEMETRY_STRICT_SCOPES", "DEBUG"] {
        assert!(transcript.stdout.lines().any(|line| line.starts_with(variable)), "{variable}");
    }
    let budget =
        transcript.stdout.lines().find(|line| line.contains("an overhead budget of 1 % of a processor")).unwrap();
    let scopes: u64 = budget.split_once("about ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!((1_000..10_000_000).contains(&scopes), "{budget}");
    assert!(transcript.stdout.ends_with("\nFindings\nnone\n"), "{}", transcript.stdout);
}

#[test]
fn doctor_measures_as_a_program_can_read() {
    let transcript = transcript(&mut kastor(&["doctor", "--json"]));
    assert_eq!(transcript.code, Some(0), "{}", transcript.stderr);
    let examination: Value = serde_json::from_str(&transcript.stdout).unwrap();
    let operations = examination["costs"]["operations"].as_array().unwrap();
    let ns = |name: &str| operations.iter().find(|it| it["name"] == name).unwrap()["ns"].as_f64().unwrap();
    assert!(ns("two clock reads") > 0.0 && ns("counter") > 0.0);
    // Far apart on any machine, even a busy one: the one reads clocks and keeps a record, the other does neither.
    assert!(ns("scope") > ns("scope, disabled"), "{operations:?}");
    assert!(examination["limits"].as_array().unwrap().iter().all(|limit| limit["value"].as_u64().unwrap() > 0));
    assert_ne!(examination["clock_source"], "");
}

#[test]
fn a_variable_that_is_not_understood_is_a_finding() {
    let misspelt = transcript(kastor(&["doctor"]).env("KASTOR_TELEMETRY", "yes\u{1b}[2J"));
    assert_eq!(misspelt.code, Some(1));
    assert_neutral(&misspelt.stdout);
    assert!(misspelt.stdout.contains("KASTOR_TELEMETRY is 'yes\\u{1b}[2J'; only 1 switches on"), "{}", misspelt.stdout);

    let unclear = transcript(kastor(&["doctor", "--json"]).env("KASTOR_TELEMETRY_STRICT_SCOPES", "true"));
    assert_eq!(unclear.code, Some(1));
    let examination: Value = serde_json::from_str(&unclear.stdout).unwrap();
    assert_eq!(examination["findings"].as_array().unwrap().len(), 1);
}

#[test]
fn help_has_an_example_for_each_command() {
    let commands = ["demo", "doctor", "report", "diff", "convert", "send", "run", "completions"];
    for arguments in commands.iter().map(|command| vec![*command, "--help"]).chain([vec!["--help"]]) {
        let arguments = &arguments[..];
        let help = transcript(&mut kastor(arguments));
        assert_eq!((help.code, &*help.stderr), (Some(0), ""));
        assert!(help.stdout.contains("Example"), "{}", help.stdout);
        assert_neutral(&help.stdout); // no colour either: this is no terminal
    }
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = transcript(&mut kastor(&["completions", shell]));
        assert_eq!((script.code, &*script.stderr), (Some(0), ""), "{shell}");
        assert!(["report", "diff", "convert"].iter().all(|command| script.stdout.contains(command)), "{shell}");
    }
}

#[test]
fn wrong_usage_is_refused_in_one_line_with_a_hint() {
    transcript(&mut kastor(&[])).assert_refused("no command given");
    transcript(&mut kastor(&["dmeo"])).assert_refused("dmeo");
    transcript(&mut kastor(&["demo", "--threads", "0"])).assert_refused("--threads");
    transcript(&mut kastor(&["demo", "--repeat", "many"])).assert_refused("--repeat");
    transcript(&mut kastor(&["doctor", "--verbose"])).assert_refused("--verbose");
    transcript(&mut kastor(&["demo", "--\u{202e}x"])).assert_refused("--\\u{202e}x");
}
