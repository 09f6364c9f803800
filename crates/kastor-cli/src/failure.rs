//! How a command ends: with a [`Verdict`] when it could do its work, with a [`Failure`] when it could not.

use std::fmt;

/// The end of a command that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing to complain about: exit code 0.
    Fine,
    /// Something is not as it should be, and the output says what: exit code 1.
    Finding,
    /// The program that was run has ended with this exit code.
    Code(u8),
}

/// The end of a command that could not do what it was asked: exit code 2. Shown as one line, what is wrong and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "kastor: {}; {}", self.message, self.hint)
    }
}
