//! `kastor diff`: a real regression, noise alone, and the forms of the answer.

#[path = "common/captures.rs"]
mod captures;
mod common;

use std::path::{Path, PathBuf};

use captures::{pass, recorded};
use common::{Transcript, assert_neutral, kastor, transcript};
use kastor::scope;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Xorshift, and a sum of twelve of it for what is nearly normal: the same on every machine.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// A thousand jobs with two steps, whose durations scatter by 20 %; the second takes so many times as long.
fn jobs(file: &Path, factor: f64, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    recorded(file, |telemetry, clock| {
        let _current = telemetry.override_current();
        for _ in 0..1000 {
            let _job = scope!("job");
            for (step, factor) in [("steady", 1.0), ("moved", factor)] {
                let _step = telemetry.scope(step);
                pass(clock, (50_000.0 * factor * (0.2 * random.normal()).exp()) as u64);
            }
        }
    });
}

fn file(folder: &TempDir, name: &str, factor: f64, seed: u64) -> PathBuf {
    let file = folder.path().join(name);
    jobs(&file, factor, seed);
    file
}

fn diff(base: &Path, new: &Path, more: &[&str]) -> Transcript {
    transcript(&mut kastor(&[&["diff", base.to_str().unwrap(), new.to_str().unwrap()], more].concat()))
}

fn verdicts(transcript: &Transcript) -> Vec<(String, String)> {
    let difference: Value = serde_json::from_str(&transcript.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut verdicts: Vec<_> = difference["paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| (text(&path["path"]), text(&path["call"]["verdict"])))
        .collect();
    verdicts.sort();
    verdicts
}

#[test]
fn noise_alone_is_no_regression() {
    let folder = tempfile::tempdir().unwrap();
    let base = file(&folder, "base.kcap", 1.0, 1);
    for seed in 2..12 {
        let new = file(&folder, &format!("new-{seed}.kcap"), 1.0, seed);
        let transcript = diff(&base, &new, &["--json", "--fail-over", "5%"]);
        assert_eq!(transcript.code, Some(0), "seed {seed}: {}", transcript.stdout);
        assert!(verdicts(&transcript).iter().all(|(_, verdict)| verdict == "same"), "{}", transcript.stdout);
    }
}

#[test]
fn a_regression_of_ten_per_cent_is_found_and_fails_the_gate() {
    let folder = tempfile::tempdir().unwrap();
    let base = file(&folder, "base.kcap", 1.0, 1);
    for seed in 20..30 {
        let new = file(&folder, &format!("new-{seed}.kcap"), 1.1, seed);
        let transcript = diff(&base, &new, &["--json", "--path", "job.*"]);
        assert_eq!(transcript.code, Some(0), "without --fail-over nothing fails");
        let expected = [("job.moved", "slower"), ("job.steady", "same")];
        assert_eq!(verdicts(&transcript), expected.map(|(path, verdict)| (path.to_owned(), verdict.to_owned())));
        assert_eq!(diff(&base, &new, &["--fail-over", "7%"]).code, Some(1));
        assert_eq!(diff(&base, &new, &["--fail-over", "20%"]).code, Some(0));
        assert_eq!(diff(&new, &base, &["--fail-over", "5%"]).code, Some(0), "faster is no failure");
    }
}

#[test]
fn each_regression_has_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let (base, new) = (file(&folder, "base.kcap", 1.0, 1), file(&folder, "new.kcap", 1.5, 2));
    let transcript = diff(&base, &new, &["--fail-over", "10%"]);
    assert_eq!((transcript.code, &*transcript.stderr), (Some(1), ""));
    let lines: Vec<&str> = transcript.stdout.lines().filter(|line| line.starts_with("slower: ")).collect();
    assert_eq!(lines.len(), 2, "{}", transcript.stdout);
    assert!(lines[0].starts_with("slower: job.moved: ") && lines[0].contains(" per call, +"), "{}", lines[0]);
    assert!(lines[1].starts_with("slower: job: "), "{}", lines[1]);
    assert_neutral(&transcript.stdout);
}

#[test]
fn markdown_is_the_same_for_the_same_captures() {
    let folder = tempfile::tempdir().unwrap();
    let (base, new) = (file(&folder, "base.kcap", 1.0, 1), file(&folder, "new.kcap", 1.5, 2));
    let [one, two] = [(), ()].map(|()| diff(&base, &new, &["--markdown"]).stdout);
    assert_eq!(one, two);
    assert!(one.starts_with("**2 slower by 5% or more, 0 faster, 1 the same, 0 unclear; "), "{one}");
    assert!(one.contains("\n| `job.moved` | slower | +"), "{one}");
}

#[test]
fn figures_are_exact_and_paths_of_one_side_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let [base, new] = [("old", 100), ("new", 300)].map(|(name, ns)| {
        let file = folder.path().join(format!("{name}.kcap"));
        recorded(&file, |telemetry, clock| {
            for _ in 0..20 {
                let _outer = telemetry.scope("outer");
                pass(clock, 50);
                let _inner = telemetry.scope("inner");
                pass(clock, ns);
            }
            drop(telemetry.scope(name));
        });
        file
    });
    let transcript = diff(&base, &new, &["--json"]);
    let difference: Value = serde_json::from_str(&transcript.stdout).unwrap();
    let of = |path: &str| difference["paths"].as_array().unwrap().iter().find(|it| it["path"] == path).unwrap();
    assert_eq!(
        of("outer")["base"],
        json!({
            "calls": 20, "errors": 0, "total_ns": 3000, "self_ns": 1000, "mean_ns": 150.0, "self_mean_ns": 50.0,
        })
    );
    assert_eq!(of("outer")["new"]["total_ns"], json!(7000));
    assert_eq!(of("outer")["own"]["verdict"], json!("same"), "only what is inside took longer");
    assert_eq!(of("outer.inner")["own"]["verdict"], json!("slower"));
    assert_eq!((&of("old")["new"], &of("new")["base"]), (&Value::Null, &Value::Null));
}

#[test]
fn wrong_percentages_and_missing_captures_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = file(&folder, "base.kcap", 1.0, 1);
    diff(&base, &base, &["--fail-over", "much"]).assert_refused("--fail-over");
    diff(&base, Path::new("/no/such/capture"), &[]).assert_refused("/no/such/capture");
}
