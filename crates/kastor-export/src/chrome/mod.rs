//! Chrome's JSON traces, for chrome://tracing, ui.perfetto.dev and speedscope.
//!
//! | in kastor | in the trace |
//! |---|---|
//! | process, thread | metadata (`M`) `process_name`, `thread_name` |
//! | scope | a complete event (`X`), category `scope`; attributes are `args` |
//! | scope that failed | categories `scope,failed`, argument `error_type`, colour `terrible` |
//! | what does not nest on its thread: scopes of interleaved futures, scopes closed out of order | further threads `main (2)`, …, with numbers from 1,000,000,001 on |
//! | parent on another thread or flow; links | an arrow (`s`, `f`) from the beginning of one scope to that of the other |
//! | point event | an instant (`i`), category `event` |
//! | `metric!` with a number | a counter (`C`) of its path |
//! | `metric!` with something else | an instant, argument `value` |
//! | `count!`, `gauge!`, `histogram!` | at each snapshot a counter `path{labels}`: the sum, the last value, the number of values (`path (values)`) |
//!
//! Times are microseconds with three decimals, so nanoseconds, since the midnight that the metadata event `kastor_clock`
//! names; monotonic, moved to where the wall clock was at the first batch.
//!
//! The file is a JSON array, one event a line. After every batch it is a complete one: the closing bracket is written
//! with each batch and overwritten by the next. A file that was cut in the middle of a batch lacks it; the format allows
//! that, and the readers above take it, less a torn last line. A writer that is no file gets the bracket when the reporter
//! ends.
//!
//! ```no_run
//! use kastor::Telemetry;
//! use kastor_export::chrome::{Chrome, Config};
//!
//! # fn main() -> Result<(), kastor::Error> {
//! let chrome = Chrome::create("trace.json", Config::default())?;
//! let tele = Telemetry::builder().reporter(chrome).build();
//! # Ok(())
//! # }
//! ```

mod encode;
mod json;

use std::{io::Write, path::Path};

use kastor::{Accounts, Batch, Deadline, Error, Held, Reporter, Snapshot};

pub use self::encode::Encoder;
use crate::{Redaction, sink::Sink};

/// How a trace is written. The defaults are what most want.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) max_bytes: u64,
    pub(crate) ids: bool,
    pub(crate) process_name: Option<String>,
    pub(crate) redaction: Redaction,
    pub(crate) zero_unix_ns: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, ids: false, process_name: None, redaction: Redaction::default(), zero_unix_ns: None }
    }
}

impl Config {
    /// What is secret and never reaches a file; by default what [`Redaction::default`] hides.
    pub fn redaction(self, redaction: Redaction) -> Self {
        Self { redaction, ..self }
    }

    /// How large a file may become; 1 GiB by default, about what a browser can open. What comes later is dropped
    /// (`spool_full`).
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// Whether every scope has its trace id and span id as arguments; off by default.
    pub fn ids(self, ids: bool) -> Self {
        Self { ids, ..self }
    }

    /// The name of the process; by default that of the running program.
    pub fn process_name(self, name: impl Into<String>) -> Self {
        Self { process_name: Some(name.into()), ..self }
    }

    /// What is zero in the file, as nanoseconds since 1970; by default a midnight before the first batch. For encoders
    /// whose events are joined into one file.
    pub fn zero_unix_ns(self, ns: u64) -> Self {
        Self { zero_unix_ns: Some(ns), ..self }
    }
}

/// A reporter that writes a Chrome trace; see the [module](self).
///
/// A batch counts as delivered when the system has taken its bytes. A forked child writes a file of its own next to its
/// parent's: `trace.json` becomes `trace-4242.json`.
#[derive(Debug)]
pub struct Chrome {
    sink: Sink<Encoder>,
}

impl Chrome {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn create(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        let max_bytes = config.max_bytes;
        Ok(Self { sink: Sink::create(path.as_ref(), Encoder::new(config), max_bytes)? })
    }

    /// Writes to something else. A forked child cannot go on with it: its batches are refused and counted.
    pub fn to_writer(writer: impl Write + Send + 'static, config: Config) -> Self {
        let max_bytes = config.max_bytes;
        Self { sink: Sink::to_writer(Box::new(writer), Encoder::new(config), max_bytes) }
    }
}

impl Reporter for Chrome {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        self.sink.record_batch(batch)
    }

    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        self.sink.record_aggregates(snapshot)
    }

    fn flush(&self, _: Deadline) -> Result<(), Error> {
        self.sink.flush()
    }

    fn persist(&self, _: Deadline) -> Result<(), Error> {
        self.sink.persist()
    }

    fn accounts(&self) -> Option<Accounts> {
        Some(self.sink.accounts())
    }

    fn prefers_batches(&self) -> bool {
        true
    }

    fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        self.sink.hold_for_fork(held);
    }
}
