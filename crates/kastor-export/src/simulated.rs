//! A file system for tests: it forgets, reorders and tears what was not synced, and fails when asked.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::fs::{Fs, FsFile};

/// The grain in which a write may be torn.
const SECTOR: usize = 512;

/// Clones are the same file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimFs(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    /// What processes see, and what a power cut leaves.
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    inodes: HashMap<u64, Inode>,
    next: u64,
    /// Calls that change something, until they fail; then whether only one of them does.
    failing: Option<(u32, bool, io::ErrorKind)>,
    calls: u32,
    /// Whether there is no room: what needs none still works.
    is_full: bool,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// The handle that has the lock.
    locked_by: Option<u64>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                to.resize(to.len().max(at + bytes.len()), 0);
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::Cut(len) => to.resize(*len, 0),
        }
    }
}

/// A little generator, so that a failing case repeats.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) as usize) % bound.max(1)
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

impl SimFs {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process is killed: its locks are free, everything else is as it was.
    pub(crate) fn kill(&self) {
        self.disk().inodes.values_mut().for_each(|inode| inode.locked_by = None);
    }

    /// The power fails: of what was not synced, any part may be there, in any order, torn.
    pub(crate) fn cut_power(&self, random: &mut Random) {
        let mut disk = self.disk();
        let disk = &mut *disk;
        for inode in disk.inodes.values_mut() {
            let mut content = inode.durable.clone();
            for change in inode.pending.drain(..) {
                match change {
                    Change::Write(at, bytes) => {
                        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                            if random.coin() {
                                Change::Write(at + number * SECTOR, sector.to_vec()).apply(&mut content);
                            }
                        }
                    }
                    change @ Change::Cut(_) => {
                        if random.coin() {
                            change.apply(&mut content);
                        }
                    }
                }
            }
            (inode.content, inode.durable, inode.locked_by) = (content.clone(), content, None);
        }
        let mut names = disk.durable_names.clone();
        for (path, inode) in &disk.names {
            if !names.contains_key(path) && random.coin() {
                names.insert(path.clone(), *inode);
            }
        }
        names.retain(|path, _| disk.names.contains_key(path) || random.coin());
        (disk.names, disk.durable_names) = (names.clone(), names);
    }

    /// Makes the `after`th change from now fail, and if `for_ever` every later one.
    pub(crate) fn fail(&self, after: u32, for_ever: bool, kind: io::ErrorKind) {
        self.disk().failing = Some((after, for_ever, kind));
    }

    /// Lets no byte be written, while files can be made, cut, synced and removed.
    pub(crate) fn fill(&self) {
        self.disk().is_full = true;
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        let mut disk = self.disk();
        (disk.failing, disk.is_full) = (None, false);
    }

    /// Changes so far.
    pub(crate) fn calls(&self) -> u32 {
        self.disk().calls
    }

    /// Somebody removes everything.
    pub(crate) fn remove_all(&self) {
        let mut disk = self.disk();
        disk.names.clear();
        disk.durable_names.clear();
    }

    /// Changes the content of the one file whose name ends so, as a bad disk would.
    pub(crate) fn damage(&self, ending: &str, f: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let inode = disk.names.iter().find(|(path, _)| path.to_string_lossy().ends_with(ending)).map(|(_, it)| *it);
        let inode = disk.inodes.get_mut(&inode.unwrap()).unwrap();
        f(&mut inode.content);
        inode.durable.clone_from(&inode.content);
    }

    /// What the files hold, by name.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.disk();
        let content = |inode| disk.inodes.get(inode).map(|inode| inode.content.clone()).unwrap_or_default();
        disk.names.iter().map(|(path, inode)| (path.clone(), content(inode))).collect()
    }

    /// Names of the files.
    pub(crate) fn names(&self) -> Vec<String> {
        self.disk().names.keys().map(|path| path.to_string_lossy().into_owned()).collect()
    }
}

impl Disk {
    fn change(&mut self) -> io::Result<()> {
        self.calls += 1;
        match &mut self.failing {
            Some((0, for_ever, kind)) => {
                let error = Err((*kind).into());
                if !*for_ever {
                    self.failing = None;
                }
                error
            }
            Some((left, _, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn open(&mut self, fs: &SimFs, inode: u64) -> Box<dyn FsFile> {
        self.next += 1;
        Box::new(SimFile { fs: fs.clone(), inode, handle: self.next })
    }
}

impl Fs for SimFs {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        self.disk().change()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut disk = self.disk();
        disk.change()?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.next += 1;
        let inode = disk.next;
        disk.inodes.insert(inode, Inode::default());
        disk.names.insert(path.to_owned(), inode);
        Ok(disk.open(self, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut disk = self.disk();
        let inode = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(disk.open(self, inode))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let inside = disk.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        disk.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        disk.durable_names = disk.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    inode: u64,
    handle: u64,
}

impl SimFile {
    fn with<R>(&self, f: impl FnOnce(&mut Inode) -> R) -> R {
        f(self.fs.disk().inodes.get_mut(&self.inode).unwrap())
    }
}

impl FsFile for SimFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut bytes = parts.concat();
        let mut failed = self.fs.disk().change();
        let is_overwriting = self.with(|inode| offset as usize + bytes.len() <= inode.content.len());
        if self.fs.disk().is_full && !is_overwriting {
            failed = Err(io::ErrorKind::StorageFull.into());
        }
        if failed.is_err() {
            // Part of it arrives all the same.
            bytes.truncate(bytes.len() / 2);
        }
        let change = Change::Write(offset as usize, bytes);
        self.with(|inode| {
            change.apply(&mut inode.content);
            inode.pending.push(change);
        });
        failed
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        self.with(|inode| {
            let from = inode.content.get(offset as usize..).unwrap_or(&[]);
            let len = from.len().min(to.len());
            to[..len].copy_from_slice(&from[..len]);
            Ok(len)
        })
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.fs.disk().change()?;
        self.with(|inode| {
            inode.content.truncate(bytes as usize);
            inode.pending.push(Change::Cut(bytes as usize));
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.fs.disk().change();
        self.with(|inode| match synced {
            Ok(()) => inode.pending.drain(..).for_each(|change| change.apply(&mut inode.durable)),
            // The system gives up on it: a later sync succeeds without having written it.
            Err(_) => inode.pending.clear(),
        });
        synced
    }

    fn bytes(&self) -> io::Result<u64> {
        self.with(|inode| Ok(inode.content.len() as u64))
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.with(|inode| Ok(*inode.locked_by.get_or_insert(self.handle) == self.handle))
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.fs.disk().names.get(path) == Some(&self.inode))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.with(|inode| inode.locked_by = inode.locked_by.filter(|holder| *holder != self.handle));
    }
}
