//! Signals: using the library installs no handler and leaves every disposition and mask as it was.
#![cfg(all(unix, not(miri)))]

use std::{process::Command, thread, time::Duration};

use kastor::{Recording, Reporter, SimpleReporter, Telemetry, background, count, scope};

/// Only ever an upper bound: nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(30);
/// More than there are signals anywhere; numbers that do not exist have no disposition.
const SIGNALS: i32 = 65;

struct Quiet;

impl Reporter for Quiet {}

/// What a signal does: handler, flags, and which signals are blocked meanwhile; none if there is no such signal.
type Disposition = Option<(usize, i32, Vec<bool>)>;

fn members(set: &libc::sigset_t) -> Vec<bool> {
    // SAFETY: a set that the system filled in.
    (1..SIGNALS).map(|signal| unsafe { libc::sigismember(set, signal) } == 1).collect()
}

fn dispositions() -> Vec<Disposition> {
    let ask = |signal| {
        // SAFETY: all zeros is a valid value, and a place for the answer; nothing is changed.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
        known.then(|| (action.sa_sigaction, action.sa_flags, members(&action.sa_mask)))
    };
    (1..SIGNALS).map(ask).collect()
}

fn blocked() -> Vec<bool> {
    // SAFETY: all zeros is a valid value, and a place for the answer; nothing is changed.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut set), 0);
        members(&set)
    }
}

/// Runs the test of this name alone in a process of its own. True there.
fn is_alone(test: &str) -> bool {
    if std::env::var_os("KASTOR_TEST_ALONE").is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env("KASTOR_TEST_ALONE", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

#[test]
fn a_context_with_every_kind_of_reporter_installs_no_signal_handler() {
    if !is_alone("a_context_with_every_kind_of_reporter_installs_no_signal_handler") {
        return;
    }
    let (before, blocked_before) = (dispositions(), blocked());
    assert!(before.iter().flatten().count() >= 30, "the system knows its signals");
    let unchanged = |when: &str| {
        let after = dispositions();
        let changed: Vec<_> =
            (1..SIGNALS).zip(before.iter().zip(&after)).filter(|(_, (old, new))| old != new).collect();
        assert!(changed.is_empty(), "{when}: {changed:?}");
        assert_eq!(blocked(), blocked_before, "{when}");
    };
    let builder = Telemetry::builder().reporter(SimpleReporter::new()).reporter(background(Quiet));
    let tele = builder.reporter(Recording::new(1 << 20)).exit_flush(LONG).build();
    unchanged("built");
    tele.clone().install().unwrap();
    unchanged("installed");
    let emit = || {
        let _step = scope!("step", n = 1);
        count!("items");
    };
    emit();
    thread::scope(|threads| drop(threads.spawn(emit)));
    assert!(tele.flush(LONG).is_complete());
    unchanged("used");
    assert!(tele.shutdown(LONG).is_complete());
    drop(tele);
    unchanged("shut down");
}

/// The threads of the library must not catch what the program's own threads wait for.
#[test]
#[cfg(target_os = "linux")]
fn the_threads_of_the_library_leave_the_process_its_signals() {
    if !is_alone("the_threads_of_the_library_leave_the_process_its_signals") {
        return;
    }
    let status = |task: &std::path::Path, key: &str| {
        let text = std::fs::read_to_string(task.join("status")).unwrap();
        text.lines().find_map(|line| line.strip_prefix(key).map(|rest| rest.trim().to_owned())).unwrap()
    };
    let caught_before = status("/proc/self".as_ref(), "SigCgt:");
    let tele = Telemetry::builder().reporter(background(Quiet)).build();
    drop(tele.scope("step"));
    assert!(tele.flush(LONG).is_complete());
    let own = || -> Vec<_> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        tasks.filter(|task| status(task, "Name:").starts_with("kastor-")).collect()
    };
    // A thread gives itself its name, once it runs.
    let deadline = std::time::Instant::now() + LONG;
    while own().len() < 2 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    let own = own();
    assert_eq!(own.len(), 2, "one collector, one reporter");
    assert!(own.iter().all(|task| status(task, "SigCgt:") == caught_before));
}
