//! OpenTelemetry: traces and metrics to any collector that speaks OTLP.
//!
//! ```text
//! Batch    ─ span / metrics ─▶ OpenRequest ─▶ delivery ─▶ HTTP/protobuf, HTTP/JSON or gRPC
//! Snapshot ─ metrics ────────▶ OpenRequest ─▶ delivery
//! ```
//!
//! Everything is protobuf until it leaves: the spool and every transport share one form, JSON is made of it at the end.
//! `docs/opentelemetry.md` says what becomes of what.

mod attribute;
mod config;
pub(crate) mod environment;
mod exporter;
mod fuzz;
#[cfg(feature = "grpc")]
mod grpc;
mod json;
mod metrics;
mod replay;
mod request;
mod resource;
mod response;
mod span;
#[cfg(test)]
mod tests;
mod transport;
mod value;
mod wire;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kastor::{Accounts, Batch, Deadline, Error, Held, Process, Reporter, Snapshot};

use self::exporter::Exporter;
pub use self::{
    config::{OtlpConfig, Protocol},
    metrics::DurationUnit,
    replay::{OtlpReplay, OtlpText, Sent},
};
pub(crate) use self::{
    exporter::{Encoders, Limits, Takes},
    fuzz::{answers as fuzz_answers, environment as fuzz_environment, http as fuzz_http},
    json::render as render_json,
    request::OpenRequest,
    span::SpanLimits,
};
use crate::delivery::{SpoolStore, Store, contained};

/// Sends scopes as spans, and aggregates as metrics, to an OpenTelemetry collector.
///
/// A batch reporter: the context runs it in the background by itself. It never blocks the program. While the collector
/// does not answer, events wait in the context's bounded queue, and what finds no room there is counted.
///
/// ```no_run
/// use kastor_export::{Otlp, OtlpConfig};
///
/// # fn main() -> Result<(), kastor::Error> {
/// let otlp = Otlp::new(OtlpConfig::new("http://localhost:4318").service_name("shop"))?;
/// let tele = kastor::Telemetry::builder().reporter(otlp).build();
/// # Ok(())
/// # }
/// ```
pub struct Otlp {
    config: Arc<OtlpConfig>,
    /// Of this process and, emptied, of its forked children.
    spool: Option<Arc<SpoolStore>>,
    /// This process's part; none before the first event. Held for moments only, and during a fork.
    exporter: Mutex<Option<Arc<Exporter>>>,
}

impl Otlp {
    /// Checks the settings and opens the spool, if there is one. Nothing is sent and no thread is started before there
    /// is something to send.
    ///
    /// # Errors
    /// If an address, a header or a certificate cannot be used, or the spool cannot be opened.
    pub fn new(config: OtlpConfig) -> Result<Self, Error> {
        config.check()?;
        let spool = match &config.spool {
            Some(spool) => Some(Arc::new(SpoolStore::open(spool)?)),
            None => None,
        };
        Ok(Self { config: Arc::new(config), spool, exporter: Mutex::default() })
    }

    /// As the environment says, with OpenTelemetry's variables. What cannot be understood there is logged, and its
    /// default used.
    ///
    /// # Errors
    /// As [`Otlp::new`].
    pub fn from_env() -> Result<Self, Error> {
        Self::new(OtlpConfig::from_env())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Exporter>>> {
        self.exporter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process's part. A forked child begins anew, and leaves alone what it inherited: locks that other threads
    /// held, and connections, are the parent's.
    fn exporter(&self, process: Process) -> Arc<Exporter> {
        let mut existing = self.lock();
        if let Some(exporter) = existing.as_ref().filter(|exporter| exporter.process() == process) {
            return Arc::clone(exporter);
        }
        std::mem::forget(existing.take());
        let mut store = self.spool.as_ref().map(|spool| Arc::clone(spool) as Arc<dyn Store>);
        if let Some(spool) = self.spool.as_ref().filter(|spool| !spool.is_own())
            && let Err(error) = spool.begin_anew()
        {
            contained(|| log::error!(target: "kastor_export", "otlp: a forked child sends without a spool: {error}"));
            store = None;
        }
        let exporter = Arc::new(Exporter::new(&self.config, process, store));
        *existing = Some(Arc::clone(&exporter));
        exporter
    }

    /// This process's part, if it has recorded anything.
    fn existing(&self) -> Option<Arc<Exporter>> {
        let own = std::process::id();
        self.lock().as_ref().filter(|exporter| exporter.process().id == own).map(Arc::clone)
    }
}

impl OtlpConfig {
    /// As the environment says, with OpenTelemetry's variables; see `docs/opentelemetry.md`. What cannot be understood
    /// there is logged, and its default used.
    pub fn from_env() -> Self {
        crate::environment::Environment::of_process(environment::read)
    }
}

impl Reporter for Otlp {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        self.exporter(batch.process()).batch(batch);
        Ok(())
    }

    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        self.exporter(snapshot.process()).aggregates(snapshot);
        Ok(())
    }

    fn flush(&self, deadline: Deadline) -> Result<(), Error> {
        self.existing().map_or(Ok(()), |exporter| exporter.flush(deadline))
    }

    fn persist(&self, deadline: Deadline) -> Result<(), Error> {
        self.existing().map_or(Ok(()), |exporter| exporter.persist(deadline))
    }

    fn accounts(&self) -> Option<Accounts> {
        // Before the first event there is nothing to account for.
        Some(self.existing().map(|exporter| exporter.accounts()).unwrap_or_default())
    }

    fn prefers_batches(&self) -> bool {
        true
    }

    fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(self.lock()));
        if let Some(spool) = &self.spool {
            spool.hold_for_fork(held);
        }
    }
}

impl Drop for Otlp {
    /// Never waits: the sender makes one attempt for what is left, and ends.
    fn drop(&mut self) {
        match self.exporter.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            Some(exporter) if exporter.process().id == std::process::id() => exporter.close(),
            inherited => std::mem::forget(inherited),
        }
        if let Some(inherited) = self.spool.take_if(|spool| !spool.is_own()) {
            // Its files are the parent's.
            std::mem::forget(inherited);
        }
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Otlp").field(&self.config).finish()
    }
}
