//! `kastor demo`: runs the [`pipeline`] over real files and shows what kastor saw of it and what that cost.

mod capture;
mod cost;
mod discover;
mod otlp;
mod pipeline;
mod pool;
mod prometheus;
mod render;
mod terms;
mod trace;

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kastor::{Recording, Report, Telemetry};
use serde::Serialize;

use crate::arguments::DemoArguments;
use crate::facts::{self, Account, MetricFacts, ScopeFacts};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use capture::Captured;
use cost::{Cost, cpu_time};
use otlp::Sent;
use pipeline::{Outcome, Progress, Settings};

/// How long all rounds together should take if the user does not say how many to run: the more rounds, the less noise.
const USUAL_TIME: Duration = Duration::from_secs(2);
/// How many rounds that may become.
const USUAL_ROUNDS: RangeInclusive<u32> = 5..=40;
/// How long even the smallest usual number of rounds may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the reporter may take for what is left at the end of a run.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);
/// Memory for the events of one run.
const RECORDING_BYTES: usize = 256 << 20;

/// All that the command shows.
#[derive(Serialize)]
struct Demonstration {
    path: String,
    workers: u16,
    documents: Outcome,
    scopes: Vec<ScopeFacts>,
    metrics: Vec<MetricFacts>,
    telemetry: Account,
    /// None where the system does not tell the CPU time of a process.
    cost: Option<Cost>,
    /// None unless asked for.
    captured: Option<Captured>,
    /// What `--perfetto` and `--chrome` asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    traces: Vec<trace::Written>,
    /// None unless asked for.
    sent: Option<Sent>,
}

/// Runs the command.
pub(crate) fn run(arguments: &DemoArguments, output: &mut Output) -> Result<Verdict, Failure> {
    let settings = Settings { root: place(arguments.path.as_deref())?, workers: arguments.workers() };
    let rounds = arguments.repeat.map(u32::from);
    // Before the work: an address that cannot be listened on, or a file that cannot be written, should not cost a run.
    let endpoint = arguments.prometheus.as_deref().map(prometheus::listen).transpose()?;
    let trace_files = trace::Files::create(arguments)?;
    let bar = Bar::new();
    let demonstration = demonstrate(&settings, rounds, &bar);
    bar.clear();
    let (mut demonstration, telemetry) = demonstration?;
    if let Some(path) = &arguments.capture {
        demonstration.captured = Some(capture::run(path, &settings)?);
    }
    if let Some(url) = &arguments.otlp {
        demonstration.sent = Some(otlp::run(url, &settings)?);
    }
    demonstration.traces = trace_files.record(&settings)?;
    if arguments.json {
        output.json(&demonstration)?;
    } else {
        render::text(&demonstration, output);
    }
    if let Some(endpoint) = endpoint {
        prometheus::serve(endpoint, &telemetry, output);
    }
    let missing_in_capture = demonstration.captured.as_ref().map_or(0, |captured| captured.missing);
    let missing_in_traces: u64 = demonstration.traces.iter().map(|written| written.missing).sum();
    let unsent = demonstration.sent.as_ref().map_or(0, |sent| sent.missing);
    Ok(match demonstration.telemetry.missing() + missing_in_capture + missing_in_traces + unsent {
        0 => Verdict::Fine,
        _ => Verdict::Finding,
    })
}

/// Where to look: what the user said, else the repository around the current folder, else that folder.
fn place(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(asked) = asked {
        return match fs::metadata(asked) {
            Ok(_) => Ok(asked.to_owned()),
            Err(error) => Err(Failure::new(
                format!("cannot read {}: {error}", quoted(asked)),
                "give an existing file or folder, or no PATH for the repository you are in",
            )),
        };
    }
    let here = std::env::current_dir()
        .map_err(|error| Failure::new(format!("cannot tell the current folder: {error}"), "give a PATH"))?;
    let holder_of = |name: &str| here.ancestors().find(|folder| folder.join(name).exists());
    let place = holder_of(".git").or_else(|| holder_of("Cargo.toml"));
    Ok(place.unwrap_or(&here).to_owned())
}

/// Runs the pipeline once to see what there is and to warm the file cache, then in rounds with telemetry off and on.
///
/// The context of the run that is shown comes along.
fn demonstrate(settings: &Settings, rounds: Option<u32>, bar: &Bar) -> Result<(Demonstration, Telemetry), Failure> {
    let started = Instant::now();
    let outcome = pipeline::run(&Telemetry::disabled(), settings, bar).map_err(no_worker)?;
    if outcome.counted == 0 {
        return Err(nothing_readable(settings, &outcome));
    }

    let rounds = rounds.unwrap_or_else(|| usual_rounds(started.elapsed()));
    bar.plan(rounds);

    let (mut off, mut on) = (Vec::new(), Vec::new());
    off.extend(run_off(settings)?);
    let (mut observed, cpu) = run_on(settings)?;
    on.extend(cpu);
    bar.advance();
    for round in 1..rounds {
        // In every other round the other kind goes first.
        let off_first = round % 2 == 0;
        if off_first {
            off.extend(run_off(settings)?);
        }
        let (latest, cpu) = run_on(settings)?;
        on.extend(cpu);
        if !off_first {
            off.extend(run_off(settings)?);
        }
        // The last run is shown, unless an earlier one has something to hide.
        if latest.account.missing() >= observed.account.missing() {
            observed = latest;
        }
        bar.advance();
    }
    let demonstration = Demonstration {
        path: settings.root.to_string_lossy().into_owned(),
        workers: settings.workers.get(),
        documents: observed.outcome,
        scopes: facts::scopes(&observed.report),
        metrics: facts::metrics(&observed.report),
        telemetry: observed.account,
        cost: Cost::of(off, on),
        captured: None,
        sent: None,
        traces: Vec::new(),
    };
    Ok((demonstration, observed.telemetry))
}

/// How many rounds of two runs to make if one run takes this long.
fn usual_rounds(run: Duration) -> u32 {
    let fit_into = |time: Duration| (time.as_secs_f64() / (2.0 * run.as_secs_f64())) as u32;
    let (fewest, most) = USUAL_ROUNDS.into_inner();
    let rounds = fit_into(USUAL_TIME).clamp(fewest, most);
    rounds.min(fit_into(PATIENCE)).max(1)
}

/// One run without telemetry, and its CPU time.
fn run_off(settings: &Settings) -> Result<Option<Duration>, Failure> {
    let before = cpu_time();
    pipeline::run(&Telemetry::disabled(), settings, &Unseen).map_err(no_worker)?;
    Ok(since(before))
}

/// What one run with telemetry left behind.
struct Observed {
    outcome: Outcome,
    account: Account,
    report: Report,
    telemetry: Telemetry,
}

/// One run with all that a program would have: a context, a reporter that keeps every event, a flush at the end.
fn run_on(settings: &Settings) -> Result<(Observed, Option<Duration>), Failure> {
    let before = cpu_time();
    let recording = Recording::new(RECORDING_BYTES);
    let telemetry = Telemetry::builder().reporter(recording.clone()).build();
    let outcome = pipeline::run(&telemetry, settings, &Unseen).map_err(no_worker)?;
    let account = facts::account(&telemetry, &recording, FLUSH_PATIENCE);
    let cpu = since(before);
    let report = telemetry.report();
    telemetry.shutdown(FLUSH_PATIENCE);
    Ok((Observed { outcome, account, report, telemetry }, cpu))
}

fn since(before: Option<Duration>) -> Option<Duration> {
    Some(cpu_time()?.saturating_sub(before?))
}

fn no_worker(error: io::Error) -> Failure {
    Failure::new(
        format!("cannot start a worker thread: {error}"),
        "raise the limit on processes, or try again when fewer are running",
    )
}

fn nothing_readable(settings: &Settings, outcome: &Outcome) -> Failure {
    let place = quoted(&settings.root);
    let left_out = outcome.found + outcome.too_large;
    let message = match left_out {
        0 if outcome.inaccessible > 0 => format!("nothing under {place} may be looked at"),
        0 => format!("no files under {place}"),
        1 => format!("the only file under {place} is no readable UTF-8 text"),
        _ => format!("none of the {left_out} files under {place} is readable UTF-8 text"),
    };
    Failure::new(message, "give a PATH with text files, such as a source folder")
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy())
}

/// A progress bar on standard error if that is a terminal, else nothing.
///
/// It moves with the documents of the first run and with the rounds after it; drawing while a run is measured would be measured too.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Bar::label(&bar, "reading");
        Bar(bar)
    }

    /// From here on each step is a round.
    fn plan(&self, rounds: u32) {
        self.0.reset();
        self.0.set_length(u64::from(rounds));
        Bar::label(&self.0, "measuring");
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }

    fn label(bar: &ProgressBar, label: &str) {
        if let Ok(style) = ProgressStyle::with_template(&format!("{label} {{bar:40}} {{pos}}/{{len}}")) {
            bar.set_style(style);
        }
    }
}

impl Progress for Bar {
    fn expect(&self, documents: u64) {
        self.0.set_length(documents);
    }

    fn advance(&self) {
        self.0.inc(1);
    }
}

/// The progress of a run that is measured.
struct Unseen;

impl Progress for Unseen {
    fn expect(&self, _: u64) {}

    fn advance(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_work_is_repeated_more_often_and_large_work_less() {
        let rounds = [1, 50, 1_000, 3_000, 60_000].map(|ms| usual_rounds(Duration::from_millis(ms)));
        assert_eq!(rounds, [40, 20, 5, 1, 1]);
        assert_eq!(usual_rounds(Duration::ZERO), 40);
    }
}
