//! Building from the environment. A test starts this binary again with the variables to be tried; the child then runs
//! the one probe below and prints what it built.

use std::process::Command;

use kastor::{SimpleReporter, Telemetry};

const VARIABLES: [&str; 3] = ["KASTOR_TELEMETRY", "DEBUG", "KASTOR_TELEMETRY_STRICT_SCOPES"];
const PROBE: &str = "KASTOR_TEST_PROBE";

/// What the child builds: with a reporter, without one, in code; and the path of a scope with a bad name.
#[test]
fn probe() {
    if std::env::var_os(PROBE).is_none() {
        return;
    }
    let reporter = SimpleReporter::new();
    let from_env = Telemetry::builder().reporter(reporter.clone()).build_from_env();
    let bare = Telemetry::builder().build_from_env();
    let in_code = Telemetry::builder().reporter(reporter.clone()).build();
    let lax = Telemetry::builder().strict_names(false).build();
    let is_on = [&from_env, &bare, &in_code, &lax].map(Telemetry::is_enabled);
    drop(from_env.scope("from the environment"));
    let from_env = reporter.timings().into_keys().next();
    reporter.reset();
    drop(in_code.scope("in code"));
    let in_code = reporter.timings().into_keys().next();
    drop(lax.scope("lax one"));
    println!("\nprobed {is_on:?} {from_env:?} {in_code:?} {}", lax.report().scopes()[0].path());
}

/// What the probe printed in a child with these variables and none of the others.
fn probed(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["probe", "--exact", "--nocapture", "--test-threads=1"]).env(PROBE, "1");
    VARIABLES.iter().for_each(|it| {
        command.env_remove(it);
    });
    command.envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{variables:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("probed "));
    line.unwrap_or_else(|| panic!("{variables:?}: {text}")).to_owned()
}

const ON: &str = r#"[true, false, true, true] Some("from the environment") Some("in code") lax one"#;
const OFF: &str = r#"[false, false, true, true] None Some("in code") lax one"#;
const STRICT: &str = r#"[true, false, true, true] Some("(invalid_name)") Some("(invalid_name)") lax one"#;
const STRICT_OFF: &str = r#"[false, false, true, true] None Some("(invalid_name)") lax one"#;

#[test]
fn only_the_exact_value_one_enables() {
    assert_eq!(probed(&[]), OFF);
    assert_eq!(probed(&[("KASTOR_TELEMETRY", "1")]), ON);
    assert_eq!(probed(&[("DEBUG", "1")]), ON);
    for value in ["", "true", "yes", "on", "TRUE", "2", "01", "1 ", " 1", "1\n", "-1", "1.0"] {
        assert_eq!(probed(&[("KASTOR_TELEMETRY", value)]), OFF, "{value:?}");
        assert_eq!(probed(&[("DEBUG", value)]), OFF, "{value:?}");
    }
}

#[test]
fn a_zero_forbids_what_debug_would_allow_but_not_what_the_program_builds_in_code() {
    assert_eq!(probed(&[("KASTOR_TELEMETRY", "0"), ("DEBUG", "1")]), OFF);
    assert_eq!(probed(&[("KASTOR_TELEMETRY", "1"), ("DEBUG", "0")]), ON);
    assert_eq!(probed(&[("KASTOR_TELEMETRY", "no"), ("DEBUG", "1")]), ON, "only the exact value 0 forbids");
    assert_eq!(probed(&[("KASTOR_TELEMETRY", ""), ("DEBUG", "1")]), ON);
    assert_eq!(probed(&[("KASTOR_TELEMETRY", "00"), ("DEBUG", "1")]), ON);
}

#[test]
fn names_are_strict_if_the_environment_says_so_and_the_program_does_not_say_otherwise() {
    let strict = ("KASTOR_TELEMETRY_STRICT_SCOPES", "1");
    assert_eq!(probed(&[("KASTOR_TELEMETRY", "1"), strict]), STRICT);
    assert_eq!(probed(&[("DEBUG", "1"), strict]), STRICT);
    assert_eq!(probed(&[strict]), STRICT_OFF, "being strict enables nothing");
    for value in ["0", "", "true", "2"] {
        let lax = ("KASTOR_TELEMETRY_STRICT_SCOPES", value);
        assert_eq!(probed(&[("KASTOR_TELEMETRY", "1"), lax]), ON, "{value:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_value_that_is_no_text_enables_nothing() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["probe", "--exact", "--nocapture"]).env(PROBE, "1").env_remove("DEBUG");
    command.env_remove(VARIABLES[2]).env("KASTOR_TELEMETRY", std::ffi::OsStr::from_bytes(b"1\xff"));
    let output = command.output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("probed {OFF}")));
}
