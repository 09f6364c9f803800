//! The border for language faces: names and paths as numbers, scopes as values that any thread may close, and which of
//! them is current.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use kastor::{
    Carrier, DropReason, Metric, MockClock, OwnedValue, Recording, Reporter, Telemetry, Timing, TraceParent, Value,
    metric,
    raw::{self, Frame, Outcome},
    scope,
};

const LONG: Duration = Duration::from_secs(if cfg!(miri) { 1000 } else { 60 });
const START: u64 = 1_000_000_000;
const AHEAD: u64 = 1_000_000_000_000_000_000 - START;

type Keys = Vec<(String, OwnedValue)>;

#[derive(Clone, Debug, PartialEq)]
struct Closed {
    scope: String,
    parent_scope: Option<String>,
    depth: u32,
    trace: u128,
    span: u64,
    parent: Option<u64>,
    start: u64,
    duration: u64,
    thread: u32,
    is_sampled: bool,
    outcome: kastor::Outcome,
    error: Option<String>,
    attributes: Keys,
    events: Vec<(String, u64, Keys)>,
    links: Vec<(u128, u64)>,
    dropped: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Noted {
    scope: String,
    parent_scope: Option<String>,
    depth: u32,
    trace: Option<u128>,
    parent: Option<u64>,
    time: u64,
    value: OwnedValue,
    attributes: Keys,
}

fn keys(attributes: kastor::Attributes<'_>) -> Keys {
    attributes.map(|(key, value)| (key.to_owned(), OwnedValue::from(value))).collect()
}

impl Closed {
    fn of(timing: &Timing<'_>) -> Self {
        Self {
            scope: timing.scope().to_owned(),
            parent_scope: timing.parent_scope().map(str::to_owned),
            depth: timing.depth(),
            trace: timing.trace_id(),
            span: timing.span_id(),
            parent: timing.parent_span_id(),
            start: timing.start_monotonic_ns(),
            duration: timing.duration_ns(),
            thread: timing.thread().index(),
            is_sampled: timing.is_sampled(),
            outcome: timing.outcome(),
            error: timing.error_type().map(str::to_owned),
            attributes: keys(timing.attributes()),
            events: timing.events().map(|it| (it.name().to_owned(), it.unix_ns(), keys(it.attributes()))).collect(),
            links: timing.links().map(|it| (it.trace_id, it.span_id)).collect(),
            dropped: timing.dropped_items(),
        }
    }
}

impl Noted {
    fn of(metric: &Metric<'_>) -> Self {
        Self {
            scope: metric.scope().to_owned(),
            parent_scope: metric.parent_scope().map(str::to_owned),
            depth: metric.depth(),
            trace: metric.trace_id(),
            parent: metric.parent_span_id(),
            time: metric.monotonic_ns(),
            value: OwnedValue::from(metric.value()),
            attributes: keys(metric.attributes()),
        }
    }
}

/// Keeps what it gets inline.
#[derive(Clone, Default)]
struct Inline(Arc<Mutex<(Vec<Closed>, Vec<Noted>)>>);

impl Reporter for Inline {
    fn record_timing(&self, event: &Timing<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(Closed::of(event));
    }
    fn record_metric(&self, event: &Metric<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(Noted::of(event));
    }
}

struct Program {
    clock: MockClock,
    tele: Telemetry,
    inline: Inline,
    recording: Recording,
}

impl Program {
    fn new() -> Self {
        let (clock, inline, recording) = (MockClock::new(), Inline::default(), Recording::new(1 << 24));
        let builder = Telemetry::builder().clock(clock.clone()).reporter(inline.clone());
        Self { tele: builder.reporter(recording.clone()).build(), clock, inline, recording }
    }

    fn advance(&self, ns: u64) {
        self.clock.advance(Duration::from_nanos(ns));
    }

    #[track_caller]
    fn open(&self, parent: Option<&Frame>, name: &str) -> Frame {
        raw::open(&self.tele, parent, below(parent, name)).unwrap()
    }

    fn close(&self, frame: &Frame) {
        raw::close(&self.tele, frame, Outcome::Completed, |_| {});
    }

    /// What inline reporters got; a reporter of batches got the same, thread by thread.
    #[track_caller]
    fn events(&self) -> (Vec<Closed>, Vec<Noted>) {
        assert!(self.tele.flush(LONG).is_complete());
        let (mut timings, mut metrics) = (Vec::new(), Vec::new());
        self.recording.for_each_batch(|batch| {
            timings.extend(batch.timings().map(|it| Closed::of(&it)));
            metrics.extend(batch.metrics().map(|it| Noted::of(&it)));
        });
        let (inline_timings, inline_metrics) = self.inline.0.lock().unwrap().clone();
        for timing in &inline_timings {
            let count = |all: &[Closed]| all.iter().filter(|it| *it == timing).count();
            assert_eq!(count(&timings), count(&inline_timings), "{timing:?}");
        }
        assert_eq!(timings.len(), inline_timings.len());
        assert_eq!(metrics, inline_metrics);
        let stats = self.tele.stats();
        assert_eq!(stats.emitted(), (timings.len() + metrics.len()) as u64);
        assert_eq!(stats.dropped().total(), 0);
        (inline_timings, inline_metrics)
    }

    #[track_caller]
    fn timings<const N: usize>(&self) -> [Closed; N] {
        let (timings, metrics) = self.events();
        assert_eq!(metrics, []);
        timings.try_into().unwrap()
    }

    #[track_caller]
    fn assert_nothing(&self) {
        assert_eq!(self.events(), (vec![], vec![]));
        assert_eq!(self.tele.report().scopes().len(), 0);
    }
}

/// The path of `name` under a frame.
fn below(parent: Option<&Frame>, name: &str) -> raw::Path {
    raw::path(parent.map(Frame::path), raw::name(name))
}

fn text(text: &str) -> OwnedValue {
    OwnedValue::Text(text.to_owned().into())
}

fn attribute(key: &str, value: OwnedValue) -> (String, OwnedValue) {
    (key.to_owned(), value)
}

#[test]
fn equal_names_and_paths_are_equal_numbers_on_every_thread() {
    let (a, b) = (raw::name("raw.a"), raw::name("raw.b"));
    assert_eq!(a, raw::name(&String::from("raw.a")));
    assert_ne!(a, b);
    assert_eq!((a.text(), b.text()), ("raw.a", "raw.b"));
    let root = raw::path(None, a);
    let child = raw::path(Some(root), b);
    assert_eq!((root, child), (raw::path(None, a), raw::path(Some(root), b)));
    assert_ne!(child, raw::path(None, b));
    assert_ne!(child, raw::path(Some(raw::path(None, b)), a));
    assert_eq!((root.text(), child.text()), ("raw.a", "raw.a.raw.b"));
    assert_eq!((root.levels(), child.levels()), (1, 2));
    assert_eq!((root.parent(), child.parent()), (None, Some(root)));
    assert_eq!((root.name(), child.name()), (a, b));
    let elsewhere = thread::spawn(|| {
        let root = raw::path(None, raw::name("raw.a"));
        (raw::name("raw.a"), root, raw::path(Some(root), raw::name("raw.b")))
    });
    assert_eq!(elsewhere.join().unwrap(), (a, root, child));
}

#[test]
fn threads_that_intern_the_same_at_once_get_the_same_numbers() {
    const NAMES: usize = if cfg!(miri) { 10 } else { 500 };
    let intern = || -> Vec<(raw::Name, raw::Path)> {
        let root = raw::path(None, raw::name("raw.race"));
        let names = (0..NAMES).map(|number| raw::name(&format!("raw.race_{number}")));
        names.map(|name| (name, raw::path(Some(root), name))).collect()
    };
    let all: Vec<_> = thread::scope(|threads| {
        let started: Vec<_> = (0..4).map(|_| threads.spawn(intern)).collect();
        started.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(all.windows(2).all(|two| two[0] == two[1]));
    let mut paths: Vec<_> = all[0].iter().map(|it| it.1).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), NAMES);
}

#[test]
fn a_name_is_cut_at_256_bytes() {
    let _one_at_a_time = CUTTING.lock().unwrap_or_else(PoisonError::into_inner);
    let long = "ä".repeat(200);
    assert_eq!(raw::name(&long).text(), "ä".repeat(128));
    assert_eq!(raw::name(&long), raw::name(&"ä".repeat(128)));
}

#[test]
fn the_path_of_a_frame_is_the_one_of_a_scope_with_the_same_names() {
    let program = Program::new();
    let outer = program.open(None, "raw.same");
    let inner = program.open(Some(&outer), "inner");
    program.close(&inner);
    program.close(&outer);
    {
        let _outer = scope!(program.tele, "raw.same");
        let _inner = scope!(program.tele, "inner");
    }
    assert_eq!(program.timings::<4>().map(|it| it.scope), ["raw.same.inner", "raw.same", "raw.same.inner", "raw.same"]);
    let report = program.tele.report();
    let calls = ["raw.same", "raw.same.inner"].map(|path| report.scope(path).map(|it| it.calls()));
    assert_eq!(calls, [Some(2), Some(2)]);
}

#[test]
fn frames_have_path_depth_start_and_ids_of_their_place() {
    let program = Program::new();
    let root = program.open(None, "raw.root");
    program.advance(10);
    let child = program.open(Some(&root), "child");
    program.advance(10);
    let grandchild = program.open(Some(&child), "grandchild");
    let frames = [root, child, grandchild];
    assert_eq!(frames.map(|it| it.path().text()), ["raw.root", "raw.root.child", "raw.root.child.grandchild"]);
    assert_eq!(frames.map(|it| it.depth()), [0, 1, 2]);
    assert_eq!(frames.map(|it| it.start()), [START, START + 10, START + 20]);
    let carriers = frames.map(|it| it.carrier());
    assert!(carriers.iter().all(|it| it.is_some() && it.is_sampled() && it.trace_id() == carriers[0].trace_id()));
    program.advance(1);
    program.close(&grandchild);
    program.advance(2);
    program.close(&child);
    program.advance(3);
    program.close(&root);
    let [third, second, first] = program.timings();
    let timings = [&first, &second, &third];
    assert_eq!(timings.map(|it| it.scope.as_str()), frames.map(|it| it.path().text()));
    assert_eq!(timings.map(|it| it.parent_scope.as_deref()), [None, Some("raw.root"), Some("raw.root.child")]);
    assert_eq!(timings.map(|it| it.depth), [0, 1, 2]);
    assert_eq!(timings.map(|it| it.start), [START, START + 10, START + 20]);
    assert_eq!(timings.map(|it| it.duration), [26, 13, 1]);
    assert_eq!(timings.map(|it| it.span), carriers.map(|it| it.span_id()));
    assert_eq!(timings.map(|it| it.trace), carriers.map(|it| it.trace_id()));
    assert_eq!(timings.map(|it| it.parent), [None, Some(first.span), Some(second.span)]);
    assert!(timings.iter().all(|it| it.outcome == kastor::Outcome::Completed && it.error.is_none()));
}

#[test]
fn the_time_of_the_children_is_not_the_frames_own() {
    let program = Program::new();
    let root = program.open(None, "raw.selves");
    program.advance(5);
    for _ in 0..3 {
        let child = program.open(Some(&root), "child");
        program.advance(100);
        program.close(&child);
    }
    program.close(&root);
    let report = program.tele.report();
    let times = ["raw.selves", "raw.selves.child"].map(|path| {
        let scope = report.scope(path).unwrap();
        (scope.calls(), scope.total().as_nanos(), scope.self_time().as_nanos())
    });
    assert_eq!(times, [(1, 305, 5), (3, 300, 300)]);
}

#[test]
fn a_frame_closed_on_another_thread_keeps_its_place_and_says_where_it_closed() {
    let program = Program::new();
    let root = program.open(None, "raw.moved");
    let child = program.open(Some(&root), "child");
    let here = program.open(None, "raw.here");
    program.advance(40);
    program.close(&here);
    thread::scope(|threads| {
        threads.spawn(|| {
            program.close(&child);
            // What is opened elsewhere under the frame has its place too.
            let late = program.open(Some(&root), "late");
            program.advance(2);
            program.close(&late);
            program.close(&root);
        });
    });
    let [here, child_closed, late, root_closed] = program.timings();
    assert_eq!(child_closed.scope, "raw.moved.child");
    assert_eq!((child_closed.depth, child_closed.start, child_closed.duration), (1, START, 40));
    assert_eq!((child_closed.span, child_closed.trace), (child.carrier().span_id(), root.carrier().trace_id()));
    assert_eq!(child_closed.parent, Some(root.carrier().span_id()));
    assert_eq!((late.scope.as_str(), late.depth, late.parent), ("raw.moved.late", 1, Some(root_closed.span)));
    assert_eq!((late.trace, late.start, late.duration), (root_closed.trace, START + 40, 2));
    assert_eq!((root_closed.scope.as_str(), root_closed.depth, root_closed.parent), ("raw.moved", 0, None));
    assert_eq!((root_closed.start, root_closed.duration), (START, 42));
    assert_eq!((root_closed.span, root_closed.trace), (root.carrier().span_id(), root.carrier().trace_id()));
    assert_ne!(here.thread, child_closed.thread);
    assert_eq!((child_closed.thread, late.thread), (root_closed.thread, root_closed.thread));
    assert!(here.trace != root_closed.trace && here.span != root_closed.span);
}

#[test]
fn frames_may_be_closed_in_any_order() {
    let program = Program::new();
    let root = program.open(None, "raw.order");
    let child = program.open(Some(&root), "child");
    let grandchild = program.open(Some(&child), "grandchild");
    program.advance(1);
    program.close(&root);
    program.advance(1);
    program.close(&grandchild);
    program.advance(1);
    program.close(&child);
    let [root, grandchild, child] = program.timings();
    assert_eq!([root.duration, grandchild.duration, child.duration], [1, 2, 3]);
    assert_eq!([root.parent, child.parent, grandchild.parent], [None, Some(root.span), Some(child.span)]);
    assert_eq!([root.depth, child.depth, grandchild.depth], [0, 1, 2]);
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_thousand_open_frames_each_have_ids_of_their_own() {
    let program = Program::new();
    let root = program.open(None, "raw.many");
    let frames: Vec<Frame> = (0..1000).map(|_| program.open(Some(&root), "one")).collect();
    frames.iter().for_each(|frame| program.close(frame));
    program.close(&root);
    let (timings, _) = program.events();
    let root_closed = &timings[1000];
    for (frame, timing) in frames.iter().zip(&timings) {
        assert_eq!((timing.span, timing.parent), (frame.carrier().span_id(), Some(root_closed.span)));
        assert_eq!(timing.trace, root_closed.trace);
    }
    let mut spans: Vec<u64> = timings.iter().map(|it| it.span).collect();
    spans.sort_unstable();
    spans.dedup();
    assert_eq!(spans.len(), 1001);
}

#[test]
#[cfg_attr(miri, ignore = "300 levels take ten minutes and more")]
fn below_the_deepest_path_frames_keep_their_depth() {
    let program = Program::new();
    let mut frames = vec![program.open(None, "raw.deep")];
    for _ in 0..299 {
        frames.push(program.open(frames.last(), "d"));
    }
    assert_eq!(frames[299].path(), frames[256].path());
    assert_ne!(frames[256].path(), frames[255].path());
    frames.iter().rev().for_each(|frame| program.close(frame));
    let (timings, _) = program.events();
    for (depth, timing) in (0..300).rev().zip(&timings) {
        assert_eq!(timing.depth, depth);
        assert_eq!(timing.scope.ends_with("d….(deeper)"), depth >= 256, "{depth}");
        assert_eq!(timing.parent, frames.get((depth as usize).wrapping_sub(1)).map(|it| it.carrier().span_id()));
    }
}

#[test]
fn attributes_events_and_links_are_attached_while_a_frame_closes() {
    let program = Program::new();
    let other = program.open(None, "raw.other");
    let remote = TraceParent::new(7 << 64 | 9, 11, true).unwrap();
    let frame = program.open(None, "raw.attached");
    program.advance(50);
    let (key, shape) = (raw::name("raw.key"), raw::name("shape"));
    raw::close(&program.tele, &frame, Outcome::Completed, |attributes| {
        attributes.set(key, &Value::I64(1));
        attributes.set(shape, &Value::Str("round"));
        attributes.set(raw::name("nothing"), &Value::Null);
        attributes.set(raw::name("bytes"), &Value::Bytes(&[1, 2]));
        attributes.set(raw::name("printed"), &Value::Debug(&Some(1)));
        attributes.set(key, &Value::F64(1.5));
        attributes.event(raw::name("halfway"), frame.start() + 25, &[(shape, Value::Bool(true)), (key, Value::U64(2))]);
        attributes.event(raw::name("bare"), frame.start() + 30, &[]);
        attributes.link(other.carrier());
        attributes.link(Carrier::from_trace_parent(&remote));
    });
    let [closed] = program.timings();
    let expected = [
        ("raw.key", OwnedValue::F64(1.5)),
        ("shape", text("round")),
        ("nothing", OwnedValue::Null),
        ("bytes", OwnedValue::Bytes(vec![1, 2])),
        ("printed", text("Some(1)")),
    ];
    assert_eq!(closed.attributes, expected.map(|(key, value)| attribute(key, value)));
    let halfway = vec![attribute("shape", OwnedValue::Bool(true)), attribute("raw.key", OwnedValue::U64(2))];
    let events = [("halfway".to_owned(), START + AHEAD + 25, halfway), ("bare".to_owned(), START + AHEAD + 30, vec![])];
    assert_eq!(closed.events, events);
    assert_eq!(closed.links, [(other.carrier().trace_id(), other.carrier().span_id()), (7 << 64 | 9, 11)]);
    assert_eq!((closed.dropped, closed.error, closed.duration), (0, None, 50));
}

#[test]
fn a_link_to_nothing_is_none() {
    let program = Program::new();
    let frame = program.open(None, "raw.unlinked");
    raw::close(&program.tele, &frame, Outcome::Completed, |attributes| attributes.link(Carrier::NONE));
    scope!(program.tele, "raw.unlinked").link(Carrier::NONE);
    assert_eq!(program.timings::<2>().map(|it| it.links), [vec![], vec![]]);
}

#[test]
fn paths_that_are_not_to_be_recorded_are_aggregated_alone() {
    let program = Program::new();
    program.tele.record_paths("raw.hidden.*", false);
    let root = program.open(None, "raw.hidden");
    let child = program.open(Some(&root), "child");
    program.advance(5);
    program.close(&child);
    program.close(&root);
    assert!(program.tele.flush(LONG).is_complete());
    let mut recorded = Vec::new();
    program.recording.for_each_batch(|batch| recorded.extend(batch.timings().map(|it| it.scope())));
    assert_eq!(recorded, ["raw.hidden"]);
    let report = program.tele.report();
    assert_eq!(report.scope("raw.hidden.child").map(|it| (it.calls(), it.total().as_nanos())), Some((1, 5)));
    let stats = program.tele.stats();
    assert!(stats.reporters().iter().all(|it| it.dropped().of(DropReason::Sampled) == 1), "{stats:?}");
}

#[test]
fn what_is_attached_beyond_the_limits_is_counted() {
    let program = Program::new();
    let frame = program.open(None, "raw.limits");
    raw::close(&program.tele, &frame, Outcome::Completed, |attributes| {
        attributes.set(raw::name("long"), &Value::Str(&"x".repeat(5000)));
        (0..130).for_each(|number| attributes.event(raw::name("event"), number, &[]));
    });
    let [closed] = program.timings();
    assert_eq!(closed.attributes, [attribute("long", text(&"x".repeat(4096)))]);
    assert_eq!((closed.events.len(), closed.dropped), (127, 4));
}

/// Cut names are counted for the whole process: one test at a time.
static CUTTING: Mutex<()> = Mutex::new(());

#[test]
fn what_is_cut_while_a_frame_closes_is_counted_by_the_context() {
    let _one_at_a_time = CUTTING.lock().unwrap_or_else(PoisonError::into_inner);
    let program = Program::new();
    let (long, key) = ("x".repeat(5000), raw::name("long"));
    let before = program.tele.stats().cut_values();
    raw::metric(&program.tele, below(None, "raw.cut"), Value::U64(1), |it| it.set(key, &Value::Str(&long)));
    assert_eq!(program.tele.stats().cut_values() - before, 1);
    let frame = program.open(None, "raw.cut");
    raw::close(&program.tele, &frame, Outcome::Completed, |it| it.set(key, &Value::Str(&long)));
    assert_eq!(program.tele.stats().cut_values() - before, 2);
}

#[test]
fn a_failed_frame_has_its_error_type_and_counts_as_an_error() {
    let program = Program::new();
    let root = program.open(None, "raw.failing");
    let child = program.open(Some(&root), "child");
    raw::close(&program.tele, &child, Outcome::Failed("ValueError"), |attributes| {
        attributes.set(raw::name("raw.key"), &Value::U64(3));
    });
    raw::close(&program.tele, &root, Outcome::Failed(""), |_| {});
    let [child, root] = program.timings();
    assert_eq!((child.outcome, child.error.as_deref()), (kastor::Outcome::Failed, Some("ValueError")));
    assert_eq!(child.attributes, [attribute("raw.key", OwnedValue::U64(3))]);
    assert_eq!((root.outcome, root.error.as_deref()), (kastor::Outcome::Failed, Some("")));
    let report = program.tele.report();
    let errors = ["raw.failing", "raw.failing.child"].map(|path| report.scope(path).unwrap().errors());
    assert_eq!(errors, [1, 1]);
}

#[test]
fn a_discarded_frame_leaves_nothing_but_the_place_of_its_children() {
    let program = Program::new();
    let root = program.open(None, "raw.discarded");
    let child = program.open(Some(&root), "child");
    program.advance(3);
    program.close(&child);
    raw::close(&program.tele, &root, Outcome::Discarded, |_| panic!("nothing is to be attached"));
    let [child] = program.timings();
    assert_eq!((child.scope.as_str(), child.depth), ("raw.discarded.child", 1));
    assert_eq!((child.parent, child.trace), (Some(root.carrier().span_id()), root.carrier().trace_id()));
    let report = program.tele.report();
    assert_eq!(report.scopes().iter().map(|it| it.path()).collect::<Vec<_>>(), ["raw.discarded.child"]);
}

#[test]
fn a_metric_belongs_to_the_frame_that_is_current() {
    let program = Program::new();
    let root = program.open(None, "raw.measured");
    let child = program.open(Some(&root), "child");
    {
        let _current = raw::set_current(Some(child.carrier()));
        let path = below(Some(&child), "size");
        raw::metric(&program.tele, path, Value::U64(3), |_| {});
        raw::metric(&program.tele, path, Value::Str("big"), |attributes| {
            attributes.set(raw::name("unit"), &Value::Str("kg"));
            attributes.set(raw::name("raw.key"), &Value::I64(-1));
            attributes.set(raw::name("unit"), &Value::Str("g"));
        });
        metric!(program.tele, "size", 1.5);
    }
    raw::metric(&program.tele, below(None, "raw.alone"), Value::Bool(true), |_| {});
    program.close(&child);
    program.close(&root);
    let (timings, metrics) = program.events();
    let [first, second, third, alone] = <[Noted; 4]>::try_from(metrics).unwrap();
    for metric in [&first, &second, &third] {
        assert_eq!(metric.scope, "raw.measured.child.size");
        assert_eq!(metric.parent_scope.as_deref(), Some("raw.measured.child"));
        assert_eq!((metric.depth, metric.parent, metric.trace), (2, Some(timings[0].span), Some(timings[0].trace)));
    }
    assert_eq!([&first.value, &second.value, &third.value], [&OwnedValue::U64(3), &text("big"), &OwnedValue::F64(1.5)]);
    assert_eq!((first.attributes, third.attributes), (vec![], vec![]));
    assert_eq!(second.attributes, [attribute("unit", text("g")), attribute("raw.key", OwnedValue::I64(-1))]);
    assert_eq!((alone.scope.as_str(), alone.parent_scope, alone.depth), ("raw.alone", None, 0));
    assert_eq!((alone.parent, alone.trace, alone.value), (None, None, OwnedValue::Bool(true)));
}

#[test]
fn a_metric_after_a_frame_closed_has_the_time_of_that() {
    let program = Program::new();
    let root = program.open(None, "raw.timed");
    let child = program.open(Some(&root), "child");
    program.advance(5);
    program.close(&child);
    program.advance(5);
    raw::metric(&program.tele, below(Some(&root), "size"), Value::U64(1), |_| {});
    assert_eq!(program.events().1[0].time, START + 5);
}

#[test]
fn a_metric_after_a_frame_opened_has_the_time_of_that() {
    let program = Program::new();
    program.advance(5);
    let root = program.open(None, "raw.timed");
    let _current = raw::set_current(Some(root.carrier()));
    program.advance(5);
    raw::metric(&program.tele, below(Some(&root), "size"), Value::U64(1), |_| {});
    assert_eq!(program.events().1[0].time, START + 5);
}

#[test]
fn what_the_macros_open_is_a_child_of_the_frame_that_is_current() {
    let program = Program::new();
    let root = program.open(None, "raw.current");
    let child = program.open(Some(&root), "child");
    {
        let carrier = raw::sampled(&program.tele, child.carrier());
        let _current = raw::set_current(Some(carrier));
        assert_eq!(Carrier::current(), carrier);
        let _scope = scope!(program.tele, "native");
        drop(scope!(program.tele, "inner"));
    }
    assert!(!Carrier::current().is_some());
    drop(scope!(program.tele, "raw.after"));
    program.close(&child);
    program.close(&root);
    let [inner, native, after, child, root] = program.timings();
    assert_eq!((native.scope.as_str(), native.depth), ("raw.current.child.native", 2));
    assert_eq!((native.parent, native.trace), (Some(child.span), root.trace));
    assert_eq!(native.parent_scope.as_deref(), Some("raw.current.child"));
    assert_eq!((inner.scope.as_str(), inner.depth), ("raw.current.child.native.inner", 3));
    assert_eq!((inner.parent, inner.trace), (Some(native.span), root.trace));
    assert_eq!((after.scope.as_str(), after.depth, after.parent), ("raw.after", 0, None));
    assert_ne!(after.trace, root.trace);
}

#[test]
fn set_current_returns_what_was_current_before_when_it_is_dropped() {
    let program = Program::new();
    let (one, two) = (program.open(None, "raw.one"), program.open(None, "raw.two"));
    let first = raw::set_current(Some(one.carrier()));
    {
        let _second = raw::set_current(Some(two.carrier()));
        drop(scope!(program.tele, "a"));
        {
            let _none = raw::set_current(None);
            drop(scope!(program.tele, "b"));
        }
        drop(scope!(program.tele, "c"));
    }
    drop(scope!(program.tele, "d"));
    drop(first);
    drop(scope!(program.tele, "e"));
    let timings: [Closed; 5] = program.timings();
    assert_eq!(timings.each_ref().map(|it| it.scope.as_str()), ["raw.two.a", "b", "raw.two.c", "raw.one.d", "e"]);
    let spans = [&one, &two].map(|it| Some(it.carrier().span_id()));
    assert_eq!(timings.map(|it| it.parent), [spans[1], None, spans[1], spans[0], None]);
}

#[test]
fn a_frame_may_be_current_on_several_threads_at_once() {
    let program = Program::new();
    let root = program.open(None, "raw.shared");
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let _current = raw::set_current(Some(root.carrier()));
                (0..50).for_each(|_| drop(scope!(program.tele, "work")));
            });
        }
    });
    program.close(&root);
    let (timings, _) = program.events();
    let (root, works) = timings.split_last().unwrap();
    assert_eq!(works.len(), 200);
    assert!(works.iter().all(|it| it.scope == "raw.shared.work" && it.parent == Some(root.span)));
    assert!(works.iter().all(|it| it.trace == root.trace && it.depth == 1));
}

#[test]
fn a_frame_without_a_parent_is_a_root_whatever_is_current() {
    let program = Program::new();
    let outer = scope!(program.tele, "raw.macro");
    let frame = program.open(None, "raw.rootless");
    assert_ne!(frame.carrier().trace_id(), outer.carrier().trace_id());
    program.close(&frame);
    drop(outer);
    let [frame, _] = program.timings();
    assert_eq!((frame.scope.as_str(), frame.depth, frame.parent), ("raw.rootless", 0, None));
}

#[test]
fn opening_and_closing_frames_leaves_the_current_scope_alone() {
    let program = Program::new();
    let _outer = scope!(program.tele, "raw.outer");
    let before = Carrier::current();
    let root = program.open(None, "raw.beside");
    let child = program.open(Some(&root), "child");
    assert_eq!(Carrier::current(), before);
    program.close(&root);
    program.close(&child);
    assert_eq!(Carrier::current(), before);
    drop(scope!(program.tele, "inner"));
    let [_, _, inner] = program.timings();
    assert_eq!((inner.scope.as_str(), inner.parent), ("raw.outer.inner", Some(before.span_id())));
}

#[test]
fn the_carrier_of_a_frame_is_a_trace_parent_for_the_next_process() {
    let program = Program::new();
    let root = program.open(None, "raw.carried");
    let child = program.open(Some(&root), "child");
    let header = child.carrier().trace_parent().unwrap();
    assert_eq!((header.trace_id(), header.parent_id()), (root.carrier().trace_id(), child.carrier().span_id()));
    assert!(header.is_sampled());
}

#[test]
fn ticks_become_both_times() {
    let program = Program::new();
    program.advance(123);
    let frame = program.open(None, "raw.ticks");
    assert_eq!(raw::times_ns(&program.tele, frame.start()), Some((START + 123, START + AHEAD + 123)));
    assert_eq!(raw::times_ns(&program.tele, START), Some((START, START + AHEAD)));
    assert_eq!(raw::times_ns(&program.tele, START + 5_000_000_000), Some((START * 6, START * 6 + AHEAD)));
    assert_eq!(raw::times_ns(&Telemetry::disabled(), START), None);
}

#[test]
fn a_context_that_is_off_opens_no_frames_and_records_nothing() {
    let program = Program::new();
    program.tele.set_enabled(false);
    let path = below(None, "raw.off");
    for tele in [&program.tele, &Telemetry::disabled()] {
        assert_eq!(raw::open(tele, None, path), None);
        raw::metric(tele, path, Value::U64(1), |_| panic!("nothing is to be attached"));
    }
    program.assert_nothing();
    program.tele.set_enabled(true);
    let frame = program.open(None, "raw.off");
    program.close(&frame);
    assert_eq!(program.timings::<1>().map(|it| it.scope), ["raw.off"]);
}

#[test]
fn a_frame_that_is_open_when_its_context_is_switched_off_closes_without_an_event() {
    let program = Program::new();
    let frame = program.open(None, "raw.switched_off");
    program.tele.set_enabled(false);
    raw::close(&program.tele, &frame, Outcome::Completed, |_| panic!("nothing is to be attached"));
    assert_eq!(raw::open(&program.tele, Some(&frame), frame.path()), None);
    raw::close(&Telemetry::disabled(), &frame, Outcome::Failed("off"), |_| panic!("nothing is to be attached"));
    program.assert_nothing();
}

#[test]
fn after_a_shutdown_no_frame_is_opened() {
    let program = Program::new();
    assert!(program.tele.shutdown(LONG).is_complete());
    assert_eq!(raw::open(&program.tele, None, below(None, "raw.down")), None);
    raw::metric(&program.tele, below(None, "raw.down"), Value::U64(1), |_| panic!("nothing is to be attached"));
    assert!(program.recording.is_empty());
}

#[test]
fn frames_of_two_contexts_share_the_flow_and_each_goes_to_its_own() {
    let (one, two) = (Program::new(), Program::new());
    let root = one.open(None, "raw.first");
    two.advance(500);
    let child = raw::open(&two.tele, Some(&root), below(Some(&root), "second")).unwrap();
    assert_eq!(child.start(), START + 500);
    let grandchild = one.open(Some(&child), "third");
    one.advance(7);
    two.advance(9);
    one.close(&grandchild);
    two.close(&child);
    one.close(&root);
    let ([grandchild, root], [child]) = (one.timings(), two.timings());
    assert_eq!(
        [&root, &child, &grandchild].map(|it| it.scope.as_str()),
        ["raw.first", "raw.first.second", "raw.first.second.third"]
    );
    assert_eq!([&root, &child, &grandchild].map(|it| it.parent), [None, Some(root.span), Some(child.span)]);
    assert_eq!([&child, &grandchild].map(|it| it.trace), [root.trace, root.trace]);
    assert_eq!([&root, &child, &grandchild].map(|it| (it.depth, it.duration)), [(0, 7), (1, 9), (2, 7)]);
}

#[test]
fn an_unsampled_parent_marks_the_scopes_below_it() {
    let program = Program::new();
    let remote = Carrier::from_trace_parent(&TraceParent::new(5, 6, false).unwrap());
    let _current = raw::set_current(Some(remote));
    drop(scope!(program.tele, "raw.unsampled"));
    let [closed] = program.timings();
    assert_eq!((closed.trace, closed.parent, closed.depth, closed.is_sampled), (5, Some(6), 0, false));
}

#[test]
fn a_face_that_panics_while_it_attaches_loses_that_event_alone() {
    let program = Program::new();
    let root = program.open(None, "raw.panicking");
    let child = program.open(Some(&root), "child");
    let attach = AssertUnwindSafe(|| raw::close(&program.tele, &child, Outcome::Completed, |_| panic!("in the face")));
    assert!(catch_unwind(attach).is_err());
    program.close(&root);
    let [root] = program.timings();
    assert_eq!((root.scope.as_str(), root.attributes.len()), ("raw.panicking", 0));
}

#[test]
fn a_face_may_record_while_it_attaches() {
    let program = Program::new();
    let root = program.open(None, "raw.nested");
    raw::close(&program.tele, &root, Outcome::Completed, |attributes| {
        attributes.set(raw::name("before"), &Value::U64(1));
        let inner = program.open(Some(&root), "inner");
        raw::close(&program.tele, &inner, Outcome::Completed, |inner| {
            inner.set(raw::name("inner"), &Value::U64(2));
        });
        attributes.set(raw::name("after"), &Value::U64(3));
    });
    let [inner, root] = program.timings();
    assert_eq!((inner.scope.as_str(), inner.parent), ("raw.nested.inner", Some(root.span)));
    assert_eq!(inner.attributes, [attribute("inner", OwnedValue::U64(2))]);
    assert_eq!(root.attributes, [attribute("before", OwnedValue::U64(1)), attribute("after", OwnedValue::U64(3))]);
}

const PROBE: &str = "RAWFACE_TEST_PROBE";
const VARIABLES: [&str; 5] = [
    "RAWFACE_TELEMETRY",
    "KASTOR_TELEMETRY",
    "DEBUG",
    "RAWFACE_TELEMETRY_STRICT_SCOPES",
    "KASTOR_TELEMETRY_STRICT_SCOPES",
];

/// What a face with the prefixes `RAWFACE` and `KASTOR` reads.
#[test]
fn probe() {
    if std::env::var_os(PROBE).is_some() {
        let read = raw::read(&["RAWFACE", "KASTOR"]);
        println!("\nprobed {} {}", read.is_enabled, read.is_strict);
    }
}

fn probed(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["probe", "--exact", "--nocapture", "--test-threads=1"]).env(PROBE, "1");
    VARIABLES.iter().for_each(|it| {
        command.env_remove(it);
    });
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("probed ")).unwrap().to_owned()
}

#[test]
#[cfg_attr(miri, ignore = "starts processes")]
fn a_face_reads_the_environment_with_prefixes_of_its_own() {
    for (variables, expected) in [
        (&[][..], "false false"),
        (&[("RAWFACE_TELEMETRY", "1")], "true false"),
        (&[("KASTOR_TELEMETRY", "1")], "true false"),
        (&[("DEBUG", "1")], "true false"),
        (&[("RAWFACE_TELEMETRY", "true")], "false false"),
        (&[("RAWFACE_TELEMETRY", "1"), ("KASTOR_TELEMETRY", "0")], "false false"),
        (&[("DEBUG", "1"), ("KASTOR_TELEMETRY", "0")], "false false"),
        (&[("RAWFACE_TELEMETRY_STRICT_SCOPES", "1")], "false true"),
        (&[("KASTOR_TELEMETRY_STRICT_SCOPES", "1"), ("DEBUG", "1")], "true true"),
    ] {
        assert_eq!(probed(variables), expected, "{variables:?}");
    }
}
