//! The command `kastor` as a library: [`run`] takes the arguments and returns the exit code.
//!
//! | command | what it does |
//! |---|---|
//! | `kastor demo [PATH]` | runs an instrumented document pipeline over real files and shows what kastor saw and what that cost |
//! | `kastor check FILE…` | says what captures hold, what is missing and where they are damaged, and repairs into a new file |
//! | `kastor report FILE…` | shows where the time of captures went |
//! | `kastor diff BASE NEW` | says what became slower between two sets of captures, beyond noise |
//! | `kastor convert FILE… --to FORMAT` | writes captures in a format of other tools |
//! | `kastor send FILE… --endpoint URL` | sends captures, or what waits in a spool, to a collector |
//! | `kastor run -- COMMAND…` | runs a program with telemetry on, and reports |
//! | `kastor view FILE…` | shows captures in the browser, or writes one file that does |
//! | `kastor completions SHELL` | prints what a shell needs to complete arguments |
//! | `kastor doctor` | shows the clock, the limits and the environment as understood, and measures a scope and a counter |
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done, nothing to complain about; also when the reader of a pipe went away |
//! | 1 | done, with a finding: an event was lost or late, a capture is damaged, a variable is set to something that is not understood, a path became slower (`diff --fail-over`), a collector did not take everything |
//! | 2 | could not be done: wrong usage, no such path, nothing readable, output not writable |
//! | any | `kastor run`: the program's own |
//!
//! Results go to standard output, and only there; one line that says what is wrong and what to do, or what is missing in a
//! conversion, goes to standard error. No text
//! from outside (file names, file contents, variables, arguments) reaches either of them with a raw control character in it.

mod arguments;
mod captures;
mod check;
mod completions;
mod convert;
mod demo;
mod diff;
mod doctor;
mod facts;
mod failure;
#[doc(hidden)]
pub mod fuzz;
mod glob;
mod moment;
mod neutral;
mod output;
mod report;
mod run;
mod send;
mod table;
mod units;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use arguments::{Arguments, Command, Parsed};
use failure::{Failure, Verdict};
use output::Output;

/// Runs the command with the arguments of a process, the program's own name first, as [`std::env::args_os`] gives them.
///
/// It never panics on a closed pipe and never ends the process by itself.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut output = Output::standard();
    let ended = execute(arguments, &mut output);
    let written = output.finish();
    match ended.and_then(|verdict| written.map(|()| verdict)) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Finding) => ExitCode::from(1),
        Ok(Verdict::Code(code)) => ExitCode::from(code),
        Err(failure) => {
            output::complain(&failure);
            ExitCode::from(2)
        }
    }
}

fn execute(arguments: impl IntoIterator<Item = OsString>, output: &mut Output) -> Result<Verdict, Failure> {
    match arguments::parse(arguments)? {
        Parsed::Help(text) => {
            output.own_text(&text);
            Ok(Verdict::Fine)
        }
        Parsed::Command(Command::Demo(arguments)) => demo::run(&arguments, output),
        Parsed::Command(Command::Check(arguments)) => check::run(&arguments, output),
        Parsed::Command(Command::Doctor(arguments)) => doctor::run(&arguments, output),
        Parsed::Command(Command::Completions(arguments)) => Ok(completions::run::<Arguments>(&arguments, output)),
        Parsed::Command(Command::Convert(arguments)) => convert::run(&arguments),
        Parsed::Command(Command::Run(arguments)) => run::run(&arguments, output),
        Parsed::Command(Command::Send(arguments)) => send::run(&arguments, output),
        Parsed::Command(Command::Diff(arguments)) => diff::run(&arguments, output),
        Parsed::Command(Command::Report(arguments)) => report::run(&arguments, output),
        Parsed::Command(Command::View(arguments)) => view::run(&arguments, output),
    }
}
