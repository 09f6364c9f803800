//! Folded stacks, for flame graphs: one line for each path, its names joined with `;`, then its self time.
//!
//! ```text
//! pipeline 1200
//! pipeline;parse 340000
//! ```
//! inferno, flamegraph.pl and speedscope read this. Times are nanoseconds, or microseconds if asked for; a path whose
//! self time is zero in that unit has no line. Self time is exact, however many calls there were: it comes from the
//! aggregates. What a name holds that would break a line or hide in it (`;`, white space, control and invisible
//! characters) becomes `_`.
//!
//! ```
//! use kastor::Telemetry;
//! use kastor_export::folded::{Config, Folded};
//!
//! # fn main() -> Result<(), kastor::Error> {
//! # let path = std::env::temp_dir().join(format!("kastor-doc-{}.folded", std::process::id()));
//! # let path = path.as_path();
//! let tele = Telemetry::builder().reporter(Folded::create(path, Config::default())?).build();
//! # std::fs::remove_file(path).ok();
//! # Ok(())
//! # }
//! ```

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process,
};

use kastor::{Accounts, Batch, Deadline, Error, Reporter, ScopeAggregate, Snapshot};

use crate::sink::{failed, of_process};

/// What a time is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    #[default]
    Nanoseconds,
    /// Whole microseconds, rounded down.
    Microseconds,
}

/// How stacks are folded.
#[derive(Clone, Debug, Default)]
pub struct Config {
    unit: Unit,
}

impl Config {
    /// The unit of the times; nanoseconds by default.
    pub fn unit(self, unit: Unit) -> Self {
        Self { unit }
    }
}

/// The folded stacks of a snapshot, as text.
pub fn folded(snapshot: &Snapshot<'_>, config: &Config) -> String {
    let mut text = Vec::new();
    encode(snapshot, config, &mut text);
    // Every byte comes from a string.
    String::from_utf8(text).unwrap_or_default()
}

/// Appends the folded stacks of a snapshot.
pub fn encode(snapshot: &Snapshot<'_>, config: &Config, out: &mut Vec<u8>) {
    let scopes = snapshot.scopes();
    let by_path: HashMap<(&str, u32), &ScopeAggregate> =
        scopes.iter().map(|scope| ((scope.path(), scope.depth()), scope)).collect();
    for scope in scopes {
        let time = match config.unit {
            Unit::Nanoseconds => scope.self_time().as_nanos(),
            Unit::Microseconds => scope.self_time().as_micros(),
        };
        if time > 0 {
            push_stack(scope, &by_path, out);
            // Writing to memory cannot fail.
            let _ = writeln!(out, " {time}");
        }
    }
}

/// A path is text in which a dot may stand between two names or within one. Where there are as many dots as levels, every
/// one stands between; else the names are looked up along the parents, as far as these have closed yet.
fn push_stack(scope: &ScopeAggregate, by_path: &HashMap<(&str, u32), &ScopeAggregate>, out: &mut Vec<u8>) {
    let mut names: Vec<&str> = Vec::new();
    let mut rest = Some((scope.path(), scope.depth(), Some(scope)));
    while let Some((path, depth, known)) = rest {
        if path.split('.').count() == depth as usize + 1 {
            names.extend(path.rsplit('.'));
            break;
        }
        let Some(known) = known else {
            names.push(path);
            break;
        };
        names.push(known.name());
        rest = known.parent().filter(|_| depth > 0).map(|parent| {
            let depth = depth.saturating_sub(1);
            (parent, depth, by_path.get(&(parent, depth)).copied())
        });
    }
    for (position, name) in names.iter().rev().enumerate() {
        if position > 0 {
            out.push(b';');
        }
        push_name(name, out);
    }
}

fn push_name(name: &str, out: &mut Vec<u8>) {
    if name.is_empty() {
        out.push(b'_');
    }
    for character in name.chars() {
        let harmless = if is_harmful(character) { '_' } else { character };
        out.extend_from_slice(harmless.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

fn is_harmful(character: char) -> bool {
    character == ';'
        || character.is_whitespace()
        || character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A reporter that keeps a file of folded stacks up to date: with each snapshot (every 10 s, and on flush) the file is
/// replaced by a whole new one.
///
/// It takes no events, only sums, so it costs nothing per scope. A forked child keeps a file of its own next to its
/// parent's: `stacks.folded` becomes `stacks-4242.folded`.
pub struct Folded {
    path: PathBuf,
    config: Config,
    /// Who created it: every other process is a child.
    process: u32,
}

impl Folded {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn create(path: impl Into<PathBuf>, config: Config) -> Result<Self, Error> {
        let path = path.into();
        File::create(&path).map_err(|error| failed("create", &path, &error))?;
        Ok(Self { path, config, process: process::id() })
    }

    /// A reader finds the old content or the new one, never a part.
    fn replace(&self, path: &Path, text: &[u8]) -> Result<(), Error> {
        let new = path.with_extension(format!("part-{}", process::id()));
        fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(|error| {
            let _ = fs::remove_file(&new);
            failed("write", path, &error)
        })
    }
}

impl Reporter for Folded {
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        let mut text = Vec::new();
        encode(snapshot, &self.config, &mut text);
        let id = snapshot.process().id;
        let path = if id == self.process { self.path.clone() } else { of_process(&self.path, id) };
        self.replace(&path, &text)
    }

    fn flush(&self, _: Deadline) -> Result<(), Error> {
        Ok(())
    }

    fn accounts(&self) -> Option<Accounts> {
        // Its events are in the sums; the caller's count of what was handed over is the right one.
        None
    }

    fn prefers_batches(&self) -> bool {
        true
    }
}

impl fmt::Debug for Folded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Folded({})", self.path.display())
    }
}
