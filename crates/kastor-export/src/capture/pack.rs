//! Packed records: what a record says that the one before it does not.
//!
//! Records of one thread resemble each other: the same few paths, numbers that count up, times that go on where the last
//! scope ended. So most of a record's 32 bytes follow from its predecessor, and three or four are left. That is less to
//! copy and less to keep, which is most of what a capture costs at full speed (`cargo xtask bench --gate export`).
//! Nothing is lost: whatever stands in a record is had back, bit by bit.
//!
//! ```text
//! control   1 byte
//!             bits 0, 1  head: 0, 1 or 2 the newest, second or third of the heads before; 3 it follows
//!             bits 2, 3  numbers: 0 span one more, parent and root as before; 1 span one more, no parent, root the span;
//!                        2 span the parent before, no parent, root as before; 3 they follow
//!             bits 4, 5  bytes of the duration, less one
//!             bits 6, 7  bytes of the start: 1, 2, 4 or 8
//! head      8 bytes: the first word of the record
//! numbers   three varints, zigzag: span less the span before, span less parent, span less root; modulo 2^32
//! duration  the upper half of the third word
//! start     zigzag: less start and duration of the record before; modulo 2^64
//! rest      what the record has beyond 32 bytes
//! ```
//!
//! Before the first record of a block everything is zero. Heads that were used move to the front of the three.

use super::{
    extent::{Extent, is_plain_head},
    record::{RECORD_BYTES, flag::ITEMS},
};

/// More than what a record takes without its rest.
const MOST_BYTES: usize = 64;

/// What is known of the records before.
#[derive(Default)]
struct Before {
    heads: [u64; 3],
    span: u32,
    parent: u32,
    root: u32,
    /// Start and duration.
    end: u64,
}

/// The numbers of a record, and how they are told.
const FOLLOWS: u8 = 3;
const SIBLING: u8 = 0;
const ROOT: u8 = 1;
const PARENT: u8 = 2;

/// Bytes of the start by their code.
const START_BYTES: [usize; 4] = [1, 2, 4, 8];

/// One record as numbers.
#[derive(Clone, Copy)]
struct Fixed {
    head: u64,
    span: u32,
    parent: u32,
    root: u32,
    duration: u32,
    start: u64,
}

impl Fixed {
    #[inline(always)]
    fn of(bytes: &[u8; RECORD_BYTES]) -> Self {
        let [head, ids, third, start] = words(bytes);
        let (span, parent) = (ids as u32, (ids >> 32) as u32);
        Self { head, span, parent, root: third as u32, duration: (third >> 32) as u32, start }
    }

    #[inline(always)]
    fn bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.head.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.span.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.parent.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.root.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.duration.to_le_bytes());
        bytes[24..].copy_from_slice(&self.start.to_le_bytes());
        bytes
    }

    /// Bytes beyond the fixed part; none if it says that it is shorter than that.
    #[inline(always)]
    fn rest_bytes(&self) -> Option<usize> {
        ((self.head >> 48) as usize * 8).checked_sub(RECORD_BYTES)
    }
}

impl Before {
    /// Where among the heads before this one stands; it is the newest from now on.
    #[inline(always)]
    fn place_of(&mut self, head: u64) -> u8 {
        let [first, second, third] = self.heads;
        if head == first {
            return 0;
        }
        let place = if head == second {
            1
        } else if head == third {
            2
        } else {
            FOLLOWS
        };
        self.heads = [head, first, if place == 1 { third } else { second }];
        place
    }

    #[inline(always)]
    fn advance(&mut self, to: &Fixed) {
        (self.span, self.parent, self.root) = (to.span, to.parent, to.root);
        self.end = to.start.wrapping_add(u64::from(to.duration));
    }

    #[inline(always)]
    fn numbers_of(&self, record: &Fixed) -> u8 {
        let apart = record.span ^ self.span.wrapping_add(1);
        if apart | (record.parent ^ self.parent) | (record.root ^ self.root) == 0 {
            SIBLING
        } else if apart | record.parent | (record.root ^ record.span) == 0 {
            ROOT
        } else if record.span == self.parent && record.parent == 0 && record.root == self.root {
            PARENT
        } else {
            FOLLOWS
        }
    }
}

/// Packs records and takes the look at each that a block's header needs. None if that is no gain, if what there is are no
/// whole records, or at the first record with items if those are to be looked through first. Otherwise also how many of
/// the bytes in `to` are the packed ones: its memory is used again, as it is.
pub(super) fn pack(records: &[u8], stops_at_items: bool, to: &mut Vec<u8>) -> Option<(Extent, usize)> {
    let most_bytes = records.len();
    if to.len() < most_bytes + MOST_BYTES {
        to.resize(most_bytes + MOST_BYTES, 0);
    }
    let (mut extent, mut before, mut left, mut at) = (Extent::NOTHING, Before::default(), records, 0);
    let mut is_plain = false;
    while let Some((fixed, behind)) = left.split_first_chunk::<RECORD_BYTES>() {
        let record = Fixed::of(fixed);
        // 1. One like the last: nothing behind it, and all that is left of it goes into a word.
        if is_plain && record.head == before.heads[0] {
            let numbers = before.numbers_of(&record);
            let start = zigzag(record.start.wrapping_sub(before.end));
            if numbers != FOLLOWS && start <= 0xffff && record.duration <= 0xffff {
                let (duration_code, start_code) = (u8::from(record.duration > 0xff), u8::from(start > 0xff));
                let control = numbers << 2 | duration_code << 4 | start_code << 6;
                let word =
                    u64::from(control) | u64::from(record.duration) << 8 | start << (16 + 8 * u32::from(duration_code));
                to.get_mut(at..at + 8)?.copy_from_slice(&word.to_le_bytes());
                at += 3 + usize::from(duration_code) + usize::from(start_code);
                extent.add_plain(record.duration, record.start);
                before.advance(&record);
                left = behind;
                continue;
            }
        }
        // 2. Any other.
        let (rest, behind) = behind.split_at_checked(record.rest_bytes()?)?;
        left = behind;
        if stops_at_items && (record.head >> 32) as u8 & ITEMS != 0 {
            return None;
        }
        extent.add(record.head, record.duration, record.start, rest);
        is_plain = is_plain_head(record.head);
        if at + rest.len() > most_bytes {
            return None;
        }
        let room = to.get_mut(at..)?.first_chunk_mut::<MOST_BYTES>()?;
        at += push(room, &mut before, &record);
        if !rest.is_empty() {
            to.get_mut(at..at + rest.len())?.copy_from_slice(rest);
            at += rest.len();
        }
    }
    if !left.is_empty() || at >= most_bytes {
        return None;
    }
    Some((extent.finished(), at))
}

/// Packs one record; returns its bytes.
#[inline(always)]
fn push(room: &mut [u8; MOST_BYTES], before: &mut Before, record: &Fixed) -> usize {
    let (head, numbers) = (before.place_of(record.head), before.numbers_of(record));
    let start = zigzag(record.start.wrapping_sub(before.end));
    let duration_bytes = significant_bytes(u64::from(record.duration));
    let start_code = match significant_bytes(start) {
        1 => 0,
        2 => 1,
        3 | 4 => 2,
        _ => 3,
    };
    let control = head | numbers << 2 | (duration_bytes as u8 - 1) << 4 | start_code << 6;
    let mut at = 1;
    room[0] = control;
    if head == FOLLOWS {
        put(room, at, record.head);
        at += 8;
    }
    if numbers == FOLLOWS {
        for number in [
            record.span.wrapping_sub(before.span),
            record.span.wrapping_sub(record.parent),
            record.span.wrapping_sub(record.root),
        ] {
            at += put_varint(room, at, zigzag32(number));
        }
    }
    put(room, at, u64::from(record.duration));
    at += duration_bytes;
    put(room, at, start);
    at += START_BYTES[usize::from(start_code)];
    before.advance(record);
    at
}

/// Appends so many bytes of records to `to`, or says that these are not packed records, or others.
pub(super) fn unpack(packed: &[u8], record_bytes: usize, to: &mut Vec<u8>) -> Result<(), &'static str> {
    const WRONG: &str = "packed records that are not as they should be";
    let end = to.len() + record_bytes;
    to.reserve(record_bytes);
    let (mut before, mut left) = (Before::default(), packed);
    while !left.is_empty() {
        let (record, used) = match left.first_chunk::<MOST_BYTES>() {
            Some(room) => pop(room, &mut before),
            None => {
                let mut room = [0; MOST_BYTES];
                room.get_mut(..left.len()).ok_or(WRONG)?.copy_from_slice(left);
                pop(&room, &mut before)
            }
        };
        let rest_bytes = record.rest_bytes().ok_or(WRONG)?;
        let (rest, behind) = left.get(used..).and_then(|left| left.split_at_checked(rest_bytes)).ok_or(WRONG)?;
        if to.len() + RECORD_BYTES + rest_bytes > end {
            return Err(WRONG);
        }
        to.extend_from_slice(&record.bytes());
        to.extend_from_slice(rest);
        left = behind;
    }
    if to.len() == end { Ok(()) } else { Err(WRONG) }
}

/// Unpacks one record; returns how many bytes it took.
#[inline(always)]
fn pop(room: &[u8; MOST_BYTES], before: &mut Before) -> (Fixed, usize) {
    let control = room[0];
    let mut at = 1;
    let head = match control & 3 {
        FOLLOWS => {
            at += 8;
            word(room, 1)
        }
        place => before.heads[usize::from(place)],
    };
    before.place_of(head);
    let next = before.span.wrapping_add(1);
    let (span, parent, root) = match control >> 2 & 3 {
        SIBLING => (next, before.parent, before.root),
        ROOT => (next, 0, next),
        PARENT => (before.parent, 0, before.root),
        _ => {
            let mut numbers = [0; 3];
            for number in &mut numbers {
                let (value, bytes) = varint(room, at);
                (*number, at) = (unzigzag32(value), at + bytes);
            }
            let span = before.span.wrapping_add(numbers[0]);
            (span, span.wrapping_sub(numbers[1]), span.wrapping_sub(numbers[2]))
        }
    };
    let duration_bytes = usize::from(control >> 4 & 3) + 1;
    let duration = lowest(word(room, at), duration_bytes) as u32;
    at += duration_bytes;
    let start_bytes = START_BYTES[usize::from(control >> 6)];
    let start = before.end.wrapping_add(unzigzag(lowest(word(room, at), start_bytes)));
    at += start_bytes;
    let record = Fixed { head, span, parent, root, duration, start };
    before.advance(&record);
    (record, at)
}

#[inline(always)]
fn words(bytes: &[u8; RECORD_BYTES]) -> [u64; 4] {
    [0, 8, 16, 24].map(|at| {
        let word = bytes.get(at..at + 8).and_then(<[u8]>::first_chunk);
        word.map_or(0, |word| u64::from_le_bytes(*word))
    })
}

/// Eight bytes, of which the first ones count.
#[inline(always)]
fn put(room: &mut [u8; MOST_BYTES], at: usize, word: u64) {
    if let Some(place) = room.get_mut(at..at + 8) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

#[inline(always)]
fn word(room: &[u8; MOST_BYTES], at: usize) -> u64 {
    room.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word))
}

#[inline(always)]
fn lowest(word: u64, bytes: usize) -> u64 {
    if bytes >= 8 { word } else { word & ((1 << (bytes * 8)) - 1) }
}

#[inline(always)]
fn significant_bytes(word: u64) -> usize {
    (71 - (word | 1).leading_zeros() as usize) / 8
}

/// At most five bytes.
#[inline]
fn put_varint(room: &mut [u8; MOST_BYTES], at: usize, mut value: u32) -> usize {
    let mut bytes = 0;
    for place in room.iter_mut().skip(at).take(5) {
        bytes += 1;
        *place = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            break;
        }
        *place |= 0x80;
    }
    bytes
}

#[inline]
fn varint(room: &[u8; MOST_BYTES], at: usize) -> (u32, usize) {
    let (mut value, mut bytes) = (0, 0);
    for byte in room.iter().skip(at).take(5) {
        value |= u32::from(byte & 0x7f) << (7 * bytes);
        bytes += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (value, bytes)
}

#[inline(always)]
fn zigzag(number: u64) -> u64 {
    number << 1 ^ ((number as i64) >> 63) as u64
}

#[inline(always)]
fn unzigzag(number: u64) -> u64 {
    number >> 1 ^ (number & 1).wrapping_neg()
}

#[inline(always)]
fn zigzag32(number: u32) -> u32 {
    number << 1 ^ ((number as i32) >> 31) as u32
}

#[inline(always)]
fn unzigzag32(number: u32) -> u32 {
    number >> 1 ^ (number & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(head: u64, ids: [u32; 3], duration: u32, start: u64, rest: &[u8]) -> Vec<u8> {
        let words = (RECORD_BYTES + rest.len()) as u64 / 8;
        let fixed = Fixed {
            head: head & ((1 << 48) - 1) | words << 48,
            span: ids[0],
            parent: ids[1],
            root: ids[2],
            duration,
            start,
        };
        [fixed.bytes().as_slice(), rest].concat()
    }

    /// A timing without items.
    const HEAD: u64 = 1 | 1 << 40;

    fn packed(records: &[u8]) -> Option<Vec<u8>> {
        let mut to = vec![0xaa; 7];
        let (extent, bytes) = pack(records, false, &mut to)?;
        to.truncate(bytes);
        assert_eq!(extent, Extent::of(records));
        let mut back = b"before".to_vec();
        assert_eq!(unpack(&to, records.len(), &mut back), Ok(()));
        assert!(back == [b"before".as_slice(), records].concat());
        Some(to)
    }

    #[test]
    fn usual_records_take_three_or_four_bytes() {
        let roots: Vec<u8> =
            (1..=1000_u32).flat_map(|at| record(HEAD, [at, 0, at], 45, 1_000_000 + u64::from(at) * 100, &[])).collect();
        assert!(packed(&roots).unwrap().len() < 3 * 1000 + 20);
        // A root with 99 children, which close first.
        let mut trace = Vec::new();
        for root in [1, 101, 201] {
            let start = u64::from(root) * 100_000;
            for child in 1..100 {
                let begin = start + u64::from(child) * 800;
                trace.extend(record(HEAD, [root + child, root, root], 700, begin, &[]));
            }
            trace.extend(record(HEAD + 1, [root, 0, root], 95_000, start, &[]));
        }
        assert!(packed(&trace).unwrap().len() < 5 * 300);
    }

    #[test]
    fn what_is_no_gain_or_no_record_is_left_as_it_is() {
        let wild = |at: u32| {
            let mixed = at.wrapping_mul(0x9e37_79b9);
            record(u64::from(mixed), [mixed, mixed ^ 0x5555_5555, !mixed], mixed, u64::from(mixed) << 32, &[])
        };
        assert_eq!(packed(&wild(3)), None);
        let mut cut = record(HEAD, [1, 0, 1], 5, 5, &[]);
        cut.pop();
        assert_eq!(packed(&cut), None);
        // It says that it is longer than what is there, or shorter than any record.
        for words in [5, 3, 0] {
            let mut wrong = record(HEAD, [1, 0, 1], 5, 5, &[]);
            wrong[6] = words;
            assert_eq!(packed(&wrong), None, "{words} words");
        }
        let with_items = record(HEAD | u64::from(ITEMS) << 32, [1, 0, 1], 5, 5, &[7; 64]);
        assert!(packed(&with_items).is_some());
        assert_eq!(pack(&with_items, true, &mut Vec::new()), None);
    }

    #[test]
    fn packed_bytes_that_are_cut_or_say_another_length_are_refused() {
        let records: Vec<u8> = (1..50).flat_map(|at| record(HEAD, [at, 0, at], at, u64::from(at) * 99, &[])).collect();
        let whole = packed(&records).unwrap();
        for (bytes, length) in
            [(&whole[..whole.len() - 1], records.len()), (&whole[..], records.len() - 32), (&whole[..], 1 << 20)]
        {
            assert!(unpack(bytes, length, &mut Vec::new()).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_records_come_back_bit_by_bit(
            records in prop::collection::vec(
                (
                    prop_oneof![Just(HEAD), Just(HEAD | 32 << 32), 0..6_u64, any::<u64>()],
                    prop::array::uniform3(prop_oneof![0..40_u32, any::<u32>()]),
                    prop_oneof![0..300_u32, any::<u32>()],
                    prop_oneof![0..5000_u64, any::<u64>()],
                    prop::collection::vec(any::<[u8; 8]>(), 0..4),
                ),
                0..60,
            ),
        ) {
            let bytes: Vec<u8> = records
                .into_iter()
                .flat_map(|(head, ids, duration, start, rest)| record(head, ids, duration, start, &rest.concat()))
                .collect();
            packed(&bytes);
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused_within_the_bound(bytes: Vec<u8>, length in 0..4096_usize) {
            let mut to = Vec::new();
            let result = unpack(&bytes, length, &mut to);
            prop_assert!(to.len() <= length);
            prop_assert!(result.is_err() || to.len() == length);
            // Each record takes three bytes or more.
            prop_assert!(to.len() <= bytes.len() * 11);
        }
    }
}
