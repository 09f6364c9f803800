//! The repository's own commands, run as `cargo xtask COMMAND`.
//!
//! Each command is a row of steps. A step inherits the terminal, so that the closing lines of compiler and test runners are
//! seen as they are; a failed step does not stop the ones after it, and the last line says how each of them ended.

mod bench;
mod check;
mod deep;
mod fuzz;
mod integration;
mod python;
mod steps;
mod test;
mod viewer;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

const USAGE: &str = "\
cargo xtask check                      format, lints, documentation, licences, dependencies, file lengths, layering, viewer, MSRV
cargo xtask test [--deep | --python]   every test; --deep adds long histories, kill loops, fuzzing, Miri, sanitizers; --python: these alone
cargo xtask test --deep models|histories|delivery|fuzz|miri|address|thread
                                       one of the deep parts alone
cargo xtask bench [--only P] [--rounds N] [--quick] [--micro] [--instructions] [--json FILE] [--list]
                  [--gate core]
                                       builds bench/ and runs it with these arguments
cargo xtask bench --gate export|view [--quick] [--json FILE]
                                       what delivering and looking cost, against their limits
cargo xtask bench --python|--gate python [--only P] [--quick] [--json FILE]
                                       the Python package, on every CPython from 3.11 up that is found
cargo xtask viewer [--check]           builds the page of `kastor view` into the files that are embedded; --check compares
cargo xtask integration [SUBJECT]      the reporters against real readers and servers, which it installs under target/";

/// The exit code for a command that was not understood.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let root = repository();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["check"] => check::check(&root),
        ["test"] => test::test(&root, test::Depth::Usual),
        ["test", "--deep"] => test::test(&root, test::Depth::Deep),
        ["test", "--deep", part] if deep::PARTS.contains(part) => deep::part(&root, part),
        ["test", "--python"] => test::python(&root),
        ["bench", rest @ ..] => bench::bench(&root, rest),
        ["viewer"] => viewer::viewer(&root, viewer::Aim::Write),
        ["viewer", "--check"] => viewer::viewer(&root, viewer::Aim::Compare),
        ["integration"] => integration::integration(&root, ""),
        ["integration", subject] => integration::integration(&root, subject),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        [] => misuse("a command is missing"),
        other => misuse(&format!("no such command: {}", other.join(" "))),
    }
}

/// Says what was wrong and what would be right.
fn misuse(sentence: &str) -> ExitCode {
    eprintln!("xtask: {sentence}\n\n{USAGE}");
    ExitCode::from(MISUSE)
}

/// The folder of the workspace: two above this package. Cargo names it at run time; built code may have been moved.
fn repository() -> PathBuf {
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.ancestors().nth(2).map_or_else(|| package.clone(), Path::to_path_buf)
}
