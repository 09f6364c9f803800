//! Patterns over names and paths: `*` stands for any text, `?` for any one character.

/// A pattern such as `db.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Box<str>);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether the whole of `text` fits. Linear in practice: only the last `*` is ever reconsidered.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (pattern, text): (Vec<char>, Vec<char>) = (self.0.chars().collect(), text.chars().collect());
        let (mut at, mut in_pattern) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while let Some(character) = text.get(at) {
            match pattern.get(in_pattern) {
                Some('*') => {
                    star = Some((in_pattern + 1, at));
                    in_pattern += 1;
                }
                Some(wanted) if wanted == character || *wanted == '?' => {
                    in_pattern += 1;
                    at += 1;
                }
                _ => match star {
                    Some((after_star, from)) => {
                        star = Some((after_star, from + 1));
                        in_pattern = after_star;
                        at = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern.get(in_pattern..).is_some_and(|rest| rest.iter().all(|character| *character == '*'))
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
