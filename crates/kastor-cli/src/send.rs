//! `kastor send`: a capture, or what waits in a spool, to an OpenTelemetry collector; and what became of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use kastor_export::capture::{Replay, Replayed};
use kastor_export::{OtlpConfig, OtlpReplay, Protocol, Retry, Sent, SpoolConfig};
use serde::Serialize;

use crate::captures;
use crate::failure::{Failure, Verdict};
use crate::output::{ALARM, Output, PLAIN};
use crate::units::bytes;

/// How requests are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Encoding {
    /// Protobuf over HTTP
    #[default]
    HttpProtobuf,
    /// JSON over HTTP
    HttpJson,
}

/// The arguments of `kastor send`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Replays captures to a collector, as the processes would have sent them. A folder with a spool is sent too, and what \
                  was accepted is removed from it; what a running process has there is left alone.\n\n\
                  Exit code 1 if not everything was accepted.",
    after_help = "Example:\n  kastor send captures --endpoint http://localhost:4318 --service-name shop"
)]
pub(crate) struct SendArguments {
    /// Captures (.kcap), folders with some, or one spool folder
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The collector, such as http://localhost:4318
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// How requests are encoded
    #[arg(long, value_enum, default_value_t)]
    protocol: Encoding,
    /// A header for each request, such as authorization=…
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = key_and_value)]
    headers: Vec<(String, String)>,
    /// The service's name, which captures do not tell
    #[arg(long, value_name = "NAME")]
    service_name: Option<String>,
    /// Seconds to go on trying while the collector does not answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// Write one JSON document with the same content
    #[arg(long)]
    json: bool,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("no `=` between name and value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// What the command says.
#[derive(Serialize)]
struct Told {
    requests: u64,
    bytes: u64,
    accepted: u64,
    rejected: u64,
    refused: u64,
    left: u64,
    not_sampled: u64,
    corrupt: u64,
    paths_without_room: u64,
    problem: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &SendArguments, output: &mut Output) -> Result<Verdict, Failure> {
    let otlp = OtlpReplay::new(config(arguments))
        .map_err(|error| Failure::new(format!("cannot send: {error}"), "check --endpoint and --header"))?;
    let (sent, paths_without_room) = match &arguments.files[..] {
        [folder] if is_spool(folder) => (send_spool(otlp, folder)?, 0),
        files => send_captures(otlp, &captures::files(files)?)?,
    };
    let missed = sent.rejected + sent.refused + sent.left + sent.corrupt;
    let told = Told {
        requests: sent.requests,
        bytes: sent.bytes,
        accepted: sent.accepted,
        rejected: sent.rejected,
        refused: sent.refused,
        left: sent.left,
        not_sampled: sent.not_sampled,
        corrupt: sent.corrupt,
        paths_without_room,
        problem: sent.problem,
    };
    if arguments.json {
        output.json(&told)?;
    } else {
        text(&told, missed, output);
    }
    Ok(if missed > 0 { Verdict::Finding } else { Verdict::Fine })
}

fn config(arguments: &SendArguments) -> OtlpConfig {
    let protocol = match arguments.protocol {
        Encoding::HttpProtobuf => Protocol::HttpProtobuf,
        Encoding::HttpJson => Protocol::HttpJson,
    };
    let retry = Retry { give_up_after: Duration::from_secs(arguments.patience), ..Retry::default() };
    let mut config = OtlpConfig::new(&arguments.endpoint).protocol(protocol).retry(retry);
    for (key, value) in &arguments.headers {
        config = config.header(key, value);
    }
    match &arguments.service_name {
        Some(name) => config.service_name(name),
        None => config,
    }
}

/// Whether a folder has segments of a spool in it.
fn is_spool(path: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(path) else { return false };
    entries.any(|entry| entry.is_ok_and(|entry| entry.path().extension().is_some_and(|it| it == "kspool")))
}

fn send_spool(otlp: OtlpReplay, folder: &Path) -> Result<Sent, Failure> {
    otlp.spool(&SpoolConfig::new(folder)).map_err(|error| {
        let message = format!("cannot use the spool '{}': {error}", folder.display());
        Failure::new(message, "check your rights there, and the space")
    })
}

fn send_captures(mut otlp: OtlpReplay, files: &[PathBuf]) -> Result<(Sent, u64), Failure> {
    let mut paths_without_room = 0;
    for file in files {
        let failed = |error: kastor::Error| captures::unreadable(file, &error);
        let mut replay = Replay::open(file).map_err(failed)?;
        while let Some(part) = replay.read().map_err(failed)? {
            match part {
                Replayed::Batch(batch) => otlp.batch(&batch),
                Replayed::Snapshot(snapshot) => otlp.snapshot(&snapshot),
                Replayed::Process(_) | Replayed::Damage(_) => {}
            }
        }
        paths_without_room += replay.paths_without_room();
    }
    Ok((otlp.finish(), paths_without_room))
}

fn text(told: &Told, missed: u64, output: &mut Output) {
    let Told { requests, accepted, rejected, refused, left, not_sampled, corrupt, paths_without_room, .. } = *told;
    let style = if missed > 0 { ALARM } else { PLAIN };
    output.line(
        style,
        &format!(
            "{accepted} events accepted in {requests} requests ({}); {rejected} rejected, {refused} refused, {left} left",
            bytes(told.bytes)
        ),
    );
    for (number, what) in [
        (not_sampled, "events of traces that are not sampled were not sent"),
        (corrupt, "events of the spool could not be read"),
        (paths_without_room, "paths found no room and share '(overflow)'"),
    ] {
        if number > 0 {
            output.line(PLAIN, &format!("{number} {what}"));
        }
    }
    if let Some(problem) = &told.problem {
        output.line(style, &format!("the last answer against it: {problem}"));
    }
}
