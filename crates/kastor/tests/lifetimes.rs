//! Things that end while something still leans on them: contexts, guards, threads, futures. Each of these once read freed
//! memory, lost an event or left something behind; under AddressSanitizer (`cargo xtask test --deep`) they show it.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use kastor::{
    Batch, DropReason, Error, FutureExt as _, OnFull, Override, Reporter, Scope, Telemetry, Timing, background, count,
    metric, scope,
};

/// A path and the error type.
type Closed = (String, Option<String>);

/// Notes the scopes that it hears of.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Closed>>>);

impl Heard {
    fn take(&self) -> Vec<Closed> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Reporter for Heard {
    fn record_timing(&self, event: &Timing<'_>) {
        let error = event.error_type().map(str::to_owned);
        self.0.lock().unwrap().push((event.scope().to_owned(), error));
    }
}

fn heard(scopes: &[(&str, Option<&str>)]) -> Vec<Closed> {
    scopes.iter().map(|(scope, error)| ((*scope).to_owned(), error.map(str::to_owned))).collect()
}

fn another_context() {
    let other = Telemetry::builder().build();
    drop(other.scope("elsewhere"));
    assert_eq!(other.report().scope("elsewhere").unwrap().calls(), 1);
}

thread_local! {
    static HELD: RefCell<Option<(Override, Telemetry)>> = const { RefCell::new(None) };
}

/// Ends the context that is being recorded into while it is printed, and uses another one.
struct Ending;

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HELD.with(|held| drop(held.borrow_mut().take()));
        another_context();
        f.write_str("ended")
    }
}

#[test]
fn a_value_that_ends_the_context_while_it_is_printed_harms_nothing() {
    let heard_of = Heard::default();
    for record in [|| drop(scope!("ending", value = %Ending)), || count!("ending_count", 1, value = %Ending)] {
        let tele = Telemetry::builder().reporter(heard_of.clone()).build();
        let current = tele.override_current();
        HELD.with(|held| *held.borrow_mut() = Some((current, tele)));
        record();
        assert!(HELD.with(|held| held.borrow().is_none()));
    }
    // The context ended before the scope was open.
    assert!(heard_of.take().iter().all(|(scope, _)| scope == "ending"));
}

static LAST_HANDLE: Mutex<Option<Telemetry>> = Mutex::new(None);

/// Ends its own context from within.
struct EndsItself(Arc<AtomicU64>, String);

impl Reporter for EndsItself {
    fn record_timing(&self, event: &Timing<'_>) {
        drop(LAST_HANDLE.lock().unwrap().take());
        another_context();
        // Still there, and the event too.
        self.0.fetch_add((self.1.len() + event.scope().len()) as u64, SeqCst);
    }
}

#[test]
fn a_reporter_that_drops_the_last_handle_of_its_context_is_served_to_the_end() {
    let served = Arc::new(AtomicU64::new(0));
    let tele = Telemetry::builder().reporter(EndsItself(Arc::clone(&served), "abc".to_owned())).build();
    let scope = tele.scope("last");
    *LAST_HANDLE.lock().unwrap() = Some(tele);
    drop(scope);
    assert_eq!(served.load(SeqCst), 7);
}

/// Opens a scope and records metrics when its thread ends.
struct AtTheEnd(Option<Override>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        drop(scope!("at_the_end"));
        count!("at_the_end_count");
        metric!("at_the_end_metric", 1);
        drop(self.0.take());
    }
}

thread_local! {
    static AT_THE_END: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
}

#[test]
fn overrides_that_outlive_their_thread_s_list_are_not_looked_at_any_more() {
    let tele = Telemetry::builder().build();
    for leaks in [true, false] {
        let tele = tele.clone();
        let used = move || {
            // Made first, so that it is dropped last.
            AT_THE_END.with(|_| {});
            let current = tele.override_current();
            drop(scope!("in_time"));
            let kept = if leaks {
                std::mem::forget(current);
                None
            } else {
                Some(current)
            };
            AT_THE_END.with(|end| *end.borrow_mut() = Some(AtTheEnd(kept)));
        };
        thread::spawn(used).join().unwrap();
    }
    assert_eq!(tele.report().scope("in_time").unwrap().calls(), 2);
}

/// An inline reporter that emits while the thread's unfinished scopes are reported.
struct Emits(Telemetry, Heard);

impl Reporter for Emits {
    fn record_timing(&self, event: &Timing<'_>) {
        let _current = self.0.override_current();
        metric!("from_a_reporter", 1);
        self.1.record_timing(event);
    }
}

#[test]
fn what_a_thread_emits_after_its_end_finds_no_lane() {
    let (heard_of, inner) = (Heard::default(), Telemetry::builder().build());
    let tele = Telemetry::builder().reporter(Emits(inner, heard_of.clone())).build();
    let it = tele.clone();
    let used = move || {
        AT_THE_END.with(|end| *end.borrow_mut() = Some(AtTheEnd(None)));
        std::mem::forget(it.scope("open"));
    };
    thread::spawn(used).join().unwrap();
    assert_eq!(heard_of.take(), heard(&[("open", Some("unfinished"))]));
}

thread_local! {
    static KEPT: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

#[test]
fn a_scope_with_attributes_that_is_kept_beyond_its_thread_ends_with_it() {
    let heard_of = Heard::default();
    let tele = Telemetry::builder().reporter(heard_of.clone()).build();
    let it = tele.clone();
    let used = move || {
        // Made first, so that it is dropped last.
        KEPT.with(|_| {});
        let scope = it.scope("kept");
        scope.set("key", "value");
        KEPT.with(|kept| *kept.borrow_mut() = Some(scope));
    };
    thread::spawn(used).join().unwrap();
    assert_eq!(heard_of.take(), heard(&[("kept", Some("unfinished"))]));
}

struct PanicsAtItsEnd;

impl Drop for PanicsAtItsEnd {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

struct Done(#[allow(dead_code, reason = "it is there to be dropped")] PanicsAtItsEnd);

impl Future for Done {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = Box::pin(future);
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_future_whose_destructor_panics_closes_its_scope_all_the_same() {
    let heard_of = Heard::default();
    let tele = Telemetry::builder().reporter(heard_of.clone()).build();
    let scope = tele.scope("task");
    let future = Done(PanicsAtItsEnd).in_scope(scope);
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(future).is_ready())).is_err());
    assert_eq!(heard_of.take(), heard(&[("task", Some("panic"))]));
    assert!(tele.open_scopes().iter().all(|open| open.scope() != "task"));
}

#[test]
fn a_scope_that_outlives_its_future_closes_when_it_is_dropped_and_leaves_nothing() {
    let tele = Telemetry::builder().build();
    let _current = tele.override_current();
    const TIMES: u64 = if cfg!(miri) { 30 } else { 10_000 };
    for _ in 0..TIMES {
        let Poll::Ready(inner) = poll_once(async { scope!("inner") }.in_scope(scope!("outer"))) else {
            panic!("ready at once")
        };
        let inner: Scope = inner;
        drop(scope!("beside"));
        drop(inner);
    }
    drop(scope!("after"));
    let calls = |path: &str| tele.report().scope(path).map(|scope| scope.calls());
    assert_eq!(
        [calls("outer"), calls("outer.inner"), calls("beside"), calls("after")],
        [Some(TIMES), Some(TIMES), Some(TIMES), Some(1)]
    );
}

/// Emits into another context when it is dropped, and says that it came to its end.
struct EmitsAtItsEnd(Arc<AtomicU64>);

impl Reporter for EmitsAtItsEnd {}

impl Drop for EmitsAtItsEnd {
    fn drop(&mut self) {
        another_context();
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_reporter_whose_destructor_emits_comes_to_its_end() {
    let ended = Arc::new(AtomicU64::new(0));
    let it = Arc::clone(&ended);
    // The thread's lane is the last to let go of the context.
    let used = move || {
        let tele = Telemetry::builder().reporter(EmitsAtItsEnd(it)).build();
        drop(tele.scope("first"));
        drop(tele);
        another_context();
    };
    thread::spawn(used).join().unwrap();
    assert_eq!(ended.load(SeqCst), 1);
}

#[test]
fn a_leaked_scope_of_a_context_that_is_off_makes_no_event() {
    let heard_of = Heard::default();
    for ends in [|tele: &Telemetry| tele.set_enabled(false), |tele: &Telemetry| drop(tele.shutdown(Duration::ZERO))] {
        let tele = Telemetry::builder().reporter(heard_of.clone()).build();
        let it = tele.clone();
        let used = move || {
            std::mem::forget(it.scope("open"));
            ends(&it);
        };
        thread::spawn(used).join().unwrap();
        assert_eq!((heard_of.take(), tele.stats().emitted()), (Vec::new(), 0));
        assert!(tele.stats().dropped().of(DropReason::Shutdown) <= 1);
    }
}

/// Counts, and takes its time.
struct Slow(Arc<AtomicU64>);

impl Reporter for Slow {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        thread::sleep(Duration::from_millis(20));
        self.0.fetch_add(batch.len(), SeqCst);
        Ok(())
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn the_last_events_of_a_context_arrive_where_reporters_are_waited_for() {
    let delivered = Arc::new(AtomicU64::new(0));
    let patient = background(Slow(Arc::clone(&delivered))).on_full(OnFull::Wait(Duration::from_secs(30)));
    let tele = Telemetry::builder().reporter(patient).queue_bytes(100 << 10).build();
    (0..5_500).for_each(|_| drop(tele.scope("step")));
    drop(tele);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while delivered.load(SeqCst) < 5_500 && std::time::Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!(delivered.load(SeqCst), 5_500);
}
