//! The file system, as far as captures and the spool need it: one seam, so that tests can put one behind it that fails,
//! forgets and tears.
//!
//! Whoever writes says where: a file has no place of its own that an error could leave in doubt.

use std::{
    fmt, fs,
    io::{self, IoSlice, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Folders, and files by path.
pub(crate) trait Fs: Send + Sync + fmt::Debug {
    /// Makes a folder with all above it; content with one that is there.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes a new file. Fails with `AlreadyExists` if there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Opens a file that is there, for reading and writing. Refuses what is none: reading a device may never end.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Names of what is in a folder, those that are text.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes durable which files a folder has.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// An open file.
pub(crate) trait FsFile: Send + Sync + fmt::Debug {
    /// Writes all parts, one behind the other.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;
    /// Reads until `to` is full or the file ends; returns how much there was.
    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize>;
    /// Cuts the file.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Makes the content durable.
    fn sync(&self) -> io::Result<()>;
    /// Its size in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Takes the lock that belongs to the open file, and is given back when that is closed, by whatever means; false if
    /// another has it.
    fn try_lock(&self) -> io::Result<bool>;
    /// Whether `path` still leads to this file.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
}

/// Reads a file from a place on.
pub(crate) struct ReadAt<'a> {
    file: &'a dyn FsFile,
    offset: u64,
}

impl<'a> ReadAt<'a> {
    pub(crate) fn new(file: &'a dyn FsFile, offset: u64) -> Self {
        Self { file, offset }
    }
}

impl io::Read for ReadAt<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.offset, to)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// The operating system's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OsFs;

impl Fs for OsFs {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let file = fs::File::options().read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(OsFile(Mutex::new(file))))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is no regular file")));
        }
        let file = fs::File::options().read(true).write(true).open(path)?;
        Ok(Box::new(OsFile(Mutex::new(file))))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Other systems than Unix have no such call, and need none.
        if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

/// The lock keeps moving to a place and using it together.
#[derive(Debug)]
struct OsFile(Mutex<fs::File>);

impl OsFile {
    fn at(&self, offset: u64) -> io::Result<std::sync::MutexGuard<'_, fs::File>> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }

    fn file(&self) -> std::sync::MutexGuard<'_, fs::File> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FsFile for OsFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut file = self.at(offset)?;
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let mut file = self.at(offset)?;
        let mut read = 0;
        while let Some(room) = to.get_mut(read..).filter(|room| !room.is_empty()) {
            match file.read(room) {
                Ok(0) => break,
                Ok(some) => read += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file().set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file().sync_data()
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file().metadata()?.len())
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.file().try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let there = match fs::metadata(path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let here = self.file().metadata()?;
            Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
        }
        #[cfg(not(unix))]
        Ok(there.is_file())
    }
}
