//! Rows of the report: which paths, in which order, with which figures.

use std::cmp::Reverse;

use serde::Serialize;

use super::arguments::{ReportArguments, Sort};
use super::tree::{ByPlace, Place, Tree};
use crate::glob::Glob;

/// One path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) depth: u32,
    /// Zero for a parent of which no scope closed in this time.
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) total_ns: u64,
    pub(crate) self_ns: u64,
    pub(crate) min_ns: u64,
    pub(crate) max_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p95_ns: u64,
    pub(crate) p99_ns: u64,
    /// Share of the parent's total; of a root, of all roots together.
    pub(crate) share: Option<f64>,
}

/// The rows that are wanted, and how many more paths are.
pub(super) fn rows(tree: &Tree, by_place: &ByPlace, arguments: &ReportArguments) -> (Vec<Row>, u64) {
    let self_ns = by_place.self_ns(tree);
    let figure = |place: Place| {
        let of = |pick: fn(&super::Sums) -> u64| by_place.get(place).map_or(0, pick);
        match arguments.sort {
            Sort::SelfTime => self_ns.get(place as usize).copied().unwrap_or(0),
            Sort::Total => of(|sums| sums.total_ns),
            Sort::Calls => of(|sums| sums.calls),
            Sort::Errors => of(|sums| sums.errors),
        }
    };
    let roots_ns = (1..tree.len() as Place)
        .filter(|place| tree.node(*place).is_some_and(|node| node.parent == 0))
        .fold(0_u64, |sum, root| sum.saturating_add(by_place.get(root).map_or(0, |sums| sums.total_ns)));
    let wanted = wanted(tree, by_place, arguments);
    let all = if arguments.flat { flat(&wanted, tree, &figure) } else { nested(&wanted, tree, &figure) };
    let most = if arguments.limit == 0 { usize::MAX } else { arguments.limit };
    let more = all.len().saturating_sub(most) as u64;
    let row = |place: Place| row(tree, by_place, &self_ns, roots_ns, place);
    (all.into_iter().take(most).map(row).collect(), more)
}

/// Paths that fit, are not too deep and have figures; with what is above them, unless the list is flat.
fn wanted(tree: &Tree, by_place: &ByPlace, arguments: &ReportArguments) -> Vec<bool> {
    let glob = arguments.path.as_deref().map(Glob::new);
    let mut wanted = vec![false; tree.len()];
    // What is above a path is older than the path.
    for place in (1..tree.len() as Place).rev() {
        let Some(node) = tree.node(place) else { continue };
        let fits = by_place.get(place).is_some()
            && arguments.depth.is_none_or(|depth| node.depth < depth)
            && glob.as_ref().is_none_or(|glob| glob.matches(&tree.text(place)));
        let is_above_one = wanted.get(place as usize).copied().unwrap_or(false);
        if let Some(wanted) = wanted.get_mut(place as usize) {
            *wanted = fits || is_above_one;
        }
        if (fits || is_above_one) && !arguments.flat {
            if let Some(above) = wanted.get_mut(node.parent as usize) {
                *above = true;
            }
        }
    }
    wanted
}

fn flat(wanted: &[bool], tree: &Tree, figure: &dyn Fn(Place) -> u64) -> Vec<Place> {
    let mut places: Vec<Place> =
        (1..tree.len() as Place).filter(|place| wanted.get(*place as usize) == Some(&true)).collect();
    places.sort_by_cached_key(|place| (Reverse(figure(*place)), tree.text(*place)));
    places
}

/// The tree, parents above their children.
fn nested(wanted: &[bool], tree: &Tree, figure: &dyn Fn(Place) -> u64) -> Vec<Place> {
    let mut children: Vec<Vec<Place>> = vec![Vec::new(); tree.len()];
    for place in (1..tree.len() as Place).filter(|place| wanted.get(*place as usize) == Some(&true)) {
        let parent = tree.node(place).map_or(0, |node| node.parent);
        if let Some(children) = children.get_mut(parent as usize) {
            children.push(place);
        }
    }
    for children in &mut children {
        // The last is visited first.
        children.sort_by(|one, other| {
            let key = |place: Place| (Reverse(figure(place)), tree.name(place));
            key(*other).cmp(&key(*one))
        });
    }
    let (mut ordered, mut open) = (Vec::new(), children.first_mut().map(std::mem::take).unwrap_or_default());
    while let Some(place) = open.pop() {
        ordered.push(place);
        open.extend(children.get_mut(place as usize).map(std::mem::take).unwrap_or_default());
    }
    ordered
}

fn row(tree: &Tree, by_place: &ByPlace, self_ns: &[u64], roots_ns: u64, place: Place) -> Row {
    let nothing = super::Sums::default();
    let sums = by_place.get(place).unwrap_or(&nothing);
    let (parent, depth) = tree.node(place).map_or((0, 0), |node| (node.parent, node.depth));
    let of_ns = if parent == 0 { roots_ns } else { by_place.get(parent).map_or(0, |sums| sums.total_ns) };
    let durations = &sums.durations_ns;
    let quantile = |q| durations.quantile(q).unwrap_or(0.0) as u64;
    Row {
        path: tree.text(place),
        name: tree.name(place).to_owned(),
        depth,
        calls: sums.calls,
        errors: sums.errors,
        total_ns: sums.total_ns,
        self_ns: self_ns.get(place as usize).copied().unwrap_or(0),
        min_ns: durations.min().unwrap_or(0.0) as u64,
        max_ns: durations.max().unwrap_or(0.0) as u64,
        p50_ns: quantile(0.50),
        p95_ns: quantile(0.95),
        p99_ns: quantile(0.99),
        share: (of_ns > 0 && sums.calls > 0).then(|| sums.total_ns as f64 / of_ns as f64),
    }
}
