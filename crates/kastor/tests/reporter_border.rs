//! What a reporter is given besides events: the context's aggregates and accounts, and calls to make things durable.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kastor::{Aggregates, Batch, Deadline, Error, Reporter, Snapshot, Telemetry, background, count, scope};

const LONG: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Asked {
    calls: Arc<Mutex<Vec<String>>>,
    aggregates: Arc<Mutex<Option<Aggregates>>>,
}

impl Asked {
    fn note(&self, call: impl Into<String>) -> Result<(), Error> {
        self.calls.lock().unwrap().push(call.into());
        Ok(())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl Reporter for Asked {
    fn start(&self, aggregates: Aggregates) {
        *self.aggregates.lock().unwrap() = Some(aggregates);
    }
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        self.note(format!("{} events", batch.len()))
    }
    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        let delivered = snapshot.stats().reporters()[0].delivered();
        self.note(format!("aggregates; {delivered} delivered before"))
    }
    fn flush(&self, _: Deadline) -> Result<(), Error> {
        self.note("flush")
    }
    fn persist(&self, _: Deadline) -> Result<(), Error> {
        self.note("persist")
    }
}

#[test]
fn persist_asks_for_durability_and_flush_for_delivery() {
    let asked = Asked::default();
    let tele = Telemetry::builder().reporter(background(asked.clone())).build();
    drop(scope!(tele, "work"));
    assert!(tele.persist(LONG).is_complete());
    assert_eq!(asked.take(), ["1 events", "aggregates; 1 delivered before", "persist"]);
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(asked.take(), ["aggregates; 1 delivered before", "flush"]);
}

#[test]
fn a_reporter_gets_fresh_aggregates_when_it_asks_while_the_context_lives() {
    let asked = Asked::default();
    let tele = Telemetry::builder().reporter(background(asked.clone())).build();
    {
        let _scope = scope!(tele, "work");
        let _current = tele.override_current();
        count!("items", 3);
    }
    let aggregates = asked.aggregates.lock().unwrap().clone().unwrap();
    let mut seen = Vec::new();
    let is_there = aggregates.snapshot(|snapshot| {
        seen.extend(snapshot.scopes().iter().map(|scope| (scope.path(), scope.calls())));
        seen.extend(snapshot.series().iter().map(|series| (series.path(), series.sum().as_f64() as u64)));
        assert_eq!(snapshot.stats().emitted(), 1);
    });
    assert!(is_there);
    assert_eq!(seen, [("work", 1), ("work.items", 3)]);
}

#[test]
fn anyone_may_look_at_the_aggregates_of_a_context() {
    let tele = Telemetry::builder().build();
    drop(scope!(tele, "work"));
    let seen = tele.snapshot(|snapshot| (snapshot.scopes().len(), snapshot.process().id, snapshot.stats().timings()));
    assert_eq!(seen, (1, std::process::id(), 1));
    assert_eq!(Telemetry::DISABLED.snapshot(|snapshot| snapshot.scopes().len() + snapshot.series().len()), 0);
}

#[test]
fn a_reporter_is_flushed_once_more_when_its_context_ends() {
    let asked = Asked::default();
    let tele = Telemetry::builder().reporter(background(asked.clone())).build();
    drop(scope!(tele, "work"));
    drop(tele);
    let until = std::time::Instant::now() + LONG;
    while asked.calls.lock().unwrap().last().is_none_or(|call| call != "flush") {
        assert!(std::time::Instant::now() < until, "{:?}", asked.take());
        std::thread::yield_now();
    }
    assert_eq!(asked.take(), ["1 events", "flush"]);
}
