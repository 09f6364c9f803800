//! Protobuf's wire format, as far as spans need it.
//!
//! A field is a key (its number and how it is written) and a value: a varint, eight or four bytes, or a length and as
//! many bytes. Everything is written in the order of the numbers, with the shortest varints and without fields that hold
//! their default, so that the bytes are those that a generated encoder makes. Code: the official types write the same in
//! the tests.

/// How a field is written, as the low bits of its key say.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// The key of a field whose number is below 16: one byte.
const fn key(number: u8, how: u8) -> u8 {
    number << 3 | how
}

/// The key of a field with a length.
pub(super) const fn length_key(number: u8) -> u8 {
    key(number, LENGTH)
}

/// The key of a field that is a varint.
pub(super) const fn varint_key(number: u8) -> u8 {
    key(number, VARINT)
}

/// The key of a field of eight bytes.
pub(super) const fn fixed64_key(number: u8) -> u8 {
    key(number, FIXED64)
}

/// The key of field 16, the first with two bytes, of four bytes.
pub(super) const FIXED32_16: [u8; 2] = [0x80 | FIXED32, 1];

/// Appends a varint.
#[inline]
pub(super) fn push_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Bytes of a varint.
#[inline]
pub(super) fn varint_bytes(value: u64) -> usize {
    // Seven bits a byte: 9/64 of the bits, rounded up.
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

/// Bytes of a field with a length whose key has one byte.
#[inline]
pub(super) fn field_bytes(bytes: usize) -> usize {
    1 + varint_bytes(bytes as u64) + bytes
}

/// Appends a field with a length.
#[inline]
pub(super) fn push_field(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    push_head(to, number, bytes.len());
    to.extend_from_slice(bytes);
}

/// Appends the key and the length of a field whose bytes follow.
#[inline]
pub(super) fn push_head(to: &mut Vec<u8>, number: u8, bytes: usize) {
    if bytes < 0x80 {
        to.extend_from_slice(&[length_key(number), bytes as u8]);
    } else {
        to.push(length_key(number));
        push_varint(to, bytes as u64);
    }
}

/// Appends a field that is a varint, unless it is zero.
pub(super) fn push_count(to: &mut Vec<u8>, number: u8, value: u32) {
    if value != 0 {
        to.push(varint_key(number));
        push_varint(to, u64::from(value));
    }
}

/// Appends a field of eight bytes, unless it is zero.
#[inline]
pub(super) fn push_fixed64(to: &mut Vec<u8>, number: u8, value: u64) {
    if value != 0 {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        to.extend_from_slice(&[fixed64_key(number), a, b, c, d, e, f, g, h]);
    }
}

/// Appends a message whose length is known only when it is written: one byte is left for it, and if that is not enough
/// the message moves.
pub(super) fn push_message(to: &mut Vec<u8>, number: u8, write: impl FnOnce(&mut Vec<u8>)) {
    to.extend_from_slice(&[length_key(number), 0]);
    let start = to.len();
    write(to);
    let bytes = to.len() - start;
    if bytes < 0x80 {
        if let Some(place) = to.get_mut(start - 1) {
            *place = bytes as u8;
        }
        return;
    }
    // The length's other bytes go to the end for now, and are then rotated in front of the message.
    let (length, digits) = varint(bytes as u64);
    let (first, others) = length.get(..digits).and_then(<[u8]>::split_first).unwrap_or((&0, &[]));
    if let Some(place) = to.get_mut(start - 1) {
        *place = *first;
    }
    to.extend_from_slice(others);
    if let Some(message) = to.get_mut(start..) {
        message.rotate_right(others.len());
    }
}

fn varint(mut value: u64) -> ([u8; 10], usize) {
    let (mut bytes, mut digits) = ([0; 10], 0);
    for place in &mut bytes {
        digits += 1;
        *place = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            break;
        }
        *place |= 0x80;
    }
    (bytes, digits)
}

#[cfg(test)]
mod tests {
    use prost::encoding::{encode_varint, encoded_len_varint};

    use super::*;

    #[test]
    fn varints_are_as_long_and_as_written_as_by_a_generated_encoder() {
        let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]);
        for value in edges {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            push_varint(&mut ours, value);
            encode_varint(value, &mut theirs);
            assert_eq!(ours, theirs, "{value}");
            assert_eq!(varint_bytes(value), encoded_len_varint(value), "{value}");
            let (bytes, digits) = varint(value);
            assert_eq!(bytes[..digits], theirs, "{value}");
        }
    }

    #[test]
    fn a_message_has_its_length_in_front_however_long_it_is() {
        for bytes in [0, 1, 127, 128, 129, 16_383, 16_384, 100_000] {
            let content: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
            let (mut ours, mut theirs) = (b"before".to_vec(), b"before".to_vec());
            push_message(&mut ours, 11, |to| to.extend_from_slice(&content));
            push_field(&mut theirs, 11, &content);
            assert!(ours == theirs, "{bytes} bytes");
            assert_eq!(ours.len() - 6, field_bytes(bytes));
        }
    }
}
