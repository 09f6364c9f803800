//! `cargo xtask bench`: builds a benchmark, which has its peers and a lock file of its own, and runs it. `bench/` holds the
//! core's, `bench/export/` that of delivery.

use std::{
    env,
    path::{Path, absolute},
    process::{Command, ExitCode},
};

use crate::{misuse, python, steps::cargo};

const GATES: [&str; 4] = ["core", "python", "export", "view"];

/// Builds and runs the benchmarks; their arguments and their exit code pass through.
pub(crate) fn bench(root: &Path, arguments: &[&str]) -> ExitCode {
    if let Err(sentence) = understood(arguments) {
        return misuse(&sentence);
    }
    if arguments.contains(&"--python") || asks_for(arguments, "python") {
        return python::bench(root, arguments);
    }
    // Programs of their own, which know nothing of gates.
    for (gate, folder, program) in
        [("export", "bench/export", "kastor-bench-export"), ("view", "bench/view", "kastor-bench-view")]
    {
        if asks_for(arguments, gate) {
            let others: Vec<&str> = arguments.iter().copied().filter(|word| !["--gate", gate].contains(word)).collect();
            return built_and_run(&root.join(folder), program, &others);
        }
    }
    built_and_run(&root.join("bench"), "kastor-bench", arguments)
}

fn asks_for(arguments: &[&str], gate: &str) -> bool {
    arguments.windows(2).any(|pair| pair == ["--gate", gate])
}

fn built_and_run(folder: &Path, program: &str, arguments: &[&str]) -> ExitCode {
    // From inside of the folder, so that its own `.cargo/config.toml` counts, if it has one.
    let mut build = cargo(&["build", "--release", "--locked"]);
    // Where all builds are to go the bench has a folder of its own: its dependencies and flags are others.
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), |all| Path::new(&all).join(program));
    let target = absolute(&target).unwrap_or(target);
    build.arg("--target-dir").arg(&target);
    match build.current_dir(folder).status() {
        Ok(status) if status.success() => {}
        Ok(status) => return failed(&format!("building {}: {status}", folder.display())),
        Err(error) => return failed(&format!("building {}: {error}", folder.display())),
    }
    // From the caller's folder, which `--json FILE` is relative to.
    match Command::new(target.join("release").join(program)).args(arguments).status() {
        Ok(status) => match status.code().map(u8::try_from) {
            Some(Ok(code)) => ExitCode::from(code),
            _ => failed(&format!("{program}: {status}")),
        },
        Err(error) => failed(&format!("{program}: {error}")),
    }
}

/// Finds a mistyped argument before a build of minutes does.
fn understood(arguments: &[&str]) -> Result<(), String> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match (*argument, rest.clone().next()) {
            ("--instructions" | "--quick" | "--micro" | "--list" | "--python", _) => {}
            ("--gate", Some(gate)) if !GATES.contains(gate) => {
                return Err(format!("no such gate: {gate}; there are {}", GATES.join(", ")));
            }
            ("--only" | "--json" | "--gate" | "--rounds", Some(_)) => {
                rest.next();
            }
            ("--only" | "--json" | "--gate" | "--rounds", None) => return Err(format!("{argument} needs a value")),
            (other, _) => return Err(format!("bench has no argument {other}")),
        }
    }
    Ok(())
}

fn failed(sentence: &str) -> ExitCode {
    eprintln!("xtask bench: {sentence}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::understood;

    #[test]
    fn arguments_are_checked_before_the_build() {
        let good: [&[&str]; 6] = [
            &[],
            &["--only", "scope", "--json", "out.json"],
            &["--instructions", "--gate", "core"],
            &["--gate", "view"],
            &["--python", "--quick", "--json", "out.json"],
            &["--only", "kastor", "--quick", "--micro", "--rounds", "1"],
        ];
        for arguments in good {
            assert_eq!(understood(arguments), Ok(()), "{arguments:?}");
        }
        let bad: [&[&str]; 4] = [&["--only"], &["--gate", "speed"], &["--quick", "--fast"], &["scope"]];
        for arguments in bad {
            assert!(understood(arguments).is_err(), "{arguments:?}");
        }
    }
}
