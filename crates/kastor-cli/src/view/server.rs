//! Serving on this machine alone: connections with limits on their number and on how long they may do nothing.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_service::Service;

/// Connections at once. Further ones wait.
const MOST_CONNECTIONS: usize = 64;
/// How long the head of a request may take, and a connection may wait for one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing may be read or written while no answer is being made.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of the head of a request.
const MOST_HEADER_BYTES: usize = 64 << 10;
/// What is left to do after a connection was refused by the system.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A place to serve at.
pub(super) fn listen(port: u16) -> io::Result<(std::net::TcpListener, u16)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Serves until `end`.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    end: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    tokio::pin!(end);
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = &mut end => return Ok(()),
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(permit);
                });
            }
            // Too many files are open, or the client is gone already.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::new());
    let stream = Watched { stream, activity: Arc::clone(&activity) };
    let service = service_fn(|request| {
        let answering = Answering::new(Arc::clone(&activity));
        let answer = router.clone().call(request);
        async move {
            let answer = answer.await;
            drop(answering);
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MOST_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that goes away in the middle is its own business.
        _ = serving => {}
        () = activity.is_over() => {}
    }
}

/// When something was last read or written.
struct Activity {
    began: Instant,
    last_ms: AtomicU64,
    answers: AtomicUsize,
}

impl Activity {
    fn new() -> Self {
        Self { began: Instant::now(), last_ms: AtomicU64::new(0), answers: AtomicUsize::new(0) }
    }

    fn touch(&self) {
        self.last_ms.store(self.began.elapsed().as_millis() as u64, Relaxed);
    }

    /// Ends when nothing was read or written for too long.
    async fn is_over(&self) {
        loop {
            let idle = self.began.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Relaxed)));
            if self.answers.load(Relaxed) > 0 {
                tokio::time::sleep(IDLE_TIMEOUT).await;
                continue;
            }
            match IDLE_TIMEOUT.checked_sub(idle).filter(|left| !left.is_zero()) {
                Some(left) => tokio::time::sleep(left).await,
                None => return,
            }
        }
    }
}

/// An answer is being made: that may take long.
struct Answering(Arc<Activity>);

impl Answering {
    fn new(activity: Arc<Activity>) -> Self {
        activity.answers.fetch_add(1, Relaxed);
        Self(activity)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.touch();
        self.0.answers.fetch_sub(1, Relaxed);
    }
}

/// A connection that notes its activity.
struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, to);
        if to.filled().len() > before {
            self.activity.touch();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, from);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.activity.touch();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
