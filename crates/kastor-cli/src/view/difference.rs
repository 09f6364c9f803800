//! Two captures compared path by path, judged as `kastor diff` judges.

use serde::Serialize;

use super::capture::Capture;
use super::filter::{Filter, Ready};
use crate::diff::{Adding, Change, Figures, Judged, PathDifference, judged_by_default};
use crate::failure::Failure;
use crate::report::{Place, Tree};

/// The comparison: parents stand before their children.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    rows: Vec<ComparedPath>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ComparedPath {
    path: String,
    name: String,
    /// The row of what is above; -1: nothing.
    parent: i64,
    base: Option<Side>,
    new: Option<Side>,
    judgement: &'static str,
    change_ratio: Option<f64>,
    low_ratio: Option<f64>,
    high_ratio: Option<f64>,
    self_judgement: Option<&'static str>,
    self_ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    calls: u64,
    errors: u64,
    total_ns: u64,
    self_ns: u64,
}

/// Compares what a filter wants of two captures.
pub(super) fn compare(new: &Capture, base: &Capture, filter: &Filter) -> Result<Comparison, Failure> {
    let mut tree = Tree::default();
    let of_base = read(base, filter, &mut tree)?;
    let of_new = read(new, filter, &mut tree)?;
    Ok(Comparison { rows: rows(&tree, judged_by_default(&tree, of_base, of_new)) })
}

fn read(capture: &Capture, filter: &Filter, tree: &mut Tree) -> Result<Adding, Failure> {
    let ready = Ready::new(filter, capture);
    let places = joined(&capture.paths, tree);
    let mut adding = Adding::default();
    let mut process = None;
    capture.for_each_block(0..capture.blocks.len() as u32, |_, entry, block| {
        let Some(segment) = capture.segment(entry) else { return };
        if process.replace(segment.process).is_some_and(|before| before != segment.process) {
            adding.end_run();
        }
        block.for_each_timing(|timing| {
            let path = segment.numbers.find(timing.path_id());
            let is_failed = timing.outcome() == kastor::Outcome::Failed;
            let is_wanted = ready.may_want(path, entry.thread, timing.duration_ns(), is_failed) && ready.wants(&timing);
            adding.add(places.get(path as usize).copied().filter(|_| is_wanted), &timing);
        });
    })?;
    adding.end_run();
    Ok(adding)
}

/// Where the paths of a capture are in the tree of both.
fn joined(paths: &Tree, tree: &mut Tree) -> Vec<Place> {
    let mut places: Vec<Place> = vec![0];
    for place in 1..paths.len() as Place {
        let Some(node) = paths.node(place) else { break };
        let parent = places.get(node.parent as usize).copied().unwrap_or(0);
        places.push(tree.child(parent, paths.name(place), node.is_deeper));
    }
    places
}

fn rows(tree: &Tree, paths: Vec<PathDifference>) -> Vec<ComparedPath> {
    let mut by_place: Vec<Option<PathDifference>> = (0..tree.len()).map(|_| None).collect();
    let mut is_shown = vec![false; tree.len()];
    for path in paths {
        let mut at = path.place;
        while at != 0 && !is_shown.get(at as usize).copied().unwrap_or(true) {
            is_shown[at as usize] = true;
            at = tree.node(at).map_or(0, |node| node.parent);
        }
        let place = path.place as usize;
        if let Some(to) = by_place.get_mut(place) {
            *to = Some(path);
        }
    }
    let mut row_of = vec![-1_i64; tree.len()];
    let mut rows = Vec::new();
    for place in (1..tree.len()).filter(|place| is_shown[*place]) {
        row_of[place] = rows.len() as i64;
        let above = tree.node(place as Place).map_or(0, |node| node.parent);
        rows.push(row(tree, place as Place, row_of.get(above as usize).copied().unwrap_or(-1), by_place[place].take()));
    }
    rows
}

fn row(tree: &Tree, place: Place, parent: i64, path: Option<PathDifference>) -> ComparedPath {
    let (base, new, call, own) = path.map_or((None, None, None, None), |it| (it.base, it.new, it.call, it.own));
    let is_deeper = tree.node(place).is_some_and(|node| node.is_deeper);
    ComparedPath {
        path: tree.text(place),
        name: if is_deeper { "….(deeper)".to_owned() } else { tree.name(place).to_owned() },
        parent,
        judgement: match (&base, &new, &call) {
            (Some(_), None, _) => "gone",
            (None, Some(_), _) => "new",
            (_, _, Some(change)) => word(change),
            _ => "few",
        },
        change_ratio: call.map(|change| change.change).filter(|ratio| ratio.is_finite()),
        low_ratio: call.and_then(|change| change.interval).map(|(low, _)| low).filter(|ratio| ratio.is_finite()),
        high_ratio: call.and_then(|change| change.interval).map(|(_, high)| high).filter(|ratio| ratio.is_finite()),
        self_judgement: own.as_ref().map(word),
        self_ratio: own.map(|change| change.change).filter(|ratio| ratio.is_finite()),
        base: base.map(side),
        new: new.map(side),
    }
}

fn side(figures: Figures) -> Side {
    let Figures { calls, errors, total_ns, self_ns, .. } = figures;
    Side { calls, errors, total_ns, self_ns }
}

fn word(change: &Change) -> &'static str {
    match change.verdict {
        Judged::Slower => "slower",
        Judged::Faster => "faster",
        Judged::Same => "same",
        Judged::Unclear => "unclear",
        Judged::Few => "few",
    }
}
