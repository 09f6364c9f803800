//! The fuzz targets, each for a short time: enough to see that they run, find nothing at once, and take every kept input.

use std::{fs, path::Path};

use crate::{
    steps::{Steps, cargo, has},
    test::target_folder,
};

/// How long each of them runs. `fuzz/README.md` says how to run one for longer.
const SECONDS: u32 = 30;
/// A single input that takes longer is a finding.
const TIMEOUT_SECONDS: u32 = 10;

/// One step for each target.
pub(crate) fn run(steps: &mut Steps, root: &Path) {
    if !has(&["+nightly", "fuzz", "--version"]) {
        return steps.skip("fuzz", "cargo-fuzz or the nightly compiler is not installed");
    }
    let mut names: Vec<String> = fs::read_dir(root.join("fuzz/fuzz_targets"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    if names.is_empty() {
        return steps.ask("fuzz", |_| Err(vec!["fuzz/fuzz_targets is empty".to_owned()]));
    }
    for name in names {
        // What is found on the way stays out of the kept inputs.
        let found = target_folder(root, "fuzz-found").join(&name);
        if let Err(error) = fs::create_dir_all(&found) {
            steps.ask("fuzz", |_| Err(vec![format!("{}: {error}", found.display())]));
            continue;
        }
        let mut command = cargo(&["+nightly", "fuzz", "run", &name]);
        command.arg(found).arg(root.join("fuzz/corpus").join(&name)).arg("--");
        command.args([format!("-max_total_time={SECONDS}"), format!("-timeout={TIMEOUT_SECONDS}")]);
        // Tables that grew are never freed: who reads them does not say so.
        command.arg("-detect_leaks=0");
        command.env("CARGO_TARGET_DIR", target_folder(root, "fuzz"));
        steps.run(&format!("fuzz {name}"), command);
    }
}
