//! What the payloads of a capture's frames hold. `docs/format.md` has the same as tables.
//!
//! | kind | frame | holds |
//! |---:|---|---|
//! | 1 | SESSION | the format's version, the process; what was known before is forgotten |
//! | 2 | NAMES | names and keys by number |
//! | 3 | PATHS | paths by number |
//! | 4 | THREAD | a thread's identity, and how much of it came before |
//! | 5 | BLOCK | a batch: its header, the records as they are, their flows |
//! | 6 | AGGREGATES | a part of a snapshot |
//! | 7 | INDEX | where the frames since the previous index are |
//! | 8 | END | where the newest index is |

use crate::frame::{u32_at, u64_at};

/// Of the file. Version 1 had no packed blocks.
pub(crate) const VERSION: u32 = 2;
/// The oldest that can be read.
const OLDEST_VERSION: u32 = 1;
/// Of the records in it.
pub(crate) const RECORD_LAYOUT: u32 = 1;
/// What a SESSION begins with.
pub(crate) const SIGNATURE: [u8; 8] = *b"kastor c";
/// Payload of a frame, before and after decompression.
pub(crate) const MAX_PAYLOAD_BYTES: u32 = 1 << 20;
/// How many times larger than compressed a payload may be: a reader can rely on it.
pub(crate) const MAX_EXPANSION: u32 = 16;
/// Names, paths and aggregates are divided into frames of about this size.
pub(crate) const TABLE_BYTES: usize = 128 << 10;

/// Kinds of frames.
pub(crate) mod kind {
    pub(crate) const SESSION: u8 = 1;
    pub(crate) const NAMES: u8 = 2;
    pub(crate) const PATHS: u8 = 3;
    pub(crate) const THREAD: u8 = 4;
    pub(crate) const BLOCK: u8 = 5;
    pub(crate) const AGGREGATES: u8 = 6;
    pub(crate) const INDEX: u8 = 7;
    pub(crate) const END: u8 = 8;
}

/// Flag of a frame: the payload is compressed with zstd, `detail` is its length before.
pub(crate) const COMPRESSED: u8 = 1;
/// Flag of a block's frame: the records in it are packed, as `pack.rs` has it; their length is in the block's header.
pub(crate) const PACKED: u8 = 2;

/// Payload of SESSION.
///
/// ```text
///  0  signature "kastor c"
///  8  version u32 | record layout u32
/// 16  instance id, 16 bytes
/// 32  process u32 | number of this file among the process's, from 1, u32
/// 40  when it began, Unix ns u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The operating system's number of the process.
    pub process_id: u32,
    /// Random, different for every run and every forked child.
    pub instance_id: u128,
    /// Number of this file among those of the process, from 1.
    pub file_number: u32,
    /// When it was begun: nanoseconds since 1970-01-01 UTC.
    pub unix_ns: u64,
}

impl Session {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        put32(&mut bytes, [VERSION, RECORD_LAYOUT]);
        bytes.extend_from_slice(&self.instance_id.to_le_bytes());
        put32(&mut bytes, [self.process_id, self.file_number]);
        put64(&mut bytes, [self.unix_ns]);
        bytes
    }

    /// The session, or what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WrongSession> {
        if !bytes.starts_with(&SIGNATURE) || bytes.len() < 48 {
            return Err(WrongSession::NoSession);
        }
        let (version, layout) = (u32_at(bytes, 8), u32_at(bytes, 12));
        if !(OLDEST_VERSION..=VERSION).contains(&version) || layout != RECORD_LAYOUT {
            return Err(WrongSession::Version(version, layout));
        }
        let instance_id = u128::from(u64_at(bytes, 24)) << 64 | u128::from(u64_at(bytes, 16));
        let (process_id, file_number, unix_ns) = (u32_at(bytes, 32), u32_at(bytes, 36), u64_at(bytes, 40));
        Ok(Self { process_id, instance_id, file_number, unix_ns })
    }
}

/// Why a SESSION frame is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrongSession {
    NoSession,
    /// Versions of the file and of its records.
    Version(u32, u32),
}

/// One entry of NAMES: `number u32 | bytes u32`, text, zeros up to a whole word.
pub(crate) fn push_name(to: &mut Vec<u8>, number: u32, text: &str) {
    put32(to, [number, text.len() as u32]);
    put_text(to, text);
}

/// One entry of PATHS: `number u32 | number of the path above u32 | bytes u32 | 0 u32`, the last name, zeros up to a
/// whole word.
pub(crate) fn push_path(to: &mut Vec<u8>, number: u32, above: u32, name: &str) {
    put32(to, [number, above, name.len() as u32, 0]);
    put_text(to, name);
}

/// The entries of NAMES. Ends where no whole entry is left.
pub(crate) fn names(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &str)> {
    std::iter::from_fn(move || {
        let (number, len) = (u32_at(bytes, 0), u32_at(bytes, 4));
        let text = text(bytes.get(8..)?, len)?;
        bytes = after(bytes, 8, len);
        Some((number, text))
    })
}

/// The entries of PATHS: number, that of the path above (0: none), last name.
pub(crate) fn paths(mut bytes: &[u8]) -> impl Iterator<Item = (u32, u32, &str)> {
    std::iter::from_fn(move || {
        let (number, above, len) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8));
        let name = text(bytes.get(16..)?, len)?;
        bytes = after(bytes, 16, len);
        Some((number, above, name))
    })
}

/// Payload of THREAD.
///
/// ```text
///  0  thread u32 | bytes of the name u32
///  8  the operating system's number u64
/// 16  blocks of this thread so far u64
/// 24  events of this thread so far u64
/// 32  name, zeros up to a whole word
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its number in the process, from 1.
    pub index: u32,
    /// The operating system's number for it; 0 where there is none.
    pub os_id: u64,
    /// Its name; empty if it has none.
    pub name: String,
    pub(crate) blocks_before: u64,
    pub(crate) events_before: u64,
}

impl Thread {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        put32(&mut bytes, [self.index, self.name.len() as u32]);
        put64(&mut bytes, [self.os_id, self.blocks_before, self.events_before]);
        put_text(&mut bytes, &self.name);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let name = text(bytes.get(32..)?, u32_at(bytes, 4))?.to_owned();
        Some(Self {
            index: u32_at(bytes, 0),
            os_id: u64_at(bytes, 8),
            blocks_before: u64_at(bytes, 16),
            events_before: u64_at(bytes, 24),
            name,
        })
    }
}

/// What a BLOCK begins with; see [`encode`](Self::encode). Times are ticks; the line turns them into nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct BlockHeader {
    pub(crate) prefix: u64,
    pub(crate) thread: u32,
    pub(crate) records: u32,
    pub(crate) failures: u32,
    pub(crate) first_tick: u64,
    pub(crate) last_tick: u64,
    pub(crate) longest_ticks: u64,
    pub(crate) line: Line,
    pub(crate) record_bytes: u32,
    pub(crate) flow_bytes: u32,
    /// Blocks and events of this thread up to and with this one.
    pub(crate) blocks: u64,
    pub(crate) events: u64,
}

/// Bytes of a block's header.
pub(crate) const BLOCK_HEADER_BYTES: usize = 104;

impl BlockHeader {
    /// ```text
    ///   0  prefix of the thread's ids u64
    ///   8  thread u32 | records u32
    ///  16  of these, scopes that failed u32 | 0 u32
    ///  24  earliest tick u64
    ///  32  latest tick u64
    ///  40  longest duration in ticks u64
    ///  48  anchor: ticks u64, monotonic ns u64, Unix ns u64
    ///  72  nanoseconds in a tick, double
    ///  80  bytes of the records u32 | bytes of the flows u32
    ///  88  blocks of this thread with this one u64
    ///  96  events of this thread with this block u64
    /// 104  records, then flows
    /// ```
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        put64(to, [self.prefix]);
        put32(to, [self.thread, self.records, self.failures, 0]);
        put64(to, [self.first_tick, self.last_tick, self.longest_ticks]);
        put64(to, [self.line.ticks, self.line.monotonic_ns, self.line.unix_ns, self.line.ns_per_tick.to_bits()]);
        put32(to, [self.record_bytes, self.flow_bytes]);
        put64(to, [self.blocks, self.events]);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..BLOCK_HEADER_BYTES)?;
        Some(Self {
            prefix: u64_at(bytes, 0),
            thread: u32_at(bytes, 8),
            records: u32_at(bytes, 12),
            failures: u32_at(bytes, 16),
            first_tick: u64_at(bytes, 24),
            last_tick: u64_at(bytes, 32),
            longest_ticks: u64_at(bytes, 40),
            line: Line {
                ticks: u64_at(bytes, 48),
                monotonic_ns: u64_at(bytes, 56),
                unix_ns: u64_at(bytes, 64),
                ns_per_tick: f64::from_bits(u64_at(bytes, 72)),
            },
            record_bytes: u32_at(bytes, 80),
            flow_bytes: u32_at(bytes, 84),
            blocks: u64_at(bytes, 88),
            events: u64_at(bytes, 96),
        })
    }
}

/// A moment on three scales, and the length of a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Line {
    pub(crate) ticks: u64,
    pub(crate) monotonic_ns: u64,
    pub(crate) unix_ns: u64,
    pub(crate) ns_per_tick: f64,
}

impl Line {
    #[inline]
    pub(crate) fn duration_ns(&self, ticks: u64) -> u64 {
        if self.ns_per_tick == 1.0 { ticks } else { (ticks as f64 * self.ns_per_tick).round() as u64 }
    }

    pub(crate) fn monotonic_ns(&self, tick: u64) -> u64 {
        self.shift(self.monotonic_ns, tick)
    }

    pub(crate) fn unix_ns(&self, tick: u64) -> u64 {
        self.shift(self.unix_ns, tick)
    }

    fn shift(&self, origin: u64, tick: u64) -> u64 {
        match tick.checked_sub(self.ticks) {
            Some(later) => origin.saturating_add(self.duration_ns(later)),
            None => origin.saturating_sub(self.duration_ns(self.ticks - tick)),
        }
    }
}

/// Where a frame is and what it is about, as an INDEX lists it.
///
/// ```text
///  0  offset of the frame u64
///  8  kind u8 | 0 | thread u32 at 12
/// 16  records u32 | of these, scopes that failed u32
/// 24  earliest moment, Unix ns u64
/// 32  latest moment, Unix ns u64
/// 40  longest duration, ns u64
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where in the file the frame begins.
    pub offset: u64,
    pub(crate) kind: u8,
    /// The thread, of a block.
    pub thread: u32,
    /// Number of records, of a block.
    pub records: u32,
    /// Of these, scopes that failed.
    pub failures: u32,
    /// The earliest moment in it: nanoseconds since 1970-01-01 UTC.
    pub first_unix_ns: u64,
    /// The latest.
    pub last_unix_ns: u64,
    /// The longest duration in it.
    pub longest_ns: u64,
}

/// Bytes of an entry of an INDEX; its payload is the offset of the index before (0: none, all ones: unknown), then
/// entries.
pub(crate) const INDEX_ENTRY_BYTES: usize = 48;
/// Entries of one INDEX frame, but the last.
pub(crate) const INDEX_ENTRIES: usize = 1024;
/// The index before this one is unknown.
pub(crate) const UNKNOWN_INDEX: u64 = u64::MAX;

/// Payload of an INDEX.
pub(crate) fn index_payload(previous: u64, entries: &[IndexEntry]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8 + entries.len() * INDEX_ENTRY_BYTES);
    put64(&mut payload, [previous]);
    entries.iter().for_each(|entry| entry.encode(&mut payload));
    payload
}

impl IndexEntry {
    /// Whether it is a block of records; else it is something that blocks refer to, or aggregates.
    pub fn is_block(&self) -> bool {
        self.kind == kind::BLOCK
    }

    /// Whether a process begins to write there.
    pub fn is_session(&self) -> bool {
        self.kind == kind::SESSION
    }

    /// Whether it is sums, or a part of them.
    pub fn is_aggregates(&self) -> bool {
        self.kind == kind::AGGREGATES
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        put64(to, [self.offset]);
        put32(to, [u32::from(self.kind), self.thread, self.records, self.failures]);
        put64(to, [self.first_unix_ns, self.last_unix_ns, self.longest_ns]);
    }

    pub(crate) fn decode(bytes: &[u8; INDEX_ENTRY_BYTES]) -> Self {
        Self {
            offset: u64_at(bytes, 0),
            kind: bytes[8],
            thread: u32_at(bytes, 12),
            records: u32_at(bytes, 16),
            failures: u32_at(bytes, 20),
            first_unix_ns: u64_at(bytes, 24),
            last_unix_ns: u64_at(bytes, 32),
            longest_ns: u64_at(bytes, 40),
        }
    }
}

pub(crate) fn put32<const N: usize>(to: &mut Vec<u8>, words: [u32; N]) {
    words.iter().for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
}

pub(crate) fn put64<const N: usize>(to: &mut Vec<u8>, words: [u64; N]) {
    words.iter().for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
}

/// Text, then zeros up to a whole word.
pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(text.as_bytes());
    to.extend_from_slice(crate::frame::padding(text.len()));
}

/// The text that `bytes` begin with; what is not UTF-8 ends it. None where the bytes end before.
pub(crate) fn text(bytes: &[u8], len: u32) -> Option<&str> {
    Some(valid(bytes.get(..len as usize)?))
}

/// As much of it as is UTF-8.
pub(crate) fn valid(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            bytes.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default()
        }
    }
}

fn after(bytes: &[u8], head: usize, text_bytes: u32) -> &[u8] {
    bytes.get(head + (text_bytes as usize).next_multiple_of(8)..).unwrap_or(&[])
}
