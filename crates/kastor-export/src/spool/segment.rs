//! A segment: one file with payloads of one set.

use std::{
    collections::{HashSet, VecDeque},
    io,
    path::{Path, PathBuf},
};

use super::{EntryId, set::SetName};
use crate::{
    frame::{FrameHeader, Frames, HEADER_BYTES, Step, padding},
    fs::{Fs, FsFile, ReadAt},
};

/// The only kind of frame in a segment.
const PAYLOAD: u8 = 16;
/// Bytes of one payload.
pub(super) const MAX_PAYLOAD_BYTES: u32 = 64 << 20;
/// Bytes of the state word behind a frame.
const STATE_BYTES: u64 = 8;
/// The state of a payload that was delivered: no single damaged bit makes it of zero.
const ACKNOWLEDGED: [u8; 8] = [0xac, 0x6b, 0x65, 0x64, 0xac, 0x6b, 0x65, 0x64];

/// Bytes that a payload takes on disk.
pub(super) fn entry_bytes(payload_bytes: usize) -> u64 {
    HEADER_BYTES as u64 + (payload_bytes as u64).next_multiple_of(8) + STATE_BYTES
}

/// Where a payload that waits is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) id: EntryId,
    pub(super) sequence: u64,
    pub(super) events: u32,
    crc: u32,
    offset: u64,
    length: u32,
}

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) set: SetName,
    /// Its number in the set.
    pub(super) number: u64,
    path: PathBuf,
    file: Box<dyn FsFile>,
    /// The oldest first.
    pub(super) waiting: VecDeque<Place>,
    /// Up to where it holds whole entries.
    pub(super) bytes: u64,
    /// Whether there is something that is not durable.
    pub(super) is_unsynced: bool,
    /// Whether it may be written no more: a sync failed, or its end is in doubt.
    pub(super) is_sealed: bool,
    /// Whether a sync failed, or the file is gone from its place.
    pub(super) is_lost: bool,
    is_listed: bool,
}

/// What is known of a set while its segments are read, one after another.
#[derive(Default)]
pub(super) struct Reading {
    /// The sequence of the next payload, once there was one.
    expected: Option<u64>,
    /// Events that are damaged or missing.
    pub(super) corrupt_events: u64,
    /// Payloads that were delivered, or were seen already: where a segment was written anew and the old one could not
    /// be removed, there are two of each.
    known: HashSet<(u64, u32, u32)>,
}

impl Reading {
    /// Counts events as lost. Sequences may say anything, so the sum is as large as can be at most.
    fn lose(&mut self, events: u64) {
        self.corrupt_events = self.corrupt_events.saturating_add(events);
    }

    /// Of the payloads that wait in a segment, keeps those that wait nowhere else and were not delivered elsewhere.
    pub(super) fn keep_once(&mut self, segment: &mut Segment) {
        segment.waiting.retain(|place| self.known.insert((place.sequence, place.events, place.crc)));
    }
}

impl Segment {
    /// Makes a new one.
    pub(super) fn create(fs: &dyn Fs, folder: &Path, set: SetName, number: u64) -> io::Result<Self> {
        let path = folder.join(set.segment(number));
        let file = fs.create(&path)?;
        Ok(Self::new((set, number), path, file))
    }

    fn new((set, number): (SetName, u64), path: PathBuf, file: Box<dyn FsFile>) -> Self {
        Self {
            set,
            number,
            path,
            file,
            waiting: VecDeque::new(),
            bytes: 0,
            is_unsynced: false,
            is_sealed: false,
            is_lost: false,
            is_listed: false,
        }
    }

    /// Opens one that is there and sees what waits in it.
    pub(super) fn open(
        fs: &dyn Fs,
        folder: &Path,
        (set, number): (SetName, u64),
        reading: &mut Reading,
        mut new_id: impl FnMut() -> EntryId,
    ) -> io::Result<Self> {
        let path = folder.join(set.segment(number));
        let file = fs.open(&path)?;
        let mut waiting = VecDeque::new();
        let mut frames = Frames::new(ReadAt::new(&*file, 0), 0, MAX_PAYLOAD_BYTES);
        loop {
            let (offset, header, is_whole) = match frames.next()? {
                Step::End { .. } => break,
                // State words, or something that was lost: the next sequence tells.
                Step::Damaged { header: None, .. } => continue,
                Step::Damaged { offset, header: Some(header), .. } => (offset, header, false),
                Step::Frame { offset, header, .. } => (offset, header, true),
            };
            if header.kind != PAYLOAD {
                continue;
            }
            let mut state = [0; STATE_BYTES as usize];
            file.read_at(offset + header.frame_bytes(), &mut state)?;
            let events = u64::from(header.detail);
            let expected = reading.expected.unwrap_or(header.sequence);
            reading.lose(header.sequence.saturating_sub(expected));
            // A segment that was written anew stands behind younger ones.
            reading.expected = Some(expected.max(header.sequence.saturating_add(events)));
            let (sequence, events, crc) = (header.sequence, header.detail, header.payload_crc);
            match (state == ACKNOWLEDGED, is_whole) {
                (true, _) => {
                    reading.known.insert((sequence, events, crc));
                }
                (false, false) => reading.lose(u64::from(events)),
                (false, true) => {
                    waiting.push_back(Place { id: new_id(), sequence, events, crc, offset, length: header.length });
                }
            }
        }
        drop(frames);
        let bytes = file.bytes()?;
        // Nobody knows what its process had synced.
        let new = Self::new((set, number), path, file);
        Ok(Self { bytes, waiting, is_unsynced: true, is_sealed: true, ..new })
    }

    /// Events that wait.
    pub(super) fn waiting_events(&self) -> u64 {
        self.waiting.iter().map(|place| u64::from(place.events)).sum()
    }

    /// Writes a payload at the end. If that fails, what of it was written is cut off again, or nothing follows it.
    pub(super) fn append(&mut self, id: EntryId, sequence: u64, events: u32, payload: &[u8]) -> io::Result<()> {
        let header = FrameHeader {
            length: payload.len() as u32,
            sequence,
            kind: PAYLOAD,
            flags: 0,
            detail: events,
            payload_crc: crc32c::crc32c(payload),
        };
        let parts: [&[u8]; 4] = [&header.encode(), payload, padding(payload.len()), &[0; STATE_BYTES as usize]];
        if let Err(error) = self.file.write_at(self.bytes, &parts) {
            self.is_sealed = self.file.truncate(self.bytes).is_err();
            return Err(error);
        }
        self.waiting.push_back(Place {
            id,
            sequence,
            events,
            crc: header.payload_crc,
            offset: self.bytes,
            length: header.length,
        });
        self.bytes += entry_bytes(payload.len());
        self.is_unsynced = true;
        Ok(())
    }

    /// The payload, if it is what was written.
    pub(super) fn read(&self, place: &Place) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; HEADER_BYTES + place.length as usize];
        let read = self.file.read_at(place.offset, &mut bytes)?;
        let header = FrameHeader::decode(&bytes).filter(|header| header.length == place.length && read == bytes.len());
        let payload = bytes.split_off(HEADER_BYTES.min(bytes.len()));
        match header {
            Some(header) if header.payload_crc == crc32c::crc32c(&payload) => Ok(payload),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Forgets a payload, and has the disk know; durable when this returns well. None if it is not here.
    pub(super) fn acknowledge(&mut self, id: EntryId) -> Option<io::Result<()>> {
        let at = self.waiting.iter().position(|place| place.id == id)?;
        let place = self.waiting.remove(at)?;
        if self.is_lost {
            return Some(Err(io::Error::other("its segment may be written no more")));
        }
        let state = place.offset + HEADER_BYTES as u64 + u64::from(place.length).next_multiple_of(8);
        let written = self.file.write_at(state, &[&ACKNOWLEDGED]).and_then(|()| self.file.sync());
        if written.is_err() {
            // A failed sync may have cost what was appended before, too.
            (self.is_sealed, self.is_lost) = (true, true);
        }
        Some(written)
    }

    /// Makes durable what it holds, and that it is there.
    pub(super) fn sync(&mut self, fs: &dyn Fs) -> io::Result<()> {
        let synced = self.file.sync().and_then(|()| match self.path.parent() {
            Some(folder) if !self.is_listed => fs.sync_folder(folder),
            _ => Ok(()),
        });
        match synced {
            Ok(()) => (self.is_unsynced, self.is_listed) = (false, true),
            Err(_) => (self.is_sealed, self.is_lost) = (true, true),
        }
        synced
    }

    /// Sees whether somebody removed it.
    pub(super) fn look(&mut self) {
        if self.file.is_at(&self.path).is_ok_and(|is_there| !is_there) {
            (self.is_sealed, self.is_lost) = (true, true);
        }
    }

    /// Removes the file; whether it is gone.
    pub(super) fn remove(&self, fs: &dyn Fs) -> bool {
        remove(fs, &self.path)
    }
}

pub(super) fn remove(fs: &dyn Fs, path: &Path) -> bool {
    match fs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!(target: "kastor", "cannot remove {path:?}: {error}");
            false
        }
        _ => true,
    }
}
