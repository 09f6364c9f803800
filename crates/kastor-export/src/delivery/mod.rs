//! From encoded requests to the other side: queue, retry, disk, deadlines and accounts, once for every exporter.
//!
//! ```text
//! encoder ──open request──▶ slot ──▶ sender thread ──▶ Transport          without a store
//! encoder ──open request──▶ Store (disk) ──▶ sender thread ──▶ Transport  with one
//! ```
//!
//! Each signal has one slot for one request. While it is taken, the encoder waits, and with it the reporter's thread, so
//! that what comes next waits as small records in the core's bounded queue, where a loss is counted as `queue_full`.
//! Memory beyond that bound is the open request, the slot, and the request that is being sent.
//!
//! Sums of metrics are cumulative, so they are no events: a newer snapshot replaces an older one that still waits.
//!
//! Nobody but the sender thread ever waits for the network. A flush waits for the sender, at most until its deadline; a
//! name server that does not answer can hold up the sender, and no one else.

mod accounts;
mod canned;
mod compression;
mod engine;
mod http;
mod note;
mod queue;
mod retry;
mod sender;
mod store;

use std::time::Duration;

#[cfg(feature = "grpc")]
pub(crate) use self::retry::is_grpc_retryable;
pub(crate) use self::{
    accounts::Ledger,
    canned::answer_to,
    compression::decompressed,
    engine::{Engine, Settings, Source},
    http::{Http, HttpSettings, LARGEST_ANSWER_BYTES, Tls},
    note::{Note, contained, neutral},
    retry::{Backoff, parse_retry_after},
    store::{SpoolStore, Store, decode as decode_stored},
};
pub use self::{compression::Compression, retry::Retry};

/// What a request carries, and with it where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    pub(crate) const ALL: [Signal; 2] = [Signal::Traces, Signal::Metrics];
}

/// One encoded request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) signal: Signal,
    /// The body begins at `from`: what is known last stands first, without moving the rest.
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: usize,
    /// Events in it; aggregates are none.
    pub(crate) events: u64,
}

impl Request {
    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or(&[])
    }
}

/// What became of an attempt.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// Taken, but for so many items, which the server will not take at any time.
    Accepted { rejected: u64, message: String },
    /// Not now; perhaps the server said when.
    Later { after: Option<Duration>, why: String },
    /// Not now and not later.
    Never { why: String },
}

/// Sends one request and waits for the answer, within a time of its own.
pub(crate) trait Transport {
    fn send(&mut self, request: &Request) -> Answer;
}

/// How a sender thread gets its transport: there, since some are bound to their thread.
pub(crate) type Connect = Box<dyn Fn() -> Box<dyn Transport> + Send + Sync>;
