//! What of a capture is wanted: a text such as `path:db.* duration>1ms -error attr:user=7`, all of whose terms have to hold.
//!
//! | term | holds for scopes |
//! |---|---|
//! | `word` | whose path has this in it, in small or capital letters |
//! | `path:GLOB` | whose path fits |
//! | `attr:KEY`, `attr:KEY=GLOB` | that have the attribute; whose attribute fits |
//! | `error`, `error:TEXT` | that failed; that failed with this in the error's type |
//! | `duration>1ms`, `duration<5s` | that took longer, or less |
//! | `process:PID`, `thread:GLOB` | of this process; of threads of such a name |
//! | `-TERM` | for which the term does not hold |
//!
//! Spaces part terms, unless they stand in double quotes. Terms on path, time and thread are decided in memory; for the
//! others records are read again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kastor::Outcome;
use kastor_export::capture::Timing;

use super::bits::Bits;
use super::capture::{Capture, Content};
use super::scopes::Scopes;
use crate::failure::Failure;
use crate::glob::Glob;
use crate::report::value_text;

/// Characters of a filter.
const MOST_CHARACTERS: usize = 4096;
const UNITS: [(&str, f64); 6] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("min", 60e9), ("s", 1e9)];

/// A filter as it was understood. The empty one wants everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    terms: Vec<(bool, Term)>,
}

#[derive(Clone, Debug)]
enum Term {
    Contains(String),
    Path(Glob),
    Attribute(String, Option<Glob>),
    Failed,
    ErrorType(String),
    LongerThan(u64),
    ShorterThan(u64),
    Process(u32),
    Thread(Glob),
}

/// Why a filter is none, and where: characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrongFilter {
    pub(super) message: String,
    pub(super) at: usize,
    pub(super) length: usize,
}

impl fmt::Display for WrongFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.message)
    }
}

impl Filter {
    /// Reads a filter.
    pub(super) fn parse(text: &str) -> Result<Self, WrongFilter> {
        let characters = text.chars().count();
        if characters > MOST_CHARACTERS {
            let message = format!("a filter of {characters} characters; {MOST_CHARACTERS} are allowed");
            return Err(WrongFilter { message, at: 0, length: characters });
        }
        let words = words(text)?;
        let terms = words.into_iter().map(|word| {
            let (is_wanted, rest) = match word.text.strip_prefix('-') {
                Some(rest) if !rest.is_empty() => (false, rest),
                _ => (true, word.text.as_str()),
            };
            // What is quoted stands one further to the front now.
            let quote_at = word.quote_at.saturating_sub(usize::from(!is_wanted));
            let wrong = |message: String| WrongFilter { message, at: word.at, length: word.length };
            term(rest, quote_at).map(|term| (is_wanted, term)).map_err(wrong)
        });
        Ok(Self { terms: terms.collect::<Result<_, _>>()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether records have to be read to tell.
    fn needs_records(&self) -> bool {
        self.terms.iter().any(|(_, term)| matches!(term, Term::Attribute(..) | Term::ErrorType(_)))
    }
}

/// One word of a filter.
struct Word {
    text: String,
    at: usize,
    length: usize,
    /// Bytes of the text before its first quoted character: what is quoted is no operator.
    quote_at: usize,
}

fn words(text: &str) -> Result<Vec<Word>, WrongFilter> {
    let (mut words, mut open): (Vec<Word>, Option<Word>) = (Vec::new(), None);
    let mut quoted_from = None;
    for (at, character) in text.chars().enumerate() {
        if character == '"' {
            quoted_from = if quoted_from.is_some() { None } else { Some(at) };
            let word = open.get_or_insert(Word { text: String::new(), at, length: 0, quote_at: usize::MAX });
            word.length = at + 1 - word.at;
            word.quote_at = word.quote_at.min(word.text.len());
        } else if character.is_whitespace() && quoted_from.is_none() {
            words.extend(open.take());
        } else {
            let word = open.get_or_insert(Word { text: String::new(), at, length: 0, quote_at: usize::MAX });
            word.text.push(character);
            word.length = at + 1 - word.at;
        }
    }
    if let Some(at) = quoted_from {
        let message = "a quote that is not closed: add a \" at the end".to_owned();
        return Err(WrongFilter { message, at, length: text.chars().count() - at });
    }
    words.extend(open);
    words.retain(|word| !word.text.is_empty());
    Ok(words)
}

fn term(text: &str, quote_at: usize) -> Result<Term, String> {
    for (sign, is_longer) in [('>', true), ('<', false)] {
        if let Some(rest) = text.strip_prefix("duration").and_then(|rest| rest.strip_prefix(sign)) {
            let ns = duration_ns(rest.trim_start_matches('='))?;
            return Ok(if is_longer { Term::LongerThan(ns) } else { Term::ShorterThan(ns) });
        }
    }
    if text == "error" && quote_at > 0 {
        return Ok(Term::Failed);
    }
    // A colon in quotes is a colon.
    let Some((key, value)) = text.split_once(':').filter(|(key, _)| key.len() < quote_at) else {
        return Ok(Term::Contains(text.to_lowercase()));
    };
    let needs_value = || if value.is_empty() { Err(format!("nothing after '{key}:'")) } else { Ok(()) };
    match key {
        "path" => needs_value().map(|()| Term::Path(Glob::new(value))),
        "thread" => Ok(Term::Thread(Glob::new(value))),
        "error" => needs_value().map(|()| Term::ErrorType(value.to_lowercase())),
        "process" => match value.parse() {
            Ok(id) => Ok(Term::Process(id)),
            Err(_) => Err(format!("'{value}' is no number of a process")),
        },
        "attr" => {
            needs_value()?;
            Ok(match value.split_once('=') {
                Some((key, value)) => Term::Attribute(key.to_owned(), Some(Glob::new(value))),
                None => Term::Attribute(value.to_owned(), None),
            })
        }
        "duration" => Err("a duration is compared: duration>1ms or duration<5s".to_owned()),
        _ => Err(format!(
            "no term '{key}:'; there are path: attr: error: process: thread: and duration> duration<, and \"quotes\" for a text"
        )),
    }
}

fn duration_ns(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no duration: try 250us, 1.5ms or 2s");
    let (number, factor) =
        UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).ok_or_else(wrong)?;
    match number.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok((number * factor).round() as u64),
        _ => Err(wrong()),
    }
}

/// A filter made ready for one capture: what can be decided of paths and threads is decided.
pub(super) struct Ready<'f> {
    filter: &'f Filter,
    paths: Bits,
    threads: Bits,
    needs_records: bool,
}

impl<'f> Ready<'f> {
    pub(super) fn new(filter: &'f Filter, capture: &Capture) -> Self {
        Self {
            filter,
            paths: paths(filter, capture),
            threads: threads(filter, capture),
            needs_records: filter.needs_records(),
        }
    }

    /// Whether a scope can be wanted, as far as its columns tell.
    #[inline]
    pub(super) fn may_want(&self, path: u32, thread: u32, duration_ns: u64, is_failed: bool) -> bool {
        self.paths.has(path as usize)
            && self.threads.has(thread as usize)
            && self.filter.terms.iter().all(|(is_wanted, term)| match term {
                Term::Failed => is_failed == *is_wanted,
                Term::LongerThan(ns) => (duration_ns > *ns) == *is_wanted,
                Term::ShorterThan(ns) => (duration_ns < *ns) == *is_wanted,
                _ => true,
            })
    }

    /// Whether a scope that may be wanted is.
    pub(super) fn wants(&self, timing: &Timing<'_>) -> bool {
        !self.needs_records
            || self.filter.terms.iter().all(|(is_wanted, term)| match term {
                Term::Attribute(key, value) => {
                    let mut attributes = timing.attributes();
                    let fits = |text: &str| value.as_ref().is_none_or(|glob| glob.matches(text));
                    attributes.any(|it| it.key == key && fits(&value_text(&it.value))) == *is_wanted
                }
                Term::ErrorType(text) => {
                    let error = timing.error_type().filter(|_| timing.outcome() == Outcome::Failed);
                    error.is_some_and(|error| error.to_lowercase().contains(text)) == *is_wanted
                }
                _ => true,
            })
    }
}

fn paths(filter: &Filter, capture: &Capture) -> Bits {
    let mut bits = Bits::new(capture.paths.len(), true);
    let on_path = |term: &Term| matches!(term, Term::Contains(_) | Term::Path(_));
    if !filter.terms.iter().any(|(_, term)| on_path(term)) {
        return bits;
    }
    for place in 0..capture.paths.len() {
        let text = capture.paths.text(place as u32);
        let small = text.to_lowercase();
        let is_wanted = filter.terms.iter().all(|(is_wanted, term)| match term {
            Term::Contains(part) => small.contains(part) == *is_wanted,
            Term::Path(glob) => glob.matches(&text) == *is_wanted,
            _ => true,
        });
        if !is_wanted {
            bits.take(place);
        }
    }
    bits
}

fn threads(filter: &Filter, capture: &Capture) -> Bits {
    let mut bits = Bits::new(capture.threads.len(), true);
    for (number, thread) in capture.threads.iter().enumerate() {
        let process = capture.processes.get(thread.process as usize).map_or(0, |process| process.id);
        let is_wanted = filter.terms.iter().all(|(is_wanted, term)| match term {
            Term::Process(id) => (process == *id) == *is_wanted,
            Term::Thread(glob) => glob.matches(&thread.name) == *is_wanted,
            _ => true,
        });
        if !is_wanted {
            bits.take(number);
        }
    }
    bits
}

/// Which of these scopes a filter wants; none for all.
pub(super) fn select(filter: &Filter, capture: &Capture, scopes: &Scopes) -> Result<Option<Bits>, Failure> {
    if filter.is_empty() {
        return Ok(None);
    }
    let ready = Ready::new(filter, capture);
    let mut selected = Bits::new(scopes.len(), false);
    let mut in_doubt: HashMap<u32, Vec<(u32, usize)>> = HashMap::new();
    for row in &scopes.rows {
        let thread = scopes.lanes.get(row.lane as usize).map_or(0, |lane| lane.thread);
        for place in row.scopes.clone() {
            let (path, duration_ns) = (scopes.path[place], scopes.duration_ns[place]);
            if !ready.may_want(path, thread, duration_ns, scopes.is_failed(place)) {
                continue;
            }
            match scopes.origin(place).filter(|_| ready.needs_records) {
                Some((block, index)) => in_doubt.entry(block).or_default().push((index, place)),
                None => selected.put(place),
            }
        }
    }
    let mut blocks: Vec<u32> = in_doubt.keys().copied().collect();
    blocks.sort_unstable();
    capture.for_each_block(blocks, |block, _, content| {
        let Some(scopes) = in_doubt.get_mut(&block) else { return };
        scopes.sort_unstable();
        let mut wanted = scopes.iter().peekable();
        let mut index = 0;
        content.for_each_timing(|timing| {
            if let Some((_, place)) = wanted.next_if(|(wanted, _)| *wanted == index)
                && ready.wants(&timing)
            {
                selected.put(*place);
            }
            index += 1;
        });
    })?;
    Ok(Some(selected))
}

/// Whether all of a capture's scopes are in memory.
pub(super) fn is_in_memory(capture: &Capture) -> bool {
    matches!(capture.content, Content::Scopes(_))
}

/// What lately asked filters select of some scopes.
#[derive(Default)]
pub(super) struct Selections(Mutex<Vec<(String, Selection)>>);

/// The selected scopes; none for all.
pub(super) type Selection = Arc<Option<Bits>>;

/// Filters that are remembered.
const MOST_SELECTIONS: usize = 8;

impl Selections {
    /// What a filter selects of these scopes.
    pub(super) fn of(&self, asked: &Asked, capture: &Capture, scopes: &Scopes) -> Result<Selection, Failure> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = lock().iter().find(|(text, _)| *text == asked.text) {
            return Ok(Arc::clone(known));
        }
        let selection = Arc::new(select(&asked.filter, capture, scopes)?);
        let mut known = lock();
        if known.len() >= MOST_SELECTIONS {
            known.remove(0);
        }
        known.push((asked.text.clone(), Arc::clone(&selection)));
        Ok(selection)
    }
}

/// A filter, and the text that it was.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) text: String,
    pub(super) filter: Filter,
}

impl Asked {
    pub(super) fn parse(text: &str) -> Result<Self, WrongFilter> {
        Ok(Self { text: text.to_owned(), filter: Filter::parse(text)? })
    }
}
