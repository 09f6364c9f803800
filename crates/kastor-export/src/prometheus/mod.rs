//! Prometheus: the aggregates as `/metrics`, in text, OpenMetrics or protobuf; as a string, or served on a port.
//!
//! A [`Snapshot`] becomes metric families (`family`, `name`), which are written in one of three formats (`text`,
//! `protobuf`). [`Exposition`] is both steps in one call. [`Prometheus`] is the reporter that answers scrapes
//! (`server`): it takes a fresh snapshot when it is asked, and needs no events.
//!
//! What becomes of what, which names it gets and what is done about collisions is in `docs/prometheus.md`.

mod family;
mod name;
mod protobuf;
mod server;
mod text;

use kastor::{Snapshot, Telemetry};

pub(crate) use self::server::fuzz;
pub use self::server::{Prometheus, PrometheusBuilder};
use crate::redact::Redaction;

/// A format that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrometheusFormat {
    /// The classic text, version 0.0.4: no exemplars.
    Text,
    /// OpenMetrics 1.0.0: text with units and exemplars.
    OpenMetrics,
    /// Delimited `io.prometheus.client.MetricFamily` messages: the only one with native histograms.
    Protobuf,
}

impl PrometheusFormat {
    /// The format that fits an `Accept` header best; the classic text if none does.
    pub fn negotiate(accept: &str) -> Self {
        let mut best = (0, Self::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or("");
            let (mut quality, mut version, mut is_delimited, mut is_family) = (1_000, "", false, false);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match key.trim() {
                    "q" | "Q" => quality = thousandths(value),
                    "version" => version = value,
                    "encoding" => is_delimited = value == "delimited",
                    "proto" => is_family = value == "io.prometheus.client.MetricFamily",
                    _ => {}
                }
            }
            let is = |name: &str| media_type.eq_ignore_ascii_case(name);
            let format = if is("application/vnd.google.protobuf") && is_delimited && is_family {
                Self::Protobuf
            } else if is("application/openmetrics-text") && matches!(version, "" | "1.0.0") {
                Self::OpenMetrics
            } else if is("text/plain") && matches!(version, "" | "0.0.4") || is("text/*") || is("*/*") {
                Self::Text
            } else {
                continue;
            };
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// The `Content-Type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// A weight of an `Accept` header, 0 to 1 with at most three decimals, in thousandths; 0 if it is none.
fn thousandths(text: &str) -> u32 {
    let quality: f64 = text.parse().unwrap_or(0.0);
    if (0.0..=1.0).contains(&quality) { (quality * 1_000.0) as u32 } else { 0 }
}

/// How aggregates are written.
///
/// ```
/// use kastor::{Telemetry, count};
/// use kastor_export::{Exposition, PrometheusFormat};
///
/// let tele = Telemetry::builder().build();
/// count!(tele, "api.requests", 3);
/// let text = tele.snapshot(|snapshot| Exposition::new(PrometheusFormat::Text).text(snapshot));
/// assert!(text.contains("\napi_requests_total 3\n"));
/// ```
#[derive(Clone, Debug)]
pub struct Exposition {
    format: PrometheusFormat,
    redaction: Redaction,
}

impl Exposition {
    /// This format, with the default redaction.
    pub fn new(format: PrometheusFormat) -> Self {
        Self { format, redaction: Redaction::default() }
    }

    /// Which label values are secret.
    #[must_use]
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Appends everything that the snapshot holds.
    pub fn encode(&self, snapshot: &Snapshot<'_>, out: &mut Vec<u8>) {
        let families = family::families(snapshot, &self.redaction);
        match self.format {
            PrometheusFormat::Text => text::encode(&families, text::Dialect::Classic, out),
            PrometheusFormat::OpenMetrics => text::encode(&families, text::Dialect::OpenMetrics, out),
            PrometheusFormat::Protobuf => protobuf::encode(&families, out),
        }
    }

    /// The same as a string; empty for protobuf, which is no text.
    pub fn text(&self, snapshot: &Snapshot<'_>) -> String {
        let mut out = Vec::new();
        if self.format != PrometheusFormat::Protobuf {
            self.encode(snapshot, &mut out);
        }
        String::from_utf8(out).unwrap_or_default()
    }
}

/// The aggregates of a context in the classic text format, with the default redaction.
pub fn prometheus_text(telemetry: &Telemetry) -> String {
    telemetry.snapshot(|snapshot| Exposition::new(PrometheusFormat::Text).text(snapshot))
}
