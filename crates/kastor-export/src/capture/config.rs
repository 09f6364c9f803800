//! How a capture is written: where, how much, how durable.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::Redaction;

/// What a capture's files are called at the end.
pub(super) const EXTENSION: &str = "kcap";

/// How a [`Capture`](super::Capture) is written.
///
/// ```
/// # use std::time::Duration;
/// use kastor_export::capture::{Capture, CaptureConfig, Durability};
///
/// let config = CaptureConfig::new("captures")
///     .max_file_bytes(64 << 20)
///     .max_files(4)
///     .zstd(1)
///     .durability(Durability::Every(Duration::from_secs(1)));
/// let capture = Capture::with(config); // opens nothing yet
/// ```
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    pub(super) path: PathBuf,
    pub(super) max_file_bytes: u64,
    pub(super) max_files: usize,
    pub(super) max_folder_bytes: u64,
    pub(super) zstd: Option<i32>,
    pub(super) durability: Durability,
    pub(super) redaction: Redaction,
}

/// When a capture is made to survive the end of the machine, not only that of the process.
///
/// What a process handed over survives its end, `kill -9` included, under each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// When the operating system gets to it, and when `persist` asks.
    System,
    /// With each flush as well.
    OnFlush,
    /// As soon as this much time has passed since the last time, and with each flush.
    Every(Duration),
}

impl CaptureConfig {
    /// A capture at `path`: one file if the name ends in `.kcap`, else a folder with files of all processes that write
    /// into it. Either is made when the first event arrives.
    ///
    /// Files of 256 MiB, 16 of them in a process, 8 GiB in a folder; not compressed; durable when the system gets to it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_file_bytes: 256 << 20,
            max_files: 16,
            max_folder_bytes: 8 << 30,
            zstd: None,
            durability: Durability::System,
            redaction: Redaction::default(),
        }
    }

    /// Bytes after which a new file is begun; at least 1 MiB.
    pub fn max_file_bytes(self, bytes: u64) -> Self {
        Self { max_file_bytes: bytes.max(1 << 20), ..self }
    }

    /// Files that one process keeps; the oldest is removed for a new one. At least 1.
    pub fn max_files(self, files: usize) -> Self {
        Self { max_files: files.max(1), ..self }
    }

    /// Bytes in a folder, of all processes together, beyond which the oldest files of ended processes are removed
    /// when a new one is begun.
    pub fn max_folder_bytes(self, bytes: u64) -> Self {
        Self { max_folder_bytes: bytes, ..self }
    }

    /// Compresses blocks with zstd at this level, 1 to 19. The level decides about time in the background, never about
    /// the recording threads.
    pub fn zstd(self, level: i32) -> Self {
        Self { zstd: Some(level.clamp(1, 19)), ..self }
    }

    /// What is secret and never reaches a file; by default what [`Redaction::default`] hides.
    pub fn redaction(self, redaction: Redaction) -> Self {
        Self { redaction, ..self }
    }

    /// When the files are made durable.
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// The folder that files are in, and the stem of their names if it is given.
    pub(super) fn place(&self) -> (&Path, Option<&str>) {
        let is_file = self.path.extension().is_some_and(|extension| extension == EXTENSION);
        if !is_file {
            return (&self.path, None);
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        (folder.unwrap_or(Path::new(".")), self.path.file_stem().and_then(|stem| stem.to_str()))
    }
}
