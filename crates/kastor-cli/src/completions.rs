//! `kastor completions`: what a shell needs to complete the command's arguments.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::Verdict;
use crate::output::Output;

/// The arguments of `kastor completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  kastor completions bash > ~/.local/share/bash-completion/completions/kastor")]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run<C: CommandFactory>(arguments: &CompletionsArguments, output: &mut Output) -> Verdict {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut C::command(), "kastor", &mut script);
    output.own_text(&String::from_utf8_lossy(&script));
    Verdict::Fine
}
