//! Frames: what capture files and spool segments are made of.
//!
//! A file is frames, one after another, each complete in itself: where it ends, what it is, and two checksums. The one
//! over the header makes the length trustworthy, so that a damaged payload costs itself alone and reading goes on right
//! behind it. Where a header is damaged, the next one is searched for by its first four bytes. Either way each byte is
//! looked at a bounded number of times, whatever the file holds.
//!
//! ```text
//!  0  magic    9e 4b 46 72
//!  4  length   u32, bytes of the payload
//!  8  sequence u64, what it counts is the file's business
//! 16  kind u8 | flags u8 | 0 u16
//! 20  detail   u32, the kind's own
//! 24  CRC-32C of the payload
//! 28  CRC-32C of the 28 bytes above
//! 32  payload, then zeros up to a whole word of 8 bytes
//! ```

use std::io::{self, Read};

/// First bytes of every frame; the first of them begins no UTF-8 character.
pub(crate) const MAGIC: [u8; 4] = [0x9e, b'K', b'F', b'r'];
/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 32;
/// Bytes that are asked for at once.
const READ_BYTES: usize = 256 << 10;

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) detail: u32,
    pub(crate) payload_crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields: [&[u8]; 8] = [
            &MAGIC,
            &self.length.to_le_bytes(),
            &self.sequence.to_le_bytes(),
            &[self.kind, self.flags],
            &[0; 2],
            &self.detail.to_le_bytes(),
            &self.payload_crc.to_le_bytes(),
            &[0; 4],
        ];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        let (checked, check) = bytes.split_at_mut(HEADER_BYTES - 4);
        check.copy_from_slice(&crc32c::crc32c(checked).to_le_bytes());
        bytes
    }

    /// The header that `bytes` begin with, if its own checksum holds.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        if !bytes.starts_with(&MAGIC) || crc32c::crc32c(bytes.get(..28)?) != u32_at(bytes, 28) {
            return None;
        }
        Some(Self {
            length: u32_at(bytes, 4),
            sequence: u64_at(bytes, 8),
            kind: bytes[16],
            flags: bytes[17],
            detail: u32_at(bytes, 20),
            payload_crc: u32_at(bytes, 24),
        })
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length).next_multiple_of(8)
    }
}

/// The number at `at`; zero where the bytes end before. For bytes that come from outside.
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

/// The number at `at`; zero where the bytes end before.
#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

/// Appends a whole frame.
pub(crate) fn push_frame(to: &mut Vec<u8>, (kind, flags): (u8, u8), sequence: u64, detail: u32, payload: &[u8]) {
    let length = payload.len() as u32;
    let header = FrameHeader { length, sequence, kind, flags, detail, payload_crc: crc32c::crc32c(payload) };
    to.extend_from_slice(&header.encode());
    to.extend_from_slice(payload);
    to.resize(to.len().next_multiple_of(8), 0);
}

/// Zeros that follow a payload of so many bytes.
pub(crate) fn padding(length: usize) -> &'static [u8] {
    const ZEROS: &[u8] = &[0; 8];
    ZEROS.get(..length.next_multiple_of(8) - length).unwrap_or(ZEROS)
}

/// What is next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// A frame as it was written.
    Frame { offset: u64, header: FrameHeader, payload: &'a [u8] },
    /// Bytes that are none: with a header, a frame whose payload is damaged; without, anything up to the next header.
    Damaged { offset: u64, bytes: u64, header: Option<FrameHeader> },
    /// The end, for now: so many bytes follow that are no whole frame yet. More may come while the file is written.
    End { torn_bytes: u64 },
}

/// Reads frames in order, with memory for one.
pub(crate) struct Frames<R> {
    input: R,
    buffer: Vec<u8>,
    /// What of the buffer was read and not yet handed out.
    unread: std::ops::Range<usize>,
    /// Where in the file that begins.
    offset: u64,
    max_payload_bytes: u32,
}

impl<R: Read> Frames<R> {
    /// Reads on from `input`, whose next byte is at `offset`. A frame with a longer payload counts as damaged.
    pub(crate) fn new(input: R, offset: u64, max_payload_bytes: u32) -> Self {
        Self { input, buffer: Vec::new(), unread: 0..0, offset, max_payload_bytes }
    }

    /// Where the next step begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The input, and the place to go on at, after someone moved it.
    pub(crate) fn restart_at(&mut self, offset: u64) -> &mut R {
        (self.unread, self.offset) = (0..0, offset);
        &mut self.input
    }

    /// The next step. After an `End` it may be asked again.
    pub(crate) fn next(&mut self) -> io::Result<Step<'_>> {
        // 1. A whole header, or the end.
        if self.fill(HEADER_BYTES)? < HEADER_BYTES {
            return Ok(Step::End { torn_bytes: self.unread.len() as u64 });
        }
        let offset = self.offset;
        let Some(header) = self.header() else {
            return self.skip_to_header();
        };
        // 2. The whole frame, or the end.
        let whole = header.frame_bytes() as usize;
        if self.fill(whole)? < whole {
            return Ok(Step::End { torn_bytes: self.unread.len() as u64 });
        }
        // 3. Is it what was written?
        let at = self.unread.start + HEADER_BYTES;
        self.take(whole);
        let payload = self.buffer.get(at..at + header.length as usize).unwrap_or(&[]);
        Ok(if crc32c::crc32c(payload) == header.payload_crc {
            Step::Frame { offset, header, payload }
        } else {
            Step::Damaged { offset, bytes: whole as u64, header: Some(header) }
        })
    }

    fn header(&self) -> Option<FrameHeader> {
        let header = FrameHeader::decode(self.buffer.get(self.unread.clone())?)?;
        (header.length <= self.max_payload_bytes).then_some(header)
    }

    /// Goes to the next place where a header stands or might begin.
    #[cold]
    fn skip_to_header(&mut self) -> io::Result<Step<'_>> {
        let offset = self.offset;
        loop {
            self.take(1);
            let rest = self.buffer.get(self.unread.clone()).unwrap_or(&[]);
            let next = rest.windows(MAGIC.len()).position(|bytes| bytes == MAGIC);
            // Its first bytes may stand at the very end.
            self.take(next.unwrap_or(rest.len().saturating_sub(MAGIC.len() - 1)));
            let is_at_end = self.fill(HEADER_BYTES)? < HEADER_BYTES;
            if is_at_end || self.header().is_some() {
                return Ok(Step::Damaged { offset, bytes: self.offset - offset, header: None });
            }
        }
    }

    fn take(&mut self, bytes: usize) {
        let taken = bytes.min(self.unread.len());
        self.unread.start += taken;
        self.offset += taken as u64;
    }

    /// Reads until so many bytes are there or the input ends; returns how many there are.
    fn fill(&mut self, wanted: usize) -> io::Result<usize> {
        if self.unread.len() < wanted {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            if self.buffer.len() < wanted.max(READ_BYTES) {
                self.buffer.resize(wanted.max(READ_BYTES), 0);
            }
        }
        while self.unread.len() < wanted {
            let Some(room) = self.buffer.get_mut(self.unread.end..) else { break };
            match self.input.read(room) {
                Ok(0) => break,
                Ok(read) => self.unread.end += read.min(room.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.unread.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: u32 = 1 << 20;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, payload) in payloads.iter().enumerate() {
            push_frame(&mut bytes, (1, 0), at as u64, 7, payload);
        }
        bytes
    }

    /// Sequences of the frames that can be read, and the bytes of everything else.
    fn read(bytes: &[u8]) -> (Vec<u64>, u64, u64) {
        let mut frames = Frames::new(bytes, 0, MAX);
        let (mut sequences, mut damaged) = (Vec::new(), 0);
        loop {
            let before = frames.offset();
            match frames.next().unwrap() {
                Step::Frame { header, .. } => sequences.push(header.sequence),
                Step::Damaged { offset, bytes, .. } => {
                    assert_eq!(offset, before);
                    assert!(bytes > 0);
                    damaged += bytes;
                }
                Step::End { torn_bytes } => return (sequences, damaged, torn_bytes),
            }
        }
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_damaged_payload_costs_itself_alone() {
        let mut bytes = file(&[b"one", b"two", b"three"]);
        bytes[40 + 33] ^= 1;
        assert_eq!(read(&bytes), (vec![0, 2], 40, 0));
    }

    #[test]
    fn a_damaged_header_costs_its_frame_alone() {
        for at in 0..HEADER_BYTES {
            let mut bytes = file(&[b"one", b"two", b"three"]);
            bytes[40 + at] ^= 0x40;
            assert_eq!(read(&bytes), (vec![0, 2], 40, 0), "byte {at} of the header");
        }
    }

    #[test]
    fn a_header_that_promises_too_much_is_damage() {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, (1, 0), 0, 0, &vec![7; MAX as usize + 1]);
        let (whole, after) = (bytes.len() as u64, file(&[b"x"]));
        bytes.extend_from_slice(&after);
        assert_eq!(read(&bytes), (vec![0], whole, 0));
    }

    #[test]
    fn reading_goes_on_when_more_was_written() {
        struct Growing<'a>(&'a [u8], usize, usize);
        impl Read for Growing<'_> {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                let some = (self.2 - self.1).min(to.len());
                to[..some].copy_from_slice(&self.0[self.1..self.1 + some]);
                self.1 += some;
                Ok(some)
            }
        }
        let bytes = file(&[b"one", &[9; 100], b"three"]);
        let mut frames = Frames::new(Growing(&bytes, 0, 0), 0, MAX);
        let mut read = 0;
        for visible in 0..=bytes.len() {
            frames.input.2 = visible;
            while let Step::Frame { header, .. } = frames.next().unwrap() {
                assert_eq!(header.sequence, read);
                read += 1;
            }
        }
        assert_eq!(read, 3);
    }

    proptest! {
        #[test]
        fn every_byte_is_accounted_for_whatever_it_is(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            junk in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bytes = file(&payloads.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let whole = bytes.len() as u64;
            bytes.extend_from_slice(&junk);
            let total = bytes.len();
            if total > 0 {
                for (at, flip) in &flips {
                    bytes[at.index(total)] ^= flip;
                }
            }
            let (sequences, damaged, torn) = read(&bytes);
            prop_assert!(sequences.is_sorted() || !flips.is_empty());
            prop_assert!(sequences.len() + flips.len() >= payloads.len());
            if flips.is_empty() {
                prop_assert_eq!(damaged + torn, total as u64 - whole);
            }
        }
    }
}
