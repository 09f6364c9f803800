//! What an answer means, and how long to wait before the next attempt.
//!
//! The tables are OpenTelemetry's: over HTTP only 429, 502, 503 and 504 are worth another attempt; over gRPC
//! `CANCELLED`, `DEADLINE_EXCEEDED`, `ABORTED`, `OUT_OF_RANGE`, `UNAVAILABLE` and `DATA_LOSS`, and
//! `RESOURCE_EXHAUSTED` only if the server says when. Everything else is final. A failure of the network itself (refused,
//! reset, timed out, no such host) is worth another attempt.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The longest time that a server may ask for.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How often a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// The wait after the first failure; each further one is twice as long.
    pub initial: Duration,
    /// The longest wait that is chosen here; a server may ask for up to 10 minutes.
    pub longest: Duration,
    /// After so much time without success a request is dropped (`retry_exhausted`), and those after it get one attempt
    /// each until one succeeds. Nothing is dropped for this reason where there is a spool.
    pub give_up_after: Duration,
}

impl Default for Retry {
    /// 500 ms, 30 s, 5 min.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            give_up_after: Duration::from_secs(300),
        }
    }
}

/// Whether an HTTP status is worth another attempt.
pub(crate) fn is_http_retryable(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// Whether a gRPC code is worth another attempt; some only if the server said when.
#[cfg_attr(not(feature = "grpc"), allow(dead_code, reason = "one table for both transports"))]
#[cfg(any(test, feature = "grpc"))]
pub(crate) fn is_grpc_retryable(code: i32, has_retry_info: bool) -> bool {
    const CANCELLED: i32 = 1;
    const DEADLINE_EXCEEDED: i32 = 4;
    const RESOURCE_EXHAUSTED: i32 = 8;
    const ABORTED: i32 = 10;
    const OUT_OF_RANGE: i32 = 11;
    const UNAVAILABLE: i32 = 14;
    const DATA_LOSS: i32 = 15;
    match code {
        CANCELLED | DEADLINE_EXCEEDED | ABORTED | OUT_OF_RANGE | UNAVAILABLE | DATA_LOSS => true,
        RESOURCE_EXHAUSTED => has_retry_info,
        _ => false,
    }
}

/// The value of a `Retry-After` header: seconds, or a date in any of HTTP's three forms. None if it is neither. At most
/// ten minutes; a date in the past is zero.
pub(crate) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large to read is longer than the limit anyway.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
    }
    let at = parse_http_date(value, now)?;
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    let seconds = u64::try_from(at.saturating_sub(now)).unwrap_or(0);
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT` or
/// `Sun Nov  6 08:49:37 1994`.
fn parse_http_date(text: &str, now: SystemTime) -> Option<i64> {
    let words: Vec<&str> = text.split([' ', '-']).filter(|word| !word.is_empty()).collect();
    let (day, month, year, time) = match *words.as_slice() {
        [weekday, day, month, year, time, "GMT"] if weekday.ends_with(',') => (day, month, year, time),
        [_, month, day, time, year] => (day, month, year, time),
        _ => return None,
    };
    let day = number(day, 1..=31)?;
    let month = 1 + ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        .iter()
        .position(|name| *name == month)? as i64;
    let year = match year.len() {
        // Two digits: at most 50 years ahead, as HTTP asks.
        2 => {
            let this_year = 1970 + i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()? / 31_556_952;
            let year = this_year / 100 * 100 + number(year, 0..=99)?;
            if year > this_year + 50 { year - 100 } else { year }
        }
        4 => number(year, 1970..=9999)?,
        _ => return None,
    };
    let mut parts = time.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (hour, minute, second) = (number(hour, 0..=23)?, number(minute, 0..=59)?, number(second, 0..=60)?);
    Some(((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

fn number(text: &str, allowed: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let is_digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_digits && allowed.contains(number))
}

/// Days of the proleptic Gregorian calendar; years are counted from March, so that a leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Exponential backoff with jitter: between half of and the whole of a time that doubles with each failure.
#[derive(Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    failures: u32,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(retry: Retry) -> Self {
        // The hasher's keys are random, and differ between any two of them.
        Self { retry, failures: 0, random: RandomState::new().hash_one(0_u8) | 1 }
    }

    /// The wait after one more failure.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let longest = self.retry.initial.saturating_mul(1 << self.failures.min(20)).min(self.retry.longest);
        self.failures = self.failures.saturating_add(1);
        // Xorshift (Marsaglia, 2003): only that processes do not keep step matters.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let share = (self.random >> 11) as f64 / (1_u64 << 53) as f64;
        longest.mul_f64(0.5 + share / 2.0)
    }

    /// Something succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const THEN: u64 = 784_111_777;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn only_the_codes_of_the_table_are_tried_again() {
        let http: Vec<u16> = (100..600).filter(|status| is_http_retryable(*status)).collect();
        assert_eq!(http, [429, 502, 503, 504]);
        let grpc = |has_info| (0..=16).filter(|code| is_grpc_retryable(*code, has_info)).collect::<Vec<i32>>();
        assert_eq!(grpc(false), [1, 4, 10, 11, 14, 15]);
        assert_eq!(grpc(true), [1, 4, 8, 10, 11, 14, 15]);
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_in_all_three_forms_of_dates() {
        for (text, now, expected) in [
            ("0", THEN, Some(0)),
            (" 7 ", THEN, Some(7)),
            ("600", THEN, Some(600)),
            ("3600", THEN, Some(600)),
            ("99999999999999999999999", THEN, Some(600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", THEN - 5, Some(5)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", THEN - 5, Some(5)),
            ("Sun Nov  6 08:49:37 1994", THEN - 5, Some(5)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", THEN + 60, Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", THEN - 3600, Some(600)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800 - 9, Some(9)),
            ("-1", THEN, None),
            ("1.5", THEN, None),
            ("soon", THEN, None),
            ("", THEN, None),
            ("Sun, 06 Nov 1994 08:49:37 CET", THEN, None),
            ("Sun, 06 Nov 1994 25:49:37 GMT", THEN, None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", THEN, None),
        ] {
            assert_eq!(parse_retry_after(text, at(now)), expected.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread_over_half_of_it() {
        let retry = Retry {
            initial: Duration::from_millis(100),
            longest: Duration::from_secs(1),
            give_up_after: Duration::from_secs(9),
        };
        let mut backoff = Backoff::new(retry);
        for expected_ms in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next_wait();
            let longest = Duration::from_millis(expected_ms);
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} of {longest:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
        let first = |_| Backoff::new(retry).next_wait();
        let waits: std::collections::HashSet<Duration> = (0..20).map(first).collect();
        assert!(waits.len() > 10, "processes would keep step: {waits:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_retry_after_is_at_most_ten_minutes_and_never_panics(text in "\\PC*", seconds in 0_u64..1 << 40) {
            if let Some(wait) = parse_retry_after(&text, at(seconds)) {
                proptest::prop_assert!(wait <= LONGEST_RETRY_AFTER);
            }
        }

        #[test]
        fn dates_of_any_second_are_read_to_the_second(seconds in 0_u64..4_000_000_000, ahead in 0_u64..600) {
            let text = http_date(seconds + ahead);
            let wait = parse_retry_after(&text, at(seconds));
            proptest::prop_assert_eq!(wait, Some(Duration::from_secs(ahead)), "{}", text);
        }
    }

    /// The other way round, by counting days one by one from the start of a year.
    fn http_date(seconds: u64) -> String {
        let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
        let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut year = 1970;
        while days >= 365 + u64::from(is_leap(year)) {
            days -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let february = 28 + u64::from(is_leap(year));
        let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let mut month = 0;
        while days >= months[month] {
            days -= months[month];
            month += 1;
        }
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        format!("Xxx, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", days + 1, names[month])
    }
}
