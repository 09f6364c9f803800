//! The one error of the crate: opaque, with predicates, and with the decision "worth a retry?" made where it is born.

use std::{borrow::Cow, fmt};

/// What a reporter or a parser could not do.
///
/// The text says what failed, where, and what to do about it. Ask [`Error::is_temporary`] whether trying again later
/// can help, and [`Error::is_invalid_input`] whether the input itself was wrong.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: Cow<'static, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Temporary,
    Permanent,
    InvalidInput,
    Timeout,
}

impl Error {
    /// An error that may go away by itself: the same call can succeed later.
    pub fn temporary(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Temporary, message: message.into() }
    }

    /// An error that trying again does not mend.
    pub fn permanent(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Permanent, message: message.into() }
    }

    /// Input that does not follow its format.
    pub fn invalid_input(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::InvalidInput, message: message.into() }
    }

    /// A deadline that passed before the work was done.
    pub fn timeout(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Timeout, message: message.into() }
    }

    /// Whether the same call can succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind, Kind::Temporary | Kind::Timeout)
    }

    /// Whether a deadline passed.
    pub fn is_timeout(&self) -> bool {
        self.kind == Kind::Timeout
    }

    /// Whether the input was at fault.
    pub fn is_invalid_input(&self) -> bool {
        self.kind == Kind::InvalidInput
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
