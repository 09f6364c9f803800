//! `Prometheus`: an endpoint to scrape, and the same as text.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kastor::Telemetry;
use kastor_export::PrometheusBuilder;
use pyo3::prelude::*;

use super::settings::{raised, redaction, seconds, with};
use crate::cold::contexts::telemetry;

/// Serves the sums of the context that it was given to last. It listens from its making until it is closed, or until itself
/// and its context are gone. It takes sums, and no single events.
#[pyclass(module = "kastor._native", frozen, weakref)]
pub(crate) struct Prometheus {
    /// None once it is closed.
    endpoint: Mutex<Option<kastor_export::Prometheus>>,
    address: SocketAddr,
}

impl Prometheus {
    /// Serves this context. It is no reporter of it, so that no event takes the way through the background for nothing.
    pub(super) fn serve(&self, telemetry: &Telemetry) {
        let mut endpoint = self.lock();
        *endpoint = endpoint.take().map(|endpoint| endpoint.serve(telemetry));
    }

    fn lock(&self) -> MutexGuard<'_, Option<kastor_export::Prometheus>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Prometheus {
    #[new]
    #[pyo3(signature = (listen="127.0.0.1:0", *, bearer_token=None, allow_hosts=vec![], least_interval=None,
        max_connections=None, redact=true, redact_keys=vec![], allow_keys=vec![]))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        python: Python<'_>,
        listen: &str,
        bearer_token: Option<&str>,
        allow_hosts: Vec<String>,
        least_interval: Option<f64>,
        max_connections: Option<usize>,
        redact: bool,
        redact_keys: Vec<String>,
        allow_keys: Vec<String>,
    ) -> PyResult<Self> {
        let mut builder = kastor_export::Prometheus::builder().redaction(redaction(redact, &redact_keys, &allow_keys));
        builder = with(builder, bearer_token, PrometheusBuilder::bearer_token);
        builder = allow_hosts.iter().fold(builder, |builder, host| builder.allow_host(host));
        builder = with(builder, seconds("least_interval", least_interval)?, PrometheusBuilder::least_interval);
        builder = with(builder, max_connections, PrometheusBuilder::max_connections);
        // Looks up a name, which may take its time.
        let endpoint = python.detach(|| builder.listen(listen)).map_err(raised)?;
        Ok(Self { address: endpoint.address(), endpoint: Mutex::new(Some(endpoint)) })
    }

    /// `HOST:PORT` where it listens; of port 0, the port that was free.
    #[getter]
    fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends it: the port is free on return. A second time it does nothing.
    fn close(&self, python: Python<'_>) {
        let endpoint = self.lock().take();
        python.detach(|| drop(endpoint));
    }

    fn __repr__(&self) -> String {
        format!("Prometheus({:?})", self.address())
    }
}

/// The sums of a context in Prometheus' text format; what is secret is left out.
#[pyfunction]
pub(crate) fn prometheus_text(python: Python<'_>, tele: &Bound<'_, PyAny>) -> PyResult<String> {
    let telemetry = telemetry(tele)?;
    Ok(python.detach(|| kastor_export::prometheus_text(&telemetry)))
}
