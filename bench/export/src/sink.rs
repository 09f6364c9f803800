//! A server that accepts everything and counts spans: the other end, in a process of its own.
//!
//! It walks the protobuf only as far as it has to in order to count, so that on a small machine it takes as little as
//! possible from the sender. `GET /count` tells how many spans have come so far.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use crate::Order;

static SPANS: AtomicU64 = AtomicU64::new(0);

/// Listens on a free port, prints it, and serves until the standard input ends.
pub fn serve(_: &Order) -> Result<serde_json::Value, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    println!("{}", serde_json::json!({ "port": port }));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_all(stream));
        }
    });
    // The gate keeps our input open as long as it wants the server.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(serde_json::json!({ "spans": SPANS.load(Relaxed) }))
}

/// How many spans the sink on this port has seen.
pub fn count(port: u16) -> Result<u64, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    let request = "GET /count HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or("");
    body.trim().parse().map_err(|_| format!("the sink answered {answer:?}"))
}

/// Serves one connection until it ends.
fn answer_all(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    let mut body = Vec::new();
    loop {
        let (mut length, mut is_count, mut is_traces) = (0, false, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            is_count |= line.starts_with("GET /count");
            is_traces |= line.starts_with("POST") && line.contains("traces");
            if let Some((name, value)) = line.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().ok()?;
                }
            }
            if line.is_empty() {
                break;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
        let text = if is_count { SPANS.load(Relaxed).to_string() } else { String::new() };
        if is_traces {
            SPANS.fetch_add(spans(&body), Relaxed);
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        writer.write_all((head + &text).as_bytes()).ok()?;
        if is_count {
            // Whoever asks reads to the end.
            return None;
        }
    }
}

/// Spans in an `ExportTraceServiceRequest`: resource_spans (1) → scope_spans (2) → spans (2).
fn spans(request: &[u8]) -> u64 {
    let scopes = fields(request, 1).flat_map(|resource_spans| fields(resource_spans, 2));
    scopes.map(|scope_spans| fields(scope_spans, 2).count() as u64).sum()
}

/// The length-delimited fields of one number. Anything malformed ends the walk.
fn fields(mut message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let key = varint(&mut message)?;
            match key & 7 {
                0 => drop(varint(&mut message)?),
                1 => message = message.get(8..)?,
                5 => message = message.get(4..)?,
                2 => {
                    let length = usize::try_from(varint(&mut message)?).ok()?;
                    let (field, rest) = message.split_at_checked(length)?;
                    message = rest;
                    if key >> 3 == wanted {
                        return Some(field);
                    }
                }
                _ => return None,
            }
        }
    })
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
