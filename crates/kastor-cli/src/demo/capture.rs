//! `kastor demo --capture`: one more run, which is not measured, into a capture.

use std::path::Path;

use kastor::Telemetry;
use kastor_export::capture::Capture;
use serde::Serialize;

use super::pipeline::{self, Settings};
use super::{FLUSH_PATIENCE, Unseen, no_worker, quoted};
use crate::failure::Failure;

/// What was written, and where.
#[derive(Serialize)]
pub(super) struct Captured {
    pub(super) files: Vec<String>,
    pub(super) events: u64,
    /// Events that are in none of them.
    pub(super) missing: u64,
    pub(super) bytes: u64,
}

/// Runs the pipeline once, into a capture at `path`.
pub(super) fn run(path: &Path, settings: &Settings) -> Result<Captured, Failure> {
    let capture = Capture::new(path);
    let telemetry = Telemetry::builder().reporter(capture.clone()).build();
    pipeline::run(&telemetry, settings, &Unseen).map_err(no_worker)?;
    telemetry.shutdown(FLUSH_PATIENCE);
    let stats = telemetry.stats();
    let events = stats.reporters().iter().map(|reporter| reporter.delivered()).sum();
    let files = capture.files();
    if let (0, Some(error)) = (events, capture.last_error()) {
        let message = format!("cannot write the capture {}: {error}", quoted(path));
        return Err(Failure::new(message, "give a file that ends in .kcap, or a folder that can be written"));
    }
    Ok(Captured {
        bytes: files.iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum(),
        files: files.iter().map(|file| file.to_string_lossy().into_owned()).collect(),
        events,
        missing: stats.emitted().saturating_sub(events),
    })
}
