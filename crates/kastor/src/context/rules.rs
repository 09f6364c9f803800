//! What is switched off by name, and what is aggregated only, by path.

use std::collections::{HashMap, HashSet};

use crate::{
    health::Degradation,
    name::{Glob, Path},
    sync::{AtomicBool, Held, Mutex, Ordering::Relaxed, lock},
};

/// Ordered patterns with a decision each; the last one that fits decides, and without one the answer is yes.
#[derive(Debug, Default)]
struct Patterns(Vec<(Glob, bool)>);

impl Patterns {
    fn set(&mut self, pattern: &str, is_on: bool) {
        let glob = Glob::new(pattern);
        self.0.retain(|(known, _)| *known != glob);
        self.0.push((glob, is_on));
    }

    fn allow(&self, text: &str) -> bool {
        self.0.iter().rev().find(|(glob, _)| glob.matches(text)).is_none_or(|(_, is_on)| *is_on)
    }
}

#[derive(Debug, Default)]
struct Names {
    patterns: Patterns,
    /// Those that the overhead budget switched off, each by so many paths.
    off: HashMap<&'static str, u32>,
}

#[derive(Debug, Default)]
struct Paths {
    patterns: Patterns,
    /// What the patterns said so far.
    known: HashMap<Path, bool>,
    /// Those that are beyond the overhead budget.
    degraded: HashSet<Path>,
}

/// The rules of one context.
#[derive(Debug, Default)]
pub(super) struct Rules {
    names: Mutex<Names>,
    has_names: AtomicBool,
    paths: Mutex<Paths>,
    has_paths: AtomicBool,
}

impl Rules {
    pub(super) fn switch_scopes(&self, pattern: &str, is_on: bool) {
        lock(&self.names).patterns.set(pattern, is_on);
        self.has_names.store(true, Relaxed);
    }

    pub(super) fn wants_scope(&self, name: &str) -> bool {
        if !self.has_names.load(Relaxed) {
            return true;
        }
        let names = lock(&self.names);
        !names.off.contains_key(name) && names.patterns.allow(name)
    }

    pub(super) fn record_paths(&self, pattern: &str, is_on: bool) {
        let mut paths = lock(&self.paths);
        paths.patterns.set(pattern, is_on);
        paths.known.clear();
        self.has_paths.store(true, Relaxed);
    }

    /// Holds the rules still, for a fork.
    pub(super) fn hold<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(lock(&self.names)));
        held.push(Box::new(lock(&self.paths)));
    }

    /// Whether any path may be aggregated only.
    pub(super) fn has_paths(&self) -> bool {
        self.has_paths.load(Relaxed)
    }

    pub(super) fn records_path(&self, path: Path) -> bool {
        let mut paths = lock(&self.paths);
        let Paths { patterns, known, degraded } = &mut *paths;
        !degraded.contains(&path) && *known.entry(path).or_insert_with(|| patterns.allow(path.text()))
    }

    /// Degrades a path, further or less, or restores it. Returns whether a name was switched.
    pub(super) fn degrade(&self, path: Path, level: Option<Degradation>) -> bool {
        let is_new = match level {
            Some(_) => {
                self.has_paths.store(true, Relaxed);
                lock(&self.paths).degraded.insert(path)
            }
            None => lock(&self.paths).degraded.remove(&path),
        };
        // A path is switched off only when it was aggregated only, and restored only then.
        if is_new {
            return false;
        }
        self.has_names.store(true, Relaxed);
        let mut names = lock(&self.names);
        let paths = names.off.entry(path.name().text()).or_default();
        *paths = if level == Some(Degradation::Off) { *paths + 1 } else { paths.saturating_sub(1) };
        if *paths == 0 {
            names.off.remove(path.name().text());
        }
        true
    }
}
