use std::{io, sync::Arc, time::Duration};

use kastor::{DropReason, Telemetry, scope};

use super::{Capture, CaptureConfig, Durability, Part, Reader};
use crate::simulated::{Random, SimFs};

const LONG: Duration = Duration::from_secs(30);

fn context(fs: &SimFs, config: CaptureConfig) -> (Telemetry, Capture) {
    let capture = Capture::on(Arc::new(fs.clone()), config);
    (Telemetry::builder().reporter(capture.clone()).build(), capture)
}

/// Scopes that can be read in all files, and places that cannot.
fn readable(fs: &SimFs) -> (u64, u64) {
    let (mut scopes, mut damaged) = (0, 0);
    for bytes in fs.contents().values() {
        let mut reader = Reader::new(&bytes[..]);
        while let Some(part) = reader.read().unwrap() {
            match part {
                Part::Block(block) => {
                    for timing in block.timings() {
                        scopes += 1;
                        assert_eq!(block.tables().path_text(timing.path_id()), "scope");
                    }
                }
                Part::Damage(_) => damaged += 1,
                _ => assert!(reader.session().is_some()),
            }
        }
    }
    (scopes, damaged)
}

#[test]
fn each_call_of_the_disk_may_fail_once_or_for_ever_and_what_counts_as_delivered_is_there() {
    let run = |failure: Option<(u32, bool, io::ErrorKind)>| {
        let fs = SimFs::default();
        let (telemetry, _capture) = context(&fs, CaptureConfig::new("captures").durability(Durability::OnFlush));
        if let Some((after, for_ever, kind)) = failure {
            fs.fail(after, for_ever, kind);
        }
        for _ in 0..4 {
            (0..10).for_each(|_| drop(scope!(telemetry, "scope")));
            telemetry.flush(LONG);
        }
        let stats = telemetry.stats();
        let reporter = &stats.reporters()[0];
        assert_eq!(reporter.delivered() + reporter.dropped().total(), 40, "{failure:?}: {stats}");
        assert_eq!(readable(&fs), (reporter.delivered(), 0), "{failure:?}: {stats}");
        fs.calls()
    };
    let calls = run(None);
    assert!(calls > 20, "{calls}");
    for at in 0..calls {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            run(Some((at, false, kind)));
            run(Some((at, true, kind)));
        }
    }
}

#[test]
fn a_disk_that_stays_full_costs_no_older_file_and_gathers_no_empty_ones() {
    let fs = SimFs::default();
    let config = CaptureConfig::new("captures").max_files(2);
    let (telemetry, _capture) = context(&fs, config.clone());
    drop(scope!(telemetry, "scope"));
    telemetry.flush(LONG);
    let first = fs.names();
    // A run of its own that gets nothing written at all, and tries again and again.
    let (starved, starving) = context(&fs, config);
    fs.fill();
    let deadline = std::time::Instant::now() + LONG;
    while starving.shared.writer.lock().unwrap().failures() < 4 {
        assert!(std::time::Instant::now() < deadline);
        drop(scope!(starved, "scope"));
        starved.flush(LONG);
    }
    let dropped = starved.stats().reporters()[0].dropped();
    assert_eq!(dropped.of(DropReason::SpoolFull), starved.stats().emitted());
    assert!(starving.last_error().is_some());
    assert_eq!(fs.names(), first);
}

#[test]
fn what_was_flushed_durably_outlives_the_machine() {
    for seed in 0..50 {
        let fs = SimFs::default();
        let (telemetry, capture) = context(&fs, CaptureConfig::new("captures").durability(Durability::OnFlush));
        for _ in 0..3 {
            (0..10).for_each(|_| drop(scope!(telemetry, "scope")));
            assert!(telemetry.flush(LONG).is_complete());
        }
        (0..10).for_each(|_| drop(scope!(telemetry, "scope")));
        drop(telemetry);
        fs.cut_power(&mut Random(seed));
        let (scopes, _) = readable(&fs);
        assert!(scopes >= 30, "{scopes} of 30 with seed {seed}");
        drop(capture);
    }
}
