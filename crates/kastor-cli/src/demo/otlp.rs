//! `kastor demo --otlp`: one more run, which is not measured, to an OpenTelemetry collector.

use kastor::{DropReason, Telemetry};
use kastor_export::{Otlp, OtlpConfig};
use serde::Serialize;

use super::pipeline::{self, Settings};
use super::{FLUSH_PATIENCE, Unseen, no_worker};
use crate::failure::Failure;

/// What arrived, and where.
#[derive(Serialize)]
pub(super) struct Sent {
    pub(super) url: String,
    pub(super) delivered: u64,
    /// Events that the collector refused, or that it did not take in time.
    pub(super) missing: u64,
}

/// Runs the pipeline once, to the collector at `url`. The environment's `OTEL_*` variables say the rest.
pub(super) fn run(url: &str, settings: &Settings) -> Result<Sent, Failure> {
    let unusable = |error: kastor::Error| Failure::new(error.to_string(), "give a URL such as http://localhost:4318");
    let otlp = Otlp::new(OtlpConfig::from_env().endpoint(url)).map_err(unusable)?;
    let telemetry = Telemetry::builder().reporter(otlp).build();
    pipeline::run(&telemetry, settings, &Unseen).map_err(no_worker)?;
    telemetry.shutdown(FLUSH_PATIENCE);
    let stats = telemetry.stats();
    let delivered = stats.reporters().iter().map(|reporter| reporter.delivered()).sum();
    if delivered == 0 {
        let refused = |reason| stats.reporters().iter().map(|reporter| reporter.dropped().of(reason)).sum::<u64>();
        let message = match refused(DropReason::NonRetryable) + refused(DropReason::RejectedByServer) {
            0 => format!("nobody at {url} took anything within {} s", FLUSH_PATIENCE.as_secs()),
            _ => format!("what listens at {url} refused everything"),
        };
        return Err(Failure::new(message, "start a collector there that takes OTLP over HTTP, or give its URL"));
    }
    Ok(Sent { url: url.to_owned(), delivered, missing: stats.emitted().saturating_sub(delivered) })
}
