//! Native Perfetto traces, for ui.perfetto.dev and Perfetto's SQL engine.
//!
//! | in kastor | in the trace |
//! |---|---|
//! | process, thread | a track each, named |
//! | scope | a slice on its thread's track, category `scope`; attributes are debug annotations |
//! | scope that failed | also category `failed`, annotation `error_type` |
//! | what does not nest there: scopes of interleaved futures, scopes closed out of order | further tracks below the thread's: `main (2)`, … |
//! | parent on another thread or flow; links | a flow from the one scope to the other; several scopes linked to one that was written before share a flow, which leads through them in the order of time |
//! | point event | an instant, category `event`, on its scope's track |
//! | `metric!` with a number | a value of the counter track of its path |
//! | `metric!` with something else | an instant on its thread's track, annotation `value` |
//! | `count!`, `gauge!`, `histogram!` | at each snapshot a value of the counter track `path{labels}`: the sum, the last value, the number of values (`path (values)`) |
//!
//! Times are on the clock `REALTIME`, in nanoseconds, as the file declares: monotonic time, moved to where the wall clock
//! was at the first batch. Every batch is written at once as whole packets, so the file can be opened while it grows and
//! after a crash.
//!
//! ```no_run
//! use kastor::Telemetry;
//! use kastor_export::perfetto::{Config, Perfetto};
//!
//! # fn main() -> Result<(), kastor::Error> {
//! let perfetto = Perfetto::create("trace.perfetto-trace", Config::default())?;
//! let tele = Telemetry::builder().reporter(perfetto).build();
//! # Ok(())
//! # }
//! ```

mod clocks;
mod encode;
mod proto;

use std::{io::Write, path::Path};

use kastor::{Accounts, Batch, Deadline, Error, Held, Reporter, Snapshot};

pub use self::encode::Encoder;
pub(crate) use self::encode::{program_name, push_labels};
use crate::{Redaction, sink::Sink};

/// How a trace is written. The defaults are what most want.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) max_bytes: u64,
    pub(crate) ids: bool,
    pub(crate) process_name: Option<String>,
    pub(crate) redaction: Redaction,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, ids: false, process_name: None, redaction: Redaction::default() }
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

    /// Whether every slice has its trace id and span id as annotations; off by default.
    pub fn ids(self, ids: bool) -> Self {
        Self { ids, ..self }
    }

    /// The name of the process's track; by default that of the running program.
    pub fn process_name(self, name: impl Into<String>) -> Self {
        Self { process_name: Some(name.into()), ..self }
    }
}

/// A reporter that writes a Perfetto trace; see the [module](self).
///
/// A batch counts as delivered when the system has taken its bytes. A forked child writes a file of its own next to its
/// parent's: `trace.perfetto-trace` becomes `trace-4242.perfetto-trace`.
#[derive(Debug)]
pub struct Perfetto {
    sink: Sink<Encoder>,
}

impl Perfetto {
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

impl Reporter for Perfetto {
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
