//! What `cargo metadata` says about the packages of the lock file, and what we ask of them.

use std::{fs, path::Path};

use serde_json::Value;

use super::licence::is_allowed;
use crate::steps::cargo;

/// How the source of a package from crates.io ends.
const CRATES_IO: &str = "/crates.io-index";
/// All that a program which links the core may have to compile beside it.
const CORE_DEPENDENCIES: [&str; 3] = ["kastor-macros", "libc", "log"];
/// Dependencies under this condition exist for the concurrency models alone; nobody else compiles them.
const MODEL_TARGET: &str = "cfg(loom)";

type Faults = Vec<String>;

/// Every package that a build on any platform could use.
pub(super) struct Packages {
    packages: Vec<Value>,
}

impl Packages {
    pub(super) fn read(root: &Path) -> Result<Self, Faults> {
        let output = cargo(&["metadata", "--format-version", "1", "--locked", "--all-features"])
            .current_dir(root)
            .output()
            .map_err(|error| vec![format!("cargo metadata: {error}")])?;
        if !output.status.success() {
            return Err(vec![format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim())]);
        }
        let mut metadata: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| vec![format!("cargo metadata: {error}")])?;
        match metadata["packages"].take() {
            Value::Array(packages) => Ok(Self { packages }),
            _ => Err(vec!["cargo metadata names no packages".to_owned()]),
        }
    }

    /// The facts that cargo-deny would check: licences, banned packages, sources.
    pub(super) fn obey_deny_lists(&self, root: &Path) -> Result<String, Faults> {
        let lists = DenyLists::read(root)?;
        let mut faults = Vec::new();
        for package in &self.packages {
            let name = text(&package["name"]);
            let shown = format!("{name} {}", text(&package["version"]));
            match package["license"].as_str() {
                Some(licence) if is_allowed(licence, &lists.licences) => {}
                Some(licence) => faults.push(format!("{shown}: licence `{licence}` is not within licenses.allow")),
                None => faults.push(format!("{shown} states no licence expression")),
            }
            match package["source"].as_str() {
                None => {}
                Some(source) if source.starts_with("registry+") && source.ends_with(CRATES_IO) => {}
                Some(source) => {
                    faults.push(format!("{shown} comes from {source}, not from crates.io or this repository"))
                }
            }
            if lists.banned.iter().any(|banned| banned == name) {
                faults.push(format!("{shown} is banned by deny.toml"));
            }
        }
        let summary = format!(
            "{} packages: licences within the {} allowed ones, sources crates.io or this repository, none of {} banned",
            self.packages.len(),
            lists.licences.len(),
            lists.banned.len()
        );
        if faults.is_empty() { Ok(summary) } else { Err(faults) }
    }

    /// The core's dependency table: who instruments a library asks nothing more of its users.
    pub(super) fn core_is_small(&self) -> Result<String, Faults> {
        let (core, macros) = (self.member("kastor")?, self.member("kastor-macros")?);
        let mut faults = Vec::new();
        for dependency in shipped(core) {
            let name = text(&dependency["name"]);
            if !CORE_DEPENDENCIES.contains(&name) && dependency["target"].as_str() != Some(MODEL_TARGET) {
                faults.push(format!("kastor depends on {name}; it may use {} alone", CORE_DEPENDENCIES.join(", ")));
            }
            if dependency["optional"] == Value::Bool(true) {
                faults.push(format!("kastor's dependency {name} is optional; the core has no features"));
            }
        }
        faults.extend(
            shipped(macros).map(|dependency| {
                format!("kastor-macros depends on {}; it may use nothing", text(&dependency["name"]))
            }),
        );
        for package in [core, macros] {
            if package["features"].as_object().is_none_or(|features| !features.is_empty()) {
                faults.push(format!("{} declares features; the core has none", text(&package["name"])));
            }
        }
        if faults.is_empty() {
            Ok("kastor: kastor-macros, libc, log at most; no features".to_owned())
        } else {
            Err(faults)
        }
    }

    /// The oldest compiler that the core says it needs.
    pub(super) fn core_rust_version(&self) -> Result<String, Faults> {
        let version = self.member("kastor")?["rust_version"].as_str();
        version.map(str::to_owned).ok_or_else(|| vec!["kastor states no rust-version".to_owned()])
    }

    /// A package of this repository.
    fn member(&self, name: &str) -> Result<&Value, Faults> {
        self.packages
            .iter()
            .find(|package| package["name"] == name && package["source"].is_null())
            .ok_or_else(|| vec![format!("the workspace has no package {name}")])
    }
}

/// What is compiled with a package for its users: everything but its tests' dependencies.
fn shipped(package: &Value) -> impl Iterator<Item = &Value> {
    package["dependencies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// The lists of deny.toml.
struct DenyLists {
    licences: Vec<String>,
    banned: Vec<String>,
}

impl DenyLists {
    fn read(root: &Path) -> Result<Self, Faults> {
        let text = fs::read_to_string(root.join("deny.toml")).map_err(|error| vec![format!("deny.toml: {error}")])?;
        let table: toml::Table = text.parse().map_err(|error| vec![format!("deny.toml: {error}")])?;
        let list = |section: &str, key: &str| {
            let array = table.get(section).and_then(|section| section.get(key)).and_then(toml::Value::as_array);
            array.ok_or_else(|| vec![format!("deny.toml has no list {section}.{key}")])
        };
        let licences = list("licenses", "allow")?.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect();
        let banned = list("bans", "deny")?.iter().map(banned_name).collect::<Result<_, _>>()?;
        Ok(Self { licences, banned })
    }
}

/// `"name"` or `{ crate = "name", … }`. A version in it would need a version's comparison: ban the package as a whole.
fn banned_name(entry: &toml::Value) -> Result<String, Faults> {
    let name = entry.as_str().or_else(|| entry.get("crate").and_then(toml::Value::as_str));
    match name {
        Some(name) if !name.contains([':', '@']) => Ok(name.to_owned()),
        _ => Err(vec![format!("deny.toml: bans.deny has an entry that xtask does not understand: {entry}")]),
    }
}
