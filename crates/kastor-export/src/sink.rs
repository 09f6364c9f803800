//! A trace file being written: the way from an encoder's bytes to a file or any other writer.
//!
//! Every batch is encoded and written at once, so nothing waits here and a batch counts as delivered only when the system
//! has taken it. A batch that could not be written is an error of its own, counted by the caller as `reporter_failed`;
//! what it left behind in a file is overwritten by the next one. The file's size is bounded: what would exceed it is
//! dropped as `spool_full`.
//!
//! A forked child never touches its parent's file: with its first batch it begins one of its own, next to it, named after
//! its process number (`trace.json` becomes `trace-4242.json`). Where the parent writes to something that is no file,
//! there is nothing that the child could open anew, and its batches are refused.

use std::{
    fmt,
    fs::File,
    io::{self, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use kastor::{Accounts, Batch, DropReason, Drops, Error, Held, Process, Snapshot};

/// Turns batches and snapshots into the bytes of one file.
pub(crate) trait Encode: Send + 'static {
    /// What makes a file complete; the next batch overwrites it.
    const TAIL: &'static [u8];

    /// What a file begins with.
    fn head(&mut self, out: &mut Vec<u8>);
    fn batch(&mut self, batch: &Batch<'_>, out: &mut Vec<u8>);
    fn snapshot(&mut self, snapshot: &Snapshot<'_>, out: &mut Vec<u8>);
    /// The bytes of the last call were not written: nothing in them may be referred to.
    fn forget_written(&mut self);
    /// An encoder for another file.
    fn another(&self) -> Self;
}

/// See the module.
pub(crate) struct Sink<E: Encode> {
    state: Mutex<State<E>>,
    max_bytes: u64,
    counts: Counts,
}

/// Events of this process, by what became of them.
struct Counts {
    process: AtomicU32,
    delivered: AtomicU64,
    beyond_limit: AtomicU64,
}

struct State<E> {
    encoder: E,
    target: Target,
    home: Home,
    buffer: Vec<u8>,
    written: u64,
    is_full: bool,
}

/// The process that a file belongs to; the random part is known from the first batch on.
struct Home {
    id: u32,
    instance_id: Option<u128>,
}

enum Target {
    /// A regular file: what is behind `written` can be written anew.
    File { file: File, path: PathBuf },
    /// A pipe, a terminal, a writer of the program's.
    Stream(Box<dyn Write + Send>),
    /// Of no use any more, and why.
    Lost(&'static str),
}

impl<E: Encode> Sink<E> {
    /// Creates the file, or empties it.
    pub(crate) fn create(path: &Path, encoder: E, max_bytes: u64) -> Result<Self, Error> {
        Ok(Self::new(open(path)?, encoder, max_bytes))
    }

    pub(crate) fn to_writer(writer: Box<dyn Write + Send>, encoder: E, max_bytes: u64) -> Self {
        Self::new(Target::Stream(writer), encoder, max_bytes)
    }

    fn new(target: Target, encoder: E, max_bytes: u64) -> Self {
        let id = process::id();
        let home = Home { id, instance_id: None };
        let counts = Counts { process: id.into(), delivered: 0.into(), beyond_limit: 0.into() };
        let state = State { encoder, target, home, buffer: Vec::new(), written: 0, is_full: false };
        Self { state: Mutex::new(state), max_bytes, counts }
    }

    pub(crate) fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        self.write(batch.process(), batch.len(), |encoder, out| encoder.batch(batch, out))
    }

    pub(crate) fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        self.write(snapshot.process(), 0, |encoder, out| encoder.snapshot(snapshot, out))
    }

    /// Hands on what the writer itself may hold back.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let mut state = self.lock();
        if state.home.id != process::id() {
            return Ok(());
        }
        match &mut state.target {
            Target::Stream(writer) => {
                writer.flush().map_err(|error| Error::temporary(format!("trace: flush: {error}")))
            }
            Target::File { .. } | Target::Lost(_) => Ok(()),
        }
    }

    /// Waits until the disk has it.
    pub(crate) fn persist(&self) -> Result<(), Error> {
        self.flush()?;
        match &self.lock().target {
            Target::File { file, path } => file.sync_data().map_err(|error| failed("sync", path, &error)),
            Target::Stream(_) | Target::Lost(_) => Ok(()),
        }
    }

    pub(crate) fn accounts(&self) -> Accounts {
        let mut accounts = Accounts::default();
        if self.counts.process.load(Relaxed) == process::id() {
            accounts.delivered = self.counts.delivered.load(Relaxed);
            accounts.dropped = Drops::default();
            accounts.dropped.add(DropReason::SpoolFull, self.counts.beyond_limit.load(Relaxed));
        }
        accounts
    }

    /// For a fork: no thread is in the middle of a batch while this is held.
    pub(crate) fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(self.lock()));
    }

    fn write(&self, process: Process, events: u64, encode: impl FnOnce(&mut E, &mut Vec<u8>)) -> Result<(), Error> {
        let mut state = self.lock();
        let state = &mut *state;
        if !state.home.is(process) {
            self.begin_anew(state, process)?;
        }
        if let Target::Lost(why) = state.target {
            return Err(Error::permanent(why));
        }
        if state.is_full {
            self.counts.beyond_limit.fetch_add(events, Relaxed);
            return Ok(());
        }
        state.buffer.clear();
        if state.written == 0 {
            state.encoder.head(&mut state.buffer);
        }
        let head = state.buffer.len();
        encode(&mut state.encoder, &mut state.buffer);
        if state.buffer.len() == head && events == 0 {
            return Ok(());
        }
        let bytes = state.buffer.len() as u64;
        if state.written.saturating_add(bytes).saturating_add(E::TAIL.len() as u64) > self.max_bytes {
            state.is_full = true;
            self.counts.beyond_limit.fetch_add(events, Relaxed);
            log::warn!(target: "kastor", "a trace file has reached its bound of {} bytes; what comes now is dropped and counted", self.max_bytes);
            return Ok(());
        }
        if let Err(error) = state.append() {
            state.encoder.forget_written();
            return Err(error);
        }
        state.written += bytes;
        self.counts.delivered.fetch_add(events, Relaxed);
        // One huge batch should not keep its memory for ever.
        state.buffer.clear();
        state.buffer.shrink_to(1 << 20);
        Ok(())
    }

    /// In a forked child: another file, no past.
    fn begin_anew(&self, state: &mut State<E>, process: Process) -> Result<(), Error> {
        let target = match &state.target {
            Target::File { path, .. } => open(&of_process(path, process.id))?,
            Target::Stream(_) | Target::Lost(_) => Target::Lost(
                "trace: a forked child cannot go on with its parent's writer; give the reporter a path, and each process gets a file of its own",
            ),
        };
        let parents = std::mem::replace(&mut state.target, target);
        if let Target::Stream(writer) = parents {
            // Dropped, it might hand on what its buffer holds of the parent's.
            std::mem::forget(writer);
        }
        state.encoder = state.encoder.another();
        state.home = Home { id: process.id, instance_id: Some(process.instance_id) };
        (state.written, state.is_full) = (0, false);
        self.counts.delivered.store(0, Relaxed);
        self.counts.beyond_limit.store(0, Relaxed);
        self.counts.process.store(process.id, Relaxed);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        // What an encoder left behind when it panicked is only bytes that were not written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Encode> State<E> {
    fn append(&mut self) -> Result<(), Error> {
        match &mut self.target {
            Target::File { file, path } => {
                let body = self.buffer.len();
                self.buffer.extend_from_slice(E::TAIL);
                let done = file.seek(SeekFrom::Start(self.written)).and_then(|_| file.write_all(&self.buffer));
                self.buffer.truncate(body);
                done.map_err(|error| {
                    // As much of it as can be taken back; the next batch begins at the same place anyway. Where the
                    // file is at by now depends on what failed.
                    let is_back =
                        file.set_len(self.written).is_ok() && file.seek(SeekFrom::Start(self.written)).is_ok();
                    if self.written > 0 && is_back {
                        let _ = file.write_all(E::TAIL);
                    }
                    failed("write", path, &error)
                })
            }
            Target::Stream(writer) => {
                let done = writer.write_all(&self.buffer);
                done.map_err(|error| {
                    // Nobody knows how much of it arrived: whatever follows could not be read.
                    self.target = Target::Lost(
                        "trace: the writer failed before, in the middle of a batch; give the reporter a new one",
                    );
                    Error::permanent(format!("trace: write: {error}"))
                })
            }
            Target::Lost(why) => Err(Error::permanent(*why)),
        }
    }
}

impl<E: Encode> Drop for Sink<E> {
    fn drop(&mut self) {
        let mut state = self.lock();
        let is_ours = state.home.id == process::id();
        let has_begun = state.written > 0;
        match std::mem::replace(&mut state.target, Target::Lost("")) {
            Target::Stream(mut writer) if is_ours => {
                if has_begun {
                    let _ = writer.write_all(E::TAIL);
                }
                let _ = writer.flush();
            }
            // The parent's; see `begin_anew`.
            Target::Stream(writer) => std::mem::forget(writer),
            Target::File { .. } | Target::Lost(_) => {}
        }
    }
}

impl Home {
    fn is(&mut self, process: Process) -> bool {
        match self.instance_id {
            Some(instance_id) => instance_id == process.instance_id,
            None => {
                let is_here = self.id == process.id;
                if is_here {
                    self.instance_id = Some(process.instance_id);
                }
                is_here
            }
        }
    }
}

impl<E: Encode> fmt::Debug for Sink<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts = self.accounts();
        write!(formatter, "Sink({} delivered, {} dropped)", accounts.delivered, accounts.dropped.total())
    }
}

/// The name of a forked child's file next to its parent's: the process number before the extension.
pub(crate) fn of_process(path: &Path, process: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{process}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{process}"),
    };
    path.with_file_name(name)
}

/// The error of an operation on a file: what, where, why.
pub(crate) fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    let text = format!("trace: {what} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::permanent(text)
        }
        _ => Error::temporary(text),
    }
}

fn open(path: &Path) -> Result<Target, Error> {
    let file = File::create(path).map_err(|error| failed("create", path, &error))?;
    let is_regular = file.metadata().is_ok_and(|it| it.is_file());
    Ok(if is_regular { Target::File { file, path: path.to_owned() } } else { Target::Stream(Box::new(file)) })
}
