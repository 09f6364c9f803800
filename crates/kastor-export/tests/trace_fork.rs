//! Trace files and fork: each process has a file of its own with its own events, whatever the other threads were at.
#![cfg(unix)]

mod reading;

use std::{
    collections::HashSet,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use kastor::{OnFull, Telemetry, background, scope};
use kastor_export::{chrome, folded, perfetto};
use reading::{Folder, Trace};

/// Only ever an upper bound.
const LONG: Duration = Duration::from_secs(20);
const OF_CHILD: usize = 100;

/// Forks; the child runs `in_child` and ends. Returns its number once it has ended well.
fn fork(in_child: impl FnOnce()) -> u32 {
    // SAFETY: the child calls what the library promises to work in it, and ends without unwinding into the parent's code.
    let child = match unsafe { libc::fork() } {
        0 => {
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(in_child)).is_err();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(failed)) }
        }
        child => child,
    };
    assert!(child > 0, "no fork: {}", std::io::Error::last_os_error());
    let (mut status, started) = (0, Instant::now());
    // SAFETY: our own child; a place for its status.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        if started.elapsed() > LONG {
            // SAFETY: our own child, by its number.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the child hangs");
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child ended with {status:x}");
    child as u32
}

/// Forks ten times while other threads write, and returns the children's numbers.
fn children_of_a_busy_parent(tele: &Telemetry) -> Vec<u32> {
    let is_over = AtomicBool::new(false);
    let children = thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                while !is_over.load(SeqCst) {
                    let _outer = scope!(tele, "parents");
                    let _inner = scope!(tele, "inner");
                }
            });
        }
        let children = (0..10).map(|_| {
            let open = scope!(tele, "open");
            let open = std::cell::Cell::new(Some(open));
            fork(|| {
                for _ in 0..OF_CHILD {
                    drop(scope!(tele, "childs"));
                }
                drop(open.take());
                assert!(tele.flush(LONG).is_complete());
                let stats = tele.stats();
                assert_eq!((stats.emitted(), stats.reporters()[0].delivered()), (100, 100), "{stats}");
            })
        });
        let children = children.collect();
        is_over.store(true, SeqCst);
        children
    });
    assert!(tele.flush(LONG).is_complete());
    children
}

fn names(of: impl Iterator<Item = String>) -> HashSet<String> {
    of.collect()
}

fn own(path: &Path, child: u32) -> std::path::PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    let (stem, extension) = name.split_once('.').unwrap();
    path.with_file_name(format!("{stem}-{child}.{extension}"))
}

#[test]
fn perfetto() {
    let folder = Folder::new();
    let path = folder.file("trace.perfetto");
    let reporter = perfetto::Perfetto::create(&path, perfetto::Config::default()).unwrap();
    let tele = Telemetry::builder().reporter(background(reporter).on_full(OnFull::Wait(LONG))).build();
    let children = children_of_a_busy_parent(&tele);
    let parents = Trace::read(&path);
    assert_eq!(parents.faults, [""; 0]);
    let stats = tele.stats();
    assert_eq!(parents.slices.len() as u64, stats.reporters()[0].delivered(), "{stats}");
    let expected = ["parents", "inner", "open"].map(String::from);
    assert_eq!(names(parents.slices.iter().map(|slice| slice.name.clone())), expected.into());
    for child in children {
        let trace = Trace::read(&own(&path, child));
        assert_eq!(trace.faults, [""; 0]);
        assert_eq!(trace.slices.len(), OF_CHILD);
        assert_eq!(names(trace.slices.iter().map(|slice| slice.name.clone())), ["childs".to_owned()].into());
        assert!(trace.tracks.values().all(|track| track.pid.is_none_or(|pid| pid == u64::from(child))));
    }
}

#[test]
fn chrome() {
    let folder = Folder::new();
    let path = folder.file("trace.json");
    let reporter = chrome::Chrome::create(&path, chrome::Config::default()).unwrap();
    let tele = Telemetry::builder().reporter(background(reporter).on_full(OnFull::Wait(LONG))).build();
    let read = |path: &Path| -> Vec<serde_json::Value> {
        let events: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        events.into_iter().filter(|event| event["ph"] == "X").collect()
    };
    let children = children_of_a_busy_parent(&tele);
    assert!(read(&path).iter().all(|event| event["name"] != "childs" && event["pid"] == std::process::id()));
    for child in children {
        let events = read(&own(&path, child));
        assert_eq!(events.len(), OF_CHILD);
        assert!(events.iter().all(|event| event["name"] == "childs" && event["pid"] == child));
    }
}

#[test]
fn folded() {
    let folder = Folder::new();
    let path = folder.file("stacks.folded");
    let reporter = folded::Folded::create(&path, folded::Config::default()).unwrap();
    let tele = Telemetry::builder().reporter(background(reporter).on_full(OnFull::Wait(LONG))).build();
    let children = children_of_a_busy_parent(&tele);
    assert!(std::fs::read_to_string(&path).unwrap().contains("parents;inner "));
    for child in children {
        let text = std::fs::read_to_string(own(&path, child)).unwrap();
        assert!(text.contains("childs ") && !text.contains("parents"), "{text}");
    }
}

#[test]
fn a_writer_stays_its_parents() {
    let folder = Folder::new();
    let path = folder.file("trace");
    let file = std::fs::File::create(&path).unwrap();
    let writer = std::io::BufWriter::with_capacity(1 << 20, file);
    let tele = Telemetry::builder().reporter(perfetto::Perfetto::to_writer(writer, Default::default())).build();
    drop(scope!(tele, "parents"));
    assert!(tele.stats().emitted() == 1);
    fork(|| {
        drop(scope!(tele, "childs"));
        tele.flush(LONG);
        let stats = tele.stats();
        let it = &stats.reporters()[0];
        assert_eq!((it.delivered(), it.dropped().total()), (0, 1), "{stats}");
    });
    assert!(tele.flush(LONG).is_complete());
    let trace = Trace::read(&path);
    assert_eq!(names(trace.slices.iter().map(|slice| slice.name.clone())), ["parents".to_owned()].into());
}
