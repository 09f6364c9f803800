//! A capture holds what was recorded, however it is divided, and whoever writes beside it.

mod captured;

use std::{
    io::{BufRead as _, BufReader},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::{Duration, Instant},
};

use captured::{LONG, again, captured, child_of, files, recorded, work};
use kastor::{Builder, DropReason, FutureExt as _, Number, Recording, Telemetry, TraceParent, count, metric, scope};
use kastor_export::capture::{
    Aggregate, Capture, CaptureConfig, Durability, Part, Reader, StoredValue, check, gaps_between,
};

/// At rest, what was emitted is where the accounts say.
#[track_caller]
fn assert_accounted(telemetry: &Telemetry) {
    let stats = telemetry.stats();
    for reporter in stats.reporters() {
        let sum = reporter.delivered() + reporter.dropped().total() + reporter.queued() + reporter.spooled();
        assert_eq!(sum, stats.emitted(), "{stats}");
    }
}

fn build(builder: Builder, capture: &Capture) -> Telemetry {
    builder.reporter(capture.clone()).build()
}

fn sorted(mut all: Vec<captured::Seen>) -> Vec<captured::Seen> {
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all
}

#[test]
fn a_capture_holds_what_the_core_itself_says_of_every_event() {
    let folder = tempfile::tempdir().unwrap();
    for (name, zstd) in [("plain.kcap", None), ("small.kcap", Some(3))] {
        let path = folder.path().join(name);
        let config = CaptureConfig::new(&path);
        let capture = Capture::with(zstd.map_or(config.clone(), |level| config.zstd(level)));
        let recording = Recording::new(64 << 20);
        let telemetry = build(Telemetry::builder().reporter(recording.clone()), &capture);
        {
            let _current = telemetry.override_current();
            (0..300).for_each(|turn| work(&telemetry, turn));
            let remote = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
            let _attached = kastor::Carrier::from_trace_parent(&remote).attach();
            drop(scope!("serve"));
            let mut deep = Vec::new();
            (0..300).for_each(|_| deep.push(scope!("deeper")));
            while deep.pop().is_some() {}
            let future = async { drop(scope!("inside")) }.in_scope(scope!("task"));
            let mut future = std::pin::pin!(future);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(future.as_mut().poll(&mut context).is_ready());
        }
        assert!(telemetry.flush(LONG).is_complete());
        assert_accounted(&telemetry);

        // Two workers ask for the line of time at moments of their own, so times may differ by what that drifts.
        let (ours, theirs) = (sorted(captured(&path)), sorted(recorded(&recording)));
        assert_eq!(ours.len(), 300 * 6 + 303);
        let mut by_ids = std::collections::HashMap::new();
        for seen in &theirs {
            by_ids.entry((seen.path.clone(), seen.ids)).or_insert_with(Vec::new).push(seen);
        }
        for seen in ours {
            let same = &by_ids[&(seen.path.clone(), seen.ids)];
            assert_eq!(same.len(), 1);
            let mut same = same[0].clone();
            assert!(same.start_unix_ns.abs_diff(seen.start_unix_ns) < 5_000_000, "{same:?} {seen:?}");
            assert!(same.duration_ns.abs_diff(seen.duration_ns) <= 2 + seen.duration_ns / 100, "{same:?} {seen:?}");
            (same.start_unix_ns, same.duration_ns) = (seen.start_unix_ns, seen.duration_ns);
            let without_times = |rest: &[String]| {
                rest.iter()
                    .map(|text| text.split(' ').filter(|word| word.len() < 15).collect())
                    .collect::<Vec<String>>()
            };
            assert_eq!(without_times(&same.rest), without_times(&seen.rest));
            same.rest.clone_from(&seen.rest);
            assert_eq!(same, seen);
        }
    }
}

#[test]
fn compressed_captures_are_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = [None, Some(1)].map(|zstd| {
        let path = folder.path().join(format!("{zstd:?}.kcap"));
        let config = CaptureConfig::new(&path);
        let capture = Capture::with(zstd.map_or(config.clone(), |level| config.zstd(level)));
        let telemetry = build(Telemetry::builder(), &capture);
        (0..10_000).for_each(|_| drop(scope!(telemetry, "same", text = "again and again")));
        assert!(telemetry.flush(LONG).is_complete());
        assert_eq!(captured(&path).len(), 10_000);
        path.metadata().unwrap().len()
    });
    assert!(bytes[1] * 3 < bytes[0], "{bytes:?}");
}

#[test]
fn times_are_those_of_an_injected_clock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mock.kcap");
    let clock = kastor::MockClock::new();
    let telemetry = build(Telemetry::builder().clock(clock.clone()), &Capture::new(&path));
    {
        let outer = scope!(telemetry, "outer");
        clock.advance(Duration::from_nanos(1500));
        drop(scope!(telemetry, "inner"));
        clock.advance(Duration::from_secs(5));
        drop(outer);
    }
    assert!(telemetry.flush(LONG).is_complete());
    let seen = captured(&path);
    let times: Vec<_> = seen.iter().map(|it| (it.path.as_str(), it.start_unix_ns, it.duration_ns)).collect();
    let begun = seen[1].start_unix_ns;
    assert!(begun >= 1_000_000_000);
    assert_eq!(times, [("outer.inner", begun + 1500, 0), ("outer", begun, 5_000_001_500)]);
}

#[test]
fn sums_come_back_as_the_snapshot_had_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sums.kcap");
    // Real ticks would be read with the line of another moment here and there.
    let clock = kastor::MockClock::new();
    let telemetry = build(Telemetry::builder().clock(clock.clone()), &Capture::new(&path));
    telemetry.describe("done", "{item}", "What was done");
    {
        let _current = telemetry.override_current();
        for turn in 0..10 {
            let _timed = scope!("timed");
            work(&telemetry, turn);
            clock.advance(Duration::from_micros(turn));
        }
        count!("back", -3);
    }
    assert!(telemetry.flush(LONG).is_complete());
    let report = telemetry.report();

    let mut reader = Reader::open(&path).unwrap();
    let (mut scopes, mut series) = (0, 0);
    while let Some(part) = reader.read().unwrap() {
        let Part::Aggregates(aggregates) = part else { continue };
        assert!(aggregates.start_unix_ns() <= aggregates.unix_ns());
        for entry in aggregates.entries() {
            match entry {
                Aggregate::Scope(sums) => {
                    scopes += 1;
                    let ours = report.scope(sums.path).unwrap();
                    assert_eq!((sums.calls, sums.errors), (ours.calls(), ours.errors()), "{}", sums.path);
                    assert_eq!(u128::from(sums.total_ns), ours.total().as_nanos());
                    assert_eq!(u128::from(sums.self_ns), ours.self_time().as_nanos());
                    let histogram = sums.durations_ns;
                    assert_eq!(histogram.count, ours.calls());
                    assert_eq!(histogram.max.unwrap() as u64, ours.max().as_nanos() as u64);
                    assert_eq!(histogram.positive_offset, ours.durations_ns().positive().offset());
                    assert_eq!(histogram.positive().collect::<Vec<_>>(), ours.durations_ns().positive().counts());
                    assert_eq!(histogram.negative().count(), 0);
                    if sums.path == "timed" {
                        let exemplar = sums.exemplar.unwrap();
                        assert_eq!(
                            (exemplar.value, exemplar.trace_id == 0, exemplar.span_id == 0),
                            (9000.0, false, false)
                        );
                    }
                }
                Aggregate::Series(sums) => {
                    series += 1;
                    match sums.path {
                        "timed.job.done" => {
                            assert_eq!((sums.calls, sums.sum, sums.is_monotonic), (10, Number::Integer(20), true));
                            assert_eq!((sums.unit, sums.help), (Some("{item}"), Some("What was done")));
                            let labels: Vec<_> = sums.labels().collect();
                            assert_eq!((labels[0].key, labels[0].value), ("kind", StoredValue::Str("x")));
                            assert_eq!(labels.len(), 1);
                        }
                        "back" => assert_eq!((sums.sum, sums.is_monotonic), (Number::Integer(-3), false)),
                        "timed.job.level" => {
                            assert_eq!((sums.last, sums.min, sums.max), (Some(3.5), Some(3.5), Some(3.5)))
                        }
                        "timed.job.wait" => {
                            assert_eq!((sums.calls, sums.sum, sums.values.count), (10, Number::Float(2.5), 10));
                            assert_eq!(sums.values.positive().sum::<u64>(), 10);
                            assert_eq!((sums.unit, sums.help, sums.labels().count()), (None, None, 0));
                        }
                        other => panic!("{other}"),
                    }
                }
            }
        }
    }
    assert_eq!((scopes, series), (4, 4));
}

#[test]
fn each_file_of_a_rotation_is_read_alone_and_nothing_lies_between_them() {
    let folder = tempfile::tempdir().unwrap();
    let capture = Capture::with(CaptureConfig::new(folder.path()).max_file_bytes(0).max_files(100));
    let telemetry = build(Telemetry::builder(), &capture);
    {
        let _current = telemetry.override_current();
        for turn in 0..40_000u64 {
            let _outer = scope!("outer", turn = turn, text = "a text that takes some room in the file");
            drop(scope!("inner"));
            if turn % 500 == 0 {
                telemetry.flush(LONG);
            }
        }
    }
    assert!(telemetry.flush(LONG).is_complete());
    assert_accounted(&telemetry);
    let written = capture.files();
    assert!(written.len() > 2, "{written:?}");
    let mut checked = Vec::new();
    let mut seen = 0;
    for file in &written {
        assert!(file.metadata().unwrap().len() <= (1 << 20) + 4096, "{file:?}");
        seen += captured(file).iter().filter(|it| it.path == "outer" || it.path == "outer.inner").count();
        checked.push(check(file).unwrap());
    }
    assert_eq!(seen, 80_000);
    assert!(checked.iter().all(|file| file.is_whole()));
    assert_eq!(gaps_between(&checked), []);
    // A file that is missing shows.
    checked.remove(1);
    let gaps = gaps_between(&checked);
    assert_eq!((gaps.len(), gaps[0].files), (1, (1, 3)));
    assert!(gaps[0].events > 0);
}

#[test]
fn only_so_many_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let capture = Capture::with(CaptureConfig::new(folder.path()).max_file_bytes(1 << 20).max_files(2));
    let telemetry = build(Telemetry::builder(), &capture);
    for turn in 0..640_000u64 {
        drop(scope!(telemetry, "outer"));
        if turn % 8000 == 0 {
            telemetry.flush(LONG);
        }
    }
    assert!(telemetry.flush(LONG).is_complete());
    assert_accounted(&telemetry);
    let left = files(folder.path());
    assert_eq!(left, {
        let mut kept = capture.files();
        kept.sort();
        kept
    });
    assert_eq!(left.len(), 2);
    assert!(left[0].to_string_lossy().contains("kastor-"), "{left:?}");
    assert!(left.iter().all(|file| check(file).unwrap().is_whole()));
}

#[test]
fn a_folder_is_kept_small_at_the_cost_of_ended_processes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let write = |keep: bool| {
        let capture = Capture::with(CaptureConfig::new(folder.path()).max_folder_bytes(1));
        let telemetry = build(Telemetry::builder(), &capture);
        drop(scope!(telemetry, "once"));
        telemetry.flush(LONG);
        let path = capture.files()[0].clone();
        if keep {
            return (path, Some((telemetry, capture)));
        }
        telemetry.shutdown(LONG);
        drop((telemetry, capture));
        (path, None)
    };
    let (live, _alive) = write(true);
    let (ended, _) = write(false);
    assert_eq!(files(folder.path()).len(), 2);
    // The worker that holds the ended one ends a little later than the context.
    let deadline = Instant::now() + LONG;
    let mut newest;
    loop {
        newest = write(false).0;
        if !ended.exists() || Instant::now() > deadline {
            break;
        }
    }
    assert!(live.exists() && newest.exists() && !ended.exists());
}

#[test]
fn a_file_is_continued_by_the_next_process() {
    const NAME: &str = "a_file_is_continued_by_the_next_process";
    if let Some(path) = child_of(NAME) {
        let telemetry = build(Telemetry::builder(), &Capture::new(path));
        drop(scope!(telemetry, "run"));
        assert!(telemetry.flush(LONG).is_complete());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.kcap");
    for torn in [&b"as if a crash had cut a frame short"[..], &[0x9e, b'K', b'F', b'r', 9, 9], b""] {
        assert!(again(NAME, path.to_str().unwrap()).status().unwrap().success());
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, torn).unwrap();
    }
    let checked = check(&path).unwrap();
    assert_eq!((checked.sessions.len(), checked.events()), (3, 3), "{checked:?}");
    // What can be no frame stays, what might be the beginning of one is cut off.
    assert_eq!((checked.damaged_places, checked.torn_bytes), (1, 0), "{checked:?}");
    assert_eq!(Reader::open(&path).unwrap().index().unwrap().iter().filter(|entry| entry.is_block()).count(), 3);
}

#[test]
fn a_file_of_someone_else_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.kcap");
    std::fs::write(&foreign, "somebody's letters, longer than a header of ours").unwrap();
    let telemetry = build(Telemetry::builder(), &Capture::new(&foreign));
    drop(scope!(telemetry, "run"));
    telemetry.flush(LONG);
    assert_accounted(&telemetry);
    assert_eq!(telemetry.stats().reporters()[0].dropped().of(DropReason::SpoolIo), 1);
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "somebody's letters, longer than a header of ours");
    assert!(Reader::open(&foreign).err().unwrap().is_invalid_input());
}

#[test]
fn two_contexts_with_one_file_name_write_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.kcap");
    let captures = [Capture::new(&path), Capture::new(&path)];
    for capture in &captures {
        let telemetry = build(Telemetry::builder(), capture);
        drop(scope!(telemetry, "once"));
        assert!(telemetry.flush(LONG).is_complete());
    }
    let written = captures.each_ref().map(|capture| capture.files()[0].clone());
    assert_eq!(written[0], path);
    assert_ne!(written[1], path);
    assert!(written.iter().all(|file| captured(file).len() == 1));
}

#[test]
fn the_index_leads_to_every_block_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.kcap");
    let telemetry = build(Telemetry::builder(), &Capture::new(&path));
    {
        let _current = telemetry.override_current();
        for turn in 0..1500 {
            work(&telemetry, turn);
            if turn % 3 == 0 {
                telemetry.flush(LONG);
            }
        }
    }
    assert!(telemetry.flush(LONG).is_complete());
    let in_order = captured(&path);

    let stored = Reader::open(&path).unwrap().index().unwrap();
    assert!(stored.len() > 1024, "more than one index");
    // Without its end a file has no index, and one is made.
    let cut = folder.path().join("cut.kcap");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 8);
    std::fs::write(&cut, bytes).unwrap();
    assert_eq!(Reader::open(&cut).unwrap().index().unwrap(), stored);

    let mut reader = Reader::open(&path).unwrap();
    reader.load_tables(&stored).unwrap();
    let mut timings = 0;
    for entry in stored.iter().filter(|entry| entry.is_block()).rev() {
        reader.go_to(entry).unwrap();
        let Some(Part::Block(block)) = reader.read().unwrap() else { panic!("{entry:?}") };
        assert_eq!((block.offset(), block.len(), block.thread()), (entry.offset, entry.records, entry.thread));
        assert_eq!((block.first_unix_ns(), block.last_unix_ns()), (entry.first_unix_ns, entry.last_unix_ns));
        assert_eq!(block.failures(), entry.failures);
        assert_eq!(block.timings().map(|timing| timing.duration_ns()).max().unwrap_or(0), entry.longest_ns);
        assert!(block.timings().all(|timing| !block.tables().path_text(timing.path_id()).contains("unknown")));
        timings += block.timings().count();
    }
    assert_eq!(timings, in_order.iter().filter(|seen| seen.ids.1 != 0).count());
}

#[test]
fn a_capture_is_read_while_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.kcap");
    let telemetry = build(Telemetry::builder(), &Capture::new(&path));
    drop(scope!(telemetry, "tick"));
    telemetry.flush(LONG);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for turn in 0..200_000 {
                drop(scope!(telemetry, "tick"));
                if turn % 1000 == 0 {
                    telemetry.flush(LONG);
                }
            }
            assert!(telemetry.flush(LONG).is_complete());
            is_done.store(true, SeqCst);
        });
        let mut reader = Reader::open(&path).unwrap();
        let (mut seen, mut waits) = (0, 0);
        loop {
            let was_done = is_done.load(SeqCst);
            while let Some(part) = reader.read().unwrap() {
                match part {
                    Part::Block(block) => seen += block.timings().count(),
                    Part::Damage(damage) => panic!("{damage}"),
                    _ => {}
                }
            }
            if was_done {
                break;
            }
            waits += 1;
            std::thread::yield_now();
        }
        assert_eq!(seen, 200_001);
        assert!(waits > 0, "it was never read while it was written");
    });
}

#[test]
fn processes_share_a_folder() {
    const NAME: &str = "processes_share_a_folder";
    if let Some(folder) = child_of(NAME) {
        let telemetry = build(Telemetry::builder(), &Capture::new(folder));
        (0..5000).for_each(|_| drop(scope!(telemetry, "mine")));
        telemetry.shutdown(LONG);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut children: Vec<_> = (0..4).map(|_| again(NAME, folder.path().to_str().unwrap()).spawn().unwrap()).collect();
    children.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    let written = files(folder.path());
    assert_eq!(written.len(), 4);
    let mut instances = std::collections::HashSet::new();
    for file in written {
        assert_eq!(captured(&file).len(), 5000);
        let session = check(&file).unwrap().sessions[0].session.unwrap();
        assert!(file.to_string_lossy().contains(&format!("kastor-{}-", session.process_id)));
        instances.insert(session.instance_id);
    }
    assert_eq!(instances.len(), 4);
}

#[test]
fn a_killed_process_loses_at_most_the_last_quarter_of_a_second() {
    const NAME: &str = "a_killed_process_loses_at_most_the_last_quarter_of_a_second";
    if let Some(path) = child_of(NAME) {
        // Says what it has closed, with the time, and never ends by itself.
        let telemetry = build(Telemetry::builder(), &Capture::new(path));
        for turn in 0u64.. {
            for _ in 0..200 {
                drop(scope!(telemetry, "beat"));
            }
            println!("beat {}", (turn + 1) * 200);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let rounds = if std::env::var_os("KASTOR_DEEP").is_some_and(|set| set == "1") { 200 } else { 6 };
    let folder = tempfile::tempdir().unwrap();
    for round in 0..rounds {
        let path = folder.path().join(format!("{round}.kcap"));
        let mut child = again(NAME, path.to_str().unwrap()).spawn().unwrap();
        let mut said = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let life = Duration::from_millis(300 + 90 * (round % 7));
        let mut begun = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some(beats) = line.strip_prefix("beat ") {
                let begun = begun.get_or_insert_with(Instant::now);
                said.push((Instant::now(), beats.parse::<u64>().unwrap()));
                if begun.elapsed() > life {
                    break;
                }
            }
        }
        child.kill().unwrap();
        let killed = Instant::now();
        child.wait().unwrap();

        let checked = check(&path).unwrap();
        assert_eq!((checked.damaged_places, checked.missing_events()), (0, 0), "{checked:?}");
        let main = checked.sessions[0].threads.iter().max_by_key(|thread| thread.events).unwrap();
        // On a busy machine the collector gets its turn late, as the beating thread does.
        let stalls = said.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default();
        let in_time = Duration::from_millis(500) + stalls * 5;
        let due = said.iter().rev().find(|(at, _)| killed - *at > in_time).map_or(0, |(_, beats)| *beats);
        assert!(checked.events() >= due, "{} of {due} that were due", checked.events());
        assert_eq!(main.events, checked.events());
    }
}

#[test]
#[cfg(unix)]
fn what_is_no_regular_file_is_refused_and_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.kcap");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let telemetry = build(Telemetry::builder(), &Capture::new(&path));
    drop(scope!(telemetry, "lost"));
    telemetry.flush(LONG);
    assert_accounted(&telemetry);
    assert_eq!(telemetry.stats().reporters()[0].dropped().of(DropReason::SpoolIo), 1);
}

/// A file system of one MiB, if this machine lets us have one.
#[cfg(target_os = "linux")]
struct Small(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl Small {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "kastor-test"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(folder))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_counted_and_recording_goes_on_when_there_is_room() {
    let Some(small) = Small::new() else {
        println!("SKIPPED: no file system of one MiB can be mounted here");
        return;
    };
    let place = small.0.path();
    let telemetry = build(Telemetry::builder(), &Capture::new(place));
    let turn = || {
        for _ in 0..2000 {
            drop(scope!(telemetry, "scope"));
        }
        telemetry.flush(LONG);
        telemetry.stats().reporters()[0].clone()
    };
    let deadline = Instant::now() + LONG;
    std::fs::write(place.join("ballast"), vec![7; 200 << 10]).unwrap();
    while turn().dropped().of(DropReason::SpoolFull) == 0 {
        assert!(Instant::now() < deadline);
    }
    assert_accounted(&telemetry);
    std::fs::remove_file(place.join("ballast")).unwrap();
    let delivered = telemetry.stats().reporters()[0].delivered();
    while turn().delivered() == delivered {
        assert!(Instant::now() < deadline);
    }
    assert_accounted(&telemetry);
    let stats = telemetry.stats().reporters()[0].clone();
    assert_eq!(stats.dropped().total(), stats.dropped().of(DropReason::SpoolFull));
    // The same file goes on, tells of all that was written, and shows the gap.
    let checked = check(&files(place)[0]).unwrap();
    assert_eq!((checked.events(), checked.damaged_places), (stats.delivered(), 0));
    assert!(checked.missing_events() > 0 && checked.missing_events() <= stats.dropped().total());
}

#[test]
#[cfg(unix)]
fn a_forked_child_writes_a_file_of_its_own() {
    const NAME: &str = "a_forked_child_writes_a_file_of_its_own";
    if let Some(path) = child_of(NAME) {
        let telemetry = build(Telemetry::builder(), &Capture::new(path));
        let is_done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            // The worker is busy while it forks.
            threads.spawn(|| {
                while !is_done.load(SeqCst) {
                    drop(scope!(telemetry, "parent"));
                }
            });
            while telemetry.stats().reporters()[0].delivered() == 0 {
                telemetry.flush(LONG);
            }
            for _ in 0..10 {
                // SAFETY: the child does what the library promises to work, and ends without unwinding.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    let untouched = telemetry.stats().reporters()[0].delivered() == 0;
                    (0..100).for_each(|_| drop(scope!(telemetry, "child")));
                    let is_flushed = telemetry.flush(LONG).is_complete();
                    let stats = telemetry.stats();
                    let is_counted = stats.emitted() == 100 && stats.reporters()[0].delivered() == 100;
                    // SAFETY: ends the process at once.
                    unsafe { libc::_exit(i32::from(!(untouched && is_flushed && is_counted))) };
                }
                let mut status = 0;
                // SAFETY: our own child; a place for its status.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
            is_done.store(true, SeqCst);
        });
        assert!(telemetry.flush(LONG).is_complete());
        assert_accounted(&telemetry);
        return;
    }
    for name in ["", "one.kcap"] {
        let folder = tempfile::tempdir().unwrap();
        assert!(again(NAME, folder.path().join(name).to_str().unwrap()).status().unwrap().success());
        let written = files(folder.path());
        assert_eq!(written.len(), 11, "{written:?}");
        let (mut of_parent, mut of_children) = (0, 0);
        for file in &written {
            let seen = captured(file);
            let is_parents = seen[0].path == "parent";
            assert!(seen.iter().all(|it| it.path == if is_parents { "parent" } else { "child" }));
            assert!(is_parents || seen.len() == 100);
            *(if is_parents { &mut of_parent } else { &mut of_children }) += 1;
        }
        assert_eq!((of_parent, of_children), (1, 10));
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_counted_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "in the way").unwrap();
    let telemetry = build(Telemetry::builder(), &Capture::new(blocked.join("captures")));
    drop(scope!(telemetry, "lost"));
    telemetry.flush(LONG);
    assert_eq!(telemetry.stats().reporters()[0].dropped().of(DropReason::SpoolIo), 1);
    std::fs::remove_file(&blocked).unwrap();
    let deadline = Instant::now() + LONG;
    while telemetry.stats().reporters()[0].delivered() == 0 {
        assert!(Instant::now() < deadline);
        drop(scope!(telemetry, "kept"));
        telemetry.flush(LONG);
    }
    assert_accounted(&telemetry);
    // What was dropped before the file was there is part of what the file says came before it.
    let checked = check(&files(&blocked.join("captures"))[0]).unwrap();
    assert!(checked.is_whole());
    assert_eq!(checked.events(), telemetry.stats().reporters()[0].delivered());
}

#[test]
fn a_removed_folder_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("captures");
    let telemetry = build(Telemetry::builder(), &Capture::new(&place));
    drop(scope!(telemetry, "first"));
    telemetry.flush(LONG);
    std::fs::remove_dir_all(&place).unwrap();
    let deadline = Instant::now() + LONG;
    while !place.exists() {
        assert!(Instant::now() < deadline);
        drop(scope!(telemetry, "later"));
        telemetry.flush(LONG);
    }
    telemetry.flush(LONG);
    assert!(captured(&files(&place)[0]).iter().all(|seen| seen.path == "later"));
}

#[test]
fn durable_captures_are_written_as_others_are() {
    let folder = tempfile::tempdir().unwrap();
    for (name, durability) in [("flush.kcap", Durability::OnFlush), ("every.kcap", Durability::Every(Duration::ZERO))] {
        let path = folder.path().join(name);
        let telemetry = build(Telemetry::builder(), &Capture::with(CaptureConfig::new(&path).durability(durability)));
        for _ in 0..10 {
            drop(scope!(telemetry, "safe"));
            metric!("note", 1);
            assert!(telemetry.flush(LONG).is_complete());
        }
        assert_eq!(captured(&path).len(), 10);
    }
}

#[test]
fn no_planted_secret_is_in_the_file_unless_that_is_asked_for() {
    use kastor_export::{Redaction, capture::CaptureConfig};
    let canaries_in = |redaction: Redaction| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("canary.kcap");
        let config = CaptureConfig::new(&path).redaction(redaction);
        let tele = Telemetry::builder().reporter(kastor_export::capture::Capture::with(config)).build();
        {
            let scope =
                scope!(tele, "login", password = "canary-1", url = "https://me:canary-2@host/", plain = "shown");
            scope.event_with("sent", &[("authorization", "Bearer canary-3".into())]);
            scope.fail("token=canary-4");
        }
        tele.counter("logins", &[("api_key", "canary-5".into())]).add(1);
        tele.metric("note", "see https://me:canary-6@host/", &[]);
        assert!(tele.flush(LONG).is_complete());
        let bytes = std::fs::read(&path).unwrap();
        let has = |text: String| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("shown".into()) && kastor_export::capture::check(&path).unwrap().is_whole());
        (1..=6).filter(|number| has(format!("canary-{number}"))).collect::<Vec<i32>>()
    };
    assert_eq!(canaries_in(Redaction::default()), Vec::<i32>::new());
    assert_eq!(canaries_in(Redaction::none()), [1, 2, 3, 4, 5, 6]);
}
