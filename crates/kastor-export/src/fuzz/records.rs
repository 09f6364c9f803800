//! Any bytes as the records of a block, in a capture that is well-formed otherwise: both decoders of records see what a
//! fuzzer that had to guess lengths and checksums would hardly ever show them.

use crate::{
    capture::raw::{BlockHeader, PACKED, Session, Thread, kind, push_name, push_path},
    frame::push_frame,
};

const WORD: usize = 8;
const RECORD_WORDS: usize = 4;
const FLOW_BYTES: usize = 32;
/// Names and paths that records may refer to: numbers 4 to 4 + so many.
const NAMES: u32 = 8;

/// The first byte says how many flows come first; the rest are records, whose lengths are made to fit, or as they are
/// packed, after two bytes that say how many words they claim to be.
pub fn records(bytes: &[u8]) {
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let rest = rest.get(..rest.len().min(256 << 10)).unwrap_or(rest);
    let (flows, rest) = rest.split_at((usize::from(first % 4) * FLOW_BYTES).min(rest.len() / FLOW_BYTES * FLOW_BYTES));
    if let (true, Some((words, packed))) = (first & 4 != 0, rest.split_first_chunk::<2>()) {
        let record_bytes = u32::from(u16::from_le_bytes(*words)) * WORD as u32;
        let file = file(PACKED, (packed, record_bytes), flows, record_bytes / (WORD * RECORD_WORDS) as u32);
        super::capture(&file);
        return super::replay(&file);
    }
    let mut words =
        rest.chunks_exact(WORD).flat_map(<[u8; WORD]>::try_from).map(u64::from_le_bytes).collect::<Vec<_>>();
    let count = with_lengths(&mut words);
    let records: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let file = file(0, (&records, records.len() as u32), flows, count);
    let read = super::capture(&file);
    assert!(read <= u64::from(count));
    super::replay(&file);
}

/// Makes a run of whole records of any words, and returns how many they are.
fn with_lengths(words: &mut Vec<u64>) -> u32 {
    let (mut at, mut count) = (0, 0);
    while words.len() - at >= RECORD_WORDS {
        let left = words.len() - at;
        if let Some(head) = words.get_mut(at) {
            let length = ((*head >> 48) as usize).clamp(RECORD_WORDS, left.min(usize::from(u16::MAX)));
            *head = *head & !(0xffff << 48) | (length as u64) << 48;
            at += length;
            count += 1;
        }
    }
    words.truncate(at);
    count
}

/// A capture with one block; its frame has these flags.
fn file(flags: u8, (records, record_bytes): (&[u8], u32), flows: &[u8], count: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut sequence = 0;
    let mut push = |kind: u8, flags: u8, payload: &[u8]| {
        push_frame(&mut file, (kind, flags), sequence, payload.len() as u32, payload);
        sequence += 1;
    };
    push(kind::SESSION, 0, &Session { process_id: 7, instance_id: 11, file_number: 1, unix_ns: 13 }.encode());
    let (mut names, mut paths) = (Vec::new(), Vec::new());
    for number in 4..4 + NAMES {
        push_name(&mut names, number, ["password", "url", "key", "größe"][number as usize % 4]);
        push_path(&mut paths, number - 3, number.saturating_sub(5), ["a", "b.c", "é", "secret"][number as usize % 4]);
    }
    push(kind::NAMES, 0, &names);
    push(kind::PATHS, 0, &paths);
    let thread = Thread { index: 1, os_id: 2, name: "main".into(), blocks_before: 0, events_before: 0 };
    push(kind::THREAD, 0, &thread.encode());
    let mut block = Vec::new();
    let header = BlockHeader {
        prefix: 0x1234_5678_9abc_def0,
        thread: 1,
        records: count,
        record_bytes,
        flow_bytes: flows.len() as u32,
        blocks: 1,
        events: u64::from(count),
        ..BlockHeader::default()
    };
    header.encode(&mut block);
    block.extend_from_slice(records);
    block.extend_from_slice(flows);
    push(kind::BLOCK, flags, &block);
    file
}
