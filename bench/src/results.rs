//! Samples as children print them, and what they add up to: one row per peer and case.

use crate::case::{IDS, TWO_CLOCK_READS};
use crate::peers::floor;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything measured.
#[derive(Default)]
pub struct Results {
    /// In the order in which they first came.
    pub rows: Vec<Row>,
    /// Verifications that failed and children that ended badly. Any makes the run fail.
    pub failures: Vec<String>,
}

/// One peer's figures for one case, over all rounds.
pub struct Row {
    /// `library/configuration`.
    pub peer: String,
    /// The case id.
    pub case: String,
    ns: Vec<f64>,
    baseline_ns: Vec<f64>,
    baseline_relative: Vec<f64>,
    cpu_ns: Vec<f64>,
    allocations: Vec<f64>,
    /// Instructions per operation, and those of the case's baseline, where they were counted.
    pub instructions: Option<(f64, Option<f64>)>,
    /// What only some cases have: `lost`, `late`, `bytes`, `at_<depth>`; the worst of all rounds.
    pub more: BTreeMap<String, f64>,
}

impl Results {
    /// Adds a line that a child printed.
    pub fn add(&mut self, peer: &str, line: &str) {
        let Ok(sample) = serde_json::from_str::<Value>(line) else {
            self.failures.push(format!("{peer}: not a sample: {line}"));
            return;
        };
        let row = self.row_or_new(peer, sample["case"].as_str().unwrap_or_default());
        row.ns.extend(numbers(&sample["ns"]));
        row.baseline_ns.extend(numbers(&sample["baseline_ns"]));
        row.baseline_relative.extend(numbers(&sample["baseline_relative"]));
        row.cpu_ns.extend(sample["cpu_ns"].as_f64());
        row.allocations.extend(sample["allocations"].as_f64());
        for (key, value) in sample["more"].as_object().into_iter().flatten() {
            let value = value.as_f64().unwrap_or(f64::NAN);
            // Bytes and losses: the worst; times: the best, as everywhere.
            let best = key.ends_with("_ns");
            let entry = row.more.entry(key.clone()).or_insert(value);
            *entry = if best { entry.min(value) } else { entry.max(value) };
        }
    }

    /// The row of a peer and case, if it was measured.
    pub fn find(&self, peer: &str, case: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.peer == peer && row.case == case)
    }

    /// The row of a peer and case, made if there is none.
    pub fn row_or_new(&mut self, peer: &str, case: &str) -> &mut Row {
        let found = self.rows.iter().position(|row| row.peer == peer && row.case == case);
        let index = found.unwrap_or_else(|| {
            self.rows.push(Row::new(peer, case));
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    /// What a figure is relative to: for enabled scopes two clock reads of the same run, for `on_two_threads` one
    /// thread, otherwise nothing; nor where scopes were lost.
    pub fn ratio(&self, row: &Row) -> Option<f64> {
        if row.peer == floor::NAME {
            return if row.case == "on_two_threads" { row.relative() } else { None };
        }
        if row.more.get("lost").is_some_and(|&lost| lost > 0.0) {
            // What was not recorded was not paid for either.
            return None;
        }
        let floor = self.find(floor::NAME, TWO_CLOCK_READS)?.ns_min()?;
        match row.case.as_str() {
            "on_two_threads" => row.relative(),
            "sustained_10s" => Some(row.cpu_ns()? / row.more.get("floor_cpu_ns")?),
            "on_scope0" | "on_scope2" | "on_nest5" | "on_inline" | "on_many_paths" | "on_many_paths_4096"
            | "on_dynamic" | "e2e_many_roots" | "e2e_one_root" => Some(row.ns_min()? / floor),
            _ => None,
        }
    }

    /// Rows in the order of the table: floors, then case by case, the fastest peer first.
    pub fn ordered(&self) -> Vec<&Row> {
        let place = |row: &Row| match row.peer == floor::NAME {
            true => 0,
            false => 1 + IDS.iter().position(|id| *id == row.case).unwrap_or(IDS.len()),
        };
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by(|left, right| {
            let speed = || left.ns_min().unwrap_or(0.0).total_cmp(&right.ns_min().unwrap_or(0.0));
            place(left)
                .cmp(&place(right))
                .then_with(|| if place(left) == 0 { std::cmp::Ordering::Equal } else { speed() })
        });
        rows
    }

    /// The list that `--json` writes.
    pub fn to_json(&self) -> Value {
        let row = |row: &&Row| {
            json!({
                "peer": row.peer, "case": row.case, "ns_min": row.ns_min(), "ns_median": row.ns_median(),
                "cpu_ns": row.cpu_ns(), "allocs": row.allocations(), "ratio": self.ratio(row),
                "instructions": row.instructions.map(|(counted, _)| counted), "more": row.more,
            })
        };
        Value::Array(self.ordered().iter().map(row).collect())
    }
}

impl Row {
    fn new(peer: &str, case: &str) -> Row {
        Row {
            peer: peer.to_owned(),
            case: case.to_owned(),
            ns: Vec::new(),
            baseline_ns: Vec::new(),
            baseline_relative: Vec::new(),
            cpu_ns: Vec::new(),
            allocations: Vec::new(),
            instructions: None,
            more: BTreeMap::new(),
        }
    }

    /// The fastest batch, per operation, less the fastest of the baseline.
    pub fn ns_min(&self) -> Option<f64> {
        Some(minimum(&self.ns)? - minimum(&self.baseline_ns).unwrap_or(0.0))
    }

    /// The median batch, per operation, less the median of the baseline.
    pub fn ns_median(&self) -> Option<f64> {
        Some(median(&self.ns)? - median(&self.baseline_ns).unwrap_or(0.0))
    }

    /// Process CPU time per operation, deferred work included: the best round.
    pub fn cpu_ns(&self) -> Option<f64> {
        minimum(&self.cpu_ns)
    }

    /// Allocations of the calling thread per operation: the worst round.
    pub fn allocations(&self) -> Option<f64> {
        self.allocations.iter().copied().reduce(f64::max)
    }

    /// `on_two_threads`: two threads relative to one.
    fn relative(&self) -> Option<f64> {
        Some(minimum(&self.ns)? / minimum(&self.baseline_relative)?)
    }
}

/// What a child prints for one case of one round.
pub struct Sample {
    case: &'static str,
    /// Per operation, one for each batch.
    pub ns: Vec<f64>,
    /// The same loop without the operation.
    pub baseline_ns: Vec<f64>,
    /// What the figure is relative to, not less.
    pub baseline_relative: Vec<f64>,
    /// Process CPU time per operation.
    pub cpu_ns: f64,
    /// Of the calling thread, per operation.
    pub allocations: f64,
    more: BTreeMap<String, f64>,
}

impl Sample {
    /// An empty sample of a case.
    pub fn new(case: &'static str) -> Sample {
        let (ns, baseline_ns, baseline_relative) = (Vec::new(), Vec::new(), Vec::new());
        Sample {
            case,
            ns,
            baseline_ns,
            baseline_relative,
            cpu_ns: f64::NAN,
            allocations: f64::NAN,
            more: BTreeMap::new(),
        }
    }

    /// A figure that only this case has.
    pub fn more(&mut self, key: &str, value: f64) {
        self.more.insert(key.to_owned(), value);
    }

    /// To the parent, as one line.
    pub fn print(&self) {
        let line = json!({
            "case": self.case, "ns": self.ns, "baseline_ns": self.baseline_ns,
            "baseline_relative": self.baseline_relative, "cpu_ns": self.cpu_ns,
            "allocations": self.allocations, "more": self.more,
        });
        println!("{line}");
    }
}

fn numbers(value: &Value) -> impl Iterator<Item = f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64)
}

fn minimum(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::min)
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some((sorted[middle - 1] + upper) / 2.0) }
}
