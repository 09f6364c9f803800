//! The built command as a user runs it: arguments in, exit code and two texts out.

use std::process::{Command, Output};

/// The command, in an environment where no variable of kastor's is set.
pub fn kastor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kastor"));
    for variable in ["KASTOR_TELEMETRY", "KASTOR_TELEMETRY_STRICT_SCOPES", "KASTOR_CAPTURE", "DEBUG"] {
        command.env_remove(variable);
    }
    command.args(arguments);
    command
}

/// What a command left behind.
pub struct Transcript {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn transcript(command: &mut Command) -> Transcript {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Transcript {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

impl Transcript {
    /// The command refused: code 2, nothing on standard output, exactly one line with a hint on standard error.
    #[track_caller]
    pub fn assert_refused(&self, message: &str) {
        assert_eq!(self.code, Some(2), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        assert_eq!(self.stderr.matches('\n').count(), 1, "{}", self.stderr);
        assert!(self.stderr.starts_with("kastor: ") && self.stderr.contains(message), "{}", self.stderr);
        assert!(self.stderr.contains("; "), "no hint: {}", self.stderr);
        assert_neutral(&self.stderr);
    }
}

/// No control, direction or invisible character but the line end.
#[track_caller]
pub fn assert_neutral(text: &str) {
    let dangerous = |character: char| {
        (character.is_control() && character != '\n')
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    assert!(!text.contains(dangerous), "{text:?}");
}
