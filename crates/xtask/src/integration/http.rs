//! Requests to a server on loopback: one connection each, HTTP/1.0, so that a body ends where the connection does.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::steps::NotPassed;

/// Nothing on loopback takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The lines of the head, the first one included.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, if the status is 200.
    pub(crate) fn json(&self) -> Result<serde_json::Value, NotPassed> {
        if self.status != 200 {
            return Err(NotPassed::failed(format!("{}: {}", self.head.lines().next().unwrap_or(""), self.text())));
        }
        serde_json::from_slice(&self.body).map_err(|error| NotPassed::failed(format!("{error}: {}", self.text())))
    }
}

/// `GET path`, with these header lines besides.
pub(crate) fn get(port: u16, path: &str, headers: &[&str]) -> Result<Answer, NotPassed> {
    request(port, "GET", path, headers, &[])
}

/// `POST path` with a body.
pub(crate) fn post(port: u16, path: &str, headers: &[&str], body: &[u8]) -> Result<Answer, NotPassed> {
    request(port, "POST", path, headers, body)
}

/// Text as part of a query.
pub(crate) fn quoted(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn request(port: u16, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<Answer, NotPassed> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut head = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n");
        if method == "POST" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        headers.iter().for_each(|header| head += &format!("{header}\r\n"));
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let what = format!("{method} http://127.0.0.1:{port}{path}");
    let answer = exchange().map_err(|error| NotPassed::failed(format!("{what}: {error}")))?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| NotPassed::failed(format!("{what}: the answer has no end of its head")))?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| NotPassed::failed(format!("{what}: no status in {head:?}")))?;
    Ok(Answer { status, head, body: answer[end + 4..].to_vec() })
}
