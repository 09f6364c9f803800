//! Patterns over names and paths: `*` stands for any text, `?` for any one character.

/// A pattern such as `db.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Box<str>);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether the whole of `text` fits.
    pub(crate) fn matches(&self, text: &str) -> bool {
        // Behind how many characters of the text the pattern so far may end.
        let mut ends: Vec<bool> = std::iter::once(true).chain(text.chars().map(|_| false)).collect();
        for wanted in self.0.chars() {
            let mut before = false;
            for (end, character) in ends.iter_mut().zip(std::iter::once(None).chain(text.chars().map(Some))) {
                let fits = before && (wanted == '?' || character == Some(wanted));
                before = if wanted == '*' { before || *end } else { *end };
                *end = if wanted == '*' { before } else { fits };
            }
        }
        ends.last() == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn a_star_spans_dots_and_a_question_mark_is_one_character() {
        for (pattern, text, fits) in [
            ("db.*", "db.query", true),
            ("db.*", "db", false),
            ("*", "", true),
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "axxbxx", false),
            ("job.?", "job.1", true),
            ("job.?", "job.12", false),
            ("*.hot", "a.b.hot", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), fits, "{pattern} on {text}");
        }
    }
}
