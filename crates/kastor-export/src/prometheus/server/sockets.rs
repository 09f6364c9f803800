//! The sockets: listening, waking the one who listens, and keeping a fork out.
//!
//! A forked child has copies of all descriptors, and none of the threads. A copy of the listening socket would keep the
//! port open when the parent ends, and clients would wait for ever; a copy of a connection would keep the client from
//! seeing its end. So a handler that runs in the child closes its copies at once. The sockets' owners are threads that do
//! not exist there, so nobody closes them a second time.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
};

use kastor::Error;

/// The listening socket. Owned by the thread that accepts.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    _kept: Kept,
}

/// What came of waiting for a connection.
pub(super) enum Accepted {
    Stream(TcpStream),
    Nothing,
    Stop,
}

impl Listener {
    /// `HOST:PORT`, or `PORT` on loopback.
    pub(super) fn bind(text: &str) -> Result<Self, Error> {
        let addresses: Vec<SocketAddr> = match text.trim_start_matches(':').parse::<u16>() {
            Ok(port) => vec![(Ipv4Addr::LOCALHOST, port).into()],
            Err(_) => text
                .to_socket_addrs()
                .map_err(|error| {
                    Error::invalid_input(format!(
                        "prometheus: {text:?} is no address to listen on ({error}): give HOST:PORT or PORT"
                    ))
                })?
                .collect(),
        };
        let failed = |error: io::Error| {
            Error::temporary(format!(
                "prometheus: cannot listen on {text}: {error}: choose another port or end its user"
            ))
        };
        let socket = TcpListener::bind(addresses.as_slice()).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        #[cfg(unix)]
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Self { _kept: Kept::new(&socket), socket, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a connection, or to be woken.
    pub(super) fn accept(&self, wait: &Wait) -> Accepted {
        if !wait.for_connection(&self.socket) {
            return Accepted::Stop;
        }
        match self.socket.accept() {
            // Where a connection inherits the mode of its listener, it must wait again.
            Ok((stream, _)) if stream.set_nonblocking(false).is_ok() => {
                // An answer is written at once; waiting for more would only delay it.
                let _ = stream.set_nodelay(true);
                Accepted::Stream(stream)
            }
            Ok(_) => Accepted::Nothing,
            Err(error) => {
                let passes = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted, io::ErrorKind::ConnectionAborted];
                if !passes.contains(&error.kind()) {
                    // No descriptors left, for instance: asking again at once would only burn time.
                    wait.pause();
                }
                Accepted::Nothing
            }
        }
    }
}

pub(super) use self::system::{Kept, Wait, Waker, waker};

#[cfg(unix)]
mod system {
    use std::{
        io::Write as _,
        net::{SocketAddr, TcpListener},
        os::{
            fd::{AsRawFd, RawFd},
            unix::net::UnixStream,
        },
        sync::{
            Once,
            atomic::{AtomicI32, Ordering::SeqCst},
        },
    };

    use kastor::Error;

    /// Milliseconds between two tries when the system refuses a connection.
    const PAUSE_MS: i32 = 100;
    /// No descriptor.
    const NONE: RawFd = -1;

    /// Descriptors that a forked child closes. Beyond so many at once, a child keeps its copy until it ends.
    static KEPT: [AtomicI32; 1024] = [const { AtomicI32::new(NONE) }; 1024];

    /// A descriptor that no child keeps; forgotten when this is dropped, which has to be before the socket is closed.
    pub(in super::super) struct Kept {
        place: Option<usize>,
    }

    impl Kept {
        pub(in super::super) fn new(socket: &impl AsRawFd) -> Self {
            static REGISTER: Once = Once::new();
            REGISTER.call_once(|| {
                // SAFETY: the handler only swaps atomics and calls `close`, which a child may do between fork and exec,
                // and it lives as long as the program. If it cannot be registered, children keep their copies.
                unsafe { libc::pthread_atfork(None, None, Some(close_in_child)) };
            });
            let fd = socket.as_raw_fd();
            let place = KEPT.iter().position(|kept| kept.compare_exchange(NONE, fd, SeqCst, SeqCst).is_ok());
            Self { place }
        }
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            if let Some(kept) = self.place.and_then(|place| KEPT.get(place)) {
                kept.store(NONE, SeqCst);
            }
        }
    }

    extern "C" fn close_in_child() {
        for kept in &KEPT {
            let fd = kept.swap(NONE, SeqCst);
            if fd != NONE {
                // SAFETY: the child's copy of a descriptor that was open when it was forked: an entry goes before its
                // socket does. Its owner is a thread that does not exist here.
                unsafe { libc::close(fd) };
            }
        }
    }

    /// Wakes the thread that waits for connections.
    pub(in super::super) struct Waker(UnixStream);

    /// The other end.
    pub(in super::super) struct Wait {
        woken: UnixStream,
        _kept: Kept,
    }

    /// Both ends.
    pub(in super::super) fn waker(_: SocketAddr) -> Result<(Waker, Wait), Error> {
        let failed = |error| Error::temporary(format!("prometheus: no more sockets: {error}"));
        let (waker, woken) = UnixStream::pair().map_err(failed)?;
        Ok((Waker(waker), Wait { _kept: Kept::new(&woken), woken }))
    }

    impl Waker {
        pub(in super::super) fn wake(&self) {
            // One byte into an empty socket finds room.
            let _ = (&self.0).write_all(&[0]);
        }
    }

    impl Wait {
        /// Whether there is a connection; no if it is time to stop.
        pub(in super::super) fn for_connection(&self, listener: &TcpListener) -> bool {
            let mut both = [wanted(self.woken.as_raw_fd()), wanted(listener.as_raw_fd())];
            poll(&mut both, -1);
            both[0].revents == 0
        }

        pub(in super::super) fn pause(&self) {
            poll(&mut [wanted(self.woken.as_raw_fd())], PAUSE_MS);
        }
    }

    fn wanted(fd: RawFd) -> libc::pollfd {
        libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
    }

    fn poll(entries: &mut [libc::pollfd], timeout_ms: i32) {
        // SAFETY: so many valid entries, borrowed for the call. An error leaves them as if nothing had come.
        unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout_ms) };
    }
}

#[cfg(not(unix))]
mod system {
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
        time::Duration,
    };

    use kastor::Error;

    /// Nothing forks here.
    pub(in super::super) struct Kept;

    impl Kept {
        pub(in super::super) fn new<T>(_: &T) -> Self {
            Self
        }
    }

    /// Wakes the thread that waits for connections: by a connection.
    pub(in super::super) struct Waker(SocketAddr);

    /// Waiting is what `accept` does by itself.
    pub(in super::super) struct Wait;

    pub(in super::super) fn waker(address: SocketAddr) -> Result<(Waker, Wait), Error> {
        Ok((Waker(address), Wait))
    }

    impl Waker {
        pub(in super::super) fn wake(&self) {
            let mut address = self.0;
            if address.ip().is_unspecified() {
                address.set_ip(match address.ip() {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                });
            }
            let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        }
    }

    impl Wait {
        pub(in super::super) fn for_connection(&self, _: &TcpListener) -> bool {
            true
        }

        pub(in super::super) fn pause(&self) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
