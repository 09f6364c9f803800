//! `kastor convert`: a capture in another format, for other tools.
//!
//! All encoders are `kastor-export`'s, the same that run in a program: a capture is replayed into batches and snapshots, each
//! of which is encoded and written at once. Every process has an encoder of its own.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use kastor::Process;
use kastor_export::capture::{Kept, KeptScope, Replay, Replayed};
use kastor_export::{OtlpText, chrome, folded, perfetto};

use crate::captures::{self, Missing};
use crate::failure::{Failure, Verdict};
use crate::neutral::neutral_json;
use crate::output;
use crate::report;

const DAY_NS: u64 = 86_400_000_000_000;

/// What a capture can become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For ui.perfetto.dev and Perfetto's SQL engine
    Perfetto,
    /// JSON for chrome://tracing, ui.perfetto.dev and speedscope
    Chrome,
    /// OpenTelemetry's JSON, one request a line
    OtlpJson,
    /// Folded stacks of self time in nanoseconds, for flame graphs
    Folded,
}

/// The arguments of `kastor convert`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  kastor convert run.kcap --to perfetto -o run.perfetto-trace\n  \
                  kastor convert captures --to folded | inferno-flamegraph > flame.svg")]
pub(crate) struct ConvertArguments {
    /// Captures (.kcap), or folders with some
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The format to write
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Format,
    /// Where to write it [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The service's name, in OpenTelemetry's JSON
    #[arg(long, value_name = "NAME")]
    service_name: Option<String>,
    /// Give every slice its trace id and span id, for Perfetto and Chrome; OpenTelemetry's JSON always has them
    #[arg(long)]
    ids: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &ConvertArguments) -> Result<Verdict, Failure> {
    let files = captures::files(&arguments.files)?;
    let mut target = Target::open(arguments)?;
    let converted = if arguments.to == Format::Folded {
        to_folded(&arguments.files, &mut target)?
    } else {
        replayed(&files, arguments, &mut target)?
    };
    target.finish()?;
    if let Some(missing) = converted.missing.in_words() {
        output::note(&missing);
    }
    if converted.paths_without_room > 0 {
        let (paths, limit) = (converted.paths_without_room, kastor::limits::MAX_PATHS);
        output::note(&format!(
            "{paths} paths beyond the limit of {limit} share '(overflow)'; convert fewer files at a time"
        ));
    }
    Ok(Verdict::Fine)
}

#[derive(Default)]
struct Converted {
    missing: Missing,
    paths_without_room: u64,
}

fn replayed(files: &[PathBuf], arguments: &ConvertArguments, target: &mut Target) -> Result<Converted, Failure> {
    let mut converted = Converted::default();
    let mut writing = Writing { arguments, encoder: None, zero_unix_ns: None, out: Vec::new() };
    writing.head(target);
    for file in files {
        let failed = |error: kastor::Error| captures::unreadable(file, &error);
        let mut replay = Replay::open(file).map_err(failed)?;
        while let Some(part) = replay.read().map_err(failed)? {
            if target.is_closed() {
                return Ok(Converted::default());
            }
            match part {
                Replayed::Process(process) => writing.begin(process, target)?,
                Replayed::Damage(damage) => {
                    converted.missing.damaged_places += 1;
                    converted.missing.damaged_bytes += damage.bytes;
                }
                Replayed::Batch(batch) => writing.batch(&batch, target)?,
                Replayed::Snapshot(snapshot) => writing.snapshot(&snapshot, target)?,
            }
        }
        converted.paths_without_room += replay.paths_without_room();
        converted.missing.torn_files += u64::from(replay.torn_bytes() > 0);
        converted.missing.torn_bytes += replay.torn_bytes();
    }
    writing.end(target)?;
    Ok(converted)
}

/// An encoder of one process.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Encoder {
    Perfetto(perfetto::Encoder),
    Chrome(chrome::Encoder),
    Otlp(OtlpText),
}

struct Writing<'a> {
    arguments: &'a ConvertArguments,
    encoder: Option<(Process, Encoder)>,
    /// What is zero in all of the file.
    zero_unix_ns: Option<u64>,
    out: Vec<u8>,
}

impl Writing<'_> {
    fn head(&mut self, target: &mut Target) {
        if self.arguments.to == Format::Chrome {
            target.write(b"[");
        }
    }

    /// What follows is this process's.
    fn begin(&mut self, process: Process, target: &mut Target) -> Result<(), Failure> {
        if self.encoder.as_ref().is_some_and(|(current, _)| *current == process) {
            return Ok(());
        }
        self.close(target)
    }

    fn batch(&mut self, batch: &kastor::Batch<'_>, target: &mut Target) -> Result<(), Failure> {
        self.zero_unix_ns.get_or_insert((batch.anchor().unix_ns / DAY_NS).saturating_sub(1) * DAY_NS);
        self.encode(batch.process(), target, |encoder, out| match encoder {
            Encoder::Perfetto(encoder) => {
                encoder.batch(batch, out);
                Ok(())
            }
            Encoder::Chrome(encoder) => {
                encoder.batch(batch, out);
                Ok(())
            }
            Encoder::Otlp(encoder) => encoder.batch(batch, out),
        })
    }

    fn snapshot(&mut self, snapshot: &kastor::Snapshot<'_>, target: &mut Target) -> Result<(), Failure> {
        self.zero_unix_ns.get_or_insert((snapshot.unix_ns() / DAY_NS).saturating_sub(1) * DAY_NS);
        self.encode(snapshot.process(), target, |encoder, out| match encoder {
            Encoder::Perfetto(encoder) => {
                encoder.snapshot(snapshot, out);
                Ok(())
            }
            Encoder::Chrome(encoder) => {
                encoder.snapshot(snapshot, out);
                Ok(())
            }
            Encoder::Otlp(encoder) => encoder.snapshot(snapshot, out),
        })
    }

    fn encode(
        &mut self,
        process: Process,
        target: &mut Target,
        encode: impl FnOnce(&mut Encoder, &mut Vec<u8>) -> Result<(), kastor::Error>,
    ) -> Result<(), Failure> {
        let is_new = self.encoder.is_none();
        if is_new {
            self.encoder = Some((process, self.encoder_of(process)));
        }
        let Some((_, encoder)) = &mut self.encoder else { return Ok(()) };
        self.out.clear();
        if is_new && self.arguments.to == Format::Chrome && target.has_events {
            self.out.push(b',');
        }
        let before = self.out.len();
        encode(encoder, &mut self.out).map_err(|error| {
            Failure::new(format!("cannot convert: {error}"), "report this as a bug, with the capture")
        })?;
        if self.out.len() > before {
            target.has_events = true;
            self.write_out(target);
        } else if before > 0 {
            // Its comma comes with its first event.
            self.encoder = None;
        }
        Ok(())
    }

    fn encoder_of(&self, process: Process) -> Encoder {
        let (name, ids) = (format!("process {}", process.id), self.arguments.ids);
        match self.arguments.to {
            Format::Perfetto => {
                Encoder::Perfetto(perfetto::Encoder::new(perfetto::Config::default().process_name(name).ids(ids)))
            }
            Format::OtlpJson => {
                let service = self.arguments.service_name.clone();
                let attributes: Vec<_> = service.map(|name| ("service.name".to_owned(), name)).into_iter().collect();
                Encoder::Otlp(OtlpText::new(process, &attributes))
            }
            Format::Chrome | Format::Folded => {
                let config = chrome::Config::default().process_name(name).ids(ids);
                Encoder::Chrome(chrome::Encoder::new(config.zero_unix_ns(self.zero_unix_ns.unwrap_or(0))))
            }
        }
    }

    /// The end of a process.
    fn close(&mut self, target: &mut Target) -> Result<(), Failure> {
        if let Some((_, Encoder::Otlp(encoder))) = &mut self.encoder {
            self.out.clear();
            encoder.finish(&mut self.out).map_err(|error| {
                Failure::new(format!("cannot convert: {error}"), "report this as a bug, with the capture")
            })?;
            self.write_out(target);
        }
        self.encoder = None;
        Ok(())
    }

    fn end(&mut self, target: &mut Target) -> Result<(), Failure> {
        self.close(target)?;
        if self.arguments.to == Format::Chrome {
            target.write(b"\n]\n");
        }
        Ok(())
    }

    /// JSON with every character escaped that could act on a terminal; Perfetto's bytes as they are.
    fn write_out(&mut self, target: &mut Target) {
        match (self.arguments.to, std::str::from_utf8(&self.out)) {
            (Format::Chrome | Format::OtlpJson, Ok(text)) => target.write(neutral_json(text).as_bytes()),
            _ => target.write(&self.out),
        }
    }
}

/// Self times of everything together.
fn to_folded(files: &[PathBuf], target: &mut Target) -> Result<Converted, Failure> {
    let summed = report::summed(files)?;
    let mut replay = Kept::default();
    for place in 1..summed.tree.len() as report::Place {
        let Some(node) = summed.tree.node(place) else { continue };
        replay.path(place, node.parent, summed.tree.name(place));
    }
    let self_ns = summed.by_place.self_ns(&summed.tree);
    let paths: Vec<(report::Place, String)> =
        (1..summed.tree.len() as report::Place).map(|place| (place, summed.tree.text(place))).collect();
    let scopes = paths.iter().filter_map(|(place, path)| {
        let sums = summed.by_place.get(*place)?;
        Some(KeptScope {
            path,
            calls: sums.calls,
            errors: sums.errors,
            total_ns: sums.total_ns,
            self_ns: self_ns.get(*place as usize).copied().unwrap_or(0),
            durations_ns: sums.durations_ns.clone(),
            exemplar: None,
        })
    });
    let mut out = Vec::new();
    let paths_without_room = replay.paths_without_room();
    folded::encode(&replay.snapshot((0, 0), scopes, []), &folded::Config::default(), &mut out);
    target.write(&out);
    Ok(Converted { missing: summed.seen.missing, paths_without_room })
}

/// Where the result goes. After the first failed write nothing more is written.
struct Target {
    writer: BufWriter<Box<dyn Write>>,
    name: String,
    failed: Option<io::Error>,
    /// Whether a comma has to come before the next event.
    has_events: bool,
}

impl Target {
    fn open(arguments: &ConvertArguments) -> Result<Target, Failure> {
        let writer: Box<dyn Write> = match &arguments.output {
            Some(path) => Box::new(create(path)?),
            None if arguments.to == Format::Perfetto && io::stdout().is_terminal() => {
                return Err(Failure::new("a Perfetto trace is no text for a terminal", "try `-o run.perfetto-trace`"));
            }
            None => Box::new(io::stdout()),
        };
        let name = match &arguments.output {
            Some(path) => format!("'{}'", path.display()),
            None => "standard output".to_owned(),
        };
        Ok(Target { writer: BufWriter::with_capacity(256 << 10, writer), name, failed: None, has_events: false })
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.writer.write_all(bytes).err();
        }
    }

    fn is_closed(&self) -> bool {
        self.failed.is_some()
    }

    /// A reader that went away wanted no more.
    fn finish(mut self) -> Result<(), Failure> {
        if self.failed.is_none() {
            self.failed = self.writer.flush().err();
        }
        match self.failed {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let message = format!("cannot write to {}: {error}", self.name);
                Err(Failure::new(message, "check where it goes, and the space there"))
            }
            _ => Ok(()),
        }
    }
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| {
        Failure::new(format!("cannot write '{}': {error}", path.display()), "check the folder and your rights there")
    })
}
