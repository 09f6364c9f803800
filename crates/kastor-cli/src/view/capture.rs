//! One side of the view: everything under the paths that were given, as the page asks for it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kastor_export::capture::{Block, IndexEntry, Part, Reader, Tables};

use super::filter::Selections;
use super::scopes::Scopes;
use super::sums::{Metrics, Sums};
use super::window::Windows;
use crate::captures::{self, Missing};
use crate::failure::Failure;
use crate::report::{Place, Tree};

/// Files that are kept open for reading single blocks.
const MOST_READERS: usize = 8;

/// See the module.
pub(super) struct Capture {
    pub(super) label: String,
    /// What is zero for the page, in Unix nanoseconds.
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) files: Vec<PathBuf>,
    pub(super) segments: Vec<Segment>,
    /// In the order in which they were read.
    pub(super) blocks: Vec<Entry>,
    pub(super) paths: Tree,
    pub(super) processes: Vec<Process>,
    pub(super) threads: Vec<Thread>,
    pub(super) missing: Missing,
    /// Only indexes were read.
    pub(super) is_indexed: bool,
    /// Scopes and metric events.
    pub(super) records: u64,
    pub(super) failed: u64,
    pub(super) sums: Sums,
    pub(super) metrics: Metrics,
    pub(super) content: Content,
    pub(super) selections: Selections,
    readers: Mutex<Vec<(u32, Reader<std::fs::File>)>>,
}

/// What is in memory of the records.
#[allow(clippy::large_enum_variant, reason = "there is one a capture")]
pub(super) enum Content {
    /// All of them.
    Scopes(Scopes),
    /// Where they are; some, in windows, for as long as they are looked at.
    Windows(Windows),
}

/// What one process wrote into one file at a stretch: its numbers mean the same throughout.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) file: u32,
    pub(super) process: u32,
    pub(super) tables: Arc<Tables>,
    pub(super) numbers: Arc<Numbers>,
}

/// Where the paths of a segment are in the tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// By number; 0: not yet known.
    dense: Vec<Place>,
    others: HashMap<u32, Place>,
    known: HashMap<u32, Place>,
}

/// Numbers of paths are dense from 1; what is beyond comes from no program, or marks the limit of paths.
const MOST_DENSE: u32 = 1 << 18;
/// Paths that are kept apart; what is beyond shares one.
pub(super) const MOST_PATHS: usize = 1 << 18;

impl Numbers {
    /// The place of a path.
    pub(super) fn place(&mut self, number: u32, tables: &Tables, paths: &mut Tree) -> Place {
        let found = self.find(number);
        if found != 0 {
            return found;
        }
        let has_room = paths.len() < MOST_PATHS;
        let place =
            if has_room { paths.place(tables, number, &mut self.known) } else { paths.child(0, "(overflow)", false) };
        if number < MOST_DENSE {
            if self.dense.len() <= number as usize {
                self.dense.resize((number as usize + 1).next_power_of_two(), 0);
            }
            if let Some(to) = self.dense.get_mut(number as usize) {
                *to = place;
            }
        } else {
            self.others.insert(number, place);
        }
        place
    }

    /// The place of a path that was met before; else 0.
    #[inline]
    pub(super) fn find(&self, number: u32) -> Place {
        match self.dense.get(number as usize) {
            Some(place) => *place,
            None => self.others.get(&number).copied().unwrap_or(0),
        }
    }
}

/// A block, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) index: IndexEntry,
    pub(super) segment: u32,
    /// Its place among [`Capture::threads`].
    pub(super) thread: u32,
    /// The number of its first scope among all scopes that were read.
    pub(super) first_record: u32,
}

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) id: u32,
    pub(super) instance_id: u128,
    /// From its monotonic clock to the axis; fixed with the first of its blocks that is read.
    pub(super) axis_ns: Option<i128>,
}

/// A thread.
#[derive(Clone, Debug)]
pub(super) struct Thread {
    pub(super) process: u32,
    pub(super) index: u32,
    pub(super) name: String,
}

impl Capture {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            label,
            files,
            segments,
            blocks,
            paths,
            processes,
            threads,
            missing,
            is_indexed,
            sums,
            metrics,
            content,
        } = parts;
        let first = blocks.iter().map(|block| block.index.first_unix_ns).min();
        let last = blocks.iter().map(|block| block.index.last_unix_ns).max();
        let (first, last) = match &content {
            Content::Scopes(scopes) if scopes.len() > 0 => {
                let ends = (0..scopes.len()).map(|place| scopes.end_ns(place));
                (scopes.start_ns.iter().min().copied().min(first), ends.max().max(last))
            }
            _ => (first, last),
        };
        let start_ns = first.unwrap_or_else(|| metrics.first_ns());
        let end_ns = last.unwrap_or(start_ns).max(start_ns).max(metrics.last_ns());
        Self {
            label,
            start_ns,
            end_ns,
            records: blocks.iter().map(|block| u64::from(block.index.records)).sum(),
            failed: blocks.iter().map(|block| u64::from(block.index.failures)).sum(),
            files,
            segments,
            blocks,
            paths,
            processes,
            threads,
            missing,
            is_indexed,
            sums,
            metrics,
            content,
            selections: Selections::default(),
            readers: Mutex::default(),
        }
    }

    /// How long it lasts.
    pub(super) fn duration_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }

    /// Reads blocks again, by their places among [`blocks`](Self::blocks). What cannot be read any more is left out.
    pub(super) fn for_each_block(
        &self,
        blocks: impl IntoIterator<Item = u32>,
        mut look: impl FnMut(u32, &Entry, &Block<'_>),
    ) -> Result<(), Failure> {
        for number in blocks {
            let Some(entry) = self.blocks.get(number as usize) else { continue };
            let mut reader = self.reader(entry.segment)?;
            let failed = |error| self.unreadable(entry.segment, &error);
            if reader.offset() != entry.index.offset {
                reader.go_to(&entry.index).map_err(failed)?;
            }
            match reader.read().map_err(failed)? {
                // What is damaged by now is stepped over: then it is another one.
                Some(Part::Block(block)) if block.offset() == entry.index.offset => look(number, entry, &block),
                _ => {}
            }
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.push((entry.segment, reader));
            if readers.len() > MOST_READERS {
                readers.remove(0);
            }
        }
        Ok(())
    }

    /// The segment of a block.
    pub(super) fn segment(&self, entry: &Entry) -> Option<&Segment> {
        self.segments.get(entry.segment as usize)
    }

    fn reader(&self, segment: u32) -> Result<Reader<std::fs::File>, Failure> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = readers.iter().rposition(|(of, _)| *of == segment) {
            return Ok(readers.remove(at).1);
        }
        drop(readers);
        let known = self.segments.get(segment as usize);
        let file = known.and_then(|segment| self.files.get(segment.file as usize));
        let (Some(known), Some(file)) = (known, file) else {
            return Err(Failure::new("no such file any more", "reload the page"));
        };
        let mut reader = captures::open(file)?;
        reader.set_tables((*known.tables).clone());
        Ok(reader)
    }

    fn unreadable(&self, segment: u32, error: &kastor::Error) -> Failure {
        let file = self.segments.get(segment as usize).and_then(|segment| self.files.get(segment.file as usize));
        captures::unreadable(file.map_or(std::path::Path::new("capture"), |file| file), error)
    }
}

/// What a capture is put together from.
pub(super) struct Parts {
    pub(super) label: String,
    pub(super) files: Vec<PathBuf>,
    pub(super) segments: Vec<Segment>,
    pub(super) blocks: Vec<Entry>,
    pub(super) paths: Tree,
    pub(super) processes: Vec<Process>,
    pub(super) threads: Vec<Thread>,
    pub(super) missing: Missing,
    pub(super) is_indexed: bool,
    pub(super) sums: Sums,
    pub(super) metrics: Metrics,
    pub(super) content: Content,
}
