//! What the fuzz targets run, and the tests that stand in for them: each takes any bytes, looks at all that can be seen
//! in them, and panics if something does not hold. No part of the interface: it changes without notice.

mod records;
mod redaction;
mod replay;
mod trace_context;

use std::{collections::HashSet, io, path::Path};

pub use self::{
    records::records,
    redaction::redaction,
    replay::{repair, replay},
    trace_context::trace_context,
};

use crate::{
    capture::{Aggregate, Attribute, Block, Part, Reader, Record, StoredValue},
    frame::{FrameHeader, Frames, HEADER_BYTES, MAGIC, Step, u32_at, u64_at},
    fs::{Fs, FsFile},
    spool::scan_segment,
};

/// Any bytes as frames: each byte is in one frame, one damaged place, or the torn end.
pub fn frames(bytes: &[u8]) {
    let mut frames = Frames::new(bytes, 0, 1 << 20);
    let mut at = 0;
    loop {
        match frames.next() {
            Ok(Step::Frame { offset, header, payload }) => {
                assert_eq!((offset, payload.len()), (at, header.length as usize));
                at += header.frame_bytes();
            }
            Ok(Step::Damaged { offset, bytes, .. }) => {
                assert!(offset == at && bytes > 0, "{bytes} bytes of damage at {offset}, expected at {at}");
                at += bytes;
            }
            Ok(Step::End { torn_bytes }) => {
                assert_eq!(at + torn_bytes, bytes.len() as u64);
                return;
            }
            Err(error) => {
                assert_eq!(error.to_string(), "", "memory does not fail");
                return;
            }
        }
    }
}

/// Any bytes as a capture. Returns how many records were read.
pub fn capture(bytes: &[u8]) -> u64 {
    let mut reader = Reader::new(bytes);
    let (mut records, mut paths) = (0, HashSet::new());
    loop {
        match reader.read() {
            Ok(None) => break,
            Ok(Some(Part::Block(block))) => records += look_at(&block, &mut paths),
            Ok(Some(Part::Aggregates(aggregates))) => {
                for entry in aggregates.entries() {
                    match entry {
                        Aggregate::Scope(sums) => assert!(sums.durations_ns.positive().len() <= bytes.len() * 2),
                        Aggregate::Series(sums) => sums.labels().for_each(|label| look(&label)),
                    }
                }
            }
            Ok(Some(Part::Session(_))) => paths.clear(),
            Ok(Some(Part::Damage(damage))) => assert!(damage.offset + damage.bytes <= bytes.len() as u64),
            // Of a version that is not known.
            Err(error) => {
                assert!(error.is_invalid_input());
                return records;
            }
        }
    }
    // No record is smaller than 32 bytes, and content expands at most 16 times.
    assert!(records <= bytes.len() as u64 / 2 + 1, "{records} records in {} bytes", bytes.len());
    assert_eq!(reader.offset() + reader.torn_bytes(), bytes.len() as u64);
    let mut indexed = Reader::new(io::Cursor::new(bytes));
    if let Ok(index) = indexed.index() {
        assert!(index.len() <= bytes.len());
        for entry in index.iter().take(64) {
            let _ = indexed.go_to(entry);
            let _ = indexed.read();
        }
    }
    records
}

fn look_at(block: &Block<'_>, paths: &mut HashSet<u32>) -> u64 {
    let mut records = 0;
    for record in block.records() {
        records += 1;
        let path = match record {
            Record::Timing(timing) => {
                timing.attributes().for_each(|attribute| look(&attribute));
                for event in timing.events() {
                    event.attributes().for_each(|attribute| look(&attribute));
                    assert!(event.name().len() <= 1024);
                }
                let _ = (timing.links().count(), timing.error_type(), timing.dropped_items(), timing.depth());
                let _ = (timing.start_unix_ns(), timing.duration_ns(), timing.start_monotonic_ns());
                assert!(timing.span_id() != 0 || timing.trace_id() != 1);
                assert!(timing.parent_span_id() != Some(0));
                timing.path_id()
            }
            Record::Metric(metric) => {
                metric.attributes().for_each(|attribute| look(&attribute));
                let _ = (metric.value(), metric.unix_ns(), metric.depth(), metric.trace_id(), metric.parent_span_id());
                metric.path_id()
            }
        };
        if paths.len() < 256 && paths.insert(path) {
            assert!(block.tables().path_text(path).len() <= 64 << 10);
        }
    }
    let _ = (block.first_unix_ns(), block.last_unix_ns(), block.longest_ns(), block.failures());
    records
}

fn look(attribute: &Attribute<'_>) {
    if let StoredValue::Str(text) = attribute.value {
        assert!(text.len() <= 1 << 20);
    }
}

/// Any bytes as a segment of the spool: what waits fits into them, and can be read.
pub fn spool(bytes: &[u8]) {
    let found = scan_segment(&Bytes(bytes.to_vec()));
    // State words are not counted: a damaged one may be the beginning of the next payload's frame.
    let fits = |(payloads, payload_bytes)| payloads as usize * 32 + payload_bytes <= bytes.len();
    assert!(found.as_ref().is_ok_and(|found| fits(*found)), "{found:?} in {} bytes", bytes.len());
}

/// Any bytes as the head of a request to the Prometheus endpoint.
pub fn prometheus_request(bytes: &[u8]) {
    crate::prometheus::fuzz(bytes);
}

/// Any text as an `Accept` header.
pub fn prometheus_accept(text: &str) {
    let _ = crate::PrometheusFormat::negotiate(text);
}

/// Any bytes as what a collector answers, in every form, and as a request that comes back from disk to be sent as JSON.
#[cfg(feature = "otlp")]
pub fn otlp(bytes: &[u8]) {
    crate::otlp::fuzz_answers(bytes);
}

/// Any bytes as what a collector sends over HTTP, its head included.
#[cfg(feature = "otlp")]
pub fn http(bytes: &[u8]) {
    crate::otlp::fuzz_http(bytes);
}

/// Any text as environment variables, `NAME=value` a line; and as a certificate.
#[cfg(feature = "otlp")]
pub fn environment(text: &str) {
    crate::otlp::fuzz_environment(text);
}

/// The same bytes with the checksums right of all that looks like a frame, as an enemy would have them.
pub fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        let payload = at + HEADER_BYTES..at + HEADER_BYTES + u32_at(header, 4) as usize;
        if !header.starts_with(&MAGIC) || payload.end > bytes.len() {
            at += 8;
            continue;
        }
        let frame = FrameHeader {
            length: u32_at(header, 4),
            sequence: u64_at(header, 8),
            kind: header.get(16).copied().unwrap_or(0),
            flags: header.get(17).copied().unwrap_or(0),
            detail: u32_at(header, 20),
            payload_crc: crc32c::crc32c(bytes.get(payload.clone()).unwrap_or(&[])),
        };
        if let Some(header) = bytes.get_mut(at..at + HEADER_BYTES) {
            header.copy_from_slice(&frame.encode());
        }
        at = payload.end.next_multiple_of(8);
    }
    bytes
}

/// A disk with one file on it.
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>);

impl Fs for Bytes {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.open(path)
    }

    fn open(&self, _: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(self.clone()))
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl FsFile for Bytes {
    fn write_at(&self, _: u64, _: &[&[u8]]) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or(&[]);
        let read = to.iter_mut().zip(from).map(|(to, from)| *to = *from).count();
        Ok(read)
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn is_at(&self, _: &Path) -> io::Result<bool> {
        Ok(true)
    }
}
