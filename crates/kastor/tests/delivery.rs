//! Delivery: every event reaches every reporter exactly once, or is counted under the reason for which it did not.

use std::{
    collections::HashSet,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use kastor::{
    Batch, DropReason, Error, Flush, Metric, MetricType, Number, OnFull, Recording, Reporter, ReporterStats, Snapshot,
    Telemetry, Timing, background, count, gauge, histogram, metric, scope,
};

/// Only ever an upper bound: nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(if cfg!(miri) { 1000 } else { 60 });

/// So many rounds, and many more in a deep run.
fn rounds(few: u64) -> u64 {
    match std::env::var_os("KASTOR_DEEP").is_some_and(|set| set == "1") {
        _ if cfg!(miri) => 3,
        true => few * 30,
        false => few,
    }
}

/// Keeps the `id` of every event, in the order in which they came.
#[derive(Clone, Default)]
struct Ids(Arc<Mutex<Vec<u64>>>);

impl Ids {
    fn push(&self, id: Option<f64>) {
        self.0.lock().unwrap().push(id.expect("every event of these tests has an id") as u64);
    }

    /// How many came, and whether none came twice.
    fn distinct(&self) -> (usize, bool) {
        let ids = self.0.lock().unwrap();
        (ids.len(), ids.iter().collect::<HashSet<_>>().len() == ids.len())
    }
}

impl Reporter for Ids {
    fn record_timing(&self, event: &Timing<'_>) {
        self.push(event.attributes().get("id").and_then(|id| id.as_f64()));
    }
    fn record_metric(&self, event: &Metric<'_>) {
        self.push(event.attributes().get("id").and_then(|id| id.as_f64()));
    }
}

/// Counts events, and lets tests wait for a number.
#[derive(Clone, Default)]
struct Tally(Arc<(Mutex<u64>, Condvar)>);

impl Tally {
    fn now(&self) -> u64 {
        *self.0.0.lock().unwrap()
    }

    fn wait_for(&self, events: u64) {
        let (count, changed) = &*self.0;
        let (count, timeout) =
            changed.wait_timeout_while(count.lock().unwrap(), LONG, |count| *count < events).unwrap();
        assert!(!timeout.timed_out(), "{} of {events} events came", *count);
    }
}

impl Reporter for Tally {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        *self.0.0.lock().unwrap() += batch.events().count() as u64;
        self.0.1.notify_all();
        Ok(())
    }
}

/// A background reporter that blocks in its first batch until the gate opens, and then passes events on.
#[derive(Clone)]
struct Stuck<R> {
    is_open: Arc<(Mutex<bool>, Condvar)>,
    then: R,
}

impl<R> Stuck<R> {
    fn then(then: R) -> Self {
        Self { is_open: Arc::default(), then }
    }

    fn release(&self) {
        *self.is_open.0.lock().unwrap() = true;
        self.is_open.1.notify_all();
    }
}

impl<R: Reporter> Reporter for Stuck<R> {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        drop(self.is_open.1.wait_while(self.is_open.0.lock().unwrap(), |is_open| !*is_open).unwrap());
        self.then.record_batch(batch)
    }
}

/// The promise about accounts: nothing is unaccounted for.
#[track_caller]
fn assert_accounted(tele: &Telemetry) {
    let stats = tele.stats();
    for it in stats.reporters() {
        assert_eq!(stats.emitted(), it.delivered() + it.dropped().total() + it.queued() + it.spooled(), "{stats}");
    }
}

fn only(tele: &Telemetry) -> ReporterStats {
    tele.stats().reporters()[0].clone()
}

#[track_caller]
fn assert_complete(flushed: &Flush) {
    assert!(flushed.is_complete(), "{flushed}");
}

#[test]
fn inline_and_background_reporters_get_every_event_of_every_thread_exactly_once() {
    const THREADS: u64 = 8;
    const EACH: u64 = if cfg!(miri) { 60 } else { 6_000 };
    let (inline, behind) = (Ids::default(), Ids::default());
    let waiting = background(behind.clone()).on_full(OnFull::Wait(LONG));
    let tele = Telemetry::builder().reporter(inline.clone()).reporter(waiting).build();
    thread::scope(|threads| {
        for number in 0..THREADS {
            let tele = &tele;
            threads.spawn(move || {
                let _current = tele.override_current();
                for at in 0..EACH / 3 {
                    let id = (number * EACH) + at * 3;
                    let _outer = scope!("outer", id = id);
                    let _inner = scope!("inner", id = id + 1);
                    metric!("note", at, id = id + 2);
                }
            });
        }
    });
    assert_complete(&tele.flush(LONG));
    let all = (THREADS * EACH) as usize;
    assert_eq!(inline.distinct(), (all, true));
    assert_eq!(behind.distinct(), (all, true));
    let stats = tele.stats();
    assert_eq!((stats.timings(), stats.metrics()), (THREADS * EACH * 2 / 3, THREADS * EACH / 3));
    assert!(stats.reporters().iter().all(|it| it.delivered() == all as u64 && it.dropped().total() == 0), "{stats}");
}

/// Sends (calls of the scope `step`, sum of the counter `items`) of every snapshot.
struct Snapshots(Mutex<mpsc::Sender<(u64, Number)>>);

impl Reporter for Snapshots {
    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        let calls = snapshot.scopes().iter().find(|it| it.path() == "step").map_or(0, |it| it.calls());
        let sum = snapshot.series().iter().find(|it| it.path() == "items").map_or(Number::Integer(0), |it| it.sum());
        let _ = self.0.lock().unwrap().send((calls, sum));
        Ok(())
    }
}

#[test]
fn aggregates_come_at_each_flush_once_and_are_cumulative() {
    let (send, snapshots) = mpsc::channel();
    let tele = Telemetry::builder().interval(LONG * 60).reporter(background(Snapshots(Mutex::new(send)))).build();
    for round in 1..=3 {
        drop(tele.scope("step"));
        count!(tele, "items", 5);
        assert_complete(&tele.flush(LONG));
        assert_eq!(snapshots.try_iter().collect::<Vec<_>>(), [(round, Number::Integer(i128::from(round) * 5))]);
    }
}

#[test]
fn aggregates_come_at_the_interval_without_a_flush() {
    let (send, snapshots) = mpsc::channel();
    let interval = Duration::from_millis(1);
    let tele = Telemetry::builder().interval(interval).reporter(background(Snapshots(Mutex::new(send)))).build();
    drop(tele.scope("step"));
    count!(tele, "items", 5);
    let deadline = Instant::now() + LONG;
    // A snapshot may have been taken between the two lines above; a later one has both.
    while snapshots.recv_timeout(deadline - Instant::now()).expect("a snapshot") != (1, Number::Integer(5)) {}
}

#[test]
fn instruments_are_single_calls_inline_and_sums_behind() {
    type Calls = Arc<Mutex<Vec<(&'static str, f64, Option<MetricType>)>>>;
    #[derive(Clone, Default)]
    struct Calling(Calls);
    impl Reporter for Calling {
        fn record_metric(&self, event: &Metric<'_>) {
            let call = (event.scope(), event.value().as_f64().unwrap(), event.metric_type());
            self.0.lock().unwrap().push(call);
        }
        fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
            for it in snapshot.series() {
                let call = (it.path(), it.sum().as_f64(), Some(it.metric_type()));
                self.0.lock().unwrap().push(call);
            }
            Ok(())
        }
    }
    let (inline, behind) = (Calling::default(), Calling::default());
    let tele = Telemetry::builder().reporter(inline.clone()).reporter(background(behind.clone())).build();
    let _current = tele.override_current();
    {
        let _job = scope!("job");
        count!("items", 3);
        count!("items", 4);
        gauge!("level", 2.5);
        histogram!("size", 512);
        metric!("note", 7);
    }
    assert_complete(&tele.flush(LONG));
    let (counter, gauge, histogram) = (Some(MetricType::Counter), Some(MetricType::Gauge), Some(MetricType::Histogram));
    let expected = [
        ("job.items", 3.0, counter),
        ("job.items", 4.0, counter),
        ("job.level", 2.5, gauge),
        ("job.size", 512.0, histogram),
        ("job.note", 7.0, None),
    ];
    assert_eq!(*inline.0.lock().unwrap(), expected);
    let mut behind = behind.0.lock().unwrap().clone();
    behind.sort_by_key(|(path, ..)| *path);
    let sums = [("job.items", 7.0, counter), ("job.level", 2.5, gauge), ("job.note", 7.0, None)];
    assert_eq!(behind, [sums[0], sums[1], sums[2], ("job.size", 512.0, histogram)]);
    assert_eq!(tele.stats().emitted(), 2, "calls of aggregated instruments are no events of the accounts");
}

#[test]
fn a_flush_has_what_running_threads_closed_before_it() {
    let tally = Tally::default();
    let tele = Telemetry::builder().reporter(background(tally.clone())).build();
    thread::scope(|threads| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let ((go, orders), (done, answers)) = (mpsc::channel::<u64>(), mpsc::channel());
                let tele = &tele;
                threads.spawn(move || {
                    let _current = tele.override_current();
                    let _open = scope!("never_closed_in_here");
                    for scopes in orders {
                        (0..scopes).for_each(|_| drop(scope!("step")));
                        done.send(()).unwrap();
                    }
                });
                (go, answers)
            })
            .collect();
        let mut emitted = 0;
        for round in 1..=rounds(2_000) {
            let scopes = round % 97;
            workers.iter().for_each(|(go, _)| go.send(scopes).unwrap());
            workers.iter().for_each(|(_, answers)| answers.recv().unwrap());
            emitted += 4 * scopes;
            assert_complete(&tele.flush(LONG));
            assert_eq!(tally.now(), emitted, "round {round}");
        }
    });
}

/// Rounds of threads that close scopes and end; after each a flush, which must have everything.
fn flush_after_threads_that_end(run: fn(&Telemetry, u64)) {
    let tally = Tally::default();
    let tele = Telemetry::builder().reporter(background(tally.clone())).build();
    let is_over = AtomicBool::new(false);
    thread::scope(|threads| {
        // Others claim what is published all the time: ending threads, flushes and these must not step on each other.
        threads.spawn(|| {
            while !is_over.load(SeqCst) {
                let _ = (tele.stats(), tele.report(), tele.flush(Duration::ZERO));
            }
        });
        let mut emitted = 0;
        for round in 1..=rounds(1_500) {
            let scopes = round % 37 + 1;
            run(&tele, scopes);
            emitted += 4 * scopes;
            let flushed = tele.flush(LONG);
            let came = tally.now();
            is_over.store(came != emitted || !flushed.is_complete(), SeqCst);
            assert_complete(&flushed);
            assert_eq!(came, emitted, "round {round}");
        }
        is_over.store(true, SeqCst);
    });
    assert_accounted(&tele);
}

fn close(tele: &Telemetry, scopes: u64) {
    let _current = tele.override_current();
    (0..scopes).for_each(|_| drop(scope!("step")));
}

#[test]
fn a_flush_has_what_joined_threads_closed() {
    flush_after_threads_that_end(|tele, scopes| {
        let start = |_| {
            let tele = tele.clone();
            thread::spawn(move || close(&tele, scopes))
        };
        let threads: Vec<_> = (0..4).map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// The end of `thread::scope` does not wait for the destructors of thread-locals: the threads are still ending.
#[test]
fn a_flush_has_what_scoped_threads_closed_that_are_still_ending() {
    flush_after_threads_that_end(|tele, scopes| {
        thread::scope(|threads| (0..4).for_each(|_| drop(threads.spawn(|| close(tele, scopes)))));
    });
}

#[test]
fn a_flush_has_what_detached_threads_closed_that_are_still_ending() {
    flush_after_threads_that_end(|tele, scopes| {
        let (done, answers) = mpsc::channel();
        for _ in 0..4 {
            let (tele, done) = (tele.clone(), done.clone());
            thread::spawn(move || {
                close(&tele, scopes);
                done.send(()).unwrap();
            });
        }
        (0..4).for_each(|_| answers.recv().unwrap());
    });
}

#[test]
fn a_shutdown_flushes_and_is_final_and_can_be_repeated() {
    let tally = Tally::default();
    let tele = Telemetry::builder().reporter(background(tally.clone())).build();
    close(&tele, 10);
    for _ in 0..3 {
        assert_complete(&tele.shutdown(LONG));
        tele.set_enabled(true);
        assert!(!tele.is_enabled(), "nothing brings it back");
        close(&tele, 10);
        assert_complete(&tele.flush(LONG));
        assert_eq!((tally.now(), tele.stats().emitted()), (10, 10));
    }
}

#[test]
fn every_event_after_a_shutdown_is_counted_as_dropped() {
    let tele = Telemetry::builder().reporter(background(Tally::default())).build();
    let _current = tele.override_current();
    let emit: [(&str, &dyn Fn()); 5] = [
        ("metric!", &|| metric!("note", 1)),
        ("metric", &|| tele.metric("note", 1, &[])),
        ("scope!", &|| drop(scope!("step"))),
        ("scope! with a context", &|| drop(scope!(tele, "step"))),
        ("scope", &|| drop(tele.scope("step"))),
    ];
    emit.iter().for_each(|(_, emit)| emit());
    assert_complete(&tele.shutdown(LONG));
    let uncounted = emit.iter().filter(|(_, emit)| {
        let before = tele.stats().dropped().of(DropReason::Shutdown);
        emit();
        tele.stats().dropped().of(DropReason::Shutdown) != before + 1
    });
    assert_eq!(uncounted.map(|(what, _)| *what).collect::<Vec<_>>(), [""; 0]);
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn the_last_handle_does_not_wait_for_a_stuck_reporter_which_gets_everything_later() {
    let tally = Tally::default();
    let stuck = Stuck::then(tally.clone());
    let tele = Telemetry::builder().reporter(background(stuck.clone())).build();
    let current = tele.override_current();
    (0..5_000).for_each(|_| drop(scope!("step")));
    drop(current);
    let before = Instant::now();
    drop(tele);
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(tally.now(), 0);
    stuck.release();
    tally.wait_for(5_000);
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_full_queue_drops_and_counts_exactly() {
    const EVENTS: u64 = 50_000;
    let ids = Ids::default();
    let stuck = Stuck::then(ids.clone());
    let tele = Telemetry::builder().queue_bytes(256 << 10).reporter(background(stuck.clone())).build();
    let _current = tele.override_current();
    for id in 0..EVENTS {
        drop(scope!("step", id = id));
        if id % 9_999 == 0 {
            assert_accounted(&tele);
        }
    }
    let (stats, it) = (tele.stats(), only(&tele));
    assert_eq!(stats.emitted(), EVENTS);
    assert_eq!((it.delivered(), it.queued() + it.dropped().of(DropReason::QueueFull)), (0, EVENTS), "{stats}");
    assert!(it.queued() > 0 && it.dropped().total() > 0, "{stats}");
    stuck.release();
    assert_complete(&tele.flush(LONG));
    let after = only(&tele);
    assert_eq!((after.queued(), after.delivered() + after.dropped().total()), (0, EVENTS));
    assert_eq!(ids.distinct(), (after.delivered() as usize, true));
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_full_queue_makes_threads_wait_so_that_nothing_is_lost() {
    for threads in [1, 4] {
        let tally = Tally::default();
        let waiting = background(tally.clone()).on_full(OnFull::Wait(LONG));
        let tele = Telemetry::builder().queue_bytes(128 << 10).reporter(waiting).build();
        let run = || close(&tele, 100_000);
        thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(run))));
        assert_complete(&tele.flush(LONG));
        assert_eq!(only(&tele).dropped().total(), 0, "{threads} threads: {}", tele.stats());
        assert_eq!(tally.now(), threads * 100_000);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn waiting_for_a_stuck_reporter_ends_and_the_rest_is_counted() {
    let stuck = Stuck::then(Tally::default());
    let waiting = background(stuck.clone()).on_full(OnFull::Wait(Duration::from_millis(1)));
    let tele = Telemetry::builder().queue_bytes(64 << 10).reporter(waiting).build();
    close(&tele, 20_000);
    let it = only(&tele);
    assert_eq!((it.delivered(), it.queued() + it.dropped().of(DropReason::QueueFull)), (0, 20_000), "{it:?}");
    assert!(it.dropped().total() > 0);
    stuck.release();
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_recording_keeps_to_its_bound_and_says_what_it_left_out() {
    let recording = Recording::new(64 << 10);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    close(&tele, 20_000);
    assert_complete(&tele.flush(LONG));
    assert!(recording.bytes() <= 64 << 10 && !recording.is_empty(), "{recording:?}");
    assert_eq!(recording.len() + recording.dropped(), 20_000);
    let mut events = 0;
    recording.for_each_batch(|batch| events += batch.events().count() as u64);
    assert_eq!(events, recording.len());
    let it = only(&tele);
    assert_eq!((it.delivered(), it.dropped().of(DropReason::QueueFull)), (recording.len(), recording.dropped()));
    assert_accounted(&tele);
    recording.clear();
    assert!(recording.is_empty() && recording.bytes() == 0);
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_stuck_reporter_costs_its_neighbour_nothing() {
    let (quick, stuck) = (Tally::default(), Stuck::then(Tally::default()));
    let builder = Telemetry::builder().queue_bytes(4 << 20);
    let tele = builder.reporter(background(stuck.clone())).reporter(background(quick.clone())).build();
    for round in 1..=50 {
        close(&tele, 10_000);
        let flushed = tele.flush(Duration::from_millis(1));
        assert!(flushed.reporters()[0].pending > 0, "{flushed}");
        quick.wait_for(round * 10_000);
    }
    let stats = tele.stats();
    let [slow, fast] = stats.reporters() else { panic!("{stats}") };
    assert_eq!((slow.delivered(), slow.queued() + slow.dropped().of(DropReason::QueueFull)), (0, 500_000), "{stats}");
    assert_eq!((fast.delivered(), fast.dropped().total(), fast.queued()), (500_000, 0, 0), "{stats}");
    stuck.release();
    assert_complete(&tele.flush(LONG));
    assert_accounted(&tele);
}

#[test]
fn events_go_only_to_the_context_that_they_were_opened_on_whatever_surrounds_them() {
    let recordings = [Recording::new(1 << 20), Recording::new(1 << 20)];
    let build = |recording: &Recording| Telemetry::builder().reporter(recording.clone()).build();
    let [a, b] = recordings.each_ref().map(build);
    {
        let _outer = scope!(a, "outer");
        let _middle = scope!(b, "middle");
        let _inner = scope!(a, "inner");
    }
    let found = recordings.map(|recording| {
        [&a, &b].into_iter().for_each(|tele| assert_complete(&tele.flush(LONG)));
        let mut found = Vec::new();
        let mut keep = |it: Timing<'_>| found.push((it.scope(), it.depth(), it.span_id(), it.parent_span_id()));
        recording.for_each_batch(|batch| batch.timings().for_each(&mut keep));
        found
    });
    let [inner, outer] = &*found[0] else { panic!("{found:?}") };
    let [middle] = &*found[1] else { panic!("{found:?}") };
    assert_eq!((outer.0, outer.1, outer.3), ("outer", 0, None));
    assert_eq!((middle.0, middle.1, middle.3), ("outer.middle", 1, Some(outer.2)));
    assert_eq!((inner.0, inner.1, inner.3), ("outer.middle.inner", 2, Some(middle.2)));
}
