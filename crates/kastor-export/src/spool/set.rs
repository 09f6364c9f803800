//! Sets: what the files of one process are called, and whose they are when it is gone.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    path::{Path, PathBuf},
};

use super::segment;
use crate::fs::{Fs, FsFile};

const LOCK: &str = ".lock";
const SEGMENT: &str = ".kspool";
/// Attempts at a name of one's own.
const MAX_ATTEMPTS: usize = 100;

/// The beginning of the names of a set's files: process and a random number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SetName {
    pub(super) process: u32,
    token: u64,
}

impl SetName {
    pub(super) fn random() -> Self {
        Self { process: std::process::id(), token: RandomState::new().build_hasher().finish() }
    }

    fn lock(&self) -> String {
        format!("{self}{LOCK}")
    }

    /// The name of a segment, by its number.
    pub(super) fn segment(&self, number: u64) -> String {
        format!("{self}-{number:08}{SEGMENT}")
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.process, self.token)
    }
}

fn set_of(text: &str) -> Option<SetName> {
    let (process, token) = text.split_once('-')?;
    let set = SetName { process: process.parse().ok()?, token: u64::from_str_radix(token, 16).ok()? };
    // Written in one way alone.
    (set.to_string() == text).then_some(set)
}

fn segment_of(name: &str) -> Option<(SetName, u64)> {
    let (set, number) = name.strip_suffix(SEGMENT)?.rsplit_once('-')?;
    Some((set_of(set)?, number.parse().ok()?))
}

/// Says that a set is in use, for as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    pub(super) set: SetName,
    path: PathBuf,
    file: Box<dyn FsFile>,
}

impl Lock {
    /// Removes the lock file: the set has come to its end.
    pub(super) fn remove(self, fs: &dyn Fs) {
        segment::remove(fs, &self.path);
    }

    /// Puts the lock file back where somebody removed it.
    pub(super) fn restore(&mut self, fs: &dyn Fs) {
        if self.file.is_at(&self.path).is_ok_and(|is_there| !is_there)
            && let Ok(file) = fs.create(&self.path)
            && file.try_lock().unwrap_or(false)
        {
            self.file = file;
        }
    }
}

/// A set of one's own.
pub(super) fn create(fs: &dyn Fs, folder: &Path) -> io::Result<(SetName, Lock)> {
    for _ in 0..MAX_ATTEMPTS {
        let set = SetName::random();
        let path = folder.join(set.lock());
        let file = match fs.create(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        // Between the two, another process may take it for an orphan's and remove it.
        if file.try_lock()? && file.is_at(&path)? {
            return Ok((set.clone(), Lock { set, path, file }));
        }
    }
    Err(io::Error::other("every lock file was taken away at once"))
}

/// A set whose process is gone.
pub(super) struct Orphan {
    pub(super) lock: Lock,
    /// Of its segments, in order.
    pub(super) numbers: Vec<u64>,
}

/// Takes every set that nobody holds, the oldest segments first.
pub(super) fn orphans(fs: &dyn Fs, folder: &Path, own: &SetName) -> io::Result<Vec<Orphan>> {
    let mut sets: BTreeMap<SetName, Vec<u64>> = BTreeMap::new();
    for name in fs.list(folder)? {
        if let Some(set) = name.strip_suffix(LOCK).and_then(set_of) {
            sets.entry(set).or_default();
        } else if let Some((set, number)) = segment_of(&name) {
            // Also where there is no lock file any more.
            sets.entry(set).or_default().push(number);
        }
    }
    let mut orphans = Vec::new();
    for (set, mut numbers) in sets.into_iter().filter(|(set, _)| set != own) {
        let path = folder.join(set.lock());
        let opened = match fs.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs.create(&path),
            opened => opened,
        };
        let Ok(file) = opened else { continue };
        // Somebody else may have come to the end of the set meanwhile.
        if file.try_lock().unwrap_or(false) && file.is_at(&path).unwrap_or(false) {
            numbers.sort_unstable();
            orphans.push(Orphan { lock: Lock { set, path, file }, numbers });
        }
    }
    Ok(orphans)
}
