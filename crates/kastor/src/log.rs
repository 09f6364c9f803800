//! The log reporter: one structured line per event, through the [`log`](::log) crate.
//!
//! Lines go to the target `kastor.events`, at level `debug`, and at `warn` for a scope that failed. They are made of
//! `key=value` pairs; text is quoted and escaped as in JSON, with everything escaped that would garble a terminal.
//!
//! ```text
//! scope="job.parse" duration_s=0.000012 depth=1 trace_id=4bf9…4736 span_id=00f0…02b7 rows=3
//! scope="job.parse" duration_s=0.000009 depth=1 trace_id=4bf9…4736 span_id=00f0…02b8 error_type="panic"
//! metric="job.items" value=3 metric_type=counter kind="md"
//! ```

use ::log::{Level, log, log_enabled};

use crate::{
    escape::push_json,
    event::{Attributes, Metric, Timing},
    reporter::Reporter,
    value::Value,
};

const TARGET: &str = "kastor.events";

/// Writes every event to the program's log as it happens. It runs inline; a level that is switched off costs one check.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogReporter;

impl LogReporter {
    /// A reporter that writes through the `log` crate.
    pub fn new() -> Self {
        Self
    }
}

impl Reporter for LogReporter {
    fn record_timing(&self, event: &Timing<'_>) {
        let error_type = event.error_type();
        let level = if event.outcome() == crate::event::Outcome::Failed { Level::Warn } else { Level::Debug };
        if !log_enabled!(target: TARGET, level) {
            return;
        }
        let mut line = String::from("scope=");
        push_json(&mut line, event.scope());
        line += &format!(" duration_s={} depth={}", event.duration().as_secs_f64(), event.depth());
        line += &format!(" trace_id={:032x} span_id={:016x}", event.trace_id(), event.span_id());
        if let Some(error_type) = error_type {
            push_pair(&mut line, "error_type", &Value::Str(error_type));
        }
        push_attributes(&mut line, event.attributes());
        log!(target: TARGET, level, "{line}");
    }

    fn record_metric(&self, event: &Metric<'_>) {
        if !log_enabled!(target: TARGET, Level::Debug) {
            return;
        }
        let mut line = String::from("metric=");
        push_json(&mut line, event.scope());
        push_pair(&mut line, "value", &event.value());
        if let Some(metric_type) = event.metric_type() {
            line += &format!(" metric_type={}", metric_type.as_str());
        }
        if let (Some(trace_id), Some(span_id)) = (event.trace_id(), event.parent_span_id()) {
            line += &format!(" trace_id={trace_id:032x} span_id={span_id:016x}");
        }
        push_attributes(&mut line, event.attributes());
        log!(target: TARGET, Level::Debug, "{line}");
    }
}

fn push_attributes(line: &mut String, attributes: Attributes<'_>) {
    attributes.for_each(|(key, value)| push_pair(line, key, &value));
}

fn push_pair(line: &mut String, key: &str, value: &Value<'_>) {
    line.push(' ');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !key.is_empty() && key.bytes().all(is_plain) {
        line.push_str(key);
    } else {
        push_json(line, key);
    }
    line.push('=');
    match value {
        Value::Null | Value::Bool(_) | Value::I64(_) | Value::U64(_) | Value::F64(_) => *line += &value.to_string(),
        text => push_json(line, &text.to_string()),
    }
}
