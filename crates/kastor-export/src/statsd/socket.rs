//! Datagram sockets that never wait for long.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    time::Duration,
};

use kastor::Error;

/// Between two tries while the receiver's queue is full.
const PAUSE: Duration = Duration::from_millis(1);

/// How many pauses are left: a snapshot of thousands of lines does not fit a Unix socket's queue at once, but an agent
/// that has stopped must not hold anything up.
pub(super) struct Patience(u32);

impl Default for Patience {
    /// A tenth of a second.
    fn default() -> Self {
        Self(100)
    }
}

/// A connected socket.
pub(super) struct Socket {
    peer: Peer,
    open: Option<Open>,
}

enum Peer {
    Udp(SocketAddr),
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

enum Open {
    Udp(UdpSocket),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixDatagram),
}

impl Open {
    fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        match self {
            Open::Udp(socket) => socket.send(datagram),
            #[cfg(unix)]
            Open::Unix(socket) => socket.send(datagram),
        }
    }
}

impl Socket {
    pub(super) fn udp(text: &str) -> Result<Self, Error> {
        let address = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()).ok_or_else(|| {
            Error::invalid_input(format!("statsd: {text:?} is no address: give HOST:PORT, 127.0.0.1:8125 for instance"))
        })?;
        let mut socket = Self { peer: Peer::Udp(address), open: None };
        socket.reopen().map_err(|error| Error::temporary(format!("statsd: no socket for {text}: {error}")))?;
        Ok(socket)
    }

    /// The receiver need not be there yet.
    #[cfg(unix)]
    pub(super) fn unix(path: std::path::PathBuf) -> Result<Self, Error> {
        let mut socket = Self { peer: Peer::Unix(path), open: None };
        std::os::unix::net::UnixDatagram::unbound()
            .map_err(|error| Error::temporary(format!("statsd: no more sockets: {error}")))?;
        let _ = socket.reopen();
        Ok(socket)
    }

    /// Another socket in place of this one.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let open = match &self.peer {
            Peer::Udp(peer) => {
                let any = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.connect(peer)?;
                socket.set_nonblocking(true)?;
                Open::Udp(socket)
            }
            #[cfg(unix)]
            Peer::Unix(path) => {
                let socket = std::os::unix::net::UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_nonblocking(true)?;
                Open::Unix(socket)
            }
        };
        self.open = Some(open);
        Ok(())
    }

    /// Whether the system took it.
    pub(super) fn send(&mut self, datagram: &[u8], patience: &mut Patience) -> bool {
        let mut may_reopen = true;
        loop {
            let sent = match &self.open {
                Some(open) => open.send(datagram),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            match sent {
                Ok(_) => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No room in a queue.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let Some(left) = patience.0.checked_sub(1) else { return false };
                    patience.0 = left;
                    std::thread::sleep(PAUSE);
                }
                // An agent that started again has another socket at the same path; over UDP, the error is about an
                // earlier datagram and this one was not sent.
                Err(_) if may_reopen => {
                    may_reopen = false;
                    if self.reopen().is_err() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }
}
