//! A capture, or what a filter wants of it, as a trace for Perfetto: by the encoder that `kastor convert` uses.

use std::collections::HashMap;

use kastor::Process;
use kastor_export::capture::{Replay, Replayed};
use kastor_export::perfetto::{Config, Encoder};

use super::capture::Capture;
use super::filter::{Filter, Ready};
use crate::captures;
use crate::failure::Failure;

/// Bytes of a trace; no browser opens more.
const MOST_BYTES: usize = 1 << 30;
/// Bytes that are handed over at once.
const PIECE_BYTES: usize = 256 << 10;

/// Hands over the trace piece by piece, as long as `take` wants more.
pub(super) fn write(capture: &Capture, filter: &Filter, mut take: impl FnMut(Vec<u8>) -> bool) -> Result<(), Failure> {
    let ready = Ready::new(filter, capture);
    let mut encoder: Option<(Process, Encoder)> = None;
    let (mut out, mut bytes) = (Vec::new(), 0);
    for (number, file) in (0..).zip(&capture.files) {
        let of_file =
            |segment: u32| capture.segments.get(segment as usize).is_some_and(|segment| segment.file == number);
        let entries: HashMap<u64, _> = capture
            .blocks
            .iter()
            .filter(|entry| of_file(entry.segment))
            .map(|entry| (entry.index.offset, entry))
            .collect();
        let failed = |error: kastor::Error| captures::unreadable(file, &error);
        let mut replay = Replay::open(file).map_err(failed)?;
        loop {
            let part = if filter.is_empty() {
                replay.read()
            } else {
                replay.read_if(|block, timing| {
                    let Some(entry) = entries.get(&block.offset()) else { return false };
                    let path = capture.segment(entry).map_or(0, |segment| segment.numbers.find(timing.path_id()));
                    let is_failed = timing.outcome() == kastor::Outcome::Failed;
                    ready.may_want(path, entry.thread, timing.duration_ns(), is_failed) && ready.wants(timing)
                })
            };
            match part.map_err(failed)? {
                None => break,
                Some(Replayed::Process(process)) => {
                    if encoder.as_ref().is_none_or(|(current, _)| *current != process) {
                        let config = Config::default().process_name(format!("process {}", process.id));
                        encoder = Some((process, Encoder::new(config)));
                    }
                }
                Some(Replayed::Batch(batch)) => {
                    if let Some((_, encoder)) = &mut encoder {
                        encoder.batch(&batch, &mut out);
                    }
                }
                Some(Replayed::Snapshot(snapshot)) => {
                    if let Some((_, encoder)) = &mut encoder {
                        encoder.snapshot(&snapshot, &mut out);
                    }
                }
                Some(Replayed::Damage(_)) => {}
            }
            if out.len() >= PIECE_BYTES {
                bytes += out.len();
                if bytes > MOST_BYTES || !take(std::mem::take(&mut out)) {
                    return Ok(());
                }
            }
        }
    }
    take(out);
    Ok(())
}
