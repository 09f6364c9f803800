//! A capture on disk: what it adds to a scope on the thread that runs it, what the whole process spends, and how long
//! that can go on.

use std::{
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use kastor::{OnFull, Telemetry, background, scope};
use kastor_export::capture::{Capture, CaptureConfig};
use serde_json::{Value, json};

use crate::{
    Order,
    machine::{process_cpu_ns, ticks},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Scopes of a batch: some milliseconds.
const BATCH: u64 = 200_000;

/// The calling thread's cost of a scope, against two clock reads of the same process, batch by batch.
pub fn cost(order: &Order) -> Result<Value, String> {
    let telemetry = capture(&order.folder.join("cost"), OnFull::Drop)?;
    let batches = if order.quick { 20 } else { 200 };
    let (mut scope_ns, mut reads_ns) = (f64::MAX, f64::MAX);
    for _ in 0..batches {
        let start = Instant::now();
        for _ in 0..BATCH {
            black_box(black_box(ticks()) ^ black_box(ticks()));
        }
        reads_ns = reads_ns.min(start.elapsed().as_nanos() as f64 / BATCH as f64);
        let start = Instant::now();
        scopes(BATCH);
        scope_ns = scope_ns.min(start.elapsed().as_nanos() as f64 / BATCH as f64);
        // The writer is not what is measured here: it gets the time to keep up.
        telemetry.flush(PATIENCE);
    }
    end(&telemetry, &order.folder.join("cost"))?;
    Ok(json!({ "scope_ns": scope_ns, "two_reads_ns": reads_ns, "ratio": scope_ns / reads_ns }))
}

/// One producer for ten seconds, which waits for the writer where that falls behind: the rate at which nothing is lost.
pub fn sustained(order: &Order) -> Result<Value, String> {
    let folder = order.folder.join("sustained");
    let telemetry = capture(&folder, OnFull::Wait(PATIENCE))?;
    let mut reads_ns = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..BATCH {
            black_box(black_box(ticks()) ^ black_box(ticks()));
        }
        reads_ns = reads_ns.min(start.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    let length = Duration::from_secs(if order.quick { 1 } else { 10 });
    let (start, cpu_ns, mut scopes_run) = (Instant::now(), process_cpu_ns(), 0);
    while start.elapsed() < length {
        scopes(BATCH);
        scopes_run += BATCH;
    }
    telemetry.flush(PATIENCE);
    let (seconds, cpu_ns) = (start.elapsed().as_secs_f64(), (process_cpu_ns() - cpu_ns) as f64);
    let stats = telemetry.stats();
    let reporter = stats.reporters().first().ok_or("no reporter")?;
    let (delivered, dropped) = (reporter.delivered(), reporter.dropped().total());
    let bytes = size_of(&folder);
    let system = file_system(&folder);
    end(&telemetry, &folder)?;
    Ok(json!({
        "scopes": scopes_run, "per_second": scopes_run as f64 / seconds, "lost": dropped,
        "unaccounted": stats.emitted().abs_diff(delivered + dropped), "bytes_on_disk": bytes,
        "cpu_ns": cpu_ns / scopes_run as f64, "two_reads_ns": reads_ns, "file_system": system,
    }))
}

fn capture(folder: &Path, on_full: OnFull) -> Result<Telemetry, String> {
    // Bounded, as anyone would run it: the oldest files make room.
    let config = CaptureConfig::new(folder).max_file_bytes(256 << 20).max_files(4);
    let capture = Capture::with(config);
    let telemetry = Telemetry::builder().reporter(background(capture).on_full(on_full)).build();
    telemetry.clone().install().map_err(|error| error.to_string())?;
    scopes(BATCH);
    telemetry.flush(PATIENCE);
    Ok(telemetry)
}

fn scopes(number: u64) {
    for _ in 0..number {
        drop(black_box(scope!("captured")));
    }
}

fn end(telemetry: &Telemetry, folder: &Path) -> Result<(), String> {
    telemetry.shutdown(PATIENCE);
    fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// The type of the file system that the folder is on, as the kernel calls it.
fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let rows = mounts.lines().filter_map(|row| {
        let mut words = row.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let holding = rows.filter(|(place, _)| folder.starts_with(place)).max_by_key(|(place, _)| place.len());
    holding.map_or("unknown".to_owned(), |(_, name)| name.to_owned())
}
