//! What the exporters' keyword arguments have in common.

use std::time::Duration;

use kastor::Error;
use kastor_export::Redaction;
use pyo3::{
    PyErr,
    exceptions::{PyOSError, PyValueError},
};

use crate::cold::contexts::duration;

/// The core's error as Python's: a `ValueError` for an argument that is not valid, an `OSError` for what the system refused.
pub(super) fn raised(error: Error) -> PyErr {
    if error.is_invalid_input() {
        PyValueError::new_err(error.to_string())
    } else {
        PyOSError::new_err(error.to_string())
    }
}

/// A `ValueError` for an argument that is none of a few texts.
pub(super) fn unknown(argument: &str, given: &str, known: &str) -> PyErr {
    PyValueError::new_err(format!("{argument} is {given:?}: it is one of {known}"))
}

/// What is secret: what the core takes for it, further keys, and all but these; or nothing.
pub(super) fn redaction(redact: bool, redact_keys: &[String], allow_keys: &[String]) -> Redaction {
    if !redact {
        return Redaction::none();
    }
    let redaction = redact_keys.iter().fold(Redaction::default(), |redaction, key| redaction.key(key));
    allow_keys.iter().fold(redaction, |redaction, key| redaction.allow_key(key))
}

/// Changes a configuration by an argument, if it was given.
pub(super) fn with<C, T>(config: C, argument: Option<T>, change: impl FnOnce(C, T) -> C) -> C {
    match argument {
        Some(argument) => change(config, argument),
        None => config,
    }
}

/// An argument in seconds; a `ValueError` if it is none.
pub(super) fn seconds(argument: &str, given: Option<f64>) -> Result<Option<Duration>, PyErr> {
    match given {
        Some(seconds) if seconds.is_nan() || seconds < 0.0 => {
            Err(PyValueError::new_err(format!("{argument} is {seconds}: it is a number of seconds, 0 or more")))
        }
        given => Ok(given.map(duration)),
    }
}
