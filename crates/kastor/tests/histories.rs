//! R10: random histories of everything that can be done to scopes on a thread, right or wrong, against a model of a few
//! lines that says what is current, what each event must look like, and how many there are.
//!
//! 100,000 operations by default, 1,000,000 with `KASTOR_DEEP=1`. A failure names the seed of its history.

use std::{
    cell::{Cell, RefCell},
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    thread,
    time::Duration,
};

use kastor::{Attached, Carrier, FutureExt, Override, Recording, Reporter, Scope, Telemetry, Timing, metric, scope};

const OPERATIONS: usize = if cfg!(miri) { 60 } else { 1000 };
/// Deeper than this nothing is opened: the number of different paths is to stay small.
const MOST_LEVELS: u32 = 7;

/// What an event must look like: path, depth, error, trace, own and parent's id.
type Expected = (String, u32, Option<&'static str>, u128, u64, Option<u64>);

fn event(it: &Timing<'_>) -> Expected {
    let error = it.error_type().map(|error| match error {
        "panic" => "panic",
        "cancelled" => "cancelled",
        "unfinished" => "unfinished",
        "mine" => "mine",
        other => panic!("{other}"),
    });
    let parent = it.parent_scope().map_or(String::new(), |parent| format!("{parent}."));
    assert_eq!(it.scope(), format!("{parent}{}", it.name()));
    (it.scope().to_owned(), it.depth(), error, it.trace_id(), it.span_id(), it.parent_span_id())
}

#[derive(Clone, Default)]
struct Inline(Arc<Mutex<Vec<Expected>>>);

impl Reporter for Inline {
    fn record_timing(&self, it: &Timing<'_>) {
        self.0.lock().unwrap().push(event(it));
    }
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// A place under which scopes are opened.
#[derive(Clone)]
struct Place {
    path: String,
    levels: u32,
    carrier: Carrier,
}

const NOWHERE: Place = Place { path: String::new(), levels: 0, carrier: Carrier::NONE };

/// An open scope as the model knows it: its handle, unless it was leaked, and whose it is.
struct Open {
    handle: Option<Scope>,
    context: usize,
    place: Place,
    depth: u32,
    parent: Option<u64>,
    error: Option<&'static str>,
    serial: usize,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    scope: Open,
    /// What it holds across its await.
    held: Option<Open>,
    opened: Rc<Cell<Carrier>>,
}

struct History<'a> {
    contexts: &'a [Telemetry; 2],
    random: Random,
    any_order: bool,
    is_on: [bool; 2],
    is_quiet: bool,
    overrides: Vec<(Override, Option<usize>)>,
    /// Everything that is open or attached, by serial number, the outermost first. Whatever ends first, the last that is
    /// left is current.
    chain: Vec<(usize, Place)>,
    guards: Vec<(usize, Attached)>,
    open: Vec<Open>,
    tasks: Vec<Task>,
    serial: usize,
    expected: [Vec<Expected>; 2],
    carriers: &'a RefCell<Vec<Place>>,
    log: Vec<String>,
}

impl History<'_> {
    fn current(&self) -> Place {
        self.chain.last().map_or(NOWHERE, |it| it.1.clone())
    }

    fn close_in_model(&mut self, open: &Open, error: Option<&'static str>, is_discarded: bool) {
        self.chain.retain(|it| it.0 != open.serial);
        if self.is_on[open.context] && !is_discarded {
            let Place { path, carrier, .. } = &open.place;
            let ids = (carrier.trace_id(), carrier.span_id());
            let event = (path.clone(), open.depth, error.or(open.error), ids.0, ids.1, open.parent);
            self.expected[open.context].push(event);
        }
    }

    /// What the model expects of a scope that was just opened under `parent`.
    fn opened(&mut self, parent: &Place, name: &str, context: usize, carrier: Carrier) -> Open {
        let dot = if parent.path.is_empty() { "" } else { "." };
        let place = Place { path: format!("{}{dot}{name}", parent.path), levels: parent.levels + 1, carrier };
        assert_ne!(carrier.span_id(), parent.carrier.span_id());
        if parent.carrier.is_some() {
            assert_eq!(carrier.trace_id(), parent.carrier.trace_id());
        }
        let parent_span = parent.carrier.is_some().then(|| parent.carrier.span_id());
        self.serial += 1;
        let (depth, serial) = (parent.levels, self.serial);
        Open { handle: None, context, place, depth, parent: parent_span, error: None, serial }
    }

    fn open(&mut self) {
        let parent = self.current();
        if parent.levels >= MOST_LEVELS {
            return self.close();
        }
        let context = self.random.below(2);
        let current = self.overrides.last().and_then(|it| it.1);
        let tele = &self.contexts[context];
        let (name, context, handle) = match self.random.below(12) {
            0 => ("quiet", Some(context), tele.scope("quiet")),
            1 => ("quiet", current, scope!("quiet")),
            2 | 3 => ("a", Some(context), tele.scope("a")),
            4 => ("b", Some(context), scope!(tele, "b")),
            5 => ("b", Some(context), scope!(tele, "b", n = 1, text = "text")),
            6 | 7 => ("a", current, scope!("a")),
            8 | 9 => ("b", current, scope!("b")),
            _ => ("a", current, scope!("a", n = 1, text = %"shown")),
        };
        let is_on = context.is_some_and(|it| self.is_on[it] && !(it == 0 && name == "quiet" && self.is_quiet));
        self.log.push(format!("open {name} in {context:?}, under {:?}", parent.path));
        assert_eq!(handle.is_recording(), is_on);
        if let (Some(context), true) = (context, is_on) {
            let mut open = self.opened(&parent, name, context, handle.carrier());
            open.handle = Some(handle);
            self.chain.push((open.serial, open.place.clone()));
            self.open.push(open);
        }
    }

    fn take_open(&mut self) -> Option<Open> {
        // Those that were leaked stand in front.
        let leaked = self.open.iter().filter(|it| it.handle.is_none()).count();
        let left = self.open.len() - leaked;
        // The newest more often than not, so that some of it is in order.
        let at = if self.random.below(3) == 0 { self.random.below(left.max(1)) } else { left.saturating_sub(1) };
        (left > 0).then(|| self.open.remove(leaked + at))
    }

    fn close(&mut self) {
        let Some(mut open) = self.take_open() else { return };
        self.log.push(format!("close {}", open.place.path));
        drop(open.handle.take());
        self.close_in_model(&open, None, false);
    }

    fn unwind(&mut self) {
        let count = 1 + self.random.below(3);
        let mut passed: Vec<Open> = (0..count).filter_map(|_| self.take_open()).collect();
        // What the program says and what the panic says would compete; that is not of interest here.
        if let Some(at) = passed.iter().position(|it| it.error.is_some()) {
            let leaked = self.open.iter().filter(|it| it.handle.is_none()).count();
            self.open.extend(passed.drain(at..));
            self.open[leaked..].sort_by_key(|it| it.serial);
        }
        self.log.push(format!("unwind {:?}", passed.iter().map(|it| &it.place.path).collect::<Vec<_>>()));
        let handles: Vec<Scope> = passed.iter_mut().filter_map(|it| it.handle.take()).collect();
        let payload = catch_unwind(AssertUnwindSafe(move || {
            let _handles = handles;
            resume_unwind(Box::new(41))
        }));
        assert_eq!(payload.unwrap_err().downcast_ref(), Some(&41));
        passed.iter().for_each(|open| self.close_in_model(open, Some("panic"), false));
    }

    fn attach(&mut self) {
        let mut under = match self.random.below(4) {
            0 => NOWHERE,
            1 => self.current(),
            _ => {
                let known = self.carriers.borrow();
                known.get(self.random.below(known.len().max(1))).cloned().unwrap_or(NOWHERE)
            }
        };
        if let (0, Some(parent)) = (self.random.below(5), under.carrier.trace_parent()) {
            under = Place { carrier: Carrier::from_trace_parent(&parent), ..NOWHERE };
        }
        self.log.push(format!("attach {under:?}", under = under.carrier));
        self.serial += 1;
        self.guards.push((self.serial, under.carrier.attach()));
        self.chain.push((self.serial, under));
    }

    fn detach(&mut self) {
        if let Some(newest) = self.guards.len().checked_sub(1) {
            let at = if self.any_order { self.random.below(newest + 1) } else { newest };
            self.log.push(format!("detach {at} of {newest}"));
            let (serial, guard) = self.guards.remove(at);
            drop(guard);
            self.chain.retain(|it| it.0 != serial);
        }
    }

    fn begin_task(&mut self) {
        let parent = self.current();
        if !self.is_on[1] || parent.levels >= MOST_LEVELS || self.tasks.len() > 8 {
            return;
        }
        let scope = self.contexts[1].scope("a");
        let opened = Rc::new(Cell::new(Carrier::NONE));
        let (tele, out) = (self.contexts[1].clone(), Rc::clone(&opened));
        let turns = self.random.below(4);
        let work = async move {
            for _ in 0..turns {
                let held = tele.scope("b");
                out.set(held.carrier());
                let mut is_first = true;
                std::future::poll_fn(|_| match mem::take(&mut is_first) {
                    true => std::task::Poll::Pending,
                    false => std::task::Poll::Ready(()),
                })
                .await;
            }
        };
        let open = self.opened(&parent, "a", 1, scope.carrier());
        self.log.push(format!("begin {} of {turns} turns", open.place.path));
        self.tasks.push(Task { future: Box::pin(work.in_scope(scope)), scope: open, held: None, opened });
    }

    fn poll_task(&mut self, is_dropped: bool) {
        if self.tasks.is_empty() {
            return;
        }
        let at = self.random.below(self.tasks.len());
        let mut task = self.tasks.remove(at);
        self.log.push(format!("poll {}, dropped: {is_dropped}", task.scope.place.path));
        let was_on = self.is_on[1];
        let is_pending = !is_dropped && task.future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        if let Some(held) = task.held.take() {
            self.close_in_model(&held, None, false);
        }
        if is_pending {
            if was_on {
                let under = task.scope.place.clone();
                task.held = Some(self.opened(&under, "b", 1, task.opened.get()));
            }
            self.tasks.push(task);
        } else {
            drop(task.future);
            self.close_in_model(&task.scope, is_dropped.then_some("cancelled"), false);
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..34 => self.open(),
            34..60 => self.close(),
            60..62 => self.unwind(),
            62 => {
                if let Some(mut open) = self.take_open() {
                    self.log.push(format!("discard {}", open.place.path));
                    open.handle.take().unwrap().discard();
                    self.close_in_model(&open, None, true);
                }
            }
            63 => {
                let leaked = self.open.iter().filter(|it| it.handle.is_none()).count();
                if let Some(mut open) = self.take_open() {
                    let is_leaked = leaked < 2 && open.context == 1 && open.place.levels < 4;
                    self.log.push(format!("leak {}: {is_leaked}", open.place.path));
                    if is_leaked {
                        mem::forget(open.handle.take());
                        self.open.insert(0, open);
                    } else {
                        drop(open.handle.take());
                        self.close_in_model(&open, None, false);
                    }
                }
            }
            64..68 => {
                if let Some(open) = self.open.last_mut().filter(|it| it.handle.is_some()) {
                    open.handle.as_ref().unwrap().fail("mine");
                    open.handle.as_ref().unwrap().set("late", 1);
                    open.error = Some("mine");
                }
            }
            68..72 => self.attach(),
            72..76 => self.detach(),
            76..79 => {
                let at = self.random.below(3);
                let guard = self.contexts.get(at).cloned().unwrap_or(Telemetry::disabled()).override_current();
                self.overrides.push((guard, (at < 2).then_some(at)));
            }
            79..82 if self.overrides.len() > 1 => {
                let at = self.random.below(self.overrides.len());
                drop(self.overrides.remove(at));
            }
            82..84 => {
                let (at, is_on) = (self.random.below(2), self.random.below(4) > 0);
                self.log.push(format!("switch {at} {is_on}"));
                self.contexts[at].set_enabled(is_on);
                self.is_on[at] = is_on;
            }
            84 => {
                self.is_quiet = self.random.below(2) == 0;
                self.contexts[0].switch_scopes("quiet", !self.is_quiet);
            }
            85..88 => self.carriers.borrow_mut().push(self.current()),
            88..90 => self.begin_task(),
            90..95 => self.poll_task(false),
            95 => self.poll_task(true),
            96 => metric!(self.contexts[0], "note", 1),
            _ => {
                if let Some(open) = self.open.last().and_then(|it| it.handle.as_ref()) {
                    open.event("event");
                    open.set("late", "text");
                }
            }
        }
        let (found, expected) = (Carrier::current(), self.current());
        let ids = |it: &Carrier| (it.trace_id(), it.span_id());
        assert_eq!(ids(&found), ids(&expected.carrier), "the current scope is {:?}", expected.path);
    }

    fn finish(&mut self) {
        (0..2).for_each(|at| self.contexts[at].set_enabled(true));
        self.is_on = [true; 2];
        while !self.tasks.is_empty() {
            self.poll_task(true);
        }
        self.open.sort_by_key(|it| it.handle.is_some());
        while self.open.last().is_some_and(|it| it.handle.is_some()) || !self.guards.is_empty() {
            match self.random.below(3) {
                0 => self.detach(),
                _ if self.open.last().is_some_and(|it| it.handle.is_some()) => {
                    let mut open = self.open.pop().unwrap();
                    drop(open.handle.take());
                    self.close_in_model(&open, None, false);
                }
                _ => {}
            }
        }
        // What is left was leaked.
        for open in mem::take(&mut self.open) {
            self.close_in_model(&open, Some("unfinished"), false);
        }
        self.overrides.clear();
    }
}

/// One history on a thread of its own; what it made each context expect.
fn live(contexts: &[Telemetry; 2], seed: u64, any_order: bool, carriers: &mut Vec<Place>) -> [Vec<Expected>; 2] {
    let shared = RefCell::new(mem::take(carriers));
    let mut history = History {
        contexts,
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        any_order,
        is_on: [true; 2],
        is_quiet: false,
        overrides: Vec::new(),
        chain: Vec::new(),
        guards: Vec::new(),
        open: Vec::new(),
        tasks: Vec::new(),
        serial: 0,
        expected: [Vec::new(), Vec::new()],
        carriers: &shared,
        log: Vec::new(),
    };
    contexts[0].switch_scopes("quiet", true);
    if seed % 2 == 1 {
        // In the other half of the histories a context is new to the thread at some point.
        contexts.iter().for_each(|tele| tele.scope("a").discard());
    }
    history.overrides.push((contexts[0].override_current(), Some(0)));
    let result = catch_unwind(AssertUnwindSafe(|| {
        (0..OPERATIONS).for_each(|_| history.step());
        history.finish();
    }));
    if let Err(panic) = result {
        let log = &history.log[history.log.len().saturating_sub(30)..];
        eprintln!("history of seed {seed}, guards in any order: {any_order}, ends with\n{}", log.join("\n"));
        mem::forget(history);
        resume_unwind(panic);
    }
    let expected = mem::take(&mut history.expected);
    drop(history);
    *carriers = shared.into_inner();
    let keep = carriers.len().saturating_sub(50);
    carriers.drain(..keep);
    expected
}

fn same(seed: u64, found: &[Expected], expected: &[Expected]) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "event {at} of the history of seed {seed}");
    }
    assert_eq!(found.len(), expected.len(), "events of the history of seed {seed}");
}

fn histories(any_order: bool) {
    let deep = std::env::var_os("KASTOR_DEEP").is_some_and(|it| it == "1");
    let inline = Inline::default();
    let recording = Recording::new(64 << 20);
    let contexts = [
        Telemetry::builder().reporter(inline.clone()).build(),
        Telemetry::builder().reporter(recording.clone()).build(),
    ];
    let carriers = Arc::new(Mutex::new(Vec::new()));
    let mut events = [0, 0];
    let seeds = if cfg!(miri) { 3 } else { 50 };
    for seed in 1..=(if deep { 500 } else { seeds }) {
        let (there, pool) = (contexts.clone(), Arc::clone(&carriers));
        let thread = thread::spawn(move || live(&there, seed, any_order, &mut pool.lock().unwrap()));
        let [first, mut second] = thread.join().unwrap_or_else(|_| panic!("seed {seed}, see above"));
        same(seed, &mem::take(&mut *inline.0.lock().unwrap()), &first);
        assert!(contexts[1].flush(Duration::from_secs(30)).is_complete());
        let mut recorded = Vec::new();
        recording.for_each_batch(|batch| recorded.extend(batch.timings().map(|it| event(&it))));
        recording.clear();
        // The leaked ones close together, in no order.
        for events in [&mut recorded, &mut second] {
            let leaked = events.iter().position(|it| it.2 == Some("unfinished")).unwrap_or(events.len());
            events[leaked..].sort();
        }
        same(seed, &recorded, &second);
        (events[0], events[1]) = (events[0] + first.len() as u64, events[1] + second.len() as u64);
    }
    for (tele, events) in contexts.iter().zip(events) {
        assert!(events > seeds);
        assert_eq!(tele.stats().timings(), events);
        assert_eq!(tele.report().scopes().iter().map(|it| it.calls()).sum::<u64>(), events);
    }
}

#[test]
fn whatever_is_done_to_scopes_every_event_has_its_path_its_parent_and_its_place_in_the_order() {
    histories(false);
}

#[test]
fn the_same_holds_with_guards_that_go_in_any_order() {
    histories(true);
}
