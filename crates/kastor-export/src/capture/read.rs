//! Reading a capture: part by part, in memory for one frame and the tables, however large the file is.
//!
//! A capture may be read while it is written: at its end for now, [`Reader::read`] returns none, and finds more when it
//! is asked again later. What is damaged is reported with its place and left behind; everything else is read.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use kastor::Error;

use super::{
    aggregates::Aggregates,
    format::{
        BLOCK_HEADER_BYTES, BlockHeader, COMPRESSED, INDEX_ENTRY_BYTES, IndexEntry, MAX_EXPANSION, MAX_PAYLOAD_BYTES,
        PACKED, Session, Thread, UNKNOWN_INDEX, VERSION, WrongSession, kind,
    },
    pack::unpack,
    record::Block,
    tables::Tables,
};
use crate::frame::{FrameHeader, Frames, HEADER_BYTES, Step, u64_at};

/// Reads a capture.
pub struct Reader<R> {
    frames: Frames<R>,
    tables: Tables,
    /// What was known of the session before.
    previous_tables: Tables,
    session: Option<Session>,
    unpacked: Unpacked,
    torn_bytes: u64,
}

/// What a capture consists of.
pub enum Part<'a> {
    /// A process begins to write, or goes on in this file. What the tables knew before is forgotten.
    Session(&'a Session),
    /// Records of one thread.
    Block(Block<'a>),
    /// Sums, or a part of them.
    Aggregates(Aggregates<'a>),
    /// Bytes that cannot be read.
    Damage(Damage),
}

/// A place that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at offset {}: {}", self.bytes, self.offset, self.what)
    }
}

impl Reader<File> {
    /// Opens a capture.
    ///
    /// # Errors
    /// If the file cannot be opened, or is no capture.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let failed = |error: io::Error| Error::permanent(format!("cannot read capture {}: {error}", path.display()));
        let mut file = File::open(path).map_err(failed)?;
        if !looks_like_capture(&mut file).map_err(failed)? {
            return Err(Error::invalid_input(format!("{} is no capture of kastor", path.display())));
        }
        Ok(Self::new(file))
    }
}

/// Whether a file begins with a frame, or with a damaged one that another follows; an empty file may become one.
fn looks_like_capture(file: &mut File) -> io::Result<bool> {
    let mut frames = Frames::new(&mut *file, 0, MAX_PAYLOAD_BYTES);
    let found = match frames.next()? {
        Step::Damaged { header: None, .. } => matches!(frames.next()?, Step::Frame { .. }),
        Step::End { torn_bytes } => torn_bytes == 0 || torn_bytes >= HEADER_BYTES as u64,
        _ => true,
    };
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
}

impl<R: Read> Reader<R> {
    /// Reads a capture from its beginning.
    pub fn new(input: R) -> Self {
        let frames = Frames::new(input, 0, MAX_PAYLOAD_BYTES);
        Self {
            frames,
            tables: Tables::default(),
            previous_tables: Tables::default(),
            session: None,
            unpacked: Unpacked::default(),
            torn_bytes: 0,
        }
    }

    /// The next part; none at the end for now.
    ///
    /// # Errors
    /// If the input cannot be read, or was written by a version of kastor that this one does not know
    /// ([`Error::is_invalid_input`]).
    pub fn read(&mut self) -> Result<Option<Part<'_>>, Error> {
        loop {
            let (found, offset, bytes) = self.step()?;
            let damage = |what| Ok(Some(Part::Damage(Damage { offset, bytes, what })));
            return match found {
                Found::End => Ok(None),
                Found::Tables => continue,
                Found::Damage(what) => damage(what),
                Found::Session => Ok(self.session.as_ref().map(Part::Session)),
                Found::Aggregates => Ok(Some(Part::Aggregates(Aggregates::new(&self.unpacked.content, &self.tables)))),
                Found::Block(header) => match Block::new(header, &self.unpacked.content, &self.tables, offset) {
                    Some(block) => Ok(Some(Part::Block(block))),
                    None => damage("a block whose parts are not as long as it says"),
                },
            };
        }
    }

    /// What the numbers read so far stand for.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What they stood for before the newest session began: whoever adds up by number needs them when it is told of that.
    pub fn previous_tables(&self) -> &Tables {
        &self.previous_tables
    }

    /// The process whose part is being read; none before the first one.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// How far was read.
    pub fn offset(&self) -> u64 {
        self.frames.offset()
    }

    /// At the end: bytes there that are no whole frame. The writer was killed while it wrote, or is writing.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Reads one frame: what it is, where, and how long. The payload of what is not taken up here is in `unpacked`.
    fn step(&mut self) -> Result<(Found, u64, u64), Error> {
        let step = self.frames.next().map_err(|error| Error::permanent(format!("cannot read capture: {error}")))?;
        let (offset, header, payload) = match step {
            Step::End { torn_bytes } => {
                self.torn_bytes = torn_bytes;
                return Ok((Found::End, 0, 0));
            }
            Step::Damaged { offset, bytes, header } => {
                let what = if header.is_some() { "checksum of the content is wrong" } else { "no frame begins here" };
                return Ok((Found::Damage(what), offset, bytes));
            }
            Step::Frame { offset, header, payload } => (offset, header, payload),
        };
        let bytes = header.frame_bytes();
        if let Err(what) = self.unpacked.take(&header, payload) {
            return Ok((Found::Damage(what), offset, bytes));
        }
        let payload = self.unpacked.content.as_slice();
        let found = match Content::decode(header.kind, payload) {
            Ok(Content::Session(session)) => {
                self.previous_tables = std::mem::take(&mut self.tables);
                self.session = Some(session);
                Found::Session
            }
            Ok(Content::Names) => {
                self.tables.add_names(payload);
                Found::Tables
            }
            Ok(Content::Paths) => {
                self.tables.add_paths(payload);
                Found::Tables
            }
            Ok(Content::Thread(thread)) => {
                self.tables.add_thread(thread);
                Found::Tables
            }
            Ok(Content::Block(header)) => {
                self.tables.advance(&header);
                Found::Block(header)
            }
            Ok(Content::Aggregates) => Found::Aggregates,
            Ok(Content::Other) => Found::Tables,
            Err(Wrong::Damage(what)) => Found::Damage(what),
            Err(Wrong::Version(version, layout)) => return Err(wrong_version(version, layout)),
        };
        Ok((found, offset, bytes))
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Goes to the frame of an index entry: the next [`read`](Self::read) returns it. The tables have to be loaded, by
    /// [`load_tables`](Self::load_tables).
    ///
    /// # Errors
    /// If the input cannot be read there.
    pub fn go_to(&mut self, entry: &IndexEntry) -> Result<(), Error> {
        let input = self.frames.restart_at(entry.offset);
        input
            .seek(SeekFrom::Start(entry.offset))
            .map_err(|error| Error::permanent(format!("cannot read capture at offset {}: {error}", entry.offset)))?;
        Ok(())
    }

    /// Takes over what another reader of this file learned, so that blocks can be read in any order.
    pub fn set_tables(&mut self, tables: Tables) {
        self.tables = tables;
    }

    /// Reads everything that blocks refer to, so that they can be read in any order. Meant for a file of one process:
    /// of several sessions in a file, the last one's tables stay.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn load_tables(&mut self, index: &[IndexEntry]) -> Result<(), Error> {
        for entry in index.iter().filter(|entry| !matches!(entry.kind, kind::BLOCK | kind::AGGREGATES)) {
            self.go_to(entry)?;
            self.step()?;
        }
        Ok(())
    }

    /// Where everything is: from the index at the end of the file if it was closed in order or flushed, else by reading
    /// all of it once.
    ///
    /// # Errors
    /// If the input cannot be read.
    pub fn index(&mut self) -> Result<Vec<IndexEntry>, Error> {
        let failed = |error: io::Error| Error::permanent(format!("cannot read the index of the capture: {error}"));
        let input = self.frames.restart_at(0);
        let end = input.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut entries = match stored_index(input, end).map_err(failed)? {
            Some(entries) => entries,
            None => scanned_index(input).map_err(failed)?,
        };
        entries.sort_unstable_by_key(|entry| entry.offset);
        self.frames.restart_at(0).seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(entries)
    }
}

enum Found {
    End,
    /// Taken up already.
    Tables,
    Damage(&'static str),
    Session,
    Block(BlockHeader),
    Aggregates,
}

/// What a frame holds, as far as it can be wrong in itself.
pub(super) enum Content {
    Session(Session),
    Names,
    Paths,
    Thread(Thread),
    Block(BlockHeader),
    Aggregates,
    /// Index and end, and what a later version may add without changing the rest.
    Other,
}

/// Why a frame holds nothing that can be read.
pub(super) enum Wrong {
    Damage(&'static str),
    /// Versions of the file and of its records.
    Version(u32, u32),
}

impl Content {
    pub(super) fn decode(kind: u8, content: &[u8]) -> Result<Self, Wrong> {
        Ok(match kind {
            kind::SESSION => Self::Session(Session::decode(content).map_err(|wrong| match wrong {
                WrongSession::NoSession => Wrong::Damage("a session without its signature"),
                WrongSession::Version(version, layout) => Wrong::Version(version, layout),
            })?),
            kind::NAMES => Self::Names,
            kind::PATHS => Self::Paths,
            kind::THREAD => Self::Thread(Thread::decode(content).ok_or(Wrong::Damage("a thread that is cut short"))?),
            kind::BLOCK => {
                let header = BlockHeader::decode(content).ok_or(Wrong::Damage("a block that is cut short"))?;
                if !header.fits(content.len()) {
                    return Err(Wrong::Damage("a block whose parts are not as long as it says"));
                }
                Self::Block(header)
            }
            kind::AGGREGATES => Self::Aggregates,
            _ => Self::Other,
        })
    }
}

impl BlockHeader {
    /// Whether header, records and flows are as many bytes as the payload, and no record is smaller than records are.
    fn fits(&self, payload_bytes: usize) -> bool {
        let (records, flows) = (self.record_bytes as usize, self.flow_bytes as usize);
        BLOCK_HEADER_BYTES + records + flows == payload_bytes && self.records as usize <= records / 32
    }
}

/// Payloads as they were before they were compressed or packed, one at a time.
#[derive(Default)]
pub(super) struct Unpacked {
    pub(super) content: Vec<u8>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl Unpacked {
    /// Takes the payload of a frame, or says what is wrong with it.
    pub(super) fn take(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), &'static str> {
        self.content.clear();
        match (header.flags, header.kind) {
            (0, _) => {
                self.content.extend_from_slice(payload);
                Ok(())
            }
            (COMPRESSED, _) => self.decompress(header, payload),
            (PACKED, kind::BLOCK) => self.unpack(payload),
            _ => Err("content in a form that is not known"),
        }
    }

    /// A block whose records are packed.
    fn unpack(&mut self, payload: &[u8]) -> Result<(), &'static str> {
        let (header, packed) = payload.split_at_checked(BLOCK_HEADER_BYTES).ok_or("a block that is cut short")?;
        let BlockHeader { record_bytes, flow_bytes, .. } =
            BlockHeader::decode(header).ok_or("a block that is cut short")?;
        let bytes = u64::from(record_bytes) + u64::from(flow_bytes) + BLOCK_HEADER_BYTES as u64;
        if bytes > u64::from(MAX_PAYLOAD_BYTES) {
            return Err("packed records that would be too large");
        }
        let packed_bytes = packed.len().checked_sub(flow_bytes as usize);
        let parts = packed_bytes.and_then(|bytes| packed.split_at_checked(bytes));
        let (packed, flows) = parts.ok_or("a block whose parts are not as long as it says")?;
        self.content.extend_from_slice(header);
        unpack(packed, record_bytes as usize, &mut self.content)?;
        self.content.extend_from_slice(flows);
        Ok(())
    }

    fn decompress(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), &'static str> {
        if header.detail > MAX_PAYLOAD_BYTES.min(header.length.saturating_mul(MAX_EXPANSION)) {
            return Err("compressed content that would be too large");
        }
        // The capacity is what bounds it.
        self.content.reserve_exact(header.detail as usize);
        if self.decompressor.is_none() {
            self.decompressor = zstd::bulk::Decompressor::new().ok();
        }
        let Some(decompressor) = &mut self.decompressor else { return Err("no memory to decompress it") };
        match decompressor.decompress_to_buffer(payload, &mut self.content) {
            Ok(bytes) if bytes == header.detail as usize => Ok(()),
            _ => Err("compressed content that cannot be decompressed"),
        }
    }
}

pub(super) fn wrong_version(version: u32, layout: u32) -> Error {
    Error::invalid_input(format!(
        "the capture has format {version} with records of layout {layout}, and this reader knows formats up to \
         {VERSION} with layout 1: read it with the version of kastor that wrote it, or a newer one"
    ))
}

/// The index as the file has it, if it has all of it.
fn stored_index<R: Read + Seek>(input: &mut R, end: u64) -> io::Result<Option<Vec<IndexEntry>>> {
    let mut read_payload = |offset: u64, expected: u8| -> io::Result<Option<Vec<u8>>> {
        input.seek(SeekFrom::Start(offset))?;
        match Frames::new(&mut *input, offset, MAX_PAYLOAD_BYTES).next()? {
            Step::Frame { header, payload, .. } if header.kind == expected && header.flags == 0 => {
                Ok(Some(payload.to_vec()))
            }
            _ => Ok(None),
        }
    };
    let Some(trailer) = end.checked_sub(HEADER_BYTES as u64 + 8) else { return Ok(None) };
    let Some(trailer) = read_payload(trailer, kind::END)? else { return Ok(None) };
    let (mut entries, mut at) = (Vec::new(), u64_at(&trailer, 0));
    let mut before = end;
    while at != 0 {
        // Each index lies before the one that names it: a circle would never end.
        if at == UNKNOWN_INDEX || at >= before {
            return Ok(None);
        }
        let Some(payload) = read_payload(at, kind::INDEX)? else { return Ok(None) };
        let listed = payload.get(8..).unwrap_or(&[]).chunks_exact(INDEX_ENTRY_BYTES);
        entries.extend(listed.filter_map(|entry| Some(IndexEntry::decode(entry.first_chunk()?))));
        if entries.len() * INDEX_ENTRY_BYTES > end as usize {
            // More than there is room for: some index was read twice, inside another.
            return Ok(None);
        }
        (before, at) = (at, u64_at(&payload, 0));
    }
    Ok(Some(entries))
}

/// The index as it can be made from the frames.
fn scanned_index<R: Read + Seek>(input: &mut R) -> io::Result<Vec<IndexEntry>> {
    input.seek(SeekFrom::Start(0))?;
    let mut frames = Frames::new(input, 0, MAX_PAYLOAD_BYTES);
    let (mut entries, mut unpacked) = (Vec::new(), Unpacked::default());
    loop {
        match frames.next()? {
            Step::End { .. } => return Ok(entries),
            Step::Frame { offset, header, payload } => {
                if matches!(header.kind, kind::INDEX | kind::END) || unpacked.take(&header, payload).is_err() {
                    continue;
                }
                let block = BlockHeader::decode(&unpacked.content).filter(|_| header.kind == kind::BLOCK);
                entries.push(
                    block.map_or(IndexEntry { offset, kind: header.kind, ..IndexEntry::default() }, |block| {
                        block.index_entry(offset)
                    }),
                );
            }
            Step::Damaged { .. } => {}
        }
    }
}

impl BlockHeader {
    pub(super) fn index_entry(&self, offset: u64) -> IndexEntry {
        IndexEntry {
            offset,
            kind: kind::BLOCK,
            thread: self.thread,
            records: self.records,
            failures: self.failures,
            first_unix_ns: self.line.unix_ns(self.first_tick),
            last_unix_ns: self.line.unix_ns(self.last_tick),
            longest_ns: self.line.duration_ns(self.longest_ticks),
        }
    }
}
