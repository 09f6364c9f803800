//! W3C Trace Context, Level 2: the `traceparent` and `tracestate` headers, as text in and text out.
//!
//! ```text
//! traceparent   00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//!               │  trace id (16 bytes)              parent id (8)    └ flags: 1 sampled, 2 random trace id
//!               └ version
//! tracestate    rojo=00f067aa0ba902b7,congo=t61rcWkgMzE        up to 32 members, the newest first
//! ```
//!
//! Everything here is pure, linear in its input and bounded in what it keeps. White space (space and tab) around a header
//! and around a member is no part of it. A bad `tracestate` costs the state alone; a bad `traceparent` costs both.

use std::fmt;

use crate::{error::Error, escape::escaped, getters::getters};

getters! {
    /// The `traceparent` header: which trace, and which scope in it is the parent. Neither id is zero.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct TraceParent {
        /// The trace.
        trace_id: u128,
        /// The scope that the caller had open.
        parent_id: u64,
        /// [`SAMPLED`](Self::SAMPLED) and [`RANDOM`](Self::RANDOM), as far as they are set; other bits are not kept.
        flags: u8,
    }
}

impl TraceParent {
    /// Flag: the caller may have recorded the trace.
    pub const SAMPLED: u8 = 1;
    /// Flag: the last seven bytes of the trace id are random.
    pub const RANDOM: u8 = 2;
    /// Characters of version 00, and the least of any later one.
    const CHARACTERS: usize = 55;

    /// The parent with these ids; none if one of them is zero.
    pub fn new(trace_id: u128, parent_id: u64, is_sampled: bool) -> Option<Self> {
        let flags = if is_sampled { Self::SAMPLED } else { 0 };
        (trace_id != 0 && parent_id != 0).then_some(Self { trace_id, parent_id, flags })
    }

    /// The same parent, with the flag [`RANDOM`](Self::RANDOM) as said.
    pub fn with_random(self, is_random: bool) -> Self {
        let flags = self.flags & !Self::RANDOM | if is_random { Self::RANDOM } else { 0 };
        Self { flags, ..self }
    }

    /// Reads a header of version 00, or what a later version has in common with it.
    ///
    /// # Errors
    /// If a field is missing, is not lower-case hex, or is all zeros; if the version is `ff`; if version 00 goes on after
    /// the flags, or a later version goes on with anything but `-`. The trace then starts anew.
    pub fn parse(header: &str) -> Result<Self, Error> {
        let trimmed = header.trim_end_matches(OWS);
        let start = trimmed.len() - trimmed.trim_start_matches(OWS).len();
        let version = hex(trimmed, start, 2, "version")?;
        dash(trimmed, start + 2)?;
        if version == 0xff {
            return Err(invalid("traceparent: version ff is forbidden; send version 00"));
        }
        let trace_id = hex(trimmed, start + 3, 32, "trace id")?;
        dash(trimmed, start + 35)?;
        let parent_id = hex(trimmed, start + 36, 16, "parent id")? as u64;
        dash(trimmed, start + 52)?;
        let flags = hex(trimmed, start + 53, 2, "flags")? as u8 & (Self::SAMPLED | Self::RANDOM);
        if trace_id == 0 || parent_id == 0 {
            let (what, at) = if trace_id == 0 { ("trace id", start + 4) } else { ("parent id", start + 37) };
            return Err(invalid(format!("traceparent: the {what} at character {at} is all zeros; send the real one")));
        }
        let characters = trimmed.len() - start;
        if version == 0 && characters != Self::CHARACTERS {
            let too_many = characters - Self::CHARACTERS;
            return Err(invalid(format!(
                "traceparent: {too_many} more bytes after the flags; version 00 ends at character {}",
                start + Self::CHARACTERS
            )));
        }
        if characters > Self::CHARACTERS {
            dash(trimmed, start + Self::CHARACTERS)?;
        }
        Ok(Self { trace_id, parent_id, flags })
    }

    /// Reads both headers as they came with one request; several `tracestate` lines are one list, in order.
    ///
    /// A `tracestate` that does not follow its format is dropped whole and leaves the parent as it is.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); the state is not looked at then.
    pub fn parse_with_state<'a>(
        traceparent: &str,
        tracestate: impl IntoIterator<Item = &'a str>,
    ) -> Result<(Self, TraceState), Error> {
        let parent = Self::parse(traceparent)?;
        Ok((parent, TraceState::parse_lines(tracestate).unwrap_or_default()))
    }

    /// Whether whoever made the trace id says that its last seven bytes are random.
    pub fn is_random(&self) -> bool {
        self.flags & Self::RANDOM != 0
    }

    /// Whether the caller may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }
}

impl fmt::Display for TraceParent {
    /// The header, in version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

/// The `tracestate` header: what each tracing system on the way noted for itself, the newest first.
///
/// At most 32 members, each a key and a value of at most 256 characters, so at most 16.4 kB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TraceState {
    /// `key=value` joined with commas, valid, without white space around members.
    text: String,
}

impl TraceState {
    /// Most members of a list.
    pub const MAX_MEMBERS: usize = 32;
    /// Bytes that are always handed on if they are there.
    pub const MIN_HEADER_BYTES: usize = 512;

    /// Reads a header. Empty members are left out; an empty header is an empty state.
    ///
    /// # Errors
    /// If a key or a value does not follow its format, if a key is there twice, or if there are more than 32 members:
    /// then nothing of it is usable.
    pub fn parse(header: &str) -> Result<Self, Error> {
        Self::parse_lines([header])
    }

    /// Reads several headers of this name as one list, in their order.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), over all lines together.
    pub fn parse_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut state = Self::default();
        for (line, text) in lines.into_iter().enumerate() {
            let members = text.split(',').map(|member| member.trim_matches(OWS));
            for member in members.filter(|member| !member.is_empty()) {
                state.push(member).map_err(|why| {
                    let (at, line) = (member.as_ptr().addr() - text.as_ptr().addr() + 1, line + 1);
                    invalid(format!("tracestate: the member at character {at} of line {line} {why}"))
                })?;
            }
        }
        Ok(state)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// Keys and values, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.split(',').filter_map(|member| member.split_once('='))
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is nothing to hand on.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Puts a member in front, in place of the one with the same key; a 33rd member falls off the end.
    ///
    /// # Errors
    /// If the key or the value does not follow its format; the state is as it was then.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let member = format!("{key}={value}");
        check(&member).map_err(|why| invalid(format!("tracestate: the new member {why}")))?;
        let others = self.text.split(',').filter(|other| other.split_once('=').is_some_and(|(known, _)| known != key));
        let members: Vec<&str> = std::iter::once(member.as_str()).chain(others).take(Self::MAX_MEMBERS).collect();
        self.text = members.join(",");
        Ok(())
    }

    /// The header in at most `max_bytes`, or in 512 if that is less. Whole members are left out until it fits: those of
    /// more than 128 characters first, then the others, both from the end.
    pub fn to_header(&self, max_bytes: usize) -> String {
        let max_bytes = max_bytes.max(Self::MIN_HEADER_BYTES);
        let mut members: Vec<Option<&str>> = self.text.split(',').map(Some).collect();
        let mut bytes = self.text.len();
        for longer_than in [128, 0] {
            for slot in members.iter_mut().rev() {
                if slot.is_some_and(|member| bytes > max_bytes && member.len() > longer_than) {
                    bytes = bytes.saturating_sub(slot.take().map_or(0, str::len) + 1);
                }
            }
        }
        members.into_iter().flatten().collect::<Vec<_>>().join(",")
    }

    /// Appends one member; the error says what is wrong with it.
    fn push(&mut self, member: &str) -> Result<(), &'static str> {
        let key = check(member)?;
        if self.get(key).is_some() {
            return Err("has the key of another one; a system keeps one member, moved to the front");
        }
        if self.len() >= Self::MAX_MEMBERS {
            return Err("is one too many; leave out the oldest beyond 32");
        }
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(member);
        Ok(())
    }
}

impl fmt::Display for TraceState {
    /// The whole header; [`to_header`](TraceState::to_header) limits its size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Optional white space around headers and members.
const OWS: [char; 2] = [' ', '\t'];

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::invalid_input(message)
}

/// The lower-case hex digits of a field, as a number.
fn hex(text: &str, at: usize, digits: usize, what: &str) -> Result<u128, Error> {
    (at..at + digits).try_fold(0, |number, at| match text.as_bytes().get(at) {
        Some(digit @ b'0'..=b'9') => Ok(number << 4 | u128::from(digit - b'0')),
        Some(digit @ b'a'..=b'f') => Ok(number << 4 | u128::from(digit - b'a' + 10)),
        _ => {
            let found = found(text, at);
            Err(invalid(format!("traceparent: {found} in the {what}; send {digits} lower-case hex digits there")))
        }
    })
}

fn dash(text: &str, at: usize) -> Result<(), Error> {
    match text.as_bytes().get(at) {
        Some(b'-') => Ok(()),
        _ => Err(invalid(format!("traceparent: {} where a '-' belongs", found(text, at)))),
    }
}

/// What stands at a place up to which everything was ASCII, with the place.
fn found(text: &str, at: usize) -> String {
    match text.get(at..).and_then(|rest| rest.chars().next()) {
        Some(character) => format!("'{}' at character {}", escaped(character.encode_utf8(&mut [0; 4])), at + 1),
        None => format!("the header ends after character {at},"),
    }
}

/// The key of a valid member, or what is wrong with it.
fn check(member: &str) -> Result<&str, &'static str> {
    let (key, value) = member.split_once('=').ok_or("has no '='; write key=value")?;
    if !is_key(key) {
        return Err(
            "has a key out of format; write 1 to 256 of a-z, 0-9, '_', '-', '*', '/', a letter or digit first, \
            or two such parts tenant@system of at most 241 and 14 characters, the second with a letter first",
        );
    }
    if !is_value(value) {
        return Err("has a value out of format; write 1 to 256 printable ASCII characters except ',' and '=', \
            no space at the end");
    }
    Ok(key)
}

/// The formats that the working group's own test suite holds up: one part, or `tenant@system`.
fn is_key(key: &str) -> bool {
    let is_part = |part: &str, max: usize, digit_first: bool| {
        let first = part.as_bytes().first();
        (1..=max).contains(&part.len())
            && first.is_some_and(|first| first.is_ascii_lowercase() || digit_first && first.is_ascii_digit())
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
    };
    match key.split_once('@') {
        Some((tenant, system)) => is_part(tenant, 241, true) && is_part(system, 14, false),
        None => is_part(key, 256, true),
    }
}

fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && !value.ends_with(' ')
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~' if byte != b',' && byte != b'='))
}
