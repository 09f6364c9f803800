//! Redaction: secrets are taken out before anything leaves the process.
//!
//! A text is secret because of its key (`password`, `db.password`, `apiKey`, …), or because of its shape: user info in a
//! URL, bearer and basic credentials, JSON web tokens, the keys of well-known clouds and services, private keys in PEM,
//! and `password=…`-like assignments inside a longer text. What is secret becomes [`REDACTED`]; of a URL, only its user
//! info. Every exporter of this crate applies it, by default, to attribute values, event attributes, error types, metric
//! labels and resource attributes. Names of scopes, metrics and keys are the program's own words and stay.
//!
//! Redaction errs on the side of hiding. It is no proof: a secret that looks like an ordinary word, under an ordinary
//! key, is not found. `docs/privacy.md` has the lists.

mod keys;
mod record;
mod shapes;

use std::{borrow::Cow, fmt, sync::Arc};

use kastor::Value;

pub use self::record::RecordRedaction;
use self::{keys::Keys, shapes::Shapes};

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Which texts are secret. On by default; cheap to clone.
///
/// ```
/// use kastor_export::Redaction;
///
/// let redaction = Redaction::default().key("iban").allow_key("session.id");
/// assert_eq!(redaction.text("db.password", "hunter2"), "[redacted]");
/// assert_eq!(redaction.text("session.id", "7f3a"), "7f3a");
/// assert_eq!(redaction.text("url", "https://me:pw@example.org/a"), "https://[redacted]@example.org/a");
/// ```
#[derive(Clone)]
pub struct Redaction {
    /// None: nothing is secret.
    keys: Option<Arc<Keys>>,
}

impl Default for Redaction {
    /// All built-in keys and shapes.
    fn default() -> Self {
        Self { keys: Some(Arc::new(Keys::built_in())) }
    }
}

impl Redaction {
    /// Nothing is secret.
    pub fn none() -> Self {
        Self { keys: None }
    }

    /// Hides the values of one more key: wherever its segments stand together in a key. Case and separators do not
    /// matter: `card_number` hides `payment.cardNumber` too. Does nothing on [`Redaction::none`].
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        if let Some(keys) = &mut self.keys {
            Arc::make_mut(keys).deny(key);
        }
        self
    }

    /// Shows the values of this one key although a rule hides them; their shape is still looked at. Case and separators
    /// do not matter, but the key has to be whole.
    #[must_use]
    pub fn allow_key(mut self, key: &str) -> Self {
        if let Some(keys) = &mut self.keys {
            Arc::make_mut(keys).allow(key);
        }
        self
    }

    /// Whether nothing is ever redacted.
    pub fn is_none(&self) -> bool {
        self.keys.is_none()
    }

    /// Whether every value of this key is secret.
    pub fn hides_key(&self, key: &str) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.hides(key))
    }

    /// The text without its secrets. Borrowed, and nothing allocated, if there are none.
    pub fn text<'a>(&self, key: &str, value: &'a str) -> Cow<'a, str> {
        if self.hides_key(key) && !value.is_empty() {
            return Cow::Borrowed(REDACTED);
        }
        self.free_text(value)
    }

    /// The text without what is secret by its shape, for texts without a key: error messages for instance.
    pub fn free_text<'a>(&self, value: &'a str) -> Cow<'a, str> {
        match &self.keys {
            Some(keys) => replaced(value, Shapes::new(value.as_bytes(), keys), REDACTED),
            None => Cow::Borrowed(value),
        }
    }

    /// What to export in place of an attribute's value; `None` if it may be exported as it is.
    ///
    /// Numbers and bytes under a hidden key are replaced too; truth values and nothing say too little to be secret. Bytes
    /// that are text are looked through like text.
    pub fn replacement(&self, key: &str, value: &Value<'_>) -> Option<Cow<'static, str>> {
        self.replacement_under(self.hides_key(key), value)
    }

    /// The same for a key of which it is known whether it is hidden.
    #[inline]
    pub(crate) fn replacement_under(&self, is_hidden: bool, value: &Value<'_>) -> Option<Cow<'static, str>> {
        self.keys.as_ref()?;
        if is_hidden {
            return match value {
                Value::Null | Value::Bool(_) | Value::Str("") | Value::Bytes(b"") => None,
                _ => Some(Cow::Borrowed(REDACTED)),
            };
        }
        let text = match value {
            Value::Str(text) => return owned(self.free_text(text)),
            Value::Bytes(bytes) => return owned(self.free_text(std::str::from_utf8(bytes).ok()?)),
            Value::Display(value) => value.to_string(),
            Value::Debug(value) => format!("{value:?}"),
            _ => return None,
        };
        owned(self.free_text(&text))
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "Redaction(none)" } else { "Redaction(on)" })
    }
}

/// A text that was replaced; none if it was left as it is.
fn owned(text: Cow<'_, str>) -> Option<Cow<'static, str>> {
    match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(Cow::Owned(text)),
    }
}

/// `text` with a mark in place of each secret.
fn replaced<'a>(text: &'a str, mut secrets: Shapes<'_>, mark: &str) -> Cow<'a, str> {
    let Some(first) = secrets.next() else { return Cow::Borrowed(text) };
    let mut safe = String::with_capacity(text.len() + mark.len());
    let mut copied = 0;
    for secret in std::iter::once(first).chain(secrets) {
        // Secrets begin and end beside ASCII, so these are whole characters; if not, the rest is not shown at all.
        safe.push_str(text.get(copied..secret.start).unwrap_or(""));
        safe.push_str(mark);
        copied = secret.end;
    }
    safe.push_str(text.get(copied..).unwrap_or(""));
    Cow::Owned(safe)
}
