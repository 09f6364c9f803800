//! A row of steps, each a program or a check of our own, with how long it took and how it ended.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// The steps of one command so far.
pub(crate) struct Steps {
    command: &'static str,
    root: PathBuf,
    started: Instant,
    done: Vec<Step>,
}

struct Step {
    name: String,
    ending: Ending,
    took: Duration,
}

/// How a check ended that has not passed.
pub(crate) enum NotPassed {
    /// It could not be made here, and why.
    Skipped(String),
    /// Every fault.
    Failed(Vec<String>),
}

impl NotPassed {
    pub(crate) fn skipped(reason: impl Into<String>) -> Self {
        Self::Skipped(reason.into())
    }

    pub(crate) fn failed(fault: impl Into<String>) -> Self {
        Self::Failed(vec![fault.into()])
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Passed,
    Failed,
    Skipped,
}

impl Steps {
    pub(crate) fn new(command: &'static str, root: &Path) -> Self {
        Self { command, root: root.to_path_buf(), started: Instant::now(), done: Vec::new() }
    }

    /// Runs a program in the repository's folder; it fails if it cannot be started or does not exit with 0.
    pub(crate) fn run(&mut self, name: &str, mut program: Command) {
        let line = shown(&program);
        self.step(name, &line, |root| match program.current_dir(root).status() {
            Ok(status) if status.success() => Ok(String::new()),
            Ok(status) => Err(vec![format!("{line}: {status}")]),
            Err(error) => Err(vec![format!("{line}: {error}")]),
        });
    }

    /// Runs a check of our own: a sentence on what was found to be well, or every fault.
    pub(crate) fn ask(&mut self, name: &str, check: impl FnOnce(&Path) -> Result<String, Vec<String>>) {
        self.step(name, "", check);
    }

    /// Runs a check of our own that may find out only then that it cannot be made here.
    pub(crate) fn attempt(&mut self, name: &str, check: impl FnOnce(&Path) -> Result<String, NotPassed>) {
        let started = Instant::now();
        println!("\n== {} {name}:", self.command);
        let root = self.root.clone();
        let ending = match check(&root) {
            Err(NotPassed::Skipped(reason)) => return self.skip(name, &reason),
            Ok(sentence) => told(name, Ok(sentence)),
            Err(NotPassed::Failed(faults)) => told(name, Err(faults)),
        };
        self.done.push(Step { name: name.to_owned(), ending, took: started.elapsed() });
    }

    /// Leaves a step out, loudly: a skipped step is not a passed one.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        println!("\n== {} {name}: SKIPPED: {reason}", self.command);
        self.done.push(Step { name: name.to_owned(), ending: Ending::Skipped, took: Duration::ZERO });
    }

    /// As [`finish`](Self::finish), where skips alone are a failure too: then nothing was shown.
    pub(crate) fn finish_with_one_passed(self) -> ExitCode {
        let has_passed = self.done.iter().any(|step| step.ending == Ending::Passed);
        let command = self.command;
        let code = self.finish();
        if has_passed {
            return code;
        }
        eprintln!("xtask {command}: FAILED: not one step has passed; the reasons stand above");
        ExitCode::FAILURE
    }

    /// Prints the line with all steps and says whether none has failed.
    pub(crate) fn finish(self) -> ExitCode {
        let count = |ending| self.done.iter().filter(|step| step.ending == ending).count();
        let failed = count(Ending::Failed);
        let steps: Vec<String> = self.done.iter().map(Step::to_string).collect();
        println!(
            "\nxtask {}: {} passed, {failed} failed, {} skipped in {:.1} s: {}",
            self.command,
            count(Ending::Passed),
            count(Ending::Skipped),
            self.started.elapsed().as_secs_f64(),
            steps.join(", ")
        );
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn step(&mut self, name: &str, detail: &str, act: impl FnOnce(&Path) -> Result<String, Vec<String>>) {
        println!("\n== {} {name}: {detail}", self.command);
        let started = Instant::now();
        let ending = told(name, act(&self.root));
        self.done.push(Step { name: name.to_owned(), ending, took: started.elapsed() });
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        match self.ending {
            Ending::Passed => write!(formatter, "{} {seconds:.1} s", self.name),
            Ending::Failed => write!(formatter, "{} FAILED {seconds:.1} s", self.name),
            Ending::Skipped => write!(formatter, "{} SKIPPED", self.name),
        }
    }
}

/// Prints what a check said.
fn told(name: &str, outcome: Result<String, Vec<String>>) -> Ending {
    match outcome {
        Ok(sentence) => {
            if !sentence.is_empty() {
                println!("{sentence}");
            }
            Ending::Passed
        }
        Err(faults) => {
            for fault in faults {
                eprintln!("FAILED {name}: {fault}");
            }
            Ending::Failed
        }
    }
}

/// `cargo` with these arguments.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments);
    // A toolchain that is not there is a step to skip, not a download to start.
    command.env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// True if `cargo` understands these arguments, which ask something for its version.
pub(crate) fn has(arguments: &[&str]) -> bool {
    cargo(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The value of a variable with flags, and these flags after it.
pub(crate) fn with_flags(variable: &str, flags: &str) -> OsString {
    let mut value = env::var_os(variable).unwrap_or_default();
    if !value.is_empty() {
        value.push(" ");
    }
    value.push(flags);
    value
}

/// The command as one would type it, with the variables that were set for it.
pub(crate) fn shown(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter(|(name, _)| *name != "RUSTUP_AUTO_INSTALL")
        .filter_map(|(name, value)| Some(format!("{}='{}'", name.to_string_lossy(), value?.to_string_lossy())));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    variables.chain(words.map(|word| word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}
