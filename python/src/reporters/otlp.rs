//! `Otlp`: scopes as spans, and sums as metrics, to an OpenTelemetry collector.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use kastor_export::{Compression, DurationUnit, OtlpConfig, Protocol, Retry, SpoolConfig, TailSampling};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};

use super::{
    feed::Feed,
    settings::{raised, redaction, seconds, unknown, with},
};

/// Sends scopes as spans, and sums as metrics, to an OpenTelemetry collector.
#[pyclass(module = "kastor._native", frozen, weakref)]
pub(crate) struct Otlp {
    pub(crate) reporter: Arc<kastor_export::Otlp>,
    feed: Feed,
}

#[pymethods]
impl Otlp {
    #[new]
    #[pyo3(signature = (endpoint=None, *, protocol=None, compression=None, headers=None, timeout=None, traces=None,
        metrics=None, service_name=None, resource=None, spool=None, spool_max_bytes=None, give_up_after=None, linger=None,
        max_request_bytes=None, tail_sampling=None, duration_unit=None, certificate=None, client_certificate=None,
        client_key=None, redact=true, redact_keys=vec![], allow_keys=vec![]))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        python: Python<'_>,
        endpoint: Option<String>,
        protocol: Option<&str>,
        compression: Option<&str>,
        headers: Option<BTreeMap<String, String>>,
        timeout: Option<f64>,
        traces: Option<bool>,
        metrics: Option<bool>,
        service_name: Option<String>,
        resource: Option<BTreeMap<String, String>>,
        spool: Option<PathBuf>,
        spool_max_bytes: Option<u64>,
        give_up_after: Option<f64>,
        linger: Option<f64>,
        max_request_bytes: Option<usize>,
        tail_sampling: Option<f64>,
        duration_unit: Option<&str>,
        certificate: Option<PathBuf>,
        client_certificate: Option<PathBuf>,
        client_key: Option<PathBuf>,
        redact: bool,
        redact_keys: Vec<String>,
        allow_keys: Vec<String>,
    ) -> PyResult<Self> {
        let mut config = endpoint.map_or_else(OtlpConfig::from_env, OtlpConfig::new);
        config = with(config, protocol.map(protocol_of).transpose()?, OtlpConfig::protocol);
        config = with(config, compression.map(compression_of).transpose()?, OtlpConfig::compression);
        config = with(config, seconds("timeout", timeout)?, OtlpConfig::timeout);
        config = with(config, seconds("linger", linger)?, OtlpConfig::linger);
        config = with(config, max_request_bytes, OtlpConfig::max_request_bytes);
        config = with(config, duration_unit.map(duration_unit_of).transpose()?, OtlpConfig::duration_unit);
        config = with(config, traces.filter(|is_on| !is_on), |config, _| config.without_traces());
        config = with(config, metrics.filter(|is_on| !is_on), |config, _| config.without_metrics());
        config = with(config, service_name, OtlpConfig::service_name);
        for (key, value) in resource.unwrap_or_default() {
            config = config.resource_attribute(key, value);
        }
        for (name, value) in headers.unwrap_or_default() {
            config = config.header(name, value);
        }
        if let Some(give_up_after) = seconds("give_up_after", give_up_after)? {
            config = config.retry(Retry { give_up_after, ..Retry::default() });
        }
        config = with(config, spool.map(SpoolConfig::new), |config, spool| {
            config.spool(with(spool, spool_max_bytes, SpoolConfig::max_bytes))
        });
        if let Some(ratio) = tail_sampling {
            if !(0.0..=1.0).contains(&ratio) {
                return Err(PyValueError::new_err(format!("tail_sampling is {ratio}: it is a share from 0 to 1")));
            }
            config = config.tail_sampling(TailSampling::default().ratio(ratio));
        }
        config = with(config, certificate.map(fs::read).transpose()?, OtlpConfig::root_certificates);
        config = match (client_certificate, client_key) {
            (Some(chain), Some(key)) => config.client_certificate(fs::read(chain)?, fs::read(key)?),
            (None, None) => config,
            _ => return Err(PyValueError::new_err("client_certificate and client_key need each other")),
        };
        config = config.redaction(redaction(redact, &redact_keys, &allow_keys));
        let reporter = Arc::new(python.detach(|| kastor_export::Otlp::new(config)).map_err(raised)?);
        Ok(Self { reporter, feed: Feed::default() })
    }

    /// Sends a timing that was measured elsewhere; `duration` in seconds.
    #[pyo3(signature = (scope, duration, /, **metadata))]
    fn record_timing(&self, scope: &str, duration: f64, metadata: Option<&Bound<'_, PyDict>>) {
        self.feed.timing(|builder| builder.reporter(self.reporter.clone()), (scope, duration), metadata);
    }

    /// Sends a metric that was recorded elsewhere.
    #[pyo3(signature = (scope, value, /, **metadata))]
    fn record_metric(&self, scope: &str, value: &Bound<'_, PyAny>, metadata: Option<&Bound<'_, PyDict>>) {
        self.feed.metric(|builder| builder.reporter(self.reporter.clone()), (scope, value), metadata);
    }

    fn __repr__(&self) -> String {
        // Without what may be secret: the core sees to it.
        format!("{:?}", self.reporter)
    }
}

fn protocol_of(name: &str) -> PyResult<Protocol> {
    match name {
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        "http/json" => Ok(Protocol::HttpJson),
        _ => Err(unknown("protocol", name, "'http/protobuf' and 'http/json'")),
    }
}

fn compression_of(name: &str) -> PyResult<Compression> {
    match name {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        _ => Err(unknown("compression", name, "'none', 'gzip' and 'zstd'")),
    }
}

/// The unit of scope durations, by its sign.
pub(super) fn duration_unit_of(name: &str) -> PyResult<DurationUnit> {
    match name {
        "s" => Ok(DurationUnit::Seconds),
        "ns" => Ok(DurationUnit::Nanoseconds),
        _ => Err(unknown("duration_unit", name, "'s' and 'ns'")),
    }
}
