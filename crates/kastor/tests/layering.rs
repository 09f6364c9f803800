//! The rooms of the crate, the order in which they may see each other, and what each of them alone may touch.
//!
//! A room is a file or a folder directly under `src/`. The sources are read as tokens, so comments and texts do not count,
//! and every path is resolved to the room that it begins with: from `crate::…`, from `super::…` and from braces. Modules
//! and items under `#[cfg(test)]` may look everywhere. `lib.rs` is the front door and no room.

use std::{
    fs,
    path::{Path, PathBuf},
};

use source::{Found, read};

#[path = "layering/source.rs"]
mod source;

/// A room may import only from rooms in earlier rows, and never from another room in its own.
const ROWS: &[&[&str]] = &[
    &["sync", "error", "escape", "getters"],
    &["clock", "name", "config", "health", "sampler"],
    &["value", "callsite"],
    &["record"],
    &["thread"],
    &["event"],
    &["reporter", "propagate", "aggregate"],
    &["stack"],
    &["buffer"],
    &["dispatch", "memory", "report", "recording", "log"],
    &["context"],
    &["scope"],
    &["metric"],
    &["task", "raw"],
    &["macros"],
];

/// What is used (the end of a path, or a macro's name), where alone it may be used, and why.
const BORDERS: &[(&[&str], &[&str], &str)] = &[
    (&["std", "net"], &[], "the core opens no sockets; reporters that do are another crate"),
    (&["std", "fs"], &["clock"], "the one file that the core reads is the name of the kernel's clock source"),
    (&["std", "env"], &["config"], "the environment is read in one place, into a plain struct"),
    (&["process", "Command"], &[], "no program is run to find anything out"),
    (&["Instant"], &["clock"], "time comes from the clock, which tests replace"),
    (&["SystemTime"], &["clock"], "time comes from the clock, which tests replace"),
    (&["thread", "spawn"], &["dispatch"], "the collector's threads are the only ones"),
    (&["thread", "Builder"], &["dispatch"], "the collector's threads are the only ones"),
    (&["println!"], &["memory"], "a library does not print; `print_report` is there to"),
    (&["print!"], &["memory"], "a library does not print; `print_report` is there to"),
    (&["eprintln!"], &[], "a library does not print; what went wrong goes to `log` and into the statistics"),
    (&["eprint!"], &[], "a library does not print; what went wrong goes to `log` and into the statistics"),
];

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn rooms_import_only_downward() {
    let faults = faults_of_all(import_fault);
    assert!(faults.is_empty(), "against the order of the rooms:\n{}", faults.join("\n"));
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_world_is_reached_through_one_room_each() {
    let faults = faults_of_all(border_fault);
    assert!(faults.is_empty(), "against the borders of the core:\n{}", faults.join("\n"));
}

/// The hot paths publish records by themselves, which no model includes: whoever reads up to the position has to see them.
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn every_record_is_published_with_release() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut stores, mut faults) = (0, Vec::new());
    for file in files(&sources) {
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| line.contains("position.store(")) {
            stores += 1;
            if !line.trim_end().ends_with(", Release);") {
                faults.push(format!("{}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "not published:\n{}", faults.join("\n"));
    assert!(stores >= 4, "{stores} stores of a position were found");
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_attribute_names_only_the_private_door() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kastor-macros/src");
    let mut names = 0;
    for file in files(&folder) {
        for line in text_of(&file).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, path) in line.match_indices("::kastor::") {
                names += 1;
                let rest = &line[at + path.len()..];
                assert!(rest.starts_with("__private::"), "{}: {}", file.display(), line.trim());
            }
        }
    }
    assert!(names > 0, "the attribute names no path at all; this test looks for the wrong thing");
}

/// The fault in one import, if it has one.
fn import_fault(room: &str, found: &Found) -> Option<String> {
    let target = match found {
        Found::Room(target) => target.as_str(),
        // What the exported macros name is resolved where they are used: through the private door, not a room.
        Found::ExportedRoom(target) if target == "__private" => {
            return (room != "macros").then(|| "only `macros` may name the private door".to_owned());
        }
        // Exported macros stand at the root, and all of them are of one room.
        Found::ExportedRoom(target) if target.ends_with('!') => {
            return (room != "macros").then(|| format!("{room} calls {target}: only `macros` may call its macros"));
        }
        Found::ExportedRoom(target) => target,
        Found::Root(how) => return Some(format!("{how}: name the room that the item is from")),
        Found::Path(_) => return None,
    };
    if target == room {
        return None;
    }
    match (row(room), row(target)) {
        (Some(own), Some(other)) if other < own => None,
        (Some(own), Some(other)) if other == own => Some(format!("{room} -> {target}, in the same row")),
        (Some(_), Some(_)) => Some(format!("{room} -> {target}, upward")),
        (None, _) => Some(format!("the room {room} is in no row: place it")),
        (_, None) => Some(format!("{room} -> {target}, which is no room: name the room that the item is from")),
    }
}

fn border_fault(room: &str, found: &Found) -> Option<String> {
    let Found::Path(path) = found else { return None };
    let (what, _, why) = BORDERS.iter().find(|(what, rooms, _)| {
        !rooms.contains(&room) && path.windows(what.len()).any(|part| part.iter().eq(what.iter()))
    })?;
    Some(format!("{room} uses {}: {why}", what.join("::")))
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&room))
}

fn faults_of_all(fault: fn(&str, &Found) -> Option<String>) -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files(&src);
    assert!(!files.is_empty(), "no sources under {}", src.display());
    let mut faults = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let modules = modules_of(inside);
        let Some(room) = modules.first() else { continue };
        if row(room).is_none() {
            faults.push(format!("{}: the room {room} is in no row: place it", inside.display()));
            continue;
        }
        for (line, found) in read(&text_of(&file), &modules) {
            faults.extend(fault(room, &found).map(|fault| format!("src/{}:{line}: {fault}", inside.display())));
        }
    }
    // One `use` of five items is one fault.
    faults.dedup();
    faults
}

/// `clock/tsc.rs` is the module `clock::tsc`, `clock/mod.rs` and `clock.rs` are `clock`, `lib.rs` is the root.
fn modules_of(file: &Path) -> Vec<String> {
    let mut modules: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if modules.last().is_some_and(|last| last == "mod" || last == "lib") {
        modules.pop();
    }
    modules
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn text_of(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The reader is a checker itself: what it has to see, and what it must not.
mod the_reader {
    use super::{border_fault, import_fault, modules_of, read};
    use std::path::Path;

    fn faults(file: &str, text: &str) -> Vec<String> {
        let modules = modules_of(Path::new(file));
        let room = modules[0].clone();
        let found = read(text, &modules);
        found
            .iter()
            .filter_map(|(_, found)| import_fault(&room, found).or_else(|| border_fault(&room, found)))
            .collect()
    }

    #[test]
    fn lets_downward_imports_pass() {
        let good = [
            ("stack.rs", "use crate::{clock::{Clock, tsc::now}, event::Timing, thread};"),
            ("clock/tsc.rs", "use super::Anchor; use super::os::read; use crate::clock::mock; use crate::sync::Mutex;"),
            ("context/mod.rs", "pub(crate) mod builder; pub(in crate::context) use self::builder::Builder;"),
            ("stack.rs", "// crate::scope\n/* crate::scope /* nested */ super::x */ const A: &str = \"crate::scope\";"),
            (
                "stack.rs",
                "const B: &str = r#\"crate::scope \"quoted\" \"#; fn f<'a>(x: &'a str) { let _ = ('\"', b'\\'', x); }",
            ),
            ("stack.rs", "fn f() {} #[cfg(test)] mod tests { use super::*; use crate::scope::Scope; }"),
            ("stack.rs", "#[cfg(all(test, not(loom)))] use crate::scope::Scope; fn f() {}"),
            ("stack.rs", "struct A { #[cfg(test)] b: HashMap<u8, crate::scope::B>, c: u8 } fn f() {}"),
            ("stack.rs", "mod inner { use super::Frame; mod deeper { use super::super::Frame; } }"),
            ("macros.rs", "macro_rules! scope { () => { $crate::__private::open($crate::scope::NONE) } }"),
            ("macros.rs", "macro_rules! count { () => { $crate::__record!(Counter) } }"),
            ("clock/os.rs", "use std::{fs, time::{Duration, Instant}};"),
            ("dispatch/collector.rs", "use crate::sync::thread; fn f() { thread::Builder::new(); }"),
            ("memory.rs", "fn f() { println!(\"{}\", 1); }"),
            ("config.rs", "use std::env; const V: &str = env!(\"CARGO_PKG_VERSION\");"),
            ("scope.rs", "fn instant() { let println = std::thread::current(); }"),
        ];
        for (file, text) in good {
            assert_eq!(faults(file, text), [""; 0], "{file}: {text}");
        }
    }

    #[test]
    fn sees_imports_against_the_order() {
        let bad = [
            ("stack.rs", "use crate::scope::Scope;"),
            ("aggregate.rs", "use crate::reporter::Reporter;"),
            ("stack.rs", "use crate::{clock::Clock, scope::Scope};"),
            ("stack.rs", "use crate::{clock::{tsc, os}, context};"),
            ("stack.rs", "fn f() { crate :: scope :: open(); }"),
            ("stack.rs", "use super::scope::Scope;"),
            ("clock/tsc.rs", "use super::super::scope::Scope;"),
            ("clock/tsc.rs", "use super::{os, super::name};"),
            ("clock.rs", "mod inner { use super::super::name; }"),
            ("clock/mod.rs", "use super::name;"),
            ("stack.rs", "use crate::Telemetry;"),
            ("stack.rs", "use crate::*;"),
            ("stack.rs", "use crate as kastor;"),
            ("stack.rs", "use crate::{self as kastor};"),
            ("stack.rs", "use super::*;"),
            ("stack.rs", "use super::{Telemetry};"),
            ("stack.rs", "fn f() { crate::scope!(\"x\"); }"),
            ("stack.rs", "macro_rules! m { () => { $crate::scope::open() } }"),
            ("stack.rs", "macro_rules! m { () => { $crate::__private::open() } }"),
            ("stack.rs", "macro_rules! m { () => { $crate::scope!() } }"),
            ("macros.rs", "macro_rules! m { () => { $crate::Telemetry::current() } }"),
            ("stack.rs", "#[cfg(test)] mod tests { use super::*; } use crate::scope::Scope;"),
            ("stack.rs", "#[cfg(not(test))] use crate::scope::Scope;"),
            ("stack.rs", "use crate::r#scope::Scope;"),
        ];
        for (file, text) in bad {
            assert_eq!(faults(file, text).len(), 1, "{file}: {text}: {:?}", faults(file, text));
        }
    }

    #[test]
    fn sees_what_only_one_room_may_touch() {
        let bad = [
            ("config.rs", "use std::net::TcpStream;"),
            ("config.rs", "use std::{net::{TcpStream}};"),
            ("name.rs", "fn f() { ::std::env::var(\"X\"); }"),
            ("name.rs", "use std::{collections::HashMap, env as world};"),
            ("scope.rs", "use std::time::{Duration, Instant as Now};"),
            ("scope.rs", "use crate::clock::SystemTime;"),
            ("scope.rs", "fn f() { std::thread::spawn(|| ()); }"),
            ("scope.rs", "use crate::sync::{thread::{self, Builder}};"),
            ("scope.rs", "fn f() { println!(); }"),
            ("memory.rs", "fn f() { eprintln!(); }"),
            ("scope.rs", "fn f() { std::print!(\"x\"); }"),
        ];
        for (file, text) in bad {
            assert_eq!(faults(file, text).len(), 1, "{file}: {text}: {:?}", faults(file, text));
        }
    }
}
