//! Reading captures: once from one end to the other, and further when more was written; or, where there are more scopes than
//! are kept in memory, by the index of each file alone.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use kastor::Outcome;
use kastor_export::capture::{Block, IndexEntry, Part, Reader, Record, Tables, Timing};

use super::capture::{Capture, Content, Entry, MOST_PATHS, Numbers, Parts, Process, Segment, Thread};
use super::scopes::{Raw, Scopes, flag};
use super::sums::{Metrics, Sums};
use super::window::Windows;
use crate::captures::{self, Gaps, Missing};
use crate::failure::Failure;
use crate::report::{Place, Tree, value_number};

/// Scopes that are kept in memory, of everything that is shown: about 130 bytes each while they are put in order.
pub(super) const MOST_SCOPES: u64 = 3_000_000;

/// Captures that are being read.
pub(super) struct Loader {
    given: Vec<PathBuf>,
    most_scopes: u64,
    files: Vec<File>,
    segments: Vec<Segment>,
    blocks: Vec<Entry>,
    paths: Tree,
    processes: Vec<Process>,
    threads: Vec<Thread>,
    by_identity: HashMap<(u32, u32), u32>,
    sums: Sums,
    metrics: Metrics,
    /// None once there are too many.
    raws: Option<Vec<Raw>>,
    records: u32,
    /// The indexes alone were read.
    is_indexed: bool,
}

struct File {
    path: PathBuf,
    reader: Reader<std::fs::File>,
    segment: Option<u32>,
    numbers: Numbers,
    /// Whether tables or blocks came since the segment was written down.
    is_ahead: bool,
    damage: Missing,
}

impl Loader {
    /// Captures under these paths, of which nothing was read yet. At most so many scopes are kept.
    pub(super) fn new(given: &[PathBuf], most_scopes: u64) -> Self {
        Self {
            given: given.to_vec(),
            most_scopes,
            files: Vec::new(),
            segments: Vec::new(),
            blocks: Vec::new(),
            paths: Tree::default(),
            processes: Vec::new(),
            threads: Vec::new(),
            by_identity: HashMap::new(),
            sums: Sums::default(),
            metrics: Metrics::default(),
            raws: Some(Vec::new()),
            records: 0,
            is_indexed: false,
        }
    }

    /// Opens files that are new. Returns how many records the indexes of all of them tell of, if `is_counting`.
    pub(super) fn open(&mut self, is_counting: bool) -> Result<u64, Failure> {
        let mut records = 0_u64;
        for path in captures::files(&self.given)? {
            if self.files.iter().any(|file| file.path == path) {
                continue;
            }
            let mut reader = captures::open(&path)?;
            if is_counting {
                let index = reader.index().map_err(|error| captures::unreadable(&path, &error))?;
                records += index.iter().map(|entry| u64::from(entry.records)).sum::<u64>();
            }
            let (segment, numbers, damage) = (None, Numbers::default(), Missing::default());
            self.files.push(File { path, reader, segment, numbers, is_ahead: false, damage });
        }
        Ok(records)
    }

    /// Reads on, to the end for now. Returns whether there was anything.
    pub(super) fn read(&mut self) -> Result<bool, Failure> {
        let mut files = std::mem::take(&mut self.files);
        let read = (0..).zip(&mut files).try_fold(false, |any, (number, file)| Ok(self.file(number, file)? || any));
        self.files = files;
        read
    }

    /// Reads the indexes alone, the tables, and the sums.
    pub(super) fn read_indexes(&mut self) -> Result<(), Failure> {
        (self.raws, self.is_indexed) = (None, true);
        let mut files = std::mem::take(&mut self.files);
        let read = (0..).zip(&mut files).try_for_each(|(number, file)| self.index(number, file));
        self.files = files;
        read
    }

    /// The capture as it is known now.
    pub(super) fn capture(&mut self, is_last: bool) -> Capture {
        let raws = if is_last { self.raws.take() } else { self.raws.clone() };
        let threads = self.threads.len();
        let mut metrics = if is_last { std::mem::take(&mut self.metrics) } else { self.metrics.clone() };
        metrics.sort();
        self.add_paths_of_sums();
        let paths = if is_last { std::mem::take(&mut self.paths) } else { self.paths.clone() };
        let content = match raws {
            Some(raws) => {
                let origins = (0..).zip(&self.blocks).map(|(number, block)| (block.first_record, number)).collect();
                Content::Scopes(Scopes::new(raws, origins, threads, &paths))
            }
            None => Content::Windows(Windows::new(self.most_scopes)),
        };
        Capture::new(Parts {
            label: label(&self.given),
            files: self.files.iter().map(|file| file.path.clone()).collect(),
            segments: self.segments.clone(),
            blocks: if is_last { std::mem::take(&mut self.blocks) } else { self.blocks.clone() },
            paths,
            processes: self.processes.clone(),
            threads: self.threads.clone(),
            missing: self.missing(),
            is_indexed: self.is_indexed,
            sums: if is_last { std::mem::take(&mut self.sums) } else { self.sums.clone() },
            metrics,
            content,
        })
    }

    /// Paths that sums tell of and no record: below the longest known path that their text begins with.
    fn add_paths_of_sums(&mut self) {
        if self.sums.scopes.is_empty() {
            return;
        }
        let mut places: HashMap<String, Place> =
            (1..self.paths.len() as Place).map(|place| (self.paths.text(place), place)).collect();
        let mut unknown: Vec<&str> = self.sums.scopes.keys().map(|(_, path)| &**path).collect();
        unknown.retain(|path| !places.contains_key(*path));
        // What is above a path comes before it.
        unknown.sort_unstable();
        for path in unknown {
            if places.contains_key(path) || self.paths.len() >= MOST_PATHS {
                continue;
            }
            let above = path.rmatch_indices('.').find_map(|(at, _)| {
                let (above, name) = (path.get(..at)?, path.get(at + 1..)?);
                Some((*places.get(above)?, name))
            });
            let (above, name) = above.unwrap_or((0, path));
            places.insert(path.to_owned(), self.paths.child(above, name, false));
        }
    }

    fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        for file in &self.files {
            missing.damaged_places += file.damage.damaged_places;
            missing.damaged_bytes = missing.damaged_bytes.saturating_add(file.damage.damaged_bytes);
            missing.torn_files += u64::from(file.reader.torn_bytes() > 0);
            missing.torn_bytes = missing.torn_bytes.saturating_add(file.reader.torn_bytes());
        }
        if self.is_indexed {
            // What an index leaves out cannot be told from it.
            return missing;
        }
        let mut gaps: HashMap<u32, Gaps> = HashMap::new();
        for segment in &self.segments {
            let (events, _) = gaps.entry(segment.process).or_default().add(&segment.tables);
            missing.events = missing.events.saturating_add(events);
        }
        missing
    }

    fn file(&mut self, number: u32, file: &mut File) -> Result<bool, Failure> {
        let mut is_any = false;
        loop {
            let failed = |error: kastor::Error| captures::unreadable(&file.path, &error);
            match file.reader.read().map_err(failed)? {
                None => break,
                Some(Part::Session(session)) => {
                    let session = *session;
                    if let Some(segment) = file.segment {
                        let tables = file.reader.previous_tables().clone();
                        self.end_segment(segment, tables, &mut file.numbers);
                    }
                    file.numbers = Numbers::default();
                    file.segment = Some(self.segment(number, session.process_id, session.instance_id));
                    file.is_ahead = true;
                }
                Some(Part::Damage(damage)) => {
                    file.damage.damaged_places += 1;
                    file.damage.damaged_bytes = file.damage.damaged_bytes.saturating_add(damage.bytes);
                }
                Some(Part::Aggregates(aggregates)) => {
                    let segment = file.segment.and_then(|segment| self.segments.get(segment as usize));
                    if let Some(segment) = segment {
                        self.metrics.add(segment.process, &aggregates, &mut self.sums);
                    }
                }
                Some(Part::Block(block)) => {
                    if file.segment.is_none() {
                        // What stood before it is damaged.
                        file.segment = Some(self.segment(number, 0, u128::from(number)));
                    }
                    file.is_ahead = true;
                    if let Some(segment) = file.segment {
                        self.block(segment, &mut file.numbers, &block);
                    }
                }
            }
            is_any = true;
        }
        if let Some(segment) = file.segment.filter(|_| std::mem::take(&mut file.is_ahead)) {
            self.end_segment(segment, file.reader.tables().clone(), &mut file.numbers);
        }
        Ok(is_any)
    }

    fn segment(&mut self, file: u32, process_id: u32, instance_id: u128) -> u32 {
        let known = self.processes.iter().position(|process| process.instance_id == instance_id);
        let process = known.unwrap_or_else(|| {
            self.processes.push(Process { id: process_id, instance_id, axis_ns: None });
            self.processes.len() - 1
        }) as u32;
        self.segments.push(Segment { file, process, tables: Arc::default(), numbers: Arc::default() });
        (self.segments.len() - 1) as u32
    }

    /// Writes down what the numbers of a segment stand for.
    fn end_segment(&mut self, number: u32, tables: Tables, numbers: &mut Numbers) {
        if self.raws.is_none() {
            let mut known: Vec<u32> = tables.paths().collect();
            known.sort_unstable();
            for path in known {
                numbers.place(path, &tables, &mut self.paths);
            }
        }
        let Some(segment) = self.segments.get_mut(number as usize) else { return };
        for (thread, _) in tables.threads() {
            let known = self.by_identity.get(&(segment.process, thread.index));
            if let Some(known) = known.and_then(|known| self.threads.get_mut(*known as usize)) {
                known.name.clone_from(&thread.name);
            }
        }
        (segment.tables, segment.numbers) = (Arc::new(tables), Arc::new(numbers.clone()));
    }

    fn thread(&mut self, process: u32, index: u32) -> u32 {
        let threads = &mut self.threads;
        *self.by_identity.entry((process, index)).or_insert_with(|| {
            threads.push(Thread { process, index, name: String::new() });
            (threads.len() - 1) as u32
        })
    }

    fn block(&mut self, segment: u32, numbers: &mut Numbers, block: &Block<'_>) {
        let process = self.segments.get(segment as usize).map_or(0, |segment| segment.process);
        let thread = self.thread(process, block.thread());
        let first_record = self.records;
        self.blocks.push(Entry { index: block.index_entry(), segment, thread, first_record });
        let Some(mut raws) = self.raws.take() else { return };
        for record in block.records() {
            match record {
                Record::Timing(timing) => {
                    let path = numbers.place(timing.path_id(), block.tables(), &mut self.paths);
                    let axis_ns =
                        self.processes.get_mut(process as usize).map_or(0, |process| axis_ns(process, &timing));
                    let raw = Raw { path, record: self.records, thread, ..raw(&timing, axis_ns) };
                    self.records += 1;
                    raws.push(raw);
                }
                Record::Metric(metric) => {
                    let place = numbers.place(metric.path_id(), block.tables(), &mut self.paths);
                    let value = value_number(&metric.value());
                    let paths = &self.paths;
                    self.metrics.add_event((process, place), || paths.text(place), metric.unix_ns(), value);
                }
            }
        }
        if raws.len() as u64 <= self.most_scopes {
            self.raws = Some(raws);
        }
    }

    fn index(&mut self, number: u32, file: &mut File) -> Result<(), Failure> {
        let File { path, reader, .. } = file;
        let failed = |error: kastor::Error| captures::unreadable(path, &error);
        let index = reader.index().map_err(failed)?;
        let begins = |entry: &IndexEntry| entry.is_session();
        // Sessions of one file follow each other.
        let mut at = index.iter().position(begins).unwrap_or(index.len());
        while at < index.len() {
            let rest = index.get(at..).unwrap_or(&[]);
            let len = rest.iter().skip(1).position(begins).map_or(rest.len(), |next| next + 1);
            let entries = rest.get(..len).unwrap_or(&[]);
            at += len;
            reader.load_tables(entries).map_err(failed)?;
            let Some(session) = reader.session().copied() else { continue };
            let segment = self.segment(number, session.process_id, session.instance_id);
            let process = self.segments.get(segment as usize).map_or(0, |segment| segment.process);
            let tables = reader.tables().clone();
            for entry in entries {
                if entry.is_block() {
                    let thread = self.thread(process, entry.thread);
                    let first_record = self.records;
                    self.records = self.records.saturating_add(entry.records);
                    self.blocks.push(Entry { index: *entry, segment, thread, first_record });
                } else if entry.is_aggregates() {
                    reader.go_to(entry).map_err(failed)?;
                    if let Some(Part::Aggregates(aggregates)) = reader.read().map_err(failed)? {
                        self.metrics.add(process, &aggregates, &mut self.sums);
                    }
                }
            }
            self.end_segment(segment, tables, &mut Numbers::default());
        }
        Ok(())
    }
}

/// What is read of a scope, but for its path, thread and number.
pub(super) fn raw(timing: &Timing<'_>, axis_ns: i128) -> Raw {
    let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    let start_ns = i128::from(timing.start_monotonic_ns()) + axis_ns;
    Raw {
        begin: timing.start_ticks(),
        end: timing.end_ticks(),
        start_ns: start_ns.clamp(0, i128::from(u64::MAX)) as u64,
        duration_ns: timing.duration_ns(),
        span: timing.span_id(),
        parent: timing.parent_span_id().unwrap_or(0),
        path: 0,
        record: 0,
        thread: 0,
        flags: bit(timing.outcome() == Outcome::Failed, flag::FAILED)
            | bit(timing.is_detached(), flag::DETACHED)
            | bit(timing.is_task(), flag::TASK)
            | bit(timing.has_moved(), flag::MOVED)
            | bit(timing.has_carried_parent(), flag::CARRIED),
    }
}

/// From the monotonic clock of a process to the axis: fixed with its first scope, so that no later jump of the wall clock
/// bends anything.
fn axis_ns(process: &mut Process, timing: &Timing<'_>) -> i128 {
    let here = || i128::from(timing.start_unix_ns()) - i128::from(timing.start_monotonic_ns());
    *process.axis_ns.get_or_insert_with(here)
}

/// What the capture is called: the names of what was given.
fn label(given: &[PathBuf]) -> String {
    let name = |path: &PathBuf| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let names: Vec<String> = given.iter().take(3).map(name).collect();
    let more = given.len().saturating_sub(3);
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}

/// The captures under these paths: all of their scopes if they are no more than `most_scopes`, else where they are.
pub(super) fn load(given: &[PathBuf], most_scopes: u64) -> Result<Capture, Failure> {
    let mut loader = Loader::new(given, most_scopes);
    if loader.open(true)? > most_scopes {
        loader.read_indexes()?;
    } else {
        loader.read()?;
    }
    Ok(loader.capture(true))
}
