//! The two texts: Prometheus's classic one (0.0.4), and OpenMetrics 1.0.0.
//!
//! They differ in the name of a counter's family, in what is escaped in help texts, and in that OpenMetrics has units,
//! exemplars and an end.

use std::io::Write as _;

use kastor::{Exemplar, Number};

use super::family::{Distribution, Family, Kind, Labels, NS, SampleValue};

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Classic,
    OpenMetrics,
}

/// Appends all families.
pub(super) fn encode(families: &[Family<'_>], dialect: Dialect, out: &mut Vec<u8>) {
    let mut labels = Vec::with_capacity(256);
    for family in families {
        head(family, dialect, out);
        for sample in &family.samples {
            labels.clear();
            push_labels(&sample.labels, &mut labels);
            let ending = if family.kind == Kind::Counter { "_total" } else { "" };
            match &sample.value {
                SampleValue::Number(number) => {
                    push_sample(family, ending, &labels, out);
                    push_number(*number, out);
                    out.push(b'\n');
                }
                SampleValue::Seconds(ns) => {
                    push_sample(family, ending, &labels, out);
                    push_seconds(*ns, out);
                    out.push(b'\n');
                }
                SampleValue::Distribution(distribution) => {
                    push_distribution(family, distribution, &labels, dialect, out);
                }
            }
        }
    }
    if dialect == Dialect::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
}

fn head(family: &Family<'_>, dialect: Dialect, out: &mut Vec<u8>) {
    let is_classic = dialect == Dialect::Classic;
    let ending = if is_classic && family.kind == Kind::Counter { "_total" } else { "" };
    for (what, text) in [("HELP", family.help.as_ref()), ("TYPE", family.kind.as_str()), ("UNIT", &family.unit)] {
        if what == "UNIT" && (is_classic || text.is_empty()) {
            continue;
        }
        extend(out, &["# ", what, " ", &family.name, ending, " "]);
        push_escaped(text, !is_classic, out);
        out.push(b'\n');
    }
}

/// `name{labels} `.
fn push_sample(family: &Family<'_>, ending: &str, labels: &[u8], out: &mut Vec<u8>) {
    extend(out, &[&family.name, ending]);
    if !labels.is_empty() {
        out.push(b'{');
        out.extend_from_slice(labels);
        out.push(b'}');
    }
    out.push(b' ');
}

fn push_distribution(
    family: &Family<'_>,
    distribution: &Distribution<'_>,
    labels: &[u8],
    dialect: Dialect,
    out: &mut Vec<u8>,
) {
    let bucket = |out: &mut Vec<u8>| {
        extend(out, &[&family.name, "_bucket{"]);
        out.extend_from_slice(labels);
        if !labels.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"le=\"");
    };
    for (bound, has_exemplar, count) in distribution.octaves() {
        bucket(out);
        push_bound(bound, out);
        out.extend_from_slice(b"\"} ");
        push_unsigned(u128::from(count), out);
        if let (true, Dialect::OpenMetrics, Some(exemplar)) = (has_exemplar, dialect, &distribution.exemplar) {
            push_exemplar(exemplar, distribution.is_duration, out);
        }
        out.push(b'\n');
    }
    bucket(out);
    out.extend_from_slice(b"+Inf\"} ");
    push_unsigned(u128::from(distribution.count), out);
    out.push(b'\n');
    push_sample(family, "_count", labels, out);
    push_unsigned(u128::from(distribution.count), out);
    out.push(b'\n');
    // OpenMetrics wants no sum that can fall.
    if dialect == Dialect::Classic || distribution.histogram.min().is_none_or(|min| min >= 0.0) {
        push_sample(family, "_sum", labels, out);
        match distribution.is_duration {
            true => push_seconds(distribution.total_ns, out),
            false => push_float(distribution.histogram.sum(), out),
        }
        out.push(b'\n');
    }
}

/// ` # {ids} value time`.
fn push_exemplar(exemplar: &Exemplar, is_duration: bool, out: &mut Vec<u8>) {
    let Exemplar { value, unix_ns, trace_id, span_id } = *exemplar;
    // Writing to a vector cannot fail.
    let _ = write!(out, " # {{span_id=\"{span_id:016x}\",trace_id=\"{trace_id:032x}\"}} ");
    push_float(if is_duration { value / NS } else { value }, out);
    let _ = write!(out, " {}.{:03}", unix_ns / 1_000_000_000, unix_ns / 1_000_000 % 1_000);
}

/// `name="value",…`.
fn push_labels(labels: &Labels<'_>, out: &mut Vec<u8>) {
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        extend(out, &[name, "=\""]);
        push_escaped(value, true, out);
        out.push(b'"');
    }
}

/// Escapes backslashes and line feeds, and quotes where a text stands in quotes.
fn push_escaped(text: &str, quotes: bool, out: &mut Vec<u8>) {
    let is_special = |byte: u8| byte == b'\\' || byte == b'\n' || quotes && byte == b'"';
    let mut rest = text.as_bytes();
    while let Some((plain, special, behind)) = rest.iter().position(|byte| is_special(*byte)).and_then(|at| {
        let (plain, tail) = rest.split_at_checked(at)?;
        let (special, behind) = tail.split_first()?;
        Some((plain, *special, behind))
    }) {
        out.extend_from_slice(plain);
        out.push(b'\\');
        out.push(if special == b'\n' { b'n' } else { special });
        rest = behind;
    }
    out.extend_from_slice(rest);
}

fn push_number(number: Number, out: &mut Vec<u8>) {
    match number {
        Number::Integer(integer) => {
            if integer < 0 {
                out.push(b'-');
            }
            push_unsigned(integer.unsigned_abs(), out);
        }
        Number::Float(float) => push_float(float, out),
    }
}

/// Shortest text that reads back as the same number.
fn push_float(float: f64, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = match float {
        float if float.is_nan() => out.write_all(b"NaN"),
        f64::INFINITY => out.write_all(b"+Inf"),
        f64::NEG_INFINITY => out.write_all(b"-Inf"),
        float => write!(out, "{float:?}"),
    };
}

/// A bucket's bound, as Go and so Prometheus itself writes it: exponents have two digits. A bound is a label, so its
/// text matters.
fn push_bound(bound: f64, out: &mut Vec<u8>) {
    let start = out.len();
    push_float(bound, out);
    let Some(exponent) = out.get(start..).and_then(|text| text.iter().position(|byte| *byte == b'e')) else { return };
    let mut digits = start + exponent + 1;
    if out.get(digits) == Some(&b'-') {
        digits += 1;
    } else {
        out.insert(digits, b'+');
        digits += 1;
    }
    if out.len() - digits == 1 {
        out.insert(digits, b'0');
    }
}

/// Nanoseconds as seconds, exactly.
fn push_seconds(ns: u64, out: &mut Vec<u8>) {
    push_unsigned(u128::from(ns / 1_000_000_000), out);
    let mut fraction = ns % 1_000_000_000;
    if fraction > 0 {
        let mut digits = [b'0'; 9];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
        out.push(b'.');
        let end = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        out.extend_from_slice(digits.get(..end).unwrap_or(&digits));
    }
}

fn push_unsigned(number: u128, out: &mut Vec<u8>) {
    let Ok(mut number) = u64::try_from(number) else {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{number}");
        return;
    };
    let mut digits = [0; 20];
    let mut start = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or(&[]));
}

fn extend(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_exact() {
        for (ns, text) in [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (u64::MAX, "18446744073.709551615")] {
            assert_eq!(written(|out| push_seconds(ns, out)), text);
        }
        for integer in [0, 7, -7, i128::from(u64::MAX), i128::from(u64::MAX) + 5, i128::MIN, i128::MAX] {
            assert_eq!(written(|out| push_number(Number::Integer(integer), out)), integer.to_string());
        }
        for (bound, text) in [
            (1.024e-6, "1.024e-06"),
            (1.0, "1.0"),
            (0.5, "0.5"),
            (2_f64.powi(70), "1.1805916207174113e+21"),
            (2_f64.powi(-400), "3.8725919148493183e-121"),
        ] {
            assert_eq!(written(|out| push_bound(bound, out)), text);
        }
    }
}
