//! A capture: kastor's own file, with the records as they left the thread, for reading later.
//!
//! [`Capture`] is the reporter that writes it, [`Reader`] reads it, also while it is written, and [`check`] and
//! [`repair`] say what a file holds and save what is whole. The bytes are described in `docs/format.md`.
//!
//! ```
//! use std::time::Duration;
//! use kastor::{Telemetry, scope};
//! use kastor_export::capture::{Capture, Part, Reader};
//!
//! # fn main() -> Result<(), kastor::Error> {
//! # let folder = std::env::temp_dir().join(format!("kastor-doc-{}", std::process::id()));
//! # let path = folder.join("run.kcap");
//! let tele = Telemetry::builder().reporter(Capture::new(&path)).build();
//! drop(scope!(tele, "work"));
//! tele.flush(Duration::from_secs(1));
//!
//! let mut reader = Reader::open(&path)?;
//! while let Some(part) = reader.read()? {
//!     if let Part::Block(block) = part {
//!         for timing in block.timings() {
//!             assert_eq!(block.tables().path_text(timing.path_id()), "work");
//!             println!("{} ns", timing.duration_ns());
//!         }
//!     }
//! }
//! # let _ = std::fs::remove_dir_all(folder);
//! # Ok(())
//! # }
//! ```

mod aggregates;
mod check;
mod config;
mod extent;
mod files;
mod format;
mod kept;
mod nesting;
mod pack;
mod read;
mod record;
mod replay;
mod tables;
mod write;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use kastor::{Accounts, Batch, Deadline, DropReason, Drops, Error, Held, Process, Reporter, Snapshot};

use self::write::Writer;
pub use self::{
    aggregates::{Aggregate, Aggregates, ScopeSums, SeriesSums, StoredHistogram},
    check::{Checked, Gap, Repaired, SessionReport, ThreadReport, check, gaps_between, repair},
    config::{CaptureConfig, Durability},
    format::{IndexEntry, Session, Thread},
    kept::{Kept, KeptRecords, KeptScope, KeptSeries, kept_histogram},
    read::{Damage, Part, Reader},
    record::{Attribute, Block, Metric, PointEvent, Record, StoredValue, Timing},
    replay::{Replay, Replayed},
    tables::{Progress, Tables},
};
use crate::fs::{Fs, OsFs};

/// The parts of a file as they are written, for a file made by hand.
pub(crate) mod raw {
    pub(crate) use super::format::{BlockHeader, PACKED, Session, Thread, kind, push_name, push_path};
}

/// A reporter that writes a capture. A cheap handle: clones write the same files.
///
/// What a batch holds is in the hands of the operating system when the call returns: a process that is killed loses
/// what its threads had not handed over yet, which is what happened in the last 250 ms. When a disk is full or broken,
/// events are dropped and counted (`spool_full`, `spool_io`), and a new attempt is made four times a second, after
/// anything but a full disk in a new file. A forked child writes files of its own.
#[derive(Clone)]
pub struct Capture {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    writer: Mutex<Writer>,
    counts: Counts,
}

/// Read without the writer's lock, which is held while a slow disk writes.
#[derive(Default)]
struct Counts {
    /// The process that counted; 0 for none yet.
    process: AtomicU32,
    delivered: AtomicU64,
    full: AtomicU64,
    io: AtomicU64,
    too_large: AtomicU64,
}

impl Capture {
    /// A capture with the limits that [`CaptureConfig::new`] names. Nothing is opened before the first event.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::with(CaptureConfig::new(path))
    }

    /// A capture with limits of your own.
    pub fn with(config: CaptureConfig) -> Self {
        Self::on(Arc::new(OsFs), config)
    }

    /// Where it was asked to be: a file or a folder.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The files that this process wrote and kept, the newest last.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().made()
    }

    /// The newest failure in this process, in words.
    pub fn last_error(&self) -> Option<String> {
        self.lock().last_error().map(str::to_owned)
    }

    pub(crate) fn on(fs: Arc<dyn Fs>, config: CaptureConfig) -> Self {
        let (path, writer) = (config.path.clone(), Mutex::new(Writer::new(fs, config)));
        Self { shared: Arc::new(Shared { path, writer, counts: Counts::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer, if this process is the one that used it last.
    fn own(&self) -> Option<MutexGuard<'_, Writer>> {
        let writer = self.lock();
        (self.shared.counts.process.load(Relaxed) == std::process::id()).then_some(writer)
    }

    /// The writer, begun anew if this process was forked from the one that used it last.
    fn for_process(&self, process: Process) -> MutexGuard<'_, Writer> {
        let mut writer = self.lock();
        let last = self.shared.counts.process.load(Relaxed);
        if last != process.id {
            if last != 0 {
                writer.forget();
            }
            self.shared.counts.begin(process.id);
        }
        writer
    }

    fn error(&self, reason: DropReason) -> Error {
        let what = if reason == DropReason::SpoolFull { "the disk is full" } else { "the disk reports an error" };
        Error::temporary(format!("cannot write the capture {:?}: {what}; the log says more", self.shared.path))
    }
}

impl Counts {
    fn begin(&self, process: u32) {
        [&self.delivered, &self.full, &self.io, &self.too_large].iter().for_each(|count| count.store(0, Relaxed));
        self.process.store(process, Relaxed);
    }

    fn add(&self, written: Result<(), DropReason>, events: u64) {
        let count = match written {
            Ok(()) => &self.delivered,
            Err(DropReason::SpoolFull) => &self.full,
            Err(DropReason::TooLarge) => &self.too_large,
            Err(_) => &self.io,
        };
        count.fetch_add(events, Relaxed);
    }
}

impl Reporter for Capture {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        let mut writer = self.for_process(batch.process());
        self.shared.counts.add(writer.write_batch(batch), batch.len());
        Ok(())
    }

    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        let mut writer = self.for_process(snapshot.process());
        writer.write_aggregates(snapshot).map_err(|reason| self.error(reason))
    }

    fn flush(&self, _: Deadline) -> Result<(), Error> {
        let Some(mut writer) = self.own() else { return Ok(()) };
        writer.write_index().map_err(|reason| self.error(reason))?;
        if writer.syncs_on_flush() { writer.sync().map_err(|reason| self.error(reason)) } else { Ok(()) }
    }

    fn persist(&self, deadline: Deadline) -> Result<(), Error> {
        self.flush(deadline)?;
        let Some(mut writer) = self.own() else { return Ok(()) };
        writer.sync().map_err(|reason| self.error(reason))
    }

    fn accounts(&self) -> Option<Accounts> {
        let counts = &self.shared.counts;
        if counts.process.load(Relaxed) != std::process::id() {
            return Some(Accounts::default());
        }
        let mut dropped = Drops::default();
        dropped.add(DropReason::SpoolFull, counts.full.load(Relaxed));
        dropped.add(DropReason::SpoolIo, counts.io.load(Relaxed));
        dropped.add(DropReason::TooLarge, counts.too_large.load(Relaxed));
        Some(Accounts { delivered: counts.delivered.load(Relaxed), dropped, queued: 0, spooled: 0 })
    }

    fn prefers_batches(&self) -> bool {
        true
    }

    fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(self.lock()));
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capture({:?})", self.shared.path)
    }
}

#[cfg(test)]
mod tests;
