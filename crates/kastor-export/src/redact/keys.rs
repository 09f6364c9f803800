//! Which keys hide their values: a key is cut into segments, and rules are runs of segments.
//!
//! Segments end at anything that is no letter, and between a small and a capital letter: `db.password`, `DB_PASSWORD`,
//! `dbPassword` and `password2` all hold the segment `password`; `passwordless` does not. A key whose last segment only
//! says how much or of which sort something is (`token.type`, `password_length`) is not secret.

/// Runs of segments that make a key secret, joined with `_`.
const SECRET: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pass_word",
    "pwd",
    "db_pass",
    "user_pass",
    "secret",
    "secrets",
    "token",
    "api_key",
    "apikey",
    "access_key",
    "accesskey",
    "account_key",
    "secret_key",
    "secretkey",
    "private_key",
    "privatekey",
    "signing_key",
    "encryption_key",
    "master_key",
    "auth_key",
    "ssh_key",
    "authorization",
    "cookie",
    "cookies",
    "setcookie",
    "credential",
    "credentials",
    "session",
    "sessionid",
    "jwt",
    "bearer",
    "accesstoken",
    "authtoken",
    "refreshtoken",
    "idtoken",
    "sessiontoken",
    "clientsecret",
    "dbpassword",
    "userpassword",
    "connection_string",
    "card_number",
    "cvv",
    "cvc",
    "otp",
];

/// What makes a key secret in an assignment inside a text only: parameters of signed URLs. `signature` as an attribute is
/// more often a function's.
const SECRET_PARAMETERS: &[&str] = &["sig", "signature", "x_amz_credential"];

/// Last segments of keys that are not secret, whatever stands before.
const HARMLESS: &[&str] = &[
    "type",
    "types",
    "kind",
    "count",
    "counts",
    "length",
    "len",
    "size",
    "limit",
    "max",
    "min",
    "total",
    "name",
    "names",
    "status",
    "expiry",
    "expires",
    "expiration",
    "ttl",
    "age",
    "used",
    "usage",
    "budget",
    "index",
    "policy",
    "version",
    "algorithm",
    "scheme",
    "strength",
    "present",
    "valid",
    "required",
    "enabled",
    "efficiency",
    "ratio",
    "rate",
    "duration",
    "ms",
    "seconds",
];

/// Segments of a rule, in small letters.
type Run = Box<[Box<[u8]>]>;

/// The rules for keys.
#[derive(Clone)]
pub(super) struct Keys {
    denied: Vec<Run>,
    allowed: Vec<Run>,
    /// By the first letter of a run: which lengths its first segment may have, as bits. Ordinary keys end here.
    lengths: [u64; 26],
}

impl Keys {
    pub(super) fn built_in() -> Self {
        let mut keys = Self { denied: Vec::new(), allowed: Vec::new(), lengths: [0; 26] };
        SECRET.iter().for_each(|key| keys.deny(key));
        keys
    }

    pub(super) fn deny(&mut self, key: &str) {
        let run = run(key);
        if let Some(first) = run.first() {
            if let Some(lengths) = first.first().and_then(|letter| self.lengths.get_mut(ordinal(*letter))) {
                *lengths |= length_bit(first);
            }
            self.denied.push(run);
        }
    }

    pub(super) fn allow(&mut self, key: &str) {
        let run = run(key);
        if !run.is_empty() {
            self.allowed.push(run);
        }
    }

    /// Whether the values of this key are secret.
    pub(super) fn hides(&self, key: &str) -> bool {
        let mut rest = Segments(key.as_bytes());
        loop {
            let here = rest.clone();
            let Some(first) = rest.next() else { return false };
            let lengths = first.first().and_then(|letter| self.lengths.get(ordinal(*letter))).copied().unwrap_or(0);
            if lengths & length_bit(first) != 0 && self.denied.iter().any(|run| starts_with(here.clone(), run)) {
                return !self.is_harmless(key);
            }
        }
    }

    /// The same for the left side of an assignment inside a text.
    pub(super) fn hides_parameter(&self, key: &str) -> bool {
        self.hides(key)
            || SECRET_PARAMETERS.iter().any(|parameter| {
                let parameter = run(parameter);
                let skipped = Segments(key.as_bytes()).count().saturating_sub(parameter.len());
                let mut last = Segments(key.as_bytes());
                last.by_ref().take(skipped).for_each(|_| {});
                last.clone().count() == parameter.len() && starts_with(last, &parameter)
            })
    }

    #[cold]
    fn is_harmless(&self, key: &str) -> bool {
        let segments = Segments(key.as_bytes());
        let last = segments.clone().last().unwrap_or(&[]);
        HARMLESS.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(last))
            || self
                .allowed
                .iter()
                .any(|run| segments.clone().count() == run.len() && starts_with(segments.clone(), run))
    }
}

fn run(key: &str) -> Run {
    Segments(key.as_bytes()).map(|segment| segment.to_ascii_lowercase().into_boxed_slice()).collect()
}

fn starts_with(mut segments: Segments<'_>, run: &[Box<[u8]>]) -> bool {
    run.iter().all(|wanted| segments.next().is_some_and(|segment| segment.eq_ignore_ascii_case(wanted)))
}

fn ordinal(letter: u8) -> usize {
    usize::from(letter.to_ascii_lowercase().wrapping_sub(b'a'))
}

fn length_bit(segment: &[u8]) -> u64 {
    1 << segment.len().min(63)
}

/// The segments of a key.
#[derive(Clone)]
struct Segments<'a>(&'a [u8]);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(u8::is_ascii_alphabetic)?;
        let word = self.0.get(start..)?;
        let end = (1..word.len()).find(|at| ends_before(word, *at)).unwrap_or(word.len());
        let (segment, rest) = word.split_at_checked(end)?;
        self.0 = rest;
        Some(segment)
    }
}

/// Whether a segment ends before byte `at`, which is not the first.
fn ends_before(word: &[u8], at: usize) -> bool {
    let byte = |at: usize| word.get(at).copied().unwrap_or(0);
    let (before, here, after) = (byte(at - 1), byte(at), byte(at + 1));
    // `apiKey` ends before `K`; `APIKey` too, since a small letter follows.
    !here.is_ascii_alphabetic()
        || here.is_ascii_uppercase() && (before.is_ascii_lowercase() || after.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cut_at_separators_digits_and_humps() {
        let cut = |key: &'static str| -> Vec<String> {
            Segments(key.as_bytes()).map(|part| String::from_utf8(part.to_vec()).unwrap()).collect()
        };
        assert_eq!(cut("db.user-name_x/y"), ["db", "user", "name", "x", "y"]);
        assert_eq!(cut("apiKey"), ["api", "Key"]);
        assert_eq!(cut("APIKey"), ["API", "Key"]);
        assert_eq!(cut("AWSSecretKey2"), ["AWS", "Secret", "Key"]);
        assert_eq!(cut("PASSWORD"), ["PASSWORD"]);
        assert_eq!(cut("..42.."), [""; 0]);
        assert_eq!(cut("größe.password"), ["gr", "e", "password"]);
    }
}
