//! `--since` and `--until`: a moment as people write it.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// A moment in Unix nanoseconds, from one of
///
/// - `2026-11-20T10:19:35Z`, `2026-11-20 10:19:35+01:00`: a moment with its offset,
/// - `2026-11-20T10:19`, `2026-11-20`: local time,
/// - `10:19`, `10:19:35.5`: today, local time,
/// - `15m`, `1h 30m`, `2d ago`: so long before now.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let now = Zoned::now();
    let moment = parse_at(text.trim(), &now).ok_or_else(|| {
        "no moment: try 2026-11-20T10:19:35Z, '2026-11-20 10:19', 10:19, or 15m for fifteen minutes ago".to_owned()
    })?;
    u64::try_from(moment.as_nanosecond()).map_err(|_| "a moment before 1970".to_owned())
}

fn parse_at(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment);
    }
    let zone: TimeZone = now.time_zone().clone();
    if let Ok(local) = text.parse::<DateTime>() {
        return zone.to_timestamp(local).ok();
    }
    if let Ok(time) = text.parse::<Time>() {
        return zone.to_timestamp(now.date().to_datetime(time)).ok();
    }
    let text = text.strip_suffix("ago").unwrap_or(text).trim();
    // Days of 24 hours: "two days ago" means the same distance whatever the clocks did.
    let ago = match text.strip_suffix('d').map(|days| days.trim().parse::<i64>()) {
        Some(Ok(days)) => SignedDuration::try_from_hours(days.checked_mul(24)?)?,
        _ => text.parse::<SignedDuration>().ok()?,
    };
    now.timestamp().checked_sub(ago.abs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let now: Zoned = "2026-11-20T12:00:00+01:00[+01:00]".parse().unwrap();
        for (text, expected) in [
            ("2026-11-20T10:19:35Z", "2026-11-20T10:19:35Z"),
            ("2026-11-20 10:19:35+02:00", "2026-11-20T08:19:35Z"),
            ("2026-11-20T10:19", "2026-11-20T09:19:00Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("10:19", "2026-11-20T09:19:00Z"),
            ("15m", "2026-11-20T10:45:00Z"),
            ("1h 30m ago", "2026-11-20T09:30:00Z"),
            ("2d ago", "2026-11-18T11:00:00Z"),
        ] {
            assert_eq!(parse_at(text, &now), Some(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "yesterday", "25:00", "-", "99999999999999999999d"] {
            assert_eq!(parse_at(text, &now), None, "{text}");
        }
    }
}
