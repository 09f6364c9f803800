//! `cargo xtask integration`: the reporters against real readers and servers.
//!
//! A check builds a small program of this repository, runs it, and compares what arrived field by field with what the
//! program said it sent. What a check needs is installed under `target/integration` by the check itself
//! ([`Place`]): nothing outside of that folder is changed. Servers ([`servers`]) listen on loopback, on ports that were
//! free, and are stopped by their process number when the check is over.
//!
//! A part that cannot be had here (no network, another system) skips its checks, loudly; if nothing but skips is left,
//! the command fails.
//!
//! | subject | against |
//! |---|---|
//! | `servers` | that everything can be had and answers |
//! | `trace` | PyPI `perfetto`'s classes, Python's JSON, Perfetto's engine |
//! | `prometheus` | promtool, PyPI `prometheus-client`, Prometheus |
//! | `otlp` | rotel, VictoriaMetrics |
//! | `deadlines` | a scripted OTLP server, a TCP proxy, a silent name server, a full disk, a stuck reporter |
//! | `disk` | full disks, and system calls that `strace` lets fail |
//! | `fleet` | 64 processes through one rotel that is stopped and started |
//!
//! A further subject is a file with a `checks(steps, place)` and a line in [`integration`].

mod deadlines;
mod disk;
mod fleet;
mod http;
mod otlp;
mod place;
mod prometheus;
mod servers;
mod trace;
mod viewer;

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use self::place::Place;
use crate::steps::{NotPassed, Steps};

type Checks = fn(&mut Steps, &Place);

/// Runs every check whose subject begins with `only`; all of them if that is empty.
pub(crate) fn integration(root: &Path, only: &str) -> ExitCode {
    let mut steps = Steps::new("integration", root);
    let place = Place::new(root);
    let subjects: &[(&str, Checks)] = &[
        ("servers", servers::checks),
        ("trace", trace::checks),
        ("prometheus", prometheus::checks),
        ("otlp", otlp::checks),
        ("deadlines", deadlines::checks),
        ("disk", disk::checks),
        ("fleet", fleet::checks),
        ("viewer", viewer::checks),
    ];
    if !subjects.iter().any(|(name, _)| name.starts_with(only)) {
        let names: Vec<&str> = subjects.iter().map(|(name, _)| *name).collect();
        eprintln!("xtask integration: no subject begins with {only:?}; there are {}", names.join(", "));
        return ExitCode::from(crate::MISUSE);
    }
    for (name, checks) in subjects {
        if name.starts_with(only) {
            checks(&mut steps, &place);
        }
    }
    steps.finish_with_one_passed()
}

/// What a script exits with that cannot set up here what it needs.
const CANNOT: i32 = 77;

/// Runs a program to its end and returns what it printed; its errors go to the terminal.
fn output(mut program: Command) -> Result<String, NotPassed> {
    let line = crate::steps::shown(&program);
    let output = program.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| NotPassed::failed(format!("{line}: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else if output.status.code() == Some(CANNOT) {
        Err(NotPassed::skipped(format!("this machine does not allow it: {line}")))
    } else {
        Err(NotPassed::failed(format!("{line}: {}\n{}", output.status, text.trim_end())))
    }
}
