//! One process of the fleet. It is told what to do line by line, and says when it has done it:
//!
//! | line | it | says |
//! |---|---|---|
//! | `emit EVENTS BURST PAUSE_MS` | records so many events, a burst at a time | `emitted TOTAL` |
//! | `persist` | makes durable what it recorded | `kept TOTAL`, or `failed` |
//! | `end` | delivers what is left | its accounts, as JSON |

use std::{
    io::{BufRead as _, Write as _},
    thread,
    time::Duration,
};

use kastor::{DropReason, Telemetry};
use kastor_export::{Otlp, SpoolConfig};
use serde_json::{Value, json};

use super::{PATIENCE, TRACE_EVENTS, config, of_reporter, trace};

/// Small bounds, so that an outage of seconds fills them.
const QUEUE_BYTES: usize = 64 << 10;
const REQUEST_BYTES: usize = 16 << 10;

/// See the module. `folder` is that of the spool, `-` for none.
pub(crate) fn member(number: u64, url: &str, folder: &str) {
    let mut config = config(url).max_request_bytes(REQUEST_BYTES);
    if folder != "-" {
        config = config.spool(SpoolConfig::new(folder));
    }
    let otlp = Otlp::new(config).expect("a good configuration");
    let tele = Telemetry::builder().queue_bytes(QUEUE_BYTES).reporter(otlp).build();
    let _current = tele.override_current();
    // Numbers of different members never meet.
    let (begin, mut next) = (number << 32, number << 32);
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["emit", events, burst, pause_ms] => {
                let [events, burst, pause_ms] =
                    [events, burst, pause_ms].map(|it| it.parse::<u64>().expect("a number"));
                for _ in 0..events / burst {
                    (0..burst / TRACE_EVENTS).for_each(|_| next = trace(next));
                    thread::sleep(Duration::from_millis(pause_ms));
                }
                say(&format!("emitted {}", next - begin));
            }
            ["persist"] if tele.persist(PATIENCE).is_complete() => say(&format!("kept {}", next - begin)),
            ["persist"] => say("failed"),
            ["end"] => return say(&end(&tele).to_string()),
            _ => panic!("no such order: {line}"),
        }
    }
}

fn end(tele: &Telemetry) -> Value {
    let is_complete = tele.flush(PATIENCE).is_complete();
    let (emitted, reporter) = (tele.stats().emitted(), of_reporter(tele));
    let dropped = reporter.dropped();
    let (cpu_ns, most_memory_kib) = usage();
    json!({ "is_complete": is_complete, "emitted": emitted, "delivered": reporter.delivered(),
        "dropped": dropped.total(), "queue_full": dropped.of(DropReason::QueueFull),
        "queued": reporter.queued(), "spooled": reporter.spooled(), "cpu_ns": cpu_ns,
        "most_memory_kib": most_memory_kib })
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody listens");
}

/// CPU time of this process, system time included, and the most memory that it had.
#[cfg(unix)]
fn usage() -> (u64, u64) {
    // SAFETY: all zeroes is a valid value of this plain structure, and its place lives during the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    (ns(usage.ru_utime) + ns(usage.ru_stime), usage.ru_maxrss as u64)
}

#[cfg(not(unix))]
fn usage() -> (u64, u64) {
    (0, 0)
}
