//! Clocks: durations come from the monotonic clock alone; the wall clock only says when.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kastor::{Builder, Metric, MockClock, Recording, Reporter, Telemetry, Timing, metric, scope};

/// Only ever an upper bound: nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(30);

/// What a timing event says about time, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    duration: u64,
    monotonic: (u64, u64),
    unix: (u64, u64),
}

impl Times {
    fn of(event: &Timing<'_>) -> Self {
        Self {
            duration: event.duration_ns(),
            monotonic: (event.start_monotonic_ns(), event.end_monotonic_ns()),
            unix: (event.start_unix_ns(), event.end_unix_ns()),
        }
    }

    #[track_caller]
    fn assert_consistent(self) {
        assert_eq!(self.monotonic.1, self.monotonic.0 + self.duration, "{self:?}");
        assert_eq!(self.unix.1, self.unix.0 + self.duration, "{self:?}");
    }
}

/// Keeps the times of every timing, inline.
#[derive(Clone, Default)]
struct Inline(Arc<Mutex<Vec<Times>>>);

impl Reporter for Inline {
    fn record_timing(&self, event: &Timing<'_>) {
        self.0.lock().unwrap().push(Times::of(event));
    }
    fn record_metric(&self, event: &Metric<'_>) {
        let (monotonic, unix) = (event.monotonic_ns(), event.unix_ns());
        self.0.lock().unwrap().push(Times { duration: 0, monotonic: (monotonic, monotonic), unix: (unix, unix) });
    }
}

struct Program {
    tele: Telemetry,
    inline: Inline,
    recording: Recording,
}

impl Program {
    fn new(clock: impl FnOnce(Builder) -> Builder) -> Self {
        let (inline, recording) = (Inline::default(), Recording::new(1 << 20));
        let builder = Telemetry::builder().reporter(inline.clone()).reporter(recording.clone());
        Self { tele: clock(builder).build(), inline, recording }
    }

    fn recorded(&self) -> Vec<Times> {
        assert!(self.tele.flush(LONG).is_complete());
        let mut all = Vec::new();
        self.recording.for_each_batch(|batch| all.extend(batch.timings().map(|timing| Times::of(&timing))));
        all
    }
}

const MONOTONIC: u64 = 1_000_000_000;
const UNIX: u64 = 1_000_000_000_000_000_000;

#[test]
fn a_mock_clock_moves_only_when_told_and_every_time_follows_from_it() {
    let clock = MockClock::new();
    let program = Program::new(|builder| builder.clock(clock.clone()));
    clock.advance(Duration::from_nanos(5));
    {
        let _outer = program.tele.scope("outer");
        clock.advance(Duration::from_nanos(7));
        drop(program.tele.scope("inner"));
        clock.advance(Duration::from_nanos(11));
    }
    let at = |start: u64, duration| Times {
        duration,
        monotonic: (MONOTONIC + start, MONOTONIC + start + duration),
        unix: (UNIX + start, UNIX + start + duration),
    };
    let expected = [at(12, 0), at(5, 18)];
    assert_eq!(*program.inline.0.lock().unwrap(), expected);
    assert_eq!(program.recorded(), expected);
}

#[test]
fn no_jump_of_the_wall_clock_reaches_a_duration() {
    // Back to 1970, to before the start, to the far future, and by a nanosecond.
    for jump in [0, UNIX / 2, UNIX - 1, UNIX + 1, UNIX * 2, u64::MAX] {
        let clock = MockClock::new();
        let program = Program::new(|builder| builder.clock(clock.clone()));
        for (at, step) in [0, 1, 999, 1_000_000_000, 3_600_000_000_000].into_iter().enumerate() {
            let _outer = program.tele.scope("outer");
            let before = clock.monotonic_ns();
            {
                let _inner = program.tele.scope("inner");
                clock.advance(Duration::from_nanos(step));
                clock.set_unix_ns(jump);
            }
            let inner = *program.inline.0.lock().unwrap().last().unwrap();
            assert_eq!((inner.duration, inner.monotonic.0), (step, before), "jump {jump}, step {at}");
        }
        let inline = program.inline.0.lock().unwrap().clone();
        let recorded = program.recorded();
        assert_eq!(recorded.len(), 10);
        for (inline, recorded) in inline.iter().zip(&recorded) {
            assert_eq!((inline.duration, inline.monotonic), (recorded.duration, recorded.monotonic));
            assert!(inline.unix.1 >= inline.unix.0 && recorded.unix.1 >= recorded.unix.0);
            if jump < u64::MAX {
                inline.assert_consistent();
                recorded.assert_consistent();
            }
        }
        let report = program.tele.report();
        let inner = report.scope("outer.inner").unwrap();
        let total = Duration::from_nanos(1 + 999 + 1_000_000_000 + 3_600_000_000_000);
        assert_eq!((inner.total(), inner.min(), inner.max()), (total, Duration::ZERO, Duration::from_secs(3_600)));
    }
}

#[test]
fn the_wall_clock_is_followed_again_after_a_jump() {
    let clock = MockClock::new();
    let program = Program::new(|builder| builder.clock(clock.clone()));
    drop(program.tele.scope("before"));
    clock.set_unix_ns(UNIX * 2);
    clock.advance(Duration::from_secs(2));
    drop(program.tele.scope("after"));
    let times = program.inline.0.lock().unwrap().clone();
    assert_eq!(times[0].unix, (UNIX, UNIX));
    assert_eq!(times[1].unix, (UNIX * 2 + 2_000_000_000, UNIX * 2 + 2_000_000_000));
}

#[test]
fn a_metric_has_the_time_that_its_thread_read_last() {
    let clock = MockClock::new();
    let program = Program::new(|builder| builder.clock(clock.clone()));
    let _current = program.tele.override_current();
    let _outer = scope!("outer");
    clock.advance(Duration::from_millis(3));
    metric!("note", 1);
    drop(scope!("inner"));
    clock.advance(Duration::from_millis(3));
    metric!("note", 1);
    let starts = program.inline.0.lock().unwrap().iter().map(|it| it.monotonic.0 - MONOTONIC).collect::<Vec<_>>();
    assert_eq!(starts, [0, 3_000_000, 3_000_000]);
}

/// Monotonic nanoseconds as `Instant` counts them on this system.
#[cfg(unix)]
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) }, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Busy for that long, so that nothing but the clocks is measured.
fn spin(at_least: Duration) {
    let start = Instant::now();
    while start.elapsed() < at_least {
        std::hint::spin_loop();
    }
}

type Choice = fn(Builder) -> Builder;

fn real_clocks() -> [(&'static str, Choice); 2] {
    [("counter", |builder| builder), ("system", |builder| builder.system_clock())]
}

/// How far a duration lies outside of what `Instant` allows: longer than around it, or shorter than inside it.
fn error_of(measured: u64, outside: Duration, inside: Duration) -> u64 {
    let (outside, inside) = (outside.as_nanos() as u64, inside.as_nanos() as u64);
    measured.saturating_sub(outside) + inside.saturating_sub(measured)
}

/// The first durations rest on a baseline of microseconds. The best of several contexts counts: an interrupt between two
/// clocks is nobody's error.
#[test]
#[cfg_attr(miri, ignore = "no real time there")]
fn durations_agree_with_the_system_from_the_first_microseconds_on() {
    for (name, clock) in real_clocks() {
        for length in [0, 10, 100, 1_000, 20_000].map(Duration::from_micros) {
            let attempt = || {
                let program = Program::new(clock);
                spin(Duration::from_micros(10));
                let outside = Instant::now();
                let scope = program.tele.scope("step");
                let inside = Instant::now();
                spin(length);
                let inside = inside.elapsed();
                drop(scope);
                let outside = outside.elapsed();
                let inline = program.inline.0.lock().unwrap()[0].duration;
                error_of(inline, outside, inside).max(error_of(program.recorded()[0].duration, outside, inside))
            };
            let errors: Vec<u64> = (0..15).map(|_| attempt()).collect();
            let best = *errors.iter().min().unwrap();
            let allowed = 300 + length.as_nanos() as u64 / 1_000;
            println!("{name}, {length:?}: best {best} ns, worst {} ns", errors.iter().max().unwrap());
            assert!(best <= allowed, "{name}, {length:?}: off by {best} ns at best, {allowed} are allowed");
            let median = { errors }.select_nth_unstable(7).1.to_owned();
            assert!(median <= allowed, "{name}, {length:?}: off by {median} ns in the median, {allowed} are allowed");
        }
    }
}

#[test]
#[cfg(unix)]
#[cfg_attr(miri, ignore = "no real time there")]
fn start_and_end_lie_on_the_clocks_of_the_system() {
    for (name, clock) in real_clocks() {
        let program = Program::new(clock);
        let unix = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let before = (monotonic_ns(), unix());
        let scope = program.tele.scope("step");
        spin(Duration::from_millis(2));
        drop(scope);
        let after = (monotonic_ns(), unix());
        // A microsecond for the anchors, and 0.1 % of the time since the first of them.
        let slack = 20_000;
        for times in [program.inline.0.lock().unwrap()[0], program.recorded()[0]] {
            times.assert_consistent();
            let is_in = |(start, end): (u64, u64), low: u64, high: u64| start + slack >= low && end <= high + slack;
            assert!(is_in(times.monotonic, before.0, after.0), "{name}: {times:?}, {before:?} to {after:?}");
            // The wall clock may be set while the test runs, but hardly by more than this.
            let wide = 50_000_000;
            assert!(times.unix.0 + wide >= before.1 && times.unix.1 <= after.1 + wide, "{name}: {times:?}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "no real time there")]
fn later_scopes_never_start_before_earlier_ones_end() {
    for (name, clock) in real_clocks() {
        let program = Program::new(clock);
        (0..5_000).for_each(|_| drop(program.tele.scope("step")));
        let all = program.recorded();
        assert_eq!(all.len(), 5_000);
        for (at, pair) in all.windows(2).enumerate() {
            assert!(pair[1].monotonic.0 + 1 >= pair[0].monotonic.1, "{name}, {at}: {pair:?}");
            pair[0].assert_consistent();
        }
    }
}
