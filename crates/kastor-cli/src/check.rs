//! `kastor check`: what captures hold, what is missing, where they are damaged; and a clean copy of what is whole.

use std::fs;
use std::path::{Path, PathBuf};

use kastor_export::capture::{Checked, Gap, Repaired, SessionReport, ThreadReport, check, gaps_between, repair};
use serde::Serialize;

use crate::arguments::CheckArguments;
use crate::failure::{Failure, Verdict};
use crate::output::{ALARM, FAINT, Output, PLAIN};
use crate::table::Table;
use crate::units::{bytes, duration};

/// All that the command shows.
#[derive(Serialize)]
struct Findings {
    files: Vec<FileFacts>,
    /// Between files of one process.
    gaps: Vec<GapFacts>,
    repaired: Option<RepairFacts>,
}

#[derive(Serialize)]
struct FileFacts {
    path: String,
    is_whole: bool,
    bytes: u64,
    events: u64,
    missing_events: u64,
    damaged_places: u64,
    damaged_bytes: u64,
    torn_bytes: u64,
    nameless_records: u64,
    /// The first of them.
    damage: Vec<DamageFacts>,
    sessions: Vec<SessionFacts>,
}

#[derive(Serialize)]
struct DamageFacts {
    offset: u64,
    bytes: u64,
    what: &'static str,
}

#[derive(Serialize)]
struct SessionFacts {
    /// None where the part that says so is damaged.
    process_id: Option<u32>,
    instance_id: Option<String>,
    file_number: Option<u32>,
    begun_unix_ns: Option<u64>,
    blocks: u64,
    scopes: u64,
    failed_scopes: u64,
    metrics: u64,
    paths: u64,
    aggregates: u64,
    first_unix_ns: Option<u64>,
    last_unix_ns: Option<u64>,
    threads: Vec<ThreadFacts>,
}

#[derive(Serialize)]
struct ThreadFacts {
    index: u32,
    name: String,
    os_id: u64,
    last_block: u64,
    events: u64,
    missing_blocks: u64,
    missing_events: u64,
}

#[derive(Serialize)]
struct GapFacts {
    instance_id: String,
    thread: u32,
    after_file: u32,
    before_file: u32,
    missing_blocks: u64,
    missing_events: u64,
}

#[derive(Serialize)]
struct RepairFacts {
    path: String,
    frames: u64,
    bytes: u64,
    left_bytes: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &CheckArguments, output: &mut Output) -> Result<Verdict, Failure> {
    let paths = files(&arguments.files)?;
    if let (Some(_), [_, _, ..]) = (&arguments.repair, &*paths) {
        return Err(Failure::new("--repair takes one file at a time", "name one FILE"));
    }
    let mut checked = Vec::new();
    for path in &paths {
        checked.push(check(path).map_err(|error| Failure::new(error.to_string(), "give a capture of kastor"))?);
    }
    let gaps = gaps_between(&checked).iter().map(GapFacts::new).collect();
    let repaired = match (&arguments.repair, &*paths) {
        (Some(to), [from]) => {
            let hint = "choose a file that is not there, in a folder that can be written";
            let repaired = repair(from, to).map_err(|error| Failure::new(error.to_string(), hint))?;
            Some(RepairFacts::new(to, repaired))
        }
        _ => None,
    };
    let files = paths.iter().zip(&checked).map(|(path, checked)| FileFacts::new(path, checked)).collect();
    let findings = Findings { files, gaps, repaired };
    if arguments.json {
        output.json(&findings)?;
    } else {
        text(&findings, output);
    }
    let is_whole = findings.files.iter().all(|file| file.is_whole) && findings.gaps.is_empty();
    Ok(if is_whole { Verdict::Fine } else { Verdict::Finding })
}

/// The files that were named, and those in folders that were.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |error| {
            Failure::new(format!("cannot read '{}': {error}", path.to_string_lossy()), "give a file or folder of yours")
        };
        let before = files.len();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let inside = entry.map_err(unreadable)?.path();
            if inside.extension().is_some_and(|extension| extension == "kcap") {
                files.push(inside);
            }
        }
        if files.len() == before {
            let message = format!("there is no .kcap file in '{}'", path.to_string_lossy());
            return Err(Failure::new(message, "give the folder that a capture was written to"));
        }
        if let Some(found) = files.get_mut(before..) {
            found.sort();
        }
    }
    Ok(files)
}

impl FileFacts {
    fn new(path: &Path, checked: &Checked) -> FileFacts {
        let damage =
            |it: &kastor_export::capture::Damage| DamageFacts { offset: it.offset, bytes: it.bytes, what: it.what };
        FileFacts {
            path: path.to_string_lossy().into_owned(),
            is_whole: checked.is_whole(),
            bytes: checked.bytes,
            events: checked.events(),
            missing_events: checked.missing_events(),
            damaged_places: checked.damaged_places,
            damaged_bytes: checked.damaged_bytes,
            torn_bytes: checked.torn_bytes,
            nameless_records: checked.nameless_records,
            damage: checked.damage.iter().map(damage).collect(),
            sessions: checked.sessions.iter().map(SessionFacts::new).collect(),
        }
    }
}

impl SessionFacts {
    fn new(report: &SessionReport) -> SessionFacts {
        let session = report.session.as_ref();
        SessionFacts {
            process_id: session.map(|session| session.process_id),
            instance_id: session.map(|session| instance(session.instance_id)),
            file_number: session.map(|session| session.file_number),
            begun_unix_ns: session.map(|session| session.unix_ns),
            blocks: report.blocks,
            scopes: report.timings,
            failed_scopes: report.failures,
            metrics: report.metrics,
            paths: report.paths,
            aggregates: report.aggregates,
            first_unix_ns: report.span_unix_ns.map(|(first, _)| first),
            last_unix_ns: report.span_unix_ns.map(|(_, last)| last),
            threads: report.threads.iter().map(ThreadFacts::new).collect(),
        }
    }
}

impl ThreadFacts {
    fn new(report: &ThreadReport) -> ThreadFacts {
        let ThreadReport { index, os_id, last_block, events, missing_blocks, missing_events, .. } = *report;
        ThreadFacts { index, name: report.name.clone(), os_id, last_block, events, missing_blocks, missing_events }
    }
}

impl GapFacts {
    fn new(gap: &Gap) -> GapFacts {
        GapFacts {
            instance_id: instance(gap.instance_id),
            thread: gap.thread,
            after_file: gap.files.0,
            before_file: gap.files.1,
            missing_blocks: gap.blocks,
            missing_events: gap.events,
        }
    }
}

impl RepairFacts {
    fn new(path: &Path, repaired: Repaired) -> RepairFacts {
        let Repaired { frames, bytes, left_bytes } = repaired;
        RepairFacts { path: path.to_string_lossy().into_owned(), frames, bytes, left_bytes }
    }
}

fn instance(id: u128) -> String {
    format!("{id:032x}")
}

fn text(findings: &Findings, output: &mut Output) {
    for file in &findings.files {
        let verdict = if file.is_whole { "whole" } else { "not whole" };
        let style = if file.is_whole { PLAIN } else { ALARM };
        let summary = format!("{}: {}, {} events, {verdict}", file.path, bytes(file.bytes), file.events);
        output.line(style, &summary);
        file.sessions.iter().for_each(|session| session_text(session, output));
        damage_text(file, output);
    }
    for gap in &findings.gaps {
        let GapFacts { instance_id, thread, after_file, before_file, missing_blocks, missing_events } = gap;
        let place = format!("between files {after_file} and {before_file} of process {instance_id}");
        let missing = format!("{missing_blocks} blocks with {missing_events} events of thread {thread}");
        output.line(ALARM, &format!("missing {place}: {missing}"));
    }
    if let Some(RepairFacts { path, frames, bytes: size, left_bytes }) = &findings.repaired {
        let left = format!("{} left behind", bytes(*left_bytes));
        output.line(PLAIN, &format!("repaired into {path}: {frames} frames, {}; {left}", bytes(*size)));
    }
}

fn session_text(session: &SessionFacts, output: &mut Output) {
    let process = match (session.process_id, &session.instance_id, session.file_number) {
        (Some(process), Some(instance), Some(number)) => format!("process {process}, run {instance}, file {number}"),
        _ => "a process whose name is damaged".to_owned(),
    };
    let span = match (session.first_unix_ns, session.last_unix_ns) {
        (Some(first), Some(last)) => format!(", over {}", duration(last.saturating_sub(first))),
        _ => String::new(),
    };
    let SessionFacts { blocks, scopes, failed_scopes, metrics, paths, .. } = session;
    output.line(FAINT, &process);
    output.line(
        PLAIN,
        &format!(
            "{scopes} scopes, {failed_scopes} of them failed, {metrics} metrics; {paths} paths, {blocks} blocks{span}"
        ),
    );
    let mut table = Table::with_header(&["thread", "name", "events", "last block", "missing events"]);
    for thread in &session.threads {
        let numbers = [thread.events, thread.last_block, thread.missing_events].map(|number| number.to_string());
        table.row([thread.index.to_string(), thread.name.clone()].into_iter().chain(numbers));
    }
    let mut lines = table.lines(|column| column != 1).into_iter();
    output.line(FAINT, &lines.next().unwrap_or_default());
    for (line, thread) in lines.zip(&session.threads) {
        output.line(if thread.missing_blocks > 0 { ALARM } else { PLAIN }, &line);
    }
}

fn damage_text(file: &FileFacts, output: &mut Output) {
    for damage in &file.damage {
        output.line(ALARM, &format!("damaged: {} bytes at offset {}, {}", damage.bytes, damage.offset, damage.what));
    }
    let unlisted = file.damaged_places.saturating_sub(file.damage.len() as u64);
    let others = [
        (unlisted, "more places are damaged"),
        (file.torn_bytes, "bytes at the end are no whole frame: killed while writing, or writing now"),
        (file.nameless_records, "records have a path that the file does not tell"),
    ];
    for (number, what) in others.into_iter().filter(|(number, _)| *number > 0) {
        output.line(ALARM, &format!("{number} {what}"));
    }
}
