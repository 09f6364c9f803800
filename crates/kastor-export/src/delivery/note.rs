//! What an exporter says in the log: the first three times, then each time the count has doubled; never raw.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// One kind of message.
#[derive(Default)]
pub(crate) struct Note {
    times: AtomicU64,
}

impl Note {
    /// Logs a warning, unless it was said often enough.
    pub(crate) fn warn(&self, text: impl FnOnce() -> String) {
        let times = self.times.fetch_add(1, Relaxed) + 1;
        if times <= 3 || times.is_power_of_two() {
            contained(|| log::warn!(target: "kastor_export", "{} ({times} so far)", text()));
        }
    }

    /// Begins anew, and says so.
    pub(crate) fn reset(&self, text: impl FnOnce() -> String) {
        if self.times.swap(0, Relaxed) > 0 {
            contained(|| log::info!(target: "kastor_export", "{}", text()));
        }
    }
}

/// The program's logger may panic; a sender that dies of it would deliver nothing any more.
pub(crate) fn contained(f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        // Its destructor may panic too.
        std::mem::forget(panic);
    }
}

/// Text of the other side, made harmless for one line of a log; it ends after 200 characters.
pub(crate) fn neutral(text: &str) -> String {
    const LONGEST: usize = 200;
    let end = text.char_indices().nth(LONGEST).map(|(end, _)| end);
    let safe = crate::neutral::neutral(text.get(..end.unwrap_or(text.len())).unwrap_or_default());
    let line = safe.replace('\n', "\\u{a}").replace('\t', "\\u{9}");
    if end.is_some() { line + "…" } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_side_says_cannot_steer_a_terminal() {
        assert_eq!(neutral("no\x1b[2J\r\n\u{202e}\u{9b}x"), "no\\u{1b}[2J\\u{d}\\u{a}\\u{202e}\\u{9b}x");
        assert_eq!(neutral(&"é".repeat(500)).chars().count(), 201);
    }
}
