//! A collector that does not answer costs the queue's bound and two megabytes, however much the program records.
//!
//! Alone in its file: it looks at the memory of the whole process.
#![cfg(all(target_os = "linux", feature = "otlp"))]

mod other_side;

use std::time::Duration;

use kastor::{Telemetry, scope};
use kastor_export::{Compression, Otlp, OtlpConfig};
use other_side::server::{Reply, Server};

/// Bytes of this process that are in memory.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
}

#[test]
fn memory_with_a_dead_collector_stays_within_the_bound_and_two_megabytes() {
    const BOUND: usize = 4 << 20;
    let scopes: u64 = match std::env::var_os("KASTOR_DEEP") {
        Some(set) if set == "1" => 100_000_000,
        _ => 3_000_000,
    };
    let server = Server::scripted(|_, before| match before % 3 {
        0 => Reply::status(503),
        1 => Reply::Silent(Duration::from_millis(300)),
        _ => Reply::Reset,
    });
    let config = OtlpConfig::new(server.url()).compression(Compression::Gzip).timeout(Duration::from_millis(200));
    let tele = Telemetry::builder().queue_bytes(BOUND).reporter(Otlp::new(config).unwrap()).build();
    let _current = tele.override_current();
    let emit = |scopes: u64| {
        for number in 0..scopes {
            let _scope = scope!("step", number = number, text = "some text");
        }
    };
    // The code, the thread's own chunk, the connection's buffers: all that is there in any case.
    emit(2_000);
    tele.flush(Duration::from_millis(500));
    let before = resident_bytes();
    let mut most = before;
    for _ in 0..100 {
        emit(scopes / 100);
        most = most.max(resident_bytes());
    }
    let allowed = BOUND + (2 << 20);
    assert!(most - before <= allowed, "{} KiB more, {} KiB allowed", (most - before) >> 10, allowed >> 10);
    let stats = tele.stats();
    let of_reporter = &stats.reporters()[0];
    assert_eq!(stats.emitted(), of_reporter.queued() + of_reporter.dropped().total() + of_reporter.delivered());
    println!("{} KiB more after {} scopes", (most - before) >> 10, stats.emitted());
}
