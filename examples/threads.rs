//! Threads: a new thread belongs to no scope until it is told, and a [`Carrier`] tells it.
//!
//! A carrier is two words that can be copied to anywhere. Attached, it makes the scopes of the attaching thread children of the
//! scope it came from. Shown here are a thread started for one purpose, and a pool whose threads live longer than any scope: there
//! the carrier travels with the job, since each job belongs to whoever asked for it.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kastor::{Carrier, Recording, Telemetry, scope};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recording = Recording::new(1 << 20);
    let telemetry = Telemetry::builder().reporter(recording.clone()).build();
    telemetry.clone().install()?;

    one_thread();
    pool();

    assert!(telemetry.flush(Duration::from_secs(5)).is_complete());
    let mut parents = Vec::new();
    recording.for_each_batch(|batch| {
        parents.extend(batch.timings().map(|timing| (timing.scope(), timing.parent_scope())));
    });
    parents.sort();
    for (scope, parent) in &parents {
        println!("{scope} is a child of {}", parent.unwrap_or("nobody"));
    }
    let expected = [
        ("forgotten", None),
        ("import", None),
        ("import.index", Some("import")),
        ("request", None),
        ("request", None),
        ("request.job", Some("request")),
        ("request.job", Some("request")),
    ];
    assert_eq!(parents, expected);
    println!("{}", telemetry.report());
    Ok(())
}

/// One thread for one purpose: take the carrier in, attach it, forget about it.
fn one_thread() {
    let import = scope!("import");
    let carrier = import.carrier();
    thread::scope(|threads| {
        threads.spawn(move || {
            let _attached = carrier.attach();
            let _scope = scope!("index"); // import.index
        });
        threads.spawn(|| {
            let _scope = scope!("forgotten"); // nobody told this thread: a root
        });
    });
}

/// What a worker gets: something to do, and on whose behalf.
struct Job {
    carrier: Carrier,
    work: Box<dyn FnOnce() + Send>,
}

/// A pool of one worker that serves two requests.
fn pool() {
    let (jobs, queue) = mpsc::channel::<Job>();
    let worker = thread::spawn(move || {
        for Job { carrier, work } in queue {
            let _attached = carrier.attach(); // for this job only
            let _scope = scope!("job"); // request.job
            work();
        }
    });
    for number in 0..2 {
        let _request = scope!("request", number = number);
        let (done, wait) = mpsc::channel();
        let work = Box::new(move || done.send(()).unwrap_or_default());
        let is_sent = jobs.send(Job { carrier: Carrier::current(), work });
        assert!(is_sent.is_ok() && wait.recv().is_ok());
    }
    drop(jobs);
    assert!(worker.join().is_ok());
}
