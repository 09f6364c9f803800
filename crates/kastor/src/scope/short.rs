//! Short attributes: numbers and short texts, which take no detour. They are written where they belong, by code that is
//! inlined, so that the kinds of the values are known; anything else goes the long way (`thread/items.rs`).
//!
//! Justified by the `on_scope2`, `on_metric_event2` and `on_counter_labels` cases of the benchmark.

use std::ptr;

use crate::{
    callsite::Key,
    name::Name,
    thread::{Here, ItemBuffer, TaggedItems},
    value::{Value, head, tag},
};

/// Longest text that is short.
const SHORT_BYTES: usize = 64;
/// Words that a short attribute needs at most.
pub(crate) const SHORT_WORDS: usize = 1 + SHORT_BYTES / 8;

/// A buffer with the values in it; null if one of them is not short.
#[inline(always)]
pub(crate) fn fill<const N: usize>(keys: &'static [Key; N], values: &[Value<'_>; N]) -> TaggedItems {
    if N * SHORT_WORDS > ItemBuffer::ROOM_WORDS {
        return ptr::null_mut();
    }
    let here = Here::new();
    let t = here.block();
    let held = t.items.get();
    if held.is_null() {
        return held;
    }
    // SAFETY: the first of a list of boxes that nobody else refers to.
    let buffer = unsafe { &mut *ItemBuffer::untagged(held) };
    // SAFETY: every value takes at most `SHORT_WORDS`, for all of which there is room; everything before the end is
    // written.
    unsafe {
        let Some(words) = put_short(buffer.room(), keys, values) else { return ptr::null_mut() };
        buffer.set_filled(words, N as u32);
    }
    t.items.set(buffer.next);
    held
}

/// Writes short values as items; returns how many words they take, or none if one of them is not short.
///
/// # Safety
/// There is room for [`SHORT_WORDS`] for each of them.
#[inline(always)]
pub(crate) unsafe fn put_short<const N: usize>(
    to: *mut u64,
    keys: &[Key; N],
    values: &[Value<'_>; N],
) -> Option<usize> {
    let mut words = 0;
    for (key, value) in keys.iter().zip(values) {
        // SAFETY: as the caller says.
        words += unsafe {
            let at = to.add(words);
            match *value {
                Value::U64(number) => put_number(at, key.name(), tag::U64, number),
                Value::I64(number) => put_number(at, key.name(), tag::I64, number as u64),
                Value::F64(number) => put_number(at, key.name(), tag::F64, number.to_bits()),
                Value::Str(text) => match put_text(at, key.name(), text.as_bytes()) {
                    0 => return None,
                    words => words,
                },
                _ => return None,
            }
        };
    }
    Some(words)
}

#[inline(always)]
unsafe fn put_number(at: *mut u64, key: Name, tag: u8, number: u64) -> usize {
    // SAFETY: the caller has room for two words.
    unsafe {
        put_head(at, key, tag, 8);
        at.add(1).write(number);
    }
    2
}

/// Writes an item's head by halves, which needs no constants of eight bytes.
#[inline(always)]
unsafe fn put_head(at: *mut u64, key: Name, tag: u8, bytes: usize) {
    let halves = at.cast::<u32>();
    // SAFETY: the caller has room for a word.
    unsafe {
        halves.write(key.0);
        halves.add(1).write((head(Name::NONE, tag, bytes) >> 32) as u32);
    }
}

/// Copies a text, zero-padded to whole words; returns how many words the item takes, 0 if the text is not short. May
/// write one word more, which is nobody's yet.
#[inline(always)]
unsafe fn put_text(at: *mut u64, key: Name, text: &[u8]) -> usize {
    let (len, from) = (text.len(), text.as_ptr());
    if len.wrapping_sub(8) > 8 {
        // SAFETY: as here.
        return unsafe { put_other_text(at, key, text) };
    }
    // SAFETY: the caller has room for the head and eight words; the source is read within its length only.
    unsafe {
        put_head(at, key, tag::STR, len);
        let to = at.add(1);
        // The last eight bytes overlap the first ones, and leave what is behind them zero. Of eight bytes there are
        // none left: the zeroes are not part of the text.
        to.add(1).write(0);
        to.write(read(from));
        to.byte_add(len - 8).write_unaligned(read(from.add(len - 8)));
    }
    (len as u32 as usize + 15) / 8
}

/// The same for a text of less than 8 or more than 16 bytes.
#[inline(never)]
unsafe fn put_other_text(at: *mut u64, key: Name, text: &[u8]) -> usize {
    let (len, from) = (text.len(), text.as_ptr());
    if len > SHORT_BYTES {
        return 0;
    }
    // SAFETY: as for `put_text`.
    unsafe {
        put_head(at, key, tag::STR, len);
        let to = at.add(1);
        if len >= 8 {
            for word in 0..len / 8 {
                to.add(word).write(read(from.add(word * 8)));
            }
            if len % 8 != 0 {
                to.add(len / 8).write(read(from.add(len - 8)) >> (8 * (8 - len % 8)));
            }
        } else if len >= 4 {
            let low = u64::from(from.cast::<u32>().read_unaligned());
            let high = u64::from(from.add(len - 4).cast::<u32>().read_unaligned());
            to.write(low | high << (8 * (len - 4)));
        } else if len > 0 {
            let middle = u64::from(*from.add(len / 2)) << (8 * (len / 2));
            to.write(u64::from(*from) | middle | u64::from(*from.add(len - 1)) << (8 * (len - 1)));
        }
    }
    1 + len.div_ceil(8)
}

#[inline(always)]
unsafe fn read(from: *const u8) -> u64 {
    // SAFETY: the caller has eight bytes there.
    unsafe { from.cast::<u64>().read_unaligned() }
}
