//! Secrets known by their shape: finds them in one pass over a text.
//!
//! Most bytes cost one look into a table. A byte that could begin a secret is looked at more closely, and every closer
//! look is bounded or consumes what it looked at, so the time is linear in the length.

use std::ops::Range;

use super::{REDACTED, keys::Keys};

/// Furthest look for the `@` of a URL whose password holds a `/`.
const MAX_USER_INFO_BYTES: usize = 512;
/// Longest left side of an assignment.
const MAX_KEY_BYTES: usize = 64;
/// Shortest word of small letters that can be a credential behind `Bearer` or `Basic`.
const MIN_CREDENTIAL_WORD_BYTES: usize = 16;

/// How the keys of well-known services begin, and how many more letters there are at least.
const PREFIXES: &[(&[u8], usize, Alphabet)] = &[
    (b"AKIA", 16, Alphabet::UpperAndDigits),
    (b"ASIA", 16, Alphabet::UpperAndDigits),
    (b"ABIA", 16, Alphabet::UpperAndDigits),
    (b"ACCA", 16, Alphabet::UpperAndDigits),
    (b"AIza", 30, Alphabet::Word),
    (b"AGE-SECRET-KEY-", 20, Alphabet::UpperAndDigits),
    (b"GOCSPX-", 20, Alphabet::Word),
    (b"SG.", 30, Alphabet::WordAndDots),
    (b"dop_v1_", 30, Alphabet::Word),
    (b"ghp_", 20, Alphabet::Word),
    (b"gho_", 20, Alphabet::Word),
    (b"ghu_", 20, Alphabet::Word),
    (b"ghs_", 20, Alphabet::WordAndDots),
    (b"ghr_", 20, Alphabet::Word),
    (b"github_pat_", 20, Alphabet::Word),
    (b"glpat-", 16, Alphabet::WordAndDots),
    (b"hf_", 30, Alphabet::Word),
    (b"hooks.slack.com/services/", 10, Alphabet::WordAndSlashes),
    (b"npm_", 30, Alphabet::Word),
    (b"pypi-", 40, Alphabet::Word),
    (b"rk_live_", 10, Alphabet::Word),
    (b"rk_test_", 10, Alphabet::Word),
    (b"shpat_", 20, Alphabet::Word),
    (b"sk-", 20, Alphabet::WordWithDigits),
    (b"sk_live_", 10, Alphabet::Word),
    (b"sk_test_", 10, Alphabet::Word),
    (b"whsec_", 16, Alphabet::Base64),
    (b"xapp-", 10, Alphabet::Word),
    (b"xoxa-", 10, Alphabet::Word),
    (b"xoxb-", 10, Alphabet::Word),
    (b"xoxe-", 10, Alphabet::Word),
    (b"xoxe.", 10, Alphabet::WordAndDots),
    (b"xoxp-", 10, Alphabet::Word),
    (b"xoxr-", 10, Alphabet::Word),
    (b"xoxs-", 10, Alphabet::Word),
    (b"ya29.", 20, Alphabet::WordAndDots),
];

/// What the rest of a key is made of.
#[derive(Clone, Copy, PartialEq)]
enum Alphabet {
    UpperAndDigits,
    /// Letters, digits, `_`, `-`.
    Word,
    /// The same, and at least one digit among them.
    WordWithDigits,
    WordAndDots,
    WordAndSlashes,
    Base64,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Alphabet::UpperAndDigits => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Alphabet::Word | Alphabet::WordWithDigits => is_key(byte) && byte != b'.',
            Alphabet::WordAndDots => is_key(byte),
            Alphabet::WordAndSlashes => byte.is_ascii_alphanumeric() || byte == b'/',
            Alphabet::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-'),
        }
    }
}

/// What a byte may begin.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Ordinary,
    /// The first letter of a known prefix, of a token or of a scheme.
    Word,
    Colon,
    Equals,
    Dash,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Ordinary; 256];
    let mut at = 0;
    while at < PREFIXES.len() {
        classes[PREFIXES[at].0[0] as usize] = Class::Word;
        at += 1;
    }
    // `eyJ…`, `Bearer`, `Basic`.
    classes[b'e' as usize] = Class::Word;
    classes[b'b' as usize] = Class::Word;
    classes[b'B' as usize] = Class::Word;
    classes[b':' as usize] = Class::Colon;
    classes[b'=' as usize] = Class::Equals;
    classes[b'-' as usize] = Class::Dash;
    classes
};

/// By the first letter of a known prefix: which bytes may be its second, as bits. Ordinary words end here.
const SECONDS: [u128; 256] = {
    let mut seconds = [0; 256];
    let mut at = 0;
    while at < PREFIXES.len() {
        let prefix = PREFIXES[at].0;
        // All of them are ASCII.
        seconds[prefix[0] as usize] |= 1 << prefix[1];
        at += 1;
    }
    seconds
};

/// The secrets in a text, in order, none overlapping another.
pub(super) struct Shapes<'a> {
    text: &'a [u8],
    keys: &'a Keys,
    /// Where to look next; nothing before it is secret any more.
    at: usize,
}

impl<'a> Shapes<'a> {
    pub(super) fn new(text: &'a [u8], keys: &'a Keys) -> Self {
        Self { text, keys, at: 0 }
    }

    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn from(&self, at: usize) -> &'a [u8] {
        self.text.get(at..).unwrap_or(&[])
    }

    /// The end of the run of bytes from `at` on that fulfil a condition.
    fn end_of(&self, at: usize, fits: impl Fn(u8) -> bool) -> usize {
        at + self.from(at).iter().take_while(|byte| fits(**byte)).count()
    }

    /// Whether a word that begins here may be a secret, by its first two letters.
    #[inline]
    fn may_begin(&self, at: usize) -> bool {
        let (first, second) = (self.byte(at), self.byte(at + 1));
        match first {
            b'e' => second == b'y',
            b'b' | b'B' => matches!(second, b'e' | b'E' | b'a' | b'A'),
            _ => second < 128 && SECONDS[usize::from(first)] >> second & 1 != 0,
        }
    }

    #[inline]
    fn secret_at(&self, at: usize, class: Class) -> Option<Range<usize>> {
        match class {
            Class::Ordinary => None,
            Class::Word if at > 0 && is_word(self.byte(at - 1)) => None,
            Class::Word if self.may_begin(at) => self.word(at),
            Class::Word => None,
            Class::Colon if self.from(at).starts_with(b"://") => self.user_info(at + 3),
            Class::Colon => self.member(at),
            Class::Equals => self.assignment(at),
            Class::Dash => self.private_key(at),
        }
    }

    /// A word that begins here.
    fn word(&self, at: usize) -> Option<Range<usize>> {
        let rest = self.from(at);
        match self.byte(at) {
            b'e' => self.web_token(at),
            b'b' | b'B' => ["bearer", "basic"].iter().find_map(|scheme| {
                let found = rest.get(..scheme.len())?;
                found.eq_ignore_ascii_case(scheme.as_bytes()).then(|| self.credential(at + scheme.len()))?
            }),
            _ => {
                PREFIXES.iter().filter(|(prefix, ..)| rest.starts_with(prefix)).find_map(|(prefix, least, alphabet)| {
                    let body = at + prefix.len();
                    let end = self.end_of(body, |byte| alphabet.has(byte));
                    let needs_digit = *alphabet == Alphabet::WordWithDigits;
                    let has_digit = || self.text.get(body..end).unwrap_or(&[]).iter().any(u8::is_ascii_digit);
                    (end - body >= *least && (!needs_digit || has_digit())).then_some(at..end)
                })
            }
        }
    }

    /// `eyJ….….…`: a JSON object in base64, a dot, and more.
    fn web_token(&self, at: usize) -> Option<Range<usize>> {
        if !self.from(at).starts_with(b"eyJ") {
            return None;
        }
        let end = self.end_of(at, is_key);
        let mut parts = self.text.get(at..end)?.split(|byte| *byte == b'.').map(<[u8]>::len);
        (parts.next()? >= 8 && parts.next()? >= 8).then_some(at..end)
    }

    /// What follows `Bearer` or `Basic`, unless it is an ordinary word.
    fn credential(&self, at: usize) -> Option<Range<usize>> {
        let start = self.end_of(at, |byte| byte == b' ');
        let mut end = self.end_of(start, is_credential);
        while end > start && self.byte(end - 1) == b'.' {
            end -= 1;
        }
        let credential = self.text.get(start..end)?;
        let is_prose = credential.len() < MIN_CREDENTIAL_WORD_BYTES
            && credential.iter().skip(1).all(u8::is_ascii_lowercase)
            && credential.first().is_none_or(u8::is_ascii_alphabetic);
        (start > at && !is_prose).then_some(start..end)
    }

    /// The user info of a URL whose authority begins here.
    fn user_info(&self, at: usize) -> Option<Range<usize>> {
        let end = self.end_of(at, |byte| !ends_url(byte) && !matches!(byte, b'/' | b'?' | b'#'));
        let last_at = |end: usize| Some(at + self.text.get(at..end)?.iter().rposition(|byte| *byte == b'@')?);
        let separator = last_at(end).or_else(|| {
            // A `/`, `?` or `#` that should have been escaped: what looks like a port is none.
            let colon = at + self.text.get(at..end)?.iter().position(|byte| *byte == b':')?;
            let is_port = self.text.get(colon + 1..end)?.iter().all(u8::is_ascii_digit);
            let far = self.end_of(at, |byte| !ends_url(byte)).min(at + MAX_USER_INFO_BYTES);
            if is_port { None } else { last_at(far) }
        })?;
        self.new_secret(at..separator)
    }

    /// `"password": "…"` in JSON and the like, `Authorization: …` as in a header.
    fn member(&self, colon: usize) -> Option<Range<usize>> {
        let mut key_end = colon;
        let is_quoted = matches!(self.byte(colon.checked_sub(1)?), b'"' | b'\'');
        if is_quoted {
            key_end -= 1;
            if key_end > 0 && self.byte(key_end - 1) == b'\\' {
                key_end -= 1;
            }
        }
        let key = self.key_before(key_end)?;
        let start = self.end_of(colon + 1, |byte| byte == b' ');
        if is_quoted {
            return if self.keys.hides_parameter(key) { self.new_secret(self.value(start)) } else { None };
        }
        let is = |names: &[&str]| names.iter().any(|name| key.eq_ignore_ascii_case(name));
        // "unexpected token: }" is no secret.
        if start == colon + 1 || is(&["token", "session", "secret", "credential"]) || !self.keys.hides(key) {
            return None;
        }
        if is(&["authorization", "proxy-authorization", "cookie", "set-cookie"]) {
            let end = self.end_of(start, |byte| !matches!(byte, b'\r' | b'\n' | b'"' | b'\''));
            return self.new_secret(start..end);
        }
        self.new_secret(self.value(start))
    }

    /// `password=…`, `?access_token=…&`, `AccountKey=…;`.
    fn assignment(&self, equals: usize) -> Option<Range<usize>> {
        let before = equals.checked_sub(1)?;
        if self.byte(equals + 1) == b'=' || matches!(self.byte(before), b'=' | b'!' | b'<' | b'>') {
            return None;
        }
        let key = self.key_before(if self.byte(before) == b' ' { before } else { equals })?;
        if !self.keys.hides_parameter(key) {
            return None;
        }
        let start = if self.byte(equals + 1) == b' ' { equals + 2 } else { equals + 1 };
        self.new_secret(self.value(start))
    }

    /// The value that begins here: a quoted text, or up to the next separator. A scheme takes its credential along.
    fn value(&self, start: usize) -> Range<usize> {
        let is_escaped = self.byte(start) == b'\\';
        let open = start + usize::from(is_escaped);
        if matches!(self.byte(open), b'"' | b'\'') {
            return open + 1..self.closing_quote(open, is_escaped);
        }
        let ends = |byte: u8| {
            byte.is_ascii_whitespace()
                || matches!(byte, b'&' | b';' | b',' | b'"' | b'\'' | b')' | b']' | b'}' | b'<' | b'>' | b'\\')
        };
        let end = self.end_of(start, |byte| !ends(byte));
        let word = self.text.get(start..end).unwrap_or(&[]);
        let is_scheme =
            ["bearer", "basic", "digest", "token"].iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()));
        if is_scheme && self.byte(end) == b' ' {
            return start..self.end_of(end + 1, |byte| !ends(byte));
        }
        start..end
    }

    /// Where the text ends that was opened by the quote at `open`; the end of everything if nothing closes it.
    fn closing_quote(&self, open: usize, is_escaped: bool) -> usize {
        let quote = self.byte(open);
        let mut at = open + 1;
        while at < self.text.len() {
            match self.byte(at) {
                b'\\' if is_escaped && self.byte(at + 1) == quote => return at,
                b'\\' => at += 1,
                byte if byte == quote => return at,
                _ => {}
            }
            at += 1;
        }
        self.text.len()
    }

    /// A private key in PEM, to its end, or to the end of what is left of it.
    fn private_key(&self, at: usize) -> Option<Range<usize>> {
        const BEGIN: &[u8] = b"-----BEGIN ";
        let rest = self.from(at).strip_prefix(BEGIN)?;
        let title = rest.get(..rest.len().min(64))?;
        position(title, b"PRIVATE KEY")?;
        let Some(end) = position(rest, b"-----END ") else { return Some(at..self.text.len()) };
        let tail = at + BEGIN.len() + end + b"-----END ".len();
        let dashes = position(self.from(tail), b"-----");
        Some(at..dashes.map_or(self.text.len(), |dashes| tail + dashes + 5))
    }

    /// The key that ends before `end`.
    fn key_before(&self, end: usize) -> Option<&'a str> {
        let before = self.text.get(end.saturating_sub(MAX_KEY_BYTES)..end)?;
        let length = before.iter().rev().take_while(|byte| is_key(**byte)).count();
        std::str::from_utf8(before.get(before.len() - length..)?).ok().filter(|key| !key.is_empty())
    }

    /// Something there is, and it was not replaced already.
    fn new_secret(&self, range: Range<usize>) -> Option<Range<usize>> {
        let secret = self.text.get(range.clone())?;
        (!secret.is_empty() && !self.from(range.start).starts_with(REDACTED.as_bytes())).then_some(range)
    }
}

impl Iterator for Shapes<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let is_unusual = |byte: &u8| CLASSES[usize::from(*byte)] != Class::Ordinary;
        while let Some(ordinary) = self.from(self.at).iter().position(is_unusual) {
            let at = self.at + ordinary;
            if let Some(secret) = self.secret_at(at, CLASSES[usize::from(self.byte(at))]) {
                self.at = secret.end.max(at + 1);
                return Some(secret);
            }
            self.at = at + 1;
        }
        self.at = self.text.len();
        None
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_key(byte: u8) -> bool {
    is_word(byte) || matches!(byte, b'.' | b'-')
}

fn is_credential(byte: u8) -> bool {
    is_key(byte) || matches!(byte, b'~' | b'+' | b'/' | b'=')
}

fn ends_url(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`')
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
