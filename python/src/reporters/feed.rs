//! Events that a program feeds one native reporter with: `record_timing` and `record_metric` as methods of the reporter.

use std::{sync::OnceLock, time::Duration};

use kastor::{
    Builder, Carrier, Telemetry, Value,
    raw::{self, Frame, Outcome, Under},
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    cold::contexts::duration,
    hot::{object::lossy_text, value},
};

/// Calls `f` with an object as a value.
pub(super) fn with_value<R>(object: &Bound<'_, PyAny>, f: impl FnOnce(&Value<'_>) -> R) -> R {
    // SAFETY: an object that is held; the thread is attached.
    unsafe { value::with(object.as_ptr(), false, f) }
}

/// Calls `f` with keyword arguments as values.
pub(super) fn with_metadata<R>(metadata: Option<&Bound<'_, PyDict>>, f: impl FnOnce(&[(&str, Value<'_>)]) -> R) -> R {
    let all = metadata.into_iter().flat_map(|metadata| metadata.iter());
    let pairs: Vec<(String, kastor::OwnedValue)> = all
        .map(|(key, object)| {
            // SAFETY: keyword names are `str`s.
            let key = unsafe { lossy_text(key.as_ptr()) };
            (key, with_value(&object, |value| kastor::OwnedValue::from(*value)))
        })
        .collect();
    let values: Vec<(&str, Value<'_>)> = pairs.iter().map(|(key, value)| (key.as_str(), borrowed(value))).collect();
    f(&values)
}

fn borrowed(value: &kastor::OwnedValue) -> Value<'_> {
    match value {
        kastor::OwnedValue::Bool(value) => Value::Bool(*value),
        kastor::OwnedValue::I64(value) => Value::I64(*value),
        kastor::OwnedValue::U64(value) => Value::U64(*value),
        kastor::OwnedValue::F64(value) => Value::F64(*value),
        kastor::OwnedValue::Text(text) => Value::Str(text),
        kastor::OwnedValue::Bytes(bytes) => Value::Bytes(bytes),
        _ => Value::Null,
    }
}

/// A context of one reporter alone, made when it is first fed.
#[derive(Default)]
pub(super) struct Feed {
    telemetry: OnceLock<Telemetry>,
}

impl Feed {
    fn telemetry(&self, add: impl FnOnce(Builder) -> Builder) -> &Telemetry {
        self.telemetry.get_or_init(|| add(Telemetry::builder()).build())
    }

    /// Records a scope that ends now.
    pub(super) fn timing(
        &self,
        add: impl FnOnce(Builder) -> Builder,
        (scope, seconds): (&str, f64),
        metadata: Option<&Bound<'_, PyDict>>,
    ) {
        let telemetry = self.telemetry(add);
        let (Some(ids), end) = (raw::draw(telemetry), raw::tick(telemetry)) else { return };
        let (path, levels) = path_of(scope);
        let Some(line) = raw::timeline(telemetry, end) else { return };
        let ticks = duration(seconds).as_nanos() as f64 / line.ns_per_tick();
        let start = end.saturating_sub(ticks as u64);
        let frame = Frame::new(ids.carrier(path, levels), 0, (path, levels.saturating_sub(1)), start);
        with_metadata(metadata, |metadata| {
            let error = metadata.iter().find(|(key, _)| *key == "error_type").and_then(|(_, value)| value.as_str());
            let outcome = error.map_or(Outcome::Completed, Outcome::Failed);
            raw::close_at(telemetry, &frame, end, outcome, |attributes| set_all(attributes, metadata));
        });
        // In batch reporters it arrives as if its context had been flushed; otherwise this returns at once.
        telemetry.flush(Duration::ZERO);
    }

    /// Records a metric.
    pub(super) fn metric(
        &self,
        add: impl FnOnce(Builder) -> Builder,
        (scope, object): (&str, &Bound<'_, PyAny>),
        metadata: Option<&Bound<'_, PyDict>>,
    ) {
        let telemetry = self.telemetry(add);
        let (above, name) = scope.rsplit_once('.').map_or((None, scope), |(above, name)| (Some(above), name));
        let (path, levels) = above.map_or((None, 0), |above| {
            let (path, levels) = path_of(above);
            (Some(path), levels)
        });
        let under = Under { path, levels, ids: None, carrier: Carrier::NONE };
        raw::tick(telemetry);
        with_metadata(metadata, |metadata| {
            with_value(object, |value| {
                raw::event(telemetry, raw::name(name), &under, *value, |attributes| set_all(attributes, metadata));
            });
        });
        telemetry.flush(Duration::ZERO);
    }
}

fn path_of(scope: &str) -> (raw::Path, u32) {
    let mut path = None;
    let mut levels = 0;
    for segment in scope.split('.') {
        path = Some(raw::path(path, raw::name(segment)));
        levels += 1;
    }
    (path.unwrap_or_else(|| raw::path(None, raw::name(scope))), levels)
}

fn set_all(attributes: &mut raw::Attributes<'_>, metadata: &[(&str, Value<'_>)]) {
    for (key, value) in metadata {
        attributes.set(raw::name(key), value);
    }
}
