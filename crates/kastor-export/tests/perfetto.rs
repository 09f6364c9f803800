//! Perfetto traces: every field as a reader that was written apart from the writer finds it.

mod reading;

use std::{
    io,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use kastor::{
    Carrier, DropReason, FutureExt as _, MockClock, Recording, Telemetry, count, gauge, histogram, metric, scope,
};
use kastor_export::perfetto::{Config, Encoder, Perfetto};
use reading::{Folder, Slice, Trace};

/// Only ever an upper bound.
const LONG: Duration = Duration::from_secs(60);
/// Where the mock clock begins.
const ZERO: u64 = 1_000_000_000_000_000_000;

fn ns(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

/// Runs a program against a mock clock and reads the trace that it left.
fn trace_with(config: Config, program: impl FnOnce(&Telemetry, &MockClock)) -> Trace {
    let folder = Folder::new();
    let path = folder.file("trace.perfetto-trace");
    let clock = MockClock::new();
    let perfetto = Perfetto::create(&path, config).unwrap();
    let tele = Telemetry::builder().reporter(perfetto).clock(clock.clone()).build();
    {
        let _current = tele.override_current();
        program(&tele, &clock);
    }
    assert!(tele.flush(LONG).is_complete());
    let trace = Trace::read(&path);
    assert_eq!(trace.faults, [""; 0]);
    trace
}

fn trace(program: impl FnOnce(&Telemetry, &MockClock)) -> Trace {
    trace_with(Config::default(), program)
}

/// (name, begin, duration, depth)
fn shape(slice: &Slice) -> (&str, u64, u64, usize) {
    (&slice.name, slice.begin - ZERO, slice.end.unwrap() - slice.begin, slice.depth)
}

#[test]
fn every_field_of_a_scope_is_in_the_trace() {
    let name = thread::current().name().unwrap().to_owned();
    let trace = trace_with(Config::default().ids(true).process_name("prog"), |_, clock| {
        let job = scope!("job", rows = 3, ratio = 0.5, ok = true, who = "ann", less = -4);
        clock.advance(ns(1_000));
        {
            let parse = scope!("parse");
            clock.advance(ns(10));
            parse.event_with("retry", &[("attempt", 2_u64.into())]);
            clock.advance(ns(490));
            parse.fail("bad");
        }
        clock.advance(ns(250));
        job.set("late", "yes");
    });
    let job = trace.slice("job");
    assert_eq!(shape(job), ("job", 0, 1_750, 0));
    assert_eq!(job.track, name);
    assert_eq!(job.categories, ["scope"]);
    let args: Vec<(&str, &str)> = job.args.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let ids = (job.args["trace_id"].clone(), job.args["span_id"].clone());
    let expected = [
        ("late", "yes"),
        ("less", "-4"),
        ("ok", "true"),
        ("ratio", "0.5"),
        ("rows", "3"),
        ("span_id", ids.1.as_str()),
        ("trace_id", ids.0.as_str()),
        ("who", "ann"),
    ];
    assert_eq!(args, expected);
    assert_eq!((ids.0.len(), job.flows.as_slice()), (32, [u64::from_str_radix(&ids.1, 16).unwrap()].as_slice()));

    let parse = trace.slice("parse");
    assert_eq!(shape(parse), ("parse", 1_000, 500, 1));
    assert_eq!(
        (parse.categories.as_slice(), parse.args["error_type"].as_str()),
        (["scope", "failed"].map(String::from).as_slice(), "bad")
    );
    assert_eq!(trace.parent_name(parse), Some("job"));

    let retry = &trace.instants[0];
    assert_eq!((retry.name.as_str(), retry.begin - ZERO, retry.args["attempt"].as_str()), ("retry", 1_010, "2"));
    assert_eq!(trace.parent_name(retry), Some("parse"));

    let threads: Vec<_> = trace.tracks.values().filter(|track| track.tid.is_some()).collect();
    let process = &trace.tracks[&threads[0].parent];
    assert_eq!((process.name.as_str(), process.pid), ("prog", Some(u64::from(std::process::id()))));
    assert_eq!((threads.len(), threads[0].pid), (1, process.pid));
    let [(clocks, primary)] = &trace.clocks[..] else { panic!("{:?}", trace.clocks) };
    assert_eq!((&clocks[..2], *primary), ([(1, ZERO + 1_750), (3, 1_000_001_750)].as_slice(), 1));
    // The clock that goes on while the system sleeps is never behind.
    assert!(clocks[2].0 == 6 && clocks[2].1 >= 1_000_001_750, "{clocks:?}");
}

#[test]
fn equal_times_nest_as_the_scopes_did() {
    // The clock stands still but in one place: nearly every begin and end ties with another.
    let trace = trace(|_, clock| {
        let _a = scope!("a");
        {
            let _b = scope!("b");
            let _c = scope!("c");
            clock.advance(ns(5));
        }
        drop(scope!("d"));
        let _e = scope!("e");
    });
    let found: Vec<_> = trace.slices.iter().map(|slice| (shape(slice), trace.parent_name(slice))).collect();
    let expected = [
        (("a", 0, 5, 0), None),
        (("b", 0, 5, 1), Some("a")),
        (("c", 0, 5, 2), Some("b")),
        (("d", 5, 0, 1), Some("a")),
        (("e", 5, 0, 1), Some("a")),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_parent_that_comes_batches_after_its_children_is_around_them() {
    let trace = trace(|tele, clock| {
        drop(scope!("before"));
        clock.advance(ns(100));
        let _outer = scope!("outer");
        clock.advance(ns(1));
        let _inner = scope!("inner");
        for _ in 0..3 {
            clock.advance(ns(10));
            {
                let _leaf = scope!("leaf");
                clock.advance(ns(10));
            }
            assert!(tele.flush(LONG).is_complete()); // the leaf is written before the scopes around it
        }
    });
    assert_eq!(shape(trace.slice("outer")), ("outer", 100, 61, 0));
    assert_eq!(shape(trace.slice("inner")), ("inner", 101, 60, 1));
    let leaves: Vec<_> = trace.slices.iter().filter(|slice| slice.name == "leaf").map(shape).collect();
    assert_eq!(leaves, [("leaf", 111, 10, 2), ("leaf", 131, 10, 2), ("leaf", 151, 10, 2)]);
}

#[test]
fn where_the_clock_is_too_coarse_a_late_parent_begins_a_nanosecond_earlier() {
    let trace = trace(|tele, clock| {
        clock.advance(ns(100));
        let _outer = scope!("outer");
        {
            let _leaf = scope!("leaf"); // the same nanosecond
            clock.advance(ns(10));
        }
        assert!(tele.flush(LONG).is_complete());
        clock.advance(ns(10));
    });
    assert_eq!(shape(trace.slice("outer")), ("outer", 99, 21, 0));
    assert_eq!(shape(trace.slice("leaf")), ("leaf", 100, 10, 1));
}

#[test]
fn where_there_is_no_room_for_that_it_goes_to_a_track_of_its_own() {
    let trace = trace(|tele, clock| {
        {
            let _before = scope!("before");
            clock.advance(ns(100));
        }
        let _outer = scope!("outer"); // begins where `before` ends and `leaf` begins
        {
            let _leaf = scope!("leaf");
            clock.advance(ns(10));
        }
        assert!(tele.flush(LONG).is_complete());
    });
    let outer = trace.slice("outer");
    assert_eq!(shape(outer), ("outer", 100, 10, 0));
    assert_eq!(outer.track, format!("{} (2)", trace.slice("leaf").track));
    assert_eq!(trace.tracks[&outer.track_id].parent, trace.slice("leaf").track_id);
}

#[test]
fn scopes_that_closed_out_of_order_do_not_share_a_track() {
    let trace = trace(|_, clock| {
        let first = scope!("first");
        clock.advance(ns(10));
        let second = scope!("second");
        clock.advance(ns(10));
        drop(first);
        clock.advance(ns(10));
        drop(second);
    });
    assert_eq!(shape(trace.slice("first")), ("first", 0, 20, 0));
    assert_eq!(shape(trace.slice("second")), ("second", 10, 20, 0));
    assert_ne!(trace.slice("first").track, trace.slice("second").track);
}

#[test]
fn a_carried_context_is_a_flow_from_thread_to_thread() {
    let trace = trace(|tele, clock| {
        let request = scope!("request");
        let carrier = request.carrier();
        clock.advance(ns(10));
        thread::scope(|threads| {
            let worker = thread::Builder::new().name("worker".into());
            let job = || {
                let _current = tele.override_current();
                let _attached = carrier.attach();
                let _job = scope!("job");
                clock.advance(ns(10));
                let _step = scope!("step");
            };
            worker.spawn_scoped(threads, job).unwrap().join().unwrap();
        });
        let after = scope!("after");
        after.link(carrier);
    });
    let (request, job, step, after) =
        (trace.slice("request"), trace.slice("job"), trace.slice("step"), trace.slice("after"));
    assert_eq!((job.track.as_str(), job.depth, step.depth), ("worker", 0, 1));
    let arrow = |from: &Slice, to: &Slice| from.flows.iter().filter(|flow| to.flows.contains(flow)).count();
    assert_eq!((arrow(request, job), arrow(request, after), arrow(job, after)), (1, 1, 0));
    // A child on its parent's own stack needs no arrow.
    assert_eq!(step.flows.len(), 1);
}

#[test]
fn a_link_to_a_scope_that_was_written_before_is_a_flow_too() {
    let trace = trace(|tele, clock| {
        let cause = scope!("cause");
        let carrier = cause.carrier();
        clock.advance(ns(10));
        drop(cause);
        assert!(tele.flush(LONG).is_complete());
        let effect = scope!("effect");
        effect.link(carrier);
        effect.link(carrier);
    });
    let (cause, effect) = (trace.slice("cause"), trace.slice("effect"));
    assert_eq!(effect.flows.iter().filter(|flow| cause.flows.contains(flow)).count(), 1, "{cause:?} {effect:?}");
}

#[test]
fn futures_that_take_turns_have_tracks_of_their_own() {
    use std::{
        future::poll_fn,
        pin::pin,
        task::{Context, Poll, Waker},
    };
    let trace = trace(|_, clock| {
        // A future that does a piece of work in each of two polls.
        let work = |name: &'static str| {
            let mut polls = 0;
            poll_fn(move |_| {
                let _piece = Telemetry::current().scope(name);
                clock.advance(ns(10));
                polls += 1;
                if polls < 2 { Poll::Pending } else { Poll::Ready(()) }
            })
        };
        let mut a = pin!(work("piece_a").in_scope(scope!("a")));
        let mut b = pin!(work("piece_b").in_scope(scope!("b")));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let _ = a.as_mut().poll(&mut context);
            let _ = b.as_mut().poll(&mut context);
        }
    });
    assert_eq!((shape(trace.slice("a")), shape(trace.slice("b"))), (("a", 0, 30, 0), ("b", 0, 40, 0)));
    let pieces: Vec<_> = trace.slices.iter().filter(|slice| slice.name.starts_with("piece")).map(shape).collect();
    assert_eq!(pieces, [("piece_a", 0, 10, 0), ("piece_b", 10, 10, 0), ("piece_a", 20, 10, 0), ("piece_b", 30, 10, 0)]);
    let tracks: std::collections::HashSet<u64> =
        ["a", "b", "piece_a"].map(|name| trace.slices.iter().find(|slice| slice.name == name).unwrap().track_id).into();
    assert_eq!(tracks.len(), 3, "two futures and what their thread really did");
}

#[test]
fn futures_within_a_scope_leave_the_threads_track_to_what_ran() {
    use std::{
        future::poll_fn,
        pin::pin,
        task::{Context, Poll, Waker},
    };
    let trace = trace(|_, clock| {
        let _join = scope!("join");
        let work = || {
            let mut polls = 0;
            poll_fn(move |_| {
                let _piece = scope!("piece");
                clock.advance(ns(10));
                polls += 1;
                if polls < 2 { Poll::Pending } else { Poll::Ready(()) }
            })
        };
        // Two of the same name, so that no path tells them apart.
        let mut a = pin!(work().in_scope(scope!("read")));
        let mut b = pin!(work().in_scope(scope!("read")));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let _ = a.as_mut().poll(&mut context);
            let _ = b.as_mut().poll(&mut context);
        }
    });
    let join = trace.slice("join");
    assert_eq!(shape(join), ("join", 0, 40, 0));
    let pieces: Vec<_> = trace.slices.iter().filter(|slice| slice.name == "piece").collect();
    assert!(pieces.iter().all(|piece| trace.parent_name(piece) == Some("join")), "{pieces:?}");
    let reads: Vec<_> = trace.slices.iter().filter(|slice| slice.name == "read").collect();
    let tracks: Vec<String> = reads.iter().map(|read| read.track.clone()).collect();
    assert_eq!(tracks, [format!("{} (2)", join.track), format!("{} (3)", join.track)]);
}

#[test]
fn scopes_between_that_are_not_recorded_leave_no_gap() {
    let trace = trace(|tele, clock| {
        tele.record_paths("outer.middle", false);
        let _outer = scope!("outer");
        for _ in 0..2 {
            clock.advance(ns(1));
            let _middle = scope!("middle");
            let _leaf = scope!("leaf");
            clock.advance(ns(10));
        }
    });
    let leaves: Vec<_> = trace.slices.iter().filter(|slice| slice.name == "leaf").collect();
    assert_eq!((trace.slices.len(), leaves.len()), (3, 2));
    assert!(leaves.iter().all(|leaf| trace.parent_name(leaf) == Some("outer")), "{leaves:?}");
}

#[test]
fn a_future_alone_on_its_thread_is_around_its_children() {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };
    let trace = trace(|_, clock| {
        let body = async {
            let _child = scope!("child");
            clock.advance(ns(10));
        };
        let mut future = pin!(body.in_scope(scope!("task")));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
    assert_eq!(shape(trace.slice("task")), ("task", 0, 10, 0));
    assert_eq!(trace.parent_name(trace.slice("child")), Some("task"));
}

#[test]
fn numbers_become_counters_and_other_values_instants() {
    let trace = trace(|tele, clock| {
        tele.describe("bytes", "By", "");
        let _job = scope!("job");
        metric!("size", 7);
        metric!("size", 2.5, kind = "x");
        metric!("state", "ready", why = "asked");
        metric!("odd", f64::NAN);
        count!("bytes", 512, kind = "a");
        count!("bytes", 8, kind = "a");
        gauge!("load", 0.5);
        histogram!("latency", 3.0);
        histogram!("latency", 4.0);
        clock.advance(ns(100));
    });
    let mut counters = trace.counters.clone();
    counters.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.cmp(&b.1)));
    counters.dedup();
    let expected = [
        ("job.bytes{kind=\"a\"}", 100, 520.0),
        ("job.latency (values)", 100, 2.0),
        ("job.load", 100, 0.5),
        ("job.size", 0, 7.0),
        ("job.size", 0, 2.5),
    ];
    let found: Vec<_> = counters.iter().map(|(name, at, value)| (name.as_str(), at - ZERO, *value)).collect();
    assert_eq!(found, expected);
    let units: Vec<_> = trace.tracks.values().filter_map(|track| track.unit.as_deref()).collect();
    assert_eq!(units, ["By"]);
    let instants: Vec<_> = trace.instants.iter().map(|it| (it.name.as_str(), it.args["value"].as_str())).collect();
    assert_eq!(instants, [("job.state", "ready"), ("job.odd", "NaN")]);
    assert_eq!(trace.instants[0].args["why"], "asked");
}

#[test]
fn a_jump_of_the_wall_clock_moves_nothing() {
    let trace = trace(|tele, clock| {
        drop(scope!("before"));
        assert!(tele.flush(LONG).is_complete());
        clock.advance(ns(100));
        clock.set_unix_ns(5);
        let after = scope!("after");
        clock.advance(ns(10));
        after.event("point");
    });
    assert_eq!(shape(trace.slice("after")), ("after", 100, 10, 0));
    assert_eq!(trace.instants[0].begin - ZERO, 110);
}

#[test]
fn a_hundred_thousand_levels_are_all_there_and_none_is_too_deep() {
    const LEVELS: usize = 100_000;
    let trace = trace(|tele, clock| {
        let mut open: Vec<_> = (0..LEVELS)
            .map(|_| {
                clock.advance(ns(1));
                tele.scope("level")
            })
            .collect();
        while let Some(innermost) = open.pop() {
            clock.advance(ns(1));
            drop(innermost);
        }
    });
    assert_eq!(trace.slices.len(), LEVELS);
    let mut durations: Vec<u64> = trace.slices.iter().map(|slice| slice.end.unwrap() - slice.begin).collect();
    durations.sort_unstable();
    assert!(durations.iter().enumerate().all(|(at, duration)| *duration == 2 * at as u64 + 1));
    assert_eq!(trace.slices.iter().map(|slice| slice.depth).max(), Some(239));
}

#[test]
fn a_long_root_with_very_many_children_stays_one_tree() {
    let trace = trace(|_, clock| {
        let _root = scope!("root");
        for phase in ["one", "two"] {
            let _phase = Telemetry::current().scope(phase);
            for _ in 0..20_000 {
                clock.advance(ns(1));
                let _leaf = scope!("leaf");
                clock.advance(ns(1));
            }
        }
    });
    assert_eq!(trace.slices.len(), 40_003);
    assert_eq!(trace.parent_name(trace.slice("two")), Some("root"));
    assert!(trace.slices.iter().filter(|slice| slice.name == "leaf").all(|slice| slice.depth == 2));
}

#[test]
fn hostile_names_and_values_arrive_whole() {
    let hostile = "a\"b\\c\n\u{1b}[31m\u{9b}\u{202e}\u{200b};{}\u{0}é";
    let trace = trace(|tele, _| {
        let scope = tele.scope(hostile);
        scope.set("text", hostile);
        scope.fail(hostile);
    });
    let slice = &trace.slices[0];
    assert_eq!(
        (slice.name.as_str(), slice.args["text"].as_str(), slice.args["error_type"].as_str()),
        (hostile, hostile, hostile)
    );
}

#[test]
fn a_file_may_be_cut_between_any_two_packets() {
    let folder = Folder::new();
    let path = folder.file("trace");
    let tele = Telemetry::builder().reporter(Perfetto::create(&path, Config::default()).unwrap()).build();
    for _ in 0..10 {
        let _outer = scope!(tele, "outer", n = 1);
        let _inner = scope!(tele, "inner");
    }
    assert!(tele.flush(LONG).is_complete());
    let bytes = std::fs::read(&path).unwrap();
    let whole = Trace::parse(&bytes);
    let (mut cuts, mut at) = (0, 0);
    while at < bytes.len() {
        // The head of a packet: its tag and a length of one or two bytes.
        let (length, head) = match bytes[at + 1] {
            low @ 0..=127 => (usize::from(low), 2),
            low => (usize::from(low & 127) | usize::from(bytes[at + 2]) << 7, 3),
        };
        at += head + length;
        cuts += 1;
        assert!(Trace::parse(&bytes[..at]).packets == cuts);
    }
    assert_eq!((cuts, whole.slices.len()), (whole.packets, 20));
}

#[test]
fn the_encoder_alone_makes_the_same_bytes_from_the_same_batches() {
    let recording = Recording::new(1 << 20);
    let tele = Telemetry::builder().reporter(recording.clone()).build();
    for _ in 0..100 {
        let _outer = scope!(tele, "outer", n = 1);
        let _inner = scope!(tele, "inner");
    }
    assert!(tele.flush(LONG).is_complete());
    let encode = || {
        let mut encoder = Encoder::new(Config::default());
        let mut out = Vec::new();
        recording.for_each_batch(|batch| encoder.batch(batch, &mut out));
        out
    };
    assert_eq!(encode(), encode());
    assert_eq!(Trace::parse(&encode()).slices.len(), 200);
}

/// Takes so many bytes, then fails.
#[derive(Clone, Default)]
struct Failing(Arc<Mutex<(Vec<u8>, usize)>>);

impl io::Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        let room = state.1.min(bytes.len());
        if room == 0 {
            return Err(io::Error::other("full"));
        }
        state.1 -= room;
        state.0.extend_from_slice(&bytes[..room]);
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_a_writer_does_not_take_is_counted() {
    let writer = Failing::default();
    writer.0.lock().unwrap().1 = 1_000_000;
    let tele = Telemetry::builder().reporter(Perfetto::to_writer(writer.clone(), Config::default())).build();
    drop(scope!(tele, "fits"));
    assert!(tele.flush(LONG).is_complete());
    let whole = writer.0.lock().unwrap().0.len();
    writer.0.lock().unwrap().1 = 10;
    for _ in 0..100 {
        drop(scope!(tele, "too_much"));
    }
    tele.flush(LONG);
    let stats = tele.stats();
    let it = &stats.reporters()[0];
    assert_eq!((it.delivered(), it.dropped().of(DropReason::ReporterFailed), it.queued()), (1, 100, 0), "{stats}");
    assert_eq!(writer.0.lock().unwrap().0.len(), whole + 10);
}

#[test]
fn a_full_file_takes_no_more_and_says_so() {
    let folder = Folder::new();
    let path = folder.file("trace");
    let config = Config::default().max_bytes(2_000);
    let tele = Telemetry::builder().reporter(Perfetto::create(&path, config).unwrap()).build();
    for _ in 0..5 {
        drop(scope!(tele, "fits"));
        assert!(tele.flush(LONG).is_complete());
    }
    for _ in 0..100 {
        drop(scope!(tele, "too_much"));
    }
    assert!(tele.flush(LONG).is_complete());
    let stats = tele.stats();
    let it = &stats.reporters()[0];
    // A batch is written whole or not at all.
    assert_eq!(it.delivered() + it.dropped().of(DropReason::SpoolFull), 105, "{stats}");
    assert!((5..105).contains(&it.delivered()), "{stats}");
    assert_eq!(Trace::read(&path).slices.len() as u64, it.delivered());
    assert!(std::fs::metadata(&path).unwrap().len() <= 2_000);
}

#[test]
fn a_folder_that_is_not_there_is_told_at_once() {
    let error = Perfetto::create("/nowhere/at/all/trace", Config::default()).unwrap_err();
    assert!(error.to_string().starts_with("trace: create /nowhere/at/all/trace: "), "{error}");
    assert!(!error.is_temporary());
}

#[test]
fn links_and_carriers_of_nothing_are_no_flows() {
    let trace = trace(|_, _| {
        let scope = scope!("alone");
        scope.link(Carrier::current());
    });
    assert!(trace.slice("alone").flows.iter().all(|flow| *flow != 0));
}
