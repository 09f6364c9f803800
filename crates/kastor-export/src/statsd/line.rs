//! Lines: `name:value|type|@rate|#tags`, in the characters that both dialects can carry.

use std::fmt::Write as _;

use kastor::{Number, Value};

use crate::{neutral::neutral, redact::Redaction};

/// The most characters of a tag's value; Datadog cuts a tag there.
const MAX_TAG_CHARACTERS: usize = 200;

/// Which lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// With tags, distributions and rates for all.
    Dog,
    /// Without tags.
    Plain,
}

/// What a line says of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Distribution,
    Timing,
}

/// What a line is called: everything of it but the value. Two aggregates of one identity are one to the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    name: Box<str>,
    /// With the `|#` before it; empty in plain lines.
    tags: Box<str>,
    /// Plain servers read a signed gauge as a change.
    signs_change_gauges: bool,
}

impl Identity {
    /// `scope` becomes a tag of that name; in plain lines, tags become part of the name, key and value each.
    pub(super) fn new<'k, 'v>(
        dialect: Dialect,
        prefix: &str,
        name: &str,
        constant: &[(String, String)],
        scope: Option<&str>,
        labels: impl IntoIterator<Item = (&'k str, Value<'v>)>,
        redaction: &Redaction,
    ) -> Self {
        let mut full_name = String::new();
        if !prefix.is_empty() {
            push_name(&mut full_name, prefix, true);
            full_name.push('.');
        }
        push_name(&mut full_name, name, true);
        let mut tags = String::new();
        let mut tag = |key: &str, value: &str| match dialect {
            Dialect::Dog => push_tag(&mut tags, key, value),
            Dialect::Plain => {
                full_name.push('.');
                push_name(&mut full_name, key, false);
                full_name.push('.');
                push_name(&mut full_name, value, false);
            }
        };
        constant.iter().for_each(|(key, value)| tag(key, value));
        if let Some(scope) = scope {
            tag("scope", scope);
        }
        for (key, value) in labels {
            let key = if key == "scope" { "label_scope" } else { key };
            match (redaction.replacement(key, &value), value) {
                (Some(replacement), _) => tag(key, &replacement),
                (None, Value::Str(text)) => tag(key, text),
                (None, other) => tag(key, &other.to_string()),
            }
        }
        let signs_change_gauges = dialect == Dialect::Plain;
        Self { name: full_name.into(), tags: tags.into(), signs_change_gauges }
    }
}

/// A line that says a value, or that so many values were like it.
pub(super) fn of(identity: &Identity, value: f64, kind: Kind, times: u64) -> String {
    let Identity { name, tags, signs_change_gauges } = identity;
    let letters = match kind {
        Kind::Gauge => "g",
        Kind::Distribution => "d",
        Kind::Timing => "ms",
    };
    let mut line = String::with_capacity(name.len() + tags.len() + 40);
    if kind == Kind::Gauge && *signs_change_gauges && value < 0.0 {
        // A value below zero would be taken off the one before.
        let _ = writeln!(line, "{name}:0|g");
    }
    // Writing to a string cannot fail.
    let _ = write!(line, "{name}:{value}|{letters}");
    if times > 1 {
        let _ = write!(line, "|@{}", 1.0 / times as f64);
    }
    line.push_str(tags);
    line
}

/// A line that says by how much a sum grew, or shrank; none if it did not.
pub(super) fn increment(identity: &Identity, before: Number, now: Number) -> Option<String> {
    let increment = match (before, now) {
        (Number::Integer(before), Number::Integer(now)) => Number::Integer(now.saturating_sub(before)),
        (before, now) => Number::Float(now.as_f64() - before.as_f64()),
    };
    if matches!(increment, Number::Integer(0)) || increment.as_f64() == 0.0 || !increment.as_f64().is_finite() {
        return None;
    }
    Some(format!("{}:{increment}|c{}", identity.name, identity.tags))
}

/// Appends letters, digits, `_`, `-`, and dots where they part names; everything else becomes `_`.
fn push_name(name: &mut String, part: &str, keeps_dots: bool) {
    let start = name.len();
    name.extend(part.chars().map(|character| match character {
        '.' if keeps_dots => '.',
        '_' | '-' => character,
        other if other.is_ascii_alphanumeric() => other,
        _ => '_',
    }));
    if name.len() == start {
        name.push('_');
    }
}

fn push_tag(tags: &mut String, key: &str, value: &str) {
    tags.push_str(if tags.is_empty() { "|#" } else { "," });
    push_name(tags, key, true);
    if !value.is_empty() {
        tags.push(':');
        tags.extend(neutral(value).chars().take(MAX_TAG_CHARACTERS).map(|character| match character {
            ',' | '|' | '\n' | '\t' => '_',
            other => other,
        }));
    }
}
