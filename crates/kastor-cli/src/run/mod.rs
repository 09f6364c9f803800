//! `kastor run`: a program with telemetry on and a capture, by its environment alone.
//!
//! The program keeps its terminal, its signals and its exit code. It has to be one that looks: Rust with
//! `kastor_export::install_from_env()`, or Python with kastor.

#[cfg(unix)]
mod signals;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use clap::Args;

use crate::failure::{Failure, Verdict};
use crate::output::{self, Output};
use crate::report;

/// The arguments of `kastor run`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Runs a program with KASTOR_TELEMETRY=1 and KASTOR_CAPTURE set, and prints the report when it has ended. \
                  Signals go on to the program; the exit code is the program's, or 128 and the number of the signal that ended it.\n\n\
                  The program has to look at its environment: Rust with kastor_export::install_from_env(), or Python with kastor.",
    after_help = "Examples:\n  kastor run -- python pipeline.py           a report, and nothing is kept\n  \
                  kastor run --capture before -- ./pipeline  keep the capture for later"
)]
pub(crate) struct RunArguments {
    /// A folder for the capture; it is made if it is missing [default: one that is removed after the report]
    #[arg(long, value_name = "FOLDER")]
    capture: Option<PathBuf>,
    /// Print the report at the end; without --capture that is what happens anyway
    #[arg(long)]
    report: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command.
pub(crate) fn run(arguments: &RunArguments, output: &mut Output) -> Result<Verdict, Failure> {
    let place = Place::of(arguments)?;
    let before: HashSet<PathBuf> = captures_in(place.folder()).collect();
    let status = execute(&arguments.command, place.folder())?;
    let mut made: Vec<PathBuf> = captures_in(place.folder()).filter(|file| !before.contains(file)).collect();
    made.sort();
    if made.is_empty() {
        output::note(
            "the program left no capture: it has to call kastor_export::install_from_env() (Rust) or use kastor (Python)",
        );
    } else if arguments.report || arguments.capture.is_none() {
        // The exit code stays the program's.
        if let Err(failure) = report::run_on(made, output) {
            output::complain(&failure);
        }
    }
    Ok(Verdict::Code(code(status)))
}

/// Where the capture goes.
enum Place {
    Kept(PathBuf),
    /// Removed in the end.
    Passing(PathBuf),
}

impl Place {
    fn of(arguments: &RunArguments) -> Result<Place, Failure> {
        let passing = std::env::temp_dir().join(format!("kastor-run-{}", std::process::id()));
        let folder = arguments.capture.as_ref().unwrap_or(&passing);
        // The program may go elsewhere.
        let made = match &arguments.capture {
            Some(folder) => std::fs::create_dir_all(folder).and_then(|()| folder.canonicalize()),
            None => std::fs::create_dir(&passing).map(|()| passing.clone()),
        };
        let made = made.map_err(|error| {
            let message = format!("cannot make the folder '{}': {error}", folder.display());
            Failure::new(message, "name another with --capture")
        })?;
        Ok(if arguments.capture.is_some() { Place::Kept(made) } else { Place::Passing(made) })
    }

    fn folder(&self) -> &Path {
        let (Place::Kept(folder) | Place::Passing(folder)) = self;
        folder
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Place::Passing(folder) = self {
            // Left behind it costs space in a folder that is cleared now and then.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn captures_in(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|file| file.extension().is_some_and(|extension| extension == "kcap"))
}

fn execute(command: &[OsString], folder: &Path) -> Result<ExitStatus, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new("no program to run", "name one after `--`"));
    };
    let failed = |error: std::io::Error| {
        let message = format!("cannot run '{}': {error}", program.to_string_lossy());
        Failure::new(message, "check the name of the program")
    };
    let mut command = Command::new(program);
    command.args(arguments).env("KASTOR_TELEMETRY", "1").env("KASTOR_CAPTURE", folder);
    supervise(&mut command).map_err(failed)
}

#[cfg(unix)]
fn supervise(command: &mut Command) -> std::io::Result<ExitStatus> {
    let forwarding = signals::Forwarding::install()?;
    let child: Child = command.spawn()?;
    forwarding.until_ended(child)
}

#[cfg(not(unix))]
fn supervise(command: &mut Command) -> std::io::Result<ExitStatus> {
    let mut child: Child = command.spawn()?;
    child.wait()
}

/// The exit code as shells have it.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    // Of larger codes elsewhere the lower part is what is left, but never zero.
    status.code().map_or(1, |code| u8::try_from(code).unwrap_or(((code & 0xff) as u8).max(1)))
}
