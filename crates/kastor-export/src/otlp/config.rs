//! What an OTLP exporter is told, by the program or by the environment.

use std::{fmt, time::Duration};

use kastor::Error;
use ureq::http::{HeaderName, HeaderValue, Uri};

use super::{metrics::DurationUnit, span::SpanLimits};
use crate::{
    delivery::{Compression, Retry, Signal, Tls},
    redact::Redaction,
    sampling::TailSampling,
    spool::SpoolConfig,
};

/// How requests travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Protobuf over HTTP, usually to port 4318.
    #[default]
    HttpProtobuf,
    /// JSON over HTTP, usually to port 4318.
    HttpJson,
    /// gRPC, usually to port 4317.
    #[cfg(feature = "grpc")]
    Grpc,
}

/// Settings of an [`Otlp`](super::Otlp) exporter. The default sends protobuf over HTTP to `http://localhost:4318`, as
/// OpenTelemetry's specification has it.
///
/// ```
/// use kastor_export::{Compression, OtlpConfig};
///
/// let config = OtlpConfig::new("https://collector.example.org:4318")
///     .header("authorization", "Bearer 123")
///     .service_name("shop")
///     .compression(Compression::Gzip);
/// assert!(!format!("{config:?}").contains("123"), "headers may be secret");
/// ```
#[derive(Clone)]
#[must_use]
pub struct OtlpConfig {
    pub(super) base_endpoint: Option<String>,
    pub(super) signals: [SignalConfig; Signal::ALL.len()],
    pub(super) resource: Vec<(String, String)>,
    pub(super) limits: SpanLimits,
    pub(super) redaction: Redaction,
    pub(super) tail_sampling: Option<TailSampling>,
    pub(super) spool: Option<SpoolConfig>,
    pub(super) retry: Retry,
    pub(super) linger: Duration,
    pub(super) max_request_bytes: usize,
    pub(super) max_request_events: u64,
    pub(super) duration_unit: DurationUnit,
}

/// What may differ between traces and metrics.
#[derive(Clone)]
pub(super) struct SignalConfig {
    pub(super) is_on: bool,
    /// As it is; none means the common one, with the signal's path.
    pub(super) endpoint: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Duration,
    pub(super) compression: Compression,
    pub(super) protocol: Protocol,
    pub(super) tls: Tls,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        let signal = SignalConfig {
            is_on: true,
            endpoint: None,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            compression: Compression::None,
            protocol: Protocol::HttpProtobuf,
            tls: Tls::default(),
        };
        Self {
            base_endpoint: None,
            signals: [signal.clone(), signal],
            resource: Vec::new(),
            limits: SpanLimits::default(),
            redaction: Redaction::default(),
            tail_sampling: None,
            spool: None,
            retry: Retry::default(),
            linger: Duration::from_secs(1),
            max_request_bytes: 320 << 10,
            max_request_events: u64::MAX,
            duration_unit: DurationUnit::Seconds,
        }
    }
}

impl OtlpConfig {
    /// Sends to this collector. Over HTTP, `/v1/traces` and `/v1/metrics` are appended.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { base_endpoint: Some(endpoint.into()), ..Self::default() }
    }

    /// Sends to this collector instead, traces and metrics alike. Over HTTP, `/v1/traces` and `/v1/metrics` are appended.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.base_endpoint = Some(endpoint.into());
        self.each(|signal| signal.endpoint = None)
    }

    /// Sends traces to exactly this address.
    pub fn traces_endpoint(mut self, url: impl Into<String>) -> Self {
        self.of(Signal::Traces).endpoint = Some(url.into());
        self
    }

    /// Sends metrics to exactly this address.
    pub fn metrics_endpoint(mut self, url: impl Into<String>) -> Self {
        self.of(Signal::Metrics).endpoint = Some(url.into());
        self
    }

    /// Exports no traces: scopes count as dropped (`sampled`). Metrics have their durations nevertheless.
    pub fn without_traces(mut self) -> Self {
        self.of(Signal::Traces).is_on = false;
        self
    }

    /// Exports no metrics: plain metric events count as dropped (`sampled`).
    pub fn without_metrics(mut self) -> Self {
        self.of(Signal::Metrics).is_on = false;
        self
    }

    /// How requests travel; protobuf over HTTP by default.
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.each(|signal| signal.protocol = protocol)
    }

    /// How requests are compressed; not at all by default.
    pub fn compression(self, compression: Compression) -> Self {
        self.each(|signal| signal.compression = compression)
    }

    /// How long one attempt may take; 10 s by default.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.each(|signal| signal.timeout = timeout)
    }

    /// Adds a header to every request. Never printed.
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let header = (name.into(), value.into());
        self.each(|signal| signal.headers.push(header.clone()))
    }

    /// Trusts these certificates (PEM) instead of the system's.
    pub fn root_certificates(self, pem: impl Into<Vec<u8>>) -> Self {
        let pem = pem.into();
        self.each(|signal| signal.tls.roots = Some(pem.clone()))
    }

    /// Shows this certificate chain (PEM), with its key (PEM), to a collector that asks for one.
    pub fn client_certificate(self, chain_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        let client = (chain_pem.into(), key_pem.into());
        self.each(|signal| signal.tls.client = Some(client.clone()))
    }

    /// The service's name; `unknown_service:` and the executable's name by default.
    pub fn service_name(self, name: impl Into<String>) -> Self {
        self.resource_attribute("service.name", name)
    }

    /// An attribute of everything that this process sends. The later value of a key wins.
    pub fn resource_attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.resource.push((key.into(), value.into()));
        self
    }

    /// What is secret; the usual keys and shapes by default.
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Keeps whole traces back until their root has closed, and exports what is slow, failed or rare. Takes memory of
    /// its own, see [`TailSampling`].
    pub fn tail_sampling(mut self, sampling: TailSampling) -> Self {
        self.tail_sampling = Some(sampling);
        self
    }

    /// Puts requests on disk before they are sent, so that they survive an outage and the process.
    pub fn spool(mut self, spool: SpoolConfig) -> Self {
        self.spool = Some(spool);
        self
    }

    /// How often failed requests are tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// How long a request may wait for more before it is sent; 1 s by default.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Bytes of a request before compression, at least 4 KiB; 320 KiB by default. Up to four times as much is held at a
    /// time beside the context's queue.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes.max(4 << 10);
        self
    }

    /// Events of a request; by default only bytes count.
    pub fn max_request_events(mut self, events: u64) -> Self {
        self.max_request_events = events.max(1);
        self
    }

    /// Attributes of a span; 128 by default.
    pub fn max_span_attributes(mut self, attributes: usize) -> Self {
        self.limits.attributes = attributes;
        self
    }

    /// Characters of a text in a span; by default only the core's limit of 4 KiB counts.
    pub fn max_value_characters(mut self, characters: usize) -> Self {
        self.limits.value_characters = characters;
        self
    }

    /// The unit of scope durations; seconds by default.
    pub fn duration_unit(mut self, unit: DurationUnit) -> Self {
        self.duration_unit = unit;
        self
    }

    pub(super) fn of(&mut self, signal: Signal) -> &mut SignalConfig {
        let [traces, metrics] = &mut self.signals;
        match signal {
            Signal::Traces => traces,
            Signal::Metrics => metrics,
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> &SignalConfig {
        let [traces, metrics] = &self.signals;
        match signal {
            Signal::Traces => traces,
            Signal::Metrics => metrics,
        }
    }

    fn each(mut self, set: impl Fn(&mut SignalConfig)) -> Self {
        self.signals.iter_mut().for_each(set);
        self
    }

    /// Where a signal goes.
    pub(super) fn url(&self, signal: Signal) -> String {
        let of_signal = self.signal(signal);
        if let Some(own) = &of_signal.endpoint {
            return own.clone();
        }
        let path = match (of_signal.protocol, signal) {
            #[cfg(feature = "grpc")]
            (Protocol::Grpc, _) => {
                return self.base_endpoint.clone().unwrap_or_else(|| "http://localhost:4317".into());
            }
            (_, Signal::Traces) => "v1/traces",
            (_, Signal::Metrics) => "v1/metrics",
        };
        let base = self.base_endpoint.as_deref().unwrap_or("http://localhost:4318");
        format!("{}/{path}", base.trim_end_matches('/'))
    }

    /// Whether anything is exported at all.
    pub(crate) fn takes_anything(&self) -> bool {
        self.signals.iter().any(|signal| signal.is_on)
    }

    /// Whether everything can be used as it is.
    ///
    /// # Errors
    /// If not; the text says what is wrong, and what would be right.
    pub(super) fn check(&self) -> Result<(), Error> {
        for signal in Signal::ALL {
            let of_signal = self.signal(signal);
            if !of_signal.is_on {
                continue;
            }
            let url = self.url(signal);
            let parsed = url.parse::<Uri>().ok();
            let is_usable = parsed.is_some_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
            });
            if !is_usable {
                let url = without_secrets(&url);
                return Err(Error::invalid_input(format!(
                    "the OTLP endpoint '{url}' is no address: give one such as http://localhost:4318"
                )));
            }
            for (name, value) in &of_signal.headers {
                // The value stays out of the text: it may be secret.
                if name.parse::<HeaderName>().is_err() || value.parse::<HeaderValue>().is_err() {
                    return Err(Error::invalid_input(format!(
                        "the OTLP header '{}' is none: a name is letters, digits and dashes, a value visible ASCII",
                        crate::delivery::neutral(name)
                    )));
                }
            }
            of_signal.tls.check()?;
        }
        Ok(())
    }
}

/// An address without user, password and query.
pub(super) fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let shown = match url.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        Some((scheme, rest)) => {
            let authority_end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(authority_end);
            format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or_default())
        }
        // What stands before an `@` may be a secret, wherever that is.
        None => url.rsplit('@').next().unwrap_or_default().to_owned(),
    };
    crate::delivery::neutral(&shown)
}

impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("OtlpConfig");
        for (name, signal) in [("traces", Signal::Traces), ("metrics", Signal::Metrics)] {
            let of_signal = self.signal(signal);
            let headers: Vec<String> =
                of_signal.headers.iter().map(|(name, _)| format!("{name}: [redacted]")).collect();
            let shown = of_signal.is_on.then(|| {
                (
                    without_secrets(&self.url(signal)),
                    of_signal.protocol,
                    of_signal.compression,
                    of_signal.timeout,
                    headers,
                )
            });
            out.field(name, &shown).field("tls", &of_signal.tls);
        }
        out.field("retry", &self.retry).field("linger", &self.linger).field("has_spool", &self.spool.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_signal_is_appended_to_the_common_address_alone() {
        let config = OtlpConfig::new("http://a:1/base/").metrics_endpoint("http://b:2/own");
        assert_eq!(config.url(Signal::Traces), "http://a:1/base/v1/traces");
        assert_eq!(config.url(Signal::Metrics), "http://b:2/own");
        assert_eq!(OtlpConfig::default().url(Signal::Metrics), "http://localhost:4318/v1/metrics");
    }

    #[test]
    fn what_cannot_be_used_is_said_early_and_without_secrets() {
        let why = |config: OtlpConfig| config.check().unwrap_err().to_string();
        assert!(OtlpConfig::default().check().is_ok());
        assert!(why(OtlpConfig::new("localhost:4318")).contains("http://localhost:4318"));
        assert!(why(OtlpConfig::new("ftp://u:canary@h?canary")).contains("ftp://h"));
        assert!(!why(OtlpConfig::new("ftp://u:canary@h?canary")).contains("canary"));
        assert!(!why(OtlpConfig::new("u:canary@h://p")).contains("canary"));
        let header = why(OtlpConfig::default().header("x", "canary\n"));
        assert!(header.contains("'x'") && !header.contains("canary"), "{header}");
        assert!(why(OtlpConfig::default().root_certificates("nothing")).contains("BEGIN CERTIFICATE"));
        assert!(OtlpConfig::new("nothing").without_traces().without_metrics().check().is_ok());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let config = OtlpConfig::new("https://user:canary@h:1/p?key=canary")
            .header("authorization", "canary")
            .client_certificate("canary", "canary");
        let text = format!("{config:?}");
        assert!(!text.contains("canary") && text.contains("authorization: [redacted]"), "{text}");
    }
}
