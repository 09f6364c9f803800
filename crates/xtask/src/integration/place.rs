//! The folder in which everything is installed and written: `target/integration`.
//!
//! ```text
//! python/                 a virtual environment
//! apt/SUITE/              a private state of apt: its lists, its cache, one line of sources
//! debian/SUITE/PACKAGE/   the content of a Debian package
//! work/CHECK/             what one run of a check wrote; emptied at its start
//! ```
//! Packages are signed and checked as apt does it always; they are only unpacked, never installed, so no rights are
//! needed. What is there already is used again; delete the folder to begin anew.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    steps::{NotPassed, cargo, shown},
    test::target_folder,
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// See the module.
pub(crate) struct Place {
    root: PathBuf,
    folder: PathBuf,
}

impl Place {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), folder: target_folder(root, "integration") }
    }

    /// The repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// An empty folder for one check.
    pub(crate) fn work(&self, check: &str) -> Result<PathBuf, NotPassed> {
        let folder = self.folder.join("work").join(check);
        let _ = fs::remove_dir_all(&folder);
        make(&folder)?;
        Ok(folder)
    }

    /// A Python with these packages of PyPI, pre-releases included. A package may have a version: `rotel==0.0.1a15`.
    pub(crate) fn python(&self, packages: &[&str]) -> Result<PathBuf, NotPassed> {
        let environment = self.folder.join("python");
        let python = environment.join("bin/python");
        if !python.exists() {
            make(&self.folder)?;
            let mut venv = Command::new("python3");
            venv.args(["-m", "venv"]).arg(&environment);
            quietly(venv).map_err(NotPassed::skipped)?;
        }
        for package in packages {
            let stamp = environment.join("installed").join(package);
            if stamp.exists() {
                continue;
            }
            println!("installing {package} from PyPI");
            let mut pip = Command::new(&python);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--pre", package]);
            quietly(pip).map_err(NotPassed::skipped)?;
            make(&environment.join("installed"))?;
            fs::write(&stamp, "").map_err(|error| NotPassed::failed(format!("{}: {error}", stamp.display())))?;
        }
        Ok(python)
    }

    /// The content of a Debian package of a suite (`bookworm`, `trixie`), unpacked and not installed.
    pub(crate) fn debian(&self, suite: &str, package: &str) -> Result<PathBuf, NotPassed> {
        let content = self.folder.join("debian").join(suite).join(package);
        if content.exists() {
            return Ok(content);
        }
        println!("fetching {package} of Debian {suite}");
        let apt = Apt::new(&self.folder, suite).map_err(NotPassed::skipped)?;
        let archive = apt.download(package).map_err(NotPassed::skipped)?;
        // Renamed when it is whole, so that an interrupted run leaves nothing that looks complete.
        let unpacked = content.with_extension(format!("{}.part", std::process::id()));
        make(&unpacked)?;
        let mut extract = Command::new("dpkg-deb");
        extract.arg("-x").arg(&archive).arg(&unpacked);
        quietly(extract).map_err(NotPassed::skipped)?;
        let _ = fs::remove_file(archive);
        match fs::rename(&unpacked, &content) {
            Ok(()) => Ok(content),
            // Another run was faster.
            Err(_) if content.exists() => Ok(content),
            Err(error) => Err(NotPassed::failed(format!("{}: {error}", content.display()))),
        }
    }

    /// Builds an example of `kastor-export` with these features besides the default ones; its program.
    pub(crate) fn example(&self, name: &str, features: &str) -> Result<PathBuf, NotPassed> {
        let arguments = ["--package", "kastor-export", "--example", name, "--features", features];
        Ok(self.built(&arguments)?.join("examples").join(name))
    }

    /// Builds the command line; its program.
    pub(crate) fn kastor(&self) -> Result<PathBuf, NotPassed> {
        Ok(self.built(&["--package", "kastor-cli"])?.join("kastor"))
    }

    /// Builds, and says where what was built is.
    fn built(&self, what: &[&str]) -> Result<PathBuf, NotPassed> {
        let mut build = cargo(&["build", "--quiet"]);
        build.args(what).current_dir(&self.root);
        let line = shown(&build);
        match build.status() {
            Ok(status) if status.success() => Ok(target_folder(&self.root, "debug")),
            Ok(status) => Err(NotPassed::failed(format!("{line}: {status}"))),
            Err(error) => Err(NotPassed::failed(format!("{line}: {error}"))),
        }
    }
}

/// apt with everything of its own under one folder, looking at one suite.
struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn new(place: &Path, suite: &str) -> Result<Self, String> {
        let folder = place.join("apt").join(suite);
        for part in ["lists/partial", "cache/archives/partial", "etc"] {
            fs::create_dir_all(folder.join(part)).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let sources = folder.join("etc/sources.list");
        let line = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
        fs::write(&sources, line).map_err(|error| format!("{}: {error}", sources.display()))?;
        let shown = folder.display();
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={shown}/lists"),
            format!("Dir::Cache={shown}/cache"),
            "APT::Get::List-Cleanup=0".to_owned(),
            // Neither the system's packages nor its user for downloads have a part in this.
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ];
        let apt = Self { folder, options: options.into() };
        quietly(apt.command(&["update"]))?;
        Ok(apt)
    }

    fn download(&self, package: &str) -> Result<PathBuf, String> {
        let mut download = self.command(&["download", package]);
        download.current_dir(&self.folder);
        quietly(download)?;
        let entries = fs::read_dir(&self.folder).map_err(|error| format!("{}: {error}", self.folder.display()))?;
        let mut archives = entries.flatten().map(|entry| entry.path());
        let begin = format!("{package}_");
        archives
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begin)))
            .ok_or_else(|| format!("apt-get download {package} left no file in {}", self.folder.display()))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "--quiet"]);
        self.options.iter().for_each(|option| {
            command.args(["--option", option]);
        });
        command.args(arguments);
        command
    }
}

/// The mirror that this system's apt uses for Debian, so that what works for it works here.
fn mirror() -> Result<String, String> {
    let format = "$(REPO_URI)";
    let output = Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let found = text.lines().find(|line| line.trim_end_matches('/').ends_with("/debian"));
    found.map(str::to_owned).ok_or_else(|| "apt-get knows no mirror of Debian: see its sources.list".to_owned())
}

fn make(folder: &Path) -> Result<(), NotPassed> {
    fs::create_dir_all(folder).map_err(|error| NotPassed::failed(format!("{}: {error}", folder.display())))
}

/// Runs a program; what it printed is told only if it failed.
fn quietly(mut program: Command) -> Result<(), String> {
    let line = shown(&program);
    match program.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let end: Vec<&str> = text.lines().rev().take(5).collect();
            Err(format!("{line}: {}: {}", output.status, end.into_iter().rev().collect::<Vec<_>>().join(" / ")))
        }
        Err(error) => Err(format!("{line}: {error}")),
    }
}
