//! Trace files and folded stacks against readers that are not ours: PyPI's `perfetto` classes, Python's JSON, and
//! Perfetto's own engine.
//!
//! The program `trace_workload` does one of everything and writes down what it did. With a mock clock every number has to
//! be equal; with the real one, times may differ by what two batches differ about.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{output, place::Place};
use crate::steps::{NotPassed, Steps};

/// All checks of this subject.
pub(crate) fn checks(steps: &mut Steps, place: &Place) {
    for clock in ["mock", "real"] {
        let name = |what: &str| format!("{what}, {clock} clock");
        let mut written = None;
        steps.attempt(&name("trace workload"), |_| {
            let folder = workload(place, clock)?;
            let said = format!("wrote {}", folder.display());
            written = Some(folder);
            Ok(said)
        });
        let Some(folder) = written else { continue };
        read_back(steps, place, &format!("{clock} clock"), &folder);
        let mut written = None;
        steps.attempt(&name("kastor convert"), |_| {
            let folder = converted(place, &folder)?;
            let said = format!("wrote {}", folder.display());
            written = Some(folder);
            Ok(said)
        });
        if let Some(folder) = written {
            read_back(steps, place, &format!("{clock} clock, converted from the capture"), &folder);
        }
    }
}

/// Reads every file of a folder with every reader.
fn read_back(steps: &mut Steps, place: &Place, which: &str, folder: &Path) {
    let name = |what: &str| format!("{what}, {which}");
    steps.attempt(&name("perfetto"), |_| script(place, "check_perfetto.py", &["perfetto", "protobuf"], folder));
    steps.attempt(&name("chrome"), |_| script(place, "check_chrome.py", &[], folder));
    steps.attempt(&name("folded"), |_| script(place, "check_folded.py", &[], folder));
    for file in ["trace.perfetto-trace", "trace.json"] {
        steps.attempt(&name(&format!("engine, {file}")), |_| engine(place, folder, file));
    }
}

/// The same files, by `kastor convert` from the capture that stands beside them.
fn converted(place: &Place, folder: &Path) -> Result<PathBuf, NotPassed> {
    let program = place.kastor()?;
    let into = folder.join("converted");
    let failed = |error: &dyn std::fmt::Display| NotPassed::failed(format!("{}: {error}", into.display()));
    fs::create_dir_all(&into).map_err(|error| failed(&error))?;
    for (format, file) in [("perfetto", "trace.perfetto-trace"), ("chrome", "trace.json"), ("folded", "stacks.folded")]
    {
        let mut convert = Command::new(&program);
        convert.arg("convert").arg(folder.join("run.kcap")).args(["--to", format, "--ids", "-o"]).arg(into.join(file));
        output(convert)?;
    }
    let text = fs::read(folder.join("expected.json")).map_err(|error| failed(&error))?;
    let mut expected: serde_json::Value = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    // A capture does not tell the program's name.
    expected["process"] = format!("process {}", expected["pid"]).into();
    fs::write(into.join("expected.json"), expected.to_string()).map_err(|error| failed(&error))?;
    Ok(into)
}

fn workload(place: &Place, clock: &str) -> Result<PathBuf, NotPassed> {
    let program = place.example("trace_workload", "")?;
    let folder = place.work(&format!("trace-{clock}"))?;
    let mut run = Command::new(program);
    run.arg(&folder).arg(clock);
    output(run)?;
    Ok(folder)
}

fn script(place: &Place, name: &str, packages: &[&str], folder: &Path) -> Result<String, NotPassed> {
    let mut check = Command::new(place.python(packages)?);
    check.arg(scripts(place).join(name)).arg(folder);
    Ok(output(check)?.trim_end().to_owned())
}

/// Perfetto's engine comes as a part of another package, with an interface that may change any day: then this is skipped.
fn engine(place: &Place, folder: &Path, file: &str) -> Result<String, NotPassed> {
    /// What the script exits with if it does not know the library.
    const UNKNOWN: i32 = 77;
    let library = place.debian("bookworm", "chromium-shell")?.join("usr/lib/chromium/libtest_trace_processor.so");
    if !library.exists() {
        return Err(NotPassed::skipped(format!("chromium-shell has no {}", library.display())));
    }
    let mut ask = Command::new(place.python(&[])?);
    ask.arg(scripts(place).join("check_engine.py")).arg(folder).arg(library).arg(file);
    let line = crate::steps::shown(&ask);
    let answer =
        ask.stderr(Stdio::inherit()).output().map_err(|error| NotPassed::failed(format!("{line}: {error}")))?;
    let said = String::from_utf8_lossy(&answer.stdout).trim_end().to_owned();
    match answer.status.code() {
        Some(0) => Ok(said),
        Some(UNKNOWN) => Err(NotPassed::skipped(said)),
        _ => Err(NotPassed::failed(format!("{line}: {}\n{said}", answer.status))),
    }
}

fn scripts(place: &Place) -> PathBuf {
    place.root().join("crates/xtask/src/integration")
}
