//! Writing a capture: each batch goes to the operating system at once, so that whatever becomes of the process, what it
//! handed over is in the file.
//!
//! A batch costs one look at each record, which also packs it (see `pack.rs`), one checksum, and one system call.
//! Names, paths and threads are written when a batch first needs them, and again in each new file.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use kastor::{Batch, DropReason, Process, Snapshot};

use super::{
    aggregates,
    config::{CaptureConfig, Durability},
    extent::Extent,
    files::{Files, Opened},
    format::{
        BLOCK_HEADER_BYTES, BlockHeader, COMPRESSED, INDEX_ENTRIES, IndexEntry, Line, MAX_EXPANSION, MAX_PAYLOAD_BYTES,
        PACKED, Session, TABLE_BYTES, Thread, index_payload, kind, push_name, push_path,
    },
    pack::pack,
};
use crate::{
    frame::{FrameHeader, push_frame},
    fs::{Fs, FsFile},
    redact::RecordRedaction,
};

/// How a frame begins that zstd skips.
const SKIPPABLE: [u8; 4] = 0x184d_2a50u32.to_le_bytes();
/// Names below are the same in every process.
const FIRST_NAME: u32 = 4;
/// After a failure, time until the next attempt; also how often the file is looked for at its place.
const PAUSE: Duration = Duration::from_millis(250);
/// Threads that are remembered; of more, those that were idle longest are forgotten.
const MAX_THREADS: usize = 16 << 10;

/// Writes the files of one process.
pub(super) struct Writer {
    files: Files,
    config: CaptureConfig,
    redaction: RecordRedaction,
    /// A batch's records without secrets.
    redacted: Vec<u8>,
    /// A batch's packed records; kept for its memory.
    packed: Vec<u8>,
    /// None until the first batch or snapshot.
    process: Option<Process>,
    file: Option<OpenFile>,
    /// Full files that are not durable yet.
    unsynced: Vec<Box<dyn FsFile>>,
    threads: HashMap<u32, ThreadState>,
    /// Counts batches, to tell how long a thread was idle.
    now: u64,
    paused: Option<(Instant, DropReason)>,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    compressed: Vec<u8>,
    scratch: Vec<u8>,
    failures: u64,
    last_error: Option<String>,
    /// Calls in the newest snapshot that was written: the same again would say nothing new.
    calls_written: u64,
}

struct OpenFile {
    file: Box<dyn FsFile>,
    path: PathBuf,
    number: u32,
    bytes: u64,
    sequence: u64,
    blocks: u64,
    names: u32,
    paths: u32,
    index: Vec<IndexEntry>,
    newest_index: u64,
    /// Whether something was written since the last index.
    is_unindexed: bool,
    is_unsynced: bool,
    /// Whether the folder was synced since the file was made.
    is_listed: bool,
    synced: Instant,
    looked_for: Instant,
}

struct ThreadState {
    blocks: u64,
    events: u64,
    /// Number of the file that has its THREAD frame.
    told_in: u32,
    used: u64,
}

impl Writer {
    pub(super) fn new(fs: Arc<dyn Fs>, config: CaptureConfig) -> Self {
        Self {
            files: Files::new(fs, config.clone()),
            redaction: RecordRedaction::new(config.redaction.clone()),
            redacted: Vec::new(),
            packed: Vec::new(),
            config,
            process: None,
            file: None,
            unsynced: Vec::new(),
            threads: HashMap::new(),
            now: 0,
            paused: None,
            compressor: None,
            compressed: Vec::new(),
            scratch: Vec::new(),
            failures: 0,
            last_error: None,
            calls_written: 0,
        }
    }

    /// Begins anew: what there is belongs to the process that this one was forked from. Its files are closed here and
    /// stay as they are.
    pub(super) fn forget(&mut self) {
        self.files.forget();
        (self.file, self.process, self.paused) = (None, None, None);
        self.unsynced.clear();
        self.threads.clear();
        self.redaction = RecordRedaction::new(self.config.redaction.clone());
        (self.failures, self.last_error, self.calls_written) = (0, None, 0);
    }

    /// The files that are there, the newest last.
    pub(super) fn made(&self) -> Vec<PathBuf> {
        self.files.made().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Writes a batch, or says why its events are dropped.
    pub(super) fn write_batch(&mut self, batch: &Batch<'_>) -> Result<(), DropReason> {
        // 1. The block's header. What is dropped below is counted here, so that a reader sees the gap. Secrets are in items:
        // records without are packed as they are.
        let (records, flows) = (batch.record_bytes(), batch.flow_bytes());
        let (is_packing, is_redacting) = (self.config.zstd.is_none(), !self.config.redaction.is_none());
        let mut packed = if is_packing { pack(records, is_redacting, &mut self.packed) } else { None };
        let extent = packed.map_or_else(|| Extent::of(records), |(extent, _)| extent);
        let header = self.header(batch, &extent, records, flows);
        if records.len() + flows.len() + BLOCK_HEADER_BYTES > MAX_PAYLOAD_BYTES as usize {
            return Err(DropReason::TooLarge);
        }
        if let Some((until, reason)) = self.paused {
            if Instant::now() < until {
                return Err(reason);
            }
            self.paused = None;
        }
        // 2. The file, what the records refer to, and the records, without what is secret in them.
        let mut redacted = std::mem::take(&mut self.redacted);
        let written = self.open_for(batch.process(), header.record_bytes + header.flow_bytes).and_then(|()| {
            let mut records = records;
            if extent.has_items && is_redacting {
                redacted.clear();
                redacted.extend_from_slice(records);
                self.redaction.redact(batch, &mut redacted);
                records = &redacted;
                packed = if is_packing { pack(records, false, &mut self.packed) } else { None };
            }
            self.write_tables(batch)?;
            self.write_thread(batch, &header)?;
            self.write_block(&header, records, packed.map(|(_, bytes)| bytes), flows)
        });
        self.redacted = redacted;
        // 3. What came of it.
        written.map_err(|error| self.failed(&error))?;
        if let Durability::Every(period) = self.config.durability
            && self.file.as_ref().is_some_and(|file| file.synced.elapsed() >= period)
        {
            // The batch is in the file; that it is not durable is logged.
            let _ = self.sync();
        }
        Ok(())
    }

    /// Writes the sums, if there are new ones.
    pub(super) fn write_aggregates(&mut self, snapshot: &Snapshot<'_>) -> Result<(), DropReason> {
        let calls = snapshot.scopes().iter().map(|scope| scope.calls());
        let calls = calls.chain(snapshot.series().iter().map(|series| series.calls())).fold(0, u64::wrapping_add);
        if self.paused.is_some_and(|(until, _)| Instant::now() < until) || calls == self.calls_written {
            return Ok(());
        }
        let written = self.open_for(snapshot.process(), 0).and_then(|()| {
            let redaction = self.config.redaction.clone();
            aggregates::encode(snapshot, &redaction, |payload| self.write_frame(kind::AGGREGATES, payload))
        });
        written.map_err(|error| self.failed(&error))?;
        self.calls_written = calls;
        Ok(())
    }

    /// Writes the index up to here, so that a reader finds its way without reading everything.
    pub(super) fn write_index(&mut self) -> Result<(), DropReason> {
        let written = self.index_frame(true);
        written.map_err(|error| self.failed(&error))
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> Result<(), DropReason> {
        let synced = self.try_sync();
        synced.map_err(|error| {
            // The system may have forgotten what it could not write: this file is never written again.
            self.file = None;
            self.failed(&error)
        })
    }

    fn try_sync(&mut self) -> io::Result<()> {
        while let Some(file) = self.unsynced.pop() {
            file.sync()?;
        }
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        file.synced = Instant::now();
        if file.is_unsynced {
            file.file.sync()?;
            file.is_unsynced = false;
        }
        if !std::mem::replace(&mut file.is_listed, true) {
            self.files.sync_folder()?;
        }
        Ok(())
    }

    /// Syncs with each flush?
    pub(super) fn syncs_on_flush(&self) -> bool {
        self.config.durability != Durability::System
    }

    fn header(&mut self, batch: &Batch<'_>, extent: &Extent, records: &[u8], flows: &[u8]) -> BlockHeader {
        let (anchor, ns_per_tick) = (batch.anchor(), batch.timeline().ns_per_tick());
        let index = batch.thread().index();
        self.now += 1;
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&index) {
            let mut used: Vec<u64> = self.threads.values().map(|thread| thread.used).collect();
            let (_, middle, _) = used.select_nth_unstable(MAX_THREADS / 2);
            let middle = *middle;
            self.threads.retain(|_, thread| thread.used > middle);
        }
        let thread =
            self.threads.entry(index).or_insert(ThreadState { blocks: 0, events: 0, told_in: 0, used: self.now });
        thread.blocks += 1;
        thread.events += batch.len();
        thread.used = self.now;
        BlockHeader {
            prefix: batch.id_prefix(),
            thread: index,
            records: extent.records,
            failures: extent.failures,
            first_tick: extent.first_tick,
            last_tick: extent.last_tick,
            longest_ticks: extent.longest_ticks,
            line: Line { ticks: anchor.ticks, monotonic_ns: anchor.monotonic_ns, unix_ns: anchor.unix_ns, ns_per_tick },
            record_bytes: records.len() as u32,
            flow_bytes: flows.len() as u32,
            blocks: thread.blocks,
            events: thread.events,
        }
    }

    /// Has a file with room for a block of so many bytes.
    fn open_for(&mut self, process: Process, bytes: u32) -> io::Result<()> {
        if self.process.is_some_and(|known| known.instance_id != process.instance_id) {
            self.forget();
        }
        self.process = Some(process);
        if let Some(file) = &mut self.file {
            let is_full = file.blocks > 0 && file.bytes + u64::from(bytes) > self.config.max_file_bytes;
            let is_gone = file.looked_for.elapsed() >= PAUSE && {
                file.looked_for = Instant::now();
                !file.file.is_at(&file.path).unwrap_or(true)
            };
            if is_full && !is_gone {
                self.close()?;
            }
            if is_full || is_gone {
                self.file = None;
            }
        }
        if self.file.is_none() {
            let Opened { file, path, number, bytes, newest_index } = self.files.open_next(process)?;
            let now = Instant::now();
            self.file = Some(OpenFile {
                file,
                path,
                number,
                bytes,
                sequence: 0,
                blocks: 0,
                names: FIRST_NAME,
                paths: 0,
                index: Vec::new(),
                newest_index,
                is_unindexed: false,
                is_unsynced: false,
                is_listed: false,
                synced: now,
                looked_for: now,
            });
            self.calls_written = 0;
            let unix_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let session = Session {
                process_id: process.id,
                instance_id: process.instance_id,
                file_number: number,
                unix_ns: unix_ns.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
            };
            if let Err(error) = self.write_frame(kind::SESSION, &session.encode()) {
                if let Some(file) = self.file.take() {
                    // One that is continued keeps what it had.
                    let _ = file.file.truncate(bytes);
                    if bytes == 0 {
                        self.files.give_up(&file.path);
                    }
                }
                return Err(error);
            }
            if let Some(file) = &self.file {
                self.files.keep(&file.path, file.number);
            }
        }
        Ok(())
    }

    /// What the process has named since the last time.
    fn write_tables(&mut self, batch: &Batch<'_>) -> io::Result<()> {
        let Some(OpenFile { names, paths, .. }) = self.file else { return Ok(()) };
        let mut payload = Vec::new();
        let mut known = names;
        for (number, text) in batch.new_names(names) {
            push_name(&mut payload, number, text);
            known = number + 1;
            if payload.len() >= TABLE_BYTES {
                self.write_frame(kind::NAMES, &payload)?;
                self.update(|file| file.names = known);
                payload.clear();
            }
        }
        if !payload.is_empty() {
            self.write_frame(kind::NAMES, &payload)?;
            self.update(|file| file.names = known);
            payload.clear();
        }
        let mut known = paths;
        for (path, above, name) in batch.new_paths(paths) {
            push_path(&mut payload, path, above.unwrap_or(0), name);
            known += 1;
            if payload.len() >= TABLE_BYTES {
                self.write_frame(kind::PATHS, &payload)?;
                self.update(|file| file.paths = known);
                payload.clear();
            }
        }
        if !payload.is_empty() {
            self.write_frame(kind::PATHS, &payload)?;
            self.update(|file| file.paths = known);
        }
        Ok(())
    }

    fn update(&mut self, f: impl FnOnce(&mut OpenFile)) {
        if let Some(file) = &mut self.file {
            f(file);
        }
    }

    fn write_thread(&mut self, batch: &Batch<'_>, header: &BlockHeader) -> io::Result<()> {
        let number = self.file.as_ref().map_or(0, |file| file.number);
        if self.threads.get(&header.thread).is_some_and(|thread| thread.told_in == number) {
            return Ok(());
        }
        let identity = batch.thread();
        let thread = Thread {
            index: identity.index(),
            os_id: identity.os_id(),
            name: identity.name().chars().take(256).collect(),
            blocks_before: header.blocks - 1,
            events_before: header.events.saturating_sub(u64::from(header.records)),
        };
        self.write_frame(kind::THREAD, &thread.encode())?;
        if let Some(thread) = self.threads.get_mut(&header.thread) {
            thread.told_in = number;
        }
        Ok(())
    }

    /// The block, with the records packed to so many bytes, or taken from where they are.
    fn write_block(
        &mut self,
        header: &BlockHeader,
        records: &[u8],
        packed_bytes: Option<usize>,
        flows: &[u8],
    ) -> io::Result<()> {
        self.scratch.clear();
        header.encode(&mut self.scratch);
        let length = (BLOCK_HEADER_BYTES + records.len() + flows.len()) as u32;
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut frame =
            FrameHeader { length, sequence: file.sequence, kind: kind::BLOCK, flags: 0, detail: 0, payload_crc: 0 };
        if let Some(level) = self.config.zstd {
            self.scratch.extend_from_slice(records);
            self.scratch.extend_from_slice(flows);
            if compress(&mut self.compressor, level, &self.scratch, &mut self.compressed) {
                frame.flags = COMPRESSED;
                frame.detail = length;
                frame.length = self.compressed.len() as u32;
                frame.payload_crc = crc32c::crc32c(&self.compressed);
                let padding = crate::frame::padding(self.compressed.len());
                file.append(&[&frame.encode(), &self.compressed, padding])?;
                return self.wrote_block(header, frame.frame_bytes());
            }
            self.scratch.truncate(BLOCK_HEADER_BYTES);
        }
        let packed = packed_bytes.and_then(|bytes| self.packed.get(..bytes));
        let records = packed.unwrap_or(records);
        if packed.is_some() {
            frame.flags = PACKED;
            frame.length = (BLOCK_HEADER_BYTES + records.len() + flows.len()) as u32;
        }
        frame.payload_crc = crc32c::crc32c_append(crc32c::crc32c(&self.scratch), records);
        frame.payload_crc = crc32c::crc32c_append(frame.payload_crc, flows);
        let padding = crate::frame::padding(frame.length as usize);
        file.append(&[&frame.encode(), &self.scratch, records, flows, padding])?;
        self.wrote_block(header, frame.frame_bytes())
    }

    fn wrote_block(&mut self, header: &BlockHeader, frame_bytes: u64) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.blocks += 1;
            file.index.push(header.index_entry(file.bytes - frame_bytes));
        }
        self.index_frame(false)
    }

    /// A frame of any other kind.
    fn write_frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.scratch.clear();
        push_frame(&mut self.scratch, (kind, 0), file.sequence, 0, payload);
        let offset = file.bytes;
        file.append(&[&self.scratch])?;
        file.index.push(IndexEntry { offset, kind, ..IndexEntry::default() });
        self.index_frame(false)
    }

    /// Writes the index entries that wait, if they are enough for a frame or if asked; then also where that is.
    fn index_frame(&mut self, at_end: bool) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.index.len() < INDEX_ENTRIES && !(at_end && file.is_unindexed) {
            return Ok(());
        }
        let payload = index_payload(file.newest_index, &file.index);
        self.scratch.clear();
        push_frame(&mut self.scratch, (kind::INDEX, 0), file.sequence, 0, &payload);
        let offset = file.bytes;
        file.append(&[&self.scratch])?;
        file.newest_index = offset;
        file.index.clear();
        if at_end {
            self.scratch.clear();
            push_frame(&mut self.scratch, (kind::END, 0), file.sequence, 0, &offset.to_le_bytes());
            file.append(&[&self.scratch])?;
            file.is_unindexed = false;
        }
        Ok(())
    }

    /// Ends the current file in order. It is not synced here, since that takes long, but remembered.
    fn close(&mut self) -> io::Result<()> {
        self.index_frame(true)?;
        if let Some(file) = self.file.take().filter(|file| file.is_unsynced) {
            self.unsynced.push(file.file);
            if self.unsynced.len() > self.config.max_files {
                self.unsynced.remove(0);
            }
        }
        Ok(())
    }

    /// After a failure: nothing half-written stays, and the next attempt comes later.
    fn failed(&mut self, error: &io::Error) -> DropReason {
        let is_full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        // A file that is only full goes on when there is room again. After any other failure its end is in doubt.
        let is_whole = self.file.as_ref().is_some_and(|file| file.file.truncate(file.bytes).is_ok());
        if !(is_full && is_whole) {
            self.file = None;
        }
        let reason = if is_full { DropReason::SpoolFull } else { DropReason::SpoolIo };
        self.paused = Some((Instant::now() + PAUSE, reason));
        self.failures += 1;
        self.last_error = Some(error.to_string());
        if self.failures.is_power_of_two() {
            let (path, failures) = (&self.config.path, self.failures);
            log::error!(target: "kastor", "cannot write the capture {path:?} ({failures} times so far): {error}");
        }
        reason
    }
}

impl OpenFile {
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.file.write_at(self.bytes, parts)?;
        self.bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.sequence += 1;
        (self.is_unindexed, self.is_unsynced) = (true, true);
        Ok(())
    }
}

impl Drop for Writer {
    /// Leaves the file with its index. A process that only inherited it leaves it alone.
    fn drop(&mut self) {
        if self.process.is_some_and(|process| process.id == std::process::id()) {
            // Without the index a reader takes longer, that is all.
            let _ = self.close();
        }
    }
}

/// Whether compression was possible and worth it.
fn compress(
    compressor: &mut Option<zstd::bulk::Compressor<'static>>,
    level: i32,
    from: &[u8],
    to: &mut Vec<u8>,
) -> bool {
    if compressor.is_none() {
        *compressor = zstd::bulk::Compressor::new(level).ok();
    }
    to.clear();
    to.reserve(from.len());
    // What does not get smaller does not fit.
    let is_smaller = compressor.as_mut().is_some_and(|compressor| compressor.compress_to_buffer(from, to).is_ok());
    let least = from.len().div_ceil(MAX_EXPANSION as usize);
    if is_smaller && to.len() < least {
        // A frame that decompression skips, so that no reader has to tell this from an attack.
        let filling = least.saturating_sub(to.len() + 8);
        to.extend_from_slice(&SKIPPABLE);
        to.extend_from_slice(&(filling as u32).to_le_bytes());
        to.resize(to.len() + filling, 0);
    }
    is_smaller && to.len() < from.len()
}
