//! The arguments of `kastor report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::moment;

/// Rows that are shown where nothing else is asked for.
const LIMIT: usize = 1000;

/// What is largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// Time in the scope itself
    #[value(name = "self")]
    SelfTime,
    /// Time in the scope and everything inside it
    #[default]
    Total,
    /// Number of scopes
    Calls,
    /// Number of scopes that failed
    Errors,
}

/// The arguments of `kastor report`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Reads captures, of any number of processes and runs, and shows where the time went: the call tree, the metrics, \
                  and the slowest scopes on request. Memory does not grow with the size of the captures.",
    after_help = "Examples:\n  kastor report captures                         everything in a folder\n  \
                  kastor report run.kcap --sort self --flat      where the time itself is spent\n  \
                  kastor report captures --path 'db.*' --slowest 5 --since 15m"
)]
pub(crate) struct ReportArguments {
    /// Captures (.kcap), or folders with some
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// What comes first among the scopes of one parent
    #[arg(long, value_enum, default_value_t, value_name = "FIGURE")]
    pub(crate) sort: Sort,
    /// One list of all paths instead of a tree
    #[arg(long)]
    pub(crate) flat: bool,
    /// Levels of the tree to show; 1: only roots
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) depth: Option<u32>,
    /// Only paths that fit: `*` stands for any text, `?` for one character
    #[arg(long, value_name = "GLOB")]
    pub(crate) path: Option<String>,
    /// Only scopes that began at or after this moment, such as 2026-11-20T10:19:35Z, 10:19 or 15m (ago)
    #[arg(long, value_name = "MOMENT", value_parser = moment::parse)]
    pub(crate) since: Option<u64>,
    /// Only scopes that began before this moment
    #[arg(long, value_name = "MOMENT", value_parser = moment::parse)]
    pub(crate) until: Option<u64>,
    /// Show this many of the slowest scopes, each with its attributes
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) slowest: usize,
    /// Paths to show at most; 0: all
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    pub(crate) limit: usize,
    /// Write one JSON document with the same content
    #[arg(long, conflicts_with = "markdown")]
    pub(crate) json: bool,
    /// Write Markdown tables
    #[arg(long)]
    pub(crate) markdown: bool,
}

impl ReportArguments {
    /// The defaults, for these files.
    pub(crate) fn of(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            sort: Sort::default(),
            flat: false,
            depth: None,
            path: None,
            since: None,
            until: None,
            slowest: 0,
            limit: LIMIT,
            json: false,
            markdown: false,
        }
    }
}
