//! Readers of trace files that share nothing with the writers: a protobuf reader, and the rules by which Perfetto makes
//! slices of events.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A folder of this test's own, removed with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kastor-trace-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One field of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    pub fn number(&self) -> u64 {
        match self {
            Field::Number(number) | Field::Fixed(number) => *number,
            Field::Bytes(_) => panic!("not a number: {self:?}"),
        }
    }

    pub fn message(&self) -> Message<'a> {
        match self {
            Field::Bytes(bytes) => Message::read(bytes).expect("a message"),
            _ => panic!("not a message: {self:?}"),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Field::Bytes(bytes) => String::from_utf8(bytes.to_vec()).expect("UTF-8"),
            _ => panic!("not a text: {self:?}"),
        }
    }
}

/// A message as its fields, in order.
#[derive(Clone, Debug)]
pub struct Message<'a>(pub Vec<(u64, Field<'a>)>);

impl<'a> Message<'a> {
    pub fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let field = match key & 7 {
                0 => Field::Number(varint(&mut bytes)?),
                1 => Field::Fixed(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
                2 => {
                    let length = varint(&mut bytes)? as usize;
                    Field::Bytes(take(&mut bytes, length)?)
                }
                _ => return None,
            };
            fields.push((key >> 3, field));
        }
        Some(Self(fields))
    }

    pub fn all(&self, number: u64) -> impl Iterator<Item = &Field<'a>> {
        self.0.iter().filter(move |(key, _)| *key == number).map(|(_, field)| field)
    }

    pub fn one(&self, number: u64) -> Option<&Field<'a>> {
        self.all(number).next()
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// A slice as Perfetto shows it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Slice {
    pub name: String,
    pub track: String,
    pub track_id: u64,
    pub begin: u64,
    /// None while it never ended.
    pub end: Option<u64>,
    pub depth: usize,
    pub parent: Option<usize>,
    pub categories: Vec<String>,
    pub args: BTreeMap<String, String>,
    pub flows: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Track {
    pub name: String,
    pub parent: u64,
    pub pid: Option<u64>,
    pub tid: Option<u64>,
    pub is_counter: bool,
    pub unit: Option<String>,
}

/// A trace as Perfetto understands it.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub slices: Vec<Slice>,
    pub instants: Vec<Slice>,
    /// Track name, time, value.
    pub counters: Vec<(String, u64, f64)>,
    pub tracks: HashMap<u64, Track>,
    pub packets: usize,
    /// Clock snapshots: (clock, time), and the primary clock.
    pub clocks: Vec<(Vec<(u64, u64)>, u64)>,
    /// What a reader would have complained about.
    pub faults: Vec<String>,
}

struct Event {
    ts: u64,
    kind: u64,
    uuid: u64,
    slice: Slice,
    value: f64,
}

impl Trace {
    pub fn read(path: &Path) -> Self {
        Self::parse(&std::fs::read(path).unwrap())
    }

    /// Reads packets in the order of the file, then sorts what has a time, stably, and nests.
    pub fn parse(bytes: &[u8]) -> Self {
        let file = Message::read(bytes).expect("a file of whole packets");
        let mut trace = Trace::default();
        let mut interned: HashMap<(u64, u64), String> = HashMap::new();
        let mut events = Vec::new();
        let (mut is_cleared, mut default_clock) = (false, 0);
        for (number, packet) in &file.0 {
            assert_eq!(*number, 1, "a field of Trace that is not a packet");
            trace.packets += 1;
            let packet = packet.message();
            assert_ne!(packet.one(10).expect("a sequence id").number(), 0);
            let flags = packet.one(13).map_or(0, Field::number);
            if flags & 1 != 0 {
                interned.clear();
                is_cleared = true;
            }
            assert!(is_cleared, "a packet before the state was cleared");
            if let Some(defaults) = packet.one(59) {
                default_clock = defaults.message().one(58).unwrap().number();
            }
            if let Some(data) = packet.one(12) {
                for (kind, entry) in &data.message().0 {
                    let entry = entry.message();
                    interned.insert((*kind, entry.one(1).unwrap().number()), entry.one(2).unwrap().text());
                }
            }
            if let Some(snapshot) = packet.one(6) {
                let snapshot = snapshot.message();
                let clock = |clock: Message<'_>| (clock.one(1).unwrap().number(), clock.one(2).unwrap().number());
                let clocks = snapshot.all(1).map(|it| clock(it.message())).collect();
                trace.clocks.push((clocks, snapshot.one(2).unwrap().number()));
            }
            if let Some(track) = packet.one(60) {
                trace.describe(&track.message());
            }
            if let Some(event) = packet.one(11) {
                assert_eq!(default_clock, 1, "events are on the clock REALTIME");
                assert!(!trace.clocks.is_empty(), "an event before the clocks were told");
                events.push(trace.event(packet.one(8).unwrap().number(), &event.message(), &interned));
            }
        }
        events.sort_by_key(|event| event.ts);
        trace.nest(events);
        trace
    }

    fn describe(&mut self, track: &Message<'_>) {
        let uuid = track.one(1).unwrap().number();
        let mut found = Track { parent: track.one(5).map_or(0, Field::number), ..Track::default() };
        if let Some(process) = track.one(3) {
            let process = process.message();
            found.pid = process.one(1).map(Field::number);
            found.name = process.one(6).unwrap().text();
        }
        if let Some(thread) = track.one(4) {
            let thread = thread.message();
            (found.pid, found.tid) = (thread.one(1).map(Field::number), thread.one(2).map(Field::number));
            found.name = thread.one(5).unwrap().text();
        }
        if let Some(name) = track.one(2) {
            found.name = name.text();
        }
        if let Some(counter) = track.one(8) {
            found.is_counter = true;
            found.unit = counter.message().one(6).map(Field::text);
        }
        if found.parent != 0 && !self.tracks.contains_key(&found.parent) {
            self.faults.push(format!("track {} before its parent", found.name));
        }
        self.tracks.insert(uuid, found);
    }

    fn event(&mut self, ts: u64, event: &Message<'_>, interned: &HashMap<(u64, u64), String>) -> Event {
        let name_of =
            |kind: u64, iid: u64| interned.get(&(kind, iid)).cloned().unwrap_or_else(|| panic!("no {kind}:{iid}"));
        let uuid = event.one(11).unwrap().number();
        let track = self.tracks.get(&uuid).cloned();
        if track.is_none() {
            self.faults.push(format!("an event on track {uuid}, which nobody described"));
        }
        let mut args = BTreeMap::new();
        for annotation in event.all(4).map(Field::message) {
            let value = annotation.0.iter().find(|(number, _)| *number != 1).expect("a value");
            let value = match value {
                (2, it) => (it.number() != 0).to_string(),
                (3, it) => it.number().to_string(),
                (4, it) => (it.number() as i64).to_string(),
                (5, it) => f64::from_bits(it.number()).to_string(),
                (6, it) => it.text(),
                other => panic!("{other:?}"),
            };
            args.insert(name_of(3, annotation.one(1).unwrap().number()), value);
        }
        let slice = Slice {
            name: event.one(10).map_or_else(String::new, |name| name_of(2, name.number())),
            track: track.map(|track| track.name).unwrap_or_default(),
            track_id: uuid,
            begin: ts,
            categories: event.all(3).map(|category| name_of(1, category.number())).collect(),
            args,
            flows: event.all(47).map(Field::number).collect(),
            ..Slice::default()
        };
        let value = event.one(30).map(|it| it.number() as i64 as f64);
        let value = value.or(event.one(44).map(|it| f64::from_bits(it.number())));
        Event { ts, kind: event.one(9).unwrap().number(), uuid, slice, value: value.unwrap_or(f64::NAN) }
    }

    fn nest(&mut self, events: Vec<Event>) {
        let mut open: HashMap<u64, Vec<usize>> = HashMap::new();
        for Event { ts, kind, uuid, mut slice, value } in events {
            let stack = open.entry(uuid).or_default();
            slice.depth = stack.len();
            slice.parent = stack.last().copied();
            match kind {
                1 => {
                    if stack.len() >= 255 {
                        self.faults.push(format!("{} is too deep for Perfetto", slice.name));
                    }
                    stack.push(self.slices.len());
                    self.slices.push(slice);
                }
                2 => match stack.pop() {
                    Some(index) => self.slices[index].end = Some(ts),
                    None => self.faults.push(format!("an end at {ts} on {} of nothing", slice.track)),
                },
                3 => self.instants.push(slice),
                4 => self.counters.push((slice.track, ts, value)),
                other => panic!("an event of type {other}"),
            }
        }
        for slice in &self.slices {
            if slice.end.is_none() {
                self.faults.push(format!("{} never ends", slice.name));
            }
        }
    }

    /// The only slice of this name.
    #[track_caller]
    pub fn slice(&self, name: &str) -> &Slice {
        let found: Vec<&Slice> = self.slices.iter().filter(|slice| slice.name == name).collect();
        assert_eq!(found.len(), 1, "slices named {name:?}");
        found[0]
    }

    pub fn parent_name(&self, slice: &Slice) -> Option<&str> {
        slice.parent.map(|parent| self.slices[parent].name.as_str())
    }
}
