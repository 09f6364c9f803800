//! The record layout: a reader that knows nothing but `docs/format.md` finds in the bytes of a batch what the getters of
//! the same batch say.

use std::{
    collections::HashMap,
    mem,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use kastor::{
    Batch, Carrier, Error, Event, FutureExt, Metric, MockClock, Outcome, Recording, Reporter, Telemetry, Timing,
    TraceParent, Value, background, metric, scope,
};

const LONG: Duration = Duration::from_secs(if cfg!(miri) { 1000 } else { 60 });
const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

// The reader, from the document alone.

const FAILED: u8 = 1;
const FOREIGN: u8 = 2;
const LONG_DURATION: u8 = 4;
const DEEPER: u8 = 8;
const UNSAMPLED: u8 = 16;
const ITEMS: u8 = 32;
const DETACHED: u8 = 64;
const RESERVED: u8 = 128;
const VALUE: u8 = 5;

#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Null,
    Bool(bool),
    I64(i64),
    U64(u64),
    /// By its bits: also NaN is equal to itself.
    F64(u64),
    Text(String),
    Bytes(Vec<u8>),
}

type Keys = Vec<(String, Kept)>;

#[derive(Clone, Debug, PartialEq)]
struct Closed {
    scope: String,
    path: u32,
    depth: u32,
    trace: u128,
    span: u64,
    parent: Option<u64>,
    start: u64,
    duration: u64,
    is_failed: bool,
    error: Option<String>,
    is_sampled: bool,
    attributes: Keys,
    events: Vec<(String, u64, Keys)>,
    links: Vec<(u128, u64)>,
    dropped: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Noted {
    scope: String,
    path: u32,
    depth: u32,
    trace: Option<u128>,
    parent: Option<u64>,
    tick: u64,
    value: Kept,
    attributes: Keys,
}

#[derive(Clone, Debug, PartialEq)]
enum One {
    Timing(Closed),
    Metric(Noted),
}

struct Item<'a> {
    key: u32,
    tag: u8,
    payload: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// One record after another; each says how long it is.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while bytes.len() >= 32 {
        let len = usize::from(u16_at(bytes, 6)) * 8;
        if len < 32 || len > bytes.len() {
            break;
        }
        let (record, rest) = bytes.split_at(len);
        all.push(record);
        bytes = rest;
    }
    all
}

fn items(mut bytes: &[u8]) -> Vec<Item<'_>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let len = u32_at(bytes, 4) as usize >> 8;
        let end = 8 + len.next_multiple_of(8);
        assert!(bytes[8 + len..end].iter().all(|it| *it == 0), "filled up with zeros");
        all.push(Item { key: u32_at(bytes, 0), tag: bytes[4], payload: &bytes[8..8 + len] });
        bytes = &bytes[end..];
    }
    all
}

fn kept(item: &Item<'_>) -> Option<Kept> {
    let number = || u64_at(item.payload, 0);
    let (value, len) = match item.tag {
        0 => (Kept::Null, 0),
        1 => (Kept::Bool(false), 0),
        2 => (Kept::Bool(true), 0),
        3 => (Kept::I64(number() as i64), 8),
        4 => (Kept::U64(number()), 8),
        5 => (Kept::F64(number()), 8),
        6 => (Kept::Text(String::from_utf8(item.payload.to_vec()).unwrap()), item.payload.len()),
        7 => (Kept::Bytes(item.payload.to_vec()), item.payload.len()),
        _ => return None,
    };
    assert_eq!(item.payload.len(), len, "tag {}", item.tag);
    assert!(len <= 4096, "{len} bytes");
    Some(value)
}

fn mix(mut w: u64) -> u64 {
    w = (w ^ (w >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    w = (w ^ (w >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    w ^ (w >> 31)
}

fn span_id(prefix: u64, sequence: u32) -> u64 {
    mix(prefix.wrapping_add(u64::from(sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15))).max(1)
}

fn trace_id(prefix: u64, root: u32) -> u128 {
    let upper = mix(prefix ^ 0xbb67_ae85_84ca_a73b).max(1);
    let lower = mix(span_id(prefix, root) ^ 0x6a09_e667_f3bc_c908);
    u128::from(upper) << 64 | u128::from(lower)
}

struct Flow {
    alias: u32,
    span: u64,
    trace: u128,
}

/// What is needed besides the bytes of the records.
struct Reader {
    names: HashMap<u32, String>,
    /// Without bit 31, as records are looked up.
    paths: HashMap<u32, (Option<u32>, String)>,
    flows: Vec<Flow>,
    prefix: u64,
}

impl Reader {
    fn of(batch: &Batch<'_>) -> Self {
        let number = |id: u32| id & !(1 << 31);
        let flows = batch.flow_bytes().chunks(32).map(|flow| {
            assert_eq!(u32_at(flow, 4) & !2, 0, "flags of a flow");
            let trace = u128::from(u64_at(flow, 16)) << 64 | u128::from(u64_at(flow, 24));
            Flow { alias: u32_at(flow, 0), span: u64_at(flow, 8), trace }
        });
        let paths = batch.new_paths(0).map(|(id, parent, name)| (number(id), (parent.map(number), name.to_owned())));
        Self {
            names: batch.new_names(0).map(|(id, text)| (id, text.to_owned())).collect(),
            paths: paths.collect(),
            flows: flows.collect(),
            prefix: batch.id_prefix(),
        }
    }

    fn name(&self, number: u32) -> String {
        self.names[&number].clone()
    }

    /// The names of a path as a record has it, the outermost first.
    fn path(&self, path: u32) -> Vec<&str> {
        let (mut names, mut at) = (Vec::new(), Some(path & !(1 << 31)));
        while let Some(number) = at {
            let (parent, name) = &self.paths[&number];
            names.push(name.as_str());
            at = *parent;
        }
        names.reverse();
        names
    }

    /// Its text, as `docs/semantics.md` has it for places below the limits.
    fn text(&self, path: u32) -> String {
        let names = self.path(path);
        match names.split_last() {
            Some((&"(deeper)", above)) if path >> 31 == 1 => above.join(".") + "….(deeper)",
            _ => names.join("."),
        }
    }

    /// The flow that a number stands for, if the record looks there.
    fn flow(&self, flags: u8, number: u32) -> Option<&Flow> {
        self.flows.iter().find(|flow| flags & FOREIGN != 0 && flow.alias == number)
    }

    fn span(&self, flags: u8, number: u32) -> u64 {
        self.flow(flags, number).map_or_else(|| span_id(self.prefix, number), |flow| flow.span)
    }

    fn trace(&self, flags: u8, root: u32) -> u128 {
        self.flow(flags, root).map_or_else(|| trace_id(self.prefix, root), |flow| flow.trace)
    }

    fn parent(&self, flags: u8, parent: u32) -> Option<u64> {
        Some(self.span(flags, parent)).filter(|id| parent != 0 && *id != 0)
    }

    fn attributes(&self, items: &[Item<'_>]) -> Keys {
        let mut all: Keys = Vec::new();
        for item in items {
            let Some(value) = kept(item) else { continue };
            let key = self.name(item.key);
            match all.iter_mut().find(|(known, _)| *known == key) {
                Some((_, newest)) => *newest = value,
                None => all.push((key, value)),
            }
        }
        all
    }

    /// The depth, and where the items begin.
    fn depth(&self, record: &[u8], at: usize) -> (u32, usize) {
        let (path, flags) = (u32_at(record, 0), record[4]);
        assert_eq!(flags & DEEPER != 0, path >> 31 == 1, "the path ends at the limits, and the depth follows");
        match flags & DEEPER {
            0 => (self.path(path).len() as u32 - 1, at),
            _ => (u32_at(record, at), at + 8),
        }
    }

    fn timing(&self, record: &[u8]) -> Closed {
        let (path, flags) = (u32_at(record, 0), record[4]);
        let (short, at) = (u64::from(u32_at(record, 20)), 32);
        let (duration, at) = if flags & LONG_DURATION == 0 { (short, at) } else { (u64_at(record, at), at + 8) };
        let (depth, at) = self.depth(record, at);
        assert_eq!(flags & ITEMS != 0, at < record.len(), "items to the end of the record");
        let items = items(&record[at..]);
        let with = |tag: u8| items.iter().filter(move |item| item.tag == tag);
        let error = with(16).next_back().map(|item| String::from_utf8(item.payload.to_vec()).unwrap());
        assert_eq!(flags & FAILED != 0, error.is_some(), "an item ERROR says how");
        assert!([16, 18, 19].into_iter().flat_map(with).all(|item| item.key == 0));
        Closed {
            scope: self.text(path),
            path,
            depth,
            trace: self.trace(flags, u32_at(record, 16)),
            span: self.span(flags, u32_at(record, 8)),
            parent: self.parent(flags, u32_at(record, 12)),
            start: u64_at(record, 24),
            duration,
            is_failed: flags & FAILED != 0,
            error,
            is_sampled: flags & UNSAMPLED == 0,
            attributes: self.attributes(&items),
            events: with(17).map(|item| self.event(item)).collect(),
            links: with(18).map(|item| link(item.payload)).collect(),
            dropped: with(19).map(|item| u64_at(item.payload, 0)).sum(),
        }
    }

    fn event(&self, item: &Item<'_>) -> (String, u64, Keys) {
        (self.name(item.key), u64_at(item.payload, 0), self.attributes(&items(&item.payload[8..])))
    }

    fn metric(&self, record: &[u8]) -> Noted {
        let (path, flags, parent) = (u32_at(record, 0), record[4], u32_at(record, 12));
        let (depth, at) = self.depth(record, 32);
        assert_eq!(flags & ITEMS != 0, at < record.len(), "items to the end of the record");
        let items = items(&record[at..]);
        let number = u64_at(record, 16);
        let (value, rest) = match flags & VALUE {
            0 => (Kept::I64(number as i64), &items[..]),
            1 => (Kept::U64(number), &items[..]),
            4 => (Kept::F64(number), &items[..]),
            _ => {
                assert_eq!(items[0].key, 0);
                (kept(&items[0]).unwrap(), &items[1..])
            }
        };
        Noted {
            scope: self.text(path),
            path,
            depth,
            trace: (parent != 0).then(|| self.trace(flags, u32_at(record, 8))),
            parent: self.parent(flags, parent),
            tick: u64_at(record, 24),
            value,
            attributes: self.attributes(rest),
        }
    }

    fn one(&self, record: &[u8]) -> One {
        assert_eq!(record[4] & RESERVED, 0);
        match record[5] {
            1 => One::Timing(self.timing(record)),
            2 => One::Metric(self.metric(record)),
            kind => panic!("kind {kind}"),
        }
    }
}

fn link(payload: &[u8]) -> (u128, u64) {
    assert_eq!(payload.len(), 24);
    (u128::from(u64_at(payload, 0)) << 64 | u128::from(u64_at(payload, 8)), u64_at(payload, 16))
}

// The same, from the getters.

fn value(value: Value<'_>) -> Kept {
    match value {
        Value::Null => Kept::Null,
        Value::Bool(it) => Kept::Bool(it),
        Value::I64(it) => Kept::I64(it),
        Value::U64(it) => Kept::U64(it),
        Value::F64(it) => Kept::F64(it.to_bits()),
        Value::Str(it) => Kept::Text(it.to_owned()),
        Value::Bytes(it) => Kept::Bytes(it.to_vec()),
        other => panic!("not as it was recorded: {other:?}"),
    }
}

fn keys(attributes: kastor::Attributes<'_>) -> Keys {
    attributes.map(|(key, it)| (key.to_owned(), value(it))).collect()
}

/// Under a mock clock a tick is a nanosecond of the monotonic clock, and the Unix clock is so far ahead of it.
fn closed(timing: &Timing<'_>, ahead: u64) -> Closed {
    assert_eq!(timing.start_unix_ns(), timing.start_monotonic_ns() + ahead);
    assert_eq!(timing.end_monotonic_ns(), timing.start_monotonic_ns() + timing.duration_ns());
    Closed {
        scope: timing.scope().to_owned(),
        path: timing.path_id(),
        depth: timing.depth(),
        trace: timing.trace_id(),
        span: timing.span_id(),
        parent: timing.parent_span_id(),
        start: timing.start_monotonic_ns(),
        duration: timing.duration_ns(),
        is_failed: timing.outcome() == Outcome::Failed,
        error: timing.error_type().map(str::to_owned),
        is_sampled: timing.is_sampled(),
        attributes: keys(timing.attributes()),
        events: timing.events().map(|it| (it.name().to_owned(), it.unix_ns() - ahead, keys(it.attributes()))).collect(),
        links: timing.links().map(|it| (it.trace_id, it.span_id)).collect(),
        dropped: timing.dropped_items(),
    }
}

fn noted(metric: &Metric<'_>, ahead: u64) -> Noted {
    assert_eq!(metric.unix_ns(), metric.monotonic_ns() + ahead);
    Noted {
        scope: metric.scope().to_owned(),
        path: metric.path_id(),
        depth: metric.depth(),
        trace: metric.trace_id(),
        parent: metric.parent_span_id(),
        tick: metric.monotonic_ns(),
        value: value(metric.value()),
        attributes: keys(metric.attributes()),
    }
}

/// Reads a batch in both ways, which agree; returns what they say, with the flags of each record.
fn read(batch: &Batch<'_>) -> Vec<(One, u8)> {
    assert_eq!(batch.record_bytes().len() % 8, 0);
    assert_eq!(batch.record_bytes().as_ptr().addr() % 8, 0);
    assert_eq!(batch.flow_bytes().len() % 32, 0);
    let (reader, records) = (Reader::of(batch), records(batch.record_bytes()));
    let tiled: usize = records.iter().map(|record| record.len()).sum();
    assert_eq!(tiled, batch.record_bytes().len(), "the records tile the bytes");
    assert_eq!(records.len() as u64, batch.len());
    let anchor = batch.timeline().anchor();
    assert_eq!((anchor.monotonic_ns, batch.timeline().ns_per_tick()), (anchor.ticks, 1.0));
    let ahead = anchor.unix_ns - anchor.ticks;
    let told = batch.events().map(|event| match event {
        Event::Timing(timing) => One::Timing(closed(&timing, ahead)),
        Event::Metric(metric) => One::Metric(noted(&metric, ahead)),
    });
    let read: Vec<One> = records.iter().map(|record| reader.one(record)).collect();
    assert_eq!(read, told.collect::<Vec<_>>());
    read.into_iter().zip(records).map(|(one, record)| (one, record[4])).collect()
}

/// Reads in the background, where batches are as they left their thread.
#[derive(Clone, Default)]
struct Background(Arc<Mutex<Vec<(One, u8)>>>);

impl Reporter for Background {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        let read = read(batch);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(read);
        Ok(())
    }
}

struct Program {
    clock: MockClock,
    tele: Telemetry,
    recording: Recording,
    background: Background,
}

impl Program {
    fn new() -> Self {
        let (clock, recording, kept) = (MockClock::new(), Recording::new(64 << 20), Background::default());
        let builder = Telemetry::builder().clock(clock.clone()).reporter(recording.clone());
        let tele = builder.reporter(background(kept.clone())).build();
        Self { clock, tele, recording, background: kept }
    }

    fn advance(&self, ns: u64) {
        self.clock.advance(Duration::from_nanos(ns));
    }

    /// Everything so far, which is forgotten.
    #[track_caller]
    fn take(&self) -> Vec<(One, u8)> {
        assert!(self.tele.flush(LONG).is_complete());
        let mut all = Vec::new();
        self.recording.for_each_batch(|batch| all.extend(read(batch)));
        self.recording.clear();
        let stats = self.tele.stats();
        assert!(stats.reporters().iter().all(|it| it.dropped().total() == 0), "{stats:?}");
        // Each reporter gets the events of a thread in their order, but not the threads in the same one.
        let sorted = |all: &[(One, u8)]| {
            let mut lines: Vec<String> = all.iter().map(|it| format!("{it:?}")).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&mem::take(&mut *self.background.0.lock().unwrap())), sorted(&all));
        all
    }

    #[track_caller]
    fn timings(&self) -> Vec<(Closed, u8)> {
        let timings = self.take().into_iter().map(|(one, flags)| match one {
            One::Timing(timing) => (timing, flags),
            One::Metric(metric) => panic!("{metric:?}"),
        });
        timings.collect()
    }

    #[track_caller]
    fn metrics(&self) -> Vec<(Noted, u8)> {
        let metrics = self.take().into_iter().filter_map(|(one, flags)| match one {
            One::Metric(metric) => Some((metric, flags)),
            One::Timing(_) => None,
        });
        metrics.collect()
    }

    #[track_caller]
    fn only(&self) -> (Closed, u8) {
        let [one] = <[_; 1]>::try_from(self.timings()).unwrap();
        one
    }
}

fn attribute(key: &str, value: Kept) -> (String, Kept) {
    (key.to_owned(), value)
}

const START: u64 = 1_000_000_000;

#[test]
fn a_child_stands_before_its_parent_and_both_have_their_ticks_and_ids() {
    let program = Program::new();
    {
        let _outer = scope!(program.tele, "format.outer");
        program.advance(7);
        {
            let _inner = scope!(program.tele, "inner");
            program.advance(20);
        }
        program.advance(3);
    }
    let [(inner, inner_flags), (outer, outer_flags)] = <[_; 2]>::try_from(program.timings()).unwrap();
    assert_eq!((inner_flags, outer_flags), (0, 0));
    assert_eq!((inner.scope.as_str(), inner.start, inner.duration), ("format.outer.inner", START + 7, 20));
    assert_eq!((outer.scope.as_str(), outer.start, outer.duration), ("format.outer", START, 30));
    assert_eq!((outer.depth, inner.depth), (0, 1));
    assert_eq!((outer.parent, inner.parent), (None, Some(outer.span)));
    assert_eq!(outer.trace, inner.trace);
}

#[test]
fn a_duration_beyond_32_bits_has_a_word_of_its_own() {
    let program = Program::new();
    for ns in [u64::from(u32::MAX), u64::from(u32::MAX) + 1, 5_000_000_000, 1 << 50] {
        let scope = scope!(program.tele, "format.long");
        program.advance(ns);
        drop(scope);
        let (timing, flags) = program.only();
        assert_eq!(timing.duration, ns);
        assert_eq!(flags, if ns > u64::from(u32::MAX) { LONG_DURATION } else { 0 });
    }
    let scope = scope!(program.tele, "format.long", size = 3);
    program.advance(5_000_000_000);
    scope.fail("slow");
    drop(scope);
    let (timing, flags) = program.only();
    assert_eq!((timing.duration, flags), (5_000_000_000, LONG_DURATION | ITEMS | FAILED));
    assert_eq!(timing.attributes, [attribute("size", Kept::I64(3))]);
}

#[test]
#[cfg_attr(miri, ignore = "300 levels take ten minutes and more")]
fn below_the_deepest_path_the_depth_follows() {
    let program = Program::new();
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(program.tele.scope("d"));
        if open.len() >= 255 {
            program.tele.metric("m", 1_u64, &[]);
            program.tele.metric("m", "text", &[("depth", open.len().into())]);
        }
    }
    open[299].set("innermost", true);
    program.advance(5_000_000_000);
    while let Some(scope) = open.pop() {
        drop(scope);
    }
    let (mut closing, mut around) = (300, Vec::new());
    for (one, flags) in program.take() {
        match one {
            One::Timing(timing) => {
                closing -= 1;
                assert_eq!(timing.depth, closing);
                let is_deeper = closing >= 256;
                assert_eq!(timing.scope.ends_with("d….(deeper)"), is_deeper, "{}", timing.scope);
                assert_eq!(timing.path >> 31 == 1, is_deeper);
                let items = if closing == 299 { ITEMS } else { 0 };
                assert_eq!(flags, items | LONG_DURATION | if is_deeper { DEEPER } else { 0 });
            }
            One::Metric(metric) => {
                assert_eq!(flags & DEEPER != 0, metric.depth >= 256, "{}", metric.depth);
                around.push(metric.depth);
            }
        }
    }
    assert_eq!(closing, 0);
    assert_eq!(around, (255..=300).flat_map(|depth| [depth, depth]).collect::<Vec<_>>());
}

/// One value of every kind, with what is kept of it.
fn values() -> Vec<(&'static str, Value<'static>, Kept)> {
    vec![
        ("null", Value::Null, Kept::Null),
        ("no", Value::Bool(false), Kept::Bool(false)),
        ("yes", Value::Bool(true), Kept::Bool(true)),
        ("i64_min", Value::I64(i64::MIN), Kept::I64(i64::MIN)),
        ("i64", Value::I64(-1), Kept::I64(-1)),
        ("u64", Value::U64(u64::MAX), Kept::U64(u64::MAX)),
        ("f64", Value::F64(-0.0), Kept::F64((-0.0_f64).to_bits())),
        ("nan", Value::F64(f64::NAN), Kept::F64(f64::NAN.to_bits())),
        ("empty", Value::Str(""), Kept::Text(String::new())),
        ("seven", Value::Str("1234567"), Kept::Text("1234567".into())),
        ("eight", Value::Str("12345678"), Kept::Text("12345678".into())),
        ("nine", Value::Str("1234567ä"), Kept::Text("1234567ä".into())),
        ("no_bytes", Value::Bytes(&[]), Kept::Bytes(Vec::new())),
        ("bytes", Value::Bytes(&[0, 255, 128]), Kept::Bytes(vec![0, 255, 128])),
        ("display", Value::Display(&'x'), Kept::Text("x".into())),
        ("debug", Value::Debug(&'x'), Kept::Text("'x'".into())),
    ]
}

#[test]
fn attributes_of_every_kind_are_items() {
    let program = Program::new();
    let all = values();
    let scope = scope!(program.tele, "format.attributes");
    all.iter().for_each(|(key, value, _)| scope.set(key, *value));
    drop(scope);
    let (timing, flags) = program.only();
    assert_eq!(flags, ITEMS);
    assert_eq!(timing.attributes, all.iter().map(|it| attribute(it.0, it.2.clone())).collect::<Vec<_>>());
}

#[test]
fn a_key_stands_where_it_was_first_given_and_has_the_last_value() {
    let program = Program::new();
    let scope = scope!(program.tele, "format.keys", a = 1, b = 2);
    scope.set("a", "three");
    scope.set("c", 4_u64);
    scope.set("b", Value::Null);
    drop(scope);
    let (timing, _) = program.only();
    let expected =
        [("a", Kept::Text("three".into())), ("b", Kept::Null), ("c", Kept::U64(4))].map(|(key, it)| attribute(key, it));
    assert_eq!(timing.attributes, expected);
}

#[test]
fn point_events_links_and_failures_are_items_but_no_attributes() {
    let program = Program::new();
    let other = program.tele.scope("format.other").carrier();
    let (caused, _) = program.only();
    let remote = Carrier::from_trace_parent(&TraceParent::parse(HEADER).unwrap());
    let scope = scope!(program.tele, "format.everything", before = 1);
    program.advance(11);
    scope.event("bare");
    program.advance(6);
    let all = values();
    scope.event_with("full", &all.iter().map(|(key, value, _)| (*key, *value)).collect::<Vec<_>>());
    scope.link(other);
    scope.link(remote);
    scope.fail("first");
    scope.fail("second");
    scope.set("after", 2_u64);
    drop(scope);
    let (timing, flags) = program.only();
    assert_eq!(flags, ITEMS | FAILED);
    assert_eq!(timing.attributes, [attribute("before", Kept::I64(1)), attribute("after", Kept::U64(2))]);
    let full = all.iter().map(|it| attribute(it.0, it.2.clone())).collect();
    assert_eq!(timing.events, [("bare".into(), START + 11, vec![]), ("full".into(), START + 17, full)]);
    assert_eq!(timing.links, [(caused.trace, caused.span), (TRACE, SPAN)]);
    assert_eq!(timing.error.as_deref(), Some("second"));
    assert_eq!(timing.dropped, 0);
}

#[test]
fn a_failure_without_a_word_still_has_its_item() {
    let program = Program::new();
    scope!(program.tele, "format.wordless").fail("");
    let (timing, flags) = program.only();
    assert_eq!((timing.error.as_deref(), flags), (Some(""), ITEMS | FAILED));
}

#[test]
fn what_was_cut_or_left_out_is_counted_in_the_record() {
    let program = Program::new();
    let long = "ä".repeat(2500);
    let scope = scope!(program.tele, "format.dropped", cut = long.as_str());
    (0..130).for_each(|number| scope.event_with("one", &[("number", Value::I64(number))]));
    scope.fail("full");
    drop(scope);
    let (timing, flags) = program.only();
    assert_eq!(flags, ITEMS | FAILED);
    assert_eq!(timing.attributes, [attribute("cut", Kept::Text("ä".repeat(2048)))]);
    assert_eq!(timing.events.len(), 127);
    assert_eq!(timing.dropped, 4, "the cut value, and three events");
    assert_eq!(timing.error.as_deref(), Some("full"));
    let bytes = vec![7; 5000];
    drop(scope!(program.tele, "format.dropped", cut = &bytes[..]));
    let (timing, _) = program.only();
    assert_eq!((timing.attributes, timing.dropped), (vec![attribute("cut", Kept::Bytes(vec![7; 4096]))], 1));
}

#[test]
fn a_record_may_be_as_long_as_the_limit_of_an_event() {
    let program = Program::new();
    let long = "x".repeat(4096);
    let scope = scope!(program.tele, "format.largest");
    let keys: Vec<&'static str> = (0..20).map(|n| &*format!("key_{n}").leak()).collect();
    keys.iter().for_each(|key| scope.set(key, long.as_str()));
    scope.fail(&long);
    drop(scope);
    let (timing, flags) = program.only();
    assert_eq!(flags, ITEMS | FAILED);
    assert_eq!(timing.attributes.len() as u64 + timing.dropped, 20);
    assert!(timing.attributes.len() >= 14, "{}", timing.attributes.len());
    assert_eq!(timing.error, Some(long));
}

/// The flags that say how a value of this kind is kept.
fn value_flags(value: &Kept) -> u8 {
    match value {
        Kept::I64(_) => 0,
        Kept::U64(_) => 1,
        Kept::F64(_) => 4,
        _ => 5 | ITEMS,
    }
}

#[test]
fn metrics_of_every_kind_have_their_value_in_the_record_or_as_its_first_item() {
    let program = Program::new();
    let mut expected = Vec::new();
    for (key, value, kept) in values() {
        program.tele.metric(key, value, &[]);
        metric!(program.tele, "format.metric", value);
        metric!(program.tele, "format.metric_with", value, before = value, "format.key" = 3, before = "last");
        for (name, attributes) in [
            (key, vec![]),
            ("format.metric", vec![]),
            (
                "format.metric_with",
                vec![attribute("before", Kept::Text("last".into())), attribute("format.key", Kept::I64(3))],
            ),
        ] {
            let items = if attributes.is_empty() { 0 } else { ITEMS };
            expected.push((name.to_owned(), kept.clone(), attributes, value_flags(&kept) | items));
        }
    }
    let all = program.metrics();
    assert!(all.iter().all(|(it, _)| (it.depth, it.trace, it.parent) == (0, None, None)));
    let read: Vec<_> = all.into_iter().map(|(it, flags)| (it.scope, it.value, it.attributes, flags)).collect();
    assert_eq!(read, expected);
}

#[test]
fn a_metric_has_the_ids_of_its_scope_and_the_last_tick_that_was_read() {
    let program = Program::new();
    let _current = program.tele.override_current();
    {
        let _root = scope!("format.around");
        let _inner = scope!("inner");
        program.advance(5);
        drop(scope!("before"));
        program.advance(9);
        metric!("size", 3_u64);
        metric!("size", "three", unit = "kg");
    }
    let all = program.take();
    let timing = |name: &str| {
        let found = all.iter().find_map(|(one, _)| match one {
            One::Timing(timing) if timing.scope == name => Some(timing),
            _ => None,
        });
        found.unwrap()
    };
    let inner = timing("format.around.inner");
    let metrics: Vec<_> = all
        .iter()
        .filter_map(|(one, _)| match one {
            One::Metric(metric) => Some(metric),
            One::Timing(_) => None,
        })
        .collect();
    assert_eq!(metrics.len(), 2);
    for metric in metrics {
        assert_eq!(metric.scope, "format.around.inner.size");
        assert_eq!((metric.depth, metric.parent, metric.trace), (2, Some(inner.span), Some(inner.trace)));
        assert_eq!(metric.tick, START + 5);
    }
    assert_eq!(timing("format.around").trace, inner.trace);
}

#[test]
fn a_metric_on_a_thread_that_has_read_no_tick_has_no_time_before_the_context() {
    let program = Program::new();
    thread::scope(|threads| {
        threads.spawn(|| metric!(program.tele, "format.fresh", 1));
    });
    let [(metric, _)] = <[_; 1]>::try_from(program.metrics()).unwrap();
    assert!(metric.tick >= START, "{}", metric.tick);
}

#[test]
fn the_macros_of_the_current_context_write_the_same_layout() {
    let program = Program::new();
    let _current = program.tele.override_current();
    let text = "text that is longer than some words".to_owned();
    for round in 0..40_u64 {
        let _root = scope!("format.hot");
        let failing = scope!("failing", round = round, part = 0.5, text = &text, yes = true, printed = %round);
        metric!("unsigned", round);
        metric!("signed", -1, round = round, text = text.as_str());
        metric!("double", 0.25, part = ?Some(1));
        metric!("text", text.as_str());
        metric!("nothing", None::<i64>, yes = false);
        failing.event_with("halfway", &[("round", round.into())]);
        program.advance(if round % 4 == 3 { 5_000_000_000 } else { 10 });
        match round % 3 {
            0 => failing.fail("third"),
            1 => failing.set("round", "again"),
            _ => {}
        }
    }
    let all = program.take();
    assert_eq!(all.len(), 40 * 7);
    for (round, seven) in all.chunks(7).enumerate() {
        let Some(((One::Timing(root), root_flags), rest)) = seven.split_last() else { panic!("{seven:?}") };
        let Some(((One::Timing(failing), flags), metrics)) = rest.split_last() else { panic!("{rest:?}") };
        let long = if round % 4 == 3 { LONG_DURATION } else { 0 };
        assert_eq!((*root_flags, root.scope.as_str(), root.parent), (long, "format.hot", None));
        let failed = if round % 3 == 0 { FAILED } else { 0 };
        assert_eq!((*flags, failing.parent, failing.trace), (long | failed | ITEMS, Some(root.span), root.trace));
        assert_eq!(failing.duration, if long == 0 { 10 } else { 5_000_000_000 });
        let again = if round % 3 == 1 { Kept::Text("again".into()) } else { Kept::U64(round as u64) };
        let expected = [
            ("round", again),
            ("part", Kept::F64(0.5_f64.to_bits())),
            ("text", Kept::Text(text.clone())),
            ("yes", Kept::Bool(true)),
            ("printed", Kept::Text(round.to_string())),
        ];
        assert_eq!(failing.attributes, expected.map(|(key, it)| attribute(key, it)));
        assert_eq!(failing.events[0].2, [attribute("round", Kept::U64(round as u64))]);
        let values = metrics.iter().map(|(one, flags)| match one {
            One::Metric(it) => {
                assert_eq!((it.parent, it.trace, it.depth), (Some(failing.span), Some(root.trace), 2));
                assert_eq!(it.tick, root.start);
                (it.value.clone(), it.attributes.len(), *flags)
            }
            One::Timing(timing) => panic!("{timing:?}"),
        });
        let expected = [
            (Kept::U64(round as u64), 0, 1),
            (Kept::I64(-1), 2, ITEMS),
            (Kept::F64(0.25_f64.to_bits()), 1, 4 | ITEMS),
            (Kept::Text(text.clone()), 0, 5 | ITEMS),
            (Kept::Null, 1, 5 | ITEMS),
        ];
        assert_eq!(values.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn failures_that_the_library_names_are_items_too() {
    let program = Program::new();
    // A join waits for the end of the thread-locals, the end of `thread::scope` does not.
    thread::scope(|threads| threads.spawn(|| mem::forget(scope!(program.tele, "format.leaked"))).join()).unwrap();
    let panicking = thread::scope(|threads| {
        let panicking = threads.spawn(|| {
            let _scope = scope!(program.tele, "format.panicking");
            std::panic::resume_unwind(Box::new(1));
        });
        panicking.join()
    });
    assert!(panicking.is_err());
    drop(async {}.in_scope(scope!(program.tele, "format.cancelled")));
    let mut read: Vec<_> = program.timings().into_iter().map(|(it, _)| (it.scope, it.error, it.attributes)).collect();
    read.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("format.cancelled", "cancelled", vec![]),
        ("format.leaked", "unfinished", vec![]),
        ("format.panicking", "panic", vec![]),
    ];
    assert_eq!(read, expected.map(|(scope, error, keys)| (scope.to_owned(), Some(error.to_owned()), keys)));
}

#[test]
#[cfg_attr(miri, ignore = "300 levels take ten minutes and more")]
fn in_the_list_of_paths_those_at_the_limits_have_bit_31_as_in_records() {
    let program = Program::new();
    let mut open: Vec<_> = (0..300).map(|_| program.tele.scope("e")).collect();
    while let Some(scope) = open.pop() {
        drop(scope);
    }
    assert!(program.tele.flush(LONG).is_complete());
    program.recording.for_each_batch(|batch| {
        assert!(batch.new_paths(0).all(|(id, _, name)| (id >> 31 == 1) == (name == "(deeper)")));
        assert!(batch.new_paths(0).any(|(id, ..)| id >> 31 == 1));
    });
}

#[test]
fn a_foreign_parent_is_looked_up_in_the_flow_table() {
    let program = Program::new();
    let remote = Carrier::from_trace_parent(&TraceParent::parse(HEADER).unwrap());
    {
        let _attached = remote.attach();
        metric!(program.tele, "format.outside", 1);
        let _serve = scope!(program.tele, "format.serve");
        metric!(program.tele, "inside", 2);
        drop(scope!(program.tele, "inner", size = 1));
    }
    drop(scope!(program.tele, "format.own"));
    let all = program.take();
    let flags: Vec<u8> = all.iter().map(|(_, flags)| *flags).collect();
    assert_eq!(flags, [FOREIGN, FOREIGN, FOREIGN | ITEMS, FOREIGN | DETACHED, 0]);
    let [One::Metric(outside), One::Metric(inside), One::Timing(inner), One::Timing(serve), One::Timing(own)] =
        <[One; 5]>::try_from(all.into_iter().map(|(one, _)| one).collect::<Vec<_>>()).unwrap()
    else {
        panic!("another order");
    };
    assert_eq!((outside.trace, outside.parent, outside.depth), (Some(TRACE), Some(SPAN), 0));
    assert_eq!((serve.trace, serve.parent, serve.depth), (TRACE, Some(SPAN), 0));
    assert_eq!((inner.trace, inner.parent, inner.depth), (TRACE, Some(serve.span), 1));
    assert_eq!((inside.trace, inside.parent, inside.depth), (Some(TRACE), Some(serve.span), 1));
    assert_ne!(own.trace, TRACE);
    assert_eq!(own.parent, None);
    assert!(inner.is_sampled && serve.is_sampled);
}

#[test]
fn an_unsampled_remote_parent_marks_timings_and_metrics() {
    let program = Program::new();
    let header = format!("{}00", &HEADER[..53]);
    {
        let _attached = Carrier::from_trace_parent(&TraceParent::parse(&header).unwrap()).attach();
        let _serve = scope!(program.tele, "format.unsampled");
        metric!(program.tele, "inside", 2);
        drop(scope!(program.tele, "inner"));
    }
    let flags: Vec<u8> = program.take().into_iter().map(|(_, flags)| flags).collect();
    assert_eq!(flags, [FOREIGN | UNSAMPLED, FOREIGN | UNSAMPLED, FOREIGN | UNSAMPLED | DETACHED]);
}

#[test]
fn several_foreign_flows_in_one_batch_are_kept_apart() {
    let program = Program::new();
    let parent = |number: u64| TraceParent::new(u128::from(number) << 64 | 5, number, true).unwrap();
    for number in 1..=40 {
        let _outer = Carrier::from_trace_parent(&parent(number)).attach();
        let _serve = scope!(program.tele, "format.flows");
        {
            let _inner = Carrier::from_trace_parent(&parent(number + 1000)).attach();
            drop(scope!(program.tele, "nested"));
        }
        drop(scope!(program.tele, "native"));
    }
    let read: Vec<_> = program.timings().into_iter().map(|(it, _)| (it.scope, it.trace >> 64, it.parent)).collect();
    let mut numbers = 1_u64..;
    for three in read.chunks(3) {
        let number = numbers.next().unwrap();
        let [nested, native, serve] = three else { panic!("{three:?}") };
        assert_eq!(*nested, ("nested".to_owned(), u128::from(number + 1000), Some(number + 1000)));
        assert_eq!((native.0.as_str(), native.1), ("format.flows.native", u128::from(number)));
        assert_eq!(*serve, ("format.flows".to_owned(), u128::from(number), Some(number)));
    }
    assert_eq!(read.len(), 120);
}

#[test]
fn a_scope_carried_to_another_thread_has_the_ids_that_the_first_thread_computes() {
    let program = Program::new();
    let root = scope!(program.tele, "format.here");
    let carrier = root.carrier();
    thread::scope(|threads| {
        threads.spawn(|| {
            let _attached = carrier.attach();
            drop(scope!(program.tele, "there"));
        });
    });
    drop(root);
    let all = program.timings();
    let of = |name: &str| all.iter().find(|(it, _)| it.scope == name).unwrap();
    let ((here, here_flags), (there, there_flags)) = (of("format.here"), of("format.here.there"));
    assert_eq!((*here_flags, *there_flags), (0, FOREIGN | DETACHED));
    assert_eq!((there.trace, there.parent, there.depth), (here.trace, Some(here.span), 1));
    assert_ne!(there.span, here.span);
}

#[test]
fn a_future_that_ends_elsewhere_has_the_ids_of_where_it_began() {
    let program = Program::new();
    let (root, future) = {
        let root = scope!(program.tele, "format.task_root");
        let task = scope!(program.tele, "task", step = 1);
        let inner = program.tele.clone();
        let future = async move {
            metric!(inner, "polled", true);
            drop(scope!(inner, "part"));
        }
        .in_scope(task);
        (root, future)
    };
    thread::scope(|threads| {
        threads.spawn(move || {
            let mut future = Box::pin(future);
            let waker = std::task::Waker::noop();
            assert!(future.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready());
        });
    });
    drop(root);
    let all = program.take();
    let timing = |name: &str| {
        let found = all.iter().find_map(|(one, _)| match one {
            One::Timing(timing) if timing.scope == name => Some(timing.clone()),
            _ => None,
        });
        found.unwrap()
    };
    let (root, task, part) =
        (timing("format.task_root"), timing("format.task_root.task"), timing("format.task_root.task.part"));
    assert_eq!((root.trace, root.parent), (task.trace, None));
    assert_eq!((task.parent, task.depth), (Some(root.span), 1));
    assert_eq!((part.trace, part.parent, part.depth), (task.trace, Some(task.span), 2));
    let polled = all.iter().find_map(|(one, _)| if let One::Metric(metric) = one { Some(metric) } else { None });
    let polled = polled.unwrap();
    assert_eq!(
        (polled.trace, polled.parent, polled.value.clone()),
        (Some(task.trace), Some(task.span), Kept::Bool(true))
    );
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn traces_of_one_thread_share_the_upper_half_of_their_id() {
    let program = Program::new();
    (0..1000).for_each(|_| drop(scope!(program.tele, "format.roots")));
    let mut traces: Vec<u128> = program.timings().into_iter().map(|(it, _)| it.trace).collect();
    let upper = traces[0] >> 64;
    assert!(upper != 0 && traces.iter().all(|it| it >> 64 == upper));
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 1000);
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn batches_of_many_sizes_are_tiled_by_their_records() {
    let program = Program::new();
    let text = "t".repeat(600);
    for number in 0..3000_usize {
        let scope = scope!(program.tele, "format.sizes");
        if number % 3 == 0 {
            scope.set("text", &text[..number % 600]);
        }
        program.advance(if number % 5 == 0 { 5_000_000_000 } else { 1 });
        metric!(program.tele, "size", number);
        metric!(program.tele, "text", &text[..number % 50]);
    }
    let all = program.take();
    assert_eq!(all.len(), 9000);
    let lens: Vec<usize> = all
        .iter()
        .filter_map(|(one, _)| match one {
            One::Metric(Noted { value: Kept::Text(text), .. }) => Some(text.len()),
            _ => None,
        })
        .collect();
    assert_eq!(lens, (0..3000).map(|number| number % 50).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_asks_for_what_is_new_gets_everything_once() {
    let program = Program::new();
    let (mut names, mut paths) = (Vec::new(), Vec::new());
    for number in 0..20 {
        drop(program.tele.scope(&format!("format.new_{number}")));
        assert!(program.tele.flush(LONG).is_complete());
        program.recording.for_each_batch(|batch| {
            names.extend(batch.new_names(names.len() as u32).map(|(id, text)| (id, text.to_owned())));
            paths.extend(batch.new_paths(paths.len() as u32));
        });
        program.recording.clear();
    }
    assert!(names.iter().zip(0..).all(|((id, _), expected)| *id == expected), "dense from 0");
    assert!(paths.iter().zip(1..).all(|((id, ..), expected)| id & !(1 << 31) == expected), "dense from 1");
    let reserved: Vec<&str> = names.iter().take(4).map(|(_, text)| text.as_str()).collect();
    assert_eq!(reserved, ["", "(overflow)", "(invalid_name)", "(deeper)"]);
    for number in 0..20 {
        let name = format!("format.new_{number}");
        assert_eq!(names.iter().filter(|(_, text)| *text == name).count(), 1);
        assert_eq!(paths.iter().filter(|(_, parent, text)| *text == name && parent.is_none()).count(), 1);
    }
}

#[test]
#[cfg_attr(miri, ignore = "no real time there")]
fn ticks_of_a_real_clock_become_times_by_the_formula() {
    let recording = Recording::new(1 << 20);
    for builder in [Telemetry::builder(), Telemetry::builder().system_clock()] {
        let tele = builder.reporter(recording.clone()).build();
        drop(scope!(tele, "format.real"));
        metric!(tele, "format.real", 1);
        assert!(tele.flush(LONG).is_complete());
    }
    let mut seen = 0;
    recording.for_each_batch(|batch| {
        let (anchor, ns_per_tick) = (batch.anchor(), batch.timeline().ns_per_tick());
        let ns = |tick: u64| ((i128::from(tick) - i128::from(anchor.ticks)) as f64 * ns_per_tick).round() as i128;
        let times = |tick: u64| (i128::from(anchor.monotonic_ns) + ns(tick), i128::from(anchor.unix_ns) + ns(tick));
        for (record, event) in records(batch.record_bytes()).into_iter().zip(batch.events()) {
            let read = times(u64_at(record, 24));
            let told = match event {
                Event::Timing(it) => (it.start_monotonic_ns(), it.start_unix_ns()),
                Event::Metric(it) => (it.monotonic_ns(), it.unix_ns()),
            };
            assert_eq!(read, (i128::from(told.0), i128::from(told.1)));
            seen += 1;
        }
    });
    assert_eq!(seen, 4);
}

// The example of the document.

const DOCUMENT: &str = include_str!("../../../docs/format.md");

/// The bytes of the example, under one of its headings.
fn example(heading: &str) -> Vec<u8> {
    let text = DOCUMENT.split("```text\n").find(|it| it.starts_with("records\n")).unwrap();
    let text = text.split("```").next().unwrap();
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.chars().all(|it| it.is_ascii_alphabetic()) || line.is_empty());
    let bytes = lines
        .filter(|line| !line.is_empty())
        .flat_map(|line| line.split(' ').take(8).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect::<Vec<_>>());
    bytes.collect()
}

const CHILD: &str = "KASTOR_TEST_FORMAT";

/// Numbers of names and paths are the process's: the example runs in a process of its own.
#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn the_program_of_the_document_writes_the_bytes_of_the_document() {
    if std::env::var_os(CHILD).is_some() {
        return run_the_example();
    }
    let test = "the_program_of_the_document_writes_the_bytes_of_the_document";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args([test, "--exact", "--test-threads=1"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn run_the_example() {
    let (clock, recording) = (MockClock::new(), Recording::new(1 << 20));
    let tele = Telemetry::builder().clock(clock.clone()).reporter(recording.clone()).build();
    let _current = tele.override_current();
    let parent = TraceParent::parse(HEADER).unwrap();
    {
        let _job = scope!("job");
        clock.advance(Duration::from_nanos(1000));
        {
            let parse = scope!("parse", rows = 3, file = "a.txt");
            clock.advance(Duration::from_nanos(500));
            parse.fail("bad");
        }
        metric!("size", 1.5);
        clock.advance(Duration::from_nanos(250));
    }
    let _attached = Carrier::from_trace_parent(&parent).attach();
    {
        let _serve = scope!("serve");
        clock.advance(Duration::from_nanos(100));
    }
    assert!(tele.flush(LONG).is_complete());
    let (mut written, mut flows) = (Vec::new(), Vec::new());
    recording.for_each_batch(|batch| {
        written.extend_from_slice(batch.record_bytes());
        flows.extend_from_slice(batch.flow_bytes());
        let names: Vec<_> = batch.new_names(4).collect();
        assert_eq!(names, [(4, "job"), (5, "parse"), (6, "rows"), (7, "file"), (8, "size"), (9, "serve")]);
        let paths: Vec<_> = batch.new_paths(0).collect();
        assert_eq!(paths, [(1, None, "job"), (2, Some(1), "parse"), (3, Some(1), "size"), (4, None, "serve")]);
    });
    assert_eq!(written, example("records"));
    assert_eq!(flows, example("flows"));
}

#[test]
fn the_ids_of_the_document_follow_from_its_prefix() {
    let prefix = 0x1316_d09a_5880_67a4;
    let job = (trace_id(prefix, 1), span_id(prefix, 1));
    assert_eq!(job, (0xbde2_94d2_1b86_4406_8a79_eca5_ac52_ed36, 0x4aad_c018_be8c_5828));
    assert_eq!(span_id(prefix, 2), 0x07a5_459c_6dda_7f85);
    assert_eq!(span_id(prefix, 4), 0x78ec_2a20_3944_2734);
    for id in [format!("{:032x}", job.0), format!("{:016x}", job.1), format!("{prefix:016x}")] {
        assert!(DOCUMENT.contains(&id), "{id}");
    }
}
