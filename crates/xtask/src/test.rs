//! `cargo xtask test`: every test of the workspace, the documents' examples and the concurrency models.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use crate::{
    fuzz, python,
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

const SANITIZER_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs the tests.
pub(crate) fn test(root: &Path, depth: Depth) -> ExitCode {
    let mut steps = Steps::new("test", root);
    workspace(&mut steps);
    examples(&mut steps);
    steps.run("documents", cargo(&["test", "--doc", "--workspace"]));
    models(&mut steps, root, depth);
    off_mode(&mut steps, root);
    python::test(&mut steps, root, depth == Depth::Deep);
    if depth == Depth::Deep {
        histories(&mut steps, root);
        delivery(&mut steps, root);
        fuzz::run(&mut steps, root);
        miri(&mut steps, root);
        sanitizers(&mut steps, root);
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
fn models(steps: &mut Steps, root: &Path, depth: Depth) {
    if !core_has_tests(root, "loom") {
        return steps.skip("models", "crates/kastor/tests has no loom*.rs");
    }
    let mut command = fast_release(cargo(&["test", "--package", "kastor", "--release", "--test", "loom*"]));
    command.env("RUSTFLAGS", with_flags("RUSTFLAGS", "--cfg loom"));
    command.env("CARGO_TARGET_DIR", target_folder(root, "loom"));
    if depth == Depth::Deep {
        command.env("KASTOR_DEEP", "1");
    }
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

/// The random histories again, longer; the tests read KASTOR_DEEP.
fn histories(steps: &mut Steps, root: &Path) {
    let mut command = fast_release(cargo(&["test", "--package", "kastor", "--release", "--lib", "--tests"]));
    command.env("KASTOR_DEEP", "1");
    command.env("CARGO_TARGET_DIR", target_folder(root, "deep"));
    steps.run("histories", command);
}

/// What delivery is to survive, for longer: above all, 1,000 times being killed with a spool.
fn delivery(steps: &mut Steps, root: &Path) {
    let mut command = fast_release(cargo(&["test", "--package", "kastor-export", "--release", "--lib", "--tests"]));
    command.args(["--features", "grpc"]).env("KASTOR_DEEP", "1");
    command.env("CARGO_TARGET_DIR", target_folder(root, "deep"));
    steps.run("delivery", command);
}

fn miri(steps: &mut Steps, root: &Path) {
    if !has(&["+nightly", "miri", "--version"]) {
        return steps.skip("miri", "not installed");
    }
    // An interpreted program has one processor: a process per test gives the machine's others something to do.
    let runner: &[&str] = if has(&["nextest", "--version"]) {
        &["nextest", "run", "--no-fail-fast"]
    } else {
        &["test", "--no-fail-fast"]
    };
    let mut command = cargo(&["+nightly", "miri"]);
    command.args(runner).args(["--package", "kastor", "--lib", "--tests"]);
    // The clocks and the environment are read; tests compute powers of two with functions that are exact elsewhere; and the
    // collector's threads live until the process ends, which Miri would call a leak.
    let flags = "-Zmiri-disable-isolation -Zmiri-deterministic-floats -Zmiri-ignore-leaks";
    command.env("MIRIFLAGS", with_flags("MIRIFLAGS", flags));
    command.env("CARGO_TARGET_DIR", target_folder(root, "miri"));
    steps.run("miri", command);
}

/// Address and thread sanitizer. The latter knows only what it compiled itself, so it needs the standard library's source.
fn sanitizers(steps: &mut Steps, root: &Path) {
    for (name, sanitizer) in [("address sanitizer", "address"), ("thread sanitizer", "thread")] {
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            steps.skip(name, &format!("this machine is not {SANITIZER_TARGET}"));
            continue;
        }
        if !has(&["+nightly", "--version"]) {
            steps.skip(name, "the nightly compiler is not installed");
            continue;
        }
        if sanitizer == "thread" && !nightly_has_source() {
            steps.skip(name, "rust-src of the nightly compiler is not installed");
            continue;
        }
        let mut command = cargo(&["+nightly", "test", "--target", SANITIZER_TARGET, "--package", "kastor"]);
        if sanitizer == "thread" {
            command.arg("-Zbuild-std");
        }
        // The compile-fail cases run the compiler, which is not ours to sanitize.
        command.args(["--lib", "--tests", "--", "--skip", "compile_fail"]);
        // These weigh the process, which is many times heavier with a sanitizer, or count its allocations.
        for weighing in ["memory", "allocat", "a_million_scopes_may_be_open", "dynamic_names_beyond_the_bound"] {
            command.args(["--skip", weighing]);
        }
        command.env("RUSTFLAGS", with_flags("RUSTFLAGS", &format!("-Zsanitizer={sanitizer}")));
        command.env("CARGO_TARGET_DIR", target_folder(root, sanitizer));
        steps.run(name, command);
    }
}

fn nightly_has_source() -> bool {
    let output = Command::new("rustc")
        .args(["+nightly", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| {
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").exists()
    })
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
