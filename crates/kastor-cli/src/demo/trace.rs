//! `--perfetto` and `--chrome`: after the measured runs one more, recorded into files that trace viewers open.

use std::fs;
use std::path::PathBuf;

use kastor::Telemetry;
use kastor_export::chrome::{self, Chrome};
use kastor_export::perfetto::{self, Perfetto};
use serde::Serialize;

use super::pipeline::{self, Settings};
use super::{FLUSH_PATIENCE, Unseen, no_worker, quoted};
use crate::arguments::DemoArguments;
use crate::failure::Failure;

/// The files that were asked for, created already, so that a wrong path is told before any work is done.
pub(super) struct Files {
    perfetto: Option<(PathBuf, Perfetto)>,
    chrome: Option<(PathBuf, Chrome)>,
}

/// One file that was written.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    pub(super) format: &'static str,
    pub(super) path: String,
    /// Scopes in it.
    pub(super) events: u64,
    /// Scopes that are missing: zero, or something is wrong.
    pub(super) missing: u64,
    pub(super) bytes: u64,
}

impl Files {
    pub(super) fn create(arguments: &DemoArguments) -> Result<Files, Failure> {
        let refused = |error: kastor::Error| Failure::new(error.to_string(), "give a file in a folder that exists");
        let perfetto = match &arguments.perfetto {
            Some(path) => {
                let reporter = Perfetto::create(path, perfetto::Config::default()).map_err(refused)?;
                Some((path.clone(), reporter))
            }
            None => None,
        };
        let chrome = match &arguments.chrome {
            Some(path) => Some((path.clone(), Chrome::create(path, chrome::Config::default()).map_err(refused)?)),
            None => None,
        };
        Ok(Files { perfetto, chrome })
    }

    /// Runs the pipeline once more, into these files; does nothing if there are none.
    pub(super) fn record(self, settings: &Settings) -> Result<Vec<Written>, Failure> {
        let mut builder = Telemetry::builder();
        let mut places: Vec<(&'static str, PathBuf)> = Vec::new();
        if let Some((path, reporter)) = self.perfetto {
            builder = builder.reporter(reporter);
            places.push(("perfetto", path));
        }
        if let Some((path, reporter)) = self.chrome {
            builder = builder.reporter(reporter);
            places.push(("chrome", path));
        }
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let telemetry = builder.build();
        pipeline::run(&telemetry, settings, &Unseen).map_err(no_worker)?;
        telemetry.flush(FLUSH_PATIENCE);
        let stats = telemetry.stats();
        telemetry.shutdown(FLUSH_PATIENCE);
        let mut written = Vec::new();
        for ((format, path), reporter) in places.into_iter().zip(stats.reporters()) {
            let bytes = fs::metadata(&path).map(|it| it.len()).map_err(|error| {
                Failure::new(
                    format!("cannot look at {}: {error}", quoted(&path)),
                    "leave the file alone while it is written",
                )
            })?;
            let events = reporter.delivered();
            let missing = stats.emitted().saturating_sub(events);
            written.push(Written { format, path: path.to_string_lossy().into_owned(), events, missing, bytes });
        }
        Ok(written)
    }
}
