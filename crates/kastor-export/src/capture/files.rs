//! The files of a capture: how they are called, which one is next, and which have to go.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use kastor::Process;

use super::{
    config::{CaptureConfig, EXTENSION},
    format::{MAX_PAYLOAD_BYTES, SIGNATURE, Session, UNKNOWN_INDEX, WrongSession, kind},
};
use crate::{
    frame::{Frames, HEADER_BYTES, Step, u64_at},
    fs::{Fs, FsFile, ReadAt},
};

/// Files that are tried before giving up: names of earlier runs may be taken.
const MAX_ATTEMPTS: u32 = 10_000;

/// The files that this process made.
#[derive(Debug)]
pub(super) struct Files {
    fs: Arc<dyn Fs>,
    config: CaptureConfig,
    /// Those that are still there, the newest last.
    made: VecDeque<PathBuf>,
    /// Number of the newest.
    number: u32,
    /// Whether the one file that was asked for belongs to this process; a forked child leaves it to its parent.
    may_have_named_file: bool,
}

/// A file that was opened for writing at its end.
pub(super) struct Opened {
    pub(super) file: Box<dyn FsFile>,
    pub(super) path: PathBuf,
    pub(super) number: u32,
    /// Where to go on.
    pub(super) bytes: u64,
    /// The newest index in it.
    pub(super) newest_index: u64,
}

impl Files {
    pub(super) fn new(fs: Arc<dyn Fs>, config: CaptureConfig) -> Self {
        Self { fs, config, made: VecDeque::new(), number: 0, may_have_named_file: true }
    }

    /// In a forked child: the files are the parent's.
    pub(super) fn forget(&mut self) {
        (self.made, self.number, self.may_have_named_file) = (VecDeque::new(), 0, false);
    }

    pub(super) fn made(&self) -> impl Iterator<Item = &PathBuf> {
        self.made.iter()
    }

    /// Makes durable which files there are.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        self.fs.sync_folder(self.config.place().0)
    }

    /// Opens the next file. What it takes the place of stays until it is [`keep`](Self::keep)t.
    pub(super) fn open_next(&mut self, process: Process) -> io::Result<Opened> {
        let (folder, stem) = self.config.place();
        let (folder, stem) = (folder.to_owned(), stem.map(str::to_owned));
        self.fs.create_folder(&folder)?;
        if stem.is_some()
            && self.number == 0
            && self.may_have_named_file
            && let Some(opened) = self.open_named()?
        {
            return Ok(opened);
        }
        self.create_next(&folder, stem.as_deref(), process)
    }

    /// Leaves no trace of a file that nothing could be written to: on a full disk there would be ever more of them.
    pub(super) fn give_up(&self, path: &Path) {
        self.remove(path);
    }

    /// Something was written to a file: now those that are too many are removed.
    pub(super) fn keep(&mut self, path: &Path, number: u32) {
        self.number = number;
        self.made.push_back(path.to_owned());
        while self.made.len() > self.config.max_files {
            if let Some(oldest) = self.made.pop_front() {
                self.remove(&oldest);
            }
        }
        if let (folder, None) = self.config.place() {
            let folder = folder.to_owned();
            self.make_room_in(&folder);
        }
    }

    /// The one file that was asked for, new or to be continued; none if another process writes it.
    fn open_named(&self) -> io::Result<Option<Opened>> {
        let path = &self.config.path;
        let (file, is_new) = match self.fs.create(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (self.fs.open(path)?, false),
            Err(error) => return Err(error),
        };
        if !lock(&*file)? {
            return Ok(None);
        }
        let (bytes, newest_index) = if is_new { (0, 0) } else { end_of(&*file, path)? };
        Ok(Some(Opened { file, path: path.clone(), number: 1, bytes, newest_index }))
    }

    fn create_next(&self, folder: &Path, stem: Option<&str>, process: Process) -> io::Result<Opened> {
        let own = format!("{}-{:016x}", process.id, (process.instance_id >> 64) as u64);
        let is_ours = stem.is_some() && self.may_have_named_file && self.number > 0;
        let mut number = self.number;
        for _ in 0..MAX_ATTEMPTS {
            number += 1;
            let name = match stem {
                Some(stem) if is_ours => format!("{stem}-{number}.{EXTENSION}"),
                Some(stem) => format!("{stem}-{own}-{number}.{EXTENSION}"),
                None => format!("kastor-{own}-{number}.{EXTENSION}"),
            };
            let path = folder.join(name);
            match self.fs.create(&path) {
                Ok(file) => {
                    lock(&*file)?;
                    return Ok(Opened { file, path, number, bytes: 0, newest_index: 0 });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "the names of all files to come are taken"))
    }

    /// Removes the oldest files of a folder that nobody writes, until it is no larger than it may be.
    fn make_room_in(&mut self, folder: &Path) {
        let Ok(names) = self.fs.list(folder) else { return };
        let mut files: Vec<(u64, u64, PathBuf, Box<dyn FsFile>)> = Vec::new();
        for name in names {
            let path = folder.join(&name);
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                let Ok(file) = self.fs.open(&path) else { continue };
                let Ok(bytes) = file.bytes() else { continue };
                files.push((begun(&*file), bytes, path, file));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, bytes, _, _)| bytes).sum();
        files.sort_unstable_by(|(a, _, a_path, _), (b, _, b_path, _)| (a, a_path).cmp(&(b, b_path)));
        let newest = self.made.back().cloned();
        for (_, file_bytes, path, file) in files {
            if bytes <= self.config.max_folder_bytes {
                return;
            }
            let is_own = self.made.contains(&path);
            if Some(&path) != newest.as_ref() && (is_own || is_abandoned(&*file)) {
                self.remove(&path);
                self.made.retain(|made| *made != path);
                bytes = bytes.saturating_sub(file_bytes);
            }
        }
    }

    fn remove(&self, path: &Path) {
        if let Err(error) = self.fs.remove(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!(target: "kastor", "cannot remove the old capture {path:?}: {error}");
        }
    }
}

/// Marks a file as being written. Where locks keep readers out too, files have none.
fn lock(file: &dyn FsFile) -> io::Result<bool> {
    if cfg!(unix) { file.try_lock() } else { Ok(true) }
}

/// Whether nobody writes a file. Where that cannot be told, somebody does.
fn is_abandoned(file: &dyn FsFile) -> bool {
    cfg!(unix) && file.try_lock().unwrap_or(false)
}

/// When the first session of a file began, Unix ns; 0 if it does not say.
fn begun(file: &dyn FsFile) -> u64 {
    let mut bytes = [0; HEADER_BYTES + 48];
    match file.read_at(0, &mut bytes) {
        Ok(_) if bytes.get(HEADER_BYTES..).is_some_and(|payload| payload.starts_with(&SIGNATURE)) => {
            u64_at(&bytes, HEADER_BYTES + 40)
        }
        _ => 0,
    }
}

/// Where to go on in a file that is there: behind its last whole frame. A frame that a crash cut short is cut off.
fn end_of(file: &dyn FsFile, path: &Path) -> io::Result<(u64, u64)> {
    let size = file.bytes()?;
    let refused = |why: &str| {
        let message = format!("{} is there already and {why}; choose another name", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    };
    let first = Frames::new(ReadAt::new(file, 0), 0, MAX_PAYLOAD_BYTES).next().map(|step| match step {
        Step::Frame { header, payload, .. } if header.kind == kind::SESSION => Session::decode(payload).err(),
        _ => None,
    })?;
    if let Some(WrongSession::Version(version, _)) = first {
        return refused(&format!("has capture format {version}"));
    }
    let trailer = size.saturating_sub(HEADER_BYTES as u64 + 8);
    if let Step::Frame { header, payload, .. } =
        Frames::new(ReadAt::new(file, trailer), trailer, MAX_PAYLOAD_BYTES).next()?
        && header.kind == kind::END
    {
        return Ok((size, u64_at(payload, 0)));
    }
    let mut frames = Frames::new(ReadAt::new(file, 0), 0, MAX_PAYLOAD_BYTES);
    let mut is_capture = size == 0;
    loop {
        match frames.next()? {
            Step::Frame { header, .. } => is_capture |= header.kind == kind::SESSION,
            Step::Damaged { .. } => {}
            Step::End { .. } => break,
        }
    }
    if !is_capture {
        return refused("is no capture");
    }
    file.truncate(frames.offset())?;
    Ok((frames.offset(), if size == 0 { 0 } else { UNKNOWN_INDEX }))
}
