//! Prometheus: what is written is what was recorded, whatever the names, in every format; the endpoint withstands its
//! clients.

mod endpoint;
mod fork;
mod parser;
mod speed;
mod texts;
mod wire;

use std::time::Duration;

use kastor::{MockClock, Telemetry};
use kastor_export::{Exposition, PrometheusFormat, Redaction};

/// Only ever an upper bound: nothing waits this long unless it is broken.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A context on a clock that stands still.
pub(crate) fn context() -> (Telemetry, MockClock) {
    let clock = MockClock::new();
    (Telemetry::builder().clock(clock.clone()).build(), clock)
}

pub(crate) fn text(tele: &Telemetry, format: PrometheusFormat) -> String {
    tele.snapshot(|snapshot| Exposition::new(format).text(snapshot))
}

pub(crate) fn unredacted(tele: &Telemetry) -> String {
    let exposition = Exposition::new(PrometheusFormat::OpenMetrics).redaction(Redaction::none());
    tele.snapshot(|snapshot| exposition.text(snapshot))
}

/// The lines that are not about kastor itself.
pub(crate) fn of_program(text: &str) -> String {
    let is_own = |line: &&str| line.contains("kastor_") && !line.contains("kastor_scope_");
    text.lines().filter(|line| !is_own(line)).map(|line| format!("{line}\n")).collect()
}
