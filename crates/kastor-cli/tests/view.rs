//! `kastor view` over real sockets: what a page is told of captures with known content.

#[path = "common/captures.rs"]
mod captures;
mod common;
#[path = "common/viewer.rs"]
mod viewer;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use captures::{START_NS, pass, recorded};
use common::{kastor, transcript};
use kastor::{MockClock, Telemetry, count, gauge, histogram, metric, scope};
use kastor_export::capture::Capture;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use viewer::Viewer;

/// Two runs of a pipeline: 1 µs of its own, then two steps, of which the second failed once.
fn pipeline(telemetry: &Telemetry, clock: &MockClock) {
    let _current = telemetry.override_current();
    for run in 0..2_u64 {
        let pipeline = scope!("pipeline", run = run);
        pass(clock, 1_000);
        for rows in [10_u64, 20] {
            let _parse = scope!("parse", rows = rows);
            count!("rows", rows, kind = "csv");
            pass(clock, 100 * rows);
        }
        let exec = scope!("exec.all", job = "a | b", big = u64::MAX, share = 0.5, ok = true);
        gauge!("load", 0.5 + run as f64);
        histogram!("size", 8.0);
        metric!("ratio", 0.25 * (run + 1) as f64);
        exec.event_with("retry", &[("attempt", kastor::Value::U64(2))]);
        pass(clock, 5_000 + 1_000 * run);
        if run == 1 {
            exec.fail("timeout");
        }
        drop(exec);
        drop(pipeline);
    }
}

struct Kept {
    _folder: TempDir,
    file: PathBuf,
}

impl Kept {
    fn of(record: impl FnOnce(&Telemetry, &MockClock)) -> Kept {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.kcap");
        recorded(&file, record);
        Kept { _folder: folder, file }
    }

    /// Keeps the capture for as long as it is looked at.
    fn view(self) -> Viewed {
        Viewed { viewer: Viewer::start(&[self.file.to_str().unwrap()]), kept: self }
    }
}

struct Viewed {
    viewer: Viewer,
    kept: Kept,
}

impl std::ops::Deref for Viewed {
    type Target = Viewer;

    fn deref(&self) -> &Viewer {
        &self.viewer
    }
}

#[test]
fn the_overview_says_what_there_is_and_when() {
    let viewer = Kept::of(pipeline).view();
    let overview = viewer.json("/api/overview");
    let capture = &overview["captures"][0];
    assert_eq!((&overview["format"], &overview["live"]), (&json!(1), &json!(false)));
    assert_eq!(capture["label"], "run.kcap");
    assert_eq!(capture["startUnixNs"], START_NS.to_string());
    assert_eq!(
        (&capture["durationNs"], &capture["scopes"], &capture["failed"]),
        (&json!(19_000), &json!(8), &json!(1))
    );
    assert_eq!((&capture["missingEvents"], &capture["missing"]), (&json!(0), &Value::Null));
    assert_eq!(capture["processes"][0]["pid"], json!(std::process::id()));
    let lane = &capture["lanes"][0];
    assert_eq!(
        (&lane["kind"], &lane["levels"], &lane["scopes"], &lane["failed"]),
        (&json!("thread"), &json!(2), &json!(8), &json!(1))
    );
    let paths = viewer.json("/api/paths");
    let texts: Vec<&str> = paths["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for path in ["pipeline", "pipeline.parse", "pipeline.exec.all"] {
        assert!(texts.contains(&path), "{texts:?}");
    }
}

#[test]
fn boxes_are_exact_and_narrow_ones_become_one() {
    let viewer = Kept::of(pipeline).view();
    let near = viewer.json("/api/timeline?from=0&to=9000&pixels=9000");
    let lane = &near["lanes"][0];
    assert_eq!(lane["start"], json!([0, 1_000, 2_000, 4_000]));
    assert_eq!(lane["duration"], json!([9_000, 1_000, 2_000, 5_000]));
    assert_eq!(lane["level"], json!([0, 1, 1, 1]));
    assert_eq!(lane["count"], json!([1, 1, 1, 1]));
    assert!(lane["ref"].as_array().unwrap().iter().all(|it| it.as_str().unwrap().contains(':')));
    let far = viewer.json("/api/timeline?from=0&to=19000&pixels=1");
    let lane = &far["lanes"][0];
    assert_eq!((&lane["count"], &lane["failed"], &lane["ref"]), (&json!([2, 6]), &json!([0, 1]), &json!(["", ""])));
    let paths = viewer.json("/api/paths")["texts"].clone();
    let most = lane["path"][1].as_u64().unwrap() as usize;
    assert_eq!(paths[most], "pipeline.exec.all", "where most of the time went");
    let outside = viewer.json("/api/timeline?from=900000&to=900001&pixels=10");
    assert_eq!(outside["lanes"], json!([]));
}

#[test]
fn the_tree_has_the_figures_of_the_report() {
    let viewer = Kept::of(pipeline).view();
    let tree = viewer.json("/api/tree");
    let paths = viewer.json("/api/paths")["texts"].clone();
    let report = transcript(&mut kastor(&["report", viewer.kept.file.to_str().unwrap(), "--json"]));
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let rows = report["scopes"].as_array().unwrap();
    assert_eq!(tree["exact"], true);
    assert_eq!(tree["path"].as_array().unwrap().len(), rows.len());
    for (at, path) in tree["path"].as_array().unwrap().iter().enumerate() {
        let path = &paths[path.as_u64().unwrap() as usize];
        let row = rows.iter().find(|row| row["path"] == *path).unwrap();
        for (column, figure) in [
            ("calls", "calls"),
            ("errors", "errors"),
            ("totalNs", "total_ns"),
            ("selfNs", "self_ns"),
            ("minNs", "min_ns"),
            ("maxNs", "max_ns"),
            ("p50Ns", "p50_ns"),
            ("p95Ns", "p95_ns"),
            ("p99Ns", "p99_ns"),
        ] {
            assert_eq!(tree[column][at], row[figure], "{column} of {path}");
        }
    }
}

#[test]
fn scopes_without_a_record_are_in_the_tree_by_their_sums() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.kcap");
    let telemetry = Telemetry::builder().reporter(Capture::new(&file)).build();
    telemetry.record_paths("job.hidden", false);
    {
        let _current = telemetry.override_current();
        for _ in 0..5 {
            let _job = scope!("job");
            let _hidden = scope!("hidden");
        }
    }
    telemetry.shutdown(Duration::from_secs(10));
    let viewer = Viewer::start(&[file.to_str().unwrap()]);
    assert_eq!(viewer.json("/api/overview")["captures"][0]["scopes"], 5);
    let (tree, paths) = (viewer.json("/api/tree"), viewer.json("/api/paths"));
    assert_eq!((&tree["calls"], &tree["path"]), (&json!([5, 5]), &json!([0, 1])));
    assert_eq!((&paths["texts"], &paths["parents"]), (&json!(["job", "job.hidden"]), &json!([-1, 0])));
    assert_eq!(viewer.json("/api/tree?filter=hidden")["calls"], json!([]), "a filter asks the records");
}

#[test]
fn a_filter_selects_by_path_attribute_error_duration_process_and_thread() {
    let viewer = Kept::of(pipeline).view();
    let pid = std::process::id();
    for (filter, calls) in [
        ("", 8),
        ("path:pipeline.*", 6),
        ("PARSE", 4),
        ("-parse", 4),
        ("error", 1),
        ("error:TIME", 1),
        ("error:other", 0),
        ("-error parse", 4),
        ("duration>1us", 6),
        ("duration>=9us", 1),
        ("duration<1.5us", 2),
        ("attr:rows", 4),
        ("attr:rows=10", 2),
        ("attr:rows=1*", 2),
        ("-attr:rows", 4),
        ("\"attr:job=a | b\"", 0),
        ("attr:job=\"a | b\"", 2),
        (&format!("process:{pid}"), 8),
        ("process:1", 0),
        ("thread:no-such-thread", 0),
        ("-thread:no-such-thread", 8),
    ] {
        let encoded: String = filter.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let tree = viewer.json(&format!("/api/tree?filter={encoded}"));
        let sum: u64 = tree["calls"].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).sum();
        assert_eq!(sum, calls, "{filter}");
        let list = viewer.json(&format!("/api/list?filter={encoded}"));
        assert_eq!(list["total"], calls, "{filter}");
        let timeline = viewer.json(&format!("/api/timeline?pixels=19000&filter={encoded}"));
        let boxes = timeline["lanes"].as_array().unwrap().iter().flat_map(|lane| lane["count"].as_array().unwrap());
        assert_eq!(boxes.map(|it| it.as_u64().unwrap()).sum::<u64>(), calls, "{filter}");
    }
}

#[test]
fn a_wrong_filter_is_told_with_its_place() {
    let viewer = Kept::of(pipeline).view();
    for (filter, at, length, word) in [
        ("ok%20duration%3Ea", 3, 10, "duration"),
        ("%C3%A4%20nonsense:1", 2, 10, "nonsense:"),
        ("%22open", 0, 5, "quote"),
        ("duration:1ms", 0, 12, "compared"),
        ("process:x", 0, 9, "process"),
    ] {
        let answer = viewer.get(&format!("/api/tree?filter={filter}"));
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &error["at"], &error["length"]), (400, &json!(at), &json!(length)), "{error}");
        assert!(error["error"].as_str().unwrap().contains(word), "{error}");
    }
}

#[test]
fn one_scope_has_everything_that_it_was_given() {
    let viewer = Kept::of(pipeline).view();
    let list = viewer.json("/api/list?filter=error");
    let row = &list["rows"][0];
    assert_eq!(
        (&row["startNs"], &row["durationNs"], &row["errorType"]),
        (&json!(13_000), &json!(6_000), &json!("timeout"))
    );
    let detail = viewer.json(&format!("/api/scope?ref={}", row["ref"].as_str().unwrap()));
    assert_eq!(
        (&detail["startNs"], &detail["durationNs"], &detail["level"]),
        (&json!(13_000), &json!(6_000), &json!(1))
    );
    assert_eq!(detail["startUnixNs"], (START_NS + 13_000).to_string());
    assert_eq!(
        (&detail["name"], &detail["errorType"], &detail["depth"]),
        (&json!("exec.all"), &json!("timeout"), &json!(1))
    );
    assert_eq!(
        detail["attributes"],
        json!([
            ["job", "text", "a | b"],
            ["big", "integer", u64::MAX.to_string()],
            ["share", "real", 0.5],
            ["ok", "boolean", true]
        ])
    );
    assert_eq!(
        detail["events"],
        json!([{ "name": "retry", "atNs": 13_000, "attributes": [["attempt", "integer", 2]] }])
    );
    assert_eq!(detail["traceId"].as_str().unwrap().len(), 32);
    let parent = viewer.json(&format!("/api/scope?ref={}", detail["parentRef"].as_str().unwrap()));
    assert_eq!(
        (&parent["name"], &parent["parentRef"], &parent["spanId"]),
        (&json!("pipeline"), &Value::Null, &detail["parentSpanId"])
    );
    assert_eq!(parent["childRefs"].as_array().unwrap().len(), 3);
    for reference in ["", "0", "9:9", "0:99999", "-1:0", "a:b", "4294967295:4294967295"] {
        assert_eq!(viewer.get(&format!("/api/scope?ref={reference}")).status, 404, "{reference}");
    }
}

#[test]
fn metrics_have_their_figures_and_their_values_over_time() {
    let viewer = Kept::of(pipeline).view();
    let metrics = viewer.json("/api/metrics");
    let find = |name: &str| metrics["series"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
    let rows = find("rows");
    assert_eq!(
        (&rows["type"], &rows["sum"], &rows["labels"]),
        (&json!("counter"), &json!(60.0), &json!({ "kind": "csv" }))
    );
    assert_eq!((&find("load")["type"], &find("load")["last"]), (&json!("gauge"), &json!(1.5)));
    assert_eq!((&find("size")["type"], &find("size")["calls"]), (&json!("histogram"), &json!(2)));
    let ratio = find("ratio");
    assert_eq!((&ratio["type"], &ratio["calls"], &ratio["max"]), (&json!("event"), &json!(2), &json!(0.5)));
    let points = viewer.json(&format!("/api/points?series={}&pixels=1000", ratio["id"]));
    assert_eq!(points["value"], json!([0.25, 0.5]));
    assert_eq!(viewer.get("/api/points?series=999").status, 404);
}

#[test]
fn contexts_that_were_carried_to_other_threads_are_arrows() {
    let viewer = Kept::of(|telemetry, clock| {
        let _current = telemetry.override_current();
        let request = scope!("request");
        pass(clock, 1_000);
        let (carrier, telemetry) = (request.carrier(), telemetry.clone());
        std::thread::Builder::new()
            .name("helper".into())
            .spawn(move || {
                let _current = telemetry.override_current();
                let _attached = carrier.attach();
                drop(scope!("fetch"));
            })
            .unwrap()
            .join()
            .unwrap();
        pass(clock, 1_000);
    })
    .view();
    let lanes = viewer.json("/api/overview")["captures"][0]["lanes"].clone();
    let helper = lanes.as_array().unwrap().iter().find(|lane| lane["name"] == "helper").unwrap();
    let arrows = viewer.json("/api/timeline")["arrows"].clone();
    assert_eq!(arrows.as_array().unwrap().len(), 1);
    assert_eq!(
        (&arrows[0]["toLane"], &arrows[0]["fromNs"], &arrows[0]["toNs"]),
        (&helper["id"], &json!(1_000), &json!(1_000))
    );
    assert_ne!(arrows[0]["fromLane"], arrows[0]["toLane"]);
}

#[test]
fn two_captures_are_compared_as_the_command_does() {
    let jobs = |ns: u64| {
        move |telemetry: &Telemetry, clock: &MockClock| {
            let _current = telemetry.override_current();
            for number in 0..400_u64 {
                let _job = scope!("job");
                let _step = scope!("step");
                pass(clock, ns + number % 7);
            }
        }
    };
    let (base, new) = (Kept::of(jobs(1_000)), Kept::of(jobs(1_300)));
    let viewer = Viewer::start(&[new.file.to_str().unwrap(), "--base", base.file.to_str().unwrap()]);
    let rows = viewer.json("/api/diff")["rows"].clone();
    assert_eq!((&rows[0]["path"], &rows[0]["parent"], &rows[1]["parent"]), (&json!("job"), &json!(-1), &json!(0)));
    assert_eq!((&rows[1]["judgement"], &rows[1]["name"]), (&json!("slower"), &json!("step")));
    assert!((rows[1]["changeRatio"].as_f64().unwrap() - 0.299).abs() < 0.002, "{rows}");
    assert_eq!((&rows[1]["base"]["calls"], &rows[1]["new"]["selfNs"]), (&json!(400), &rows[1]["new"]["totalNs"]));
    let filtered = viewer.json("/api/diff?filter=path:*step")["rows"].clone();
    assert_eq!(
        (&filtered[0]["base"], &filtered[0]["new"], &filtered[1]["new"]),
        (&Value::Null, &Value::Null, &rows[1]["new"])
    );
    assert_eq!(viewer.json("/api/overview")["captures"].as_array().unwrap().len(), 2);
    assert_eq!(viewer.json("/api/paths?capture=1")["names"].as_array().unwrap().len(), 2);
    let alone = new.view().get("/api/diff");
    assert_eq!(alone.status, 400);
    assert!(String::from_utf8(alone.body).unwrap().contains("--base"));
}

#[test]
fn the_trace_for_perfetto_is_the_one_that_convert_writes() {
    let viewer = Kept::of(pipeline).view();
    let trace = viewer.get("/api/perfetto");
    let converted =
        kastor(&["convert", viewer.kept.file.to_str().unwrap(), "--to", "perfetto"]).output().unwrap().stdout;
    assert_eq!((trace.status, trace.body.len()), (200, converted.len()));
    let part = viewer.get("/api/perfetto?filter=parse").body;
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has(&converted, "timeout") && !has(&part, "timeout") && has(&part, "parse"));
}

/// What stands between two texts.
fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after}")).0
}

fn unpacked(packed: &Value) -> Vec<u8> {
    let bytes = STANDARD.decode(packed.as_str().unwrap()).unwrap();
    let mut content = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut content).unwrap();
    content
}

#[test]
fn one_file_holds_everything_and_allows_nothing_but_itself() {
    let (kept, base) = (Kept::of(pipeline), Kept::of(pipeline));
    let (file, base) = (kept.file.to_str().unwrap(), base.file.to_str().unwrap());
    let to = kept.file.with_extension("html");
    let made = transcript(&mut kastor(&["view", file, "--base", base, "--html", to.to_str().unwrap()]));
    assert_eq!((made.code, &*made.stdout, &*made.stderr), (Some(0), "", ""));
    let page = std::fs::read_to_string(&to).unwrap();

    let policy = between(&page, "http-equiv=\"Content-Security-Policy\" content=\"", "\"");
    let hash = |content: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(content)));
    let style = between(&page, "<style>", "</style>");
    let script = page.rsplit_once("\n<script>").unwrap().1.rsplit_once("</script>").unwrap().0;
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; base-uri 'none'; form-action 'none'",
            hash(script),
            hash(style)
        )
    );
    assert_eq!(page.matches("<script").count() - script.matches("<script").count(), 2, "data and script");
    for outside in ["<script src", "<link rel=\"stylesheet\"", "@import", "url(http"] {
        assert!(!page.replace(script, "").contains(outside), "{outside}");
    }

    let data: Value = serde_json::from_str(between(&page, "id=\"kastor-data\">", "</script>")).unwrap();
    let viewer = Viewer::start(&[file, "--base", base]);
    assert_eq!(data["overview"], viewer.json("/api/overview"));
    assert_eq!(data["diff"], viewer.json("/api/diff"));
    let capture = &data["captures"][0];
    assert_eq!(capture["tree"], viewer.json("/api/tree"));
    assert_eq!(capture["paths"], viewer.json("/api/paths"));
    assert_eq!(capture["series"], viewer.json("/api/metrics")["series"]);
    let scopes = &capture["scopes"];
    let (count, traces) = (scopes["count"].as_u64().unwrap() as usize, scopes["traceCount"].as_u64().unwrap() as usize);
    assert_eq!((count, traces, &scopes["rows"]), (8, 2, &json!([[0, 0, 2], [0, 1, 6]])));
    let table = unpacked(&scopes["table"]);
    assert_eq!(table.len(), count * 41 + traces * 16);
    let column = |number: usize| -> Vec<u32> {
        let bytes = &table[number * count * 4..(number + 1) * count * 4];
        bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    };
    assert_eq!(column(0), [0, 9_000, 1_000, 1_000, 2_000, 6_000, 1_000, 2_000], "starts, from one to the next");
    assert_eq!(column(2), [9_000, 10_000, 1_000, 2_000, 5_000, 1_000, 2_000, 6_000], "durations");
    let mut parent = 0_u32;
    let parents: Vec<u32> = column(5)
        .into_iter()
        .map(|step| {
            parent = parent.wrapping_add(step);
            parent
        })
        .collect();
    assert_eq!(parents, [0, 0, 1, 1, 1, 2, 2, 2]);
    assert_eq!(column(6), [0, 0, 1, 1, 1, 1, 1, 1], "depths");
    assert_eq!(table[count * 40..count * 41], [0, 0, 0, 0, 0, 0, 0, 1], "the last failed");
    let details = String::from_utf8(unpacked(&scopes["details"])).unwrap();
    let last: Value = serde_json::from_str(details.lines().last().unwrap()).unwrap();
    assert_eq!((&last[0], &last[1], &last[2][0]), (&json!(7), &json!("timeout"), &json!(["job", "text", "a | b"])));
}

#[test]
fn a_capture_that_grows_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::builder().reporter(Capture::new(folder.path().join("run.kcap"))).build();
    drop(scope!(telemetry, "first"));
    telemetry.flush(Duration::from_secs(10));
    let viewer = Viewer::start(&[folder.path().to_str().unwrap(), "--live"]);
    let overview = viewer.json("/api/overview");
    assert_eq!((&overview["live"], &overview["captures"][0]["scopes"]), (&json!(true), &json!(1)));
    let version = overview["version"].as_u64().unwrap();
    for _ in 0..10 {
        drop(scope!(telemetry, "second"));
    }
    telemetry.flush(Duration::from_secs(10));
    // Answers as soon as there is something new.
    let newer = viewer.json(&format!("/api/changes?since={version}"))["version"].as_u64().unwrap();
    assert!(newer > version);
    let overview = viewer.json("/api/overview");
    assert_eq!(overview["captures"][0]["scopes"], json!(11));
    assert!(viewer.json("/api/paths")["names"].as_array().unwrap().contains(&json!("second")));
    telemetry.shutdown(Duration::from_secs(10));
}

#[test]
fn captures_of_every_released_format_are_shown() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kastor-export/tests/golden");
    let mut seen = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "kcap") {
            continue;
        }
        seen += 1;
        let report = transcript(&mut kastor(&["report", file.to_str().unwrap(), "--json"]));
        let report: Value = serde_json::from_str(&report.stdout).unwrap();
        let calls = |figures: &Value| figures.as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).sum::<u64>();
        let expected: u64 = report["scopes"].as_array().unwrap().iter().map(|row| row["calls"].as_u64().unwrap()).sum();
        let viewer = Viewer::start(&[file.to_str().unwrap()]);
        assert!(expected > 0 && calls(&viewer.json("/api/tree")["calls"]) >= expected, "{}", file.display());
        assert_eq!(viewer.json("/api/overview")["captures"][0]["scopes"], json!(expected), "{}", file.display());
    }
    assert!(seen >= 2);
}

#[test]
fn wrong_questions_are_told_what_is_wrong() {
    let viewer = Kept::of(pipeline).view();
    for (path, status, word) in [
        ("/api/nothing", 404, "no address"),
        ("/api/tree?capture=1", 400, "no capture 1"),
        ("/api/tree?capture=-1", 400, "no capture"),
        ("/api/timeline?from=soon", 400, "no number"),
        ("/api/timeline?to=NaN", 400, "no number"),
        ("/api/list?sort=size", 400, "no order"),
        ("/nothing", 404, "nothing is here"),
    ] {
        let answer = viewer.get(path);
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert!(error["error"].as_str().unwrap().contains(word), "{path}: {error}");
    }
    // What is absurd is made sensible.
    for path in ["/api/timeline?from=9e99&to=-5&pixels=1e30", "/api/timeline?pixels=0", "/api/list?limit=1e9"] {
        assert_eq!(viewer.get(path).status, 200, "{path}");
    }
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    let kept = Kept::of(pipeline);
    let file = kept.file.to_str().unwrap();
    for (arguments, message) in [
        (&["view"][..], "required"),
        (&["view", "/no/such.kcap", "--no-open"], "no/such.kcap"),
        (&["view", env!("CARGO_MANIFEST_DIR"), "--no-open"], "no capture under"),
        (&["view", file, "--port", "70000"], "70000"),
        (&["view", file, "--html", "x.html", "--live"], "--live"),
        (&["view", file, "--html", "/no/such/folder/x.html"], "cannot write"),
    ] {
        transcript(&mut kastor(arguments)).assert_refused(message);
    }
    let taken = Viewer::start(&[file]);
    let port = taken.host.rsplit_once(':').unwrap().1;
    transcript(&mut kastor(&["view", file, "--no-open", "--port", port])).assert_refused("--port 0");
}

#[cfg(unix)]
#[test]
fn an_interrupt_is_the_usual_end() {
    for signal in ["-INT", "-TERM"] {
        let viewer = Kept::of(pipeline).view();
        assert!(
            std::process::Command::new("kill").args([signal, &viewer.id().to_string()]).status().unwrap().success()
        );
        assert_eq!(viewer.viewer.ended(), Some(0), "{signal}");
    }
}
