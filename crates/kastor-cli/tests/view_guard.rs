//! Who gets an answer from `kastor view`, and what hostile captures do to it.

#[path = "common/captures.rs"]
mod captures;
mod common;
#[path = "common/viewer.rs"]
mod viewer;

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use captures::{frame, recorded, session, written};
use common::{kastor, transcript};
use kastor::{Telemetry, scope};
use serde_json::{Value, json};
use viewer::{Viewer, answer};

fn small(folder: &Path) -> Viewer {
    let file = folder.join("small.kcap");
    recorded(&file, |telemetry, _| drop(scope!(telemetry, "work")));
    Viewer::start(&[file.to_str().unwrap()])
}

#[test]
fn data_needs_the_token_and_everything_needs_the_right_host() {
    let folder = tempfile::tempdir().unwrap();
    let viewer = small(folder.path());
    let bearer = format!("Bearer {}", viewer.token);
    let port = viewer.host.rsplit_once(':').unwrap().1;
    assert!(viewer.host.starts_with("127.0.0.1:"));
    assert_eq!(viewer.token.len(), 32);
    let own = viewer.host.as_str();
    let (localhost, six) = (format!("localhost:{port}"), format!("[::1]:{port}"));
    let evil = format!("evil.example:{port}");
    let wrong = format!("Bearer {}0", &viewer.token[..31]);
    for (path, headers, status) in [
        ("/", &[("Host", own)][..], 200),
        ("/viewer.js", &[("Host", own)], 200),
        ("/viewer.css", &[("Host", &localhost)], 200),
        ("/", &[("Host", &six)], 200),
        ("/", &[("Host", &evil)], 403),
        ("/", &[("Host", "127.0.0.1")], 403),
        ("/", &[("Host", "")], 403),
        ("/", &[("Host", own), ("Host", &evil)], 403),
        ("/api/overview", &[("Host", own)], 401),
        ("/api/overview", &[("Host", own), ("Authorization", "Bearer ")], 401),
        ("/api/overview", &[("Host", own), ("Authorization", &viewer.token)], 401),
        ("/api/overview", &[("Host", &evil), ("Authorization", &bearer)], 403),
        ("/api/overview", &[("Host", own), ("Authorization", &wrong)], if wrong == bearer { 200 } else { 401 }),
        ("/api/nothing", &[("Host", own)], 401),
        ("/api/changes?since=0", &[("Host", own)], 401),
        ("/api/overview", &[("Host", own), ("Authorization", &bearer)], 200),
    ] {
        let answer = viewer.request("GET", path, headers);
        assert_eq!(answer.status, status, "{path} {headers:?}");
        let head = answer.head.to_lowercase();
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{path}: {head}");
        }
        assert!(!head.contains("access-control"), "{head}");
        if status != 200 {
            assert!(!String::from_utf8_lossy(&answer.body).contains("small.kcap"));
        }
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = viewer.request(method, "/api/overview", &[("Host", own), ("Authorization", &bearer)]);
        assert_eq!(answer.status, 405, "{method}");
    }
    assert_eq!(viewer.request("GET", "/", &[]).status, 400 + 3, "no host at all");
    assert_ne!(small(folder.path()).token, viewer.token, "each has a token of its own");
}

#[test]
fn who_does_not_finish_asking_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let viewer = small(folder.path());
    let began = Instant::now();
    let mut slow = viewer.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(8) && waited < Duration::from_secs(40), "{waited:?}");
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    // A head without an end is refused before it grows.
    let mut endless = viewer.connect();
    let sent =
        (0..200).try_for_each(|number| endless.write_all(format!("X-{number}: {}\r\n", "x".repeat(4096)).as_bytes()));
    let mut rest = Vec::new();
    let _ = endless.read_to_end(&mut rest);
    assert!(sent.is_err() || !String::from_utf8_lossy(&rest).contains("200 OK"));
    assert_eq!(viewer.get("/api/overview").status, 200);
}

#[test]
fn no_more_than_64_are_served_at_once_and_the_next_one_waits_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let viewer = small(folder.path());
    let request = format!("GET /viewer.css HTTP/1.1\r\nHost: {}\r\n\r\n", viewer.host);
    let mut open: Vec<_> = (0..64).map(|_| viewer.connect()).collect();
    for stream in &mut open {
        stream.write_all(request.as_bytes()).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    let mut next = viewer.connect();
    next.write_all(request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    next.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(next.read(&mut [0]).is_err(), "served although 64 are");
    drop(open.pop());
    next.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(answer(&mut next).status, 200);
}

/// Names that would act on a page, a terminal or a reader.
const NAMES: [&str; 6] = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\u{1b}[31mred\u{7}",
    "a\u{202e}b\u{200b}c\u{feff}",
    "line\r\n\u{2028}break\u{0}\u{9b}",
    "\"quotes' & ${x} <!--",
];

#[test]
fn hostile_names_arrive_whole_and_do_nothing_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("names.kcap");
    recorded(&file, |telemetry: &Telemetry, _| {
        let _current = telemetry.override_current();
        for name in NAMES {
            let scope = telemetry.scope(name);
            scope.set("key", name);
            scope.fail(name);
        }
    });
    let raw = |text: &str| {
        text.chars().any(|character| {
            (character.is_control() && character != '\n')
                || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        })
    };
    let viewer = Viewer::start(&[file.to_str().unwrap()]);
    for path in ["/api/paths", "/api/list", "/api/overview", "/api/metrics"] {
        let answer = viewer.get(path);
        assert!(answer.head.to_lowercase().contains("content-type: application/json"));
        assert!(!raw(&String::from_utf8(answer.body).unwrap()), "{path}");
    }
    let reported = transcript(&mut kastor(&["report", file.to_str().unwrap(), "--json"])).stdout;
    let reported: Value = serde_json::from_str(&reported).unwrap();
    let names = viewer.json("/api/paths")["names"].clone();
    for row in reported["scopes"].as_array().unwrap() {
        assert!(names.as_array().unwrap().contains(&row["name"]), "{row}");
    }
    for row in viewer.json("/api/list")["rows"].as_array().unwrap() {
        let detail = viewer.json(&format!("/api/scope?ref={}", row["ref"].as_str().unwrap()));
        assert_eq!(detail["errorType"], detail["attributes"][0][2], "{detail}");
        assert!(NAMES.contains(&detail["errorType"].as_str().unwrap()), "{detail}");
    }
    let html = folder.path().join("names.html");
    let made = transcript(&mut kastor(&["view", file.to_str().unwrap(), "--html", html.to_str().unwrap()]));
    assert_eq!((made.code, &*made.stderr, &*made.stdout), (Some(0), "", ""));
    let page = std::fs::read_to_string(&html).unwrap();
    let (_, data) = page.split_once("id=\"kastor-data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    assert!(!data.contains('<') && !raw(data));
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["captures"][0]["paths"]["names"], names);
}

#[test]
fn captures_that_are_cut_or_bent_are_shown_as_far_as_they_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.kcap");
    recorded(&whole, |telemetry, clock| {
        let _current = telemetry.override_current();
        for number in 0..300_u64 {
            let _job = scope!("job", number = number);
            let _step = scope!("step");
            captures::pass(clock, 1_000);
            if number % 50 == 0 {
                telemetry.flush(Duration::from_secs(10));
            }
        }
    });
    let bytes = std::fs::read(&whole).unwrap();
    let file = folder.path().join("bent.kcap");
    let look = |what: &str| {
        let viewer = Viewer::start(&[file.to_str().unwrap()]);
        for path in ["overview", "paths", "timeline", "tree", "list", "metrics", "tree?filter=attr:number", "perfetto"]
        {
            let answer = viewer.get(&format!("/api/{path}"));
            assert_eq!(answer.status, 200, "{what}: {path}");
        }
        viewer.json("/api/overview")["captures"][0].clone()
    };
    for cut in [1, 2, 3, 5] {
        std::fs::write(&file, &bytes[..bytes.len() * cut / 6 + 3]).unwrap();
        let capture = look("cut");
        assert!(capture["tornBytes"].as_u64().unwrap() > 0 && capture["missing"].is_string(), "{capture}");
    }
    let mut random = 0x9e37_79b9_u64;
    for _ in 0..12 {
        let mut bent = bytes.clone();
        for _ in 0..4 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bit = (random >> 16) as usize % (bent.len() * 8 - 800) + 800;
            bent[bit / 8] ^= 1 << (bit % 8);
        }
        std::fs::write(&file, &bent).unwrap();
        let capture = look("bent");
        assert!(capture["damagedPlaces"].as_u64().unwrap() > 0 && capture["missing"].is_string(), "{capture}");
    }
    std::fs::write(&file, frame(1, 0, &session(999))).unwrap();
    transcript(&mut kastor(&["view", file.to_str().unwrap(), "--no-open"])).assert_refused("format 999");
    std::fs::write(&file, "no capture at all").unwrap();
    transcript(&mut kastor(&["view", file.to_str().unwrap(), "--no-open"])).assert_refused("no capture");
    std::fs::write(&file, "").unwrap();
    assert_eq!(look("empty")["scopes"], 0);
}

#[test]
fn a_million_paths_and_a_path_of_a_million_levels_are_answered_in_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("paths.kcap");
    for (what, above) in [("wide", (|_| 0) as fn(u32) -> u32), ("deep", |number| number - 1)] {
        written(&file, (1..=1_000_000).map(|number| (number, above(number), format!("n{number}"))));
        let viewer = Viewer::start(&[file.to_str().unwrap()]);
        assert_eq!(viewer.json("/api/overview")["captures"][0]["scopes"], 1_000_000, "{what}");
        for path in ["/api/paths", "/api/timeline", "/api/tree", "/api/list", "/api/tree?filter=n77"] {
            let answer = viewer.get(path);
            assert_eq!(answer.status, 200, "{what}: {path}");
            assert!(answer.body.len() < 40 << 20, "{what}: {path} has {} bytes", answer.body.len());
        }
        let paths = viewer.json("/api/paths");
        assert!(paths["names"].as_array().unwrap().len() <= 1 << 18, "{what}");
    }
}

#[test]
fn a_million_scopes_inside_each_other_are_drawn_from_the_top() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep.kcap");
    recorded(&file, |telemetry, clock| {
        let _current = telemetry.override_current();
        let mut open = Vec::new();
        for _ in 0..1_000_000 {
            open.push(scope!("in"));
            captures::pass(clock, 1);
        }
        while let Some(scope) = open.pop() {
            drop(scope);
            if open.len() % 200_000 == 0 {
                telemetry.flush(Duration::from_secs(60));
            }
        }
    });
    let viewer = Viewer::start(&[file.to_str().unwrap()]);
    let capture = viewer.json("/api/overview")["captures"][0].clone();
    let kept = capture["scopes"].as_u64().unwrap();
    assert_eq!(capture["lanes"][0]["levels"], json!(kept));
    let timeline = viewer.json("/api/timeline?pixels=1000");
    assert_eq!(timeline["truncated"], true);
    assert!(timeline["lanes"][0]["start"].as_array().unwrap().len() <= 130_000);
}
