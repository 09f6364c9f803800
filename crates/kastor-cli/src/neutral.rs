//! Text from outside made harmless for terminals, logs and readers.
//!
//! A character that moves the cursor, starts an escape sequence, reverses the reading direction or is invisible never leaves this
//! program as itself: in plain text it becomes a visible `\u{1b}`, in JSON the escape `\u001b`, which reads back as the original.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with every dangerous character replaced by its visible form. Line ends count as dangerous: the result is one line.
pub(crate) fn neutral(text: &str) -> Cow<'_, str> {
    if !text.contains(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_dangerous(character) {
            harmless.extend(character.escape_unicode());
        } else {
            harmless.push(character);
        }
    }
    Cow::Owned(harmless)
}

/// A JSON document with every dangerous character inside its strings escaped. Outside strings JSON has none but line ends, which stay.
pub(crate) fn neutral_json(document: &str) -> Cow<'_, str> {
    let needs_escape = |character| character != '\n' && is_dangerous(character);
    if !document.contains(needs_escape) {
        return Cow::Borrowed(document);
    }
    let mut harmless = String::with_capacity(document.len() + 16);
    for character in document.chars() {
        if needs_escape(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(harmless, "\\u{unit:04x}"); // writing to a String cannot fail
            }
        } else {
            harmless.push(character);
        }
    }
    Cow::Owned(harmless)
}

/// Whether a character could act on its surroundings instead of standing for itself.
fn is_dangerous(character: char) -> bool {
    character.is_control() // C0, DEL, C1
        || matches!(character,
            '\u{ad}'                      // soft hyphen: invisible
            | '\u{61c}' | '\u{180e}'      // Arabic letter mark, Mongolian vowel separator
            | '\u{200b}'..='\u{200f}'     // zero width, direction marks
            | '\u{2028}'..='\u{202e}'     // line and paragraph separators, embeddings and overrides
            | '\u{2060}'..='\u{206f}'     // word joiner, invisible operators, isolates, deprecated formats
            | '\u{feff}'                  // byte order mark
            | '\u{fff9}'..='\u{fffb}'     // interlinear annotation
            | '\u{e0000}'..='\u{e007f}') // tags
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[31mb\nc\rd\u{7f}e\u{9b}f\u{202e}g\u{200b}h\u{feff}i\u{2066}j\u{e0041}k\u{0}";

    #[test]
    fn no_dangerous_character_survives_as_itself() {
        let harmless = neutral(HOSTILE);
        assert!(!harmless.contains(is_dangerous), "{harmless:?}");
        assert!(harmless.starts_with("a\\u{1b}[31mb\\u{a}c"), "{harmless}");
    }

    #[test]
    fn harmless_text_is_not_copied() {
        assert!(matches!(neutral("naïve 日本 🦀 \\u{1b}"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_reads_back_as_the_original_and_holds_nothing_raw() {
        let written = serde_json::to_string_pretty(&[HOSTILE]).unwrap();
        let harmless = neutral_json(&written);
        assert!(!harmless.contains(|c| c != '\n' && is_dangerous(c)));
        let back: Vec<String> = serde_json::from_str(&harmless).unwrap();
        assert_eq!(back, [HOSTILE]);
    }
}
