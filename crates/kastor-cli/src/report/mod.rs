//! `kastor report`: where the time of one or many captures went.
//!
//! ```text
//! blocks ─▶ sums by path number (per session) ─▶ call tree (all sessions) ─▶ rows ─▶ text, JSON, Markdown
//! ```
//!
//! A capture is read once, from one end to the other, in memory for its paths and not for its scopes. Of a scope that is not
//! among the slowest only path, duration and flags are read.

mod arguments;
mod markdown;
mod rows;
mod series;
mod slowest;
mod sums;
mod text;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use kastor_export::capture::{Aggregates, Block, Tables, Timing};
use serde::Serialize;

pub(crate) use self::arguments::ReportArguments;
pub(crate) use self::markdown::code as markdown_code;
pub(crate) use self::series::value_text;
pub(crate) use self::slowest::SlowScope;
pub(crate) use self::sums::{Sums, number as value_number};
pub(crate) use self::tree::{ByPlace, Place, Tree};

use self::rows::{Row, rows};
use self::series::Metrics;
use self::slowest::Slowest;
use self::sums::{Events, SessionEvents, SessionSums};
use crate::captures::{self, Seen, Visitor};
use crate::facts::MetricFacts;
use crate::failure::{Failure, Verdict};
use crate::glob::Glob;
use crate::output::Output;

/// Runs the command.
pub(crate) fn run(arguments: &ReportArguments, output: &mut Output) -> Result<Verdict, Failure> {
    let report = report(arguments)?;
    if arguments.json {
        output.json(&report)?;
    } else if arguments.markdown {
        markdown::write(&report, output);
    } else {
        text::write(&report, output);
    }
    Ok(Verdict::Fine)
}

/// Reports on what a program just left in a folder, as `kastor report FOLDER` would.
pub(crate) fn run_on(paths: Vec<PathBuf>, output: &mut Output) -> Result<Verdict, Failure> {
    run(&ReportArguments::of(paths), output)
}

/// The sums of all scopes, for other commands.
pub(crate) struct Summed {
    pub(crate) seen: Seen,
    pub(crate) tree: Tree,
    pub(crate) by_place: ByPlace,
}

/// Adds up everything under these paths.
pub(crate) fn summed(paths: &[PathBuf]) -> Result<Summed, Failure> {
    let arguments = ReportArguments::of(paths.to_vec());
    let mut reading = Reading::new(&arguments);
    let seen = captures::visit(&captures::files(paths)?, &mut reading)?;
    Ok(Summed { seen, tree: reading.tree, by_place: reading.by_place })
}

/// What a report says.
#[derive(Debug, Serialize)]
struct Report {
    captures: Seen,
    /// In the order of the tree, or of the figure if it is flat.
    scopes: Vec<Row>,
    /// Paths that were wanted and found no place among these.
    more_paths: u64,
    metrics: Vec<MetricFacts>,
    slowest: Vec<SlowScope>,
    is_flat: bool,
    /// The metrics are not of the asked time alone.
    metrics_since_start: bool,
}

fn report(arguments: &ReportArguments) -> Result<Report, Failure> {
    let files = captures::files(&arguments.files)?;
    let mut reading = Reading::new(arguments);
    let mut seen = captures::visit(&files, &mut reading)?;
    seen.missing.nameless = reading.nameless;
    seen.missing.without_record = reading.without_record;
    let Reading { tree, by_place, events, metrics, slowest, .. } = reading;

    let (scopes, more_paths) = rows(&tree, &by_place, arguments);
    let mut by_text: BTreeMap<String, Events> = BTreeMap::new();
    for (place, sums) in events {
        by_text.entry(tree.text(place)).or_default().merge(&sums);
    }
    let glob = arguments.path.as_deref().map(Glob::new);
    let mut metrics = metrics.facts(by_text);
    metrics.retain(|metric| glob.as_ref().is_none_or(|glob| glob.matches(&metric.path)));
    let metrics_since_start = arguments.since.is_some() && metrics.iter().any(|metric| metric.kind != "metric");
    let (slowest, is_flat) = (slowest.finish(), arguments.flat);
    Ok(Report { captures: seen, scopes, more_paths, metrics, slowest, is_flat, metrics_since_start })
}

/// What is added up while the captures are read.
struct Reading {
    window_ns: (u64, u64),
    is_windowed: bool,
    session: SessionSums,
    session_events: SessionEvents,
    tree: Tree,
    by_place: ByPlace,
    events: HashMap<Place, Events>,
    metrics: Metrics,
    slowest: Slowest,
    nameless: u64,
    /// Scopes of the current process that have a record.
    recorded: u64,
    without_record: u64,
}

impl Reading {
    fn new(arguments: &ReportArguments) -> Self {
        let window_ns = (arguments.since.unwrap_or(0), arguments.until.unwrap_or(u64::MAX));
        Self {
            window_ns,
            is_windowed: arguments.since.is_some() || arguments.until.is_some(),
            session: SessionSums::default(),
            session_events: SessionEvents::default(),
            tree: Tree::default(),
            by_place: ByPlace::default(),
            events: HashMap::new(),
            metrics: Metrics::default(),
            slowest: Slowest::new(arguments.slowest, arguments.path.as_deref().map(Glob::new)),
            nameless: 0,
            recorded: 0,
            without_record: 0,
        }
    }
}

impl Visitor for Reading {
    fn block(&mut self, block: &Block<'_>) {
        let (since_ns, until_ns) = self.window_ns;
        self.recorded += u64::from(block.len());
        if block.last_unix_ns() < since_ns || block.first_unix_ns() >= until_ns {
            return;
        }
        // Whether all of the block is wanted is known from its header.
        let is_inside = block.first_unix_ns() >= since_ns && block.last_unix_ns() < until_ns;
        let is_wanted = |timing: &Timing<'_>| (since_ns..until_ns).contains(&timing.start_unix_ns());
        let is_wanted: Option<&dyn Fn(&Timing<'_>) -> bool> =
            if self.is_windowed && !is_inside { Some(&is_wanted) } else { None };
        let mut threshold_ns = self.slowest.threshold_ns;
        let slowest = &mut self.slowest;
        let look = |timing: &Timing<'_>| slowest.look(block, timing);
        let others = self.session.add(block, is_wanted, &mut threshold_ns, look);
        if others > 0 {
            self.recorded = self.recorded.saturating_sub(u64::from(others));
            self.session_events.add(block, self.window_ns);
        }
    }

    fn aggregates(&mut self, aggregates: &Aggregates<'_>) {
        self.metrics.add(aggregates, self.window_ns.1);
    }

    fn tables_end(&mut self, tables: &Tables) {
        let mut known = HashMap::new();
        for (path, sums) in self.session.take() {
            if tables.levels(path) == 0 {
                self.nameless += sums.calls;
            }
            let place = self.tree.place(tables, path, &mut known);
            self.by_place.merge(place, sums);
        }
        for (path, sums) in std::mem::take(&mut self.session_events.0) {
            let place = self.tree.place(tables, path, &mut known);
            self.events.entry(place).or_default().merge(&sums);
        }
        self.slowest.end_session();
    }

    fn process_ends(&mut self) {
        let told = self.metrics.end_process();
        self.without_record += told.saturating_sub(std::mem::take(&mut self.recorded));
    }
}
