//! The document pipeline: an ordinary program with telemetry in it.
//!
//! ```text
//! demo                        main thread
//! ├─ discover                 main thread
//! ├─ read                     asynchronous tasks, several at once
//! │  └─ disk                  a thread for blocking calls; the carrier goes with the call
//! ├─ document                 worker threads; the carrier goes with the worker, a link leads back to `read`
//! │  ├─ decode                bytes to text; fails if they are not UTF-8
//! │  ├─ tokenize              text to terms
//! │  ├─ count                 terms to counts
//! │  └─ hash                  to find documents with the same content
//! ├─ merge                    an asynchronous task, once a document
//! └─ rank                     main thread
//! ```
//! The channels between the stages are bounded, so that only a few documents are in memory at any time.
//!
//! Every stage takes the context it reports to as an argument. A program would rather install one context and leave it out of the
//! calls; this one runs the same stages with telemetry on and off in turn, in one process, and a context says which.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::Utf8Error;

use async_channel::{Receiver, Sender};
use async_executor::LocalExecutor;
use futures_lite::future;
use kastor::{Carrier, FutureExt as _, Telemetry, count, gauge, histogram, scope};
use serde::Serialize;

use super::discover::{File, Found, MAX_FILE_BYTES, discover};
use super::pool::Pool;
use super::terms::{self, Counts, RankedTerm};

/// How many terms the ranking has.
const RANKED_TERMS: usize = 10;

/// What the pipeline works on, and with how many workers.
pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    pub(crate) workers: NonZeroU16,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    /// Files that were found and tried.
    pub(crate) found: u64,
    /// Files that were read as text and counted.
    pub(crate) counted: u64,
    /// Files that could not be read.
    pub(crate) unreadable: u64,
    /// Files that are not UTF-8.
    pub(crate) not_utf8: u64,
    /// Files left out for their size.
    pub(crate) too_large: u64,
    /// Folders and files that could not even be looked at.
    pub(crate) inaccessible: u64,
    /// Documents whose content another document has as well.
    pub(crate) duplicates: u64,
    /// Size of the counted documents.
    pub(crate) bytes: u64,
    /// Terms in the counted documents.
    pub(crate) terms: u64,
    /// Different terms among these.
    pub(crate) distinct_terms: u64,
    /// The most frequent terms.
    pub(crate) ranking: Vec<RankedTerm>,
}

/// Something that wants to know how far the pipeline is.
pub(crate) trait Progress {
    /// So many documents will come.
    fn expect(&self, documents: u64);
    /// One document is done.
    fn advance(&self);
}

/// Runs all stages once. Fails only if not even one worker thread can be started.
pub(crate) fn run(telemetry: &Telemetry, settings: &Settings, progress: &impl Progress) -> io::Result<Outcome> {
    let whole = scope!(telemetry, "demo", workers = u64::from(settings.workers.get()));
    let found = discover(telemetry, &settings.root);
    progress.expect(found.files.len() as u64);

    let at_once = usize::from(settings.workers.get()) * 2;
    let (documents, documents_to_count) = async_channel::bounded(at_once);
    let (counted, counted_to_merge) = async_channel::bounded(at_once);
    let pool =
        Pool { workers: settings.workers, parent: whole.carrier(), inputs: documents_to_count, outputs: counted };
    let Found { files, too_large, inaccessible } = found;
    let mut merged = pool.run(
        |document| count_document(telemetry, document),
        || {
            let executor = LocalExecutor::new();
            let (files, readers) = (queue(files), at_once);
            for _ in 0..readers {
                executor.spawn(read_all(telemetry, files.clone(), documents.clone())).detach();
            }
            drop((files, documents)); // the readers have theirs; with the last of them the channel closes
            let merging = merge_all(telemetry, counted_to_merge, progress);
            future::block_on(executor.run(merging))
        },
    )?;

    merged.outcome.too_large = too_large;
    merged.outcome.inaccessible = inaccessible;
    let _scope = scope!(telemetry, "rank");
    merged.outcome.distinct_terms = merged.counts.len() as u64;
    merged.outcome.ranking = terms::rank(&merged.counts, RANKED_TERMS);
    Ok(merged.outcome)
}

/// The files as a channel that several readers can share, already closed behind the last.
fn queue(files: Vec<File>) -> Receiver<File> {
    let (sender, receiver) = async_channel::unbounded();
    for file in files {
        let _ = sender.try_send(file); // cannot fail: without bound, and the receiver is here
    }
    receiver
}

/// A document on its way to a worker.
struct Document {
    name: String,
    /// The `read` scope it comes from.
    origin: Carrier,
    content: io::Result<Vec<u8>>,
}

/// One of the readers: takes files until there are none.
async fn read_all(telemetry: &Telemetry, files: Receiver<File>, documents: Sender<Document>) {
    while let Ok(file) = files.recv().await {
        let scope = scope!(telemetry, "read", file = file.name.as_str());
        let document = read(telemetry, file).in_scope(scope).await;
        gauge!(telemetry, "documents_waiting", documents.len() as f64);
        if documents.send(document).await.is_err() {
            return; // no worker is left
        }
    }
}

async fn read(telemetry: &Telemetry, file: File) -> Document {
    let origin = Carrier::current();
    let telemetry = telemetry.clone();
    let File { path, name } = file;
    let content = blocking::unblock(move || {
        let _attached = origin.attach();
        let scope = scope!(telemetry, "disk");
        let content = read_file(&path);
        match &content {
            Ok(bytes) => histogram!(telemetry, "file_bytes", bytes.len() as f64),
            Err(error) => scope.fail_with(error),
        }
        content
    })
    .await;
    Document { name, origin, content }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let size = fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
    if size as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("grew beyond the limit since it was found"));
    }
    Ok(content)
}

/// A document after a worker was done with it.
struct Counted {
    counts: Counts,
    terms: u64,
    bytes: u64,
    hash: blake3::Hash,
}

/// Why a file is no document.
#[derive(Debug)]
enum Unusable {
    Unreadable(io::Error),
    NotUtf8(Utf8Error),
}

impl std::error::Error for Unusable {}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Unreadable(error) => write!(formatter, "unreadable: {error}"),
            Unusable::NotUtf8(error) => write!(formatter, "not UTF-8: {error}"),
        }
    }
}

/// The work on one document, on a worker thread.
fn count_document(telemetry: &Telemetry, document: Document) -> Result<Counted, Unusable> {
    let scope = scope!(telemetry, "document", file = document.name.as_str());
    scope.link(document.origin);
    let counted = count_content(telemetry, document.content);
    match &counted {
        Ok(counted) => {
            scope.set("bytes", counted.bytes);
            scope.set("terms", counted.terms);
            count!(telemetry, "documents", 1, kind = kind(&document.name));
            count!(telemetry, "terms", counted.terms);
        }
        Err(unusable) => scope.fail_with(unusable),
    }
    counted
}

fn count_content(telemetry: &Telemetry, content: io::Result<Vec<u8>>) -> Result<Counted, Unusable> {
    let content = content.map_err(Unusable::Unreadable)?;
    let text = {
        let scope = scope!(telemetry, "decode");
        std::str::from_utf8(&content).map_err(|error| {
            scope.fail_with(&error);
            Unusable::NotUtf8(error)
        })?
    };
    let tokens = {
        let _scope = scope!(telemetry, "tokenize");
        terms::tokenize(text)
    };
    let counts = {
        let _scope = scope!(telemetry, "count");
        terms::count(&tokens)
    };
    // BLAKE3 because equal content must mean equal hash even for files made to collide, at a speed that does not show; it runs
    // at several times the speed of SHA-2 on any processor, and nobody else has to recompute it.
    let hash = {
        let _scope = scope!(telemetry, "hash");
        blake3::hash(&content)
    };
    Ok(Counted { counts, terms: tokens.len() as u64, bytes: content.len() as u64, hash })
}

/// What a file name says about the content: its extension.
fn kind(name: &str) -> &str {
    let extension = Path::new(name).extension();
    extension.and_then(|extension| extension.to_str()).unwrap_or("none")
}

/// All documents so far.
#[derive(Default)]
struct Merged {
    counts: Counts,
    hashes: HashSet<blake3::Hash>,
    outcome: Outcome,
}

/// The last asynchronous stage: takes documents from the workers until there are none.
async fn merge_all(
    telemetry: &Telemetry,
    documents: Receiver<Result<Counted, Unusable>>,
    progress: &impl Progress,
) -> Merged {
    let mut merged = Merged::default();
    while let Ok(document) = documents.recv().await {
        {
            let _scope = scope!(telemetry, "merge");
            merged.add(document);
        }
        gauge!(telemetry, "distinct_terms", merged.counts.len() as f64);
        progress.advance();
    }
    merged
}

impl Merged {
    fn add(&mut self, document: Result<Counted, Unusable>) {
        let outcome = &mut self.outcome;
        outcome.found += 1;
        match document {
            Ok(document) => {
                outcome.counted += 1;
                outcome.bytes += document.bytes;
                outcome.terms += document.terms;
                outcome.duplicates += u64::from(!self.hashes.insert(document.hash));
                terms::merge(&mut self.counts, document.counts);
            }
            Err(Unusable::Unreadable(_)) => outcome.unreadable += 1,
            Err(Unusable::NotUtf8(_)) => outcome.not_utf8 += 1,
        }
    }
}
