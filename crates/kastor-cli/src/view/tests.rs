//! The answers to what a page asks, where only a part of a capture is in memory: by the questions of a page, on captures
//! whose content is known. What a browser sees of all this is tested by `tests/view.rs`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kastor::{MockClock, Telemetry, metric, scope};
use serde_json::Value;

use super::answers::{Parameters, answer};
use super::lanes;
use super::scopes::{Raw, Scopes, flag};
use super::state::State;
use crate::report::Tree;

#[path = "../../tests/common/captures.rs"]
mod captures;

/// 200 jobs of 10 µs, of which every tenth fails, each with two steps of 2 and 3 µs in it; many blocks.
fn jobs(telemetry: &Telemetry, clock: &MockClock) {
    let _current = telemetry.override_current();
    for number in 0..200_u64 {
        let job = scope!("job", number = number);
        captures::pass(clock, 1_000);
        {
            let _step = scope!("step.one");
            captures::pass(clock, 2_000);
        }
        {
            let _step = scope!("step.two", rows = number * 2);
            captures::pass(clock, 3_000 + number);
        }
        captures::pass(clock, 4_000);
        if number % 10 == 0 {
            job.fail("timeout");
        }
        drop(job);
        metric!("queue", number);
        if number % 7 == 0 {
            telemetry.flush(Duration::from_secs(10));
        }
    }
}

struct Kept {
    _folder: tempfile::TempDir,
    file: PathBuf,
}

fn kept() -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.kcap");
    captures::recorded(&file, jobs);
    Kept { _folder: folder, file }
}

fn state(file: &Path, most_scopes: u64) -> State {
    State::load(&[file.to_owned()], &[], most_scopes).unwrap()
}

fn ask(state: &State, what: &str, parameters: &[(&str, &str)]) -> Value {
    let parameters: Parameters = parameters.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let response = answer(state, what, &parameters).unwrap_or_else(|refused| refused.response());
    let bytes = futures_lite::future::block_on(axum::body::to_bytes(response.into_body(), usize::MAX)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// An answer with the texts of paths in place of their numbers, which differ: what is in memory knows of no path without scopes.
fn told(state: &State, mut answer: Value) -> Value {
    let texts = ask(state, "paths", &[])["texts"].clone();
    let tell = |paths: &mut Value| {
        for path in paths.as_array_mut().unwrap() {
            *path = texts[path.as_u64().unwrap() as usize].clone();
        }
    };
    for lane in answer["lanes"].as_array_mut().into_iter().flatten() {
        tell(&mut lane["path"]);
    }
    for row in answer["rows"].as_array_mut().into_iter().flatten() {
        row["path"] = texts[row["path"].as_u64().unwrap() as usize].clone();
    }
    if answer["calls"].is_array() {
        tell(&mut answer["path"]);
    }
    answer
}

fn sum(column: &Value) -> u64 {
    column.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).sum()
}

#[test]
fn what_is_read_block_by_block_is_drawn_as_if_all_were_in_memory() {
    let kept = kept();
    let (whole, part) = (state(&kept.file, u64::MAX), state(&kept.file, 150));
    let overview = ask(&part, "overview", &[]);
    assert_eq!(overview["captures"][0]["isIndexOnly"], true);
    assert_eq!(overview["captures"][0]["missingEvents"], Value::Null);
    for (from, to) in [("100000", "250000"), ("1000000", "1000500"), ("0", "20000"), ("1999000", "2300000")] {
        for filter in ["", "error", "step", "attr:number=1?", "duration>9us"] {
            let question = [("from", from), ("to", to), ("pixels", "200"), ("filter", filter)];
            let tell = |state: &State, what: &str, question: &[_]| told(state, ask(state, what, question));
            let (seen, expected) = (tell(&part, "timeline", &question), tell(&whole, "timeline", &question));
            assert_eq!(seen["isDensity"], false, "{from}");
            assert_eq!(seen["lanes"], expected["lanes"], "from {from} with '{filter}'");
            let question = [&question[..], &[("limit", "5"), ("sort", "-start")]].concat();
            assert_eq!(tell(&part, "list", &question), tell(&whole, "list", &question), "from {from} with '{filter}'");
        }
    }
}

#[test]
fn from_afar_the_index_shows_how_much_is_where() {
    let kept = kept();
    let part = state(&kept.file, 150);
    let all = ask(&part, "timeline", &[("pixels", "100")]);
    assert_eq!((&all["isDensity"], &all["truncated"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(sum(&all["lanes"][0]["count"]), 800, "600 scopes and 200 metric events");
    assert_eq!(sum(&all["lanes"][0]["failed"]), 20);
    assert!(all["lanes"][0]["start"].as_array().unwrap().len() <= 100);
    assert!(all["lanes"][0]["path"].as_array().unwrap().iter().all(|path| *path == -1));
}

#[test]
fn trees_and_lists_of_a_capture_that_is_not_in_memory_are_the_same() {
    let kept = kept();
    let (whole, part) = (state(&kept.file, u64::MAX), state(&kept.file, 150));
    for filter in ["", "error", "-error step", "attr:rows=398", "duration>3us path:job.*", "nothing"] {
        let tree = |state: &State| {
            let tree = told(state, ask(state, "tree", &[("filter", filter)]));
            ["path", "calls", "errors", "totalNs", "selfNs", "minNs", "maxNs", "p95Ns", "exact"]
                .map(|column| tree[column].clone())
        };
        assert_eq!(tree(&part), tree(&whole), "'{filter}'");
        for sort in ["duration", "-duration", "start", "-start"] {
            let question = [("filter", filter), ("sort", sort), ("limit", "7")];
            let (seen, expected) =
                (told(&part, ask(&part, "list", &question)), told(&whole, ask(&whole, "list", &question)));
            let rows = |list: &Value| -> Vec<Value> {
                let columns =
                    |row: &Value| ["path", "startNs", "durationNs", "errorType"].map(|column| row[column].clone());
                list["rows"].as_array().unwrap().iter().map(|row| columns(row).to_vec().into()).collect()
            };
            // Of equally long ones any may be named.
            let key = |list: &Value| -> Vec<Value> {
                let column = if sort.ends_with("start") { "startNs" } else { "durationNs" };
                list["rows"].as_array().unwrap().iter().map(|row| row[column].clone()).collect()
            };
            assert_eq!(key(&seen), key(&expected), "'{filter}' by {sort}");
            if sort.ends_with("start") {
                assert_eq!(rows(&seen), rows(&expected), "'{filter}' by {sort}");
            }
        }
    }
    let slowest = ask(&part, "list", &[("limit", "1"), ("filter", "path:job")]);
    let detail = ask(&part, "scope", &[("ref", slowest["rows"][0]["ref"].as_str().unwrap())]);
    assert_eq!((&detail["name"], &detail["durationNs"]), (&"job".into(), &10_199.into()));
    assert_eq!(detail["attributes"], serde_json::json!([["number", "integer", 199]]));
}

#[test]
fn blocks_that_reach_in_from_afar_give_way_and_the_answer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.kcap");
    // Every block has a scope that was open from the very beginning.
    captures::recorded(&file, |telemetry, clock| {
        let _current = telemetry.override_current();
        let mut open = Vec::new();
        for _ in 0..40 {
            open.push(scope!("long"));
        }
        for _ in 0..40 {
            for _ in 0..20 {
                let _short = scope!("short");
                captures::pass(clock, 1_000);
            }
            drop(open.pop());
            telemetry.flush(Duration::from_secs(10));
        }
    });
    let part = state(&file, 100);
    let near = ask(&part, "timeline", &[("from", "400000"), ("to", "404000"), ("pixels", "100")]);
    assert_eq!((&near["isDensity"], &near["truncated"]), (&Value::Bool(false), &Value::Bool(true)));
    assert!(sum(&near["lanes"][0]["count"]) <= 100);
}

#[test]
fn one_file_of_more_scopes_than_are_kept_in_memory_is_refused() {
    let kept = kept();
    let to = kept.file.with_extension("html");
    let captures = state(&kept.file, 150).captures();
    let refused = super::html::write(&[&captures[0]], &to).unwrap_err().to_string();
    assert!(refused.contains("800 events are too many") && refused.contains("without --html"), "{refused}");
    assert!(!to.exists());
}

/// Scopes of two threads at random: nested, in turns, from elsewhere, without length.
fn random_scopes(seed: u64) -> Vec<Raw> {
    let mut state = seed | 1;
    let mut random = |most: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % most
    };
    let mut scopes: Vec<Raw> = Vec::new();
    for record in 0..400_u32 {
        let begin = random(2_000);
        let end = begin + random(1 + 300 / (1 + u64::from(record) % 10));
        let parent = if random(3) == 0 { 0 } else { scopes.get(random(400) as usize).map_or(0, |scope| scope.span) };
        let bits = [flag::TASK, flag::MOVED | flag::TASK | flag::CARRIED, flag::CARRIED, flag::FAILED, 0, 0, 0, 0];
        scopes.push(Raw {
            begin,
            end,
            start_ns: begin,
            duration_ns: end - begin,
            span: u64::from(record) + 1,
            parent,
            path: 0,
            record,
            thread: random(2) as u32,
            flags: bits[random(8) as usize],
        });
    }
    scopes
}

#[test]
fn boxes_of_a_row_never_overlap_and_what_is_below_another_is_inside_of_it() {
    for seed in 1..200 {
        let scopes = Scopes::new(random_scopes(seed * 0x9e37), vec![(0, 0)], 2, &Tree::default());
        assert_eq!(scopes.len(), 400);
        assert_eq!(scopes.lanes.iter().map(|lane| lane.scopes).sum::<u64>(), 400);
        for lane in &scopes.lanes {
            let rows = &scopes.rows[lane.rows.start as usize..lane.rows.end as usize];
            for (level, row) in rows.iter().enumerate() {
                for place in row.scopes.clone() {
                    let (start, end) = (scopes.start_ns[place], scopes.end_ns(place));
                    if place + 1 < row.scopes.end {
                        assert!(end <= scopes.start_ns[place + 1], "seed {seed}: two boxes at once");
                    }
                    let encloses = |above: usize| scopes.start_ns[above] <= start && scopes.end_ns(above) >= end;
                    // On the last lane of a thread nothing nests.
                    let is_inside = level == 0 || lane.number == 64 || rows[level - 1].scopes.clone().any(encloses);
                    assert!(is_inside, "seed {seed}: a box below none");
                    assert_eq!(scopes.of_origin(scopes.origin(place).unwrap()), Some(place));
                }
            }
        }
    }
}

#[test]
fn more_futures_at_once_than_there_are_lanes_find_levels_instead() {
    let future = |record: u32| Raw {
        begin: u64::from(record),
        end: 1_000 + u64::from(record),
        start_ns: u64::from(record),
        duration_ns: 1_000,
        span: u64::from(record) + 1,
        parent: 0,
        path: 0,
        record,
        thread: 0,
        flags: flag::TASK,
    };
    let scopes: Vec<Raw> = (0..500).map(future).collect();
    let places = lanes::place(&scopes, &Tree::default());
    assert_eq!(places.iter().map(|place| place.lane).max(), Some(64));
    assert_eq!(places.iter().map(|place| place.level).max(), Some(500 - 64 - 1));
}
