//! OTLP/JSON in a file: one request a line, as OpenTelemetry's file exporter format defines.
//!
//! A line holds traces or metrics, and the newline is written with it, so a reader that follows the file never sees half
//! of a line as a whole one. A file that has grown to its bound is renamed to `NAME.1`, older ones to `NAME.2` and so on,
//! and the oldest is removed.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use kastor::{Accounts, Batch, Deadline, DropReason, Error, Held, Process, Reporter, Snapshot};

use crate::{
    delivery::{Ledger, Note, Request},
    otlp::{DurationUnit, Encoders, Limits, OpenRequest, SpanLimits, Takes, render_json},
    redact::Redaction,
};

/// Where lines go.
enum Target {
    File { path: PathBuf, file: Option<File>, bytes: u64, rotation: Option<(u64, u32)> },
    Writer(Box<dyn Write + Send>),
}

/// Writes scopes as spans, and aggregates as metrics, in OTLP's JSON, one request a line.
///
/// A batch reporter. Lines are written when a request is full, at each interval, and on flush. What cannot be written is
/// dropped and counted (`reporter_failed`).
///
/// ```
/// use kastor_export::JsonLines;
///
/// # fn main() -> Result<(), kastor::Error> {
/// # let folder = std::env::temp_dir().join(format!("kastor-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// let lines = JsonLines::create(folder.join("events.jsonl"))?.rotate(64 << 20, 3).service_name("shop");
/// let tele = kastor::Telemetry::builder().reporter(lines).build();
/// drop(tele.scope("checkout"));
/// tele.flush(std::time::Duration::from_secs(5));
/// assert!(std::fs::read_to_string(folder.join("events.jsonl")).unwrap().contains("\"name\":\"checkout\""));
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok(())
/// # }
/// ```
pub struct JsonLines {
    resource: Vec<(String, String)>,
    redaction: Redaction,
    duration_unit: DurationUnit,
    ledger: Ledger,
    note: Note,
    /// Whose accounts these are; 0 before the first event.
    process_id: AtomicU32,
    state: Mutex<State>,
}

struct State {
    target: Target,
    /// Of the process that recorded last: a forked child begins anew.
    process: Option<Process>,
    encoders: Option<Encoders>,
    line: String,
}

impl JsonLines {
    /// Appends to a file, which is made if it is missing. Give each process a file of its own; a forked child
    /// writes to `NAME.PID.EXTENSION` beside it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let (file, bytes) = open(&path)
            .map_err(|error| Error::permanent(format!("cannot write '{}': {error}", path.to_string_lossy())))?;
        Ok(Self::to(Target::File { path, file: Some(file), bytes, rotation: None }))
    }

    /// Writes to something else. A forked child shares it with its parent.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self::to(Target::Writer(Box::new(writer)))
    }

    fn to(target: Target) -> Self {
        let state = State { target, process: None, encoders: None, line: String::new() };
        Self {
            resource: Vec::new(),
            redaction: Redaction::default(),
            duration_unit: DurationUnit::default(),
            ledger: Ledger::default(),
            note: Note::default(),
            process_id: AtomicU32::new(0),
            state: Mutex::new(state),
        }
    }

    /// Begins a new file when one has grown to so many bytes, and keeps so many old ones. Does nothing to a writer that
    /// is no file.
    #[must_use]
    pub fn rotate(self, max_bytes: u64, old_files: u32) -> Self {
        if let Target::File { rotation, .. } = &mut self.lock().target {
            *rotation = Some((max_bytes, old_files));
        }
        self
    }

    /// The service's name; `unknown_service:` and the executable's name by default.
    #[must_use]
    pub fn service_name(self, name: impl Into<String>) -> Self {
        self.resource_attribute("service.name", name)
    }

    /// An attribute of everything that this process writes.
    #[must_use]
    pub fn resource_attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.resource.push((key.into(), value.into()));
        self
    }

    /// What is secret; the usual keys and shapes by default.
    #[must_use]
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// The unit of scope durations; seconds by default.
    #[must_use]
    pub fn duration_unit(mut self, unit: DurationUnit) -> Self {
        self.duration_unit = unit;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a process needs to encode and to write. A forked child begins anew.
    fn begin<'a>(&'a self, state: &'a mut State, process: Process) -> (&'a mut Encoders, Lines<'a>) {
        if state.process.is_some_and(|known| known != process) {
            // What is open is the parent's.
            state.encoders = None;
            self.ledger.reset();
            state.target.leave_to_parent(process.id);
        }
        state.process = Some(process);
        self.process_id.store(process.id, Relaxed);
        let State { target, encoders, line, .. } = state;
        let encoders = encoders.get_or_insert_with(|| {
            let limits =
                Limits { span: SpanLimits::default(), max_request_bytes: 256 << 10, max_request_events: u64::MAX };
            Encoders::new(process, &self.resource, &self.redaction, limits, self.duration_unit)
        });
        (encoders, Lines { target, line, ledger: &self.ledger })
    }

    /// Writes what is open, if it is this process's.
    fn write_open(&self, state: &mut State) -> Result<(), Error> {
        match state.process {
            Some(process) if process.id == std::process::id() => {
                let (encoders, mut lines) = self.begin(state, process);
                encoders.close_all().iter().try_for_each(|request| lines.write(request))
            }
            _ => Ok(()),
        }
    }
}

/// Writes requests as lines, and accounts for them.
struct Lines<'a> {
    target: &'a mut Target,
    line: &'a mut String,
    ledger: &'a Ledger,
}

impl Lines<'_> {
    fn write(&mut self, request: &Request) -> Result<(), Error> {
        self.line.clear();
        let rendered = render_json(request.signal, request.body(), self.line);
        self.line.push('\n');
        let written = rendered.and_then(|()| self.target.write(self.line.as_bytes()));
        match &written {
            Ok(()) => self.ledger.deliver_queued(request.events),
            Err(_) => self.ledger.drop_queued(DropReason::ReporterFailed, request.events),
        }
        written
    }
}

impl Target {
    /// In a forked child: a file of its own, `NAME.PID.EXTENSION`. A writer is shared.
    fn leave_to_parent(&mut self, process_id: u32) {
        if let Target::File { path, file, bytes, .. } = self {
            let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
            path.set_extension(match extension {
                Some(extension) => format!("{process_id}.{extension}"),
                None => process_id.to_string(),
            });
            (*file, *bytes) = (None, 0);
        }
    }

    fn write(&mut self, line: &[u8]) -> Result<(), Error> {
        let failed = |error: io::Error| Error::temporary(format!("a line could not be written: {error}"));
        match self {
            Target::Writer(writer) => writer.write_all(line).map_err(failed),
            Target::File { path, file, bytes, rotation } => {
                if let Some((max_bytes, old_files)) = rotation
                    && *bytes > 0
                    && *bytes + line.len() as u64 > *max_bytes
                {
                    // Whatever becomes of what follows: this happens once.
                    (*file, *bytes) = (None, 0);
                    rotate(path, *old_files);
                }
                if file.is_none() {
                    let (opened, length) = open(path).map_err(failed)?;
                    (*file, *bytes) = (Some(opened), length);
                }
                let Some(open_file) = file else { return Ok(()) };
                // All of it in one call where the system allows: others may append to the file too.
                match open_file.write_all(line) {
                    Ok(()) => {
                        *bytes += line.len() as u64;
                        Ok(())
                    }
                    Err(error) => {
                        // Half a line may stand there: it is cut off, so that the next one begins on a line of its own.
                        let _ = open_file.set_len(*bytes);
                        *file = None;
                        Err(failed(error))
                    }
                }
            }
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        match self {
            Target::Writer(writer) => {
                writer.flush().map_err(|error| Error::temporary(format!("lines could not be flushed: {error}")))
            }
            Target::File { .. } => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        match self {
            Target::File { file: Some(file), .. } => {
                file.sync_data().map_err(|error| Error::temporary(format!("lines could not be made durable: {error}")))
            }
            other => other.flush(),
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// `NAME` becomes `NAME.1`, and so on; the oldest goes.
fn rotate(path: &Path, old_files: u32) {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    // Where one cannot be renamed, the younger ones stay too, and the file goes on growing: nothing is lost by that.
    if old_files == 0 {
        let _ = fs::remove_file(path);
        return;
    }
    for number in (1..old_files).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return,
            _ => {}
        }
    }
    let _ = fs::rename(path, numbered(1));
}

impl Reporter for JsonLines {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        let mut state = self.lock();
        let (encoders, mut lines) = self.begin(&mut state, batch.process());
        let (ledger, before) = (&self.ledger, encoders.left_out);
        let mut failed = None;
        let mut put = |open: &mut OpenRequest, item: &[u8]| {
            if open.is_full_for(item.len()) {
                failed = open.close().and_then(|request| lines.write(&request).err()).or(failed.take());
            }
            open.push(item, 1);
        };
        encoders.batch(batch, Takes { traces: true, metrics: true }, &mut put, &mut |events| ledger.queue(events));
        ledger.drop_queued(DropReason::Sampled, encoders.left_out - before);
        if let Some(error) = failed {
            // An error here would count the whole batch as lost.
            self.note.warn(|| format!("json lines: {error}"));
        }
        Ok(())
    }

    fn record_aggregates(&self, snapshot: &Snapshot<'_>) -> Result<(), Error> {
        // They ask this reporter too: before its lock is taken.
        let stats = snapshot.stats();
        let mut state = self.lock();
        let (encoders, mut lines) = self.begin(&mut state, snapshot.process());
        let requests = encoders.close_all().into_iter().chain(encoders.snapshot(snapshot, &stats)).collect::<Vec<_>>();
        let results: Vec<Result<(), Error>> = requests.iter().map(|request| lines.write(request)).collect();
        results.into_iter().collect()
    }

    fn flush(&self, _: Deadline) -> Result<(), Error> {
        let mut state = self.lock();
        self.write_open(&mut state)?;
        state.target.flush()
    }

    fn persist(&self, _: Deadline) -> Result<(), Error> {
        let mut state = self.lock();
        self.write_open(&mut state)?;
        state.target.sync()
    }

    fn accounts(&self) -> Option<Accounts> {
        let is_own = self.process_id.load(Relaxed) == std::process::id();
        Some(if is_own { self.ledger.read() } else { Accounts::default() })
    }

    fn prefers_batches(&self) -> bool {
        true
    }

    fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(self.lock()));
    }
}

impl fmt::Debug for JsonLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsonLines")
    }
}
