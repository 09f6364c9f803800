//! `cargo xtask viewer`: builds the page of `kastor view`, which is TypeScript, into the files that the program embeds.
//!
//! These are committed, so that Rust alone builds the program. `--check` builds them anew beside, and compares: what is
//! embedded is what the sources say.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use crate::{
    steps::{NotPassed, Steps, shown},
    test::target_folder,
};

const FILES: [&str; 3] = ["index.html", "viewer.css", "viewer.js"];
/// The oldest Node that is known to build it.
const LEAST_NODE: u32 = 18;

/// Whether to write the files or to compare them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    Write,
    Compare,
}

/// The command of its own.
pub(crate) fn viewer(root: &Path, aim: Aim) -> ExitCode {
    let mut steps = Steps::new("viewer", root);
    match aim {
        Aim::Write => steps.attempt("build", |root| {
            let folder = ready(root)?;
            let dist = folder.join("dist");
            build(&folder, &dist)?;
            Ok(format!("wrote {}", dist.display()))
        }),
        Aim::Compare => check(&mut steps),
    }
    steps.finish()
}

/// The step of `cargo xtask check`.
pub(crate) fn check(steps: &mut Steps) {
    steps.attempt("viewer", |root| {
        let folder = ready(root)?;
        quietly(&mut npm(&folder, &["run", "--silent", "check"])).map_err(NotPassed::failed)?;
        let fresh = target_folder(root, "viewer");
        build(&folder, &fresh)?;
        compare(&folder.join("dist"), &fresh)
    });
}

/// The folder of the page's sources with its packages as the lock file has them, installed where that is not so.
pub(crate) fn ready(root: &Path) -> Result<PathBuf, NotPassed> {
    let folder = root.join("crates/kastor-cli/viewer");
    node()?;
    let lock = folder.join("package-lock.json");
    // npm keeps a copy of what it installed; a stamp of our own says from which lock file that was.
    let stamp = folder.join("node_modules/.installed-from");
    let wanted = fs::read(&lock).map_err(|error| NotPassed::failed(format!("{}: {error}", lock.display())))?;
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    println!("installing the viewer's packages from npm");
    // No package has to run a script of its own to be installed, so none may.
    quietly(&mut npm(&folder, &["ci", "--ignore-scripts", "--no-audit", "--no-fund"])).map_err(NotPassed::skipped)?;
    fs::write(&stamp, wanted).map_err(|error| NotPassed::failed(format!("{}: {error}", stamp.display())))?;
    Ok(folder)
}

fn node() -> Result<(), NotPassed> {
    let version = Command::new("node").arg("--version").stderr(Stdio::null()).output();
    let text = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let major: Option<u32> =
        text.strip_prefix('v').and_then(|rest| rest.split('.').next()).and_then(|number| number.parse().ok());
    match major {
        Some(major) if major >= LEAST_NODE => Ok(()),
        Some(_) => Err(NotPassed::skipped(format!("Node {text} is older than {LEAST_NODE}"))),
        None => Err(NotPassed::skipped("Node is not installed, with which the viewer's page is built")),
    }
}

fn build(folder: &Path, into: &Path) -> Result<(), NotPassed> {
    let mut build = Command::new("node");
    build.arg("build.mjs").arg(into).current_dir(folder);
    quietly(&mut build).map_err(NotPassed::failed)
}

fn compare(committed: &Path, fresh: &Path) -> Result<String, NotPassed> {
    let mut faults = Vec::new();
    let mut bytes = 0;
    for file in FILES {
        let (old, new) = (committed.join(file), fresh.join(file));
        match (fs::read(&old), fs::read(&new)) {
            (Ok(old_bytes), Ok(new_bytes)) if old_bytes == new_bytes => bytes += new_bytes.len(),
            (Ok(_), Ok(_)) => {
                faults.push(format!("{} is not what its sources build to: run `cargo xtask viewer`", old.display()));
            }
            (Err(error), _) => faults.push(format!("{}: {error}", old.display())),
            (_, Err(error)) => faults.push(format!("{}: {error}", new.display())),
        }
    }
    if faults.is_empty() {
        Ok(format!("the embedded page is what its sources build to: {bytes} bytes"))
    } else {
        Err(NotPassed::Failed(faults))
    }
}

fn npm(folder: &Path, arguments: &[&str]) -> Command {
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(folder);
    npm
}

/// Runs a program; what it said is told only if it failed.
fn quietly(program: &mut Command) -> Result<(), String> {
    let line = shown(program);
    let output = program.stdin(Stdio::null()).output().map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let end: Vec<&str> = said.lines().rev().take(20).collect();
    Err(format!("{line}: {}\n{}", output.status, end.into_iter().rev().collect::<Vec<_>>().join("\n")))
}
