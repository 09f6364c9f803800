//! `kastor view`: captures in the browser, served on this machine or as one file.
//!
//! ```text
//! files ─▶ Loader ─▶ Capture: scopes in columns, or where they are ─▶ answers of bounded size ─▶ the page
//! ```
//!
//! The page asks for what it shows, and gets as much of it as there are pixels.

mod answers;
mod arguments;
mod bits;
mod capture;
mod filter;
mod guard;
mod lanes;
mod load;
mod overview;
mod page;
mod scopes;
mod server;
mod state;
mod sums;
mod timeline;
mod tree;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub(crate) use self::arguments::ViewArguments;
use self::guard::Guard;
use self::state::State;
use crate::failure::{Failure, Verdict};
use crate::output::{Output, PLAIN};

/// Threads that work on answers at once.
const MOST_WORKERS: usize = 8;

/// Runs the command.
pub(crate) fn run(arguments: &ViewArguments, output: &mut Output) -> Result<Verdict, Failure> {
    let (listener, port) = server::listen(arguments.port).map_err(|error| {
        let message = format!("cannot serve at 127.0.0.1:{}: {error}", arguments.port);
        Failure::new(message, "try `--port 0` for any port that is free")
    })?;
    let guard = Guard::new(port)
        .map_err(|error| Failure::new(format!("no random token: {error}"), "check the system's random numbers"))?;
    let (state, following) = if arguments.live {
        let (state, following) = State::follow(&arguments.files, &arguments.base, load::MOST_SCOPES)?;
        (state, Some(following))
    } else {
        (State::load(&arguments.files, &arguments.base, load::MOST_SCOPES)?, None)
    };
    let state = Arc::new(state);
    let is_over = Arc::new(AtomicBool::new(false));
    if let Some(following) = following {
        let (state, is_over) = (Arc::clone(&state), Arc::clone(&is_over));
        std::thread::spawn(move || following.follow(&state, || is_over.load(Relaxed)));
    }
    output.line(PLAIN, &guard.address());
    output.flush();
    let served = runtime()
        .and_then(|runtime| runtime.block_on(server::serve(listener, answers::router(state, guard), interrupted())));
    is_over.store(true, Relaxed);
    served.map_err(|error| Failure::new(format!("cannot serve: {error}"), "check what the system says about it"))?;
    Ok(Verdict::Fine)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MOST_WORKERS).build()
}

/// Ends when the user wants an end.
async fn interrupted() {
    // Without a way to hear of it the system ends the process.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
