//! The limits of the viewer: how soon there is a picture, what a large capture costs, how large the one file is.
//!
//! What a browser has to measure, a browser measures: `crates/kastor-cli/viewer/test/measure.mjs`, run by Node with Playwright's
//! Chromium. Where either is missing the figures are left out, loudly.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::child::Running;
use crate::gate::{Limit, text, told};
use crate::generate::many;

const SCOPES: u64 = 1_000_000;
const MANY_SCOPES: u64 = 50_000_000;
const FILE_SCOPES: u64 = 100_000;
const MB: f64 = 1e6;
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures everything of the viewer.
pub fn limits(is_quick: bool, folder: &Path) -> Vec<Limit> {
    let part = if is_quick { 10 } else { 1 };
    let browser = Browser::find();
    if let Err(missing) = &browser {
        println!("SKIPPED: what a browser measures, since {missing}");
    }
    let browser = browser.ok();
    let mut limits = pictures(SCOPES / part, &folder.join("view"), browser.as_ref());
    limits.extend(large(MANY_SCOPES / part, &folder.join("view-large")));
    limits.extend(one_file(FILE_SCOPES, folder, browser.as_ref()));
    limits
}

/// A million scopes in a browser.
fn pictures(scopes: u64, folder: &Path, browser: Option<&Browser>) -> Vec<Limit> {
    let Some(browser) = browser else { return Vec::new() };
    let measured = told(many(folder, scopes).and_then(|_| {
        let mut view = Running::start(&["view", text(folder)?, "--no-open"])?;
        let measured = view.line().and_then(|address| browser.measure(&address));
        view.end()?;
        measured
    }));
    let _ = std::fs::remove_dir_all(folder);
    let of = |figure: fn(&Picture) -> f64| measured.as_ref().map(figure);
    let what = |text: &str| format!("view, {} million scopes: {text}", scopes as f64 / 1e6);
    vec![
        Limit::new(what("first picture after the page opens"), 1000.0, "ms", of(|it| it.first_ms)),
        Limit::new(what("p95 of drawing a frame, zooming and panning"), 12.0, "ms", of(|it| it.draw_p95_ms)),
        Limit::new(what("errors of the page, violations of its policy"), 0.0, "", of(|it| it.problems)),
    ]
}

/// Many more scopes than are kept in memory.
fn large(scopes: u64, folder: &Path) -> Vec<Limit> {
    let measured = told(many(folder, scopes).and_then(|written| open_large(folder, written)));
    let _ = std::fs::remove_dir_all(folder);
    let what = |text: &str| format!("view, {} million scopes: {text}", scopes as f64 / 1e6);
    vec![
        Limit::new(what("opened, from the block index"), 5.0, "s", measured.as_ref().map(|it| it.open_s)),
        Limit::new(what("slowest answer while looking around"), 2.0, "s", measured.as_ref().map(|it| it.slowest_s)),
        Limit::new(what("peak memory"), 500.0, "MB", measured.as_ref().map(|it| it.peak_bytes / MB)),
    ]
}

struct Large {
    open_s: f64,
    slowest_s: f64,
    peak_bytes: f64,
}

fn open_large(folder: &Path, written: u64) -> Result<Large, String> {
    let began = Instant::now();
    let mut view = Running::start(&["view", text(folder)?, "--no-open"])?;
    let looked = view.line().and_then(|address| look_around(&address, began, written));
    let ended = view.end()?;
    let (open_s, slowest_s) = looked?;
    Ok(Large { open_s, slowest_s, peak_bytes: ended.peak_bytes })
}

/// Asks what a page asks: everything, then ever closer, then elsewhere.
fn look_around(address: &str, began: Instant, written: u64) -> Result<(f64, f64), String> {
    let overview = get(address, "/api/overview")?;
    get(address, "/api/paths")?;
    let all = get(address, "/api/timeline?pixels=1600")?;
    let open_s = began.elapsed().as_secs_f64();
    let capture = &overview["captures"][0];
    if capture["scopes"] != written || capture["isIndexOnly"] != true || all["isDensity"] != true {
        return Err(format!("the overview has {} scopes, the capture {written}", capture["scopes"]));
    }
    let duration_ns = capture["durationNs"].as_f64().ok_or("no duration")?;
    let mut slowest_s: f64 = 0.0;
    let mut ask = |question: &str| {
        let asked = Instant::now();
        let answer = get(address, question)?;
        slowest_s = slowest_s.max(asked.elapsed().as_secs_f64());
        Ok::<Value, String>(answer)
    };
    ask("/api/tree")?;
    ask("/api/list?limit=100")?;
    let (mut near, mut scopes) = (0, String::new());
    for place in 0..10 {
        let middle = duration_ns * (f64::from(place) + 0.5) / 10.0;
        let mut width = duration_ns;
        while width > 1e5 {
            width /= 4.0;
            let (from, to) = (middle - width / 2.0, middle + width / 2.0);
            let answer = ask(&format!("/api/timeline?from={from}&to={to}&pixels=1600"))?;
            let boxes = answer["lanes"][0]["ref"].as_array();
            if let Some(reference) = boxes.and_then(|it| it.iter().filter_map(Value::as_str).find(|it| !it.is_empty()))
            {
                scopes = reference.to_owned();
                near += 1;
            }
        }
    }
    let scope = ask(&format!("/api/scope?ref={scopes}"))?;
    if near < 10 || scope["durationNs"].as_u64().is_none() {
        return Err(format!("single scopes were seen in {near} pictures only"));
    }
    Ok((open_s, slowest_s))
}

/// One file with a hundred thousand scopes.
fn one_file(scopes: u64, folder: &Path, browser: Option<&Browser>) -> Vec<Limit> {
    let (captures, file) = (folder.join("view-html"), folder.join("view.html"));
    let bytes = told(many(&captures, scopes).and_then(|_| {
        let ended = crate::child::run(&["view", text(&captures)?, "--html", text(&file)?])?;
        let bytes = std::fs::metadata(&file).map_err(|error| format!("no file: {error}"))?.len();
        if ended.code == 0 { Ok(bytes) } else { Err(format!("exit code {}", ended.code)) }
    }));
    let what = |text: &str| format!("view --html, {scopes} scopes: {text}");
    let mut limits = vec![Limit::new(what("size"), 5.0, "MB", bytes.map(|bytes| bytes as f64 / MB))];
    if let Some(browser) = browser {
        let seen = told(browser.measure(&format!("file://{}", file.display())));
        let of = |figure: fn(&Picture) -> f64| seen.as_ref().map(figure);
        limits.push(Limit::new(what("first picture, from disk"), 1000.0, "ms", of(|it| it.first_ms)));
        limits.push(Limit::new(what("errors, violations, requests to any network"), 0.0, "", of(|it| it.problems)));
    }
    let _ = std::fs::remove_dir_all(&captures);
    let _ = std::fs::remove_file(&file);
    limits
}

/// The answer to a question, over a connection of its own.
fn get(address: &str, question: &str) -> Result<Value, String> {
    let (host, token) = address
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once("/#token="))
        .ok_or_else(|| format!("no address: {address}"))?;
    let failed = |error: std::io::Error| format!("{question}: {error}");
    let mut stream = TcpStream::connect(host).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = format!(
        "GET {question} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a body")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("{question}: {body}"));
    }
    serde_json::from_str(body).map_err(|error| format!("{question}: no JSON: {error}"))
}

/// A browser that measures.
struct Browser {
    script: PathBuf,
}

struct Picture {
    first_ms: f64,
    draw_p95_ms: f64,
    problems: f64,
}

impl Browser {
    fn find() -> Result<Browser, String> {
        let viewer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/kastor-cli/viewer");
        let script = viewer.join("test/measure.mjs");
        let found = Command::new("node").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Err("there is no Node".to_owned());
        }
        if !viewer.join("node_modules/playwright-core").exists() {
            return Err("Playwright is not installed: run `npm ci` in crates/kastor-cli/viewer".to_owned());
        }
        Ok(Browser { script })
    }

    fn measure(&self, address: &str) -> Result<Picture, String> {
        let output = Command::new("node")
            .arg(&self.script)
            .arg(address)
            .output()
            .map_err(|error| format!("no Node: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(format!("the browser: {}{text}", String::from_utf8_lossy(&output.stderr)));
        }
        let line = text.lines().last().unwrap_or("");
        let measured: Value = serde_json::from_str(line).map_err(|error| format!("the browser: {error}: {text}"))?;
        let number = |name: &str| match &measured[name] {
            Value::Array(all) => Some(all.len() as f64),
            other => other.as_f64(),
        };
        let needed = |name: &str| number(name).ok_or_else(|| format!("the browser measured no {name}: {line}"));
        // A page that is served asks its server; one from disk asks nobody.
        let requests = if address.starts_with("file:") { needed("requests")? } else { 0.0 };
        let problems = needed("pageErrors")? + needed("cspViolations")? + requests;
        if problems > 0.0 {
            println!("the browser: {line}");
        }
        let (first_ms, draw_p95_ms) = (needed("firstPictureMs")?, needed("drawP95Ms")?);
        Ok(Picture { first_ms, draw_p95_ms, problems })
    }
}
