//! The bytes of a record. Little-endian words of eight bytes; `docs/format.md` has the same tables.
//!
//! ```text
//! timing    0  path u32 | flags u8 | kind u8 = 1 | words u16       words: length of the whole record
//!           8  span u32 | parent u32                               sequence numbers; parent 0: a root
//!          16  root u32 | duration u32                             ticks, unless LONG
//!          24  start u64                                           ticks
//!              duration u64                                        only with LONG
//!              depth u64                                           only with DEEPER
//!              items …                                             only with ITEMS, to the end (see `value`)
//!
//! metric    0  path u32 | flags u8 | kind u8 = 2 | words u16
//!           8  root u32 | parent u32                               the enclosing scope; 0: none
//!          16  value                                               as the VALUE bits of the flags say
//!          24  tick u64                                            the last one that the thread had read
//!              depth u64                                           only with DEEPER
//!              items …                                             only with ITEMS; the first is the value if VALUE is ITEM
//! ```
//!
//! With FOREIGN, `root` is an alias of the chunk's flow table; a `span` or `parent` may be one too.

use crate::name::Path;

/// A scope that closed.
pub(crate) const TIMING: u8 = 1;
/// A metric event.
pub(crate) const METRIC: u8 = 2;

/// Words of a record without extras.
pub(crate) const WORDS: usize = 4;

/// Flags of a record.
pub(crate) mod flag {
    /// The scope failed; an ERROR item says how.
    pub(crate) const FAILED: u8 = 1;
    /// Ids go through the flow table.
    pub(crate) const FOREIGN: u8 = 2;
    /// The duration does not fit 32 bits.
    pub(crate) const LONG: u8 = 4;
    /// The path ends at the limits; the depth follows.
    pub(crate) const DEEPER: u8 = 8;
    /// The root decided against recording.
    pub(crate) const UNSAMPLED: u8 = 16;
    /// Items follow.
    pub(crate) const ITEMS: u8 = 32;
    /// Of timings: the parent belongs to another flow, so this time is no part of its.
    pub(crate) const DETACHED: u8 = 64;
    /// Of metrics, in place of FAILED and LONG: how `value` is to be read.
    pub(crate) const VALUE: u8 = 1 | 4;
    pub(crate) const VALUE_I64: u8 = 0;
    pub(crate) const VALUE_U64: u8 = 1;
    pub(crate) const VALUE_F64: u8 = 4;
    pub(crate) const VALUE_ITEM: u8 = 5;
}

/// The first word.
#[inline(always)]
pub(crate) fn head(path: Path, flags: u8, kind: u8, words: usize) -> u64 {
    u64::from(path.0) | u64::from(flags) << 32 | u64::from(kind) << 40 | (words as u64) << 48
}

/// The upper half of the first word.
#[inline(always)]
pub(crate) const fn upper_head(flags: u8, kind: u8, words: usize) -> u32 {
    flags as u32 | (kind as u32) << 8 | (words as u32) << 16
}

/// The kind in a first word.
#[inline(always)]
pub(crate) fn kind_of(head: u64) -> u8 {
    (head >> 40) as u8
}

/// Two halves of a word, the low one first.
#[inline(always)]
pub(crate) fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The words as halves, and as quarters: what stands in one of them is read without taking words apart. All supported
/// platforms are little-endian.
#[inline(always)]
pub(crate) fn parts(words: &[u64; WORDS]) -> (&[u32; 2 * WORDS], &[u16; 4 * WORDS]) {
    let at: *const [u64; WORDS] = words;
    // SAFETY: the same bytes; smaller numbers ask for less alignment, and any bits are such numbers.
    unsafe { (&*at.cast(), &*at.cast()) }
}

/// One record, located.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    words: &'a [u64; WORDS],
    rest: &'a [u64],
    whole: &'a [u64],
}

impl<'a> Record<'a> {
    /// A view of the fixed part alone.
    pub(crate) fn fixed(words: &'a [u64; WORDS]) -> Self {
        Self { words, rest: &[], whole: words }
    }

    /// The record that the words are, all of them.
    #[inline]
    pub(crate) fn of(whole: &'a [u64]) -> Option<Self> {
        let (words, rest) = whole.split_first_chunk::<WORDS>()?;
        Some(Self { words, rest, whole })
    }

    /// The fixed part.
    pub(crate) fn fixed_words(&self) -> &'a [u64; WORDS] {
        self.words
    }

    /// The whole record.
    pub(crate) fn words(&self) -> &'a [u64] {
        self.whole
    }

    pub(crate) fn path(&self) -> Path {
        Path(self.words[0] as u32)
    }

    pub(crate) fn flags(&self) -> u8 {
        (self.words[0] >> 32) as u8
    }

    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags() & flags != 0
    }

    pub(crate) fn kind(&self) -> u8 {
        kind_of(self.words[0])
    }

    /// Of a timing.
    pub(crate) fn span(&self) -> u32 {
        self.words[1] as u32
    }

    pub(crate) fn parent(&self) -> u32 {
        (self.words[1] >> 32) as u32
    }

    pub(crate) fn root(&self) -> u32 {
        if self.kind() == METRIC { self.words[1] as u32 } else { self.words[2] as u32 }
    }

    /// Ticks.
    pub(crate) fn start(&self) -> u64 {
        self.words[3]
    }

    /// Ticks.
    pub(crate) fn duration(&self) -> u64 {
        if self.has(flag::LONG) { self.rest.first().copied().unwrap_or(0) } else { self.words[2] >> 32 }
    }

    /// Of a metric: the value word.
    pub(crate) fn value(&self) -> u64 {
        self.words[2]
    }

    pub(crate) fn depth(&self) -> u32 {
        if self.has(flag::DEEPER) {
            return self.rest.get(self.long_words()).map_or(0, |depth| *depth as u32);
        }
        self.path().levels().saturating_sub(1)
    }

    /// The items behind the fixed part.
    pub(crate) fn items(&self) -> &'a [u64] {
        self.rest.get(self.long_words() + usize::from(self.has(flag::DEEPER))..).unwrap_or(&[])
    }

    fn long_words(&self) -> usize {
        usize::from(self.kind() == TIMING && self.has(flag::LONG))
    }
}

/// The records in a run of words. Ends at the first word that is no record's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records<'a>(pub(crate) &'a [u64]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let (words, rest) = self.0.split_first_chunk::<WORDS>()?;
        let len = ((words[0] >> 48) as usize).checked_sub(WORDS)?;
        let (rest, after) = rest.split_at_checked(len)?;
        let whole = self.0.get(..len + WORDS)?;
        self.0 = after;
        Some(Record { words, rest, whole })
    }
}
