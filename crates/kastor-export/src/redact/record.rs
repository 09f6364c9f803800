//! Redaction inside records, for a capture: in a copy of their bytes, in place, so that every length stays.
//!
//! Layout 1 of `docs/format.md`. A secret item keeps its key and its words. Its payload becomes [`REDACTED`] where there
//! is room for that (two words), else `redacted` (one word), and what is left of its words becomes an item of tag 20,
//! which means nothing and is skipped like any unknown one. Of a text that holds a secret by shape, only the secret is
//! replaced; where the mark would make the text longer than its words, `*` stands for it. Numbers under a hidden key
//! become texts. The values of numeric metrics are measurements and stay.

use std::borrow::Cow;

use kastor::Batch;

use super::{REDACTED, Redaction, replaced, shapes::Shapes};

/// An item that fills up what a redacted one left of its words.
const FILLER: u8 = 20;
const STR: u8 = 6;
const BYTES: u8 = 7;
const ERROR: u8 = 16;
const EVENT: u8 = 17;
/// The kind of a metric record.
const METRIC: u8 = 2;
/// Flags of a record.
const LONG: u8 = 4;
const DEEPER: u8 = 8;
const ITEMS: u8 = 32;
/// A metric whose value is the first item: both of these flags.
const VALUE_ITEM: u8 = 5;
const WORD: usize = 8;
const FIXED_WORDS: usize = 4;

/// Takes secrets out of copies of record bytes. Remembers which names are secret, so that each is looked at once; one
/// serves all batches of a process, but not those of another.
#[derive(Debug)]
pub struct RecordRedaction {
    redaction: Redaction,
    hidden_names: Vec<bool>,
    /// By path number: whether its last name is secret.
    hidden_paths: Vec<bool>,
    known_paths: u32,
}

impl RecordRedaction {
    /// Nothing known yet.
    pub fn new(redaction: Redaction) -> Self {
        Self { redaction, hidden_names: Vec::new(), hidden_paths: Vec::new(), known_paths: 0 }
    }

    /// Takes the secrets out of `copy`, which holds the batch's [`record_bytes`](Batch::record_bytes) or a run of whole
    /// records of it. Returns how many values it changed. Bytes that are no records are left alone.
    pub fn redact(&mut self, batch: &Batch<'_>, copy: &mut [u8]) -> u64 {
        if self.redaction.is_none() {
            return 0;
        }
        self.learn(batch);
        let mut changed = 0;
        let mut rest = copy;
        while let Some(head) = word(rest, 0) {
            let length = (head >> 48) as usize * WORD;
            if length < FIXED_WORDS * WORD || length > rest.len() {
                break;
            }
            let (record, behind) = std::mem::take(&mut rest).split_at_mut(length);
            if (head >> 32) as u8 & ITEMS != 0 {
                changed += self.record(head, record);
            }
            rest = behind;
        }
        changed
    }

    fn learn(&mut self, batch: &Batch<'_>) {
        let known = u32::try_from(self.hidden_names.len()).unwrap_or(u32::MAX);
        for (id, name) in batch.new_names(known) {
            set(&mut self.hidden_names, id, self.redaction.hides_key(name));
        }
        for (id, _, name) in batch.new_paths(self.known_paths) {
            set(&mut self.hidden_paths, id & !(1 << 31), self.redaction.hides_key(name));
            self.known_paths += 1;
        }
    }

    fn record(&self, head: u64, record: &mut [u8]) -> u64 {
        let (flags, kind) = ((head >> 32) as u8, (head >> 40) as u8);
        let is_metric = kind == METRIC;
        let extra = usize::from(flags & DEEPER != 0) + usize::from(!is_metric && flags & LONG != 0);
        let Some(items) = record.get_mut((FIXED_WORDS + extra) * WORD..) else { return 0 };
        let value_is_hidden = is_metric && flags & VALUE_ITEM == VALUE_ITEM && {
            let path = head as u32 & !(1 << 31);
            self.hidden_paths.get(path as usize).copied().unwrap_or(false)
        };
        self.items(items, value_is_hidden)
    }

    /// `first_is_hidden`: the first item is the value of a metric with a secret name.
    fn items(&self, items: &mut [u8], mut first_is_hidden: bool) -> u64 {
        let mut changed = 0;
        let mut rest = items;
        while let Some(head) = word(rest, 0) {
            let bytes = (head >> 40) as usize;
            let length = WORD + bytes.div_ceil(WORD) * WORD;
            if length > rest.len() {
                break;
            }
            let (item, behind) = std::mem::take(&mut rest).split_at_mut(length);
            changed += self.item(head, item, bytes, std::mem::take(&mut first_is_hidden));
            rest = behind;
        }
        changed
    }

    fn item(&self, head: u64, item: &mut [u8], bytes: usize, is_hidden: bool) -> u64 {
        let (key, tag) = (head as u32, (head >> 32) as u8);
        let Some(payload) = item.get(WORD..WORD + bytes) else { return 0 };
        let is_text = matches!(tag, STR | BYTES | ERROR);
        if tag == EVENT {
            // Its tick, then attributes.
            return item.get_mut(2 * WORD..).map_or(0, |items| self.items(items, false));
        }
        if !is_text && tag > BYTES || bytes == 0 {
            return 0;
        }
        if is_hidden || tag != ERROR && self.hidden_names.get(key as usize).copied().unwrap_or(false) {
            write(item, key, STR, if bytes > WORD { REDACTED } else { "redacted" });
            return 1;
        }
        let (true, Some(keys), Ok(text)) = (is_text, &self.redaction.keys, std::str::from_utf8(payload)) else {
            return 0;
        };
        let room = item.len() - WORD;
        let with = |mark| replaced(text, Shapes::new(text.as_bytes(), keys), mark);
        let Cow::Owned(mut safe) = with(REDACTED) else { return 0 };
        if safe.len() > room {
            // A secret has at least one byte, so this is no longer than before.
            safe = with("*").into_owned();
        }
        write(item, key, tag, &safe);
        1
    }
}

/// Overwrites an item with a shorter or equally long payload and a filler.
fn write(item: &mut [u8], key: u32, tag: u8, text: &str) {
    let Some((head, payload)) = item.split_at_mut_checked(WORD) else { return };
    payload.fill(0);
    let words = text.len().div_ceil(WORD) * WORD;
    let Some(place) = payload.get_mut(..text.len()) else { return };
    place.copy_from_slice(text.as_bytes());
    head.copy_from_slice(&item_head(key, tag, text.len()).to_le_bytes());
    if let Some((filler, nothing)) = payload.get_mut(words..).and_then(|rest| rest.split_at_mut_checked(WORD)) {
        filler.copy_from_slice(&item_head(0, FILLER, nothing.len()).to_le_bytes());
    }
}

fn item_head(key: u32, tag: u8, bytes: usize) -> u64 {
    u64::from(key) | u64::from(tag) << 32 | (bytes as u64) << 40
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + WORD)?.try_into().ok()?))
}

fn set(flags: &mut Vec<bool>, id: u32, flag: bool) {
    let at = id as usize;
    if flags.len() <= at {
        flags.resize(at + 1, false);
    }
    if let Some(place) = flags.get_mut(at) {
        *place = flag;
    }
}
