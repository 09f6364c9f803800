//! What is switched off by name, and what is aggregated only, by path.

use std::collections::HashMap;

use crate::{
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

/// The rules of one context.
#[derive(Debug, Default)]
pub(super) struct Rules {
    names: Mutex<Patterns>,
    has_names: AtomicBool,
    paths: Mutex<(Patterns, HashMap<Path, bool>)>,
    has_paths: AtomicBool,
}

impl Rules {
    pub(super) fn switch_scopes(&self, pattern: &str, is_on: bool) {
        lock(&self.names).set(pattern, is_on);
        self.has_names.store(true, Relaxed);
    }

    pub(super) fn wants_scope(&self, name: &str) -> bool {
        !self.has_names.load(Relaxed) || lock(&self.names).allow(name)
    }

    pub(super) fn record_paths(&self, pattern: &str, is_on: bool) {
        let mut paths = lock(&self.paths);
        paths.0.set(pattern, is_on);
        paths.1.clear();
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
        let (patterns, known) = &mut *paths;
        *known.entry(path).or_insert_with(|| patterns.allow(path.text()))
    }
}
