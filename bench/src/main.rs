//! `kastor-bench`: kastor and its peers, measured in one binary under one timing loop. See `README.md`.

mod alloc;
mod case;
mod gate;
mod harness;
mod instructions;
mod machine;
mod peers;
mod results;
mod table;

use harness::Settings;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

const USAGE: &str = "\
kastor-bench [OPTIONS]
  --only P          only peers whose name starts with P; the floors always run
  --rounds N        rounds over all configurations (default 5)
  --quick           2 rounds, short batches, 1 s instead of 10 s
  --micro           without the cases that take seconds (e2e, sustained, open levels)
  --instructions    also count instructions per operation, under valgrind
  --json FILE       write the figures as JSON
  --gate core       measure kastor against its own limits; exit code 1 if one is missed
  --list            the configurations and their cases";

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)) {
        Ok(Asked { child: Some((peer, task)), settings, .. }) => code(harness::child(&peer, &task, settings.quick)),
        Ok(Asked { list: true, settings, .. }) => list(&settings),
        Ok(Asked { gate: true, settings, .. }) => code(gate::core(&settings)),
        Ok(asked) => measure(&asked),
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

struct Asked {
    settings: Settings,
    json: Option<String>,
    instructions: bool,
    gate: bool,
    list: bool,
    child: Option<(String, String)>,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let settings = Settings { only: None, rounds: 0, quick: false, micro: false };
    let mut asked = Asked { settings, json: None, instructions: false, gate: false, list: false, child: None };
    let mut rounds = None;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--only" => asked.settings.only = Some(value()?),
            "--rounds" => {
                let number: u32 = value()?.parse().map_err(|_| "--rounds needs a number")?;
                rounds = Some(number.max(1));
            }
            "--quick" => asked.settings.quick = true,
            "--micro" => asked.settings.micro = true,
            "--instructions" => asked.instructions = true,
            "--json" => asked.json = Some(value()?),
            "--gate" if value()? == "core" => asked.gate = true,
            "--gate" => return Err("the gate is called core".to_owned()),
            "--list" => asked.list = true,
            "--child" => asked.child = Some((value()?, value()?)),
            "--help" | "-h" => return Err(String::new()),
            _ => return Err(format!("unknown argument: {word}")),
        }
    }
    asked.settings.rounds = rounds.unwrap_or(if asked.settings.quick { 2 } else { 5 });
    Ok(asked)
}

fn measure(asked: &Asked) -> ExitCode {
    let mut results = harness::run(&asked.settings);
    if asked.instructions {
        instructions::count(&asked.settings, &mut results);
    }
    table::print(&results, &harness::selected(&asked.settings));
    if let Some(path) = &asked.json
        && let Err(error) = std::fs::write(path, format!("{:#}\n", results.to_json()))
    {
        eprintln!("{path}: {error}");
        return ExitCode::FAILURE;
    }
    code(results.failures.is_empty())
}

fn list(settings: &Settings) -> ExitCode {
    for peer in harness::selected(settings) {
        let cases: Vec<_> = peer.cases().iter().map(|case| case.id).collect();
        println!("{:<22} {}\n{:<22} {}", peer.name(), peer.note(), "", cases.join(" "));
    }
    ExitCode::SUCCESS
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
