//! Numbers as a person reads them: three digits and a unit.

/// A duration: `87 ns`, `1.23 µs`, `45.6 ms`, `7.89 s`.
pub(crate) fn duration(ns: u64) -> String {
    scaled(ns as f64, 1000.0, &["ns", "µs", "ms", "s"])
}

/// A number of bytes: `512 B`, `1.50 KiB`, `16.0 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A measured value without a unit of its own: whole numbers as such, others with three significant digits.
pub(crate) fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        format!("{value:.decimals$}", decimals = decimals(value))
    }
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut steps = 0;
    // 999.5 would be shown as 1000.
    while value >= step - 0.5 && steps + 1 < units.len() {
        value /= step;
        steps += 1;
    }
    let decimals = if steps == 0 { 0 } else { decimals(value) };
    format!("{value:.decimals$} {unit}", unit = units[steps])
}

fn decimals(value: f64) -> usize {
    match value.abs() {
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_the_right_unit() {
        let texts = [0, 999, 1000, 999_499, 999_500, 12_345_678, 3_600_000_000_000].map(duration);
        assert_eq!(texts, ["0 ns", "999 ns", "1.00 µs", "999 µs", "1.00 ms", "12.3 ms", "3600 s"]);
        assert_eq!([512, 1536, 16 << 20].map(bytes), ["512 B", "1.50 KiB", "16.0 MiB"]);
        assert_eq!([3.0, 2.5, -17.25].map(number), ["3", "2.50", "-17.2"]);
    }
}
