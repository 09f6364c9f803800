//! The limits of delivering, each with what was measured on this machine.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Map, Value, json};

const MIB: f64 = (1u64 << 20) as f64;

/// Measures everything and prints a line per limit. Returns whether every one holds.
pub fn run(quick: bool, json_file: Option<&str>) -> bool {
    let rounds = if quick { 1 } else { 3 };
    let mut figures = Map::new();
    let mut failures = Vec::new();
    let folder = folder();
    for round in 0..rounds {
        for (name, needs_sink) in [
            ("capture_cost", false),
            ("capture_sustained", false),
            ("otlp_kastor_paced", true),
            ("otlp_opentelemetry_paced", true),
            ("otlp_kastor_unpaced", true),
            ("memory_dead_collector", false),
            ("scrape", false),
        ] {
            eprint!("\r\x1b[Kround {}/{rounds}: {name}", round + 1);
            match measured(name, needs_sink, quick, &folder) {
                Ok(found) => keep_better(figures.entry(name).or_insert(Value::Null), found),
                Err(problem) => failures.push(format!("{name}: {problem}")),
            }
        }
    }
    eprint!("\r\x1b[K");
    let _ = std::fs::remove_dir_all(&folder);
    let figure = |task: &str, key: &str| figures.get(task).and_then(|it| it.get(key)).and_then(Value::as_f64);
    let ratio = figure("otlp_kastor_paced", "per_cpu_second")
        .zip(figure("otlp_opentelemetry_paced", "per_cpu_second"))
        .map(|(ours, theirs)| ours / theirs);
    // Each the best of all rounds: a disturbed measurement of the reads must not make the ratio look better.
    let cpu_ratio = figure("capture_sustained", "cpu_ns")
        .zip(figure("capture_sustained", "two_reads_ns"))
        .map(|(cpu_ns, reads_ns)| cpu_ns / reads_ns);
    let growth = figure("memory_dead_collector", "growth_bytes")
        .zip(figure("memory_dead_collector", "bound_bytes"))
        .map(|(growth, bound)| (growth - bound) / MIB);
    let system = figures.get("capture_sustained").and_then(|it| it.get("file_system")).and_then(Value::as_str);
    println!("files on {}", system.unwrap_or("an unknown file system"));
    let limits = [
        Limit::at_most(
            "capture: a scope on the calling thread",
            1.25,
            "× two clock reads",
            figure("capture_cost", "ratio"),
        ),
        Limit::at_most(
            "capture: CPU of the process, system time included",
            2.0,
            "× two clock reads",
            cpu_ratio,
        ),
        Limit::at_least(
            "capture: one producer, sustained",
            10e6,
            "scopes/s",
            figure("capture_sustained", "per_second"),
        ),
        Limit::at_most("capture: lost", 0.0, "scopes", figure("capture_sustained", "lost")),
        Limit::at_most("capture: unaccounted", 0.0, "scopes", figure("capture_sustained", "unaccounted")),
        Limit::at_least(
            "OTLP, 2 attributes: delivered per CPU second",
            1e6,
            "scopes",
            figure("otlp_kastor_paced", "per_cpu_second"),
        ),
        Limit::at_least("OTLP: against opentelemetry-rust, per CPU second", 2.0, "×", ratio),
        Limit::at_most("OTLP, paced: lost by kastor", 0.0, "scopes", figure("otlp_kastor_paced", "lost")),
        Limit::at_most(
            "OTLP, paced: lost by opentelemetry-rust",
            0.0,
            "spans",
            figure("otlp_opentelemetry_paced", "lost"),
        ),
        Limit::at_most("OTLP, unpaced: unaccounted", 0.0, "scopes", figure("otlp_kastor_unpaced", "unaccounted")),
        Limit::at_most("dead collector: memory above the bound", 2.0, "MiB", growth),
        Limit::at_most("dead collector: unaccounted", 0.0, "scopes", figure("memory_dead_collector", "unaccounted")),
        Limit::at_most("scrape of 10,000 series, median", 10.0, "ms", figure("scrape", "median_ms")),
    ];
    limits.iter().for_each(|limit| println!("{}", limit.line()));
    failures.iter().for_each(|failure| println!("FAILED  {failure}"));
    let missed = limits.iter().filter(|limit| !limit.holds()).count();
    println!("\n{} limits, {missed} missed, {} failures", limits.len(), failures.len());
    if let Some(file) = json_file {
        let limits: Vec<Value> = limits.iter().map(Limit::json).collect();
        let text = json!({ "limits": limits, "figures": figures, "failures": failures }).to_string();
        if let Err(error) = std::fs::write(file, text) {
            eprintln!("{file}: {error}");
            return false;
        }
    }
    missed == 0 && failures.is_empty()
}

struct Limit {
    what: &'static str,
    bound: f64,
    is_least: bool,
    unit: &'static str,
    measured: Option<f64>,
}

impl Limit {
    fn at_most(what: &'static str, bound: f64, unit: &'static str, measured: Option<f64>) -> Self {
        Self { what, bound, is_least: false, unit, measured }
    }

    fn at_least(what: &'static str, bound: f64, unit: &'static str, measured: Option<f64>) -> Self {
        Self { what, bound, is_least: true, unit, measured }
    }

    fn holds(&self) -> bool {
        self.measured
            .is_some_and(|measured| if self.is_least { measured >= self.bound } else { measured <= self.bound })
    }

    fn line(&self) -> String {
        let verdict = if self.holds() { "ok    " } else { "MISSED" };
        let measured = self.measured.map_or("not measured".to_owned(), |measured| format!("{measured:.3}"));
        let side = if self.is_least { "at least" } else { "at most" };
        format!("{verdict}  {:<52} {measured:>16}  {side} {} {}", self.what, self.bound, self.unit)
    }

    fn json(&self) -> Value {
        json!({ "what": self.what, "bound": self.bound, "is_least": self.is_least, "unit": self.unit,
            "measured": self.measured, "holds": self.holds() })
    }
}

/// Keys of which more is better; of all other numbers less is.
const MORE_IS_BETTER: [&str; 3] = ["per_second", "per_cpu_second", "arrived"];
/// Where the worst round counts: nothing may be lost in any.
const WORST_COUNTS: [&str; 2] = ["lost", "unaccounted"];

fn keep_better(kept: &mut Value, found: Value) {
    let (Some(kept), Some(found)) = (kept.as_object_mut(), found.as_object()) else {
        *kept = found;
        return;
    };
    for (key, value) in found {
        let (Some(before), Some(now)) = (kept.get(key).and_then(Value::as_f64), value.as_f64()) else { continue };
        let wants_more = MORE_IS_BETTER.contains(&key.as_str()) || WORST_COUNTS.contains(&key.as_str());
        if if wants_more { now > before } else { now < before } {
            kept.insert(key.clone(), value.clone());
        }
    }
}

fn measured(name: &str, needs_sink: bool, quick: bool, folder: &str) -> Result<Value, String> {
    let sink = if needs_sink { Some(Sink::start()?) } else { None };
    let mut child = child(name, sink.as_ref().map_or(0, |sink| sink.port), quick, folder)?;
    let line = first_line(&mut child);
    let status = child.wait().map_err(|error| error.to_string())?;
    match line {
        Some(line) if status.success() => serde_json::from_str(&line).map_err(|error| format!("{error}: {line}")),
        _ => Err(status.to_string()),
    }
}

/// The receiving server; it ends with this.
struct Sink {
    child: Child,
    port: u16,
}

impl Sink {
    fn start() -> Result<Self, String> {
        let mut child = child("sink", 0, false, "-")?;
        let line = first_line(&mut child).ok_or("the sink said nothing")?;
        let told: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let port = told.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        Ok(Self { child, port: port.ok_or("the sink told no port")? })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn child(task: &str, port: u16, quick: bool, folder: &str) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["--child", task, &port.to_string(), folder]).args(quick.then_some("--quick"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())
}

fn first_line(child: &mut Child) -> Option<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut()?).read_line(&mut line).ok()?;
    (!line.is_empty()).then_some(line)
}

/// A folder beside this binary, on the disk that builds use.
fn folder() -> String {
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(std::path::Path::to_path_buf));
    let folder = beside.unwrap_or_else(std::env::temp_dir).join(format!("export-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&folder);
    folder.display().to_string()
}
