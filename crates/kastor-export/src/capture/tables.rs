//! What the numbers in a capture stand for: names, paths, threads.

use std::collections::HashMap;

use super::format::{self, Thread};

/// Entries of a table; the core knows fewer names and paths.
const MAX_ENTRIES: usize = 1 << 20;
/// Bytes of a name that are kept; the core keeps fewer.
const MAX_NAME_BYTES: usize = 1 << 10;
/// Levels of a path; the core keeps fewer.
const MAX_LEVELS: u32 = 512;
/// Bytes of a path's text, as the core limits it.
const MAX_TEXT_BYTES: usize = 64 << 10;
/// Marks a path that ends at the core's limits.
const DEEPER_BIT: u32 = 1 << 31;

/// Names, paths and threads that a capture has told of so far.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    names: HashMap<u32, Box<str>>,
    paths: HashMap<u32, PathEntry>,
    /// Numbers of names and paths in the order in which they were told.
    told: (Vec<u32>, Vec<u32>),
    threads: HashMap<u32, (Thread, Progress)>,
}

#[derive(Clone, Debug)]
struct PathEntry {
    above: u32,
    levels: u32,
    name: Box<str>,
}

/// How much of a thread there is, and how much is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The number of its newest block.
    pub last_block: u64,
    /// Its events up to and with that block, read or missing.
    pub events: u64,
    /// Blocks that are missing among those read.
    pub missing_blocks: u64,
    /// Events in them.
    pub missing_events: u64,
    /// Blocks and events that came before this file.
    pub(super) before: (u64, u64),
}

impl Progress {
    fn starting_at(blocks: u64, events: u64) -> Self {
        Self { last_block: blocks, events, before: (blocks, events), ..Self::default() }
    }

    /// Blocks and events of the thread that came before this file.
    pub fn before(&self) -> (u64, u64) {
        self.before
    }

    /// Goes to so many blocks and events; what lies between is missing.
    fn skip_to(&mut self, blocks: u64, events: u64) {
        self.missing_blocks = self.missing_blocks.saturating_add(blocks.saturating_sub(self.last_block));
        self.missing_events = self.missing_events.saturating_add(events.saturating_sub(self.events));
        (self.last_block, self.events) = (blocks, events);
    }
}

impl Tables {
    /// The text of a name or key; `(unknown)` if the capture does not tell.
    pub fn name(&self, number: u32) -> &str {
        match number {
            0 => "",
            1 => "(overflow)",
            2 => "(invalid_name)",
            3 => "(deeper)",
            _ => self.names.get(&number).map_or("(unknown)", |name| name),
        }
    }

    /// The last name of a path.
    pub fn path_name(&self, path: u32) -> &str {
        self.paths.get(&path).map_or("(unknown)", |entry| &entry.name)
    }

    /// The path around a path; none for one of a single name.
    pub fn parent(&self, path: u32) -> Option<u32> {
        self.paths.get(&path).map(|entry| entry.above).filter(|above| *above != 0)
    }

    /// Number of names in a path; 0 if it is unknown.
    pub fn levels(&self, path: u32) -> u32 {
        self.paths.get(&path).map_or(0, |entry| entry.levels)
    }

    /// The names of a path, joined with `.`; made anew by each call, at most 64 KiB.
    pub fn path_text(&self, path: u32) -> String {
        let (mut names, mut at) = (Vec::new(), path);
        while at != 0 {
            let Some(entry) = self.paths.get(&at) else {
                names.push("(unknown)");
                break;
            };
            names.push(if at & DEEPER_BIT != 0 { "….(deeper)" } else { &entry.name });
            at = entry.above;
        }
        let mut text = String::new();
        for name in names.into_iter().rev() {
            if text.len() + name.len() > MAX_TEXT_BYTES {
                break;
            }
            if !text.is_empty() && !name.starts_with('…') {
                text.push('.');
            }
            text.push_str(name);
        }
        text
    }

    /// Numbers of the paths that are known, in no particular order.
    pub fn paths(&self) -> impl Iterator<Item = u32> + '_ {
        self.paths.keys().copied()
    }

    /// Number of names and keys told so far, and of paths.
    pub(super) fn told(&self) -> (usize, usize) {
        (self.told.0.len(), self.told.1.len())
    }

    /// The names and keys told after the first `known`: number, text.
    pub(super) fn names_since(&self, known: usize) -> impl Iterator<Item = (u32, &str)> {
        self.told.0.iter().skip(known).map(|number| (*number, self.name(*number)))
    }

    /// The paths told after the first `known`: number, that of the path above (0: none), last name.
    pub(super) fn paths_since(&self, known: usize) -> impl Iterator<Item = (u32, u32, &str)> {
        let of = |number: &u32| (*number, self.parent(*number).unwrap_or(0), self.path_name(*number));
        self.told.1.iter().skip(known).map(of)
    }

    /// Number of threads told so far.
    pub(super) fn threads_len(&self) -> usize {
        self.threads.len()
    }

    /// A thread, by its number.
    pub fn thread(&self, index: u32) -> Option<&Thread> {
        self.threads.get(&index).map(|(thread, _)| thread)
    }

    /// The threads that are known and how much of each there is, in no particular order.
    pub fn threads(&self) -> impl Iterator<Item = (&Thread, &Progress)> {
        self.threads.values().map(|(thread, progress)| (thread, progress))
    }

    pub(super) fn add_names(&mut self, payload: &[u8]) {
        for (number, text) in format::names(payload) {
            if self.names.len() < MAX_ENTRIES && self.names.insert(number, cut(text).into()).is_none() {
                self.told.0.push(number);
            }
        }
    }

    pub(super) fn add_paths(&mut self, payload: &[u8]) {
        for (path, above, name) in format::paths(payload) {
            // A path is younger than what it lies under: no circle can form.
            if above & !DEEPER_BIT >= path & !DEEPER_BIT || self.paths.len() >= MAX_ENTRIES {
                continue;
            }
            let levels = self.levels(above) + 1;
            let entry = PathEntry { above, levels, name: cut(name).into() };
            if levels <= MAX_LEVELS && self.paths.insert(path, entry).is_none() {
                self.told.1.push(path);
            }
        }
    }

    pub(super) fn add_thread(&mut self, mut thread: Thread) {
        thread.name = cut(&thread.name).to_owned();
        let before = (thread.blocks_before, thread.events_before);
        let has_room = self.threads.len() < MAX_ENTRIES;
        match self.threads.get_mut(&thread.index) {
            Some((known, progress)) => {
                if before.0 < progress.last_block {
                    // The writer had forgotten the thread and counts anew.
                    (progress.last_block, progress.events) = before;
                }
                progress.skip_to(before.0, before.1);
                *known = thread;
            }
            None if has_room => {
                self.threads.insert(thread.index, (thread, Progress::starting_at(before.0, before.1)));
            }
            None => {}
        }
    }

    /// A block was read: what its header says of the thread's past has to fit what was read.
    pub(super) fn advance(&mut self, block: &format::BlockHeader) {
        let before = (block.blocks.saturating_sub(1), block.events.saturating_sub(u64::from(block.records)));
        if !self.threads.contains_key(&block.thread) {
            let (index, name) = (block.thread, String::new());
            self.add_thread(Thread { index, os_id: 0, name, blocks_before: before.0, events_before: before.1 });
        }
        if let Some((_, progress)) = self.threads.get_mut(&block.thread) {
            progress.skip_to(before.0, before.1);
            (progress.last_block, progress.events) = (block.blocks, block.events);
        }
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_NAME_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}
