//! The arguments of `kastor view`.

use std::path::PathBuf;

use clap::Args;

/// The arguments of `kastor view`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Opens captures in the browser: timeline, flame graph, call tree, metrics, single scopes; two captures \
                  beside each other with --base. The page is served on this machine alone (127.0.0.1), to whoever has the \
                  address with its token, until the command is interrupted. With --html nothing is served: one file holds \
                  page and data, for a browser that need not reach any network.",
    after_help = "Examples:\n  kastor view run.kcap                      look at a capture\n  \
                  kastor view captures --live               follow a program that is running\n  \
                  kastor view after.kcap --base before.kcap what has changed\n  \
                  kastor view run.kcap --html run.html      one file for a colleague"
)]
pub(crate) struct ViewArguments {
    /// Captures (.kcap), or folders with some
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Captures to compare with: what was before
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) base: Vec<PathBuf>,
    /// Follow captures that are being written
    #[arg(long, conflicts_with = "html")]
    pub(crate) live: bool,
    /// The port on 127.0.0.1; 0: any that is free
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true, conflicts_with = "html")]
    pub(crate) port: u16,
    /// Do not open a browser; print the address alone
    #[arg(long, conflicts_with = "html")]
    pub(crate) no_open: bool,
    /// Write one self-contained file instead of serving
    #[arg(long, value_name = "OUT")]
    pub(crate) html: Option<PathBuf>,
}
