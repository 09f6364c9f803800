//! A fleet, simulated: 64 processes send at once through one collector, which is stopped and started while they do.
//!
//! The program `fleet_workload` is the fleet and the place behind the collector; it says when the collector has to go and
//! to come back, and compares what arrived with what its members say. `docs/fleet.md` plans with the figures of this run.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{
    output,
    place::Place,
    servers::{Rotel, free_port},
};
use crate::steps::{NotPassed, Steps};

/// Linux counts the time of processes in hundredths of seconds, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// All checks of this subject.
pub(crate) fn checks(steps: &mut Steps, place: &Place) {
    let program = || place.example("fleet_workload", "");
    steps.attempt("fleet, bytes on the wire", |_| {
        let mut run = Command::new(program()?);
        run.arg("wire");
        let figures: Value = parsed(&output(run)?)?;
        Ok(in_lines("wire", &figures))
    });
    for spool in ["with-spool", "without-spool"] {
        steps.attempt(&format!("fleet, {spool}"), |_| {
            let figures = run(place, &program()?, spool)?;
            Ok(in_lines(spool, &figures))
        });
    }
}

/// One run. Returns its figures, and the collector's.
fn run(place: &Place, program: &Path, spool: &str) -> Result<Value, NotPassed> {
    let check = format!("fleet-{spool}");
    let folder = place.work(&check)?;
    let sink = free_port()?;
    let ports = (free_port()?, free_port()?);
    let url = format!("http://127.0.0.1:{sink}");
    let more = ["--exporter", "otlp", "--otlp-exporter-endpoint", &url, "--otlp-exporter-protocol", "http"];
    let start = |folder: &Path| Rotel::start_quietly_on(place, ports, folder, &more);

    let mut collector = Some(start(&folder)?);
    let mut used = Used::default();
    let mut fleet = Command::new(program);
    fleet.args(["run", spool, &format!("http://127.0.0.1:{}", ports.1), &sink.to_string()]).arg(&folder);
    let line = crate::steps::shown(&fleet);
    let failed = |error: &dyn std::fmt::Display| NotPassed::failed(format!("{line}: {error}"));
    let mut child = fleet.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| failed(&error))?;
    let (Some(mut orders), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(&"it has no pipes"));
    };
    let mut said = String::new();
    for line in BufReader::new(out).lines() {
        let line = line.map_err(|error| failed(&error))?;
        match line.as_str() {
            "stop" => {
                if let Some(running) = collector.take() {
                    used.add(&running)?;
                    // What it has taken it sends on before it ends.
                    running.server.stop()?;
                }
            }
            "start" => collector = Some(start(&folder)?),
            _ => {
                said = line;
                continue;
            }
        }
        writeln!(orders, "done").map_err(|error| failed(&error))?;
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(failed(&status));
    }
    if let Some(running) = &collector {
        used.add(running)?;
    }
    let mut figures = parsed(&said)?;
    let came = figures["came"].as_f64().unwrap_or(f64::NAN);
    figures["collector_cpu_us_per_event"] = rounded(used.cpu_seconds * 1e6 / came);
    figures["collector_most_memory_kib"] = used.most_memory_kib.into();
    Ok(figures)
}

/// What the collector took of the machine, over all of its lives.
#[derive(Default)]
struct Used {
    cpu_seconds: f64,
    most_memory_kib: u64,
}

impl Used {
    fn add(&mut self, collector: &Rotel) -> Result<(), NotPassed> {
        let of_process = PathBuf::from(format!("/proc/{}", collector.server.id()));
        let read = |name: &str| {
            let file = of_process.join(name);
            fs::read_to_string(&file).map_err(|error| NotPassed::failed(format!("{}: {error}", file.display())))
        };
        // Behind the name, which may hold anything: user and system time are fields 14 and 15.
        let stat = read("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        self.cpu_seconds += ticks / TICKS_PER_SECOND;
        let status = read("status")?;
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        let most = most.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
        self.most_memory_kib = self.most_memory_kib.max(most);
        Ok(())
    }
}

fn parsed(text: &str) -> Result<Value, NotPassed> {
    serde_json::from_str(text).map_err(|error| NotPassed::failed(format!("fleet_workload printed {text}: {error}")))
}

fn rounded(value: f64) -> Value {
    ((value * 10.0).round() / 10.0).into()
}

/// One figure a line.
fn in_lines(what: &str, figures: &Value) -> String {
    let lines = figures.as_object().into_iter().flatten().map(|(name, figure)| format!("{what}: {name} {figure}"));
    lines.collect::<Vec<_>>().join("\n")
}
