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
mod browser;
mod capture;
mod detail;
mod difference;
mod filter;
mod guard;
mod html;
mod lanes;
mod list;
mod load;
mod overview;
mod page;
mod perfetto;
mod scopes;
mod series;
mod server;
mod state;
mod sums;
mod timeline;
mod tree;
mod window;

#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

pub(crate) use self::arguments::ViewArguments;
use self::capture::Capture;
use self::guard::Guard;
use self::state::State;
use crate::failure::{Failure, Verdict};
use crate::output::{self, Output, PLAIN};

/// Threads that work on answers at once.
const MOST_WORKERS: usize = 8;

/// Runs the command.
pub(crate) fn run(arguments: &ViewArguments, output: &mut Output) -> Result<Verdict, Failure> {
    match &arguments.html {
        Some(to) => one_file(arguments, to),
        None => serve(arguments, output),
    }
}

fn one_file(arguments: &ViewArguments, to: &Path) -> Result<Verdict, Failure> {
    let state = State::load(&arguments.files, &arguments.base, load::MOST_SCOPES)?;
    let captures = state.captures();
    let captures: Vec<&Capture> = captures.iter().map(|capture| &**capture).collect();
    html::write(&captures, to)?;
    for missing in captures.iter().filter_map(|capture| capture.missing.in_words()) {
        output::note(&missing);
    }
    Ok(Verdict::Fine)
}

fn serve(arguments: &ViewArguments, output: &mut Output) -> Result<Verdict, Failure> {
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
    if let Some(following) = following {
        let state = Arc::downgrade(&state);
        std::thread::spawn(move || following.follow(&state));
    }
    let unserved = |error| Failure::new(format!("cannot serve: {error}"), "check what the system says about it");
    let runtime = runtime().map_err(unserved)?;
    let end = {
        let _inside = runtime.enter();
        interrupted().map_err(unserved)?
    };
    let address = guard.address();
    output.line(PLAIN, &address);
    output.flush();
    let _opened = if arguments.no_open || !std::io::stdout().is_terminal() {
        None
    } else {
        browser::open(&address).unwrap_or_else(|error| {
            output::note(&format!("no browser was opened ({error}); open the address above"));
            None
        })
    };
    let served = runtime.block_on(server::serve(listener, answers::router(state, guard), end));
    // An answer that is being made is nobody's any more.
    runtime.shutdown_background();
    served.map_err(unserved)?;
    Ok(Verdict::Fine)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MOST_WORKERS).build()
}

/// Ends when the user wants an end. From this call on, not only from when it is waited for.
#[cfg(unix)]
fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends when the user wants an end.
#[cfg(not(unix))]
fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a way to hear of it the system ends the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
