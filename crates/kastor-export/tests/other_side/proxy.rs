//! A TCP proxy that breaks things: it stands between a client and a server and does what it was told last.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// What happens to connections, those that are open included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// New connections are closed at once, open ones too.
    Refuse,
    /// Connections are taken, and nothing ever comes through in any direction.
    Blackhole,
    /// Connections are reset once so many bytes of the client came through.
    ResetAfter(usize),
    /// So many bytes a second in each direction.
    BytesPerSecond(u32),
}

/// Listens on a free port of the loopback interface. Ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    fault: Mutex<Fault>,
    connections: Mutex<Vec<TcpStream>>,
    is_ending: AtomicBool,
}

impl Proxy {
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target,
            fault: Mutex::new(Fault::None),
            connections: Mutex::default(),
            is_ending: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.is_ending.load(SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    // A client that cannot be served is closed.
                    let _ = shared.connect(client);
                }
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, this happens.
    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
        if fault == Fault::Refuse {
            self.state.close_all();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.is_ending.store(true, SeqCst);
        self.state.close_all();
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    fn close_all(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        if self.fault() == Fault::Refuse {
            return Ok(());
        }
        let server = TcpStream::connect(self.target)?;
        self.connections.lock().unwrap().extend([client.try_clone()?, server.try_clone()?]);
        for (from, to, is_client) in
            [(client.try_clone()?, server.try_clone()?, true), (server.try_clone()?, client.try_clone()?, false)]
        {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                let _ = shared.pump(&from, &to, is_client);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, is_client: bool) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let mut passed = 0;
        loop {
            let most = match self.fault() {
                Fault::BytesPerSecond(bytes) => (bytes / 20).clamp(1, 16 << 10) as usize,
                _ => buffer.len(),
            };
            let read = from.read(&mut buffer[..most])?;
            if read == 0 {
                return Ok(());
            }
            while self.fault() == Fault::Blackhole && !self.is_ending.load(SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            match self.fault() {
                Fault::ResetAfter(bytes) if is_client && passed + read > bytes => {
                    reset(from);
                    return Ok(());
                }
                Fault::BytesPerSecond(bytes) => {
                    thread::sleep(Duration::from_secs_f64(read as f64 / f64::from(bytes)));
                }
                _ => {}
            }
            to.write_all(&buffer[..read])?;
            passed += read;
        }
    }
}

/// Closes a connection so that the other side sees a reset, not an end.
pub fn reset(connection: &TcpStream) {
    #[cfg(unix)]
    {
        use std::os::fd::AsRawFd as _;
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: the descriptor is open while `connection` is borrowed, and the option's value lives during the call.
        unsafe {
            let size = size_of::<libc::linger>() as libc::socklen_t;
            let value = (&raw const linger).cast();
            libc::setsockopt(connection.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, size);
        }
        // Clones of the descriptor keep the connection open; an aborting connect is what ends all of them.
        abort(connection);
    }
    #[cfg(not(unix))]
    let _ = connection.shutdown(Shutdown::Both);
}

/// `connect` to no address dissolves a connection at once, whoever else holds it.
#[cfg(unix)]
fn abort(connection: &TcpStream) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: an address of all zeroes is a valid one of no family.
    let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    // SAFETY: the descriptor is open while `connection` is borrowed, and the address lives during the call.
    unsafe {
        libc::connect(connection.as_raw_fd(), &raw const nowhere, size_of::<libc::sockaddr>() as libc::socklen_t);
    }
}
