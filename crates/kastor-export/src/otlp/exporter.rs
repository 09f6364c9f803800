//! One process's exporter: encoders in front, the delivery engine behind.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use kastor::{Accounts, Batch, Deadline, DropReason, Error, Event, Process, Snapshot, Stats, Timing};

use super::{
    config::OtlpConfig,
    metrics::{DurationUnit, MetricEncoder},
    request::{Head, OpenRequest},
    resource::resource,
    span::{SpanEncoder, SpanLimits},
    transport,
};
use crate::{
    delivery::{Engine, Request, Settings, Signal, Source, Store},
    redact::Redaction,
    sampling::{SpanFacts, TailSampler, TailSampling},
};

pub(crate) struct Exporter {
    process: Process,
    engine: Arc<Engine>,
    encoders: Mutex<Encoders>,
    /// Events of the batch that is being encoded which are accounted for here already, while the context still counts
    /// all of them as waiting.
    in_batch: AtomicU64,
    takes: [bool; Signal::ALL.len()],
}

impl Exporter {
    pub(crate) fn new(config: &OtlpConfig, process: Process, store: Option<Arc<dyn Store>>) -> Self {
        let settings = Settings {
            name: "otlp",
            thread_name: c"kastor-otlp",
            retry: config.retry,
            linger: config.linger,
            instance_id: process.instance_id,
        };
        let limits = Limits {
            span: config.limits,
            max_request_bytes: config.max_request_bytes,
            max_request_events: config.max_request_events,
        };
        let encoders = Encoders::new(process, &config.resource, &config.redaction, limits, config.duration_unit)
            .with_tail_sampling(config.tail_sampling.clone());
        Self {
            process,
            engine: Arc::new(Engine::new(settings, store, transport::connect(config))),
            encoders: Mutex::new(encoders),
            in_batch: AtomicU64::new(0),
            takes: Signal::ALL.map(|signal| config.signal(signal).is_on),
        }
    }

    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// Waits while the collector is slower than the program: then the context's queue fills up, and counts.
    pub(crate) fn batch(self: &Arc<Self>, batch: &Batch<'_>) {
        let mut encoders = self.lock();
        let encoders = &mut *encoders;
        let [takes_traces, takes_metrics] = self.takes;
        let takes = Takes { traces: takes_traces, metrics: takes_metrics };
        let before = encoders.left_out;
        // Counted here, and accounted for before anything leaves: not with locked instructions for each event.
        let accepted = Cell::new(0);
        encoders.batch(
            batch,
            takes,
            &mut |open, item| {
                if open.is_full_for(item.len()) {
                    self.accept(accepted.take());
                    self.hand_over(open, None);
                }
                open.push(item, 1);
            },
            &mut |events| accepted.set(accepted.get() + events),
        );
        self.accept(accepted.take());
        self.engine.ledger().drop_queued(DropReason::Sampled, encoders.left_out - before);
        self.in_batch.store(0, SeqCst);
        self.note_open(encoders);
    }

    /// So many events of the batch that is being encoded are in an account of this exporter from now on.
    fn accept(&self, events: u64) {
        self.engine.ledger().queue(events);
        self.in_batch.fetch_add(events, SeqCst);
    }

    pub(crate) fn aggregates(self: &Arc<Self>, snapshot: &Snapshot<'_>) {
        let stats = snapshot.stats();
        let mut encoders = self.lock();
        let encoders = &mut *encoders;
        let before = encoders.left_out;
        self.expire(encoders);
        self.engine.ledger().drop_queued(DropReason::Sampled, encoders.left_out - before);
        self.note_open(encoders);
        let [_, takes_metrics] = self.takes;
        if takes_metrics {
            let pieces = encoders.snapshot(snapshot, &stats);
            self.engine.hand_over_aggregates(self, pieces);
        }
    }

    pub(crate) fn flush(self: &Arc<Self>, deadline: Deadline) -> Result<(), Error> {
        self.hand_over_all(deadline)?;
        self.engine.flush(deadline)
    }

    pub(crate) fn persist(self: &Arc<Self>, deadline: Deadline) -> Result<(), Error> {
        self.hand_over_all(deadline)?;
        self.engine.persist(deadline)
    }

    pub(crate) fn accounts(&self) -> Accounts {
        let accounts = self.engine.accounts();
        let in_batch = self.in_batch.load(SeqCst);
        Accounts { queued: accounts.queued.saturating_sub(in_batch), ..accounts }
    }

    /// Hands the rest to the sender, which makes an attempt for it and ends.
    pub(crate) fn close(self: &Arc<Self>) {
        if let Some(mut encoders) = self.lock_until(Instant::now()) {
            let rest = encoders.close_all();
            self.engine.close(self, rest);
        }
    }

    /// Everything that is open, tail sampling's included, as far as there is room in time.
    fn hand_over_all(self: &Arc<Self>, deadline: Deadline) -> Result<(), Error> {
        let until = Instant::now() + deadline.remaining();
        let late = || Error::timeout("otlp: the collector did not take what waits in time");
        let mut encoders = self.lock_until(until).ok_or_else(late)?;
        let encoders = &mut *encoders;
        let before = encoders.left_out;
        encoders.finish_tail_sampling(&mut |open, item| {
            if open.is_full_for(item.len()) {
                self.hand_over(open, None);
            }
            open.push(item, 1);
        });
        self.engine.ledger().drop_queued(DropReason::Sampled, encoders.left_out - before);
        let mut is_all = true;
        for open in [&mut encoders.traces, &mut encoders.points] {
            is_all &= self.hand_over(open, Some(until));
        }
        self.note_open(encoders);
        if is_all { Ok(()) } else { Err(late()) }
    }

    fn expire(self: &Arc<Self>, encoders: &mut Encoders) {
        encoders.expire_tail_sampling(&mut |open, item| {
            if open.is_full_for(item.len()) {
                self.hand_over(open, None);
            }
            open.push(item, 1);
        });
    }

    /// Returns whether nothing is open there any more.
    fn hand_over(self: &Arc<Self>, open: &mut OpenRequest, deadline: Option<Instant>) -> bool {
        if open.is_empty() {
            return true;
        }
        let has_room = self.engine.wait_for_room(open.signal(), deadline);
        if let Some(request) = has_room.then(|| open.close()).flatten() {
            self.engine.hand_over(self, request);
        }
        has_room
    }

    fn note_open(self: &Arc<Self>, encoders: &Encoders) {
        self.engine.set_open(self, !encoders.traces.is_empty() || !encoders.points.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, Encoders> {
        self.encoders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else holds it for long, but for a batch that waits for a dead collector.
    fn lock_until(&self, until: Instant) -> Option<MutexGuard<'_, Encoders>> {
        loop {
            match self.encoders.try_lock() {
                Ok(encoders) => return Some(encoders),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return None,
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Source for Exporter {
    fn take_open(self: Arc<Self>) {
        // Somebody who encodes comes here again.
        if let Some(mut encoders) = self.lock_until(Instant::now()) {
            let encoders = &mut *encoders;
            for open in [&mut encoders.traces, &mut encoders.points] {
                self.hand_over(open, Some(Instant::now()));
            }
            self.note_open(encoders);
        }
    }
}

/// What an exporter takes of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Takes {
    pub(crate) traces: bool,
    pub(crate) metrics: bool,
}

/// Bounds of what is encoded.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) span: SpanLimits,
    pub(crate) max_request_bytes: usize,
    pub(crate) max_request_events: u64,
}

/// From events and aggregates to items of open requests.
pub(crate) struct Encoders {
    spans: SpanEncoder,
    metrics: MetricEncoder,
    pub(crate) traces: OpenRequest,
    /// Plain metric events.
    pub(crate) points: OpenRequest,
    aggregates: OpenRequest,
    tail: Option<TailSampler>,
    /// Events that sampling left out so far.
    pub(crate) left_out: u64,
    /// For events that need ids of their own.
    next_id: u64,
}

/// Takes an item of an open request.
type Put<'a> = &'a mut dyn FnMut(&mut OpenRequest, &[u8]);

impl Encoders {
    pub(crate) fn new(
        process: Process,
        attributes: &[(String, String)],
        redaction: &Redaction,
        limits: Limits,
        unit: DurationUnit,
    ) -> Self {
        let resource = resource(process, attributes, redaction);
        let open =
            |signal, max_bytes| OpenRequest::new(signal, Head::new(&resource), max_bytes, limits.max_request_events);
        Self {
            spans: SpanEncoder::new(limits.span, redaction.clone()),
            metrics: MetricEncoder::new(redaction.clone(), unit),
            traces: open(Signal::Traces, limits.max_request_bytes),
            // Rarer than spans, and with less memory for it.
            points: open(Signal::Metrics, limits.max_request_bytes.min(64 << 10)),
            aggregates: open(Signal::Metrics, limits.max_request_bytes),
            tail: None,
            left_out: 0,
            next_id: process.instance_id as u64 ^ (process.instance_id >> 64) as u64,
        }
    }

    pub(crate) fn with_tail_sampling(mut self, sampling: Option<TailSampling>) -> Self {
        self.tail = sampling.map(TailSampler::new);
        self
    }

    /// Encodes the events of a batch, one item each. `accepted` is told of each event before it is put anywhere; those
    /// that are left out afterwards are added to `left_out`.
    pub(crate) fn batch(&mut self, batch: &Batch<'_>, takes: Takes, put: Put<'_>, accepted: &mut dyn FnMut(u64)) {
        self.spans.begin(batch);
        for event in batch.events() {
            accepted(1);
            match event {
                Event::Timing(timing) if takes.traces && timing.is_sampled() => self.timing(&timing, put),
                Event::Timing(_) => self.left_out += 1,
                Event::Metric(metric) => match self.metrics.event(&metric) {
                    Some(point) if takes.metrics => put(&mut self.points, point),
                    None if takes.traces => self.textual_metric(&metric, put),
                    _ => self.left_out += 1,
                },
            }
        }
        self.expire_tail_sampling(put);
    }

    /// The metrics of a snapshot, as requests of bounded size.
    pub(crate) fn snapshot(&mut self, snapshot: &Snapshot<'_>, stats: &Stats) -> Vec<Request> {
        let Self { metrics, aggregates, .. } = self;
        let mut requests = Vec::new();
        metrics.snapshot(snapshot, stats, |metric| {
            if aggregates.is_full_for(metric.len()) {
                requests.extend(aggregates.close());
            }
            aggregates.push(metric, 0);
        });
        requests.extend(aggregates.close());
        requests
    }

    /// What is open, with nothing left behind.
    pub(crate) fn close_all(&mut self) -> Vec<Request> {
        [self.traces.close(), self.points.close()].into_iter().flatten().collect()
    }

    /// Decides about every trace that waits.
    pub(crate) fn finish_tail_sampling(&mut self, put: Put<'_>) {
        self.with_tail(put, |tail, keep| tail.finish(keep));
    }

    /// Decides about the traces that have waited for too long.
    pub(crate) fn expire_tail_sampling(&mut self, put: Put<'_>) {
        self.with_tail(put, |tail, keep| tail.expire(monotonic_ns(), keep));
    }

    fn timing(&mut self, timing: &Timing<'_>, put: Put<'_>) {
        let span = self.spans.timing(timing);
        match &mut self.tail {
            None => put(&mut self.traces, span),
            Some(tail) => {
                let facts = SpanFacts {
                    trace_id: timing.trace_id(),
                    is_local_root: timing.depth() == 0,
                    duration_ns: timing.duration_ns(),
                    is_failed: timing.outcome() == kastor::Outcome::Failed,
                    path_id: timing.path_id(),
                };
                let before = tail.sampled_out();
                tail.offer(facts, span, &mut |span| put(&mut self.traces, span));
                self.left_out += tail.sampled_out() - before;
            }
        }
    }

    /// A metric event that is no number travels with the spans.
    fn textual_metric(&mut self, metric: &kastor::Metric<'_>, put: Put<'_>) {
        let mut id = || {
            self.next_id = self.next_id.wrapping_add(0x9e37_79b9_7f4a_7c15);
            // The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
            let mut word = self.next_id;
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (word ^ word >> 31).max(1)
        };
        let trace_id = metric.trace_id().unwrap_or_else(|| u128::from(id()) << 64 | u128::from(id()));
        let span = self.spans.metric(metric, trace_id, id());
        match &mut self.tail {
            // It follows its trace; one without a trace decides for itself.
            Some(tail) if metric.trace_id().is_some() => {
                let facts = SpanFacts {
                    trace_id,
                    is_local_root: false,
                    duration_ns: 0,
                    is_failed: false,
                    path_id: metric.path_id(),
                };
                let before = tail.sampled_out();
                tail.offer(facts, span, &mut |span| put(&mut self.traces, span));
                self.left_out += tail.sampled_out() - before;
            }
            _ => put(&mut self.traces, span),
        }
    }

    fn with_tail(&mut self, put: Put<'_>, decide: impl FnOnce(&mut TailSampler, &mut dyn FnMut(&[u8]))) {
        if let Some(tail) = &mut self.tail {
            let before = tail.sampled_out();
            decide(tail, &mut |span| put(&mut self.traces, span));
            self.left_out += tail.sampled_out() - before;
        }
    }
}

/// A clock that never goes back; only differences matter.
fn monotonic_ns() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
