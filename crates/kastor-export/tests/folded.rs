//! Folded stacks: self time per path, in lines that nothing in a name can break.

mod reading;

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use kastor::{Error, MockClock, Reporter, Snapshot, Telemetry, background, scope};
use kastor_export::folded::{Config, Folded, Unit, folded};
use reading::Folder;

/// Only ever an upper bound.
const LONG: Duration = Duration::from_secs(60);

/// Folds every snapshot; keeps the last text.
#[derive(Clone, Default)]
struct Last(Arc<Mutex<String>>, Config);

impl Reporter for Last {
    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        *self.0.lock().unwrap() = folded(snapshot, &self.1);
        Ok(())
    }
}

/// The lines for what a program did, sorted.
fn lines(config: Config, program: impl FnOnce(&Telemetry, &MockClock)) -> Vec<String> {
    let (last, clock) = (Last(Arc::default(), config), MockClock::new());
    let tele = Telemetry::builder().reporter(background(last.clone())).clock(clock.clone()).build();
    {
        let _current = tele.override_current();
        program(&tele, &clock);
    }
    assert!(tele.flush(LONG).is_complete());
    let mut lines: Vec<String> = last.0.lock().unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn spend(clock: &MockClock, ns: u64) {
    clock.advance(Duration::from_nanos(ns));
}

fn pipeline(_: &Telemetry, clock: &MockClock) {
    let _pipeline = scope!("pipeline");
    spend(clock, 1_200);
    for _ in 0..2 {
        let _parse = scope!("parse");
        spend(clock, 170_000);
        let _idle = scope!("nothing");
    }
}

#[test]
fn a_line_is_a_path_and_its_self_time() {
    assert_eq!(lines(Config::default(), pipeline), ["pipeline 1200", "pipeline;parse 340000"]);
    let us = Config::default().unit(Unit::Microseconds);
    assert_eq!(lines(us, pipeline), ["pipeline 1", "pipeline;parse 340"]);
}

#[test]
fn dots_in_a_name_make_no_frame() {
    let found = lines(Config::default(), |_, clock| {
        let _outer = scope!("http.server");
        spend(clock, 1);
        let _inner = scope!("db.query");
        spend(clock, 2);
        let _leaf = scope!("row");
        spend(clock, 3);
    });
    assert_eq!(found, ["http.server 1", "http.server;db.query 2", "http.server;db.query;row 3"]);
}

#[test]
fn a_parent_that_is_still_open_has_its_frames() {
    let (last, clock) = (Last::default(), MockClock::new());
    let tele = Telemetry::builder().reporter(background(last.clone())).clock(clock.clone()).build();
    let _current = tele.override_current();
    let _a = scope!("a");
    let _b = scope!("b");
    {
        let _c = scope!("c");
        spend(&clock, 5);
    }
    assert!(tele.flush(LONG).is_complete());
    assert_eq!(*last.0.lock().unwrap(), "a;b;c 5\n");
}

#[test]
fn nothing_in_a_name_breaks_a_line() {
    let found = lines(Config::default(), |tele, clock| {
        for name in ["a;b", "two words", "line\nbreak\r", "tab\t", "\u{1b}[31m", "\u{202e}x\u{200b}", "\u{2028}", "é😀"]
        {
            let _scope = tele.scope(name);
            spend(clock, 7);
        }
    });
    let mut expected = ["a_b 7", "two_words 7", "line_break_ 7", "tab_ 7", "_[31m 7", "_x_ 7", "_ 7", "é😀 7"];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn the_deepest_paths_share_one_line() {
    let found = lines(Config::default(), |tele, clock| {
        let mut open: Vec<_> = (0..300).map(|_| tele.scope("x")).collect();
        while let Some(innermost) = open.pop() {
            spend(clock, 1);
            drop(innermost);
        }
    });
    assert_eq!(found.len(), 257);
    let (deeper, own): (Vec<_>, Vec<_>) = found.iter().partition(|line| line.contains("(deeper)"));
    assert_eq!((deeper.len(), own.len()), (1, 256));
    // What is below the limit shares one path, nested times and all: the sums around it are not those of one scope.
    let exact = own.iter().filter(|line| line.ends_with("x 1")).count();
    assert!(exact >= 255, "{own:?}");
}

#[test]
fn the_file_has_the_newest_sums_after_every_flush() {
    let folder = Folder::new();
    let path = folder.file("stacks.folded");
    let clock = MockClock::new();
    let reporter = Folded::create(&path, Config::default()).unwrap();
    let tele = Telemetry::builder().reporter(reporter).clock(clock.clone()).build();
    for round in 1..=3 {
        {
            let _scope = scope!(tele, "job");
            spend(&clock, 10);
        }
        assert!(tele.flush(LONG).is_complete());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("job {}\n", round * 10));
    }
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left there");
    let error = Folded::create("/nowhere/at/all", Config::default()).unwrap_err();
    assert!(error.to_string().starts_with("trace: create /nowhere/at/all: "), "{error}");
}
