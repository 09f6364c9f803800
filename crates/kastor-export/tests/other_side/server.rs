//! An OTLP server over HTTP that does what a script says: answers, refuses, stalls, drips, resets.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    metrics::v1::Metric,
    trace::v1::Span,
};
use prost::Message as _;

/// What the server does with one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// 200, everything taken.
    Ok,
    /// 200, but so many items rejected.
    Partial(u64),
    /// This status with these headers and this body.
    Status(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// 200, after a while.
    Slow(Duration),
    /// Nothing, for so long, then the connection is closed.
    Silent(Duration),
    /// The head of an answer, then its body a byte at a time, with so much time between.
    Drip(Duration),
    /// 200 with a body of so many bytes; gzip makes it small on the way.
    Oversized { bytes: usize, is_gzip: bool },
    /// The connection is reset at once.
    Reset,
    /// Bytes that are no HTTP.
    Garbage,
}

impl Reply {
    /// A status without headers or body.
    pub fn status(status: u16) -> Self {
        Reply::Status(status, Vec::new(), Vec::new())
    }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
    /// Whether the script let it be taken.
    pub is_taken: bool,
}

impl Received {
    /// The body without its compression.
    pub fn plain_body(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        match self.headers.get("content-encoding").map(String::as_str) {
            Some("gzip") => drop(flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut plain).unwrap()),
            Some("zstd") => plain = zstd::stream::decode_all(&self.body[..]).unwrap(),
            Some(other) => panic!("unknown encoding {other}"),
            None => plain = self.body.clone(),
        }
        plain
    }

    fn is_json(&self) -> bool {
        self.headers.get("content-type").is_some_and(|kind| kind == "application/json")
    }

    /// The request, if it is one of traces.
    pub fn traces(&self) -> Option<ExportTraceServiceRequest> {
        let body = self.plain_body();
        let read = || match self.is_json() {
            true => serde_json::from_slice(&body).expect("traces in JSON"),
            false => ExportTraceServiceRequest::decode(&body[..]).expect("traces in protobuf"),
        };
        self.path.ends_with("/v1/traces").then(read)
    }

    /// The request, if it is one of metrics.
    pub fn metrics(&self) -> Option<ExportMetricsServiceRequest> {
        let body = self.plain_body();
        let read = || match self.is_json() {
            true => serde_json::from_slice(&body).expect("metrics in JSON"),
            false => ExportMetricsServiceRequest::decode(&body[..]).expect("metrics in protobuf"),
        };
        self.path.ends_with("/v1/metrics").then(read)
    }
}

/// What the script is asked: a request, and how many came before it on any path.
type Script = dyn Fn(&Received, usize) -> Reply + Send + Sync;

/// A server on a free port of the loopback interface. Ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    script: Mutex<Arc<Script>>,
    received: Mutex<Vec<Received>>,
    connections: Mutex<Vec<TcpStream>>,
    is_ending: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Server {
    /// Takes everything.
    pub fn start() -> Self {
        Self::scripted(|_, _| Reply::Ok)
    }

    /// Takes everything, on this port of the loopback interface.
    pub fn on(port: u16) -> Self {
        Self::bound(TcpListener::bind(("127.0.0.1", port)).unwrap(), |_, _| Reply::Ok, None)
    }

    pub fn scripted(script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(script, None)
    }

    pub fn with_tls(config: rustls::ServerConfig) -> Self {
        Self::with(|_, _| Reply::Ok, Some(Arc::new(config)))
    }

    fn with(
        script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        Self::bound(TcpListener::bind("127.0.0.1:0").unwrap(), script, tls)
    }

    fn bound(
        listener: TcpListener,
        script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let script: Arc<Script> = Arc::new(script);
        let state = Arc::new(State {
            script: Mutex::new(script),
            received: Mutex::default(),
            connections: Mutex::default(),
            is_ending: AtomicBool::new(false),
            tls,
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for connection in listener.incoming() {
                if shared.is_ending.load(SeqCst) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                shared.connections.lock().unwrap().extend(connection.try_clone());
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(connection));
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For an exporter's configuration.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.state.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// From now on, this happens.
    pub fn script(&self, script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) {
        *self.state.script.lock().unwrap() = Arc::new(script);
    }

    /// Everything that came, taken or not.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// Everything that came after so many others.
    pub fn received_since(&self, before: usize) -> Vec<Received> {
        self.state.received.lock().unwrap().get(before..).unwrap_or_default().to_vec()
    }

    /// Requests on a path.
    pub fn count(&self, path: &str) -> usize {
        self.state.received.lock().unwrap().iter().filter(|received| received.path.ends_with(path)).count()
    }

    /// The spans of all requests that were taken.
    pub fn spans(&self) -> Vec<Span> {
        let taken = self.received().into_iter().filter(|received| received.is_taken);
        let requests = taken.filter_map(|received| received.traces());
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|it| it.scope_spans)
            .flat_map(|it| it.spans)
            .collect()
    }

    /// The metrics of all requests that were taken, in the order in which they came.
    pub fn metrics(&self) -> Vec<Metric> {
        let taken = self.received().into_iter().filter(|received| received.is_taken);
        let requests = taken.filter_map(|received| received.metrics());
        let all = requests.flat_map(|request| request.resource_metrics).flat_map(|it| it.scope_metrics);
        all.flat_map(|it| it.metrics).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.is_ending.store(true, SeqCst);
        for connection in self.state.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        // Wakes the listener, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

trait Stream: Read + io::Write {}
impl<T: Read + io::Write> Stream for T {}

impl State {
    fn serve(&self, connection: TcpStream) {
        connection.set_nodelay(true).unwrap();
        let raw = connection.try_clone().unwrap();
        match &self.tls {
            None => self.serve_requests(connection, &raw),
            Some(config) => {
                let session = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                self.serve_requests(rustls::StreamOwned::new(session, connection), &raw);
            }
        }
    }

    fn serve_requests(&self, mut stream: impl Stream, raw: &TcpStream) {
        while let Ok(Some(mut received)) = read_request(&mut stream) {
            let script = Arc::clone(&self.script.lock().unwrap());
            let before = self.received.lock().unwrap().len();
            let reply = script(&received, before);
            received.is_taken = matches!(
                reply,
                Reply::Ok | Reply::Partial(_) | Reply::Slow(_) | Reply::Drip(_) | Reply::Oversized { .. }
            );
            let path = received.path.clone();
            self.received.lock().unwrap().push(received);
            if self.answer(&mut stream, raw, &path, reply).is_err() {
                break;
            }
        }
        // There are clones of it: dropping this one would not close it.
        let _ = raw.shutdown(std::net::Shutdown::Both);
    }

    fn answer(&self, stream: &mut impl Stream, raw: &TcpStream, path: &str, reply: Reply) -> io::Result<()> {
        match reply {
            Reply::Ok => respond(stream, 200, &[], &[]),
            Reply::Partial(rejected) => {
                // Both messages have the same fields: number 1, with the count in 1 and the reason in 2.
                let partial = opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse {
                    partial_success: Some(
                        opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess {
                            rejected_spans: rejected as i64,
                            error_message: "some are bad".into(),
                        },
                    ),
                };
                respond(stream, 200, &[("content-type", "application/x-protobuf".into())], &partial.encode_to_vec())
            }
            Reply::Status(status, headers, body) => respond(stream, status, &headers, &body),
            Reply::Slow(time) => {
                self.sleep(time);
                respond(stream, 200, &[], &[])
            }
            Reply::Silent(time) => {
                self.sleep(time);
                Err(io::Error::other("the script says so"))
            }
            Reply::Drip(pause) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")?;
                for _ in 0..100_000 {
                    stream.write_all(b"\0")?;
                    stream.flush()?;
                    self.sleep(pause);
                }
                Ok(())
            }
            Reply::Oversized { bytes, is_gzip } => {
                let body = vec![b' '; bytes];
                if is_gzip {
                    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    encoder.write_all(&body)?;
                    respond(stream, 200, &[("content-encoding", "gzip".into())], &encoder.finish()?)
                } else {
                    respond(stream, 200, &[], &body)
                }
            }
            Reply::Reset => {
                super::proxy::reset(raw);
                Err(io::Error::other(format!("{path} was reset")))
            }
            Reply::Garbage => {
                stream.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n")?;
                Err(io::Error::other("the script says so"))
            }
        }
    }

    /// Ends early with the server.
    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_ending.load(SeqCst) {
            thread::sleep(time.min(Duration::from_millis(5)));
        }
    }
}

fn respond(stream: &mut impl Stream, status: u16, headers: &[(&str, String)], body: &[u8]) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

/// None at the end of the connection.
fn read_request(stream: &mut impl Stream) -> io::Result<Option<Received>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Received { path, headers, body, at: Instant::now(), is_taken: false }))
}
