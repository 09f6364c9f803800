//! `kastor view` as a browser reaches it: a process, its address, and requests over sockets of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::kastor;

/// A viewer that runs until this is dropped.
pub struct Viewer {
    child: Child,
    pub host: String,
    pub token: String,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    #[allow(dead_code, reason = "not every test looks at it")]
    pub head: String,
    pub body: Vec<u8>,
}

impl Viewer {
    /// Starts `kastor view` with these arguments.
    pub fn start(arguments: &[&str]) -> Viewer {
        let arguments = [&["view", "--no-open"], arguments].concat();
        let mut child = kastor(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some((host, token)) = line.trim().strip_prefix("http://").and_then(|rest| rest.split_once("/#token="))
        else {
            let mut complaint = String::new();
            child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
            panic!("no address but {line:?}: {complaint}");
        };
        Viewer { host: host.to_owned(), token: token.to_owned(), child }
    }

    /// What the process is told by its user.
    #[allow(dead_code, reason = "not every test ends it by hand")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the process to end by itself.
    #[allow(dead_code, reason = "not every test ends it by hand")]
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// A document that has to be there.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The answer to a request with the token.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[("Host", &self.host), ("Authorization", &format!("Bearer {}", self.token))])
    }

    /// The answer to a request with these headers.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut stream = self.connect();
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all((request + "Connection: close\r\n\r\n").as_bytes()).unwrap();
        answer(&mut stream)
    }

    /// A connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an answer to the end of the connection.
pub fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer with a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes[end + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let bytes = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if bytes == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + bytes]);
        rest = &rest[end + 4 + bytes..];
    }
}
