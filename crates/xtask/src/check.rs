//! `cargo xtask check`: everything that can be said about the code without running it.

mod length;
mod licence;
mod packages;
mod promises;

use std::{
    fs,
    path::{Path, absolute},
    process::ExitCode,
};

use crate::steps::{Steps, cargo, has, with_flags};
use packages::Packages;

/// Runs every check.
pub(crate) fn check(root: &Path) -> ExitCode {
    let mut steps = Steps::new("check", root);
    steps.run("format", cargo(&["fmt", "--all", "--check"]));
    let all = ["clippy", "--workspace", "--all-targets", "--features", "kastor-export/grpc", "--", "-D", "warnings"];
    steps.run("lints", cargo(&all));
    without_the_gil(&mut steps, root);
    steps.run("documentation", {
        let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--lib"]);
        doc.env("RUSTDOCFLAGS", with_flags("RUSTDOCFLAGS", "-D warnings"));
        doc
    });
    supply_chain(&mut steps);
    steps.ask("core dependencies", |root| Packages::read(root)?.core_is_small());
    steps.ask("file lengths", length::files_stay_readable);
    steps.ask("promises", promises::tests_are_there);
    steps.run("layering", cargo(&["test", "--quiet", "--package", "kastor", "--test", "layering"]));
    crate::viewer::check(&mut steps);
    oldest_compiler(&mut steps, root);
    steps.finish()
}

/// The Python package as it is compiled for an interpreter without the global lock, which few machines have.
fn without_the_gil(steps: &mut Steps, root: &Path) {
    const INTERPRETER: &str = "implementation=CPython\nversion=3.14\nshared=false\nabi3=false\nlib_name=python3.14t\n\
                               pointer_width=64\nbuild_flags=Py_GIL_DISABLED\nsuppress_build_script_link_lines=true\n";
    let folder = crate::test::target_folder(root, "free-threaded");
    let file = folder.join("interpreter.txt");
    let written =
        fs::create_dir_all(&folder).and_then(|()| fs::write(&file, INTERPRETER)).and_then(|()| absolute(&file));
    match written {
        Ok(file) => {
            let mut lints = cargo(&["clippy", "--package", "kastor-py", "--", "-D", "warnings"]);
            lints.env("PYO3_CONFIG_FILE", file);
            steps.run("lints without the GIL", lints);
        }
        Err(error) => steps.ask("lints without the GIL", |_| Err(vec![format!("{}: {error}", file.display())])),
    }
}

/// Licences, banned packages and sources: cargo-deny where it is installed, else the same lists read by us.
fn supply_chain(steps: &mut Steps) {
    if has(&["deny", "--version"]) {
        println!("\nlicences, bans and sources: asking cargo-deny");
        steps.run("supply chain", cargo(&["deny", "--locked", "check", "licenses", "bans", "sources"]));
    } else {
        println!(
            "\nlicences, bans and sources: cargo-deny is NOT INSTALLED; \
             xtask asks the lists of deny.toml by itself from `cargo metadata`"
        );
        steps.ask("supply chain", |root| Packages::read(root)?.obey_deny_lists(root));
    }
}

/// The core promises an older compiler than the rest of the workspace needs.
fn oldest_compiler(steps: &mut Steps, root: &Path) {
    const NAME: &str = "oldest compiler";
    let oldest = match Packages::read(root).and_then(|packages| packages.core_rust_version()) {
        Ok(oldest) => oldest,
        Err(faults) => return steps.ask(NAME, |_| Err(faults)),
    };
    let toolchain = format!("+{oldest}");
    if !has(&[&toolchain, "--version"]) {
        return steps.skip(NAME, &format!("Rust {oldest} is not installed"));
    }
    let mut build = cargo(&[&toolchain, "check", "--locked", "--package", "kastor", "--lib"]);
    build.env("CARGO_TARGET_DIR", crate::test::target_folder(root, "oldest"));
    steps.run(NAME, build);
}
