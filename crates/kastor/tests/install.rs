//! The process default, and what is logged once per process: one test, in a process of its own.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use kastor::{Carrier, Recording, Telemetry, count, scope};

/// What the library logged.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("kastor") {
            LOGGED.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{} {}", record.level(), record.args()));
        }
    }
    fn flush(&self) {}
}

fn never() -> u32 {
    unreachable!("evaluated before anything is on")
}

#[test]
fn the_first_install_succeeds_and_the_macros_of_every_thread_use_it() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    assert!(!Telemetry::current().is_enabled(), "there is none at first");
    drop(scope!("before", key = never()));

    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).strict_names(true).build();
    // A thread that looked for a context before there was one finds it later.
    let (ready, wait) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let early = thread::spawn(move || {
        drop(scope!("too.early"));
        ready.0.send(()).unwrap();
        wait.1.recv().unwrap();
        drop(scope!("early.thread"));
    });
    ready.1.recv().unwrap();
    tele.clone().install().expect("nothing is installed yet");
    wait.0.send(()).unwrap();
    early.join().unwrap();

    let second = Recording::new(1 << 20);
    let error = Telemetry::builder().reporter(second.clone()).build().install().unwrap_err();
    assert!(!error.to_string().is_empty());
    let refused = error.into_telemetry();
    assert!(refused.is_enabled());
    drop(scope!(refused, "refused"));
    tele.clone().install().expect_err("not even the same context twice");
    Telemetry::disabled().install().expect_err("nor the disabled one");

    drop(scope!("here"));
    {
        let _outer = scope!("outer");
        let carrier = Carrier::current();
        let work = move || {
            drop(scope!("alone"));
            let _attached = carrier.attach();
            drop(scope!("carried"));
            count!("items", 2);
            let _none = Telemetry::disabled().override_current();
            drop(scope!("overridden"));
        };
        thread::spawn(work).join().unwrap();
        let _override = refused.override_current();
        drop(scope!("to.refused"));
    }
    let counter = Telemetry::current().counter("bound", &[]);
    thread::spawn(move || counter.add(3)).join().unwrap();

    assert!(tele.flush(Duration::from_secs(10)).is_complete());
    assert!(refused.flush(Duration::from_secs(10)).is_complete());
    let paths = |recording: &Recording| {
        let mut paths = Vec::new();
        recording.for_each_batch(|batch| paths.extend(batch.timings().map(|it| it.scope())));
        paths.sort_unstable();
        paths
    };
    assert_eq!(paths(&recording), ["alone", "early.thread", "here", "outer", "outer.carried"]);
    assert_eq!(paths(&second), ["outer.to.refused", "refused"]);
    let report = Telemetry::current().report();
    let series: Vec<_> = report.series().iter().map(|it| (it.path(), it.sum().as_f64())).collect();
    assert_eq!(series, [("bound", 3.0), ("outer.items", 2.0)]);

    let mut logged = mem::take(&mut *LOGGED.lock().unwrap_or_else(PoisonError::into_inner));
    logged.retain(|line| line.contains("invalid_name"));
    assert_eq!(logged, [""; 0]);
    for n in 0..1000 {
        drop(tele.scope(&format!("Not\n Good {n}")));
    }
    let mut logged = mem::take(&mut *LOGGED.lock().unwrap_or_else(PoisonError::into_inner));
    logged.retain(|line| line.contains("invalid_name"));
    assert_eq!(logged.len(), 1, "a bad name is logged once: {logged:?}");
    assert!(!logged[0].contains('\n'), "and neutralised: {logged:?}");
    assert_eq!(tele.report().scope("(invalid_name)").map(|it| it.calls()), Some(1000));
}
