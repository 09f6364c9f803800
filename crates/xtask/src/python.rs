//! The Python package's tests and benchmark, on every CPython from 3.11 up that the machine has.
//!
//! Each interpreter gets a virtual environment under `target/python/`, into which the package is built from the sources by
//! `pip install ./python`, as a user would. One for tests, built quickly; one for the benchmark, built as it is released.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf, absolute},
    process::{Command, ExitCode, Stdio},
};

use serde_json::Value;

use crate::{
    steps::Steps,
    test::{fast_release, target_folder},
};

const OLDEST_MINOR: u32 = 11;
/// Beyond any version that can be tried by its name on `PATH`.
const NEWEST_MINOR: u32 = 30;
const PACKAGES: [&str; 3] = ["python", "python/compat/pollux", "python/compat/gemini_batch"];
const BUILD_TOOLS: [&str; 3] = ["pip>=23.3", "maturin>=1.7,<2", "hatchling"];
/// The last three run a notebook; they take five seconds.
const TEST_TOOLS: [&str; 7] = ["pytest", "hypothesis", "mypy", "pyright", "nbclient", "nbformat", "ipykernel"];
const PEERS: [&str; 3] = ["opentelemetry-sdk", "logfire", "prometheus_client"];

/// A CPython: its version as `3.13`, or `3.13t` without the global lock, and where it is.
struct Interpreter {
    version: String,
    program: PathBuf,
}

/// What a virtual environment is for, and so how the package in it was built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Tests,
    /// The tests of what works without the global lock, on an interpreter that has it.
    FreeThreaded,
    Benchmark,
}

impl Purpose {
    fn suffix(self) -> &'static str {
        match self {
            Self::Tests => "",
            Self::FreeThreaded => "-free-threaded",
            Self::Benchmark => "-bench",
        }
    }
}

/// Runs the suites on every interpreter: on the first with the checks of the stubs, which do not depend on it.
pub(crate) fn test(steps: &mut Steps, root: &Path, deep: bool) {
    let interpreters = interpreters();
    if interpreters.is_empty() {
        return steps.skip("python", &none_found());
    }
    let mut runs: Vec<(&Interpreter, Purpose)> = interpreters.iter().map(|it| (it, Purpose::Tests)).collect();
    if let Some(newest) = interpreters.iter().rfind(|it| deep && !it.version.ends_with('t')) {
        runs.push((newest, Purpose::FreeThreaded));
    }
    for (index, (interpreter, purpose)) in runs.into_iter().enumerate() {
        let name = format!("python {}{}", interpreter.version, purpose.suffix());
        let mut environment = None;
        steps.ask(&format!("{name} package"), |root| {
            environment = Some(installed(root, interpreter, purpose).map_err(|fault| vec![fault])?);
            Ok(format!("installed into {}", folder(root, interpreter, purpose).display()))
        });
        let Some(environment) = environment else {
            steps.skip(&name, "the package was not installed");
            continue;
        };
        let mut pytest = environment.python(&["-W", "error", "-m", "pytest", "-q"]);
        if index > 0 {
            pytest.arg("--ignore=python/tests/test_typing.py");
        }
        pytest.args(["-c", "python/pytest.ini", "--rootdir=python", "python/tests"]);
        if deep {
            pytest.env("KASTOR_DEEP", "1");
        }
        pytest.current_dir(root);
        steps.run(&name, pytest);
    }
}

/// Runs the benchmark on every interpreter, one after the other; `--json FILE` gets a list with one run for each.
pub(crate) fn bench(root: &Path, arguments: &[&str]) -> ExitCode {
    let interpreters = interpreters();
    if interpreters.is_empty() {
        eprintln!("xtask bench: {}", none_found());
        return ExitCode::FAILURE;
    }
    let (passed_on, json) = without_file(arguments);
    let mut runs = Vec::new();
    let mut well = true;
    for interpreter in &interpreters {
        println!("\n== bench python {}", interpreter.version);
        match measured(root, interpreter, &passed_on) {
            Ok((run, kept)) => {
                runs.push(run);
                well &= kept;
            }
            Err(fault) => {
                eprintln!("xtask bench: python {}: {fault}", interpreter.version);
                well = false;
            }
        }
    }
    if let Some(file) = json {
        // Relative to the caller's folder.
        if let Err(error) = fs::write(file, format!("{:#}\n", Value::Array(runs))) {
            eprintln!("xtask bench: {file}: {error}");
            well = false;
        }
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run: its figures, and whether the limits were kept, if that was asked.
fn measured(root: &Path, interpreter: &Interpreter, arguments: &[&str]) -> Result<(Value, bool), String> {
    let environment = installed(root, interpreter, Purpose::Benchmark)?;
    let file = environment.folder.join("figures.json");
    let mut run = environment.python(&["python/benches/run.py"]);
    run.args(arguments).arg("--json").arg(&file).current_dir(root);
    let status = run.status().map_err(|error| error.to_string())?;
    let text = fs::read_to_string(&file).map_err(|error| format!("{status}; {}: {error}", file.display()))?;
    let figures = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((figures, status.success()))
}

/// The arguments for the program itself: `--python` and `--gate python` say that it is meant, `--json` is ours.
fn without_file<'a>(arguments: &[&'a str]) -> (Vec<&'a str>, Option<&'a str>) {
    let mut passed_on = Vec::new();
    let mut json = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--python" => {}
            "--gate" => {
                rest.next();
                passed_on.push("--gate");
            }
            "--json" => json = rest.next().copied(),
            other => passed_on.push(other),
        }
    }
    (passed_on, json)
}

/// A virtual environment that has the package.
struct Environment {
    folder: PathBuf,
}

impl Environment {
    /// The interpreter with these arguments, its programs first on `PATH`, and without what the caller's shell adds.
    fn python(&self, arguments: &[&str]) -> Command {
        let programs = self.folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
        let mut path = OsString::from(&programs);
        if let Some(others) = env::var_os("PATH") {
            path.push(if cfg!(windows) { ";" } else { ":" });
            path.push(others);
        }
        let mut command = Command::new(programs.join("python"));
        command.args(arguments).env("PATH", path).env("VIRTUAL_ENV", &self.folder);
        command.env_remove("PYTHONPATH").env_remove("PYTHONHOME").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        command
    }
}

/// Makes the environment where it is missing, and builds the package into it from the sources as they are now.
fn installed(root: &Path, interpreter: &Interpreter, purpose: Purpose) -> Result<Environment, String> {
    let environment = Environment { folder: folder(root, interpreter, purpose) };
    if !environment.folder.join("pyvenv.cfg").exists() {
        let mut make = Command::new(&interpreter.program);
        make.args(["-m", "venv", "--clear"]).arg(&environment.folder);
        finished(make)?;
    }
    let mut tools = environment.python(&["-m", "pip", "install", "--quiet"]);
    tools.args(BUILD_TOOLS).args(if purpose == Purpose::Benchmark { &PEERS[..] } else { &TEST_TOOLS[..] });
    finished(tools)?;
    // Without isolation, so that the build uses the tools above and cargo its folder of the last time.
    let mut package = environment.python(&["-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps"]);
    package.arg("--force-reinstall").args(PACKAGES.map(|path| root.join(path)));
    let build = if purpose == Purpose::Benchmark {
        "python/build-release"
    } else {
        package = fast_release(package);
        "python/build"
    };
    if purpose == Purpose::FreeThreaded {
        package.env("KASTOR_BUILD_FREE_THREADED", "1");
    }
    package.env("CARGO_TARGET_DIR", absolute(target_folder(root, build)).map_err(|error| error.to_string())?);
    finished(package)?;
    Ok(environment)
}

fn folder(root: &Path, interpreter: &Interpreter, purpose: Purpose) -> PathBuf {
    let folder = target_folder(root, "python").join(format!("{}{}", interpreter.version, purpose.suffix()));
    absolute(&folder).unwrap_or(folder)
}

fn finished(mut command: Command) -> Result<(), String> {
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Every CPython from 3.11 up that can make a virtual environment, oldest first, one for each version: from `PATH`, from
/// pyenv, or from `/usr/bin`.
fn interpreters() -> Vec<Interpreter> {
    let named =
        (OLDEST_MINOR..=NEWEST_MINOR).flat_map(|minor| ["", "t"].map(|suffix| format!("python3.{minor}{suffix}")));
    let named: Vec<String> = named.chain(["python3".to_owned()]).collect();
    let mut candidates: Vec<PathBuf> = named.iter().map(PathBuf::from).collect();
    candidates.extend(pyenv());
    candidates.extend(named.iter().map(|name| Path::new("/usr/bin").join(name)));
    let mut found = BTreeMap::new();
    for program in candidates {
        if let Some((minor, free_threaded)) = asked(&program) {
            found.entry((minor, free_threaded)).or_insert(program);
        }
    }
    found
        .into_iter()
        .filter(|((minor, _), _)| *minor >= OLDEST_MINOR)
        .map(|((minor, free_threaded), program)| Interpreter {
            version: format!("3.{minor}{}", if free_threaded { "t" } else { "" }),
            program,
        })
        .collect()
}

fn none_found() -> String {
    format!("no CPython from 3.{OLDEST_MINOR} up with venv was found on PATH, under pyenv or in /usr/bin")
}

/// The interpreters that pyenv keeps, newest first.
fn pyenv() -> Vec<PathBuf> {
    let root = env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let Some(Ok(entries)) = root.map(|root| fs::read_dir(root.join("versions"))) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort_by_key(|folder| numbers(folder.file_name().and_then(|name| name.to_str()).unwrap_or_default()));
    folders.into_iter().rev().map(|folder| folder.join("bin/python")).collect()
}

/// The numbers of a version, to compare by: 3.13.10 is newer than 3.13.9.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|character: char| !character.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The minor version of a CPython 3 and whether it has no global lock; none if it is something else, does not start, or
/// cannot make a virtual environment: Debian has that in a package of its own.
fn asked(program: &Path) -> Option<(u32, bool)> {
    const QUESTION: &str = "import ensurepip, sys, sysconfig, venv; print(sys.implementation.name, *sys.version_info[:2], \
                            int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))))";
    let output = Command::new(program)
        .args(["-c", QUESTION])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let answer = String::from_utf8(output.stdout).ok()?;
    match answer.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["cpython", "3", minor, free_threaded] => Some((minor.parse().ok()?, *free_threaded == "1")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{numbers, without_file};

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let mut versions = ["3.13.9", "3.13.10", "3.9.18", "3.13.0t"];
        versions.sort_by_key(|version| numbers(version));
        assert_eq!(versions, ["3.9.18", "3.13.0t", "3.13.9", "3.13.10"]);
    }

    #[test]
    fn the_programs_arguments_are_kept_and_ours_are_taken_out() {
        assert_eq!(without_file(&["--python", "--json", "out.json", "--quick"]), (vec!["--quick"], Some("out.json")));
        assert_eq!(
            without_file(&["--gate", "python", "--only", "logfire"]),
            (vec!["--gate", "--only", "logfire"], None)
        );
    }
}
