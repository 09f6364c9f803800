//! Text made harmless for whatever prints it: terminals, logs, pages.

use std::{borrow::Cow, fmt::Write as _};

/// `text` with every control, bidirectional and zero-width character as `\u{…}`, but for line feeds and tabs, which the
/// formats escape by themselves.
pub(crate) fn neutral(text: &str) -> Cow<'_, str> {
    // Ordinary ASCII, at the speed of memory; `all` would stop at each byte.
    let is_plain = text.bytes().fold(true, |plain, byte| plain & (0x20..0x7f).contains(&byte));
    if is_plain || !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hostile(character) {
            // Writing to a string cannot fail.
            let _ = write!(safe, "\\u{{{:x}}}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn is_hostile(character: char) -> bool {
    matches!(character,
        '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_hostile_is_replaced() {
        assert_eq!(neutral("a\u{1b}[31m\u{202e}b\u{200b}\rc\u{9b}"), "a\\u{1b}[31m\\u{202e}b\\u{200b}\\u{d}c\\u{9b}");
        for text in ["", "plain", "größe\n\t", "日本"] {
            assert!(matches!(neutral(text), Cow::Borrowed(same) if same == text));
        }
    }
}
