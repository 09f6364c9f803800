//! One file with page and data, for a browser that reaches nothing else.
//!
//! The data stands in a block that no browser runs: JSON, in which the scopes of each capture are a table of columns
//! (little-endian, compressed, as base64). `docs/view.md` draws it.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::capture::{Capture, Content};
use super::detail::{Told, shift_ns};
use super::difference::{self, Comparison};
use super::filter::Filter;
use super::overview::{self, Overview, Paths};
use super::page;
use super::scopes::{Scopes, flag};
use super::series::{self, ListedSeries, Points};
use super::timeline::Range;
use super::tree::{self, CallTree};
use crate::failure::Failure;
use crate::neutral::neutral_json;

/// Values of a series over time.
const MOST_POINTS: u32 = 2000;
/// What the tags of the page are replaced by something else for.
const SCRIPT_TAG: &str = r#"<script src="/viewer.js" defer></script>"#;
const STYLE_TAG: &str = r#"<link rel="stylesheet" href="/viewer.css">"#;
/// Bits of a scope's flags in the table.
const FAILED: u8 = 1;
const DETACHED: u8 = 2;

/// Everything that a page asks a server for.
#[derive(Serialize)]
struct Data {
    format: u32,
    overview: Overview,
    diff: Option<Comparison>,
    captures: Vec<OfCapture>,
}

#[derive(Serialize)]
struct OfCapture {
    paths: Paths,
    tree: CallTree,
    series: Vec<ListedSeries>,
    points: BTreeMap<usize, Points>,
    scopes: Table,
    /// From place to place: parent, child.
    arrows: Vec<(u32, u32)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    count: usize,
    trace_count: usize,
    /// Lane, level, number of scopes.
    rows: Vec<(u32, u32, usize)>,
    table: String,
    details: String,
}

/// Writes the file.
pub(super) fn write(captures: &[&Capture], to: &Path) -> Result<(), Failure> {
    let document = document(captures)?;
    std::fs::write(to, document).map_err(|error| {
        Failure::new(
            format!("cannot write '{}': {error}", to.display()),
            "check the folder, your rights and the space there",
        )
    })
}

/// The file's content.
fn document(captures: &[&Capture]) -> Result<String, Failure> {
    let data = Data {
        format: 1,
        overview: overview::overview(captures.iter().copied(), false, 1),
        diff: match captures {
            [new, base] => Some(difference::compare(new, base, &Filter::default())?),
            _ => None,
        },
        captures: captures.iter().map(|capture| of_capture(capture)).collect::<Result<_, _>>()?,
    };
    let text = serde_json::to_string(&data)
        .map_err(|error| Failure::new(format!("cannot write the data: {error}"), "please report this as a bug"))?;
    // Outside of texts JSON has no such character, and within them it may be written so.
    let text = neutral_json(&text).replace('<', "\\u003c");
    page(&text).ok_or_else(|| Failure::new("the page is not as it should be", "please report this as a bug"))
}

/// The page around the data, with script and style inside and a policy that allows these two alone.
fn page(data: &str) -> Option<String> {
    let hash = |content: &str| STANDARD.encode(Sha256::digest(content));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'",
        hash(page::SCRIPT),
        hash(page::STYLE)
    );
    let (before, after) = page::INDEX.split_once("<head>")?;
    let (head, rest) = after.split_once(STYLE_TAG)?;
    let whole = format!("{head}<style>{}</style>{rest}", page::STYLE);
    let (front, back) = whole.split_once(SCRIPT_TAG)?;
    // An inline script runs where it stands: behind what it works on.
    let (body, end) = back.rsplit_once("</body>")?;
    Some(format!(
        "{before}<head>\n<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">{front}{body}\
         <script type=\"application/json\" id=\"kastor-data\">{data}</script>\n<script>{}</script>\n</body>{end}",
        page::SCRIPT
    ))
}

fn of_capture(capture: &Capture) -> Result<OfCapture, Failure> {
    let Content::Scopes(scopes) = &capture.content else {
        let message = format!("{} events are too many for one file", capture.records);
        return Err(Failure::new(message, "try `kastor view` without --html, or captures of a shorter time"));
    };
    let range = Range { from_ns: capture.start_ns, to_ns: capture.end_ns + 1, pixels: MOST_POINTS };
    let series = series::listed(capture).series;
    Ok(OfCapture {
        paths: overview::paths(capture),
        tree: tree::call_tree(capture, &Filter::default(), None)?,
        points: series
            .iter()
            .filter_map(|listed| {
                Some((listed.id, series::points(capture, capture.metrics.series.get(listed.id)?, range)))
            })
            .collect(),
        series,
        scopes: table(capture, scopes)?,
        arrows: scopes.arrows.iter().map(|(child, parent)| (*parent, *child)).collect(),
    })
}

/// What only the records tell of a scope.
#[derive(Clone, Copy, Default)]
struct Record {
    parent: u64,
    depth: u32,
    trace: u32,
}

fn table(capture: &Capture, scopes: &Scopes) -> Result<Table, Failure> {
    let count = scopes.len();
    let places: HashMap<u64, u32> = (0..count).map(|place| (scopes.span(place), place as u32)).collect();
    let mut told = vec![Record::default(); count];
    let (mut traces, mut by_id) = (Vec::<u128>::new(), HashMap::<u128, u32>::new());
    let mut details: Vec<(usize, Value)> = Vec::new();
    capture.for_each_block(0..capture.blocks.len() as u32, |_, entry, block| {
        for (index, timing) in (0..).zip(block.timings()) {
            let Some(place) = scopes.place_of(entry.first_record + index) else { continue };
            let trace_id = timing.trace_id();
            let trace = *by_id.entry(trace_id).or_insert_with(|| {
                traces.push(trace_id);
                (traces.len() - 1) as u32
            });
            let parent = timing.parent_span_id().unwrap_or(0);
            told[place] = Record { parent, depth: timing.depth(), trace };
            let content = Told::of(&timing, shift_ns(capture, entry, &timing));
            let foreign = timing.parent_span_id().filter(|id| !places.contains_key(id));
            if !content.is_empty() || foreign.is_some() {
                let Told { error_type, attributes, events, links, .. } = content;
                let parent = foreign.map(|id| format!("{id:016x}"));
                details.push((place, json!([place, error_type, attributes, events, links, parent])));
            }
        }
    })?;
    details.sort_by_key(|(place, _)| *place);
    let lines: Vec<String> = details.into_iter().map(|(_, line)| line.to_string()).collect();
    Ok(Table {
        count,
        trace_count: traces.len(),
        rows: scopes.rows.iter().map(|row| (row.lane, row.level, row.scopes.len())).collect(),
        table: packed(&columns(capture, scopes, &places, &told, &traces))?,
        details: packed(lines.join("\n").as_bytes())?,
    })
}

/// One column after the other.
fn columns(
    capture: &Capture,
    scopes: &Scopes,
    places: &HashMap<u64, u32>,
    told: &[Record],
    traces: &[u128],
) -> Vec<u8> {
    let count = scopes.len();
    let mut starts = vec![0_u64; count];
    for row in &scopes.rows {
        let mut before = capture.start_ns;
        for place in row.scopes.clone() {
            starts[place] = scopes.start_ns[place].saturating_sub(before);
            before = scopes.start_ns[place];
        }
    }
    let mut out = Vec::new();
    put_halves(&mut out, starts.iter().copied());
    put_halves(&mut out, scopes.duration_ns.iter().copied());
    put(&mut out, scopes.path.iter().map(|path| path.wrapping_sub(1)));
    let parents = told.iter().map(|told| places.get(&told.parent).map_or(0, |place| place + 1));
    put(&mut out, differences(parents));
    put(&mut out, told.iter().map(|told| told.depth));
    put(&mut out, differences(told.iter().map(|told| told.trace)));
    put_halves(&mut out, (0..count).map(|place| scopes.span(place)));
    out.extend(scopes.flags.iter().map(|flags| {
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        bit(flags & flag::FAILED != 0, FAILED) | bit(flags & flag::DETACHED != 0, DETACHED)
    }));
    traces.iter().for_each(|trace| out.extend_from_slice(&trace.to_be_bytes()));
    out
}

fn differences(values: impl Iterator<Item = u32>) -> impl Iterator<Item = u32> {
    let mut before = 0;
    values.map(move |value| value.wrapping_sub(std::mem::replace(&mut before, value)))
}

fn put(to: &mut Vec<u8>, words: impl Iterator<Item = u32>) {
    words.for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
}

/// All low halves, then all high halves, most of which are zero.
fn put_halves(to: &mut Vec<u8>, words: impl Iterator<Item = u64> + Clone) {
    put(to, words.clone().map(|word| word as u32));
    put(to, words.map(|word| (word >> 32) as u32));
}

fn packed(bytes: &[u8]) -> Result<String, Failure> {
    let failed = |error| Failure::new(format!("cannot compress the data: {error}"), "please report this as a bug");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).map_err(failed)?;
    Ok(STANDARD.encode(encoder.finish().map_err(failed)?))
}
