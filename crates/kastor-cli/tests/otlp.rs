//! `kastor demo --otlp`: one more run, to a collector.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use common::{kastor, transcript};

/// What a collector took: paths and bodies.
type Taken = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector that takes everything.
fn collector() -> (String, Taken) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Taken::default();
    let keep = Arc::clone(&taken);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let keep = Arc::clone(&keep);
            std::thread::spawn(move || {
                let mut input = BufReader::new(connection.try_clone().unwrap());
                while let Some(request) = request(&mut input) {
                    keep.lock().unwrap().push(request);
                    (&connection).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (url, taken)
}

fn request(input: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        input.read_line(&mut head).ok().filter(|bytes| *bytes > 0)?;
    }
    let path = head.split(' ').nth(1)?.to_owned();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length?];
    input.read_exact(&mut body).ok()?;
    Some((path, body))
}

#[test]
fn the_demo_sends_its_scopes_and_sums_to_a_collector() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "to be or not to be\n").unwrap();
    let (url, taken) = collector();
    let path = folder.path().to_str().unwrap();
    let transcript = transcript(&mut kastor(&["demo", path, "--repeat", "1", "--otlp", &url]));
    assert_eq!((transcript.code, &*transcript.stderr), (Some(0), ""), "{}", transcript.stdout);
    let line = transcript.stdout.lines().find(|line| line.starts_with("one more run sent to ")).unwrap();
    assert!(line.contains(&url) && line.contains(" events, and the sums as metrics"), "{line}");
    let taken = taken.lock().unwrap();
    for (path, name) in [("/v1/traces", "count"), ("/v1/metrics", "kastor.scope.duration")] {
        let holds = |body: &[u8]| body.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(taken.iter().any(|(taken, body)| taken == path && holds(body)), "{path}: {name}");
    }
}

#[test]
fn what_is_no_address_is_said_with_one_that_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "text\n").unwrap();
    let path = folder.path().to_str().unwrap();
    let transcript = transcript(&mut kastor(&["demo", path, "--repeat", "1", "--otlp", "nowhere"]));
    transcript.assert_refused("http://localhost:4318");
}
