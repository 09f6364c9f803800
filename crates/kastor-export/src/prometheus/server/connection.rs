//! One connection: requests one after another, until the client goes, is too slow, or has to make room.

use std::{
    io::{self, Read as _},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    Shared, answer, lock,
    request::{self, Parsed, Refusal},
    sockets::Kept,
};

/// The connections that are open.
#[derive(Default)]
pub(super) struct Connections {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entered: u64,
    open: Vec<Open>,
}

struct Open {
    place: u64,
    stream: Arc<TcpStream>,
    /// Since when it has waited for a request.
    idle_since: Option<Instant>,
    /// In a forked child, the socket is closed.
    _kept: Kept,
}

impl Connections {
    /// A place for one more; none if all are busy. One that idles is closed if there is no room otherwise.
    pub(super) fn enter(&self, stream: &Arc<TcpStream>, max: usize) -> Option<u64> {
        let mut state = lock(&self.state);
        if state.open.len() >= max {
            let idle = state.open.iter().enumerate().filter_map(|(at, open)| Some((open.idle_since?, at))).min()?;
            let open = state.open.swap_remove(idle.1);
            // Its thread sees the end and leaves.
            let _ = open.stream.shutdown(Shutdown::Both);
        }
        state.entered += 1;
        let place = state.entered;
        let kept = Kept::new(stream);
        state.open.push(Open { place, stream: Arc::clone(stream), idle_since: None, _kept: kept });
        Some(place)
    }

    /// Gives the place free.
    pub(super) fn leave(&self, place: u64) {
        lock(&self.state).open.retain(|open| open.place != place);
    }

    /// Ends all.
    pub(super) fn close_all(&self) {
        for open in lock(&self.state).open.drain(..) {
            let _ = open.stream.shutdown(Shutdown::Both);
        }
    }

    fn idles(&self, place: u64, since: Option<Instant>) {
        if let Some(open) = lock(&self.state).open.iter_mut().find(|open| open.place == place) {
            open.idle_since = since;
        }
    }
}

/// Answers the requests of one connection.
pub(super) fn serve(shared: &Shared, stream: &TcpStream, connections: &Connections, place: u64) {
    let limits = &shared.limits;
    let mut bytes = Vec::new();
    // A new connection is expected to ask at once.
    let mut patience = limits.head_timeout;
    loop {
        let request = match read(shared, stream, connections, place, &mut bytes, patience) {
            Ok(Ok(request)) => request,
            Ok(Err(refusal)) => {
                if answer::refuse(stream, refusal, false, false, limits.answer_timeout).is_ok() {
                    answer::linger(stream);
                }
                return;
            }
            Err(_) => return,
        };
        let sent = match &request.wants {
            Ok(wanted) => match shared.body(wanted.format, wanted.is_compressed) {
                Some(body) => {
                    let (format, is_compressed) = (wanted.format, wanted.is_compressed);
                    answer::send(stream, &request, format, is_compressed, &body, limits.answer_timeout)
                }
                None => {
                    let (is_head, keeps_alive) = (request.is_head, request.keeps_alive);
                    answer::refuse(stream, Refusal::NoContext, is_head, keeps_alive, limits.answer_timeout)
                }
            },
            Err(refusal) => {
                answer::refuse(stream, *refusal, request.is_head, request.keeps_alive, limits.answer_timeout)
            }
        };
        if sent.is_err() {
            return;
        }
        if !request.keeps_alive {
            return answer::linger(stream);
        }
        patience = limits.idle_timeout;
    }
}

/// The next request, or why there is none that can be answered with metrics. An error: nobody is there any more.
fn read(
    shared: &Shared,
    mut stream: &TcpStream,
    connections: &Connections,
    place: u64,
    bytes: &mut Vec<u8>,
    patience: Duration,
) -> io::Result<Result<request::Request, Refusal>> {
    let mut deadline = Instant::now() + patience;
    let mut has_begun = !bytes.is_empty();
    connections.idles(place, (!has_begun).then(Instant::now));
    let mut part = [0; 2 << 10];
    loop {
        match request::parse(bytes, &shared.rules) {
            Parsed::Request(request, length) => {
                bytes.drain(..length.min(bytes.len()));
                return Ok(Ok(request));
            }
            Parsed::Broken(refusal) => return Ok(Err(refusal)),
            Parsed::Partial => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return if has_begun { Ok(Err(Refusal::TookTooLong)) } else { Err(io::ErrorKind::TimedOut.into()) };
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                if !has_begun {
                    has_begun = true;
                    connections.idles(place, None);
                    deadline = Instant::now() + shared.limits.head_timeout;
                }
                // Bounded: beyond the largest head there is no other read.
                bytes.extend_from_slice(part.get(..length).unwrap_or(&[]));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
}
