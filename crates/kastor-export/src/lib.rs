//! Reporters for [`kastor`] that reach the world: files, sockets, formats.
//!
//! A program that only records links the core alone; this crate is for the program that wants its events elsewhere.
//! Every exporter is the same two things: a configuration, and an encoder from [`Batch`](kastor::Batch) or
//! [`Snapshot`](kastor::Snapshot) to bytes. What must be hard once (bounded queues, retry, disk) exists once.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod axis;
pub mod capture;
pub mod chrome;
#[cfg(feature = "otlp")]
mod delivery;
#[cfg(feature = "otlp")]
mod environment;
mod flows;
pub mod folded;
mod frame;
mod front;
mod fs;
#[doc(hidden)]
pub mod fuzz;
mod html;
#[cfg(feature = "otlp")]
mod install;
#[cfg(feature = "otlp")]
mod json_lines;
mod neutral;
#[cfg(feature = "otlp")]
mod otlp;
pub mod perfetto;
mod prometheus;
mod redact;
mod sampling;
#[cfg(test)]
mod simulated;
mod sink;
#[cfg_attr(not(any(test, feature = "otlp")), allow(dead_code, reason = "the delivery engine is what uses it"))]
mod spool;
mod statsd;
mod tracks;

#[cfg(feature = "otlp")]
pub use crate::{
    delivery::{Compression, Retry},
    install::install_from_env,
    json_lines::JsonLines,
    otlp::{DurationUnit, Otlp, OtlpConfig, OtlpReplay, OtlpText, Protocol, Sent},
};
pub use crate::{
    html::report_html,
    prometheus::{Exposition, Prometheus, PrometheusBuilder, PrometheusFormat, prometheus_text},
    redact::{REDACTED, RecordRedaction, Redaction},
    sampling::{SpanFacts, TailSampler, TailSampling, is_in_ratio},
    spool::SpoolConfig,
    statsd::{Statsd, StatsdBuilder, StatsdLines},
};
