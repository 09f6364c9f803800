//! A capture handed to reporters and encoders again, as batches and snapshots.
//!
//! Everything that takes a [`Batch`] or a [`Snapshot`] takes what a capture holds: read it with a [`Replay`], part by part,
//! in memory for one block, the tables and the newest sums.

use std::{fs::File, io::Read, path::Path};

use kastor::{Batch, Error, Histogram, Process, Snapshot, Value};

use super::{
    aggregates::{Aggregate, Aggregates, ScopeSums, SeriesSums, StoredHistogram},
    format::Session,
    kept::{Kept, KeptRecords, KeptScope, KeptSeries, kept_histogram},
    read::{Damage, Part, Reader},
    record::{Block, StoredValue, Timing},
    tables::Tables,
};

/// Reads a capture as a process would report it.
pub struct Replay<R> {
    reader: Reader<R>,
    kept: Kept,
    told: Told,
    /// Paths of earlier processes that found no room.
    without_room: u64,
    /// Records of the block that is read, where not all are wanted.
    wanted: Vec<u8>,
}

/// Whether a scope is to be replayed.
type Wants<'w> = dyn FnMut(&Block<'_>, &Timing<'_>) -> bool + 'w;

/// What was told of the tables.
#[derive(Default)]
struct Told {
    names: usize,
    paths: usize,
    threads: usize,
}

/// What a capture consists of, as reporters take it.
pub enum Replayed<'a> {
    /// What follows is this process's; also when it goes on in another file.
    Process(Process),
    /// Records of one thread.
    Batch(Batch<'a>),
    /// Sums, or a part of them: cumulative, and of several for one path the last counts.
    Snapshot(Snapshot<'a>),
    /// Bytes that cannot be read.
    Damage(Damage),
}

impl Replay<File> {
    /// Opens a capture.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::new(Reader::open(path)?))
    }
}

impl<R: Read> Replay<R> {
    /// Replays what a reader reads.
    pub fn new(reader: Reader<R>) -> Self {
        Self { reader, kept: Kept::default(), told: Told::default(), without_room: 0, wanted: Vec::new() }
    }

    /// The next part; none at the end.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read(&mut self) -> Result<Option<Replayed<'_>>, Error> {
        self.read_wanted(None)
    }

    /// The next part, of batches only the scopes that are wanted, and no metric events: of what is left out nothing is
    /// missing.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_if(
        &mut self,
        mut wants: impl FnMut(&Block<'_>, &Timing<'_>) -> bool,
    ) -> Result<Option<Replayed<'_>>, Error> {
        self.read_wanted(Some(&mut wants))
    }

    fn read_wanted(&mut self, wants: Option<&mut Wants<'_>>) -> Result<Option<Replayed<'_>>, Error> {
        let Self { reader, kept, told, wanted, .. } = self;
        Ok(match reader.read()? {
            None => None,
            Some(Part::Damage(damage)) => Some(Replayed::Damage(damage)),
            Some(Part::Session(session)) => {
                let process = process(session);
                self.without_room += kept.paths_without_room();
                *kept = Kept::new(process);
                *told = Told::default();
                Some(Replayed::Process(process))
            }
            Some(Part::Block(block)) => {
                told.catch_up(block.tables(), kept);
                let mut records = records_of(&block);
                if let Some(wants) = wants {
                    wanted.clear();
                    block.timings().filter(|timing| wants(&block, timing)).for_each(|timing| timing.write_to(wanted));
                    records.records = wanted;
                }
                Some(Replayed::Batch(kept.batch(&records)))
            }
            Some(Part::Aggregates(aggregates)) => {
                told.catch_up(aggregates.tables(), kept);
                Some(Replayed::Snapshot(snapshot(kept, &aggregates)))
            }
        })
    }

    /// How many paths found no room in this process, and share `(overflow)`.
    pub fn paths_without_room(&self) -> u64 {
        self.without_room + self.kept.paths_without_room()
    }

    /// At the end: bytes there that are no whole frame.
    pub fn torn_bytes(&self) -> u64 {
        self.reader.torn_bytes()
    }
}

impl Told {
    /// Tells what is new since the last time: numbers are never told twice with different meanings in a session.
    fn catch_up(&mut self, tables: &Tables, kept: &mut Kept) {
        for (number, text) in tables.names_since(self.names) {
            kept.name(number, text);
        }
        for (number, above, name) in tables.paths_since(self.paths) {
            kept.path(number, above, name);
        }
        if tables.threads_len() != self.threads {
            for (thread, _) in tables.threads() {
                kept.thread(thread.index, thread.os_id, &thread.name);
            }
        }
        let (names, paths) = tables.told();
        *self = Told { names, paths, threads: tables.threads_len() };
    }
}

fn process(session: &Session) -> Process {
    Process { id: session.process_id, instance_id: session.instance_id }
}

fn records_of<'a>(block: &Block<'a>) -> KeptRecords<'a> {
    let line = block.header.line;
    KeptRecords {
        thread: block.header.thread,
        id_prefix: block.header.prefix,
        anchor: kastor::Anchor { ticks: line.ticks, monotonic_ns: line.monotonic_ns, unix_ns: line.unix_ns },
        ns_per_tick: line.ns_per_tick,
        records: block.record_bytes(),
        flows: block.flow_bytes(),
    }
}

fn snapshot<'k>(kept: &'k mut Kept, aggregates: &Aggregates<'_>) -> Snapshot<'k> {
    let (mut scopes, mut series) = (Vec::new(), Vec::new());
    for entry in aggregates.entries() {
        match entry {
            Aggregate::Scope(sums) => scopes.push(kept_scope(&sums)),
            Aggregate::Series(sums) => series.push(kept_series(&sums)),
        }
    }
    kept.snapshot((aggregates.start_unix_ns(), aggregates.unix_ns()), scopes, series)
}

fn kept_scope<'a>(sums: &ScopeSums<'a>) -> KeptScope<'a> {
    KeptScope {
        path: sums.path,
        calls: sums.calls,
        errors: sums.errors,
        total_ns: sums.total_ns,
        self_ns: sums.self_ns,
        durations_ns: sums.durations_ns.to_histogram(),
        exemplar: sums.exemplar,
    }
}

fn kept_series<'a>(sums: &SeriesSums<'a>) -> KeptSeries<'a> {
    KeptSeries {
        path: sums.path,
        labels: sums.labels().map(|label| (label.key, label.value.as_value())).collect(),
        metric_type: sums.metric_type,
        calls: sums.calls,
        sum: sums.sum,
        is_monotonic: sums.is_monotonic,
        last: sums.last,
        extremes: (sums.min, sums.max),
        values: sums.values.to_histogram(),
        unit: sums.unit,
        help: sums.help,
    }
}

impl<'a> StoredValue<'a> {
    /// The value as reporters take it.
    pub fn as_value(&self) -> Value<'a> {
        match *self {
            StoredValue::Null => Value::Null,
            StoredValue::Bool(value) => Value::Bool(value),
            StoredValue::I64(value) => Value::I64(value),
            StoredValue::U64(value) => Value::U64(value),
            StoredValue::F64(value) => Value::F64(value),
            StoredValue::Str(text) => Value::Str(text),
            StoredValue::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

impl StoredHistogram<'_> {
    /// The distribution as one of the core's, which can be merged and asked for percentiles.
    pub fn to_histogram(self) -> Histogram {
        let positive = (self.positive_offset, self.positive().collect());
        let negative = (self.negative_offset, self.negative().collect());
        let extremes = self.min.zip(self.max);
        kept_histogram([positive, negative], (self.zeros, self.not_finite), self.sum, extremes)
    }
}
