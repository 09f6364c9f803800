//! `Statsd`: lines to an agent, over UDP or a Unix datagram socket.

use std::collections::BTreeMap;

use kastor_export::StatsdBuilder;
use pyo3::{prelude::*, types::PyDict};

use super::{
    feed::Feed,
    settings::{raised, redaction, with},
};

/// Sends sums and plain metrics to a StatsD agent at `HOST:PORT`, or at `unix:PATH`.
#[pyclass(module = "kastor._native", frozen, weakref)]
pub(crate) struct Statsd {
    pub(crate) reporter: kastor_export::Statsd,
    /// For what the program feeds it: a sender remembers the sums of one context.
    fed: kastor_export::Statsd,
    address: String,
    feed: Feed,
}

#[pymethods]
impl Statsd {
    #[new]
    #[pyo3(signature = (address, *, prefix=None, tags=None, plain=false, max_datagram_bytes=None, redact=true,
        redact_keys=vec![], allow_keys=vec![]))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        python: Python<'_>,
        address: String,
        prefix: Option<&str>,
        tags: Option<BTreeMap<String, String>>,
        plain: bool,
        max_datagram_bytes: Option<usize>,
        redact: bool,
        redact_keys: Vec<String>,
        allow_keys: Vec<String>,
    ) -> PyResult<Self> {
        let mut builder = kastor_export::Statsd::builder().redaction(redaction(redact, &redact_keys, &allow_keys));
        builder = with(builder, prefix, StatsdBuilder::prefix);
        builder = tags.iter().flatten().fold(builder, |builder, (key, value)| builder.tag(key, value));
        builder = with(builder, plain.then_some(()), |builder, ()| builder.plain());
        builder = with(builder, max_datagram_bytes, StatsdBuilder::max_datagram_bytes);
        // Looks up a name, which may take its time.
        let both = python.detach(|| Ok((open(builder.clone(), &address)?, open(builder, &address)?)));
        let (reporter, fed) = both.map_err(raised)?;
        Ok(Self { reporter, fed, address, feed: Feed::default() })
    }

    /// What became of the lines so far: `sent`, `refused` by the system, `too_large` for a datagram.
    fn lines<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (lines, fed) = (self.reporter.lines(), self.fed.lines());
        let all = PyDict::new(python);
        all.set_item("sent", lines.sent + fed.sent)?;
        all.set_item("refused", lines.refused + fed.refused)?;
        all.set_item("too_large", lines.too_large + fed.too_large)?;
        Ok(all)
    }

    /// Sends a timing that was measured elsewhere; `duration` in seconds.
    #[pyo3(signature = (scope, duration, /, **metadata))]
    fn record_timing(&self, scope: &str, duration: f64, metadata: Option<&Bound<'_, PyDict>>) {
        self.feed.timing(|builder| builder.reporter(self.fed.clone()), (scope, duration), metadata);
    }

    /// Sends a metric that was recorded elsewhere.
    #[pyo3(signature = (scope, value, /, **metadata))]
    fn record_metric(&self, scope: &str, value: &Bound<'_, PyAny>, metadata: Option<&Bound<'_, PyDict>>) {
        self.feed.metric(|builder| builder.reporter(self.fed.clone()), (scope, value), metadata);
    }

    fn __repr__(&self) -> String {
        format!("Statsd({:?})", self.address)
    }
}

fn open(builder: StatsdBuilder, address: &str) -> Result<kastor_export::Statsd, kastor::Error> {
    #[cfg(unix)]
    if let Some(path) = address.strip_prefix("unix:") {
        return builder.unix(path);
    }
    builder.udp(address)
}
