//! Everything that can keep a flush waiting, and every place from which a program flushes, for
//! `cargo xtask integration deadlines`.
//!
//! `deadline_workload FAULT inside` flushes in each place where it can look at the clock itself, and says what took too
//! long. `deadline_workload FAULT exit|atexit-before|atexit-after` ends, for whoever started it to look at the clock: it
//! prints `ending` when it begins to, and `flushed MILLISECONDS` from a handler of its own.
//!
//! Faults that the machine has to play a part in are set up by who starts this: a name server that does not answer
//! (`dns-hang`), and a full disk (`full-disk`, with the folder in `KASTOR_FULL_FOLDER`).

use std::{
    cell::RefCell,
    env,
    net::TcpListener,
    sync::{
        Arc, Condvar, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use kastor::{Batch, Builder, Deadline, Error, Reporter, Telemetry, background, scope};
use kastor_export::{Otlp, OtlpConfig, SpoolConfig};
use other_side::{
    proxy::{Fault, Proxy},
    server::{Reply, Server},
};

#[path = "../tests/other_side/mod.rs"]
mod other_side;

/// What is asked for.
const WITHIN: Duration = Duration::from_millis(100);
/// What may be taken besides: the promise.
const GRACE: Duration = Duration::from_millis(50);
/// A machine with other things to do may need more than one attempt to show that it can be kept.
const ATTEMPTS: usize = 5;
/// What even a bad attempt may take.
const SLACK: Duration = Duration::from_secs(2);
const EVENTS: u64 = 2_000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [fault, "inside"] => inside(fault),
        [fault, place @ ("exit" | "atexit-before" | "atexit-after")] => at_exit(fault, place),
        _ => panic!("usage: deadline_workload FAULT inside|exit|atexit-before|atexit-after"),
    }
}

/// The other side of a fault, for as long as it is needed.
#[derive(Default)]
struct OtherSide {
    server: Option<Server>,
    proxy: Option<Proxy>,
    listener: Option<TcpListener>,
    stuck: Option<Stuck>,
    counting: Option<Counting>,
}

/// A context that reports to a place with this fault.
fn faulty(fault: &str) -> (Builder, OtherSide) {
    let mut other = OtherSide::default();
    let scripted = |reply: Reply| Server::scripted(move |_, _| reply.clone());
    let behind_proxy = |other: &mut OtherSide, fault| {
        let server = Server::start();
        let proxy = Proxy::start(server.address());
        proxy.set(fault);
        let url = proxy.url();
        (other.server, other.proxy) = (Some(server), Some(proxy));
        url
    };
    let mut spool = None;
    let url = match fault {
        "stuck-reporter" => {
            // The other reporter must not notice.
            let (stuck, counting) = (Stuck::default(), Counting::default());
            (other.stuck, other.counting) = (Some(stuck.clone()), Some(counting.clone()));
            return (Telemetry::builder().reporter(background(stuck)).reporter(background(counting)), other);
        }
        "refused" => {
            // A port that was free a moment ago.
            let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            format!("http://{}", address.expect("a free port"))
        }
        "never-accepted" => {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            other.listener = Some(listener);
            url
        }
        "blackhole" => behind_proxy(&mut other, Fault::Blackhole),
        "one-byte-a-second" => behind_proxy(&mut other, Fault::BytesPerSecond(1)),
        // It takes the client's greeting and says nothing.
        "tls-stall" => behind_proxy(&mut other, Fault::Blackhole).replace("http:", "https:"),
        "dns-hang" => "http://collector.example.org:4318".to_owned(),
        "full-disk" => {
            spool = Some(SpoolConfig::new(env::var("KASTOR_FULL_FOLDER").expect("a folder on a full disk")));
            other.server = Some(scripted(Reply::status(503)));
            other.server.as_ref().map(Server::url).unwrap_or_default()
        }
        _ => {
            let retry_after = Reply::Status(503, vec![("retry-after", "3600".into())], Vec::new());
            other.server = Some(scripted(match fault {
                "reset" => Reply::Reset,
                "silent" => Reply::Silent(Duration::from_secs(60)),
                "dripping-answer" => Reply::Drip(Duration::from_secs(1)),
                "unavailable" => Reply::status(503),
                "retry-after" => retry_after,
                _ => panic!("no such fault: {fault}"),
            }));
            other.server.as_ref().map(Server::url).unwrap_or_default()
        }
    };
    let mut config = OtlpConfig::new(url);
    if let Some(spool) = spool {
        config = config.spool(spool);
    }
    (Telemetry::builder().reporter(Otlp::new(config).expect("a good configuration")), other)
}

fn emit(tele: &Telemetry, scopes: u64) {
    let _current = tele.override_current();
    (0..scopes).for_each(|number| drop(scope!("step", number = number)));
}

/// Every place but the end of the process. Under load: other threads record all the time.
fn inside(fault: &str) {
    let mut lines = Vec::new();
    for (place, flush) in PLACES {
        let mut best = Duration::MAX;
        for _ in 0..ATTEMPTS {
            let (builder, other) = faulty(fault);
            let tele = builder.build();
            emit(&tele, EVENTS);
            let is_done = AtomicBool::new(false);
            let took = thread::scope(|threads| {
                threads.spawn(|| {
                    while !is_done.load(SeqCst) {
                        emit(&tele, 100);
                        thread::sleep(Duration::from_millis(1));
                    }
                });
                let took = flush(&tele);
                is_done.store(true, SeqCst);
                took
            });
            assert!(took <= WITHIN + GRACE + SLACK, "{fault}, {place}: {WITHIN:?} were asked for, {took:?} taken");
            best = best.min(took);
            is_accounted_for(fault, &tele, &other);
            if best <= WITHIN + GRACE {
                break;
            }
        }
        assert!(best <= WITHIN + GRACE, "{fault}, {place}: {WITHIN:?} were asked for, {best:?} taken at best");
        lines.push(format!("{place} {} ms", best.as_millis()));
    }
    println!("{}", lines.join(", "));
    // What is stuck here is not waited for.
    end_at_once();
}

type Place = fn(&Telemetry) -> Duration;

const PLACES: [(&str, Place); 6] = [
    ("flush", |tele| timed(|| drop(tele.flush(WITHIN)))),
    ("shutdown", |tele| timed(|| drop(tele.shutdown(WITHIN)))),
    ("inside Drop", |tele| {
        let result = Arc::default();
        drop(Flushing(tele.clone(), Arc::clone(&result)));
        taken(&result)
    }),
    ("at a thread's end", |tele| {
        thread_local! {
            static AT_END: RefCell<Option<Flushing>> = const { RefCell::new(None) };
        }
        let result = Arc::default();
        let flushing = Flushing(tele.clone(), Arc::clone(&result));
        let thread = thread::spawn(move || {
            emit(&flushing.0, 1);
            AT_END.with(|at_end| *at_end.borrow_mut() = Some(flushing));
        });
        thread.join().expect("a thread that ends");
        taken(&result)
    }),
    ("on a current-thread runtime", |tele| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { timed(|| drop(tele.flush(WITHIN))) })
    }),
    ("persist", |tele| timed(|| drop(tele.persist(WITHIN)))),
];

fn timed(f: impl FnOnce()) -> Duration {
    let before = Instant::now();
    f();
    before.elapsed()
}

fn taken(result: &Mutex<Option<Duration>>) -> Duration {
    result.lock().expect("no panic").expect("a flush that came to its end")
}

/// Flushes when it is dropped.
struct Flushing(Telemetry, Arc<Mutex<Option<Duration>>>);

impl Drop for Flushing {
    fn drop(&mut self) {
        let took = timed(|| drop(self.0.flush(WITHIN)));
        *self.1.lock().expect("no panic") = Some(took);
    }
}

/// Once nothing moves any more: each event is in one place, or was dropped for a reason.
fn is_accounted_for(fault: &str, tele: &Telemetry, other: &OtherSide) {
    let until = Instant::now() + other_side::LONG;
    loop {
        let stats = tele.stats();
        let is_even = stats
            .reporters()
            .iter()
            .all(|of| stats.emitted() == of.delivered() + of.dropped().total() + of.queued() + of.spooled());
        if is_even {
            break;
        }
        assert!(Instant::now() < until, "{fault}: {stats}");
        thread::sleep(Duration::from_millis(2));
    }
    if let (Some(stuck), Some(counting)) = (&other.stuck, &other.counting) {
        let (stats, until) = (tele.stats(), Instant::now() + other_side::LONG);
        while counting.0.load(SeqCst) < stats.emitted() - stats.reporters()[1].dropped().total() {
            assert!(Instant::now() < until, "{} of {stats}", counting.0.load(SeqCst));
            thread::sleep(Duration::from_millis(2));
        }
        stuck.release();
    }
}

/// Blocks in its first batch until it is released.
#[derive(Clone, Default)]
struct Stuck(Arc<(Mutex<bool>, Condvar)>);

impl Stuck {
    fn release(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

impl Reporter for Stuck {
    fn record_batch(&self, _: &Batch<'_>) -> Result<(), Error> {
        let released = self.0.0.lock().expect("no panic");
        drop(self.0.1.wait_while(released, |released| !*released));
        Ok(())
    }

    fn flush(&self, _: Deadline) -> Result<(), Error> {
        self.record_nothing()
    }
}

impl Stuck {
    fn record_nothing(&self) -> Result<(), Error> {
        let released = self.0.0.lock().expect("no panic");
        drop(self.0.1.wait_while(released, |released| !*released));
        Ok(())
    }
}

/// Counts what it gets.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

impl Reporter for Counting {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        self.0.fetch_add(batch.len(), SeqCst);
        Ok(())
    }
}

static CONTEXT: OnceLock<Telemetry> = OnceLock::new();

/// Ends in order, with a flush of the library's own at the end, and perhaps one of the program's.
fn at_exit(fault: &str, place: &str) {
    if place == "atexit-before" {
        // Runs after the library's own.
        flush_at_exit();
    }
    let (builder, other) = faulty(fault);
    let tele = builder.exit_flush(WITHIN).build();
    emit(&tele, EVENTS);
    let _ = CONTEXT.set(tele);
    if place == "atexit-after" {
        flush_at_exit();
    }
    println!("ending");
    // The other side stays as it is until the very end.
    std::mem::forget(other);
}

#[cfg(unix)]
fn flush_at_exit() {
    extern "C" fn flush() {
        if let Some(tele) = CONTEXT.get() {
            println!("flushed {}", timed(|| drop(tele.flush(WITHIN))).as_millis());
        }
    }
    // SAFETY: the function lives as long as the process, and does not unwind.
    assert_eq!(unsafe { libc::atexit(flush) }, 0);
}

#[cfg(not(unix))]
fn flush_at_exit() {
    panic!("only on Unix");
}

fn end_at_once() -> ! {
    use std::io::Write as _;
    let _ = std::io::stdout().flush();
    #[cfg(unix)]
    // SAFETY: ends the process at once.
    unsafe {
        libc::_exit(0)
    }
    #[cfg(not(unix))]
    std::process::exit(0)
}
