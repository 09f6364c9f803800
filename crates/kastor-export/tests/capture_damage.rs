//! Captures that were cut, damaged, or made by an enemy: what is whole is read, the rest is named, nothing panics.

mod captured;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use captured::{LONG, Seen, captured, recorded};
use kastor::{MockClock, Recording, Telemetry, metric, scope};
use kastor_export::{
    capture::{Capture, CaptureConfig, Part, Reader, check, repair},
    fuzz,
};
use proptest::prelude::*;

/// The same events at the same moments each time, in several blocks.
fn write(path: &Path, zstd: Option<i32>) -> Vec<Seen> {
    let clock = MockClock::new();
    let config = CaptureConfig::new(path);
    let capture = Capture::with(zstd.map_or(config.clone(), |level| config.zstd(level)));
    let recording = Recording::new(1 << 20);
    let builder = Telemetry::builder().clock(clock.clone());
    let telemetry = builder.reporter(capture).reporter(recording.clone()).build();
    for turn in 0..3u64 {
        let job = scope!(telemetry, "job", turn = turn, note = "a note, a note, a note", ok = true);
        clock.advance(Duration::from_micros(3));
        job.event("halfway");
        {
            let step = scope!(telemetry, "step", ratio = 0.25);
            clock.advance(Duration::from_secs(5));
            if turn == 1 {
                step.fail("too_slow");
            }
        }
        {
            let _current = telemetry.override_current();
            metric!("size", turn, unit = "B");
            kastor::count!("done", 1);
        }
        drop(job);
        assert!(telemetry.flush(LONG).is_complete());
    }
    recorded(&recording)
}

fn read(bytes: &[u8]) -> (Vec<String>, u64) {
    let mut reader = Reader::new(bytes);
    let (mut events, mut damaged) = (Vec::new(), 0);
    while let Some(part) = reader.read().unwrap() {
        match part {
            Part::Block(block) => {
                for timing in block.timings() {
                    let path = block.tables().path_text(timing.path_id());
                    events.push(format!("{path} {} {}", timing.start_unix_ns(), timing.duration_ns()));
                }
            }
            Part::Damage(_) => damaged += 1,
            _ => {}
        }
    }
    (events, damaged)
}

fn sample(zstd: Option<i32>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.kcap");
    write(&path, zstd);
    fs::read(path).unwrap()
}

#[test]
fn a_file_cut_anywhere_gives_what_came_before() {
    let bytes = sample(None);
    let (whole, _) = read(&bytes);
    assert_eq!(whole.len(), 6);
    let mut most = 0;
    for cut in 0..bytes.len() {
        let (events, damaged) = read(&bytes[..cut]);
        assert_eq!(damaged, 0, "cut at {cut}");
        assert!(whole.starts_with(&events), "cut at {cut}");
        assert!(events.len() >= most);
        most = events.len();
    }
    assert_eq!(most, 6);
}

#[test]
fn a_damaged_bit_costs_its_frame_and_is_named() {
    for zstd in [None, Some(3)] {
        let bytes = sample(zstd);
        let (whole, _) = read(&bytes);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.kcap");
        let (mut of_events, mut of_paths) = (0, 0);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let (events, places) = read(&damaged);
            // Zeros between frames carry nothing.
            assert!(places <= 1);
            // Names may be unknown where their table was hit; what is told otherwise is what was recorded.
            let known: Vec<_> = events.iter().filter(|event| !event.contains("(unknown)")).collect();
            assert!(known.iter().all(|event| whole.contains(event)), "byte {at}: {known:?}");
            assert!(events.len() >= 4, "byte {at}: only one block can be lost");
            of_events += usize::from(events.len() < 6);
            of_paths += usize::from(known.len() < events.len());
            if at % 41 == 0 && places > 0 {
                fs::write(&path, &damaged).unwrap();
                let checked = check(&path).unwrap();
                assert_eq!((checked.damaged_places, checked.is_whole()), (1, false), "byte {at}");
                assert_eq!(checked.sessions.iter().map(|session| session.timings).sum::<u64>(), events.len() as u64);
                assert!(checked.damage[0].offset <= at as u64);
            }
        }
        assert!(of_events > 300 && of_paths > 20, "{of_events} {of_paths}");
    }
}

#[test]
fn a_missing_block_is_a_gap_of_its_thread_with_its_number_of_events() {
    let bytes = sample(None);
    let mut reader = Reader::new(std::io::Cursor::new(&bytes));
    let index = reader.index().unwrap();
    let block = index.iter().filter(|entry| entry.is_block()).nth(1).unwrap();
    let next = index.iter().find(|entry| entry.offset > block.offset).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gap.kcap");
    // Cut out without a trace: no place is damaged, and still it shows.
    fs::write(&path, [&bytes[..block.offset as usize], &bytes[next.offset as usize..]].concat()).unwrap();
    let checked = check(&path).unwrap();
    assert_eq!((checked.damaged_places, checked.is_whole()), (0, false));
    assert_eq!(checked.missing_events(), u64::from(block.records));
    let thread = &checked.sessions[0].threads[0];
    let blocks = index.iter().filter(|entry| entry.is_block()).count() as u64;
    assert_eq!((thread.last_block, thread.events, thread.missing_blocks), (blocks, 9, 1));
}

#[test]
fn a_repaired_file_is_clean_and_has_all_that_was_whole() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old.kcap", "new.kcap"].map(|name| folder.path().join(name));
    for zstd in [None, Some(3)] {
        let mut bytes = sample(zstd);
        let block = Reader::new(std::io::Cursor::new(&bytes)).index().unwrap();
        let block = *block.iter().filter(|entry| entry.is_block()).nth(1).unwrap();
        let lost = u64::from(block.records);
        bytes[block.offset as usize + 60] ^= 4;
        bytes.extend_from_slice(&[0x9e, b'K', b'F', b'r', 1, 2, 3]);
        fs::write(&old, &bytes).unwrap();
        let repaired = repair(&old, &new).unwrap();
        assert_eq!(repaired.bytes, new.metadata().unwrap().len());
        assert!(repaired.left_bytes > 7);
        let checked = check(&new).unwrap();
        assert_eq!((checked.damaged_places, checked.torn_bytes, checked.events()), (0, 0, 9 - lost), "{checked:?}");
        assert_eq!(checked.missing_events(), lost, "what was lost stays lost, and said");
        assert_eq!(captured(&new).len() as u64, 9 - lost);
        assert!(Reader::open(&new).unwrap().index().unwrap().len() >= 5);
        // It is never written over, and neither is anything else.
        assert!(repair(&old, &new).unwrap_err().to_string().contains("new.kcap"));
        fs::remove_file(&new).unwrap();
    }
    let mut bytes = sample(None);
    bytes[40] ^= 1;
    fs::write(&old, &bytes).unwrap();
    repair(&old, &new).unwrap();
    let checked = check(&new).unwrap();
    assert_eq!((checked.is_whole(), checked.events()), (true, 9), "the process is unknown, its events are not");
    assert_eq!(checked.sessions[0].session.unwrap().process_id, 0);
}

#[test]
fn what_is_no_capture_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letter.txt");
    fs::write(&path, "Dear reader, this is no capture, however long it is.".repeat(100)).unwrap();
    for error in [Reader::open(&path).err().unwrap(), check(&path).unwrap_err()] {
        assert!(error.is_invalid_input() && error.to_string().contains("letter.txt is no capture"), "{error}");
    }
    assert!(Reader::open(folder.path().join("missing")).err().unwrap().to_string().contains("missing"));
    fs::write(&path, "").unwrap();
    assert!(check(&path).unwrap().is_whole(), "an empty file may become one");
}

/// CRC-32C, bit by bit, from its definition.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn a_version_of_the_future_is_refused_by_its_number() {
    for (at, message) in [(8, "format 3 with records of layout 1"), (12, "format 2 with records of layout 3")] {
        let mut bytes = sample(None);
        bytes[32 + at] = 3;
        let payload = crc32c(&bytes[32..80]);
        bytes[24..28].copy_from_slice(&payload.to_le_bytes());
        let header = crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&header.to_le_bytes());
        let error = Reader::new(&bytes[..]).read().err().unwrap();
        assert!(error.is_invalid_input() && error.to_string().contains(message), "{error}");

        // Nor is such a file continued.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("future.kcap");
        fs::write(&path, &bytes).unwrap();
        let capture = Capture::new(&path);
        let telemetry = Telemetry::builder().reporter(capture.clone()).build();
        drop(scope!(telemetry, "now"));
        telemetry.flush(LONG);
        let error = capture.last_error().unwrap();
        assert!(error.contains("has capture format"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

/// Packed records as they were, by what `docs/format.md` says.
fn independently_unpacked(packed: &[u8]) -> Vec<u8> {
    let mut bytes = packed.iter().copied();
    let number = |count: usize, bytes: &mut dyn Iterator<Item = u8>| {
        (0..count).fold(0, |number, at| number | u64::from(bytes.next().unwrap()) << (8 * at))
    };
    let unzigzag = |number: u64| (number >> 1) as i64 ^ -((number & 1) as i64);
    let (mut heads, mut ids, mut end, mut records) = ([0; 3], [0_u32; 3], 0_u64, Vec::new());
    while let Some(control) = bytes.next() {
        let place = usize::from(control & 3);
        let head = if place == 3 { number(8, &mut bytes) } else { heads[place] };
        // The newest stands in front; one that stood there already leaves its place.
        let older: Vec<u64> = heads.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, head)| *head).collect();
        heads = [head, older[0], older[1]];
        let [span, parent, root] = ids;
        ids = match control >> 2 & 3 {
            0 => [span + 1, parent, root],
            1 => [span + 1, 0, span + 1],
            2 => [parent, 0, root],
            _ => {
                let mut varint = || {
                    let (mut value, mut shift) = (0_u64, 0);
                    loop {
                        let byte = bytes.next().unwrap();
                        value |= u64::from(byte & 0x7f) << shift;
                        shift += 7;
                        if byte < 0x80 {
                            return unzigzag(value) as u32;
                        }
                    }
                };
                let own = span.wrapping_add(varint());
                let (to_parent, to_root) = (varint(), varint());
                [own, own.wrapping_sub(to_parent), own.wrapping_sub(to_root)]
            }
        };
        let duration = number(usize::from(control >> 4 & 3) + 1, &mut bytes);
        let start = end.wrapping_add_signed(unzigzag(number(1 << (control >> 6), &mut bytes)));
        end = start.wrapping_add(duration);
        records.extend_from_slice(&head.to_le_bytes());
        ids.iter().for_each(|id| records.extend_from_slice(&id.to_le_bytes()));
        records.extend_from_slice(&(duration as u32).to_le_bytes());
        records.extend_from_slice(&start.to_le_bytes());
        records.extend((32..(head >> 48) * 8).map(|_| bytes.next().unwrap()));
    }
    records
}

/// A reader that knows nothing but `docs/format.md`: paths, counts and durations of a capture that is not compressed.
fn independent(bytes: &[u8]) -> Vec<(String, u64)> {
    let padded = |len: u32| (len as usize).next_multiple_of(8);
    let (mut paths, mut found, mut at) = (std::collections::HashMap::new(), Vec::new(), 0);
    let mut sequence = 0;
    while at < bytes.len() {
        let frame = &bytes[at..];
        assert_eq!(frame[..4], [0x9e, 0x4b, 0x46, 0x72]);
        let length = u32_at(frame, 4);
        let payload = &frame[32..32 + length as usize];
        assert_eq!((u64_at(frame, 8), frame[17] & !2), (sequence, 0));
        assert_eq!((u32_at(frame, 24), u32_at(frame, 28)), (crc32c(payload), crc32c(&frame[..28])));
        match frame[16] {
            1 => {
                assert_eq!((&payload[..8], u32_at(payload, 12)), (&b"kastor c"[..], 1));
                assert!([1, 2].contains(&u32_at(payload, 8)));
            }
            3 => {
                let mut entry = payload;
                while !entry.is_empty() {
                    let (number, above, len) = (u32_at(entry, 0), u32_at(entry, 4), u32_at(entry, 8));
                    let name = std::str::from_utf8(&entry[16..16 + len as usize]).unwrap();
                    let text = match paths.get(&above) {
                        Some(above) => format!("{above}.{name}"),
                        None => name.to_owned(),
                    };
                    paths.insert(number, text);
                    entry = &entry[16 + padded(len)..];
                }
            }
            5 => {
                let flows = u32_at(payload, 84) as usize;
                let unpacked = match frame[17] {
                    2 => independently_unpacked(&payload[104..payload.len() - flows]),
                    _ => payload[104..payload.len() - flows].to_vec(),
                };
                let (mut record, records) = (0, u32_at(payload, 12));
                let (header, payload) = (payload, unpacked);
                let payload = &payload[..];
                assert_eq!(f64::from_bits(u64_at(header, 72)), 1.0, "the mock clock's ticks are nanoseconds");
                for _ in 0..records {
                    let words = u16::from_le_bytes(payload[record + 6..record + 8].try_into().unwrap());
                    if payload[record + 5] == 1 {
                        let is_long = payload[record + 4] & 4 != 0;
                        let duration =
                            if is_long { u64_at(payload, record + 32) } else { u32_at(payload, record + 20).into() };
                        found.push((paths[&u32_at(payload, record)].clone(), duration));
                    }
                    record += usize::from(words) * 8;
                }
                assert_eq!((record, record), (u32_at(header, 80) as usize, payload.len()));
            }
            2 | 4 | 6 | 7 | 8 => {}
            kind => panic!("kind {kind}"),
        }
        at += 32 + padded(length);
        sequence += 1;
    }
    assert_eq!(at, bytes.len());
    found
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn in_words(seen: &[Seen]) -> String {
    let mut text = String::new();
    for it in seen {
        writeln!(text, "{it:?}").unwrap();
    }
    text
}

/// With KASTOR_BLESS=1 those of the newest version are written anew: only ever for one that was not released.
#[test]
fn the_files_of_each_version_are_read_as_on_the_first_day() {
    for (name, zstd) in
        [("capture-1", None), ("capture-1-zstd", Some(3)), ("capture-2", None), ("capture-2-zstd", Some(3))]
    {
        let (file, text) = (golden(&format!("{name}.kcap")), golden(&format!("{name}.txt")));
        let is_newest = name.starts_with("capture-2");
        if is_newest && std::env::var_os("KASTOR_BLESS").is_some_and(|set| set == "1") {
            let _ = fs::remove_file(&file);
            fs::write(&text, in_words(&write(&file, zstd))).unwrap();
        }
        assert_eq!(in_words(&captured(&file)), fs::read_to_string(&text).unwrap());
        assert!(check(&file).unwrap().is_whole());
    }
}

#[test]
fn the_document_alone_is_enough_to_read_a_capture() {
    let expected = [("job.step", 5_000_000_000), ("job", 5_000_003_000)].map(|(path, ns)| (path.to_owned(), ns));
    let expected = [expected.clone(), expected.clone(), expected].concat();
    for name in ["capture-1.kcap", "capture-2.kcap"] {
        let bytes = fs::read(golden(name)).unwrap();
        let is_packed = frame_flags(&bytes).contains(&2);
        assert_eq!((independent(&bytes), is_packed), (expected.clone(), name == "capture-2.kcap"));
    }
}

/// The flags of all frames of a file.
fn frame_flags(bytes: &[u8]) -> Vec<u8> {
    let mut at = 0;
    std::iter::from_fn(|| {
        let frame = bytes.get(at..).filter(|frame| !frame.is_empty())?;
        at += 32 + (u32_at(frame, 4) as usize).next_multiple_of(8);
        Some(frame[17])
    })
    .collect()
}

#[test]
fn a_block_that_says_too_much_of_its_packed_records_is_damage() {
    let bytes = fs::read(golden("capture-2.kcap")).unwrap();
    let mut reader = Reader::new(std::io::Cursor::new(&bytes));
    let block = reader.index().unwrap().into_iter().find(|entry| entry.is_block()).unwrap().offset as usize;
    let what = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = bytes.clone();
        change(&mut bytes[block..]);
        let bytes = fuzz::with_checksums(&bytes);
        let mut reader = Reader::new(&bytes[..]);
        let mut damage = Vec::new();
        while let Some(part) = reader.read().unwrap() {
            if let Part::Damage(it) = part {
                damage.push(it.what);
            }
        }
        damage
    };
    let set = |at: usize, value: u32| {
        move |frame: &mut [u8]| frame[32 + at..32 + at + 4].copy_from_slice(&value.to_le_bytes())
    };
    let one_more = u32_at(&bytes[block + 32..], 80) + 8;
    assert_eq!(what(&|_| {}), Vec::<&str>::new());
    assert_eq!(what(&set(80, 1 << 20)), ["packed records that would be too large"]);
    assert_eq!(what(&set(80, one_more)), ["packed records that are not as they should be"]);
    assert_eq!(what(&set(84, 1 << 19)), ["a block whose parts are not as long as it says"]);
    assert_eq!(what(&|frame| frame[17] = 3), ["content in a form that is not known"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_a_reader_panic_or_blow_up(
        which in 0..4usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<[u8; 8]>(), 1..9usize), 0..12),
        cut in any::<prop::sample::Index>(),
        repeats in 1..3usize,
        heal in any::<bool>(),
    ) {
        let names = ["capture-1.kcap", "capture-1-zstd.kcap", "spool-1.kspool", "capture-2.kcap"];
        let mut bytes = fs::read(golden(names[which])).unwrap().repeat(repeats);
        for (at, change, len) in changes {
            let at = at.index(bytes.len());
            let end = (at + len).min(bytes.len());
            bytes[at..end].copy_from_slice(&change[..end - at]);
        }
        bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
        if heal {
            // As an enemy would: every checksum is right.
            bytes = fuzz::with_checksums(&bytes);
        }
        fuzz::frames(&bytes);
        fuzz::capture(&bytes);
        fuzz::spool(&bytes);
    }
}

#[test]
fn compressed_content_cannot_grow_without_bound() {
    let bytes = sample(Some(3));
    let mut reader = Reader::new(std::io::Cursor::new(&bytes));
    let block = reader.index().unwrap().into_iter().find(|entry| entry.is_block()).unwrap().offset as usize;
    assert_eq!(bytes[block + 17], 1, "compressed");
    let mut bomb = bytes.clone();
    bomb[block + 20..block + 24].copy_from_slice(&(1u32 << 20).to_le_bytes());
    let bomb = fuzz::with_checksums(&bomb);
    let mut reader = Reader::new(&bomb[..]);
    let mut damage = Vec::new();
    while let Some(part) = reader.read().unwrap() {
        if let Part::Damage(it) = part {
            damage.push(it.what);
        }
    }
    assert_eq!(damage, ["compressed content that would be too large"]);
}
