//! `cargo xtask test --deep`: what takes long or needs a nightly compiler. Each part can be run alone, and all of them run
//! with the lowest priority.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use crate::{
    fuzz,
    steps::{NotPassed, Steps, cargo, has, with_flags},
    test::{fast_release, models, target_folder},
};

/// The parts, in the order in which they run.
pub(crate) const PARTS: [&str; 7] = ["models", "histories", "delivery", "fuzz", "miri", "address", "thread"];

/// The test files that Miri runs: together they pass every `unsafe` block that an interpreter can run, which the step
/// after it checks. A test that would take it too long is ignored there by its own attribute.
const UNDER_MIRI: [&str; 14] = [
    "carriers",
    "contexts",
    "delivery",
    "format",
    "histories",
    "hostile_numbers",
    "install",
    "lifetimes",
    "raw",
    "raw_local",
    "scopes",
    "scopes_order",
    "specification",
    "tasks",
];

/// The test files in which threads meet. Not those that fork, which the thread sanitizer does not follow, nor those that
/// hold a call to a time.
const CONCURRENT: [&str; 15] = [
    "carriers",
    "contexts",
    "delivery",
    "histories",
    "isolation",
    "lifetimes",
    "limits",
    "overhead_budget",
    "raw",
    "raw_local",
    "reporter_border",
    "sampling",
    "simple_reporter",
    "specification",
    "tasks",
];

/// Tests that weigh the process, which is many times heavier with a sanitizer, or count its allocations; that run the
/// compiler, which is not ours to sanitize; or that look for signal handlers, and would find the sanitizer's.
const NOT_SANITIZED: [&str; 6] = [
    "memory",
    "allocat",
    "a_million_scopes_may_be_open",
    "dynamic_names_beyond_the_bound",
    "compile_fail",
    "installs_no_signal_handler",
];

const SANITIZER_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs all parts.
pub(crate) fn all(steps: &mut Steps, root: &Path) {
    PARTS.iter().for_each(|part| run(steps, root, part));
}

/// Runs one part alone.
pub(crate) fn part(root: &Path, part: &str) -> ExitCode {
    let mut steps = Steps::new("test", root);
    run(&mut steps, root, part);
    steps.finish_with_one_passed()
}

fn run(steps: &mut Steps, root: &Path, part: &str) {
    match part {
        "models" => models(steps, root, deep_cargo),
        "histories" => histories(steps, root),
        "delivery" => delivery(steps, root),
        "fuzz" => fuzz::run(steps, root),
        "miri" => miri(steps, root),
        _ => sanitizer(steps, root, part),
    }
}

/// `cargo` with the lowest priority: these run for an hour, and somebody may want to work meanwhile.
fn gentle_cargo(arguments: &[&str]) -> Command {
    if cfg!(not(unix)) {
        return cargo(arguments);
    }
    let mut command = Command::new("nice");
    command.args(["-n", "19", "cargo"]).args(arguments).env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// The same for tests that go further if they are told to.
fn deep_cargo(arguments: &[&str]) -> Command {
    let mut command = gentle_cargo(arguments);
    command.env("KASTOR_DEEP", "1");
    command
}

/// The random histories again, longer.
fn histories(steps: &mut Steps, root: &Path) {
    let mut command = fast_release(deep_cargo(&["test", "--package", "kastor", "--release", "--lib", "--tests"]));
    command.env("CARGO_TARGET_DIR", target_folder(root, "deep"));
    steps.run("histories", command);
}

/// What delivery is to survive, for longer: above all, 1,000 times being killed with a spool.
fn delivery(steps: &mut Steps, root: &Path) {
    let arguments = ["test", "--package", "kastor-export", "--release", "--lib", "--tests", "--features", "grpc"];
    let mut command = fast_release(deep_cargo(&arguments));
    command.env("CARGO_TARGET_DIR", target_folder(root, "deep"));
    steps.run("delivery", command);
}

fn miri(steps: &mut Steps, root: &Path) {
    if !has(&["+nightly", "miri", "--version"]) {
        return steps.skip("miri", "not installed: rustup component add miri rust-src --toolchain nightly");
    }
    // An interpreted program has one processor: a process per test gives the machine's others something to do, and a test
    // that does not end is ended (`.config/nextest.toml`).
    let runner: &[&str] = if has(&["nextest", "--version"]) {
        &["+nightly", "miri", "nextest", "run", "--profile", "miri", "--no-fail-fast"]
    } else {
        &["+nightly", "miri", "test", "--no-fail-fast"]
    };
    let mut command = gentle_cargo(runner);
    command.args(chosen(&UNDER_MIRI)).arg("--lib");
    // The clocks and the environment are read; tests compute powers of two with functions that are exact elsewhere; and the
    // collector's threads live until the process ends, which Miri would call a leak.
    let flags = "-Zmiri-disable-isolation -Zmiri-deterministic-floats -Zmiri-ignore-leaks";
    command.env("MIRIFLAGS", with_flags("MIRIFLAGS", flags));
    command.env("CARGO_TARGET_DIR", target_folder(root, "miri"));
    steps.run("miri", command);
    steps.attempt("unsafe under miri", unsafe_lines);
}

fn chosen(files: &[&str]) -> Vec<String> {
    let tests = files.iter().flat_map(|file| ["--test".to_owned(), (*file).to_owned()]);
    ["--package".to_owned(), "kastor".to_owned()].into_iter().chain(tests).collect()
}

/// Address and thread sanitizer. The latter knows only what it compiled itself, so it needs the standard library's source.
fn sanitizer(steps: &mut Steps, root: &Path, sanitizer: &str) {
    let name = format!("{sanitizer} sanitizer");
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return steps.skip(&name, &format!("this machine is not {SANITIZER_TARGET}"));
    }
    if !has(&["+nightly", "--version"]) {
        return steps.skip(&name, "the nightly compiler is not installed");
    }
    let is_thread = sanitizer == "thread";
    if is_thread && !sysroot().is_some_and(|it| it.join("lib/rustlib/src/rust/library/Cargo.lock").exists()) {
        return steps.skip(&name, "rust-src of the nightly compiler is not installed");
    }
    let mut command = gentle_cargo(&["+nightly", "test", "--no-fail-fast", "--target", SANITIZER_TARGET]);
    if is_thread {
        command.arg("-Zbuild-std").args(chosen(&CONCURRENT));
    } else {
        command.args(["--package", "kastor", "--lib", "--tests"]);
    }
    command.arg("--").args(NOT_SANITIZED.iter().flat_map(|test| ["--skip", test]));
    command.env("RUSTFLAGS", with_flags("RUSTFLAGS", &format!("-Zsanitizer={sanitizer}")));
    // Tables that grew, contexts at the end of the process and what tests leak on purpose are never freed; other tests weigh.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command.env("CARGO_TARGET_DIR", target_folder(root, sanitizer));
    steps.run(&name, command);
}

/// Where the nightly compiler is.
fn sysroot() -> Option<PathBuf> {
    let output = Command::new("rustc")
        .args(["+nightly", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Which `unsafe` blocks the tests pass that Miri runs: the same tests, with the same numbers of turns (`cfg(miri)`), are
/// compiled to count lines. A block that is compiled then and passed by none of them is a fault.
fn unsafe_lines(root: &Path) -> Result<String, NotPassed> {
    let tools = sysroot().map(|it| it.join("lib/rustlib").join(SANITIZER_TARGET).join("bin")).unwrap_or_default();
    if !tools.join("llvm-cov").exists() {
        let install = "rustup component add llvm-tools --toolchain nightly";
        return Err(NotPassed::skipped(format!("llvm-cov of the nightly compiler is not installed: {install}")));
    }
    let target = target_folder(root, "coverage");
    let counts = target.join("counts");
    let _ = fs::remove_dir_all(&counts);
    let mut command = gentle_cargo(&["+nightly", "test", "--message-format", "json-render-diagnostics"]);
    command.args(chosen(&UNDER_MIRI)).arg("--lib");
    let flags = "--cfg miri -Aexplicit_builtin_cfgs_in_flags -Cinstrument-coverage";
    command.env("RUSTFLAGS", with_flags("RUSTFLAGS", flags)).env("CARGO_TARGET_DIR", &target);
    command.env("LLVM_PROFILE_FILE", counts.join("%p-%m.profraw"));
    let programs: Vec<String> = text_of(command.current_dir(root))?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| Some(message.get("executable")?.as_str()?.to_owned()))
        .collect();
    let merged = counts.join("all.profdata");
    let files = fs::read_dir(&counts).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut merge = Command::new(tools.join("llvm-profdata"));
    text_of(merge.args(["merge", "--sparse", "--output"]).arg(&merged).args(files))?;
    let mut export = Command::new(tools.join("llvm-cov"));
    export.args(["export", "--format=lcov", "--instr-profile"]).arg(&merged);
    export.args(programs.iter().flat_map(|program| ["--object", program]));
    judge(root, &passes(&text_of(&mut export)?))
}

/// What a program printed, if it ended well.
fn text_of(command: &mut Command) -> Result<String, NotPassed> {
    let line = crate::steps::shown(command);
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| NotPassed::failed(format!("{line}: {error}")))?;
    if !output.status.success() {
        return Err(NotPassed::failed(format!("{line}: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How often each line of each file was passed, where it is compiled: file, line, times.
fn passes(lcov: &str) -> BTreeMap<String, BTreeMap<usize, u64>> {
    let mut all: BTreeMap<String, BTreeMap<usize, u64>> = BTreeMap::new();
    let mut file = String::new();
    for line in lcov.lines() {
        if let Some(name) = line.strip_prefix("SF:") {
            file = name.to_owned();
        } else if let Some((number, times)) = line.strip_prefix("DA:").and_then(|it| it.split_once(',')) {
            if let (Ok(number), Ok(times)) = (number.parse(), times.parse::<u64>()) {
                let known = all.entry(file.clone()).or_default().entry(number).or_insert(0);
                *known = (*known).max(times);
            }
        }
    }
    all
}

fn judge(root: &Path, passes: &BTreeMap<String, BTreeMap<usize, u64>>) -> Result<String, NotPassed> {
    let sources = root.join("crates/kastor/src");
    let (mut told, mut faults, mut blocks) = (Vec::new(), Vec::new(), 0);
    for (file, lines) in passes.iter().filter(|(file, _)| Path::new(file).starts_with(&sources)) {
        let text = fs::read_to_string(file).map_err(|error| NotPassed::failed(format!("{file}: {error}")))?;
        let short = file.trim_start_matches(&*sources.to_string_lossy()).trim_start_matches('/');
        let (mut passed, mut not_compiled) = (0, 0);
        for (at, line) in text.lines().enumerate().filter(|(_, line)| is_unsafe_block(line)) {
            // The block's first line that counts may be the next: an opening brace alone does nothing.
            // Not behind an attribute: it may leave the block out.
            let until = text.lines().skip(at + 1).take(2).position(|line| line.trim_start().starts_with("#["));
            match lines.range(at + 1..at + 2 + until.unwrap_or(2)).next() {
                Some((_, 0)) => {
                    faults.push(format!("{short}:{}: no test that Miri runs passes: {}", at + 1, line.trim()))
                }
                Some(_) => passed += 1,
                None => not_compiled += 1,
            }
        }
        blocks += passed;
        if passed + not_compiled > 0 {
            let elsewhere =
                if not_compiled > 0 { format!(", {not_compiled} not compiled there") } else { String::new() };
            told.push(format!("{short}: {passed} passed{elsewhere}"));
        }
    }
    println!("{}", told.join("\n"));
    match faults.is_empty() {
        true if blocks > 0 => Ok(format!("{blocks} unsafe blocks are passed by tests that Miri runs")),
        true => Err(NotPassed::failed("not one unsafe block was found")),
        false => Err(NotPassed::Failed(faults)),
    }
}

/// Whether an `unsafe` block begins in this line of source.
fn is_unsafe_block(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    code.contains("unsafe {") && !code.contains("unsafe impl")
}
