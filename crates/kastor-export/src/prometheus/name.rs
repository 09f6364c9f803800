//! Names as Prometheus has them: `[a-zA-Z_][a-zA-Z0-9_]*`, the unit at the end in full words.

use std::borrow::Cow;

/// A name for a metric or label: each character that may not be in one becomes `_`; a leading digit gets one before it.
/// Colons are left to recording rules, and so become `_` too.
pub(super) fn sanitised(name: &str) -> Cow<'_, str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins_well = name.as_bytes().first().is_some_and(|first| !first.is_ascii_digit());
    if begins_well && name.bytes().all(is_allowed) {
        return Cow::Borrowed(name);
    }
    let mut safe = String::with_capacity(name.len() + 1);
    if !begins_well {
        safe.push('_');
    }
    safe.extend(name.chars().map(|character| {
        let is_fine = character.is_ascii() && is_allowed(character as u8);
        if is_fine { character } else { '_' }
    }));
    Cow::Owned(safe)
}

/// A unit in full words, as OpenTelemetry's rules for Prometheus have it: `ms` is `milliseconds`, `By/s` is
/// `bytes_per_second`, annotations in braces are left out. Empty if nothing is left; `1` is a ratio for gauges alone.
pub(super) fn unit(unit: &str, is_gauge: bool) -> String {
    let bare = without_annotations(unit);
    let (counted, per) = match bare.split_once('/') {
        Some((counted, per)) => (counted, Some(per)),
        None => (bare.as_str(), None),
    };
    if counted == "1" && per.is_none() {
        return if is_gauge { "ratio".to_owned() } else { String::new() };
    }
    let mut words = word(counted).into_owned();
    if let Some(per) = per.filter(|per| !per.is_empty()) {
        if !words.is_empty() {
            words.push('_');
        }
        words.push_str("per_");
        words.push_str(singular(&word(per)));
    }
    let safe = sanitised(&words);
    if words.is_empty() { String::new() } else { safe.trim_matches('_').to_owned() }
}

/// `name` with a suffix behind a `_`, unless it ends so already.
pub(super) fn with_suffix(mut name: String, suffix: &str) -> String {
    let has_it = name.strip_suffix(suffix).is_some_and(|before| before.is_empty() || before.ends_with('_'));
    if !suffix.is_empty() && !has_it {
        name.push('_');
        name.push_str(suffix);
    }
    name
}

/// A short text that tells apart names which became the same.
pub(super) fn fingerprint(name: &str) -> String {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

fn without_annotations(unit: &str) -> String {
    let mut depth = 0_u32;
    unit.chars()
        .filter(|character| {
            let is_inside = depth > 0;
            match character {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => return !is_inside,
            }
            false
        })
        .collect::<String>()
        .trim()
        .to_owned()
}

fn word(unit: &str) -> Cow<'_, str> {
    Cow::Borrowed(match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" | "µs" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "KBy" | "kBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        "1" => "",
        other => other,
    })
}

fn singular(word: &str) -> &str {
    match word {
        "days" | "hours" | "minutes" | "seconds" | "milliseconds" | "microseconds" | "nanoseconds" | "bytes" => {
            word.strip_suffix('s').unwrap_or(word)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_prometheus_allows() {
        for (name, safe) in [
            ("requests", "requests"),
            ("api.requests-2xx", "api_requests_2xx"),
            ("2fast", "_2fast"),
            ("größe", "gr__e"),
            ("", "_"),
            ("a:b", "a_b"),
            ("__x", "__x"),
        ] {
            assert_eq!(sanitised(name), safe);
        }
    }

    #[test]
    fn units_become_words() {
        for (short, words) in [
            ("ms", "milliseconds"),
            ("s", "seconds"),
            ("By", "bytes"),
            ("By/s", "bytes_per_second"),
            ("{request}/s", "per_second"),
            ("{packet}", ""),
            ("1", ""),
            ("%", "percent"),
            ("m/s", "meters_per_second"),
            ("m/min", "meters_per_minute"),
            ("widgets", "widgets"),
            ("we ird!", "we_ird"),
            ("", ""),
        ] {
            assert_eq!(unit(short, false), words, "{short}");
        }
        assert_eq!(unit("1", true), "ratio");
    }

    #[test]
    fn a_suffix_is_given_once() {
        assert_eq!(with_suffix("latency".into(), "seconds"), "latency_seconds");
        assert_eq!(with_suffix("latency_seconds".into(), "seconds"), "latency_seconds");
        assert_eq!(with_suffix("milliseconds".into(), "seconds"), "milliseconds_seconds");
        assert_eq!(with_suffix("seconds".into(), "seconds"), "seconds");
        assert_eq!(with_suffix("x".into(), ""), "x");
    }
}
