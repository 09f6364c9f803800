//! The endpoint that Prometheus scrapes: a small HTTP server, blocking, on threads of its own.
//!
//! It listens only where it was told to, on loopback unless an address says otherwise, and answers `GET` and `HEAD` of
//! `/metrics` alone. A scrape takes a fresh snapshot, but not more often than the least interval: in between, everyone
//! gets what was encoded last. Everything is bounded: connections, the bytes and the time of a request's head, the time
//! of an answer, the time that a connection may idle. When all connections are taken, the one that has idled longest is
//! closed for a new one; if none idles, the new one is told so (503).
//!
//! Against pages that make a browser ask (DNS rebinding), the `Host` of a request has to be an IP address, `localhost` or
//! a name that was allowed. A bearer token can be asked for besides.
//!
//! A forked child does not serve: its copies of the sockets are closed in the moment of the fork, so that clients see the
//! parent alone. See `sockets`.

mod answer;
mod connection;
mod request;
mod sockets;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use kastor::{Aggregates, Batch, Error, Reporter, Snapshot, Telemetry};

use self::{
    connection::Connections,
    request::Rules,
    sockets::{Accepted, Listener, Waker},
};
use super::{Exposition, PrometheusFormat};
use crate::redact::Redaction;

pub(crate) use self::request::fuzz;

/// How long the end of an endpoint may take: only ever an upper bound.
const LONGEST_END: Duration = Duration::from_secs(1);

/// How an endpoint is set up; [`Prometheus::builder`] makes one.
#[derive(Clone)]
pub struct PrometheusBuilder {
    redaction: Redaction,
    rules: Rules,
    limits: Limits,
}

/// The bounds of an endpoint.
#[derive(Clone, Copy)]
struct Limits {
    least_interval: Duration,
    max_connections: usize,
    head_timeout: Duration,
    idle_timeout: Duration,
    answer_timeout: Duration,
}

impl PrometheusBuilder {
    /// Which label values are secret; the default is [`Redaction::default`].
    #[must_use]
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// The least time between two collections, 1 s by default. Scrapes in between get the same bytes.
    #[must_use]
    pub fn least_interval(mut self, interval: Duration) -> Self {
        self.limits.least_interval = interval;
        self
    }

    /// Connections at the same time, 16 by default, at least 1.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections.max(1);
        self
    }

    /// How long the head of a request may take, 5 s by default.
    #[must_use]
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.limits.head_timeout = timeout;
        self
    }

    /// How long a connection may idle between two requests, 60 s by default.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = timeout;
        self
    }

    /// How long a client may take to read an answer, 10 s by default.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.limits.answer_timeout = timeout;
        self
    }

    /// Answers requests for this host name too, given without a port. IP addresses and `localhost` need no permission.
    #[must_use]
    pub fn allow_host(mut self, name: &str) -> Self {
        self.rules.hosts.push(name.to_ascii_lowercase());
        self
    }

    /// Answers only requests with `Authorization: Bearer` and this token.
    #[must_use]
    pub fn bearer_token(mut self, token: &str) -> Self {
        self.rules.token = Some(token.to_owned());
        self
    }

    /// Listens on `HOST:PORT`, or on `PORT` of the loopback address; port 0 is any that is free. Serves 503 until it knows
    /// a context: give it to a builder as a reporter, or to [`Prometheus::serve`].
    ///
    /// # Errors
    /// If the address is none, or if it cannot be listened on: in use, or without permission.
    pub fn listen(self, address: &str) -> Result<Prometheus, Error> {
        let listener = Listener::bind(address)?;
        let address = listener.address();
        let (waker, wait) = sockets::waker(address)?;
        let shared = Arc::new(Shared {
            source: Mutex::new(None),
            redaction: self.redaction,
            rules: self.rules,
            limits: self.limits,
            bodies: Mutex::default(),
            connections: Connections::default(),
            is_stopping: AtomicBool::new(false),
            has_ended: Mutex::new(false),
            ended: Condvar::new(),
        });
        let its = Arc::clone(&shared);
        let is_running = kastor::start_thread(c"kastor-prom", move || {
            accept(&its, &listener, &wait);
            drop(listener);
            *lock(&its.has_ended) = true;
            its.ended.notify_all();
        });
        if !is_running {
            return Err(Error::temporary("prometheus: no thread could be started: the process has as many as it may"));
        }
        Ok(Prometheus { shared, address, waker, process: std::process::id() })
    }
}

impl fmt::Debug for PrometheusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrometheusBuilder")
    }
}

/// An endpoint that serves a context's aggregates; see `docs/prometheus.md`. Dropping it ends it.
///
/// As a reporter it ends with its context: when the last handle and every thread that recorded into it are gone. It is
/// asked for nothing but aggregates, but its context still hands events to a background thread, as for every reporter;
/// where it would be the only one, [`serve`](Prometheus::serve) avoids both.
///
/// ```no_run
/// use kastor::Telemetry;
/// use kastor_export::Prometheus;
///
/// # fn main() -> Result<(), kastor::Error> {
/// let tele = Telemetry::builder().build();
/// let _endpoint = Prometheus::builder().listen("127.0.0.1:9464")?.serve(&tele);
/// # Ok(())
/// # }
/// ```
pub struct Prometheus {
    shared: Arc<Shared>,
    address: SocketAddr,
    waker: Waker,
    process: u32,
}

impl Prometheus {
    /// Default limits and redaction.
    pub fn builder() -> PrometheusBuilder {
        PrometheusBuilder {
            redaction: Redaction::default(),
            rules: Rules::default(),
            limits: Limits {
                least_interval: Duration::from_secs(1),
                max_connections: 16,
                head_timeout: Duration::from_secs(5),
                idle_timeout: Duration::from_secs(60),
                answer_timeout: Duration::from_secs(10),
            },
        }
    }

    /// Serves this context, and keeps it alive for as long as the endpoint is.
    #[must_use = "dropping the endpoint ends it"]
    pub fn serve(self, telemetry: &Telemetry) -> Self {
        *lock(&self.shared.source) = Some(Source::Telemetry(telemetry.clone()));
        self
    }

    /// Where it listens; of port 0, the port that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Reporter for Prometheus {
    fn start(&self, aggregates: Aggregates) {
        *lock(&self.shared.source) = Some(Source::Aggregates(aggregates));
    }

    /// Every event is in the aggregates already.
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn prefers_batches(&self) -> bool {
        true
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A forked child: the threads are its parent's, and so are the locks that they may hold.
            return;
        }
        self.shared.is_stopping.store(true, SeqCst);
        self.waker.wake();
        // The port is free when this returns: the acceptor never waits for anyone for long.
        let has_ended = lock(&self.shared.has_ended);
        let is_open = |has_ended: &mut bool| !*has_ended;
        drop(self.shared.ended.wait_timeout_while(has_ended, LONGEST_END, is_open));
        self.shared.connections.close_all();
    }
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prometheus({})", self.address)
    }
}

/// What the threads of an endpoint share.
struct Shared {
    source: Mutex<Option<Source>>,
    redaction: Redaction,
    rules: Rules,
    limits: Limits,
    bodies: Mutex<Vec<Body>>,
    connections: Connections,
    is_stopping: AtomicBool,
    /// Whether the port is free again.
    has_ended: Mutex<bool>,
    ended: Condvar,
}

#[derive(Clone)]
enum Source {
    Aggregates(Aggregates),
    Telemetry(Telemetry),
}

impl Source {
    /// Whether the context still exists.
    fn snapshot(&self, f: &mut dyn FnMut(&Snapshot<'_>)) -> bool {
        match self {
            Source::Aggregates(aggregates) => aggregates.snapshot(f),
            Source::Telemetry(telemetry) => {
                telemetry.snapshot(f);
                true
            }
        }
    }
}

/// What was encoded last.
struct Body {
    format: PrometheusFormat,
    is_compressed: bool,
    since: Instant,
    bytes: Arc<Vec<u8>>,
}

impl Shared {
    /// The aggregates in this format, no older than the least interval; none if there is no context.
    ///
    /// Holds a lock for as long as it works, so that no two scrapes collect at the same time.
    fn body(&self, format: PrometheusFormat, is_compressed: bool) -> Option<Arc<Vec<u8>>> {
        let mut bodies = lock(&self.bodies);
        bodies.retain(|body| body.since.elapsed() < self.limits.least_interval);
        if let Some(body) = bodies.iter().find(|body| (body.format, body.is_compressed) == (format, is_compressed)) {
            return Some(Arc::clone(&body.bytes));
        }
        let source = lock(&self.source).clone()?;
        let exposition = Exposition::new(format).redaction(self.redaction.clone());
        let mut bytes = Vec::new();
        let since = Instant::now();
        if !source.snapshot(&mut |snapshot| exposition.encode(snapshot, &mut bytes)) {
            return None;
        }
        if is_compressed {
            bytes = answer::compressed(&bytes)?;
        }
        let bytes = Arc::new(bytes);
        bodies.push(Body { format, is_compressed, since, bytes: Arc::clone(&bytes) });
        Some(bytes)
    }
}

/// The acceptor's thread: one thread per connection, while there is room.
fn accept(shared: &Arc<Shared>, listener: &Listener, wait: &sockets::Wait) {
    loop {
        let stream = match listener.accept(wait) {
            Accepted::Stream(stream) if !shared.is_stopping.load(SeqCst) => Arc::new(stream),
            Accepted::Nothing if !shared.is_stopping.load(SeqCst) => continue,
            _ => return,
        };
        let Some(place) = shared.connections.enter(&stream, shared.limits.max_connections) else {
            answer::refuse_for_lack_of_room(&stream);
            continue;
        };
        let its = Arc::clone(shared);
        let is_served = kastor::start_thread(c"kastor-scrape", move || {
            connection::serve(&its, &stream, &its.connections, place);
            its.connections.leave(place);
        });
        if !is_served {
            // Without a thread, the connection is closed with its place.
            shared.connections.leave(place);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
