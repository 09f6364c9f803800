//! Reads a Rust source as far as its paths: which rooms of the crate it names, and which paths it names at all.

/// Something that a source names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A room, through `crate::` or `super::`.
    Room(String),
    /// A room (or `__private`) through `$crate::`.
    ExportedRoom(String),
    /// The crate's root itself, by the text given; an item of the root hides the room that it is from.
    Root(String),
    /// A path of any kind, braces resolved; a macro's name ends with `!`.
    Path(Vec<String>),
}

/// Everything that the source of a module names, with the line; items under `#[cfg(test)]` are left out.
pub(crate) fn read(text: &str, module: &[String]) -> Vec<(usize, Found)> {
    let mut reader = Reader { tokens: tokens(text), at: 0, found: Vec::new(), opened: Vec::new(), depth: module.len() };
    while reader.at < reader.tokens.len() {
        reader.item();
    }
    reader.found
}

#[derive(Clone, Debug)]
struct Token {
    line: usize,
    /// A word, `::`, or one character of punctuation; literals are left out.
    text: String,
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    found: Vec<(usize, Found)>,
    /// For every open brace: does it belong to a module?
    opened: Vec<bool>,
    /// How many modules deep the current place is; a room's own file is at 1.
    depth: usize,
}

impl Reader {
    fn item(&mut self) {
        match self.word(0) {
            "#" if self.is_test_only() => self.skip_item(),
            "mod" if self.word(2) == "{" => {
                self.at += 3;
                self.open(true);
            }
            "{" => {
                self.at += 1;
                self.open(false);
            }
            "}" => {
                self.at += 1;
                if self.opened.pop() == Some(true) {
                    self.depth -= 1;
                }
            }
            "use" => {
                self.at += 1;
                let line = self.line();
                for path in self.tree(Vec::new()) {
                    self.note(line, path);
                }
            }
            "::" => self.at += 1,
            word if is_word(word) || word == "$" => {
                let line = self.line();
                let path = self.path();
                self.note(line, path);
            }
            _ => self.at += 1,
        }
    }

    fn open(&mut self, is_module: bool) {
        self.opened.push(is_module);
        self.depth += usize::from(is_module);
    }

    /// A path outside of `use`: words joined by `::`, and `!` if it calls a macro. A lone word counts too.
    fn path(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        if self.word(0) == "$" {
            self.at += 1;
            // `$crate` is one word for us; `$name` is a macro's variable.
            path.push(format!("${}", self.word(0)));
        } else {
            path.push(self.word(0).to_owned());
        }
        self.at += 1;
        while self.word(0) == "::" && is_word(self.word(1)) {
            path.push(self.word(1).to_owned());
            self.at += 2;
        }
        if self.word(0) == "!" && self.word(1) != "=" {
            self.at += 1;
            if let Some(last) = path.last_mut() {
                last.push('!');
            }
        }
        path
    }

    /// The paths of a `use` tree after `prefix`: `a::{b, c::{self, d as e}, f::*}`.
    fn tree(&mut self, prefix: Vec<String>) -> Vec<Vec<String>> {
        let mut path = prefix;
        loop {
            match self.word(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    let mut paths = Vec::new();
                    while !matches!(self.word(0), "}" | "") {
                        paths.extend(self.tree(path.clone()));
                        // A comma, or something that only a macro understands.
                        if self.word(0) != "}" {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return paths;
                }
                "as" => self.at += 2,
                "$" => {
                    path.push(format!("${}", self.word(1)));
                    self.at += 2;
                }
                "*" => {
                    path.push("*".to_owned());
                    self.at += 1;
                }
                word if is_word(word) => {
                    path.push(word.to_owned());
                    self.at += 1;
                }
                _ => return vec![path],
            }
        }
    }

    /// Writes down the path, and the room that it leads to if it is one of this crate.
    fn note(&mut self, line: usize, path: Vec<String>) {
        let shown = || path.join("::");
        let supers = path.iter().take_while(|word| *word == "super" || *word == "self").count();
        let ups = path.iter().take(supers).filter(|word| *word == "super").count();
        match path.first().map(String::as_str) {
            Some("$crate") => match path.get(1) {
                Some(room) => self.found.push((line, Found::ExportedRoom(room.clone()))),
                None => self.found.push((line, Found::Root(shown()))),
            },
            Some("crate") => self.note_from_root(line, &path, 1),
            Some("super" | "self") if ups >= self.depth => self.note_from_root(line, &path, supers),
            _ => {}
        }
        // A `super` within braces (`use super::{super::x}`) is counted like one in a row, for the braces are resolved.
        self.found.push((line, Found::Path(path)));
    }

    fn note_from_root(&mut self, line: usize, path: &[String], at: usize) {
        let found = match path.get(at).map(String::as_str) {
            // `pub(crate)` names nothing.
            None if path == ["crate"] && self.before_and_after_are_brackets() => return,
            None | Some("*" | "self") => Found::Root(path.join("::")),
            Some(room) if room.ends_with('!') => Found::Root(path.join("::")),
            Some(room) => Found::Room(room.to_owned()),
        };
        self.found.push((line, found));
    }

    /// True just after the one word in `(crate)`.
    fn before_and_after_are_brackets(&self) -> bool {
        self.at >= 2 && self.tokens[self.at - 2].text == "(" && self.word(0) == ")"
    }

    /// True at `#[cfg(test)]` and at `#[cfg(all(test, …))]`.
    fn is_test_only(&self) -> bool {
        let words: Vec<&str> = (1..=6).map(|ahead| self.word(ahead)).collect();
        words.starts_with(&["[", "cfg", "(", "test", ")"]) || words.starts_with(&["[", "cfg", "(", "all", "(", "test"])
    }

    /// Steps over an item with its attributes: to its `;` or `,`, or to the end of its braces.
    fn skip_item(&mut self) {
        while self.word(0) == "#" {
            self.at += 1;
            self.skip_brackets();
        }
        // A comma within generics does not end a field.
        let mut angles = 0_usize;
        loop {
            match self.word(0) {
                "" => return,
                ";" => {
                    self.at += 1;
                    return;
                }
                "," if angles == 0 => {
                    self.at += 1;
                    return;
                }
                "-" if self.word(1) == ">" => self.at += 2,
                "<" => {
                    angles += 1;
                    self.at += 1;
                }
                ">" => {
                    angles = angles.saturating_sub(1);
                    self.at += 1;
                }
                "{" => {
                    self.skip_brackets();
                    // Braces in a `use` end before its semicolon.
                    if self.word(0) == ";" {
                        self.at += 1;
                    }
                    return;
                }
                "(" | "[" => self.skip_brackets(),
                "}" => return,
                _ => self.at += 1,
            }
        }
    }

    fn skip_brackets(&mut self) {
        let mut open = 0_usize;
        loop {
            match self.word(0) {
                "(" | "[" | "{" => open += 1,
                ")" | "]" | "}" => open -= 1,
                "" => return,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return;
            }
        }
    }

    fn word(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| &token.text)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |token| token.line)
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(is_word_start)
}

fn is_word_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// The source without comments, white space and literals.
fn tokens(text: &str) -> Vec<Token> {
    let (mut found, mut rest, mut line) = (Vec::new(), text, 1);
    while let Some(first) = rest.chars().next() {
        let length = match literal_or_space(rest) {
            Some(length) => length,
            None => {
                let raw = if rest.starts_with("r#") { 2 } else { 0 };
                let length = if is_word_start(first) {
                    let end = rest[raw..].find(|c: char| !c.is_alphanumeric() && c != '_');
                    end.map_or(rest.len(), |end| end + raw)
                } else if rest.starts_with("::") {
                    2
                } else {
                    first.len_utf8()
                };
                found.push(Token { line, text: rest[..length].trim_start_matches("r#").to_owned() });
                length
            }
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The length of what carries no path at the start of the text: white space, a comment, a literal, a lifetime.
fn literal_or_space(rest: &str) -> Option<usize> {
    let first = rest.chars().next()?;
    if first.is_whitespace() {
        return Some(first.len_utf8());
    }
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if first.is_ascii_digit() {
        return Some(rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()));
    }
    if first == '\'' {
        return Some(character_or_lifetime(rest, 0));
    }
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let quoted = rest.strip_prefix(prefix).is_some_and(|after| {
            after.starts_with('"') || prefix.ends_with('r') && after.trim_start_matches('#').starts_with('"')
        });
        quoted || *prefix == "b" && rest.starts_with("b'")
    })?;
    if rest.starts_with("b'") {
        return Some(character_or_lifetime(rest, 1));
    }
    let after = &rest[prefix.len()..];
    if !prefix.ends_with('r') {
        return Some(prefix.len() + quoted(after, '"'));
    }
    let hashes = after.find('"')?;
    let end = format!("\"{}", &after[..hashes]);
    let start = prefix.len() + hashes + 1;
    Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// `'x'`, `'\n'` and `b'x'` are literals; `'name` is a lifetime, of which the quote alone is stepped over.
fn character_or_lifetime(rest: &str, prefix: usize) -> usize {
    let mut inside = rest[prefix + 1..].chars();
    match (inside.next(), inside.next()) {
        (Some('\\'), _) => prefix + quoted(&rest[prefix..], '\''),
        (Some(only), Some('\'')) => prefix + 2 + only.len_utf8(),
        _ => prefix + 1 + rest[prefix + 1..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0),
    }
}

/// The length of a quoted text with its quotes; a backslash protects the character after it.
fn quoted(rest: &str, quote: char) -> usize {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    rest.len()
}
