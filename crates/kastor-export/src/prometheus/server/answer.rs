//! What is sent back.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

use super::{
    super::PrometheusFormat,
    request::{Refusal, Request},
};

/// On every answer: nothing here is a page, and nothing is to be kept.
const ALWAYS: &str = "Cache-Control: no-store\r\nContent-Security-Policy: default-src 'none'\r\n\
                      X-Content-Type-Options: nosniff\r\nVary: Accept, Accept-Encoding\r\n";
/// How long a closing connection is listened to, so that the client reads the answer before it sees the end.
const LINGER: Duration = Duration::from_millis(250);
const LINGER_BYTES: usize = 64 << 10;
/// How long a connection that found no room is given to take its answer.
const NO_ROOM_TIMEOUT: Duration = Duration::from_millis(100);

/// Sends the metrics.
pub(super) fn send(
    stream: &TcpStream,
    request: &Request,
    format: PrometheusFormat,
    is_compressed: bool,
    body: &Arc<Vec<u8>>,
    within: Duration,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n{}Content-Length: {}\r\n{ALWAYS}{}\r\n",
        format.content_type(),
        if is_compressed { "Content-Encoding: gzip\r\n" } else { "" },
        body.len(),
        connection(request.keeps_alive),
    );
    let deadline = Instant::now() + within;
    write(stream, head.as_bytes(), deadline)?;
    if request.is_head { Ok(()) } else { write(stream, body, deadline) }
}

/// Says why there are no metrics.
pub(super) fn refuse(
    stream: &TcpStream,
    refusal: Refusal,
    is_head: bool,
    keeps_alive: bool,
    within: Duration,
) -> io::Result<()> {
    let (status, more, text) = match refusal {
        Refusal::Malformed => ("400 Bad Request", "", "This is no well-formed HTTP request."),
        Refusal::HasBody => ("413 Content Too Large", "", "A request here has no body."),
        Refusal::HeadTooLarge => ("431 Request Header Fields Too Large", "", "The head of this request is too large."),
        Refusal::TookTooLong => ("408 Request Timeout", "", "The request took too long to arrive."),
        Refusal::UnknownHost => (
            "421 Misdirected Request",
            "",
            "This endpoint does not know the host name it was asked for. Ask by IP address, or allow the name: \
             Prometheus::builder().allow_host(name).",
        ),
        Refusal::Unauthorized => ("401 Unauthorized", "WWW-Authenticate: Bearer\r\n", "A bearer token is needed."),
        Refusal::NotFound => ("404 Not Found", "", "The metrics are at /metrics."),
        Refusal::MethodNotAllowed => ("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "Use GET or HEAD."),
        Refusal::NoContext => ("503 Service Unavailable", "", "There is no telemetry context, or it has ended."),
        Refusal::NoRoom => ("503 Service Unavailable", "Retry-After: 1\r\n", "All connections are taken."),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{more}{ALWAYS}{}\r\n",
        text.len() + 1,
        connection(keeps_alive),
    );
    let body = if is_head { String::new() } else { format!("{text}\n") };
    write(stream, (head + &body).as_bytes(), Instant::now() + within)
}

/// Says that there is no room, without waiting for anyone.
pub(super) fn refuse_for_lack_of_room(stream: &TcpStream) {
    let _ = refuse(stream, Refusal::NoRoom, false, false, NO_ROOM_TIMEOUT);
    let _ = stream.shutdown(Shutdown::Both);
}

/// Ends a connection after an answer: bytes that were not read would make the system throw the answer away.
pub(super) fn linger(mut stream: &TcpStream) {
    let deadline = Instant::now() + LINGER;
    let _ = stream.shutdown(Shutdown::Write);
    let mut ignored = [0; 4 << 10];
    let mut read = 0;
    while read < LINGER_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            break;
        }
        match stream.read(&mut ignored) {
            Ok(bytes) if bytes > 0 => read += bytes,
            _ => break,
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Gzip, fast rather than small.
pub(super) fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

fn connection(keeps_alive: bool) -> &'static str {
    if keeps_alive { "" } else { "Connection: close\r\n" }
}

/// Writes everything before the deadline, however slowly the client reads.
fn write(mut stream: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
