//! Scopes on one thread, through the public door: paths, the fields of a timing event, attributes, events and links,
//! failure and names. How else a scope may end is in `scopes_order.rs`. Every test has a context and a clock of its own.

use std::{
    fmt::{self, Display},
    mem,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use kastor::{Link, MockClock, Outcome, OwnedValue, Reporter, Scope, SimpleReporter, Telemetry, Timing, scope};

const MS: Duration = Duration::from_millis(1);

/// A point event: name, Unix time, attributes.
type Happened = (String, u64, Vec<(String, OwnedValue)>);

/// What an inline reporter saw of one scope.
#[derive(Clone, Debug, Default, PartialEq)]
struct Closed {
    scope: String,
    name: String,
    parent: Option<String>,
    depth: u32,
    call_count: u32,
    duration: Duration,
    monotonic: [u64; 2],
    unix: [u64; 2],
    error: Option<String>,
    attributes: Vec<(String, OwnedValue)>,
    events: Vec<Happened>,
    links: Vec<Link>,
    ids: (u128, u64, Option<u64>),
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Closed>>>);

fn owned<'a>(attributes: impl Iterator<Item = (&'static str, kastor::Value<'a>)>) -> Vec<(String, OwnedValue)> {
    attributes.map(|(key, value)| (key.to_owned(), value.into())).collect()
}

impl Reporter for Seen {
    fn record_timing(&self, event: &Timing<'_>) {
        assert_eq!(event.duration().as_nanos(), u128::from(event.duration_ns()));
        assert_eq!(event.outcome() == Outcome::Failed, event.error_type().is_some());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Closed {
            scope: event.scope().to_owned(),
            name: event.name().to_owned(),
            parent: event.parent_scope().map(str::to_owned),
            depth: event.depth(),
            call_count: event.call_count(),
            duration: event.duration(),
            monotonic: [event.start_monotonic_ns(), event.end_monotonic_ns()],
            unix: [event.start_unix_ns(), event.end_unix_ns()],
            error: event.error_type().map(str::to_owned),
            attributes: owned(event.attributes()),
            events: event.events().map(|it| (it.name().to_owned(), it.unix_ns(), owned(it.attributes()))).collect(),
            links: event.links().collect(),
            ids: (event.trace_id(), event.span_id(), event.parent_span_id()),
        });
    }
}

impl Seen {
    fn take(&self) -> Vec<Closed> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// Paths in the order of closing, with the error type where there is one.
    fn paths(&self) -> Vec<String> {
        let text = |it: Closed| it.error.map_or(it.scope.clone(), |error| format!("{}: {error}", it.scope));
        self.take().into_iter().map(text).collect()
    }
    fn only(&self) -> Closed {
        let [one] = <[Closed; 1]>::try_from(self.take()).expect("exactly one scope closed");
        one
    }
}

fn context() -> (Telemetry, Seen, MockClock) {
    let (seen, clock) = (Seen::default(), MockClock::new());
    let tele = Telemetry::builder().clock(clock.clone()).reporter(seen.clone()).strict_names(false).build();
    (tele, seen, clock)
}

fn text(text: &str) -> OwnedValue {
    OwnedValue::Text(text.to_owned().into())
}

fn pairs(pairs: &[(&str, OwnedValue)]) -> Vec<(String, OwnedValue)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

#[test]
fn a_path_is_the_names_of_the_open_scopes_and_a_dotted_name_is_one_level() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    {
        let _a = scope!("a");
        {
            let _plan = scope!("pipeline.plan");
            drop(scope!("step"));
        }
        drop(scope!("other"));
    }
    drop(scope!("a"));
    let seen: Vec<_> =
        seen.take().into_iter().map(|it| (it.scope, it.name, it.parent, it.depth, it.call_count)).collect();
    let row = |scope: &str, name: &str, parent: Option<&str>, depth| {
        (scope.to_owned(), name.to_owned(), parent.map(str::to_owned), depth, depth)
    };
    assert_eq!(
        seen,
        [
            row("a.pipeline.plan.step", "step", Some("a.pipeline.plan"), 2),
            row("a.pipeline.plan", "pipeline.plan", Some("a"), 1),
            row("a.other", "other", Some("a"), 1),
            row("a", "a", None, 0),
            row("a", "a", None, 0),
        ]
    );
}

#[test]
fn times_come_from_the_clock_and_the_end_is_the_start_plus_the_duration() {
    let (tele, seen, clock) = context();
    let _current = tele.override_current();
    clock.advance(2 * MS);
    let (monotonic, unix) = (clock.monotonic_ns(), clock.unix_ns());
    let scope = scope!("timed");
    clock.advance(Duration::from_nanos(1_234_567));
    drop(scope);
    let closed = seen.only();
    assert_eq!(closed.duration, Duration::from_nanos(1_234_567));
    assert_eq!(closed.monotonic, [monotonic, monotonic + 1_234_567]);
    assert_eq!(closed.unix, [unix, unix + 1_234_567]);

    let scope = scope!("jumped");
    clock.advance(3 * MS);
    clock.set_unix_ns(5);
    drop(scope);
    let closed = seen.only();
    assert_eq!(closed.duration, 3 * MS, "the wall clock has no say in it");
    assert_eq!(closed.monotonic[1] - closed.monotonic[0], 3_000_000);
    assert_eq!(closed.unix[1] - closed.unix[0], 3_000_000);
}

#[test]
fn ids_are_never_zero_and_lead_from_child_to_parent() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    const ROOTS: usize = if cfg!(miri) { 5 } else { 100 };
    for _ in 0..ROOTS {
        let _root = scope!("root");
        let _child = scope!("child");
        drop(scope!("grandchild"));
    }
    let seen = seen.take();
    let mut spans: Vec<u64> = seen.iter().map(|it| it.ids.1).collect();
    for [grandchild, child, root] in seen.chunks_exact(3).map(|three| [&three[0], &three[1], &three[2]]) {
        assert_eq!(root.ids.2, None);
        assert_eq!(child.ids, (root.ids.0, child.ids.1, Some(root.ids.1)));
        assert_eq!(grandchild.ids, (root.ids.0, grandchild.ids.1, Some(child.ids.1)));
        assert!(root.ids.0 != 0 && root.ids.1 != 0 && child.ids.1 != 0 && grandchild.ids.1 != 0);
    }
    spans.sort_unstable();
    spans.dedup();
    assert_eq!(spans.len(), ROOTS * 3, "no id twice");
    let mut traces: Vec<u128> = seen.iter().map(|it| it.ids.0).collect();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), ROOTS, "a trace per root");
}

#[test]
fn attributes_keep_their_order_and_types_and_the_last_value_of_a_key_wins() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let (owner, none) = (String::from("me"), None::<u8>);
    let scope = scope!("a", int = -3, big = u64::MAX, float = 0.5, yes = true, word = "w", owner = &owner,
        none = none, some = Some(4u8), bytes = &[1u8, 0xff][..], "http.method" = "GET", shown = %'x', debugged = ?"q",
        owned = &std::borrow::Cow::from("cow"), trailing = 1,);
    drop(owner);
    scope.set("late", 1);
    scope.set("int", "replaced");
    scope.set("late", 2);
    drop(scope);
    assert_eq!(
        seen.only().attributes,
        pairs(&[
            ("int", text("replaced")),
            ("big", OwnedValue::U64(u64::MAX)),
            ("float", OwnedValue::F64(0.5)),
            ("yes", OwnedValue::Bool(true)),
            ("word", text("w")),
            ("owner", text("me")),
            ("none", OwnedValue::Null),
            ("some", OwnedValue::U64(4)),
            ("bytes", OwnedValue::Bytes(vec![1, 0xff])),
            ("http.method", text("GET")),
            ("shown", text("x")),
            ("debugged", text("\"q\"")),
            ("owned", text("cow")),
            ("trailing", OwnedValue::I64(1)),
            ("late", OwnedValue::I64(2)),
        ])
    );
}

#[test]
fn a_key_with_a_built_in_name_wins_in_the_metadata_and_leaves_the_stack_alone() {
    let simple = SimpleReporter::new();
    let seen = Seen::default();
    let tele = Telemetry::builder().clock(MockClock::new()).reporter(simple.clone()).reporter(seen.clone()).build();
    let _current = tele.override_current();
    {
        let _root = scope!("root", depth = 99, parent_scope = "liar", scope = "other", duration = "long");
        drop(scope!("child"));
    }
    let [child, root] = <[Closed; 2]>::try_from(seen.take()).unwrap();
    assert_eq!((child.scope.as_str(), child.depth, child.parent.as_deref()), ("root.child", 1, Some("root")));
    assert_eq!((root.scope.as_str(), root.depth, root.parent), ("root", 0, None));
    assert_eq!(root.attributes[0], ("depth".to_owned(), OwnedValue::I64(99)));
    let timings = simple.timings();
    let metadata = &timings["root"][0].1;
    let values = |key: &str| metadata.iter().filter(|it| it.0 == key).map(|it| it.1.clone()).collect::<Vec<_>>();
    assert_eq!(values("depth"), [OwnedValue::I64(99)], "once, and the program's");
    assert_eq!(values("parent_scope"), [text("liar")]);
    let built_in = [
        "depth",
        "parent_scope",
        "call_count",
        "start_monotonic_s",
        "end_monotonic_s",
        "start_wall_time_s",
        "end_wall_time_s",
    ];
    let mut first: Vec<_> = metadata[..7].iter().map(|it| it.0).collect();
    first.sort_unstable();
    let mut expected = built_in;
    expected.sort_unstable();
    assert_eq!(first, expected, "the built-in keys stand in front");
    assert!(metadata.iter().any(|it| it.1 == text("other")) && metadata.iter().any(|it| it.1 == text("long")));
    assert_eq!(timings["root.child"][0].1.len(), 7, "exactly the built-in keys");
}

#[test]
fn attribute_expressions_run_before_the_clock_starts() {
    let (tele, seen, clock) = context();
    let _current = tele.override_current();
    let started = clock.monotonic_ns();
    let slow = || {
        clock.advance(10 * MS);
        7
    };
    let scope = scope!("a", slow = slow());
    clock.advance(MS);
    drop(scope);
    let closed = seen.only();
    assert_eq!((closed.duration, closed.monotonic[0]), (MS, started + 10_000_000));
}

fn never() -> u32 {
    unreachable!("evaluated although nothing is recorded")
}

#[test]
fn attribute_expressions_do_not_run_for_a_given_context_that_is_off() {
    let (tele, seen, _) = context();
    let disabled = Telemetry::disabled();
    drop(scope!(disabled, "explicit", key = never(), shown = %never(), debugged = ?never()));
    drop(scope!(Telemetry::DISABLED, "constant", key = never()));
    kastor::metric!(disabled, "metric", never(), key = never());
    tele.set_enabled(false);
    drop(scope!(tele, "switched", key = never()));
    tele.set_enabled(true);
    drop(scope!(tele, "switched", key = 1));
    assert_eq!(seen.paths(), ["switched"]);
}

#[test]
fn attribute_expressions_do_not_run_while_the_current_context_is_off() {
    let (tele, seen, _) = context();
    {
        let _none = Telemetry::disabled().override_current();
        drop(scope!("overridden", key = never()));
        kastor::count!("overridden_count", 1, key = never());
        kastor::metric!("overridden_metric", never(), key = never());
    }
    let _current = tele.override_current();
    tele.set_enabled(false);
    drop(scope!("switched", key = never()));
    tele.set_enabled(true);
    drop(scope!("switched", key = 1));
    assert_eq!(seen.paths(), ["switched"]);
}

#[test]
fn attribute_expressions_do_not_run_for_a_name_that_is_switched_off() {
    let (tele, seen, _) = context();
    let (other, others, _) = context();
    tele.switch_scopes("unwanted.*", false);
    let current = tele.override_current();
    drop(scope!("unwanted.one", key = never()));
    drop(scope!(tele, "unwanted.one", key = never()));
    drop(scope!("wanted.one", key = 1));
    drop(current);
    drop(scope!(other, "unwanted.one", key = 1));
    assert_eq!((seen.paths(), others.paths()), (vec!["wanted.one".to_owned()], vec!["unwanted.one".to_owned()]));
}

#[test]
fn a_disabled_context_does_nothing() {
    let disabled = Telemetry::disabled();
    assert!(!disabled.is_enabled());
    disabled.set_enabled(true);
    assert!(!disabled.is_enabled(), "it is one shared immutable thing");
    let scope = disabled.scope("anything at all");
    assert!(!scope.is_recording());
    scope.set("key", 1);
    scope.event("event");
    scope.fail("failed");
    scope.link(kastor::Carrier::NONE);
    scope.discard();
    assert!(disabled.flush(Duration::ZERO).is_complete());
    assert_eq!(disabled.stats().emitted(), 0);
    assert!(disabled.report().scopes().is_empty() && disabled.report().series().is_empty());
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let _a = scope!("a");
    let _off = disabled.scope("off");
    drop(scope!("b"));
    assert_eq!(seen.paths(), ["a.b"], "its scopes are no level of anyone else's");
}

#[test]
fn temporaries_and_moves_in_attribute_expressions_compile_and_are_copied() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let number = 41;
    drop(scope!("a", text = String::from("temporary").as_str(), trimmed = format!(" {} ", number + 1).trim(),
        shown = %format!("{number}"), path = %std::path::Path::new("/tmp").display(), debugged = ?vec![1, 2],
        locked = Mutex::new("inner").lock().unwrap().trim_start()));
    let expected = [
        ("text", text("temporary")),
        ("trimmed", text("42")),
        ("shown", text("41")),
        ("path", text("/tmp")),
        ("debugged", text("[1, 2]")),
        ("locked", text("inner")),
    ];
    assert_eq!(seen.only().attributes, pairs(&expected));
}

#[test]
fn events_and_links_are_kept_in_order_with_their_times() {
    let (tele, seen, clock) = context();
    let _current = tele.override_current();
    let cause = scope!("cause");
    let carrier = cause.carrier();
    drop(cause);
    let scope = scope!("effect");
    let start = clock.unix_ns();
    clock.advance(MS);
    scope.event("first");
    clock.advance(MS);
    scope.event_with("second", &[("n", 2.into()), ("why", "because".into())]);
    scope.event("first");
    scope.link(carrier);
    scope.link(kastor::Carrier::NONE);
    drop(scope);
    let [cause, effect] = <[Closed; 2]>::try_from(seen.take()).unwrap();
    let with = pairs(&[("n", OwnedValue::I64(2)), ("why", text("because"))]);
    assert_eq!(
        effect.events,
        [
            ("first".to_owned(), start + 1_000_000, vec![]),
            ("second".to_owned(), start + 2_000_000, with),
            ("first".to_owned(), start + 2_000_000, vec![])
        ]
    );
    assert_eq!(effect.links, [Link { trace_id: cause.ids.0, span_id: cause.ids.1 }], "a link to nothing is none");
    assert!(effect.attributes.is_empty());
    assert_eq!(effect.ids.2, None, "a link makes no parent");
}

#[test]
fn a_scope_says_whether_it_has_more_than_attributes() {
    let recording = kastor::Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    drop(scope!(tele, "plain"));
    drop(scope!(tele, "keys", a = 1, b = "two"));
    scope!(tele, "event").event("now");
    let linking = scope!(tele, "link", a = 1);
    linking.link(linking.carrier());
    drop(linking);
    scope!(tele, "failure").fail("bad");
    drop(scope!(tele, "cut", text = &"x".repeat(5000)));
    assert!(tele.flush(Duration::from_secs(30)).is_complete());
    let mut said = Vec::new();
    recording.for_each_batch(|batch| {
        said.extend(batch.timings().map(|timing| (timing.name(), timing.has_only_attributes())));
    });
    let expected =
        [("plain", true), ("keys", true), ("event", false), ("link", false), ("failure", false), ("cut", false)];
    assert_eq!(said, expected);
}

#[test]
fn a_failure_says_what_the_program_said() {
    #[derive(Debug)]
    struct Broken(#[allow(dead_code)] u32);
    impl Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "it broke")
        }
    }
    impl std::error::Error for Broken {}
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    let scope = scope!("a");
    scope.fail("timeout");
    drop(scope);
    assert_eq!(seen.paths(), ["a: timeout"]);
    let scope = scope!("a");
    scope.fail("first");
    scope.fail("last");
    drop(scope);
    assert_eq!(seen.paths(), ["a: last"]);
    let scope = scope!("a", kept = 1);
    scope.fail_with(&Broken(3));
    drop(scope);
    let closed = seen.only();
    assert_eq!(closed.error.as_deref(), Some("Broken"));
    assert_eq!(closed.attributes, pairs(&[("kept", OwnedValue::I64(1)), ("error.message", text("it broke"))]));
    let aggregate = tele.report();
    let aggregate = aggregate.scope("a").unwrap();
    assert_eq!((aggregate.calls(), aggregate.errors()), (3, 3));
}

#[test]
fn texts_that_are_shorter_and_longer_than_the_usual_ones_arrive_as_they_were() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    for length in [0, 1, 3, 7, 8, 9, 15, 16, 17, 40, 63, 64, 65] {
        let short = "ä".repeat(length / 2) + if length % 2 == 1 { "b" } else { "" };
        drop(scope!("texts", length = length as u64, text = short.as_str()));
        let want = pairs(&[("length", OwnedValue::U64(length as u64)), ("text", text(&short))]);
        assert_eq!(seen.only().attributes, want);
    }
}

/// An error whose text sets an attribute of the very scope that it fails.
struct Sets<'a>(&'a Scope);

impl fmt::Debug for Sets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sets")
    }
}

impl Display for Sets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.set("meanwhile", 1);
        f.write_str("told")
    }
}

impl std::error::Error for Sets<'_> {}

#[test]
fn what_is_set_while_another_attribute_is_printed_stands_behind_it() {
    let (tele, seen, _) = context();
    let scope = tele.scope("outer");
    scope.set("before", true);
    scope.fail_with(&Sets(&scope));
    drop(scope);
    let closed = seen.only();
    assert_eq!(closed.error.as_deref(), Some("Sets"));
    let told = [("before", OwnedValue::Bool(true)), ("error.message", text("told")), ("meanwhile", OwnedValue::I64(1))];
    assert_eq!(closed.attributes, pairs(&told));
}

#[test]
fn any_text_is_a_dynamic_name_unless_names_are_strict() {
    let (tele, seen, _) = context();
    let _current = tele.override_current();
    for name in ["ordinary", "With Spaces/and?signs", "ünïcödé", "9", "a..b", "\u{1b}[31m"] {
        drop(tele.scope(name));
        assert_eq!(seen.paths(), [name]);
    }
    drop(tele.scope(&String::from("temporary")));
    assert_eq!(seen.paths(), ["temporary"]);
}

#[test]
fn strict_mode_takes_the_recommended_form_and_records_the_rest_under_a_placeholder() {
    let seen = Seen::default();
    let tele = Telemetry::builder().reporter(seen.clone()).strict_names(true).build();
    let _current = tele.override_current();
    let good = ["a", "a1", "a_b", "pipeline.plan", "a.b.c_1", "z__"];
    for name in good {
        drop(tele.scope(name));
        assert_eq!(seen.paths(), [name]);
    }
    let counted = tele.stats().cut_values();
    let bad = ["", "A", "aB", "1a", "_a", ".", "a.", ".a", "a..b", "a.1", "a b", "a-b", "ä", "a\n", "a.B", " a"];
    for name in bad {
        drop(tele.scope(name));
        let [path] = <[String; 1]>::try_from(seen.paths()).unwrap();
        assert_eq!(path, "(invalid_name)", "{name:?}");
    }
    assert_eq!(tele.stats().cut_values() - counted, bad.len() as u64, "each is counted");
    let outer = tele.scope("Not Good");
    drop(tele.scope("fine"));
    drop(outer);
    assert_eq!(seen.paths(), ["(invalid_name).fine", "(invalid_name)"]);
    tele.counter("Bad Metric", &[]).add(2);
    let series: Vec<_> = tele.report().series().iter().map(|it| (it.path(), it.calls())).collect();
    assert_eq!(series, [("(invalid_name)", 1)]);
}

#[test]
fn open_scopes_of_all_threads_can_be_listed() {
    let (tele, _, clock) = context();
    let _current = tele.override_current();
    let _a = scope!("listed.here");
    let (opened, wait) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let there = tele.clone();
    let work = move || {
        let _scope = there.scope("listed.there");
        let _inner = there.scope("inner");
        opened.0.send(()).unwrap();
        wait.1.recv().unwrap_err();
    };
    let thread = thread::Builder::new().name("the-other-one".into()).spawn(work).unwrap();
    opened.1.recv().unwrap();
    clock.advance(5 * MS);
    let listed = || -> Vec<_> {
        let mut all = tele.open_scopes();
        all.retain(|it| it.scope().starts_with("listed."));
        all.sort_by_key(|it| it.scope());
        all.iter().map(|it| (it.scope(), it.thread().to_owned(), it.open_for())).collect()
    };
    let here = thread::current().name().unwrap().to_owned();
    let other = "the-other-one".to_owned();
    let expected = vec![
        ("listed.here", here.clone(), 5 * MS),
        ("listed.there", other.clone(), 5 * MS),
        ("listed.there.inner", other, 5 * MS),
    ];
    assert_eq!(listed(), expected);
    drop(wait.0);
    thread.join().unwrap();
    assert_eq!(listed(), [("listed.here", here, 5 * MS)]);
}
