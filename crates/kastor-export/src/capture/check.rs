//! What a capture holds, what is missing, where it is damaged; and a clean copy of what is whole.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use kastor::{Error, Outcome};

use super::{
    format::{BlockHeader, INDEX_ENTRIES, IndexEntry, MAX_PAYLOAD_BYTES, Session, Thread, index_payload, kind},
    read::{Content, Damage, Part, Reader, Unpacked, Wrong, wrong_version},
    record::{Block, Record},
    tables::{Progress, Tables},
};
use crate::frame::{Frames, Step, push_frame};

/// Places that are listed; more are counted.
const MAX_LISTED: usize = 1000;

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Size of the file.
    pub bytes: u64,
    /// One per process that wrote into it, or per time that one began to.
    pub sessions: Vec<SessionReport>,
    /// Places that cannot be read, the first 1,000.
    pub damage: Vec<Damage>,
    /// How many there are.
    pub damaged_places: u64,
    /// Bytes in them.
    pub damaged_bytes: u64,
    /// Bytes at the end that are no whole frame: a process was killed while it wrote, or is writing.
    pub torn_bytes: u64,
    /// Records whose path the file does not tell.
    pub nameless_records: u64,
}

/// What one process wrote into a file.
#[derive(Clone, Debug, Default)]
pub struct SessionReport {
    /// The process; none if that part is damaged.
    pub session: Option<Session>,
    /// Its threads, by number.
    pub threads: Vec<ThreadReport>,
    /// Blocks that were read.
    pub blocks: u64,
    /// Scopes in them.
    pub timings: u64,
    /// Scopes of these that failed.
    pub failures: u64,
    /// Metric events in them.
    pub metrics: u64,
    /// Paths that it names.
    pub paths: u64,
    /// Parts of snapshots.
    pub aggregates: u64,
    /// The earliest and latest moment in it: nanoseconds since 1970-01-01 UTC. None without blocks.
    pub span_unix_ns: Option<(u64, u64)>,
}

/// How much of a thread there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadReport {
    /// Its number in the process.
    pub index: u32,
    /// Its name; empty if it has none.
    pub name: String,
    /// The operating system's number for it.
    pub os_id: u64,
    /// Number of its newest block.
    pub last_block: u64,
    /// Its events up to and with that block, in whatever file.
    pub events: u64,
    /// Blocks that are missing in this file.
    pub missing_blocks: u64,
    /// Events in them.
    pub missing_events: u64,
    before: (u64, u64),
}

impl Checked {
    /// Events that were read.
    pub fn events(&self) -> u64 {
        self.sessions.iter().map(|session| session.timings + session.metrics).sum()
    }

    /// Events that are known to be missing.
    pub fn missing_events(&self) -> u64 {
        self.threads().map(|thread| thread.missing_events).fold(0, u64::saturating_add)
    }

    /// Whether everything is there and can be read.
    pub fn is_whole(&self) -> bool {
        let is_gapless = self.threads().all(|thread| thread.missing_blocks == 0);
        self.damaged_places == 0 && self.torn_bytes == 0 && self.nameless_records == 0 && is_gapless
    }

    fn threads(&self) -> impl Iterator<Item = &ThreadReport> {
        self.sessions.iter().flat_map(|session| &session.threads)
    }

    fn note(&mut self, damage: Damage) {
        self.damaged_places += 1;
        self.damaged_bytes += damage.bytes;
        if self.damage.len() < MAX_LISTED {
            self.damage.push(damage);
        }
    }
}

/// Reads a capture from one end to the other and says what is in it.
///
/// # Errors
/// If it cannot be read, is no capture, or was written in a format that this version does not know.
pub fn check(path: impl AsRef<Path>) -> Result<Checked, Error> {
    let mut reader = Reader::open(path)?;
    let mut checked = Checked::default();
    let mut session: Option<SessionReport> = None;
    loop {
        match reader.read()? {
            None => break,
            Some(Part::Damage(damage)) => checked.note(damage),
            Some(Part::Aggregates(_)) => session.get_or_insert_default().aggregates += 1,
            Some(Part::Block(block)) => {
                checked.nameless_records += session.get_or_insert_default().add(&block);
                if !block.is_whole() {
                    let what = "a block whose records are not as many as it says";
                    checked.note(Damage { offset: block.offset(), bytes: 0, what });
                }
            }
            Some(Part::Session(begun)) => {
                let next = SessionReport { session: Some(*begun), ..SessionReport::default() };
                let ended = session.replace(next);
                checked.sessions.extend(ended.map(|ended| ended.with_tables(reader.previous_tables())));
            }
        }
    }
    checked.sessions.extend(session.map(|session| session.with_tables(reader.tables())));
    (checked.bytes, checked.torn_bytes) = (reader.offset() + reader.torn_bytes(), reader.torn_bytes());
    Ok(checked)
}

impl SessionReport {
    /// Counts a block; returns how many of its records have a path that is not told.
    fn add(&mut self, block: &Block<'_>) -> u64 {
        self.blocks += 1;
        let (first, last) = (block.first_unix_ns(), block.last_unix_ns());
        self.span_unix_ns = Some(self.span_unix_ns.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
        let mut nameless = 0;
        for record in block.records() {
            let path = match record {
                Record::Timing(timing) => {
                    self.timings += 1;
                    self.failures += u64::from(timing.outcome() == Outcome::Failed);
                    timing.path_id()
                }
                Record::Metric(metric) => {
                    self.metrics += 1;
                    metric.path_id()
                }
            };
            nameless += u64::from(block.tables().levels(path) == 0);
        }
        nameless
    }

    fn with_tables(mut self, tables: &Tables) -> Self {
        self.paths = tables.paths().count() as u64;
        self.threads = tables.threads().map(|(thread, progress)| ThreadReport::new(thread, progress)).collect();
        self.threads.sort_unstable_by_key(|thread| thread.index);
        self
    }
}

impl ThreadReport {
    fn new(thread: &Thread, progress: &Progress) -> Self {
        Self {
            index: thread.index,
            name: thread.name.clone(),
            os_id: thread.os_id,
            last_block: progress.last_block,
            events: progress.events,
            missing_blocks: progress.missing_blocks,
            missing_events: progress.missing_events,
            before: progress.before,
        }
    }
}

/// Blocks of a thread that are in none of the files that were checked, but between two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The process.
    pub instance_id: u128,
    /// The thread's number in it.
    pub thread: u32,
    /// The files between which it lies, by their numbers in the process.
    pub files: (u32, u32),
    /// How many are missing.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
}

/// What is missing between files: a process that begins a new file says how much of each thread came before.
pub fn gaps_between<'a>(files: impl IntoIterator<Item = &'a Checked>) -> Vec<Gap> {
    let mut sessions: Vec<(&Session, &SessionReport)> = files
        .into_iter()
        .flat_map(|file| &file.sessions)
        .filter_map(|report| Some((report.session.as_ref()?, report)))
        .collect();
    sessions.sort_by_key(|(session, _)| (session.instance_id, session.file_number));
    let mut last: HashMap<(u128, u32), (u32, u64, u64)> = HashMap::new();
    let mut gaps = Vec::new();
    for (session, report) in sessions {
        for thread in &report.threads {
            let place = (session.instance_id, thread.index);
            let (blocks_before, events_before) = thread.before;
            if let Some((file, blocks, events)) = last.get(&place).filter(|(_, blocks, _)| *blocks < blocks_before) {
                gaps.push(Gap {
                    instance_id: session.instance_id,
                    thread: thread.index,
                    files: (*file, session.file_number),
                    blocks: blocks_before - blocks,
                    events: events_before.saturating_sub(*events),
                });
            }
            last.insert(place, (session.file_number, thread.last_block, thread.events));
        }
    }
    gaps
}

/// What a repair kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Frames that were copied.
    pub frames: u64,
    /// Bytes of the new file.
    pub bytes: u64,
    /// Bytes that were left behind.
    pub left_bytes: u64,
}

/// Copies what is whole in a capture into a new file, with a new index. The old file is not touched.
///
/// # Errors
/// If the old file cannot be read or is no capture, or if the new one is there already or cannot be written; what was
/// written of it is then removed.
pub fn repair(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Repaired, Error> {
    let (from, to) = (from.as_ref(), to.as_ref());
    // Refuses what is no capture, or one of another format, before anything is made.
    Reader::open(from)?.read()?;
    let read = |error: io::Error| Error::permanent(format!("cannot read capture {}: {error}", from.display()));
    let write = |error: io::Error| Error::permanent(format!("cannot write {}: {error}", to.display()));
    let input = File::open(from).map_err(read)?;
    let output = File::options().write(true).create_new(true).open(to).map_err(write)?;
    let copied = copy(input, output);
    copied.map_err(|error| {
        let _ = std::fs::remove_file(to);
        Error::permanent(format!("cannot repair {} into {}: {error}", from.display(), to.display()))
    })
}

fn copy(input: File, output: File) -> io::Result<Repaired> {
    let mut frames = Frames::new(input, 0, MAX_PAYLOAD_BYTES);
    let mut clean = Clean { output: BufWriter::new(output), bytes: 0, frames: 0, index: Vec::new(), newest_index: 0 };
    let (mut left_bytes, mut unpacked) = (0, Unpacked::default());
    loop {
        match frames.next()? {
            Step::End { torn_bytes } => {
                left_bytes += torn_bytes;
                break;
            }
            Step::Damaged { bytes, .. } => left_bytes += bytes,
            // These are made anew.
            Step::Frame { header, .. } if matches!(header.kind, kind::INDEX | kind::END) => {}
            Step::Frame { header, payload, .. } => {
                let content = match unpacked.take(&header, payload) {
                    Ok(()) => Content::decode(header.kind, &unpacked.content),
                    Err(what) => Err(Wrong::Damage(what)),
                };
                let block = match content {
                    Ok(Content::Block(block)) => Some(block),
                    Ok(_) => None,
                    // Its frames would be taken for the session's before it.
                    Err(Wrong::Version(version, layout)) => {
                        return Err(io::Error::other(wrong_version(version, layout).to_string()));
                    }
                    Err(Wrong::Damage(_)) => {
                        left_bytes += header.frame_bytes();
                        continue;
                    }
                };
                if clean.frames == 0 && header.kind != kind::SESSION {
                    // The session's own frame is lost: one that says so takes its place.
                    let unknown = Session { process_id: 0, instance_id: 0, file_number: 0, unix_ns: 0 };
                    clean.write(kind::SESSION, (0, 0), &unknown.encode(), None)?;
                }
                clean.write(header.kind, (header.flags, header.detail), payload, block.as_ref())?;
            }
        }
    }
    clean.finish()?;
    Ok(Repaired { frames: clean.frames, bytes: clean.bytes, left_bytes })
}

/// The new file.
struct Clean {
    output: BufWriter<File>,
    bytes: u64,
    frames: u64,
    index: Vec<IndexEntry>,
    newest_index: u64,
}

impl Clean {
    fn write(
        &mut self,
        kind: u8,
        (flags, detail): (u8, u32),
        payload: &[u8],
        block: Option<&BlockHeader>,
    ) -> io::Result<()> {
        let offset = self.bytes;
        self.index.push(match block {
            Some(block) => block.index_entry(offset),
            None => IndexEntry { offset, kind, ..IndexEntry::default() },
        });
        self.push(kind, (flags, detail), payload)?;
        if self.index.len() >= INDEX_ENTRIES { self.write_index() } else { Ok(()) }
    }

    fn write_index(&mut self) -> io::Result<()> {
        let offset = self.bytes;
        let payload = index_payload(self.newest_index, &self.index);
        self.push(kind::INDEX, (0, 0), &payload)?;
        self.newest_index = offset;
        self.index.clear();
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.write_index()?;
        let newest = self.newest_index.to_le_bytes();
        self.push(kind::END, (0, 0), &newest)?;
        self.output.flush()?;
        self.output.get_ref().sync_data()
    }

    fn push(&mut self, kind: u8, (flags, detail): (u8, u32), payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        push_frame(&mut frame, (kind, flags), self.frames, detail, payload);
        self.output.write_all(&frame)?;
        self.bytes += frame.len() as u64;
        self.frames += 1;
        Ok(())
    }
}
