//! An enabled context: clock, aggregates, reporters, rules, accounts.
//!
//! Lanes keep a context alive; a context that no handle reaches any more is *dead*: its lanes are off, its workers end
//! when their queues are empty.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use super::{
    Builder,
    budget::{Budget, Change},
    collector,
    rules::Rules,
};
use crate::{
    aggregate::{Descriptions, SeriesTable, Shards},
    buffer,
    callsite::{self, Decide, Vote},
    clock::{Anchor, Anchors, Clock, Timeline, now_ns},
    dispatch::{Environment, Shared, Worker},
    event::{Collected, Event, Metric, Process, Snapshot, Source},
    health::{Degraded, DropReason, Ledger, Stats},
    name,
    record::{Record, Records},
    reporter::{Aggregates, Deadline, Goal, Guarded, Source as ReporterSource, log_contained},
    sampler::{Rate, Sampler},
    sync::{AtomicU8, AtomicU64, Held, Ordering::*},
    thread::{Call, CellWanted, Delivery, Lane, Part, Sink, block, lane_flag},
};

const ON: u8 = 0;
const OFF: u8 = 1;
const SHUT_DOWN: u8 = 2;
const DEAD: u8 = 3;

pub(crate) struct Context {
    pub(super) id: u64,
    pub(super) clock: Clock,
    pub(super) environment: Arc<Environment>,
    pub(super) shards: Shards,
    pub(super) series: SeriesTable,
    pub(super) descriptions: Descriptions,
    pub(super) inline: Vec<Guarded>,
    pub(super) workers: Vec<Arc<Worker>>,
    pub(super) rules: Rules,
    pub(super) budget: Option<Budget>,
    /// Paths that were degraded or restored so far.
    degradations: AtomicU64,
    rate: Rate,
    pub(super) is_strict: bool,
    pub(super) interval: Duration,
    state: AtomicU8,
    timings: AtomicU64,
    metrics: AtomicU64,
    cut_values: AtomicU64,
    refused: Ledger,
    next_snapshot_ns: AtomicU64,
    start_unix_ns: AtomicU64,
}

impl Context {
    pub(super) fn new(builder: Builder) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let read_pairs = builder.scope_read_pairs;
        let Builder { reporters, interval, queue_bytes, is_strict, clock, sampler, overhead_budget, .. } = builder;
        let background = reporters.iter().filter(|(_, on_full)| on_full.is_some()).count().max(1);
        let (mut inline, mut workers) = (Vec::new(), Vec::new());
        for (guarded, on_full) in reporters {
            match on_full {
                None => inline.push(guarded),
                Some(on_full) => workers.push(Arc::new(Worker::new(guarded, on_full, queue_bytes / background))),
            }
        }
        let clock = clock.unwrap_or_else(Clock::system);
        let anchors = Arc::new(Anchors::new(clock.clone()));
        let Anchor { unix_ns: start_unix_ns, monotonic_ns, .. } = anchors.current().anchor();
        let share = overhead_budget.filter(|share| *share > 0.0);
        let budget = share.and_then(|share| Budget::new(share, read_pairs, monotonic_ns));
        let is_weighed = budget.is_some();
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            clock,
            environment: Arc::new(Environment { anchors, process, sampler, is_weighed, context: OnceLock::new() }),
            shards: Shards::new(std::thread::available_parallelism().map_or(1, usize::from)),
            series: SeriesTable::default(),
            descriptions: Descriptions::default(),
            inline,
            workers,
            rules: Rules::default(),
            budget,
            degradations: AtomicU64::new(0),
            rate: Rate::default(),
            is_strict,
            interval,
            state: AtomicU8::new(ON),
            timings: AtomicU64::new(0),
            metrics: AtomicU64::new(0),
            cut_values: AtomicU64::new(0),
            refused: Ledger::default(),
            next_snapshot_ns: AtomicU64::new(now_ns().saturating_add(interval.as_nanos() as u64)),
            start_unix_ns: AtomicU64::new(start_unix_ns),
        }
    }

    /// The context exists: its reporters may ask it for aggregates.
    pub(super) fn start(self: &Arc<Self>) {
        let source: Weak<dyn ReporterSource> = Arc::downgrade(self) as _;
        let _ = self.environment.context.set(Weak::clone(&source));
        let workers = self.workers.iter().map(|worker| &worker.guarded);
        self.inline
            .iter()
            .chain(workers)
            .for_each(|guarded| guarded.start(Aggregates { source: Weak::clone(&source) }));
    }

    /// The line from ticks to time, fresh enough for this tick.
    pub(crate) fn timeline(&self, tick: u64) -> Timeline {
        self.environment.anchors.fresh(tick)
    }

    /// Whether it was shut down.
    pub(super) fn is_over(&self) -> bool {
        self.state.load(Relaxed) >= SHUT_DOWN
    }

    pub(super) fn is_on(&self) -> bool {
        self.state.load(Relaxed) == ON
    }

    /// Switches on or off, unless it is over.
    pub(super) fn switch(&self, is_on: bool) {
        let (from, to) = if is_on { (OFF, ON) } else { (ON, OFF) };
        if self.state.compare_exchange(from, to, SeqCst, SeqCst).is_ok() {
            self.reconfigure();
        }
    }

    /// Rewrites what callsites and lanes know of the configuration.
    pub(super) fn reconfigure(&self) {
        buffer::set_lane_flags(self);
        callsite::refresh();
    }

    /// Claims what every thread has published for this context.
    pub(super) fn publish(&self) -> bool {
        buffer::publish_all(|sink| sink.id() == self.id, false)
    }

    /// All aggregates, as they stand after what was published.
    pub(super) fn collect(&self, is_interval: bool) -> Collected {
        self.publish();
        let timeline = self.environment.anchors.renew();
        Collected {
            scopes: self.shards.collect(&timeline, is_interval),
            series: self.series.collect(&self.descriptions),
            start_unix_ns: self.start_unix_ns.load(Relaxed),
            unix_ns: timeline.anchor().unix_ns,
            process: process(),
        }
    }

    fn push_aggregates(&self) {
        if !self.workers.is_empty() {
            let collected = Arc::new(self.collect(true));
            for worker in &self.workers {
                worker.push_aggregates(Arc::clone(&collected), &self.environment);
            }
        }
    }

    /// Brings everything emitted so far as far as the goal says. Returns per worker what is still pending.
    pub(super) fn flush(&self, goal: Goal, deadline: Deadline) -> Vec<u64> {
        collector::ensure_running();
        let mut is_all = self.publish();
        if block(|t| t.delivering.get()) || crate::thread::is_own() {
            return self.workers.iter().map(|worker| worker.pending()).collect();
        }
        self.weigh();
        loop {
            self.push_aggregates();
            let tickets: Vec<u64> =
                self.workers.iter().map(|worker| worker.ask_flush(goal, deadline, &self.environment)).collect();
            let workers = self.workers.iter().zip(tickets);
            let mut pending: Vec<u64> =
                workers.map(|(worker, ticket)| worker.wait_flush(goal, ticket, deadline)).collect();
            if is_all || deadline.has_passed() {
                if !is_all {
                    pending.iter_mut().for_each(|pending| *pending = (*pending).max(1));
                }
                buffer::trim_pool();
                return pending;
            }
            // There was no room for everything, and now there is some.
            is_all = self.publish();
        }
    }

    pub(super) fn is_shut_down(&self) -> bool {
        self.state.load(SeqCst) == SHUT_DOWN
    }

    /// Nothing is taken any more. Returns whether this call ended it.
    pub(super) fn shut_down(&self) -> bool {
        let was = self.state.swap(SHUT_DOWN, SeqCst);
        if was == DEAD {
            self.state.store(DEAD, SeqCst);
        }
        self.reconfigure();
        was < SHUT_DOWN
    }

    pub(super) fn close_workers(&self) {
        self.workers.iter().for_each(|worker| worker.close());
    }

    /// The last handle is gone. Never blocks.
    pub(super) fn end(&self) {
        // Nobody waits for room any more: the last records go beyond the bound, by a chunk per thread at most.
        buffer::publish_all(|sink| sink.id() == self.id, true);
        self.state.store(DEAD, SeqCst);
        self.reconfigure();
        self.close_workers();
    }

    pub(super) fn stats(&self) -> Stats {
        self.publish();
        let waiting = if self.workers.is_empty() { 0 } else { buffer::undelivered(self) };
        let (timings, metrics) = (self.timings.load(Relaxed), self.metrics.load(Relaxed));
        // Every event is offered to every inline reporter: what was not dropped was delivered. So nothing is counted on
        // the emitting thread.
        let inline = self.inline.iter().map(|guarded| guarded.inline_stats(timings + metrics));
        Stats {
            degraded: self.degraded(),
            emitted: timings + metrics,
            timings,
            metrics,
            dropped: self.refused.read().1,
            cut_values: self.cut_values.load(Relaxed) + name::cut_names(),
            overflowed_names: name::overflowed(),
            overflowed_series: self.series.overflowed(),
            clock_gaps: self.environment.anchors.gaps(),
            reporters: inline.chain(self.workers.iter().map(|worker| worker.stats(waiting))).collect(),
        }
    }

    /// Whether a path is recorded, or aggregated only.
    pub(crate) fn records_path(&self, path: name::Path) -> bool {
        !self.rules.has_paths() || self.rules.records_path(path)
    }

    /// What is beyond the overhead budget now.
    pub(super) fn degraded(&self) -> Vec<Degraded> {
        self.budget.as_ref().map(Budget::degraded).unwrap_or_default()
    }

    /// Holds all paths against the overhead budget, after what was published.
    fn weigh(&self) {
        let Some(budget) = &self.budget else { return };
        let timeline = self.environment.anchors.fresh_now();
        let now_ns = timeline.monotonic_ns(self.clock.ticks());
        let delivery_ns = self.workers.iter().map(|worker| worker.event_ns()).sum();
        let mut is_switched = false;
        let apply = |(path, degraded): &Change| {
            is_switched |= self.rules.degrade(*path, degraded.as_ref().map(Degraded::level));
        };
        for (path, degraded) in budget.weigh(now_ns, delivery_ns, |f| self.shards.each_calls(f), apply) {
            let times = self.degradations.fetch_add(1, Relaxed) + 1;
            // The first three, then each time their number has doubled.
            if times <= 3 || times.is_power_of_two() {
                log_contained(|| match degraded {
                    Some(degraded) => log::warn!(target: "kastor", "over the overhead budget: {degraded}"),
                    None => {
                        let path = crate::escape::escaped(path.text());
                        log::info!(target: "kastor", "within the overhead budget again: {path}");
                    }
                });
            }
        }
        if is_switched {
            self.reconfigure();
        }
    }

    /// A path that is aggregated only does not leave the context.
    fn without_unrecorded(&self, delivery: Delivery) -> Delivery {
        if !self.rules.has_paths() {
            return delivery;
        }
        let part = delivery.part();
        let (mut kept, mut left_out) = (Vec::with_capacity(part.records.len()), 0);
        for record in Records(part.records) {
            if self.rules.records_path(record.path()) {
                kept.extend_from_slice(record.words());
            } else {
                left_out += 1;
            }
        }
        if left_out == 0 {
            return delivery;
        }
        for worker in &self.workers {
            worker.guarded.ledger().dropped(DropReason::Sampled, left_out);
        }
        let filtered = Delivery::copied(Part { records: &kept, ..part }, delivery.events - left_out);
        buffer::give_back(delivery.chunk);
        filtered
    }
}

impl Sink for Context {
    fn id(&self) -> u64 {
        self.id
    }

    fn lane_flags(&self) -> u32 {
        let off = if self.is_on() { 0 } else { lane_flag::OFF };
        let inline = if self.inline.is_empty() { 0 } else { lane_flag::INLINE };
        let slow = if self.clock.is_counter() { 0 } else { lane_flag::SLOW_CLOCK };
        let asks = if self.environment.sampler.interval_ns().is_some() { lane_flag::ROOTS_ASK } else { 0 };
        off | inline | slow | asks
    }

    fn is_dead(&self) -> bool {
        self.state.load(Relaxed) == DEAD
    }

    fn wants(&self, name: &str) -> bool {
        self.is_on() && self.rules.wants_scope(name)
    }

    fn ticks(&self) -> u64 {
        self.clock.ticks()
    }

    fn age_ns(&self, ticks: u64) -> u64 {
        let now = self.clock.ticks();
        self.environment.anchors.fresh(now).duration_ns(now.saturating_sub(ticks))
    }

    fn sampler(&self) -> Sampler {
        self.environment.sampler
    }

    fn takes_root(&self) -> bool {
        let interval_ns = self.environment.sampler.interval_ns();
        interval_ns.is_none_or(|interval_ns| self.rate.takes(now_ns(), interval_ns))
    }

    fn is_strict(&self) -> bool {
        self.is_strict
    }

    fn absorb(&self, part: Part<'_>) -> u64 {
        let timeline = self.environment.anchors.fresh_now();
        let counted =
            self.shards.absorb(part.thread.index, part.records, &Source::new(part, timeline, Sampler::ALWAYS));
        self.timings.fetch_add(counted.timings, Relaxed);
        self.metrics.fetch_add(counted.metrics, Relaxed);
        counted.timings + counted.metrics
    }

    fn absorb_metrics(&self, metrics: u64) {
        self.metrics.fetch_add(metrics, Relaxed);
    }

    fn takes_deliveries(&self) -> bool {
        !self.workers.is_empty()
    }

    fn deliver(&self, delivery: Delivery, had_room: bool) {
        if delivery.thread.is_own {
            for worker in &self.workers {
                worker.guarded.ledger().dropped(DropReason::Reentrant, delivery.events);
            }
            return buffer::give_back(delivery.chunk);
        }
        let delivery = self.without_unrecorded(delivery);
        match &*self.workers {
            [worker] => worker.push(Shared::One(delivery), had_room, &self.environment),
            workers => {
                let delivery = Arc::new(delivery);
                for worker in workers {
                    worker.push(Shared::Many(Arc::clone(&delivery)), had_room, &self.environment);
                }
            }
        }
    }

    fn wait_for_room(&self) -> bool {
        crate::thread::is_own()
            || self.workers.iter().map(|worker| worker.wait_for_room()).fold(true, |all, one| all & one)
    }

    fn inline(&self, part: Part<'_>) {
        block(|t| {
            if t.delivering.replace(true) {
                for guarded in &self.inline {
                    guarded.ledger().dropped(DropReason::Reentrant, 1);
                }
                return;
            }
            let source = Source::inline(part, &self.environment.anchors, self.environment.sampler);
            if let Some(record) = Record::of(part.records) {
                self.inline_event(&Event::new(record, &source));
            }
            t.delivering.set(false);
        });
    }

    fn inline_call(&self, lane: &Lane, call: &Call<'_>) {
        block(|t| {
            if self.inline.is_empty() || t.delivering.replace(true) {
                return;
            }
            let prefix = lane.thread.prefix.load(Relaxed);
            let part = Part { records: &[], flows: &[], thread: &lane.thread, prefix };
            let source = Source::inline(part, &self.environment.anchors, self.environment.sampler);
            let metric = Metric::from_call(call, &source);
            self.inline.iter().for_each(|guarded| guarded.metric(&metric, 0));
            t.delivering.set(false);
        });
    }

    fn duration_ns(&self, ticks: u64) -> u64 {
        self.environment.anchors.current().duration_ns(ticks)
    }

    fn cell(&self, lane: &Lane, wanted: &CellWanted<'_>) -> *const () {
        self.series.cell(lane, wanted).cast()
    }

    fn refused(&self, reason: DropReason) {
        self.refused.dropped(reason, 1);
    }

    fn refused_if_over(&self) {
        if self.is_over() {
            self.refused.dropped(DropReason::Shutdown, 1);
        }
    }

    fn has_room(&self) -> bool {
        self.workers.iter().all(|worker| worker.has_room())
    }

    fn cut(&self, values: u32) {
        self.cut_values.fetch_add(u64::from(values), Relaxed);
    }

    fn end_lane(&self, lane: &Lane) {
        self.series.leave_all(&lane.cells);
    }
}

impl ReporterSource for Context {
    fn snapshot(&self, f: &mut dyn FnMut(&Snapshot<'_>)) {
        f(&self.collect(false).as_snapshot(&|| self.stats()));
    }

    fn stats(&self) -> Stats {
        Context::stats(self)
    }
}

impl Context {
    fn inline_event(&self, event: &Event<'_>) {
        let path = match event {
            Event::Timing(timing) => timing.record_path(),
            Event::Metric(metric) => metric.record_path(),
        };
        if self.rules.has_paths() && !self.rules.records_path(path) {
            self.inline.iter().for_each(|guarded| guarded.ledger().dropped(DropReason::Sampled, 1));
            return;
        }
        for guarded in &self.inline {
            match event {
                Event::Timing(timing) => guarded.timing(timing),
                Event::Metric(metric) => guarded.metric(metric, 1),
            }
        }
    }
}

impl Decide for Context {
    fn vote(&self, scope: Option<&str>) -> Vote {
        match self.state.load(Relaxed) {
            ON if scope.is_none_or(|name| self.rules.wants_scope(name)) => Vote::Yes,
            // What comes after the shutdown is counted.
            SHUT_DOWN => Vote::Ask,
            DEAD => Vote::None,
            _ => Vote::No,
        }
    }
}

/// For the collector, the end of the process, and forks.
impl Context {
    /// Claims, nudges, and takes a snapshot if it is time.
    pub(super) fn tick(&self) {
        self.publish();
        self.weigh();
        self.workers.iter().for_each(|worker| worker.nudge(&self.environment));
        let now = now_ns();
        if now >= self.next_snapshot_ns.load(Relaxed) && self.is_on() {
            self.next_snapshot_ns.store(now.saturating_add(self.interval.as_nanos() as u64), Relaxed);
            self.push_aggregates();
        }
    }

    /// Wakes idle workers, so that they see that they are to rest.
    pub(super) fn wake_workers(&self) {
        self.workers.iter().for_each(|worker| worker.wake());
    }

    /// Flushes and drops the rest, counted.
    pub(super) fn flush_at_exit(&self, deadline: Deadline) {
        if self.is_shut_down() {
            // It has had its time, and what was pending then is dropped.
            return;
        }
        let pending = self.flush(Goal::Delivered, deadline);
        for (worker, pending) in self.workers.iter().zip(pending) {
            if pending > 0 {
                worker.abandon(DropReason::ProcessExit);
                let name = worker.guarded.name();
                log_contained(|| {
                    log::warn!(target: "kastor", "{pending} events were not delivered to {name} at exit");
                });
            }
        }
    }

    /// Locks what a forked child must find unlocked.
    pub(super) fn hold<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(self.environment.anchors.hold()));
        held.extend(self.budget.as_ref().map(|budget| Box::new(budget.hold()) as Box<dyn Held + 'a>));
        self.rules.hold(held);
        self.inline.iter().for_each(|guarded| guarded.hold(held));
        self.shards.hold().into_iter().for_each(|guard| held.push(Box::new(guard)));
        held.push(Box::new(self.series.hold()));
        held.push(Box::new(self.descriptions.hold()));
        self.workers.iter().for_each(|worker| worker.hold(held));
    }

    /// In a forked child: what happened before is the parent's business.
    pub(super) fn forget_past(&self) {
        self.shards.clear();
        self.series.clear();
        self.inline.iter().for_each(Guarded::reset);
        self.workers.iter().for_each(|worker| worker.forget());
        self.refused.reset();
        [&self.timings, &self.metrics, &self.cut_values].into_iter().for_each(|count| count.store(0, Relaxed));
        self.start_unix_ns.store(self.environment.anchors.renew().anchor().unix_ns, Relaxed);
    }
}

/// This process. A forked child has an identity of its own.
pub(crate) fn process() -> Process {
    let id = std::process::id();
    let seed = crate::thread::process_seed().wrapping_add(u64::from(id) << 32);
    let instance = (crate::event::mix(seed), crate::event::mix(seed ^ 0x9e37_79b9_7f4a_7c15));
    Process { id, instance_id: u128::from(instance.0) << 64 | u128::from(instance.1) }
}
