//! Tail sampling in the process: a trace is kept or left out once its local root has closed, and then whole.
//!
//! An exporter offers each span with its encoded bytes. They wait until the root of their trace in this process closes.
//! Then the trace is kept if its root was slow, if any span of it failed, if its root's path is rare, or if its id falls
//! into the ratio that is kept of all others; else it is left out, and its spans are counted
//! ([`DropReason::Sampled`](kastor::DropReason::Sampled)). A span that comes after its trace was decided follows that
//! decision. Aggregates never come through here, so they stay exact.
//!
//! Memory is bounded. Where a bound would be exceeded, the trace that waits longest is decided early, from what is known
//! of it: kept if a span of it failed, else by the ratio. One whose root does not close in time is decided the same way.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    time::Duration,
};

use kastor::Histogram;

/// Roots of a path before its own quantile decides anything.
const LEAST_ROOTS_FOR_QUANTILE: u64 = 128;
/// Roots of a path after which its durations are forgotten, so that the quantile follows the program.
const ROOTS_PER_WINDOW: u64 = 4_096;
/// Root paths whose durations and numbers are kept; further ones are neither slow for their path nor rare.
const MAX_PATHS: usize = 4_096;
/// How far a value can lie above the middle of its bucket: half a bucket of an eighth of an octave.
const HALF_BUCKET: f64 = 1.044_273_782_427_413_8;
/// What a waiting trace costs besides its spans' bytes.
const TRACE_OVERHEAD_BYTES: usize = 160;
/// Before each payload: its length.
const LENGTH_BYTES: usize = 4;
/// The bits of a trace id that are random by the W3C's recommendation, as a number of values.
const RANDOM_VALUES: f64 = (1_u64 << 56) as f64;
const RANDOM_MASK: u64 = (1 << 56) - 1;

/// Whether a trace belongs to the share `ratio` (0 to 1) of all traces.
///
/// Decided by the lower 56 bits of the id alone, as OpenTelemetry's consistent probability sampling does: every process
/// decides alike, the head sampling of [`kastor::Sampler::ratio`] included, and what a smaller ratio keeps, a larger one
/// keeps too.
pub fn is_in_ratio(trace_id: u128, ratio: f64) -> bool {
    if ratio.is_nan() || ratio <= 0.0 {
        return false;
    }
    let threshold = ((1.0 - ratio.min(1.0)) * RANDOM_VALUES) as u64;
    (trace_id as u64 & RANDOM_MASK) >= threshold
}

/// What a [`TailSampler`] keeps, and within what bounds.
///
/// The default keeps traces with a failure, those whose root is slower than 99 % of its path, the first trace of each
/// root path in every minute, and 10 % of all others; it holds at most 10,000 traces and 16 MiB for at most 30 s.
#[derive(Clone, Debug, PartialEq)]
pub struct TailSampling {
    slower_than: Option<Duration>,
    slower_than_quantile: Option<f64>,
    keeps_failed: bool,
    rare: Option<(u32, Duration)>,
    ratio: f64,
    max_traces: usize,
    max_bytes: usize,
    max_wait: Duration,
}

impl Default for TailSampling {
    fn default() -> Self {
        Self {
            slower_than_quantile: Some(0.99),
            keeps_failed: true,
            rare: Some((1, Duration::from_secs(60))),
            ..Self::ratio_only(0.1)
        }
    }
}

impl TailSampling {
    /// Keeps this share of all traces, and nothing for any other reason.
    pub fn ratio_only(ratio: f64) -> Self {
        Self {
            slower_than: None,
            slower_than_quantile: None,
            keeps_failed: false,
            rare: None,
            ratio,
            max_traces: 10_000,
            max_bytes: 16 << 20,
            max_wait: Duration::from_secs(30),
        }
    }

    /// Keeps traces whose root took longer than this.
    #[must_use]
    pub fn slower_than(mut self, duration: Duration) -> Self {
        self.slower_than = Some(duration);
        self
    }

    /// Keeps traces whose root took clearly longer than the share `q` (0 to 1) of the latest roots of the same path; none
    /// turns that off. It decides nothing before a path had 128 roots, and never keeps more than the share `1 - q`
    /// of an even stream.
    #[must_use]
    pub fn slower_than_quantile(mut self, q: Option<f64>) -> Self {
        self.slower_than_quantile = q;
        self
    }

    /// Whether traces in which a span failed are kept.
    #[must_use]
    pub fn keep_failed(mut self, keeps: bool) -> Self {
        self.keeps_failed = keeps;
        self
    }

    /// Keeps the first so many traces of each root path in every period.
    #[must_use]
    pub fn keep_rare(mut self, first: u32, in_every: Duration) -> Self {
        self.rare = Some((first, in_every)).filter(|(first, _)| *first > 0);
        self
    }

    /// The share (0 to 1) of all other traces that is kept; see [`is_in_ratio`].
    #[must_use]
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Traces that may wait at the same time, at least 1.
    #[must_use]
    pub fn max_traces(mut self, traces: usize) -> Self {
        self.max_traces = traces.max(1);
        self
    }

    /// Bytes that may wait at the same time.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long a trace may wait for its root.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }
}

/// What the decision about a trace needs to know of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanFacts {
    /// Its trace.
    pub trace_id: u128,
    /// Whether its parent, if it has one, is in another process: its closing decides the trace.
    pub is_local_root: bool,
    /// How long it was open.
    pub duration_ns: u64,
    /// Whether it failed.
    pub is_failed: bool,
    /// The number of its path.
    pub path_id: u32,
}

/// Holds spans back until their trace is decided.
pub struct TailSampler {
    config: TailSampling,
    waiting: HashMap<u128, Waiting>,
    /// Traces in the order in which they began to wait, some decided meanwhile; a number tells those from a trace of the
    /// same id that waits again.
    order: VecDeque<(u128, u64)>,
    began: u64,
    decided: Decided,
    paths: HashMap<u32, RootPath>,
    now_ns: Option<u64>,
    bytes: usize,
    waiting_spans: u64,
    kept: u64,
    sampled_out: u64,
}

/// A trace whose root is still open.
struct Waiting {
    number: u64,
    since_ns: Option<u64>,
    has_failed: bool,
    spans: u64,
    /// Each payload behind its length.
    payloads: Vec<u8>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        TRACE_OVERHEAD_BYTES + self.payloads.capacity()
    }
}

impl TailSampler {
    /// Nothing waits.
    pub fn new(config: TailSampling) -> Self {
        let decided = Decided::new(config.max_traces);
        Self {
            config,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            began: 0,
            decided,
            paths: HashMap::new(),
            now_ns: None,
            bytes: 0,
            waiting_spans: 0,
            kept: 0,
            sampled_out: 0,
        }
    }

    /// Takes one span. `keep` is called with the payload of each span that is now known to be kept, this one or earlier
    /// ones, in the order in which they were offered.
    pub fn offer(&mut self, span: SpanFacts, payload: &[u8], keep: &mut dyn FnMut(&[u8])) {
        match self.decided.of(span.trace_id).filter(|_| !self.waiting.contains_key(&span.trace_id)) {
            Some(is_kept) => self.settle(is_kept, payload, keep),
            None if span.is_local_root => {
                let waiting = self.take(span.trace_id);
                let has_failed = span.is_failed || waiting.as_ref().is_some_and(|waiting| waiting.has_failed);
                // Every root is looked at, so that its path is known.
                let stands_out = self.stands_out(&span);
                let is_kept = stands_out || self.keeps(span.trace_id, has_failed);
                self.decide(span.trace_id, waiting, is_kept, keep);
                self.settle(is_kept, payload, keep);
            }
            None => self.wait(&span, payload, keep),
        }
    }

    /// Says what time it is: any clock that never goes back. Decides the traces that have waited for too long. Call it
    /// every second or so; a trace waits up to that much longer than it may.
    pub fn expire(&mut self, now_ns: u64, keep: &mut dyn FnMut(&[u8])) {
        let now_ns = self.now_ns.map_or(now_ns, |before| before.max(now_ns));
        if self.now_ns.is_none() {
            self.waiting.values_mut().for_each(|waiting| waiting.since_ns = Some(now_ns));
        }
        self.now_ns = Some(now_ns);
        let max_wait_ns = u64::try_from(self.config.max_wait.as_nanos()).unwrap_or(u64::MAX);
        while let Some((trace_id, since_ns)) = self.oldest() {
            if now_ns.saturating_sub(since_ns) < max_wait_ns {
                break;
            }
            self.decide_early(trace_id, keep);
        }
    }

    /// Decides everything that waits, from what is known; for a flush at the end.
    pub fn finish(&mut self, keep: &mut dyn FnMut(&[u8])) {
        while let Some((trace_id, _)) = self.oldest() {
            self.decide_early(trace_id, keep);
        }
    }

    /// Forgets everything, its own counts included: in a forked child, what waits is the parent's.
    pub fn clear(&mut self) {
        *self = Self::new(self.config.clone());
    }

    /// Spans that wait.
    pub fn waiting_spans(&self) -> u64 {
        self.waiting_spans
    }

    /// Traces that wait.
    pub fn waiting_traces(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that the waiting traces take.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    /// Spans that were kept.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Spans that were left out.
    pub fn sampled_out(&self) -> u64 {
        self.sampled_out
    }

    fn wait(&mut self, span: &SpanFacts, payload: &[u8], keep: &mut dyn FnMut(&[u8])) {
        let Ok(length) = u32::try_from(payload.len()) else {
            // It could never wait within any bound.
            let is_kept = self.keeps(span.trace_id, span.is_failed);
            return self.settle(is_kept, payload, keep);
        };
        let (now_ns, began) = (self.now_ns, self.began);
        let waiting = self.waiting.entry(span.trace_id).or_insert_with(|| Waiting {
            number: began,
            since_ns: now_ns,
            has_failed: false,
            spans: 0,
            payloads: Vec::new(),
        });
        if waiting.spans == 0 {
            self.order.push_back((span.trace_id, began));
            self.began += 1;
        } else {
            self.bytes -= waiting.bytes();
        }
        waiting.payloads.extend_from_slice(&length.to_le_bytes());
        waiting.payloads.extend_from_slice(payload);
        waiting.spans += 1;
        waiting.has_failed |= span.is_failed;
        self.bytes += waiting.bytes();
        self.waiting_spans += 1;
        while self.bytes > self.config.max_bytes || self.waiting.len() > self.config.max_traces {
            let Some((trace_id, _)) = self.oldest() else { break };
            self.decide_early(trace_id, keep);
        }
        if self.order.len() > 2 * self.waiting.len() + 64 {
            let waiting = &self.waiting;
            self.order.retain(|(id, number)| waiting.get(id).is_some_and(|waiting| waiting.number == *number));
        }
    }

    /// The trace that waits longest, and since when.
    fn oldest(&mut self) -> Option<(u128, u64)> {
        loop {
            let (trace_id, number) = *self.order.front()?;
            if let Some(waiting) = self.waiting.get(&trace_id).filter(|waiting| waiting.number == number) {
                return Some((trace_id, waiting.since_ns.unwrap_or(0)));
            }
            self.order.pop_front();
        }
    }

    fn take(&mut self, trace_id: u128) -> Option<Waiting> {
        let waiting = self.waiting.remove(&trace_id)?;
        self.bytes -= waiting.bytes();
        self.waiting_spans -= waiting.spans;
        Some(waiting)
    }

    fn decide_early(&mut self, trace_id: u128, keep: &mut dyn FnMut(&[u8])) {
        let waiting = self.take(trace_id);
        let has_failed = waiting.as_ref().is_some_and(|waiting| waiting.has_failed);
        let is_kept = self.keeps(trace_id, has_failed);
        self.decide(trace_id, waiting, is_kept, keep);
    }

    fn decide(&mut self, trace_id: u128, waiting: Option<Waiting>, is_kept: bool, keep: &mut dyn FnMut(&[u8])) {
        self.decided.remember(trace_id, is_kept);
        let Some(waiting) = waiting else { return };
        if !is_kept {
            self.sampled_out += waiting.spans;
            return;
        }
        self.kept += waiting.spans;
        let mut rest = waiting.payloads.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let Some((payload, behind)) = behind.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
            keep(payload);
            rest = behind;
        }
    }

    fn settle(&mut self, is_kept: bool, payload: &[u8], keep: &mut dyn FnMut(&[u8])) {
        if is_kept {
            self.kept += 1;
            keep(payload);
        } else {
            self.sampled_out += 1;
        }
    }

    /// What decides about every trace, whether its root is known or not.
    fn keeps(&self, trace_id: u128, has_failed: bool) -> bool {
        self.config.keeps_failed && has_failed || is_in_ratio(trace_id, self.config.ratio)
    }

    /// Whether a root is slow or rare.
    fn stands_out(&mut self, root: &SpanFacts) -> bool {
        let limit_ns = self.config.slower_than.map_or(u128::MAX, |limit| limit.as_nanos());
        let is_slow = u128::from(root.duration_ns) > limit_ns;
        if self.config.slower_than_quantile.is_none() && self.config.rare.is_none() {
            return is_slow;
        }
        let room = self.paths.len() < MAX_PATHS;
        let path = match self.paths.get_mut(&root.path_id) {
            Some(path) => path,
            None if room => self.paths.entry(root.path_id).or_default(),
            None => return is_slow,
        };
        // Both take note of the root, whatever the other says.
        let is_slow_here = self.config.slower_than_quantile.is_some_and(|q| path.is_slow(root.duration_ns, q));
        let is_rare =
            self.config.rare.is_some_and(|(first, period)| path.is_rare(self.now_ns.unwrap_or(0), first, period));
        is_slow || is_slow_here || is_rare
    }
}

impl fmt::Debug for TailSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TailSampler")
            .field("waiting_traces", &self.waiting.len())
            .field("waiting_bytes", &self.bytes)
            .field("kept", &self.kept)
            .field("sampled_out", &self.sampled_out)
            .finish()
    }
}

/// What is known of the roots of one path.
#[derive(Default)]
struct RootPath {
    durations_ns: Histogram,
    /// Above it, a root is slow; none before there were enough roots.
    slow_above_ns: Option<f64>,
    period_begin_ns: Option<u64>,
    in_period: u32,
}

impl RootPath {
    /// Compares with the roots before, then adds this one.
    fn is_slow(&mut self, duration_ns: u64, q: f64) -> bool {
        let duration_ns = duration_ns as f64;
        let is_slow = self.slow_above_ns.is_some_and(|limit| duration_ns > limit);
        self.durations_ns.record(duration_ns);
        let roots = self.durations_ns.count();
        if roots >= LEAST_ROOTS_FOR_QUANTILE && roots.is_power_of_two() {
            // The quantile is the middle of a bucket; roots in the upper half of the same bucket are no slower.
            self.slow_above_ns = self.durations_ns.quantile(q).map(|quantile| quantile * HALF_BUCKET);
        }
        if roots >= ROOTS_PER_WINDOW {
            self.durations_ns = Histogram::default();
        }
        is_slow
    }

    fn is_rare(&mut self, now_ns: u64, first: u32, period: Duration) -> bool {
        let begin_ns = *self.period_begin_ns.get_or_insert(now_ns);
        if u128::from(now_ns.saturating_sub(begin_ns)) >= period.as_nanos() {
            (self.period_begin_ns, self.in_period) = (Some(now_ns), 0);
        }
        self.in_period = self.in_period.saturating_add(1);
        self.in_period <= first
    }
}

/// The latest decisions, in a table of fixed size: a newer one takes the place of an older one in the same slot.
struct Decided {
    /// 63 bits that know the trace, and the decision in the lowest; 0 is nothing.
    slots: Vec<u64>,
}

impl Decided {
    fn new(max_traces: usize) -> Self {
        Self { slots: vec![0; max_traces.saturating_mul(2).clamp(1 << 10, 1 << 18).next_power_of_two()] }
    }

    fn of(&self, trace_id: u128) -> Option<bool> {
        let slot = *self.slots.get(self.place(trace_id))?;
        (slot | 1 == Self::mark(trace_id)).then_some(slot & 1 == 1)
    }

    fn remember(&mut self, trace_id: u128, is_kept: bool) {
        let place = self.place(trace_id);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Self::mark(trace_id) & !u64::from(!is_kept);
        }
    }

    fn place(&self, trace_id: u128) -> usize {
        (Self::fold(trace_id) >> 40) as usize & (self.slots.len() - 1)
    }

    /// Never 0 or 1.
    fn mark(trace_id: u128) -> u64 {
        (Self::fold(trace_id) | 1).max(3)
    }

    /// Both halves matter: others' ids may be random in one of them only.
    fn fold(trace_id: u128) -> u64 {
        let (high, low) = ((trace_id >> 64) as u64, trace_id as u64);
        (low ^ high.rotate_left(29))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32)
            .wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}
