//! A trace file that may not grow any more stays one that can be read, batch after batch.
#![cfg(unix)]

mod support;

use kastor::{Telemetry, scope};
use kastor_export::chrome::{Chrome, Config};
use support::{LONG, again, child_of};

#[test]
fn a_chrome_trace_that_may_not_grow_is_whole_json_after_every_batch() {
    const NAME: &str = "a_chrome_trace_that_may_not_grow_is_whole_json_after_every_batch";
    if let Some(path) = child_of(NAME) {
        let limit = libc::rlimit { rlim_cur: 10_000, rlim_max: 10_000 };
        // SAFETY: of this process alone, which does nothing else; the limit lives during the call.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
        }
        let tele = Telemetry::builder().reporter(Chrome::create(&path, Config::default()).unwrap()).build();
        let text = "a".repeat(100);
        for turn in 0..60 {
            drop(scope!(tele, "job", turn = turn, text = text.as_str()));
            tele.flush(LONG);
            let text = std::fs::read_to_string(&path).unwrap();
            let events: serde_json::Value = serde_json::from_str(&text).unwrap();
            let jobs = events.as_array().unwrap().iter().filter(|event| event["name"] == "job").count();
            let stats = tele.stats();
            let of_reporter = &stats.reporters()[0];
            assert_eq!(jobs as u64, of_reporter.delivered(), "{stats}");
            assert_eq!(stats.emitted(), of_reporter.delivered() + of_reporter.dropped().total(), "{stats}");
        }
        assert!(tele.stats().reporters()[0].dropped().total() > 0);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    assert!(again(NAME, path.to_str().unwrap()).status().unwrap().success());
}
