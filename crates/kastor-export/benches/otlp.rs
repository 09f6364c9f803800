//! What a span costs this process from the scope to the socket: `cargo bench -p kastor-export --bench otlp`.
//!
//! The collector is another process, which counts and throws away. Scopes have two attributes, an integer and a text.
//! They come in bursts, each flushed, so that nothing is dropped; what is divided is the processor time of the whole
//! process, system time included, of all of its threads.
#![cfg_attr(not(unix), allow(unused_imports, dead_code, reason = "processor time is asked of Unix"))]

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kastor::{Telemetry, scope};
use kastor_export::{Compression, JsonLines, Otlp, OtlpConfig, Protocol};

const SCOPES: u64 = 1_000_000;
const BURST: u64 = 50_000;
/// Set for the process that is the collector.
const COLLECTOR: &str = "KASTOR_BENCH_COLLECTOR";

fn main() {
    if std::env::var_os(COLLECTOR).is_some() {
        return collect();
    }
    #[cfg(unix)]
    measure();
    #[cfg(not(unix))]
    println!("SKIPPED: processor time is asked of Unix");
}

#[cfg(unix)]
fn measure() {
    let mut collector = Command::new(std::env::current_exe().expect("this program"))
        .env(COLLECTOR, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let mut port = String::new();
    BufReader::new(collector.stdout.take().expect("its output")).read_line(&mut port).expect("its port");
    let url = format!("http://127.0.0.1:{}", port.trim());
    let otlp = |compression, protocol| {
        let config = OtlpConfig::new(&url).compression(compression).protocol(protocol).without_metrics();
        Telemetry::builder().reporter(Otlp::new(config).expect("a good configuration")).build()
    };
    println!("case                    ns of processor time per span   spans/s of wall time");
    report("aggregates alone", &Telemetry::builder().build());
    report("protobuf", &otlp(Compression::None, Protocol::HttpProtobuf));
    report("protobuf, gzip", &otlp(Compression::Gzip, Protocol::HttpProtobuf));
    report("protobuf, zstd", &otlp(Compression::Zstd, Protocol::HttpProtobuf));
    report("json", &otlp(Compression::None, Protocol::HttpJson));
    report("json lines to nowhere", &Telemetry::builder().reporter(JsonLines::new(std::io::sink())).build());
    // The collector ends with its input.
    drop(collector.stdin.take());
    let _ = collector.wait();
}

#[cfg(unix)]
fn report(case: &str, tele: &Telemetry) {
    let _current = tele.override_current();
    burst(tele);
    let (before, began) = (processor_time(), Instant::now());
    (0..SCOPES / BURST).for_each(|_| burst(tele));
    let (cost, took) = (processor_time() - before, began.elapsed());
    for of_reporter in tele.stats().reporters() {
        assert_eq!((of_reporter.delivered(), of_reporter.dropped().total()), (SCOPES + BURST, 0), "{case}");
    }
    println!("{case:<24}{:>28.0}{:>23.0}", cost.as_nanos() as f64 / SCOPES as f64, SCOPES as f64 / took.as_secs_f64());
}

fn burst(tele: &Telemetry) {
    for number in 0..BURST {
        let _scope = scope!("step", number = number, text = "some text");
    }
    assert!(tele.flush(Duration::from_secs(60)).is_complete());
}

#[cfg(unix)]
fn processor_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the place lives during the call; zeroes are valid, should it fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Says its port, then takes everything until its input ends.
fn collect() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("an address").port());
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || take(connection));
        }
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn take(mut connection: TcpStream) -> Option<()> {
    let mut input = BufReader::with_capacity(256 << 10, connection.try_clone().ok()?);
    loop {
        let mut length = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        std::io::copy(&mut Read::by_ref(&mut input).take(length), &mut std::io::sink()).ok()?;
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}
