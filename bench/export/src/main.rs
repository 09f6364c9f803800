//! `kastor-bench-export`: what delivering costs, against the project's own limits.
//!
//! Every configuration runs in a child process of its own, the server that receives in another; rounds are interleaved.
//! A child prints one line of JSON. A figure is the best of all rounds, since everything else on a machine only adds.

mod capture;
mod gate;
mod memory;
mod otlp;
mod scrape;
mod sink;

#[path = "../../src/machine.rs"]
#[allow(dead_code, reason = "the core's benchmark uses all of it")]
mod machine;

use std::process::ExitCode;

const USAGE: &str = "\
kastor-bench-export [OPTIONS]
  --quick        shorter runs: figures to look at, not to rely on
  --json FILE    write the figures as JSON";

/// One thing that a child process does.
type Task = fn(&Order) -> Result<serde_json::Value, String>;

/// Everything a child can be told to do. The gate calls them by these names.
const TASKS: [(&str, Task); 8] = [
    ("capture_cost", capture::cost),
    ("capture_sustained", capture::sustained),
    ("otlp_kastor_paced", otlp::kastor_paced),
    ("otlp_kastor_unpaced", otlp::kastor_unpaced),
    ("otlp_opentelemetry_paced", otlp::opentelemetry_paced),
    ("memory_dead_collector", memory::dead_collector),
    ("scrape", scrape::serve),
    ("sink", sink::serve),
];

/// What a child is told.
pub struct Order {
    /// Shorter.
    pub quick: bool,
    /// Port of the server on loopback, where one is needed.
    pub port: u16,
    /// A folder for files, on the file system that is to be measured.
    pub folder: std::path::PathBuf,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match asked(&words) {
        Ok(Asked::Child(task, order)) => match task(&order) {
            Ok(figures) => {
                println!("{figures}");
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        },
        Ok(Asked::Gate { quick, json }) => {
            if gate::run(quick, json.as_deref()) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

enum Asked {
    Child(Task, Order),
    Gate { quick: bool, json: Option<String> },
}

fn asked(words: &[String]) -> Result<Asked, String> {
    if let [flag, name, port, folder, rest @ ..] = words {
        if flag == "--child" {
            let task = TASKS.iter().find(|(known, _)| known == name).ok_or(format!("no such task: {name}"))?;
            let port = port.parse().map_err(|_| format!("no port: {port}"))?;
            let quick = rest.iter().any(|word| word == "--quick");
            return Ok(Asked::Child(task.1, Order { quick, port, folder: folder.into() }));
        }
    }
    let (mut quick, mut json, mut words) = (false, None, words.iter());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => quick = true,
            "--json" => json = Some(words.next().ok_or("--json needs a file")?.clone()),
            other => return Err(format!("no argument {other}")),
        }
    }
    Ok(Asked::Gate { quick, json })
}
