//! `cargo xtask test`: every test of the workspace, the documents' examples and the concurrency models.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use crate::{
    deep, python,
    steps::{Steps, cargo, has, with_flags},
};

/// How far to look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What every change passes.
    Usual,
    /// Also what takes long or needs a nightly compiler.
    Deep,
}

/// Runs the tests.
pub(crate) fn test(root: &Path, depth: Depth) -> ExitCode {
    let mut steps = Steps::new("test", root);
    workspace(&mut steps);
    examples(&mut steps);
    steps.run("documents", cargo(&["test", "--doc", "--workspace"]));
    if depth == Depth::Usual {
        models(&mut steps, root, cargo);
    }
    off_mode(&mut steps, root);
    python::test(&mut steps, root, depth == Depth::Deep);
    if depth == Depth::Deep {
        deep::all(&mut steps, root);
    }
    steps.finish()
}

/// Runs the tests of the Python package alone.
pub(crate) fn python(root: &Path) -> ExitCode {
    let mut steps = Steps::new("test", root);
    python::test(&mut steps, root, false);
    steps.finish()
}

/// A folder for builds with other flags, so that they and the usual ones do not throw each other's work away.
pub(crate) fn target_folder(root: &Path, name: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join(name)
}

fn workspace(steps: &mut Steps) {
    if has(&["nextest", "--version"]) {
        steps.run("tests", cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]));
    } else {
        steps.run(
            "tests",
            cargo(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"]),
        );
    }
}

/// Runs every example; each of them checks itself what it shows.
fn examples(steps: &mut Steps) {
    steps.ask("examples", |root| {
        let mut names: Vec<String> = fs::read_dir(root.join("examples"))
            .map_err(|error| vec![format!("examples/: {error}")])?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
            .filter(|name| name != "lib")
            .collect();
        names.sort();
        let run = |name: &String| {
            println!("-- {name}");
            let mut command = cargo(&["run", "--quiet", "--package", "kastor-examples", "--example", name]);
            match command.current_dir(root).status() {
                Ok(status) if status.success() => None,
                Ok(status) => Some(format!("{name}: {status}")),
                Err(error) => Some(format!("{name}: {error}")),
            }
        };
        let faults: Vec<String> = names.iter().filter_map(run).collect();
        if faults.is_empty() { Ok(format!("{} examples ran well", names.len())) } else { Err(faults) }
    });
}

/// Every interleaving of the small concurrent parts, by loom. They need optimised code, not a slow link of it.
pub(crate) fn models(steps: &mut Steps, root: &Path, cargo: fn(&[&str]) -> Command) {
    if !core_has_tests(root, "loom") {
        return steps.skip("models", "crates/kastor/tests has no loom*.rs");
    }
    let mut command = fast_release(cargo(&["test", "--package", "kastor", "--release", "--test", "loom*"]));
    command.env("RUSTFLAGS", with_flags("RUSTFLAGS", "--cfg loom"));
    command.env("CARGO_TARGET_DIR", target_folder(root, "loom"));
    steps.run("models", command);
}

/// The core compiled away by `--cfg kastor_off`: the same program, without telemetry.
fn off_mode(steps: &mut Steps, root: &Path) {
    if !core_has_tests(root, "off") {
        return steps.skip("off mode", "crates/kastor/tests has no off*.rs");
    }
    let mut command = cargo(&["test", "--package", "kastor", "--test", "off*"]);
    command.env("RUSTFLAGS", with_flags("RUSTFLAGS", "--cfg kastor_off"));
    command.env("CARGO_TARGET_DIR", target_folder(root, "off"));
    steps.run("off mode", command);
}

/// True if the core has a test file whose name begins like this.
fn core_has_tests(root: &Path, prefix: &str) -> bool {
    let Ok(entries) = fs::read_dir(root.join("crates/kastor/tests")) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(prefix) && name.ends_with(".rs")
    })
}

/// The release profile without the whole-program link, which tests do not need.
pub(crate) fn fast_release(mut command: Command) -> Command {
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command
}
