//! A set of small numbers, one bit each: which scopes a filter selects.

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// A set of numbers below `len`, all of them in it or none.
    pub(super) fn new(len: usize, are_in: bool) -> Self {
        Self { words: vec![if are_in { u64::MAX } else { 0 }; len.div_ceil(64)] }
    }

    #[inline]
    pub(super) fn has(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    pub(super) fn put(&mut self, number: usize) {
        if let Some(word) = self.words.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    pub(super) fn take(&mut self, number: usize) {
        if let Some(word) = self.words.get_mut(number / 64) {
            *word &= !(1 << (number % 64));
        }
    }
}
