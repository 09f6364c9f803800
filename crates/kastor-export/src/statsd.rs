//! StatsD: lines over UDP or a Unix datagram socket, DogStatsD's with tags or the plain ones.
//!
//! At each interval, and on flush, the aggregates become lines:
//!
//! | aggregate | line |
//! |---|---|
//! | counter | what was added since the previous line, as `c` |
//! | gauge | its newest value, as `g` |
//! | histogram, scope durations (ms) | each bucket's middle once, as `d` (plain: `ms`), with `@1/n` for its n values |
//! | scope errors, kastor's own accounts | counters |
//!
//! Buckets are eight per power of two, so a value that arrives is within 4.5 % of the one that was recorded, and never
//! outside of the smallest and largest one; how many there are is exact. A plain metric event is a line of its own, as
//! `d` (plain: `g`), if it is a number.
//!
//! Nothing waits for an agent. A datagram that the system refuses is counted; what it said of counters and histograms is
//! said again at the next interval, since only what was sent is taken off the sums. What is lost on the way nobody
//! knows: that is UDP.

mod line;
mod socket;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use kastor::{
    Accounts, Batch, DropReason, Drops, Error, Held, Histogram, MetricType, Number, Reporter, SeriesAggregate,
    Snapshot, Value,
};

use self::{
    line::{Dialect, Identity, Kind},
    socket::Socket,
};
use crate::redact::Redaction;

/// Bytes of a UDP datagram: what is left of an Ethernet frame, with room for tunnels.
const UDP_BYTES: usize = 1_432;
/// Bytes of a datagram on a Unix socket.
const UNIX_BYTES: usize = 8_192;
/// The most that a datagram can hold.
const MAX_BYTES: usize = 65_000;
/// Nanoseconds of a millisecond.
const MS: f64 = 1e6;

/// How lines are written and sent; [`Statsd::builder`] makes one.
#[derive(Clone, Debug)]
pub struct StatsdBuilder {
    dialect: Dialect,
    prefix: String,
    tags: Vec<(String, String)>,
    max_datagram_bytes: Option<usize>,
    redaction: Redaction,
}

impl StatsdBuilder {
    /// Lines without tags, which every StatsD server reads: labels become part of the name.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.dialect = Dialect::Plain;
        self
    }

    /// What all names begin with, followed by a dot; nothing by default.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    /// A tag of every line: the service or the host, for instance.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The most bytes of a datagram: 1,432 over UDP and 8,192 on a Unix socket by default, at most 65,000. A line that
    /// does not fit alone is dropped and counted.
    #[must_use]
    pub fn max_datagram_bytes(mut self, bytes: usize) -> Self {
        self.max_datagram_bytes = Some(bytes.min(MAX_BYTES));
        self
    }

    /// Which label values are secret; the default is [`Redaction::default`].
    #[must_use]
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Sends to `HOST:PORT`. The name is looked up once, here.
    ///
    /// # Errors
    /// If the address is none, or if there is no socket for it.
    pub fn udp(self, address: &str) -> Result<Statsd, Error> {
        let bytes = self.max_datagram_bytes.unwrap_or(UDP_BYTES);
        Ok(self.with(Socket::udp(address)?, bytes))
    }

    /// Sends to the Unix datagram socket at this path. An agent that is not there yet, or starts again, is found.
    ///
    /// # Errors
    /// If there are no sockets left.
    #[cfg(unix)]
    pub fn unix(self, path: impl Into<std::path::PathBuf>) -> Result<Statsd, Error> {
        let bytes = self.max_datagram_bytes.unwrap_or(UNIX_BYTES);
        Ok(self.with(Socket::unix(path.into())?, bytes))
    }

    fn with(self, socket: Socket, max_datagram_bytes: usize) -> Statsd {
        let state = State {
            socket,
            max_datagram_bytes,
            process: std::process::id(),
            said: HashMap::new(),
            delivered: 0,
            dropped: Drops::default(),
        };
        let counts = Counts::default();
        Statsd { inner: Arc::new(Inner { config: self, state: Mutex::new(state), counts }) }
    }
}

/// A reporter that sends StatsD lines. A cheap handle: clones share the socket and the counts.
///
/// ```no_run
/// use kastor::Telemetry;
/// use kastor_export::Statsd;
///
/// # fn main() -> Result<(), kastor::Error> {
/// let statsd = Statsd::builder().tag("service", "shop").udp("127.0.0.1:8125")?;
/// let tele = Telemetry::builder().reporter(statsd).build();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Statsd {
    inner: Arc<Inner>,
}

struct Inner {
    config: StatsdBuilder,
    state: Mutex<State>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    refused: AtomicU64,
    too_large: AtomicU64,
}

/// Lines so far; see [`Statsd::lines`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsdLines {
    /// Handed to the system.
    pub sent: u64,
    /// In datagrams that the system refused: no agent, or no room in its queue.
    pub refused: u64,
    /// Larger than a datagram.
    pub too_large: u64,
}

impl Statsd {
    /// DogStatsD's lines, with tags.
    pub fn builder() -> StatsdBuilder {
        StatsdBuilder {
            dialect: Dialect::Dog,
            prefix: String::new(),
            tags: Vec::new(),
            max_datagram_bytes: None,
            redaction: Redaction::default(),
        }
    }

    /// What became of the lines so far.
    pub fn lines(&self) -> StatsdLines {
        let Counts { sent, refused, too_large } = &self.inner.counts;
        StatsdLines { sent: sent.load(Relaxed), refused: refused.load(Relaxed), too_large: too_large.load(Relaxed) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter for Statsd {
    /// Plain metric events as lines; scopes are in the aggregates.
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        let mut state = self.state();
        state.belongs_to(batch.process().id, &self.inner.counts);
        let config = &self.inner.config;
        let mut sender = Sender::new(&mut state, &self.inner.counts);
        let mut metrics = 0;
        for metric in batch.metrics() {
            metrics += 1;
            let Some(value) = metric.value().as_f64().filter(|value| value.is_finite()) else {
                // No line can say it.
                sender.state.dropped.add(DropReason::NonRetryable, 1);
                continue;
            };
            let identity = config.identity(metric.name(), metric.parent_scope(), metric.attributes());
            let kind = if config.dialect == Dialect::Dog { Kind::Distribution } else { Kind::Gauge };
            sender.push(line::of(&identity, value, kind, 1), None, 1);
        }
        sender.send();
        drop(sender);
        state.delivered += batch.len() - metrics;
        Ok(())
    }

    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        let mut state = self.state();
        state.belongs_to(snapshot.process().id, &self.inner.counts);
        let sums = self.inner.config.sums(snapshot);
        let mut sender = Sender::new(&mut state, &self.inner.counts);
        for (identity, sum) in sums {
            sender.push_sum(&identity, &sum, self.inner.config.dialect);
        }
        match sender.send() {
            (_, 0) => Ok(()),
            (lines, refused) => Err(Error::temporary(format!(
                "statsd: the system refused {refused} of {lines} lines: is the agent running, and does it keep up?"
            ))),
        }
    }

    fn accounts(&self) -> Option<Accounts> {
        let state = self.inner.state.try_lock().ok()?;
        Some(Accounts { delivered: state.delivered, dropped: state.dropped, queued: 0, spooled: 0 })
    }

    fn prefers_batches(&self) -> bool {
        true
    }

    fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(self.state()));
    }
}

impl fmt::Debug for Statsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Statsd({:?})", self.lines())
    }
}

/// What a line is about, in all that the aggregates say of it.
enum Sum {
    Counter(Number),
    Gauge(f64),
    /// And the factor from recorded to written values.
    Distribution(Histogram, f64),
}

impl StatsdBuilder {
    /// All aggregates by what their lines are called: series that are called the same are one.
    fn sums(&self, snapshot: &Snapshot<'_>) -> HashMap<Identity, Sum> {
        let mut sums: HashMap<Identity, Sum> = HashMap::new();
        let count = |value: u64| Sum::Counter(Number::Integer(i128::from(value)));
        for scope in snapshot.scopes() {
            let named = |name: &str| self.identity(name, Some(scope.path()), []);
            add(&mut sums, named("kastor.scope.duration"), Sum::Distribution(scope.durations_ns().clone(), 1.0 / MS));
            add(&mut sums, named("kastor.scope.errors"), count(scope.errors()));
        }
        for series in snapshot.series() {
            let identity = self.identity(series.name(), enclosing_scope(series), series.labels());
            match series.metric_type() {
                MetricType::Gauge => {
                    if let Some(last) = series.last() {
                        sums.insert(identity, Sum::Gauge(last));
                    }
                }
                MetricType::Histogram => add(&mut sums, identity, Sum::Distribution(series.values().clone(), 1.0)),
                _ => add(&mut sums, identity, Sum::Counter(series.sum())),
            }
        }
        let stats = snapshot.stats();
        add(&mut sums, self.identity("kastor.events.emitted", None, []), count(stats.emitted()));
        for reporter in stats.reporters() {
            let of = ("reporter", Value::Str(reporter.name()));
            add(&mut sums, self.identity("kastor.events.delivered", None, [of]), count(reporter.delivered()));
            for (reason, events) in reporter.dropped().iter() {
                let why = ("reason", Value::Str(reason.as_str()));
                add(&mut sums, self.identity("kastor.events.dropped", None, [of, why]), count(events));
            }
        }
        sums
    }

    fn identity<'k, 'v>(
        &self,
        name: &str,
        scope: Option<&str>,
        labels: impl IntoIterator<Item = (&'k str, Value<'v>)>,
    ) -> Identity {
        Identity::new(self.dialect, &self.prefix, name, &self.tags, scope, labels, &self.redaction)
    }
}

fn add(sums: &mut HashMap<Identity, Sum>, identity: Identity, sum: Sum) {
    match (sums.get_mut(&identity), sum) {
        (Some(Sum::Counter(to)), Sum::Counter(more)) => {
            *to = match (*to, more) {
                (Number::Integer(a), Number::Integer(b)) => Number::Integer(a.saturating_add(b)),
                (a, b) => Number::Float(a.as_f64() + b.as_f64()),
            };
        }
        (Some(Sum::Distribution(to, _)), Sum::Distribution(more, _)) => to.merge(&more),
        (_, sum) => drop(sums.insert(identity, sum)),
    }
}

fn enclosing_scope(series: &SeriesAggregate) -> Option<&'static str> {
    let path = series.path();
    match path.strip_suffix(series.name()) {
        Some("") => None,
        Some(before) => Some(before.strip_suffix('.').unwrap_or(before)),
        None => Some(path),
    }
}

/// What was said, so that only the rest is said next time.
struct State {
    socket: Socket,
    max_datagram_bytes: usize,
    process: u32,
    said: HashMap<Identity, Said>,
    delivered: u64,
    dropped: Drops,
}

#[derive(Default)]
struct Said {
    counted: Option<Number>,
    /// Values by bucket; see [`bucket_number`].
    values: HashMap<i64, u64>,
}

/// What is to be remembered once a line was sent.
enum Remember {
    Counted(Identity, Number),
    Values(Identity, i64, u64),
}

impl State {
    /// A forked child says what is its own, by a socket of its own.
    fn belongs_to(&mut self, process: u32, counts: &Counts) {
        if self.process == process {
            return;
        }
        self.process = process;
        self.said.clear();
        self.delivered = 0;
        self.dropped = Drops::default();
        for count in [&counts.sent, &counts.refused, &counts.too_large] {
            count.store(0, Relaxed);
        }
        // If there is none to be had, the one of the parent does as well: datagrams do not mix.
        let _ = self.socket.reopen();
    }
}

/// Fills datagrams and sends them.
struct Sender<'s> {
    state: &'s mut State,
    counts: &'s Counts,
    datagram: Vec<u8>,
    lines: u64,
    /// Events that the datagram speaks of, beyond the aggregates.
    events: u64,
    remember: Vec<Remember>,
    all_lines: u64,
    refused_lines: u64,
    patience: socket::Patience,
}

impl<'s> Sender<'s> {
    fn new(state: &'s mut State, counts: &'s Counts) -> Self {
        Self {
            state,
            counts,
            datagram: Vec::new(),
            lines: 0,
            events: 0,
            remember: Vec::new(),
            all_lines: 0,
            refused_lines: 0,
            patience: socket::Patience::default(),
        }
    }

    /// What is new of a sum.
    fn push_sum(&mut self, identity: &Identity, sum: &Sum, dialect: Dialect) {
        match sum {
            Sum::Gauge(value) => self.push(line::of(identity, *value, Kind::Gauge, 1), None, 0),
            Sum::Counter(now) => {
                let before = self.state.said.get(identity).and_then(|said| said.counted);
                if let Some(text) = line::increment(identity, before.unwrap_or(Number::Integer(0)), *now) {
                    self.push(text, Some(Remember::Counted(identity.clone(), *now)), 0);
                }
            }
            Sum::Distribution(histogram, factor) => {
                let kind = if dialect == Dialect::Dog { Kind::Distribution } else { Kind::Timing };
                let (least, most) = (histogram.min().unwrap_or(0.0), histogram.max().unwrap_or(0.0));
                for (number, middle, count) in buckets(histogram) {
                    let said = self.state.said.get(identity);
                    let before = said.and_then(|said| said.values.get(&number)).copied().unwrap_or(0);
                    if count > before {
                        let value = middle.clamp(least, most) * factor;
                        let text = line::of(identity, value, kind, count - before);
                        self.push(text, Some(Remember::Values(identity.clone(), number, count)), 0);
                    }
                }
            }
        }
    }

    /// One line, in the datagram that is being filled or in the next one.
    fn push(&mut self, text: String, remember: Option<Remember>, events: u64) {
        if text.len() > self.state.max_datagram_bytes {
            self.counts.too_large.fetch_add(1, Relaxed);
            self.state.dropped.add(DropReason::TooLarge, events);
            return;
        }
        if !self.datagram.is_empty() && self.datagram.len() + 1 + text.len() > self.state.max_datagram_bytes {
            self.send();
        }
        if !self.datagram.is_empty() {
            self.datagram.push(b'\n');
        }
        self.datagram.extend_from_slice(text.as_bytes());
        self.lines += 1;
        self.events += events;
        self.remember.extend(remember);
    }

    /// Sends what is there. Returns how many lines there were so far, and how many of them were refused.
    fn send(&mut self) -> (u64, u64) {
        let lines = std::mem::take(&mut self.lines);
        let events = std::mem::take(&mut self.events);
        self.all_lines += lines;
        if lines > 0 && self.state.socket.send(&self.datagram, &mut self.patience) {
            self.counts.sent.fetch_add(lines, Relaxed);
            self.state.delivered += events;
            for remember in self.remember.drain(..) {
                match remember {
                    Remember::Counted(identity, sum) => {
                        self.state.said.entry(identity).or_default().counted = Some(sum);
                    }
                    Remember::Values(identity, number, count) => {
                        self.state.said.entry(identity).or_default().values.insert(number, count);
                    }
                }
            }
        } else if lines > 0 {
            self.counts.refused.fetch_add(lines, Relaxed);
            self.refused_lines += lines;
            self.state.dropped.add(DropReason::QueueFull, events);
            self.remember.clear();
        }
        self.datagram.clear();
        (self.all_lines, self.refused_lines)
    }
}

/// The buckets that hold anything: a number for each, the middle, the count.
fn buckets(histogram: &Histogram) -> impl Iterator<Item = (i64, f64, u64)> + '_ {
    let side = |buckets: &'_ kastor::Buckets, sign: f64| {
        let offset = buckets.offset();
        let counts = buckets.counts().to_vec();
        counts.into_iter().enumerate().map(move |(at, count)| {
            let index = i64::from(offset) + at as i64;
            let middle = ((index as f64 + 0.5) / f64::from(1 << Histogram::SCALE)).exp2();
            (bucket_number(index, sign < 0.0), middle * sign, count)
        })
    };
    let zero = (i64::MAX, 0.0, histogram.zeros());
    side(histogram.negative(), -1.0)
        .chain([zero])
        .chain(side(histogram.positive(), 1.0))
        .filter(|(_, _, count)| *count > 0)
}

/// One number for both sides of zero.
fn bucket_number(index: i64, is_negative: bool) -> i64 {
    index * 2 + i64::from(is_negative)
}
