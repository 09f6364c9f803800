//! Interned names and paths: text once, four bytes everywhere else.
//!
//! A [`Name`] is one segment as the program wrote it (`"pipeline.plan"` is one segment); a [`Path`] is the chain of the
//! names of the open scopes. Both are process-wide, never freed and bounded: beyond the bound new ones share one
//! overflow entry, so that hostile input costs accuracy of labels, never memory. Lookups take no lock.

mod glob;
mod path;
mod table;
mod validate;

use self::table::{Segments, Table};
pub(crate) use self::{
    glob::Glob,
    path::{known_path, known_paths},
    validate::is_recommended,
};
pub use self::{
    path::{MAX_LEVELS, MAX_PATHS, MAX_TEXT_BYTES, Path, path},
    validate::check_literal,
};
use crate::sync::{AtomicU64, Mutex, Ordering::Relaxed, lock};

/// Names longer than this many bytes are cut.
pub const MAX_NAME_BYTES: usize = 256;
/// Number of different names and keys a process keeps apart.
pub const MAX_NAMES: u32 = 100_000;

/// An interned name or key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(#[doc(hidden)] pub u32);

impl Name {
    /// No name: the root's.
    pub(crate) const NONE: Name = Name(0);
    /// Stands for every name beyond the bound.
    pub(crate) const OVERFLOW: Name = Name(1);
    /// Stands for a name that strict mode refused.
    pub(crate) const INVALID: Name = Name(2);
    /// The level below which paths are not kept apart.
    pub(crate) const DEEPER: Name = Name(3);

    /// The text.
    pub fn text(self) -> &'static str {
        match self.0 {
            0 => "",
            1 => "(overflow)",
            2 => "(invalid_name)",
            3 => "(deeper)",
            id => TEXTS.get(id - RESERVED).copied().unwrap_or(""),
        }
    }
}

const RESERVED: u32 = 4;

static TEXTS: Segments<&'static str> = Segments::new();
static INDEX: Table = Table::new();
static WRITER: Mutex<()> = Mutex::new(());
/// How often a name or path was refused for lack of room.
static OVERFLOWED: AtomicU64 = AtomicU64::new(0);
/// How often a name was cut.
static CUT: AtomicU64 = AtomicU64::new(0);

/// The name for `text`, cut to 256 bytes at a character boundary.
pub fn name(text: &str) -> Name {
    let kept = cut(text, MAX_NAME_BYTES);
    if kept.len() < text.len() {
        CUT.fetch_add(1, Relaxed);
    }
    let text = kept;
    let key = hash(text.as_bytes());
    if let Some(id) = find(key, text) {
        return Name(id);
    }
    intern(key, text)
}

fn find(key: u64, text: &str) -> Option<u32> {
    INDEX.find(key, |id| TEXTS.get(id - RESERVED).is_some_and(|kept| *kept == text))
}

#[cold]
fn intern(key: u64, text: &str) -> Name {
    let _writer = lock(&WRITER);
    if let Some(id) = find(key, text) {
        return Name(id);
    }
    if TEXTS.len() >= MAX_NAMES {
        OVERFLOWED.fetch_add(1, Relaxed);
        return Name::OVERFLOW;
    }
    let id = RESERVED + TEXTS.push(Box::leak(Box::from(text)));
    INDEX.insert(key, id);
    Name(id)
}

/// The longest prefix of at most `max_bytes` that ends at a character boundary.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes {
        return text;
    }
    let mut end = max_bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

/// A fast hash of a few bytes; never zero. Collisions are resolved by comparing, the number of entries is bounded.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = (bytes.len() as u64).wrapping_mul(FACTOR) ^ 0x51_7c_c1_b7_27_22_0a_95;
    let mut step = |word: u64| {
        let wide = u128::from(state ^ word).wrapping_mul(u128::from(FACTOR));
        state = (wide as u64) ^ ((wide >> 64) as u64);
    };
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        step(word.try_into().map_or(0, u64::from_le_bytes));
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut last = 0;
        for (at, byte) in rest.iter().enumerate() {
            last |= u64::from(*byte) << (8 * at);
        }
        step(last);
    }
    step(0x2545_f491_4f6c_dd1d);
    state.max(1)
}

/// How often a name was cut.
pub(crate) fn cut_names() -> u64 {
    CUT.load(Relaxed)
}

/// How often a name or path found no room and shared an overflow entry.
pub(crate) fn overflowed() -> u64 {
    OVERFLOWED.load(Relaxed)
}

/// The names known beyond the first `known`, with their ids.
pub(crate) fn names_from(known: u32) -> impl Iterator<Item = (u32, &'static str)> {
    (known..RESERVED + TEXTS.len()).map(|id| (id, Name(id).text()))
}

/// Holds both writers still, for a fork.
pub(crate) fn hold() -> (std::sync::MutexGuard<'static, impl Sized>, std::sync::MutexGuard<'static, impl Sized>) {
    (lock(&WRITER), path::hold())
}
