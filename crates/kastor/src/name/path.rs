//! Paths: (parent path, name) as four bytes.

use std::sync::OnceLock;

use super::{
    Name,
    table::{Segments, Table},
};
use crate::sync::{Mutex, lock};

/// Levels that a path keeps apart; deeper scopes share one entry per place.
pub const MAX_LEVELS: u32 = 256;
/// Bytes of text that a path keeps.
pub const MAX_TEXT_BYTES: u32 = 64 << 10;
/// Paths that a process keeps apart.
pub const MAX_PATHS: u32 = 100_000;
/// Bytes of path text that a process materialises; it is made only when someone reads it.
pub(crate) const MAX_TOTAL_TEXT_BYTES: u64 = 256 << 20;

/// An interned path. Bit 31 marks a place below the limits: everything under it has the same path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(#[doc(hidden)] pub u32);

const DEEPER_BIT: u32 = 1 << 31;

struct Entry {
    parent: Path,
    name: Name,
    levels: u32,
    text_bytes: u32,
    text: OnceLock<&'static str>,
}

static ENTRIES: Segments<Entry> = Segments::new();
static INDEX: Table = Table::new();
static WRITER: Mutex<u64> = Mutex::new(0);

impl Path {
    /// Above every scope.
    pub(crate) const ROOT: Path = Path(0);

    /// The path of no scope: what a flow that starts anew has in its place.
    pub(crate) const NOWHERE: Path = Path(u32::MAX >> 1);

    /// Whether this stands for all places below the limits.
    #[inline(always)]
    pub(crate) fn is_deeper(self) -> bool {
        self.0 & DEEPER_BIT != 0
    }

    /// Position among all paths, dense from 1.
    #[inline(always)]
    pub(crate) fn index(self) -> u32 {
        self.0 & !DEEPER_BIT
    }

    /// Number of names in the path; 0 for the root.
    pub fn levels(self) -> u32 {
        self.entry().map_or(0, |entry| entry.levels)
    }

    /// The enclosing path, or none for a path of one name.
    pub fn parent(self) -> Option<Path> {
        let parent = self.entry()?.parent;
        (parent != Path::ROOT).then_some(parent)
    }

    /// The text of the enclosing path, for something at this depth: below the limits that is the same path again.
    pub(crate) fn parent_text(self, depth: u32) -> Option<&'static str> {
        if depth >= self.levels() { Some(self.text()) } else { self.parent().map(Path::text) }
    }

    /// The path that was made as the `index`th, from 1.
    pub(crate) fn at(index: u32) -> Path {
        let is_deeper = Path(index).name() == Name::DEEPER;
        Path(if is_deeper { index | DEEPER_BIT } else { index })
    }

    /// The last name.
    pub fn name(self) -> Name {
        self.entry().map_or(Name::NONE, |entry| entry.name)
    }

    /// The names joined with `.`; made on first use, then kept.
    pub fn text(self) -> &'static str {
        let Some(entry) = self.entry() else { return "" };
        entry.text.get_or_init(|| Box::leak(self.joined().into_boxed_str()))
    }

    fn joined(self) -> String {
        let (mut names, mut at) = (Vec::new(), self);
        while let Some(entry) = at.entry() {
            names.push(if at.is_deeper() { "….(deeper)" } else { entry.name.text() });
            at = entry.parent;
        }
        names.reverse();
        match names.split_last() {
            Some((last, above)) if self.is_deeper() => above.join(".") + last,
            _ => names.join("."),
        }
    }

    fn entry(self) -> Option<&'static Entry> {
        ENTRIES.get(self.index().checked_sub(1)?)
    }
}

/// The path of a scope called `name` under `parent`.
#[inline]
pub fn path(parent: Path, name: Name) -> Path {
    find_path(parent, name).unwrap_or_else(|| intern(parent, name))
}

/// The same, if it is known already.
#[inline]
fn find_path(parent: Path, name: Name) -> Option<Path> {
    INDEX.find(key(parent, name), |_| true).map(Path)
}

/// The same, out of line: for hot paths that have asked the callsite's cache before.
#[inline(never)]
pub(crate) fn known_path(parent: Path, name: Name) -> Option<Path> {
    find_path(parent, name)
}

#[inline]
fn key(parent: Path, name: Name) -> u64 {
    u64::from(parent.0) << 32 | u64::from(name.0)
}

#[cold]
fn intern(parent: Path, name: Name) -> Path {
    if parent.is_deeper() {
        return parent;
    }
    let levels = parent.levels() + 1;
    let above = parent.entry().map_or(0, |entry| entry.text_bytes + 1);
    let text_bytes = above + name.text().len() as u32;
    if (levels > MAX_LEVELS || text_bytes > MAX_TEXT_BYTES) && name != Name::DEEPER {
        return path(parent, Name::DEEPER);
    }
    let mut total_bytes = lock(&WRITER);
    if let Some(known) = find_path(parent, name) {
        return known;
    }
    // The overflow path itself always has room.
    if (ENTRIES.len() >= MAX_PATHS || *total_bytes > MAX_TOTAL_TEXT_BYTES) && name != Name::OVERFLOW {
        drop(total_bytes);
        super::OVERFLOWED.fetch_add(1, crate::sync::Ordering::Relaxed);
        return path(Path::ROOT, Name::OVERFLOW);
    }
    *total_bytes += u64::from(text_bytes);
    let entry = Entry { parent, name, levels, text_bytes, text: OnceLock::new() };
    let mut id = ENTRIES.push(entry) + 1;
    if name == Name::DEEPER {
        id |= DEEPER_BIT;
    }
    INDEX.insert(key(parent, name), id);
    Path(id)
}

/// Number of paths known so far.
pub(crate) fn known_paths() -> u32 {
    ENTRIES.len()
}

pub(super) fn hold() -> std::sync::MutexGuard<'static, impl Sized> {
    lock(&WRITER)
}
