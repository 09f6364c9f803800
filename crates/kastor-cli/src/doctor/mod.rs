//! `kastor doctor`: what kastor finds on this machine and in this environment, and what it costs here.

mod clock;
mod measure;

use serde::Serialize;

use crate::arguments::DoctorArguments;
use crate::facts::{self, LimitFacts, VariableFacts};
use crate::failure::{Failure, Verdict};
use crate::output::{ALARM, FAINT, Output, PLAIN};
use crate::table::Table;
use measure::{Costs, measure};

/// Variables that switch something: on with `1`, off with `0`, and anything else is a mistake.
const SWITCHES: [&str; 2] = ["KASTOR_TELEMETRY", "KASTOR_TELEMETRY_STRICT_SCOPES"];

/// All that the command shows.
#[derive(Serialize)]
struct Examination {
    version: &'static str,
    system: String,
    processors: usize,
    clock_source: &'static str,
    limits: Vec<LimitFacts>,
    environment: Vec<VariableFacts>,
    costs: Costs,
    /// What is not as it should be, as sentences.
    findings: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &DoctorArguments, output: &mut Output) -> Result<Verdict, Failure> {
    let environment = facts::environment();
    let examination = Examination {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        clock_source: facts::clock_source(),
        limits: facts::limits(),
        findings: environment.iter().filter_map(finding).collect(),
        environment,
        costs: measure(),
    };
    if arguments.json {
        output.json(&examination)?;
    } else {
        text(&examination, output);
    }
    Ok(if examination.findings.is_empty() { Verdict::Fine } else { Verdict::Finding })
}

/// What is wrong with a variable, if anything.
fn finding(variable: &VariableFacts) -> Option<String> {
    let VariableFacts { name, value, .. } = variable;
    let value = value.as_deref()?;
    if SWITCHES.contains(name) && !matches!(value, "0" | "1") {
        return Some(format!("{name} is '{value}'; only 1 switches on and only 0 switches off"));
    }
    None
}

fn text(examination: &Examination, output: &mut Output) {
    let Examination { version, system, processors, .. } = examination;
    output.line(PLAIN, &format!("kastor {version} on {system}, {processors} processors"));
    output.heading("Clock");
    output.line(PLAIN, examination.clock_source);
    output.heading("Limits");
    limits(&examination.limits, output);
    output.heading("Environment");
    environment(&examination.environment, output);
    output.heading("Costs on this machine");
    costs(&examination.costs, output);
    output.heading("Findings");
    for finding in &examination.findings {
        output.line(ALARM, finding);
    }
    if examination.findings.is_empty() {
        output.line(PLAIN, "none");
    }
}

fn limits(limits: &[LimitFacts], output: &mut Output) {
    let rows = limits.iter().map(|limit| {
        [limit.name.replace('_', " "), limit.value.to_string(), limit.unit.to_owned(), limit.beyond.to_owned()]
    });
    write_rows(rows, &[1], output);
}

fn environment(variables: &[VariableFacts], output: &mut Output) {
    let rows = variables.iter().map(|variable| {
        let value = match &variable.value {
            Some(value) => format!("= {value}"),
            None => "not set".to_owned(),
        };
        [variable.name.to_owned(), value, variable.meaning.to_owned()]
    });
    write_rows(rows, &[], output);
}

fn costs(costs: &Costs, output: &mut Output) {
    let rows = costs.operations.iter().map(|operation| {
        [
            operation.name.to_owned(),
            format!("{:.2} ns", operation.ns),
            format!("{:.2} × two clock reads", operation.clock_read_pairs),
        ]
    });
    write_rows(rows, &[1, 2], output);
    output.line(
        FAINT,
        &format!(
            "Each the cheapest of {} rounds on one thread, {:.2} ns of loop included. What kastor's own thread does later comes on top.",
            costs.rounds, costs.loop_ns
        ),
    );
    output.line(
        FAINT,
        &format!(
            "A program that sets an overhead budget of 1 % of a processor (none by default) has a path aggregated only from about {:.0} scopes a second on, delivery not counted.",
            costs.scopes_per_second(0.01)
        ),
    );
}

fn write_rows<const COLUMNS: usize>(
    rows: impl Iterator<Item = [String; COLUMNS]>,
    numbers: &[usize],
    output: &mut Output,
) {
    let mut table = Table::new();
    for row in rows {
        table.row(row);
    }
    for line in table.lines(|column| numbers.contains(&column)) {
        output.line(PLAIN, &line);
    }
}
