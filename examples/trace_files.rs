//! Trace files: the same program for Perfetto, for Chrome's viewers, and as folded stacks for flame graphs.
//!
//! Open `trace.perfetto-trace` or `trace.json` at <https://ui.perfetto.dev>, `stacks.folded` at <https://speedscope.app>.
//! The files are written while the program runs, a batch at a time; each can be opened before it ends.

use std::path::Path;
use std::thread;
use std::time::Duration;

use kastor::{Telemetry, count, scope};
use kastor_export::chrome::{self, Chrome};
use kastor_export::folded::{self, Folded};
use kastor_export::perfetto::{self, Perfetto};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("kastor-traces-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let telemetry = Telemetry::builder()
        .reporter(Perfetto::create(folder.join("trace.perfetto-trace"), perfetto::Config::default())?)
        .reporter(Chrome::create(folder.join("trace.json"), chrome::Config::default().ids(true))?)
        .reporter(Folded::create(folder.join("stacks.folded"), folded::Config::default())?)
        .build();
    telemetry.clone().install()?;

    serve();

    // Everything recorded so far is in the files after this.
    assert!(telemetry.flush(Duration::from_secs(5)).is_complete());
    for reporter in telemetry.stats().reporters() {
        assert_eq!((reporter.delivered(), reporter.dropped().total()), (5, 0), "{}", reporter.name());
    }
    check(&folder)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// A request, half of it on another thread: in the viewers an arrow leads there.
fn serve() {
    let request = scope!("request", user = "ann");
    let carrier = request.carrier();
    thread::scope(|threads| {
        threads.spawn(move || {
            let _attached = carrier.attach();
            let _query = scope!("query");
            thread::sleep(Duration::from_millis(2));
            count!("rows", 3);
        });
        for part in 0..2_u32 {
            let _render = scope!("render", part = part);
            thread::sleep(Duration::from_millis(1));
        }
    });
    let answer = scope!("answer");
    answer.fail("broken_pipe"); // red in chrome://tracing, category `failed` in Perfetto
}

/// What a viewer would find.
fn check(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let chrome = std::fs::read_to_string(folder.join("trace.json"))?;
    let events = |of: &str| chrome.lines().filter(|line| line.contains(of)).count();
    assert_eq!((events("\"ph\":\"X\""), events("\"ph\":\"s\""), events("scope,failed")), (5, 1, 1));
    assert!(chrome.ends_with("\n]\n"));
    let stacks = std::fs::read_to_string(folder.join("stacks.folded"))?;
    assert!(stacks.lines().any(|line| line.starts_with("request;query ")), "{stacks}");
    let perfetto = std::fs::read(folder.join("trace.perfetto-trace"))?;
    // The first field of every packet: number 1, with a length.
    assert_eq!(perfetto.first(), Some(&0x0a));
    println!("{} bytes for Perfetto, {} for Chrome, and these stacks:\n{stacks}", perfetto.len(), chrome.len());
    Ok(())
}
