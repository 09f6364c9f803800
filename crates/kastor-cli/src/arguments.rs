//! The arguments of the command, and what becomes of wrong ones: one line with a hint instead of a page.

use std::ffi::OsString;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::completions::CompletionsArguments;
use crate::convert::ConvertArguments;
use crate::diff::DiffArguments;
use crate::failure::Failure;
use crate::report::ReportArguments;
use crate::run::RunArguments;
use crate::send::SendArguments;
use crate::view::ViewArguments;

/// More worker threads are taken for a mistake.
const MOST_WORKERS: u16 = 1024;

/// What the arguments ask for.
pub(crate) enum Parsed {
    /// A text of our own, help or version, with terminal styles in it.
    Help(String),
    /// Something to do.
    Command(Command),
}

/// Reads the arguments, the program's name first.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, Failure> {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => Ok(Parsed::Command(arguments.command)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Parsed::Help(error.render().ansi().to_string())),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
                Err(Failure::new("no command given", "try `kastor demo`, `kastor doctor` or `kastor --help`"))
            }
            _ => Err(Failure::new(first_paragraph(&error.render().to_string()), "try `kastor --help`")),
        },
    }
}

/// What clap says before its first empty line, as one line; the usage and tips that follow are one `--help` away.
fn first_paragraph(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[derive(Parser)]
#[command(
    name = "kastor",
    version,
    about = "Telemetry that costs two clock reads: see it work, and see what it costs here",
    after_help = "Examples:\n  kastor demo                      see it work, on the repository you are in\n  \
                  kastor run -- python job.py      run a program with telemetry on, and see where its time went\n  \
                  kastor report captures           where the time of captures went\n  \
                  kastor view captures             the same in the browser\n  \
                  kastor diff before after         what became slower\n  \
                  kastor doctor --json             facts about this machine, for a program"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run an instrumented document pipeline over real files and show what kastor saw
    Demo(DemoArguments),
    /// Say what captures hold, what is missing, and where they are damaged
    Check(CheckArguments),
    /// Show clock, limits and environment as understood, and measure what kastor costs here
    Doctor(DoctorArguments),
    /// Show where the time of captures went: call tree, metrics, slowest scopes
    Report(ReportArguments),
    /// Compare two sets of captures, and say what became slower beyond noise
    Diff(DiffArguments),
    /// Write captures in a format of other tools
    Convert(ConvertArguments),
    /// Send captures, or what waits in a spool, to an OpenTelemetry collector
    Send(SendArguments),
    /// Run a program with telemetry on, and report where its time went
    Run(RunArguments),
    /// Show captures in the browser: timeline, flame graph, tables; or write one file that does
    View(ViewArguments),
    /// Print what a shell needs to complete arguments
    Completions(CompletionsArguments),
}

/// The arguments of `kastor demo`.
#[derive(Args)]
#[command(
    long_about = "Reads every text file under PATH, counts its terms and shows the call tree, the metrics, the top terms \
                  and the share of CPU time that telemetry took, measured against the same run without it.\n\n\
                  Folders named .git and target and files above 16 MiB are left out; \
                  a file that is unreadable or not UTF-8 counts as a failed scope.",
    after_help = "Example:\n  kastor demo src --threads 4 --repeat 10"
)]
pub(crate) struct DemoArguments {
    /// File or folder to read [default: the repository around the current folder, else that folder]
    pub(crate) path: Option<PathBuf>,
    /// Write one JSON document with the same content
    #[arg(long)]
    pub(crate) json: bool,
    /// Make one more run, into a capture: a file that ends in .kcap, or a folder
    #[arg(long, value_name = "FILE_OR_FOLDER")]
    pub(crate) capture: Option<PathBuf>,
    /// Make one more run, to an OpenTelemetry collector such as http://localhost:4318
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<String>,
    /// Worker threads [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_WORKERS)))]
    pub(crate) threads: Option<u16>,
    /// Runs with telemetry off and on, alternating, of which the cheapest are compared [default: 5 to 40, as time allows]
    #[arg(long, value_name = "N")]
    pub(crate) repeat: Option<NonZeroU32>,
    /// Record one more run into a Perfetto trace, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub(crate) perfetto: Option<PathBuf>,
    /// Record one more run into a Chrome trace, for chrome://tracing and speedscope
    #[arg(long, value_name = "FILE")]
    pub(crate) chrome: Option<PathBuf>,
    /// Serve what the last run recorded at http://ADDR/metrics afterwards, until interrupted; a bare port is on loopback
    #[arg(long, value_name = "ADDR")]
    pub(crate) prometheus: Option<String>,
}

impl DemoArguments {
    /// The number of workers: as asked, else one for each processor that this process may use.
    pub(crate) fn workers(&self) -> NonZeroU16 {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS.into()) as u16;
        NonZeroU16::new(self.threads.unwrap_or_else(processors)).unwrap_or(NonZeroU16::MIN)
    }
}

/// The arguments of `kastor check`.
#[derive(Args)]
#[command(
    long_about = "Reads captures from one end to the other: what they hold, the newest block of each thread, what is \
                  missing in between, and which places are damaged. Exit code 0: everything is there and can be read; \
                  1: something is not.",
    after_help = "Examples:\n  kastor demo --capture run.kcap && kastor check run.kcap\n  kastor check captures/\n  \
                  kastor check broken.kcap --repair clean.kcap"
)]
pub(crate) struct CheckArguments {
    /// Captures, or folders with captures
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Write one JSON document with the same content
    #[arg(long)]
    pub(crate) json: bool,
    /// Copy what is whole into a new file
    #[arg(long, value_name = "OUT")]
    pub(crate) repair: Option<PathBuf>,
}

/// The arguments of `kastor doctor`.
#[derive(Args)]
#[command(after_help = "Example:\n  KASTOR_TELEMETRY=1 kastor doctor")]
pub(crate) struct DoctorArguments {
    /// Write one JSON document with the same content
    #[arg(long)]
    pub(crate) json: bool,
}
