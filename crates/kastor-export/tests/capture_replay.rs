//! A capture that is replayed is, to every reporter, what the process itself reported.

mod captured;

use std::path::Path;

use captured::{LONG, again, captured, child_of, recorded, work};
use kastor::{Process, Recording, Reporter, Telemetry, scope};
use kastor_export::capture::{Capture, Replay, Replayed};

/// Everything in a capture handed to a recording; the processes, and paths and calls of the sums.
fn replayed(path: &Path) -> (Recording, Vec<Process>, Vec<(String, u64)>) {
    let mut replay = Replay::open(path).unwrap();
    let recording = Recording::new(64 << 20);
    let (mut processes, mut sums) = (Vec::new(), Vec::new());
    while let Some(part) = replay.read().unwrap() {
        match part {
            Replayed::Process(process) => processes.push(process),
            Replayed::Batch(batch) => recording.record_batch(&batch).unwrap(),
            Replayed::Snapshot(snapshot) => {
                sums.extend(snapshot.scopes().iter().map(|scope| (scope.path().to_owned(), scope.calls())));
                sums.extend(snapshot.series().iter().map(|series| (series.path().to_owned(), series.calls())));
                assert!(snapshot.stats().reporters().is_empty(), "its accounts are gone");
            }
            Replayed::Damage(damage) => panic!("{damage}"),
        }
    }
    assert_eq!(replay.paths_without_room(), 0);
    (recording, processes, sums)
}

#[test]
fn every_event_of_another_process_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    if let Some(path) = child_of("every_event") {
        let telemetry = Telemetry::builder().reporter(Capture::new(path)).build();
        let _current = telemetry.override_current();
        (0..100).for_each(|turn| work(&telemetry, turn));
        let mut deep: Vec<_> = (0..300).map(|_| scope!("deeper")).collect();
        while deep.pop().is_some() {}
        telemetry.shutdown(LONG);
        return;
    }
    // Names and paths have other numbers here.
    let telemetry = Telemetry::builder().build();
    (0..500).for_each(|number| drop(telemetry.scope(&format!("of_this_process_{number}"))));

    let path = folder.path().join("run.kcap");
    let child = again("every_event_of_another_process_comes_back_as_it_was", path.to_str().unwrap()).output().unwrap();
    assert!(child.status.success());
    let (recording, processes, sums) = replayed(&path);
    assert_eq!(recorded(&recording), captured(&path));
    assert_eq!(recording.len(), 100 * 6 + 300);
    assert!(processes.iter().all(|process| process.id != std::process::id() && process.instance_id != 0));
    for expected in [("job", 100), ("job.parse", 100), ("job.done", 100), ("job.wait", 100)] {
        assert!(sums.contains(&(expected.0.to_owned(), expected.1)), "{expected:?} in {sums:?}");
    }
}

#[test]
fn only_what_is_wanted_is_replayed_and_that_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.kcap");
    let telemetry = Telemetry::builder().reporter(Capture::new(&path)).build();
    {
        let _current = telemetry.override_current();
        (0..20).for_each(|turn| work(&telemetry, turn));
    }
    telemetry.shutdown(LONG);
    let expected: Vec<_> = captured(&path).into_iter().filter(|seen| seen.path == "job.parse").collect();
    let mut replay = Replay::open(&path).unwrap();
    let recording = Recording::new(64 << 20);
    let mut asked = 0;
    loop {
        let part = replay.read_if(|block, timing| {
            asked += 1;
            assert!(timing.start_ticks() <= timing.end_ticks());
            block.tables().path_text(timing.path_id()) == "job.parse"
        });
        match part.unwrap() {
            Some(Replayed::Batch(batch)) => recording.record_batch(&batch).unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    assert_eq!((recording.len(), expected.len()), (20, 20));
    assert!(asked > 20, "asked of every scope");
    assert_eq!(recorded(&recording), expected);
}

#[test]
fn what_is_damaged_is_left_out_and_nothing_breaks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.kcap");
    let telemetry = Telemetry::builder().reporter(Capture::new(&path)).build();
    {
        let _current = telemetry.override_current();
        (0..20).for_each(|turn| work(&telemetry, turn));
    }
    telemetry.shutdown(LONG);
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(29) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, &flipped).unwrap();
        let Ok(mut replay) = Replay::open(&path) else { continue };
        let recording = Recording::new(64 << 20);
        while let Ok(Some(part)) = replay.read() {
            if let Replayed::Batch(batch) = part {
                recording.record_batch(&batch).unwrap();
            }
        }
        assert!(recorded(&recording).len() <= 20 * 6);
    }
}
