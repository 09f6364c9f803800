//! The one door to standard output: colour only on a terminal, nothing raw from outside, and a closed pipe is the end of the
//! output, not of the program.
//!
//! After the first failed write nothing more is written. If the reader went away (`kastor demo | head -1`) that is a success; any
//! other failure, such as a full disk, is reported by [`Output::finish`].

use std::io::{self, Write};

use anstream::AutoStream;
use anstyle::Style;
use serde::Serialize;

use crate::failure::Failure;
use crate::neutral::{neutral, neutral_json};

/// Headings.
pub(crate) const HEADING: Style = Style::new().bold();
/// What a reader may skip.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// What a reader must not overlook.
pub(crate) const ALARM: Style = anstyle::AnsiColor::Red.on_default();
/// Everything else.
pub(crate) const PLAIN: Style = Style::new();

/// Standard output.
pub(crate) struct Output {
    stream: AutoStream<io::Stdout>,
    state: State,
}

enum State {
    Open,
    ReaderWentAway,
    Failed(io::Error),
}

impl Output {
    /// The process's standard output.
    pub(crate) fn standard() -> Output {
        Output { stream: anstream::stdout(), state: State::Open }
    }

    /// One line, made harmless, in one style.
    pub(crate) fn line(&mut self, style: Style, text: &str) {
        let text = neutral(text);
        let text = text.trim_end();
        self.write(&format!("{style}{text}{style:#}\n"));
    }

    /// An empty line and a heading.
    pub(crate) fn heading(&mut self, text: &str) {
        self.write("\n");
        self.line(HEADING, text);
    }

    /// A text of our own with styles in it, such as help. Never for text from outside.
    pub(crate) fn own_text(&mut self, text: &str) {
        self.write(text);
    }

    /// One JSON document.
    pub(crate) fn json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(document).map_err(|error| {
            Failure::new(
                format!("cannot write the result as JSON: {error}"),
                "try it without --json and report this as a bug",
            )
        })?;
        self.write(&neutral_json(&text));
        self.write("\n");
        Ok(())
    }

    /// Sends what is buffered, before a command goes on for long.
    pub(crate) fn flush(&mut self) {
        self.attempt(|stream| stream.flush());
    }

    /// Sends what is buffered and says whether everything that somebody wanted to read was written.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.attempt(|stream| stream.flush());
        match self.state {
            State::Open | State::ReaderWentAway => Ok(()),
            State::Failed(error) => Err(Failure::new(
                format!("cannot write to standard output: {error}"),
                "check where it goes, and the space there",
            )),
        }
    }

    fn write(&mut self, text: &str) {
        self.attempt(|stream| stream.write_all(text.as_bytes()));
    }

    fn attempt(&mut self, write: impl FnOnce(&mut AutoStream<io::Stdout>) -> io::Result<()>) {
        if !matches!(self.state, State::Open) {
            return;
        }
        self.state = match write(&mut self.stream) {
            Ok(()) => State::Open,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => State::ReaderWentAway,
            Err(error) => State::Failed(error),
        };
    }
}

/// One line on standard error about something that is no failure.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "kastor: note: {}", neutral(text));
}

/// One line on standard error. If even that cannot be written, there is nobody left to tell.
pub(crate) fn complain(failure: &Failure) {
    let line = failure.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", neutral(&line));
}
