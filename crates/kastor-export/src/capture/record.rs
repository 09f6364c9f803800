//! Records as they stand in a capture, read by a decoder of its own.
//!
//! The bytes come from a file, so nothing about them is trusted: what is cut short reads as zero or ends the iteration,
//! and no more than [`MAX_ITEMS`] items and [`MAX_FLOWS`] flows are looked at. The layout is that of `docs/format.md`.
//! Fields are decoded when a getter asks.

use kastor::{Link, Outcome};

use super::{
    format::{BlockHeader, IndexEntry, valid},
    tables::Tables,
};
use crate::frame::{u32_at, u64_at};

pub(super) const RECORD_BYTES: usize = 32;
pub(super) const FLOW_BYTES: usize = 32;
/// Items of one record, or of one point event, that are looked at; the core writes fewer.
pub(super) const MAX_ITEMS: usize = 256;
/// Flows of one block that are looked at; no chunk of the core has room for more.
pub(super) const MAX_FLOWS: usize = 2048;

pub(super) const TIMING: u8 = 1;
pub(super) const METRIC: u8 = 2;

pub(super) mod flag {
    pub(in super::super) const FAILED: u8 = 1;
    pub(in super::super) const FOREIGN: u8 = 2;
    pub(in super::super) const LONG: u8 = 4;
    pub(super) const DEEPER: u8 = 8;
    pub(super) const UNSAMPLED: u8 = 16;
    pub(in super::super) const ITEMS: u8 = 32;
    pub(in super::super) const DETACHED: u8 = 64;
    pub(super) const VALUE: u8 = 5;
}

pub(super) mod tag {
    pub(crate) const NULL: u8 = 0;
    pub(crate) const FALSE: u8 = 1;
    pub(crate) const TRUE: u8 = 2;
    pub(crate) const I64: u8 = 3;
    pub(crate) const U64: u8 = 4;
    pub(crate) const F64: u8 = 5;
    pub(crate) const STR: u8 = 6;
    pub(crate) const BYTES: u8 = 7;
    pub(crate) const ERROR: u8 = 16;
    pub(crate) const EVENT: u8 = 17;
    pub(crate) const LINK: u8 = 18;
    pub(crate) const DROPPED: u8 = 19;
}

/// One record, located.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) fixed: &'a [u8; RECORD_BYTES],
    pub(super) rest: &'a [u8],
}

impl<'a> Raw<'a> {
    #[inline]
    pub(super) fn path(&self) -> u32 {
        u32_at(self.fixed, 0)
    }

    #[inline]
    pub(super) fn has(&self, flags: u8) -> bool {
        self.fixed[4] & flags != 0
    }

    #[inline]
    pub(super) fn kind(&self) -> u8 {
        self.fixed[5]
    }

    #[inline]
    pub(super) fn start(&self) -> u64 {
        u64_at(self.fixed, 24)
    }

    #[inline]
    pub(super) fn duration(&self) -> u64 {
        if self.has(flag::LONG) { u64_at(self.rest, 0) } else { u64::from(u32_at(self.fixed, 20)) }
    }

    fn long_bytes(&self) -> usize {
        if self.kind() == TIMING && self.has(flag::LONG) { 8 } else { 0 }
    }

    /// What stands between the fixed part and the items.
    pub(super) fn extra_bytes(&self) -> usize {
        self.long_bytes() + if self.has(flag::DEEPER) { 8 } else { 0 }
    }

    fn depth(&self, tables: &Tables) -> u32 {
        match self.has(flag::DEEPER) {
            true => u32_at(self.rest, self.long_bytes()),
            false => tables.levels(self.path()).saturating_sub(1),
        }
    }

    pub(super) fn items(&self) -> Items<'a> {
        if !self.has(flag::ITEMS) {
            return Items::new(&[]);
        }
        Items::new(self.rest.get(self.extra_bytes()..).unwrap_or(&[]))
    }
}

/// Ends at the first bytes that are no record.
#[derive(Clone, Copy)]
pub(super) struct RawRecords<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for RawRecords<'a> {
    type Item = Raw<'a>;

    #[inline]
    fn next(&mut self) -> Option<Raw<'a>> {
        let (fixed, rest) = self.0.split_first_chunk::<RECORD_BYTES>()?;
        let bytes = usize::from(u16::from_le_bytes([fixed[6], fixed[7]])) * 8;
        let (rest, after) = rest.split_at_checked(bytes.checked_sub(RECORD_BYTES)?)?;
        self.0 = after;
        Some(Raw { fixed, rest })
    }
}

/// A block: records of one thread, in the order in which they were written.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    pub(super) header: BlockHeader,
    records: &'a [u8],
    flows: &'a [u8],
    tables: &'a Tables,
    offset: u64,
}

impl<'a> Block<'a> {
    /// The block that a payload holds, if its parts have the lengths that it says.
    pub(super) fn new(header: BlockHeader, payload: &'a [u8], tables: &'a Tables, offset: u64) -> Option<Self> {
        let body = payload.get(super::format::BLOCK_HEADER_BYTES..)?;
        let (records, rest) = body.split_at_checked(header.record_bytes as usize)?;
        let flows = rest.get(..header.flow_bytes as usize)?;
        Some(Self { header, records, flows, tables, offset })
    }

    /// Where in the file its frame begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The number of its thread; [`Tables::thread`] knows more of it.
    pub fn thread(&self) -> u32 {
        self.header.thread
    }

    /// Number of records, as its header says.
    pub fn len(&self) -> u32 {
        self.header.records
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.header.records == 0
    }

    /// Scopes in it that failed.
    pub fn failures(&self) -> u32 {
        self.header.failures
    }

    /// Its number among the blocks of its thread, from 1.
    pub fn number(&self) -> u64 {
        self.header.blocks
    }

    /// The earliest moment in it: nanoseconds since 1970-01-01 UTC.
    pub fn first_unix_ns(&self) -> u64 {
        self.header.line.unix_ns(self.header.first_tick)
    }

    /// The latest moment in it: nanoseconds since 1970-01-01 UTC.
    pub fn last_unix_ns(&self) -> u64 {
        self.header.line.unix_ns(self.header.last_tick)
    }

    /// The longest duration in it, in nanoseconds.
    pub fn longest_ns(&self) -> u64 {
        self.header.line.duration_ns(self.header.longest_ticks)
    }

    /// What its numbers stand for.
    pub fn tables(&self) -> &'a Tables {
        self.tables
    }

    /// What an index says of it.
    pub fn index_entry(&self) -> IndexEntry {
        self.header.index_entry(self.offset)
    }

    /// The records as they left their thread, in the layout of `docs/format.md`.
    pub fn record_bytes(&self) -> &'a [u8] {
        self.records
    }

    /// The flow table that they refer to.
    pub fn flow_bytes(&self) -> &'a [u8] {
        self.flows
    }

    /// The records, one by one. What is neither a timing nor a metric is left out.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        RawRecords(self.records).filter_map(move |raw| match raw.kind() {
            TIMING => Some(Record::Timing(Timing { raw, block: self })),
            METRIC => Some(Record::Metric(Metric { raw, block: self })),
            _ => None,
        })
    }

    /// The timings alone.
    pub fn timings(&self) -> impl Iterator<Item = Timing<'_>> {
        RawRecords(self.records).filter(|raw| raw.kind() == TIMING).map(move |raw| Timing { raw, block: self })
    }

    /// Calls `f` with each timing and returns how many records are something else: one loop, which the compiler can see
    /// through, for sums over many millions.
    #[inline]
    pub fn for_each_timing(&self, mut f: impl FnMut(Timing<'_>)) -> u32 {
        let mut others = 0;
        for raw in RawRecords(self.records) {
            if raw.kind() == TIMING {
                f(Timing { raw, block: self });
            } else {
                others += 1;
            }
        }
        others
    }

    /// Whether the records are as many as the header says, whole, and nothing is left over.
    pub(super) fn is_whole(&self) -> bool {
        let mut raw = RawRecords(self.records);
        let records = raw.by_ref().count();
        records as u64 == u64::from(self.header.records) && raw.0.is_empty()
    }

    pub(super) fn flow(&self, alias: u32) -> Option<(u64, u128)> {
        let flow = self.flows.chunks_exact(FLOW_BYTES).take(MAX_FLOWS).find(|flow| u32_at(flow, 0) == alias)?;
        Some((u64_at(flow, 8), u128::from(u64_at(flow, 16)) << 64 | u128::from(u64_at(flow, 24))))
    }

    fn span_id(&self, raw: &Raw<'_>, sequence: u32) -> u64 {
        // Rare, and a search: only where the record says so.
        let flow = if raw.has(flag::FOREIGN) { self.flow(sequence) } else { None };
        flow.map_or_else(|| span_id(self.header.prefix, sequence), |(span_id, _)| span_id)
    }

    fn trace_id(&self, raw: &Raw<'_>, root: u32) -> u128 {
        let flow = if raw.has(flag::FOREIGN) { self.flow(root) } else { None };
        flow.map_or_else(|| trace_id(self.header.prefix, root), |(_, trace_id)| trace_id)
    }

    fn parent_span_id(&self, raw: &Raw<'_>) -> Option<u64> {
        match u32_at(raw.fixed, 12) {
            0 => None,
            parent => Some(self.span_id(raw, parent)).filter(|id| *id != 0),
        }
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

fn span_id(prefix: u64, sequence: u32) -> u64 {
    mix(prefix.wrapping_add(u64::from(sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15))).max(1)
}

fn trace_id(prefix: u64, root: u32) -> u128 {
    let low = mix(span_id(prefix, root) ^ 0x6a09_e667_f3bc_c908);
    u128::from(mix(prefix ^ 0xbb67_ae85_84ca_a73b).max(1)) << 64 | u128::from(low)
}

/// One record.
#[derive(Clone, Copy)]
pub enum Record<'a> {
    /// A scope that closed.
    Timing(Timing<'a>),
    /// A plain metric event.
    Metric(Metric<'a>),
}

/// A scope that closed.
#[derive(Clone, Copy)]
pub struct Timing<'a> {
    pub(super) raw: Raw<'a>,
    pub(super) block: &'a Block<'a>,
}

impl<'a> Timing<'a> {
    /// The path's number; [`Tables::path_text`] has its text.
    #[inline]
    pub fn path_id(&self) -> u32 {
        self.raw.path()
    }

    /// How long the scope was open, in nanoseconds.
    #[inline]
    pub fn duration_ns(&self) -> u64 {
        self.block.header.line.duration_ns(self.raw.duration())
    }

    /// How it ended.
    #[inline]
    pub fn outcome(&self) -> Outcome {
        if self.raw.has(flag::FAILED) { Outcome::Failed } else { Outcome::Completed }
    }

    /// Whether its parent belongs to another flow, so that its time is no part of the parent's.
    #[inline]
    pub fn is_detached(&self) -> bool {
        self.raw.has(flag::DETACHED)
    }

    /// Whether the root was sampled.
    pub fn is_sampled(&self) -> bool {
        !self.raw.has(flag::UNSAMPLED)
    }

    /// When it was opened: nanoseconds since 1970-01-01 UTC.
    pub fn start_unix_ns(&self) -> u64 {
        self.block.header.line.unix_ns(self.raw.start())
    }

    /// When it was opened: nanoseconds of the monotonic clock.
    pub fn start_monotonic_ns(&self) -> u64 {
        self.block.header.line.monotonic_ns(self.raw.start())
    }

    /// Number of scopes around it.
    pub fn depth(&self) -> u32 {
        self.raw.depth(self.block.tables)
    }

    /// Why it failed.
    pub fn error_type(&self) -> Option<&'a str> {
        let errors = self.raw.items().filter(|item| item.tag == tag::ERROR);
        errors.last().filter(|_| self.raw.has(flag::FAILED)).map(|item| valid(item.payload))
    }

    /// Keys and values in the order in which the keys were first given, each with its last value.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        self.raw.items().attributes(self.block.tables)
    }

    /// The point events, in order.
    pub fn events(&self) -> impl Iterator<Item = PointEvent<'a>> + use<'a> {
        let block = self.block;
        self.raw.items().filter(|item| item.tag == tag::EVENT).map(move |item| PointEvent { item, block })
    }

    /// The links to other scopes, in order.
    pub fn links(&self) -> impl Iterator<Item = Link> + use<'a> {
        self.raw.items().filter(|item| item.tag == tag::LINK).map(|item| Link {
            trace_id: u128::from(u64_at(item.payload, 0)) << 64 | u128::from(u64_at(item.payload, 8)),
            span_id: u64_at(item.payload, 16),
        })
    }

    /// How many attributes, events and links were cut or left out when it was recorded.
    pub fn dropped_items(&self) -> u64 {
        let dropped = self.raw.items().filter(|item| item.tag == tag::DROPPED);
        dropped.fold(0, |sum: u64, item| sum.saturating_add(u64_at(item.payload, 0)))
    }

    /// The trace that the scope belongs to.
    pub fn trace_id(&self) -> u128 {
        self.block.trace_id(&self.raw, u32_at(self.raw.fixed, 16))
    }

    /// The scope's own id.
    pub fn span_id(&self) -> u64 {
        self.block.span_id(&self.raw, u32_at(self.raw.fixed, 8))
    }

    /// The id of the enclosing scope, which may be another process's.
    pub fn parent_span_id(&self) -> Option<u64> {
        self.block.parent_span_id(&self.raw)
    }
}

/// A plain metric event.
#[derive(Clone, Copy)]
pub struct Metric<'a> {
    raw: Raw<'a>,
    block: &'a Block<'a>,
}

impl<'a> Metric<'a> {
    /// The number of its path, which is the scope's path and the metric's name.
    pub fn path_id(&self) -> u32 {
        self.raw.path()
    }

    /// The value.
    pub fn value(&self) -> StoredValue<'a> {
        let word = u64_at(self.raw.fixed, 16);
        match self.raw.fixed[4] & flag::VALUE {
            0 => StoredValue::I64(word as i64),
            1 => StoredValue::U64(word),
            4 => StoredValue::F64(f64::from_bits(word)),
            _ => self.raw.items().next().and_then(|item| item.value()).unwrap_or(StoredValue::Null),
        }
    }

    /// The last time that its thread had read: nanoseconds since 1970-01-01 UTC.
    pub fn unix_ns(&self) -> u64 {
        self.block.header.line.unix_ns(self.raw.start())
    }

    /// Number of scopes around it.
    pub fn depth(&self) -> u32 {
        self.raw.depth(self.block.tables)
    }

    /// Keys and values, as of a timing.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let mut items = self.raw.items();
        if self.raw.fixed[4] & flag::VALUE == flag::VALUE {
            items.next();
        }
        items.attributes(self.block.tables)
    }

    /// The trace of the enclosing scope, if there is one.
    pub fn trace_id(&self) -> Option<u128> {
        (u32_at(self.raw.fixed, 12) != 0).then(|| self.block.trace_id(&self.raw, u32_at(self.raw.fixed, 8)))
    }

    /// The enclosing scope's id, if there is one.
    pub fn parent_span_id(&self) -> Option<u64> {
        self.block.parent_span_id(&self.raw)
    }
}

/// Something that happened at one moment inside a scope.
#[derive(Clone, Copy)]
pub struct PointEvent<'a> {
    item: Item<'a>,
    block: &'a Block<'a>,
}

impl<'a> PointEvent<'a> {
    /// What happened.
    pub fn name(&self) -> &'a str {
        self.block.tables.name(self.item.key)
    }

    /// When: nanoseconds since 1970-01-01 UTC.
    pub fn unix_ns(&self) -> u64 {
        self.block.header.line.unix_ns(u64_at(self.item.payload, 0))
    }

    /// Keys and values.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        Items::new(self.item.payload.get(8..).unwrap_or(&[])).attributes(self.block.tables)
    }
}

/// A key and a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribute<'a> {
    /// The key.
    pub key: &'a str,
    /// The value.
    pub value: StoredValue<'a>,
}

/// A value as it was kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StoredValue<'a> {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// A floating-point number.
    F64(f64),
    /// Text.
    Str(&'a str),
    /// Bytes that are no text.
    Bytes(&'a [u8]),
}

impl<'a> StoredValue<'a> {
    /// The value with this tag; none if that is no value's.
    pub(super) fn decode(tag: u8, payload: &'a [u8]) -> Option<Self> {
        Some(match tag {
            tag::NULL => Self::Null,
            tag::FALSE => Self::Bool(false),
            tag::TRUE => Self::Bool(true),
            tag::I64 => Self::I64(u64_at(payload, 0) as i64),
            tag::U64 => Self::U64(u64_at(payload, 0)),
            tag::F64 => Self::F64(f64::from_bits(u64_at(payload, 0))),
            tag::STR => Self::Str(valid(payload)),
            tag::BYTES => Self::Bytes(payload),
            _ => return None,
        })
    }
}

#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) key: u32,
    pub(super) tag: u8,
    pub(super) payload: &'a [u8],
}

impl<'a> Item<'a> {
    fn value(&self) -> Option<StoredValue<'a>> {
        StoredValue::decode(self.tag, self.payload)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Items<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Items<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, left: MAX_ITEMS }
    }

    fn attributes(self, tables: &'a Tables) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let values = move || self.filter_map(|item| Some((item.key, item.value()?)));
        values().enumerate().filter_map(move |(at, (key, _))| {
            let is_repeated = values().take(at).any(|(earlier, _)| earlier == key);
            let (_, value) = values().filter(|(other, _)| *other == key).last().filter(|_| !is_repeated)?;
            Some(Attribute { key: tables.name(key), value })
        })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (head, rest) = self.bytes.split_first_chunk::<8>()?;
        let head = u64::from_le_bytes(*head);
        let bytes = (head >> 40) as usize;
        let payload = rest.get(..bytes)?;
        self.bytes = rest.get(bytes.next_multiple_of(8)..).unwrap_or(&[]);
        Some(Item { key: head as u32, tag: (head >> 32) as u8, payload })
    }
}
