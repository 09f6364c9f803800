//! Captures for the command to read: recorded with injected time, or written byte by byte.

use std::path::Path;
use std::time::Duration;

use kastor::{MockClock, Telemetry};
use kastor_export::capture::Capture;

/// 2026-11-20T10:00:00Z.
pub const START_NS: u64 = 1_795_168_800_000_000_000;

/// A capture of what `record` does with a context and its clock, which begins at [`START_NS`].
pub fn recorded(path: &Path, record: impl FnOnce(&Telemetry, &MockClock)) {
    let clock = MockClock::new();
    clock.set_unix_ns(START_NS);
    let telemetry = Telemetry::builder().clock(clock.clone()).reporter(Capture::new(path)).build();
    record(&telemetry, &clock);
    telemetry.shutdown(Duration::from_secs(30));
}

/// So many nanoseconds pass.
pub fn pass(clock: &MockClock, ns: u64) {
    clock.advance(Duration::from_nanos(ns));
}

/// A whole frame of `docs/format.md`.
#[allow(dead_code, reason = "not every test writes bytes")]
pub fn frame(kind: u8, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x9e, b'K', b'F', b'r'];
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&crc32c(payload).to_le_bytes());
    let check = crc32c(&bytes);
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// The payload of a SESSION with this version.
#[allow(dead_code, reason = "not every test writes bytes")]
pub fn session(version: u32) -> Vec<u8> {
    let mut bytes = b"kastor c".to_vec();
    [version, 1].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes.extend_from_slice(&7_u128.to_le_bytes());
    [42_u32, 1].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes.extend_from_slice(&START_NS.to_le_bytes());
    bytes
}

/// A capture with these paths, as number, number above and name, and one scope of 1 µs under each.
#[allow(dead_code, reason = "not every test writes bytes")]
pub fn written(path: &Path, paths: impl Iterator<Item = (u32, u32, String)>) {
    let mut file = frame(1, 0, &session(1));
    let (mut sequence, mut events) = (1, 0_u64);
    let (mut names, mut records) = (Vec::new(), Vec::new());
    let mut write = |names: &mut Vec<u8>, records: &mut Vec<u8>, file: &mut Vec<u8>| {
        file.extend(frame(3, sequence, names));
        let number = (records.len() / 32) as u32;
        events += u64::from(number);
        let mut block = 99_u64.to_le_bytes().to_vec();
        [1, number, 0, 0].iter().for_each(|word| block.extend_from_slice(&word.to_le_bytes()));
        let line = [0, 1000, 1000, 0, 0, START_NS, 1.0_f64.to_bits()];
        line.iter().for_each(|word| block.extend_from_slice(&word.to_le_bytes()));
        [records.len() as u32, 0].iter().for_each(|word| block.extend_from_slice(&word.to_le_bytes()));
        [sequence, events].iter().for_each(|word| block.extend_from_slice(&word.to_le_bytes()));
        block.extend_from_slice(records);
        file.extend(frame(5, sequence, &block));
        sequence += 1;
        names.clear();
        records.clear();
    };
    for (number, above, name) in paths {
        [number, above, name.len() as u32, 0].iter().for_each(|word| names.extend_from_slice(&word.to_le_bytes()));
        names.extend_from_slice(name.as_bytes());
        names.resize(names.len().next_multiple_of(8), 0);
        records.extend_from_slice(&number.to_le_bytes());
        records.extend_from_slice(&[0, 1, 4, 0]);
        [number, 0, number, 1000].iter().for_each(|word: &u32| records.extend_from_slice(&word.to_le_bytes()));
        records.extend_from_slice(&0_u64.to_le_bytes());
        if records.len() >= 640_000 {
            write(&mut names, &mut records, &mut file);
        }
    }
    write(&mut names, &mut records, &mut file);
    std::fs::write(path, file).unwrap();
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut check = !0_u32;
    for byte in bytes {
        check ^= u32::from(*byte);
        for _ in 0..8 {
            check = if check & 1 == 1 { check >> 1 ^ 0x82f6_3b78 } else { check >> 1 };
        }
    }
    !check
}
