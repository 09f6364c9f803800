//! Patterns over paths, as the core has them: `*` stands for any text, dots included, `?` for any one character.

/// A pattern such as `pipeline.*`.
#[derive(Clone, Debug)]
pub(crate) struct Glob(Vec<char>);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Glob {
        Glob(pattern.chars().collect())
    }

    /// Whether the whole of `text` fits: at most as many steps as both have characters, multiplied.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut wanted) = (0, 0);
        // Where to go on if a later part does not fit: behind the newest star, one character further.
        let mut retry = None;
        while at < text.len() {
            match self.0.get(wanted) {
                Some('*') => {
                    wanted += 1;
                    retry = Some((wanted, at));
                }
                Some(character) if *character == '?' || Some(character) == text.get(at) => {
                    at += 1;
                    wanted += 1;
                }
                _ => match &mut retry {
                    Some((behind_star, taken)) => {
                        *taken += 1;
                        (wanted, at) = (*behind_star, *taken);
                    }
                    None => return false,
                },
            }
        }
        self.0.iter().skip(wanted).all(|character| *character == '*')
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
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "axxbxx", false),
            ("*ab", "aaab", true),
            ("job.?", "job.1", true),
            ("job.?", "job.12", false),
            ("*.hot", "a.b.hot", true),
            ("*ß?", "maß!", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), fits, "{pattern} on {text}");
        }
    }
}
