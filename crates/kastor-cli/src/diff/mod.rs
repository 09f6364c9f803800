//! `kastor diff`: what changed between two sets of captures, and whether it is more than noise.
//!
//! Every path has two figures of its own: how long a call takes, and how long it takes without the calls inside it. Both are
//! judged; calls, totals and errors are shown. `docs/diff.md` says how the judgement is made and what it can not see.

mod arguments;
mod batches;
mod judge;
mod render;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::PathBuf;

use kastor::Outcome;
use kastor_export::capture::{Block, Tables, Timing};
use serde::Serialize;

pub(crate) use self::arguments::DiffArguments;
pub(crate) use self::judge::{Change, Verdict as Judged};

use self::batches::Batches;
use self::judge::judge;
use crate::captures::{self, Seen, Visitor};
use crate::failure::{Failure, Verdict};
use crate::glob::Glob;
use crate::output::Output;
use crate::report::{Place, Tree};

/// Numbers of paths are dense from 1; what is beyond this many comes from no program.
const MOST_PATHS: usize = 1 << 20;
/// Marks the number of a path that ends at the limits; without it the number is as good.
const DEEPER_BIT: u32 = 1 << 31;
/// Open scopes whose children are remembered; more are in no program at once.
const MOST_OPEN: usize = 1 << 20;

/// Runs the command.
pub(crate) fn run(arguments: &DiffArguments, output: &mut Output) -> Result<Verdict, Failure> {
    let mut tree = Tree::default();
    let base = read(&arguments.base, &mut tree)?;
    let new = read(&arguments.new, &mut tree)?;
    let difference = compare(&tree, base, new, arguments);
    if arguments.json {
        output.json(&difference)?;
    } else if arguments.markdown {
        render::markdown(&difference, output);
    } else {
        render::text(&difference, output);
    }
    let is_finding = arguments.fail_over.is_some() && difference.regressions > 0;
    Ok(if is_finding { Verdict::Finding } else { Verdict::Fine })
}

/// What the command says.
#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    pub(crate) base: Seen,
    pub(crate) new: Seen,
    /// A change below this is none.
    pub(crate) threshold: f64,
    /// Whether a regression is a failure.
    pub(crate) is_gate: bool,
    pub(crate) regressions: u64,
    /// The greatest change of own time first.
    pub(crate) paths: Vec<PathDifference>,
    /// Paths that found no place among these.
    pub(crate) more_paths: u64,
}

/// One path on both sides.
#[derive(Debug, Serialize)]
pub(crate) struct PathDifference {
    pub(crate) path: String,
    #[serde(skip)]
    pub(crate) place: Place,
    pub(crate) base: Option<Figures>,
    pub(crate) new: Option<Figures>,
    /// Of the mean duration of a call.
    pub(crate) call: Option<Change>,
    /// Of the mean duration of a call without the calls inside it.
    pub(crate) own: Option<Change>,
}

/// One path on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) total_ns: u64,
    pub(crate) self_ns: u64,
    pub(crate) mean_ns: f64,
    pub(crate) self_mean_ns: f64,
}

impl PathDifference {
    /// Whether a call takes longer, surely and by enough.
    pub(crate) fn is_regression(&self) -> bool {
        self.call.is_some_and(|change| change.verdict == Judged::Slower)
    }

    /// By how much more or less time the path itself takes in all.
    fn weight_ns(&self) -> u64 {
        let own = |figures: Option<Figures>| figures.map_or(0, |figures| figures.self_ns);
        own(self.base).abs_diff(own(self.new))
    }
}

fn compare(tree: &Tree, base: Side, new: Side, arguments: &DiffArguments) -> Difference {
    let glob = arguments.path.as_deref().map(Glob::new);
    let threshold = arguments.threshold();
    let is_wanted = |path: &str| glob.as_ref().is_none_or(|glob| glob.matches(path));
    let mut paths = judged(tree, base.paths, new.paths, threshold, is_wanted);
    paths.sort_by(|one, other| {
        let key = |path: &PathDifference| (!path.is_regression(), std::cmp::Reverse(path.weight_ns()));
        (key(one), &one.path).cmp(&(key(other), &other.path))
    });
    let regressions = paths.iter().filter(|path| path.is_regression()).count() as u64;
    let most = if arguments.limit == 0 { usize::MAX } else { arguments.limit.max(regressions as usize) };
    let more_paths = paths.len().saturating_sub(most) as u64;
    paths.truncate(most);
    let is_gate = arguments.fail_over.is_some();
    Difference { base: base.seen, new: new.seen, threshold, is_gate, regressions, paths, more_paths }
}

/// Every path of both sides, judged as the command does where nothing else is asked for: for the viewer.
pub(crate) fn judged_by_default(tree: &Tree, base: Adding, new: Adding) -> Vec<PathDifference> {
    judged(tree, base.paths, new.paths, arguments::THRESHOLD, |_| true)
}

fn judged(
    tree: &Tree,
    mut base: HashMap<Place, PathSums>,
    mut new: HashMap<Place, PathSums>,
    threshold: f64,
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<PathDifference> {
    let both = base.iter().filter(|(place, sums)| sums.calls > 0 && new.contains_key(*place)).count();
    let mut paths = Vec::new();
    for place in 1..tree.len() as Place {
        let (base, new) = (base.remove(&place), new.remove(&place));
        if base.is_none() && new.is_none() {
            continue;
        }
        let path = tree.text(place);
        if !is_wanted(&path) {
            continue;
        }
        let (of_base, of_new) = (base.as_ref().map(PathSums::figures), new.as_ref().map(PathSums::figures));
        let judged = |batches: fn(&PathSums) -> &Batches, mean: fn(&Figures) -> f64| {
            let (base, new) = (base.as_ref()?, new.as_ref()?);
            let means = (mean(&of_base?), mean(&of_new?));
            // Two figures for each path that is on both sides.
            Some(judge(batches(base).estimate(), batches(new).estimate(), means, threshold, 2 * both))
        };
        paths.push(PathDifference {
            path,
            place,
            call: judged(|sums| &sums.whole, |figures| figures.mean_ns),
            own: judged(|sums| &sums.own, |figures| figures.self_mean_ns),
            base: of_base,
            new: of_new,
        });
    }
    paths
}

/// One set of captures.
struct Side {
    seen: Seen,
    paths: HashMap<Place, PathSums>,
}

fn read(path: &PathBuf, tree: &mut Tree) -> Result<Side, Failure> {
    let files = captures::files(std::slice::from_ref(path))?;
    let mut reading = Reading { tree, session: Session::default(), inside: Inside::default(), paths: HashMap::new() };
    let seen = captures::visit(&files, &mut reading)?;
    Ok(Side { seen, paths: reading.paths })
}

/// What closed under one path.
#[derive(Clone, Debug, Default)]
struct PathSums {
    calls: u64,
    errors: u64,
    total_ns: u64,
    self_ns: u64,
    whole: Batches,
    own: Batches,
}

impl PathSums {
    fn add(&mut self, timing: &Timing<'_>, ns: u64, own_ns: u64) {
        self.calls += 1;
        self.errors += u64::from(timing.outcome() == Outcome::Failed);
        self.total_ns = self.total_ns.saturating_add(ns);
        self.self_ns = self.self_ns.saturating_add(own_ns);
        self.whole.add(ns);
        self.own.add(own_ns);
    }

    fn append(&mut self, later: PathSums) {
        self.calls += later.calls;
        self.errors += later.errors;
        self.total_ns = self.total_ns.saturating_add(later.total_ns);
        self.self_ns = self.self_ns.saturating_add(later.self_ns);
        self.whole.append(later.whole);
        self.own.append(later.own);
    }

    fn figures(&self) -> Figures {
        let Self { calls, errors, total_ns, self_ns, .. } = *self;
        let mean = |total: u64| if calls == 0 { 0.0 } else { total as f64 / calls as f64 };
        Figures { calls, errors, total_ns, self_ns, mean_ns: mean(total_ns), self_mean_ns: mean(self_ns) }
    }
}

struct Reading<'t> {
    tree: &'t mut Tree,
    session: Session,
    inside: Inside,
    paths: HashMap<Place, PathSums>,
}

/// Time inside scopes that are open, by their ids: a child's record comes before its parent's.
#[derive(Default)]
struct Inside(HashMap<u64, u64, BuildHasherDefault<AsItIs>>);

impl Inside {
    /// A scope has closed: its time, and its time without what was inside.
    fn closed(&mut self, timing: &Timing<'_>) -> (u64, u64) {
        let ns = timing.duration_ns();
        let own_ns = ns.saturating_sub(self.0.remove(&timing.span_id()).unwrap_or(0));
        if let Some(parent) = timing.parent_span_id().filter(|_| !timing.is_detached()) {
            if self.0.len() >= MOST_OPEN {
                self.0.clear();
            }
            let within = self.0.entry(parent).or_default();
            *within = within.saturating_add(ns);
        }
        (ns, own_ns)
    }
}

/// One side of a comparison, scope by scope: for the viewer, which reads in its own way.
#[derive(Default)]
pub(crate) struct Adding {
    inside: Inside,
    paths: HashMap<Place, PathSums>,
}

impl Adding {
    /// The next scope of a run; without a place it is not compared.
    pub(crate) fn add(&mut self, place: Option<Place>, timing: &Timing<'_>) {
        let (ns, own_ns) = self.inside.closed(timing);
        if let Some(place) = place {
            self.paths.entry(place).or_default().add(timing, ns, own_ns);
        }
    }

    /// What follows is another process's.
    pub(crate) fn end_run(&mut self) {
        self.inside.0.clear();
        for sums in self.paths.values_mut() {
            sums.whole.end_run();
            sums.own.end_run();
        }
    }
}

/// Sums by the path numbers of one session.
#[derive(Default)]
struct Session {
    /// Where the sums of a path are, plus 1; by its number.
    places: Vec<u32>,
    sums: Vec<(u32, PathSums)>,
}

impl Session {
    /// The sums of a path; of those with numbers that no program writes, of number 0.
    fn of(&mut self, number: u32) -> Option<&mut PathSums> {
        let mut index = (number & !DEEPER_BIT) as usize;
        if index >= MOST_PATHS {
            index = 0;
        }
        if self.places.len() <= index {
            self.places.resize((index + 1).next_power_of_two(), 0);
        }
        let place = self.places.get_mut(index)?;
        if *place == 0 {
            self.sums.push((if index == 0 { 0 } else { number }, PathSums::default()));
            *place = self.sums.len() as u32;
        }
        self.sums.get_mut((*place as usize).wrapping_sub(1)).map(|(_, sums)| sums)
    }
}

impl Visitor for Reading<'_> {
    fn block(&mut self, block: &Block<'_>) {
        let (inside, session) = (&mut self.inside, &mut self.session);
        block.for_each_timing(|timing| {
            let (ns, own_ns) = inside.closed(&timing);
            if let Some(sums) = session.of(timing.path_id()) {
                sums.add(&timing, ns, own_ns);
            }
        });
    }

    fn tables_end(&mut self, tables: &Tables) {
        let mut known = HashMap::new();
        let Session { sums, .. } = std::mem::take(&mut self.session);
        for (path, sums) in sums {
            let place = self.tree.place(tables, path, &mut known);
            self.paths.entry(place).or_default().append(sums);
        }
    }

    fn process_ends(&mut self) {
        self.inside.0.clear();
        for sums in self.paths.values_mut() {
            sums.whole.end_run();
            sums.own.end_run();
        }
    }
}

/// Ids are random already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}
