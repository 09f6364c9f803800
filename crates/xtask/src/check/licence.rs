//! Licence expressions as packages state them: `MIT OR Apache-2.0`, `(MIT OR Apache-2.0) AND Unicode-3.0`.

/// True if the licences in the list are enough to use a package under this expression.
///
/// `OR` leaves a choice, `AND` demands all, a bracket groups, `/` is the old spelling of `OR`; `X WITH Y` is one licence.
/// An expression that cannot be read is not allowed.
pub(super) fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, allowed };
    reader.choice() == Some(true) && reader.words.is_empty()
}

struct Reader<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Reader<'_> {
    /// `all OR all …`; `AND` binds more tightly.
    fn choice(&mut self) -> Option<bool> {
        let mut fulfilled = self.all()?;
        while self.take("OR") {
            fulfilled |= self.all()?;
        }
        Some(fulfilled)
    }

    fn all(&mut self) -> Option<bool> {
        let mut fulfilled = self.one()?;
        while self.take("AND") {
            fulfilled &= self.one()?;
        }
        Some(fulfilled)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let inner = self.choice()?;
            return self.take(")").then_some(inner);
        }
        let (licence, rest) = self.words.split_first()?;
        if matches!(*licence, "OR" | "AND" | "WITH" | ")") {
            return None;
        }
        self.words = rest;
        if !self.take("WITH") {
            return Some(self.is_listed(licence));
        }
        let (exception, rest) = self.words.split_first()?;
        self.words = rest;
        Some(self.is_listed(&format!("{licence} WITH {exception}")))
    }

    fn is_listed(&self, licence: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed == licence)
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn expressions_mean_what_they_say() {
        let allowed = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        let good = [
            "MIT",
            "MIT OR Apache-2.0",
            "Apache-2.0/MIT",
            "Apache-2.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
            "GPL-3.0 AND LGPL-3.0 OR MIT",
        ];
        for expression in good {
            assert!(is_allowed(expression, &allowed), "{expression}");
        }
        let bad = [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND GPL-3.0",
            "Apache-2.0",
            "MIT WITH LLVM-exception",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT Apache-2.0",
        ];
        for expression in bad {
            assert!(!is_allowed(expression, &allowed), "{expression}");
        }
    }
}
