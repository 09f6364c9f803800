//! A capture, or a spool, sent to a collector; or written as OTLP's JSON.
//!
//! No threads and no queue, unlike in a running program: whoever replays has time. Each request is sent when it is full, and
//! tried again for as long as one is patient. What was not accepted is counted by reason.

use std::{
    thread,
    time::{Duration, Instant},
};

use kastor::{Batch, Error, Process, Snapshot};

use super::{
    config::OtlpConfig,
    exporter::{Encoders, Limits, Takes},
    json::render,
    request::OpenRequest,
    span::SpanLimits,
    transport,
};
use crate::{
    delivery::{Answer, Backoff, Request, Signal, SpoolStore, Store as _, Transport, decode_stored, neutral},
    spool::SpoolConfig,
};

/// What became of what was sent. Aggregates are no events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Requests that the collector took.
    pub requests: u64,
    /// Bytes in them, before compression.
    pub bytes: u64,
    /// Events that the collector took.
    pub accepted: u64,
    /// Events of accepted requests that it did not take.
    pub rejected: u64,
    /// Events of requests that it refused for good.
    pub refused: u64,
    /// Events that are still to be sent: the collector could not be reached for too long.
    pub left: u64,
    /// Events that were not for the collector: of traces that are not sampled.
    pub not_sampled: u64,
    /// Events of a spool that could not be read.
    pub corrupt: u64,
    /// What the collector, or the way to it, said last against something.
    pub problem: Option<String>,
}

/// Sends batches and snapshots of any process to a collector.
pub struct OtlpReplay {
    config: OtlpConfig,
    sender: Sender,
    current: Option<(Process, Encoders)>,
}

impl OtlpReplay {
    /// Checks the settings; sends nothing yet. A spool in the settings is not used; nor is tail sampling.
    ///
    /// # Errors
    /// If an address, a header or a certificate cannot be used.
    pub fn new(config: OtlpConfig) -> Result<Self, Error> {
        config.check()?;
        let sender = Sender {
            transport: transport::connect(&config)(),
            backoff: Backoff::new(config.retry),
            patience: config.retry.give_up_after,
            has_given_up: false,
            sent: Sent::default(),
        };
        Ok(Self { config, sender, current: None })
    }

    /// Sends a batch, or keeps it until a request is full.
    pub fn batch(&mut self, batch: &Batch<'_>) {
        self.begin(batch.process());
        let Self { config, sender, current } = self;
        let Some((_, encoders)) = current else { return };
        let before = encoders.left_out;
        let takes = takes(config);
        encoders.batch(
            batch,
            takes,
            &mut |open, item| {
                if open.is_full_for(item.len()) {
                    sender.send_open(open);
                }
                open.push(item, 1);
            },
            &mut |_| {},
        );
        sender.sent.not_sampled += encoders.left_out - before;
    }

    /// Sends the sums of a snapshot, after what was before it.
    pub fn snapshot(&mut self, snapshot: &Snapshot<'_>) {
        self.begin(snapshot.process());
        if !takes(&self.config).metrics {
            return;
        }
        let Some((_, encoders)) = &mut self.current else { return };
        let requests: Vec<Request> =
            encoders.close_all().into_iter().chain(encoders.snapshot(snapshot, &snapshot.stats())).collect();
        requests.iter().for_each(|request| self.sender.send(request));
    }

    /// Sends the rest and tells what became of everything.
    pub fn finish(mut self) -> Sent {
        self.send_rest();
        self.sender.sent
    }

    /// Sends what waits in a spool, and removes from it what was accepted or refused for good. What a process that lives
    /// has there is left alone.
    ///
    /// # Errors
    /// If the spool cannot be opened or cleared.
    pub fn spool(mut self, spool: &SpoolConfig) -> Result<Sent, Error> {
        let store = SpoolStore::open(spool)?;
        while let Some(entry) = store.next() {
            let events = entry.events;
            match decode_stored(entry.payload, events) {
                Some((request, _)) => self.sender.send(&request),
                None => self.sender.sent.corrupt += events,
            }
            if self.sender.has_given_up {
                self.sender.sent.left = store.events();
                break;
            }
            store.acknowledge()?;
        }
        self.sender.sent.corrupt = self.sender.sent.corrupt.saturating_add(store.corrupt_events());
        store.sync()?;
        Ok(self.sender.sent)
    }

    fn begin(&mut self, process: Process) {
        if self.current.as_ref().is_some_and(|(current, _)| *current == process) {
            return;
        }
        self.send_rest();
        let OtlpConfig { resource, redaction, duration_unit, .. } = &self.config;
        let limits = Limits {
            span: self.config.limits,
            max_request_bytes: self.config.max_request_bytes,
            max_request_events: self.config.max_request_events,
        };
        self.current = Some((process, Encoders::new(process, resource, redaction, limits, *duration_unit)));
    }

    fn send_rest(&mut self) {
        if let Some((_, encoders)) = &mut self.current {
            encoders.close_all().iter().for_each(|request| self.sender.send(request));
        }
    }
}

fn takes(config: &OtlpConfig) -> Takes {
    let [traces, metrics] = Signal::ALL.map(|signal| config.signal(signal).is_on);
    Takes { traces, metrics }
}

struct Sender {
    transport: Box<dyn Transport>,
    backoff: Backoff,
    patience: Duration,
    has_given_up: bool,
    sent: Sent,
}

impl Sender {
    fn send_open(&mut self, open: &mut OpenRequest) {
        if let Some(request) = open.close() {
            self.send(&request);
        }
    }

    fn send(&mut self, request: &Request) {
        let began = Instant::now();
        while !self.has_given_up {
            match self.transport.send(request) {
                Answer::Accepted { rejected, message } => {
                    let rejected = rejected.min(request.events);
                    self.backoff.reset();
                    self.sent.requests += 1;
                    self.sent.bytes += request.body().len() as u64;
                    self.sent.rejected += rejected;
                    self.sent.accepted += request.events - rejected;
                    if !message.is_empty() {
                        self.sent.problem = Some(neutral(&message));
                    }
                    return;
                }
                Answer::Never { why } => {
                    self.backoff.reset();
                    self.sent.refused += request.events;
                    self.sent.problem = Some(neutral(&why));
                    return;
                }
                Answer::Later { after, why } => {
                    self.sent.problem = Some(neutral(&why));
                    let own = self.backoff.next_wait();
                    let wait = after.map_or(own, |after| after.max(own));
                    self.has_given_up = began.elapsed().saturating_add(wait) > self.patience;
                    if !self.has_given_up {
                        thread::sleep(wait);
                    }
                }
            }
        }
        self.sent.left += request.events;
    }
}

/// Writes batches and snapshots of one process as OTLP's JSON, one request a line.
pub struct OtlpText {
    encoders: Encoders,
    line: String,
}

impl OtlpText {
    /// An encoder for one process; the attributes stand for it beside its number and instance.
    pub fn new(process: Process, attributes: &[(String, String)]) -> Self {
        let limits = Limits { span: SpanLimits::default(), max_request_bytes: 256 << 10, max_request_events: u64::MAX };
        let (redaction, unit) = (crate::Redaction::default(), super::DurationUnit::default());
        Self { encoders: Encoders::new(process, attributes, &redaction, limits, unit), line: String::new() }
    }

    /// Appends the lines that a batch fills.
    ///
    /// # Errors
    /// If a request cannot be rendered.
    pub fn batch(&mut self, batch: &Batch<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let Self { encoders, line } = self;
        let mut failed = Ok(());
        encoders.batch(
            batch,
            Takes { traces: true, metrics: true },
            &mut |open, item| {
                if open.is_full_for(item.len()) {
                    let rendered = open.close().map_or(Ok(()), |request| push_line(&request, line, out));
                    if rendered.is_err() {
                        failed = rendered;
                    }
                }
                open.push(item, 1);
            },
            &mut |_| {},
        );
        failed
    }

    /// Appends what waits, then the sums.
    ///
    /// # Errors
    /// If a request cannot be rendered.
    pub fn snapshot(&mut self, snapshot: &Snapshot<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.finish(out)?;
        let requests = self.encoders.snapshot(snapshot, &snapshot.stats());
        requests.iter().try_for_each(|request| push_line(request, &mut self.line, out))
    }

    /// Appends what waits.
    ///
    /// # Errors
    /// If a request cannot be rendered.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.encoders.close_all().iter().try_for_each(|request| push_line(request, &mut self.line, out))
    }

    /// Events that are not in the lines: of traces that are not sampled.
    pub fn left_out(&self) -> u64 {
        self.encoders.left_out
    }
}

fn push_line(request: &Request, line: &mut String, out: &mut Vec<u8>) -> Result<(), Error> {
    line.clear();
    render(request.signal, request.body(), line)?;
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
    Ok(())
}
