//! A strict reader of both texts, written from their specifications and from nothing else.

use std::collections::BTreeSet;

#[derive(Debug, Default, Clone)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: String,
    pub unit: String,
    pub samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: String,
    pub exemplar: Option<Exemplar>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub labels: Vec<(String, String)>,
    pub value: f64,
    pub seconds: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// All families. Panics with the line at fault if the text breaks a rule.
pub fn parse(text: &str, is_open: bool) -> Vec<Family> {
    assert!(text.is_empty() || text.ends_with('\n'), "the last line ends too");
    let mut families: Vec<Family> = Vec::new();
    let mut names = BTreeSet::new();
    let mut identities = BTreeSet::new();
    let mut lines = text.split_terminator('\n').peekable();
    while let Some(line) = lines.next() {
        assert!(!line.contains('\r') && !line.is_empty(), "{line:?}");
        if is_open && line == "# EOF" {
            assert!(lines.peek().is_none(), "nothing follows the end");
            families.iter().for_each(|family| check(family, is_open));
            return families;
        }
        if let Some(rest) = line.strip_prefix("# ") {
            let (what, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            let (name, value) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(name), "{line}");
            if families.last().is_none_or(|family| family.name != name) {
                assert!(names.insert(name.to_owned()), "a second family {name}");
                families.push(Family { name: name.to_owned(), ..Family::default() });
            }
            let family = families.last_mut().unwrap();
            assert!(family.samples.is_empty(), "metadata after samples: {line}");
            let place = match what {
                "HELP" => &mut family.help,
                "TYPE" => &mut family.kind,
                "UNIT" if is_open => &mut family.unit,
                _ => panic!("{line}"),
            };
            assert!(place.is_empty(), "twice: {line}");
            *place = if what == "HELP" { unescaped(value, is_open) } else { value.to_owned() };
            continue;
        }
        let sample = sample(line, is_open);
        let family = families.last_mut().unwrap_or_else(|| panic!("no family: {line}"));
        let suffix = sample.name.strip_prefix(&family.name).unwrap_or_else(|| panic!("not of {}: {line}", family.name));
        let fits = match family.kind.as_str() {
            "counter" if is_open => suffix == "_total",
            "counter" | "gauge" => suffix.is_empty(),
            "histogram" => ["_bucket", "_count", "_sum"].contains(&suffix),
            kind => panic!("{kind}: {line}"),
        };
        assert!(fits, "{line}");
        let mut identity = sample.labels.clone();
        identity.sort();
        assert!(identities.insert((sample.name.clone(), identity)), "twice: {line}");
        assert!(suffix.is_empty() || !names.contains(&sample.name), "a family of this name too: {line}");
        family.samples.push(sample);
    }
    assert!(!is_open, "no end");
    families.iter().for_each(|family| check(family, is_open));
    families
}

fn check(family: &Family, is_open: bool) {
    assert!(!family.kind.is_empty() && !family.samples.is_empty(), "{}", family.name);
    assert!(family.unit.is_empty() || family.name.ends_with(&format!("_{}", family.unit)), "{}", family.name);
    if family.kind == "counter" && !is_open {
        assert!(family.name.ends_with("_total"), "{}", family.name);
    }
    if family.kind != "histogram" {
        return;
    }
    // The lines of one set of labels stand together: buckets upwards, then count and sum.
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    for sample in &family.samples {
        match sample.name.strip_prefix(&family.name).unwrap() {
            "_bucket" => {
                let bound: f64 = sample.label("le").unwrap().parse().unwrap();
                let count: u64 = sample.value.parse().unwrap();
                if let Some((bound_before, count_before)) = buckets.last() {
                    if *bound_before == f64::INFINITY {
                        buckets.clear();
                    } else {
                        assert!(bound > *bound_before && count >= *count_before, "{sample:?}");
                    }
                }
                buckets.push((bound, count));
            }
            "_count" => {
                let (bound, count) = *buckets.last().unwrap();
                assert_eq!((bound, count), (f64::INFINITY, sample.value.parse().unwrap()), "{sample:?}");
            }
            _ => {}
        }
    }
}

fn sample(line: &str, is_open: bool) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let (labels, rest) = labels(rest, line);
    let rest = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    let (value, exemplar) = match rest.split_once(" # ") {
        Some((value, exemplar)) if is_open => (value, Some(exemplar)),
        _ => (rest, None),
    };
    number(value);
    let exemplar = exemplar.map(|text| {
        let (labels, rest) = self::labels(text, line);
        assert!(labels.iter().map(|(key, value)| key.chars().count() + value.chars().count()).sum::<usize>() <= 128);
        let numbers: Vec<f64> = rest.strip_prefix(' ').unwrap().split(' ').map(number).collect();
        assert_eq!(numbers.len(), 2, "{line}");
        Exemplar { labels, value: numbers[0], seconds: numbers[1] }
    });
    if let (Some(exemplar), Some(bound)) = (&exemplar, labels.iter().find(|(key, _)| key == "le")) {
        assert!(exemplar.value <= number(&bound.1), "an exemplar outside of its bucket: {line}");
    }
    Sample { name: name.to_owned(), labels, value: value.to_owned(), exemplar }
}

fn labels<'t>(text: &'t str, line: &str) -> (Vec<(String, String)>, &'t str) {
    let mut found: Vec<(String, String)> = Vec::new();
    let Some(mut rest) = text.strip_prefix('{') else { return (found, text) };
    loop {
        let (name, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(name) && !name.contains(':') && !found.iter().any(|(key, _)| key == name), "{line}");
        let mut end = None;
        let mut is_escaped = false;
        for (at, byte) in behind.bytes().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let end = end.unwrap_or_else(|| panic!("{line}"));
        found.push((name.to_owned(), unescaped(&behind[..end], true)));
        match behind[end + 1..].chars().next() {
            Some(',') => rest = &behind[end + 2..],
            Some('}') => return (found, &behind[end + 2..]),
            _ => panic!("{line}"),
        }
    }
}

fn unescaped(text: &str, quotes: bool) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('\\') => '\\',
                Some('"') if quotes => '"',
                other => panic!("an escape {other:?} in {text}"),
            },
            '"' if quotes => panic!("a bare quote in {text}"),
            other => other,
        });
    }
    plain
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        digits => {
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte)), "{text}");
            digits.parse().unwrap_or_else(|_| panic!("no number: {text}"))
        }
    }
}

fn is_name(name: &str) -> bool {
    let is = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    name.bytes().all(is) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}
