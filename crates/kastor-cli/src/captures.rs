//! The captures that a command was given, read from one end to the other: files, folders, several processes, several runs.
//!
//! Files are read one after another, those of a process together and in order, so that memory does not grow with their number.
//! What is missing or damaged is counted on the way and said in one line.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kastor_export::capture::{Aggregates, Block, Part, Reader, Session, Tables};
use serde::Serialize;

use crate::failure::Failure;

/// Someone who looks at every part.
pub(crate) trait Visitor {
    /// Records of one thread.
    fn block(&mut self, block: &Block<'_>);
    /// Sums, cumulative for their process.
    fn aggregates(&mut self, _aggregates: &Aggregates<'_>) {}
    /// The numbers of the blocks so far mean something else from now on; this is what they meant.
    fn tables_end(&mut self, tables: &Tables);
    /// What follows is another process's.
    fn process_ends(&mut self) {}
}

/// What was read, and what was not.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Seen {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) processes: u64,
    pub(crate) threads: u64,
    /// Scopes and metric events.
    pub(crate) events: u64,
    /// The earliest and the latest moment.
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
    pub(crate) missing: Missing,
}

/// What is not there, as far as the captures tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// Events in gaps: blocks that were lost, or are in files that were not given.
    pub(crate) events: u64,
    /// Places that cannot be read, and bytes in them.
    pub(crate) damaged_places: u64,
    pub(crate) damaged_bytes: u64,
    /// Files that end in the middle of a frame, and bytes there: the process was killed, or is writing.
    pub(crate) torn_files: u64,
    pub(crate) torn_bytes: u64,
    /// Records whose path nothing tells.
    pub(crate) nameless: u64,
    /// Scopes that the sums know of and no record: dropped, left out by a rule, or in files that were not given.
    pub(crate) without_record: u64,
}

impl Missing {
    /// What is missing, in words; none if nothing is.
    pub(crate) fn in_words(&self) -> Option<String> {
        let mut parts = Vec::new();
        let mut say = |number: u64, text: String| {
            if number > 0 {
                parts.push(text);
            }
        };
        say(self.events, format!("{} events in gaps", self.events));
        say(self.damaged_places, format!("{} damaged places ({} bytes)", self.damaged_places, self.damaged_bytes));
        say(self.torn_files, format!("{} torn ends ({} bytes)", self.torn_files, self.torn_bytes));
        say(self.nameless, format!("the paths of {} records", self.nameless));
        say(self.without_record, format!("records of {} scopes that the sums know of", self.without_record));
        (!parts.is_empty()).then(|| format!("missing: {}", parts.join(", ")))
    }
}

/// The capture files under these paths: a file as it is, of a folder those that end in `.kcap`.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |error: std::io::Error| {
            Failure::new(format!("cannot read '{}': {error}", path.display()), "check the path and your rights there")
        };
        let before = files.len();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            if file.extension().is_some_and(|extension| extension == "kcap") {
                files.push(file);
            }
        }
        if files.len() == before {
            let message = format!("no capture under '{}'", path.display());
            return Err(Failure::new(message, "give a .kcap file or a folder with some; `kastor run` makes one"));
        }
    }
    in_order(files)
}

/// Files of a process together and in the order in which they were written; the process that began first comes first.
fn in_order(files: Vec<PathBuf>) -> Result<Vec<PathBuf>, Failure> {
    let mut known: Vec<(Option<Session>, PathBuf)> = Vec::with_capacity(files.len());
    for file in files {
        known.push((first_session(&file)?, file));
    }
    let mut begun: HashMap<u128, u64> = HashMap::new();
    for (session, _) in &known {
        if let Some(session) = session {
            let first = begun.entry(session.instance_id).or_insert(u64::MAX);
            *first = session.unix_ns.min(*first);
        }
    }
    known.sort_by_cached_key(|(session, file)| {
        let place = session.map(|it| (begun.get(&it.instance_id).copied(), it.instance_id, it.file_number));
        (place, file.clone())
    });
    known.dedup_by(|one, other| one.1 == other.1);
    Ok(known.into_iter().map(|(_, file)| file).collect())
}

/// The process that a file begins with, if it begins as it should.
fn first_session(file: &Path) -> Result<Option<Session>, Failure> {
    let mut reader = open(file)?;
    Ok(match reader.read().map_err(|error| unreadable(file, &error))? {
        Some(Part::Session(session)) => Some(*session),
        _ => None,
    })
}

pub(crate) fn open(file: &Path) -> Result<Reader<std::fs::File>, Failure> {
    Reader::open(file).map_err(|error| unreadable(file, &error))
}

pub(crate) fn unreadable(file: &Path, error: &kastor::Error) -> Failure {
    let text = error.to_string();
    let file = file.display().to_string();
    let message = if text.contains(&file) { text } else { format!("{file}: {text}") };
    Failure::new(message, "give a .kcap file that this version can read, or a folder with some")
}

/// Reads all parts of all files, in order.
pub(crate) fn visit(files: &[PathBuf], visitor: &mut impl Visitor) -> Result<Seen, Failure> {
    let mut walk = Walk::default();
    for file in files {
        walk.file(file, visitor)?;
    }
    if walk.instance.is_some() {
        visitor.process_ends();
    }
    Ok(walk.finish())
}

/// How far each thread of a process was read: its events.
#[derive(Default)]
pub(crate) struct Gaps(HashMap<u32, u64>);

impl Gaps {
    /// Adds what one file tells of its threads, file after file. Returns how many events are missing, within it and since
    /// the file before, and how many threads are new.
    pub(crate) fn add(&mut self, tables: &Tables) -> (u64, u64) {
        let (mut missing, mut new) = (0_u64, 0);
        for (thread, progress) in tables.threads() {
            let (_, events_before) = progress.before();
            let read = self.0.insert(thread.index, progress.events);
            new += u64::from(read.is_none());
            let between = events_before.saturating_sub(read.unwrap_or(0));
            missing = missing.saturating_add(progress.missing_events).saturating_add(between);
        }
        (missing, new)
    }
}

#[derive(Default)]
struct Walk {
    seen: Seen,
    instance: Option<u128>,
    instances: HashSet<u128>,
    /// Of the current process.
    gaps: Gaps,
    span_ns: Option<(u64, u64)>,
}

impl Walk {
    fn file(&mut self, file: &Path, visitor: &mut impl Visitor) -> Result<(), Failure> {
        let mut reader = open(file)?;
        self.seen.files += 1;
        let mut has_blocks = false;
        loop {
            // The tables of a session are wanted when the next one begins.
            let begun = match reader.read().map_err(|error| unreadable(file, &error))? {
                None => break,
                Some(Part::Session(session)) => session.instance_id,
                Some(Part::Damage(damage)) => {
                    self.seen.missing.damaged_places += 1;
                    self.seen.missing.damaged_bytes = self.seen.missing.damaged_bytes.saturating_add(damage.bytes);
                    continue;
                }
                Some(Part::Aggregates(aggregates)) => {
                    visitor.aggregates(&aggregates);
                    continue;
                }
                Some(Part::Block(block)) => {
                    has_blocks = true;
                    self.seen.events += u64::from(block.len());
                    let (first, last) = (block.first_unix_ns(), block.last_unix_ns());
                    self.span_ns = Some(self.span_ns.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
                    visitor.block(&block);
                    continue;
                }
            };
            if std::mem::take(&mut has_blocks) {
                visitor.tables_end(reader.previous_tables());
                self.threads_of(reader.previous_tables());
            }
            self.begin(begun, visitor);
        }
        visitor.tables_end(reader.tables());
        self.threads_of(reader.tables());
        self.seen.bytes += reader.offset() + reader.torn_bytes();
        if reader.torn_bytes() > 0 {
            self.seen.missing.torn_files += 1;
            self.seen.missing.torn_bytes += reader.torn_bytes();
        }
        Ok(())
    }

    fn begin(&mut self, instance: u128, visitor: &mut impl Visitor) {
        if self.instance == Some(instance) {
            return;
        }
        if self.instance.is_some() {
            visitor.process_ends();
        }
        self.instance = Some(instance);
        self.instances.insert(instance);
        self.gaps = Gaps::default();
    }

    fn threads_of(&mut self, tables: &Tables) {
        let (missing, new) = self.gaps.add(tables);
        self.seen.threads += new;
        self.seen.missing.events = self.seen.missing.events.saturating_add(missing);
    }

    fn finish(mut self) -> Seen {
        let moment = |ns: u64| Timestamp::from_nanosecond(i128::from(ns)).ok();
        self.seen.processes = self.instances.len() as u64;
        self.seen.first = self.span_ns.and_then(|(first, _)| moment(first));
        self.seen.last = self.span_ns.and_then(|(_, last)| moment(last));
        self.seen
    }
}
