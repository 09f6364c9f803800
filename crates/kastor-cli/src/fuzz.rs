//! What the fuzz targets run of the command. No part of the interface: it changes without notice.

use kastor::Telemetry;

use crate::{arguments, glob::Glob, moment};

/// The letters of short names, few enough that the process's limit of names is never reached.
const LETTERS: [char; 4] = ['a', 'b', 'é', '.'];
const MAX_NAME_LETTERS: usize = 6;

/// The first line as a pattern, the rest as a text: both globs say what the definition says.
pub fn patterns(input: &str) {
    let (pattern, text) = input.split_once('\n').unwrap_or((input, ""));
    let short = |text: &str, length| text.chars().take(length).collect::<String>();
    let (pattern, text) = (short(pattern, 64), short(text, 256));
    assert_eq!(Glob::new(&pattern).matches(&text), fits(&pattern, &text), "{pattern:?} on {text:?}");

    // The core's, which is asked when a name is seen.
    let name: String = text.chars().take(MAX_NAME_LETTERS).map(|letter| LETTERS[letter as usize % 4]).collect();
    let tele = Telemetry::builder().strict_names(false).build();
    tele.switch_scopes(&pattern, false);
    drop(tele.scope(&name));
    if !name.is_empty() {
        assert_eq!(tele.stats().emitted() == 0, fits(&pattern, &name), "{pattern:?} on {name:?}");
    }
}

/// Any text as a moment, and its words as the arguments of the command: there is an answer, and nothing is run.
pub fn arguments(text: &str) {
    let _ = moment::parse(text);
    let words = std::iter::once("kastor").chain(text.split_whitespace().take(32));
    let _ = arguments::parse(words.map(Into::into));
}

/// The definition, letter by letter: which beginnings of the text fit the beginnings of the pattern.
fn fits(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut fitting = vec![false; text.len() + 1];
    fitting[0] = true;
    for wanted in pattern.chars() {
        let before = fitting;
        fitting = vec![wanted == '*' && before[0]; 1];
        for (at, letter) in text.iter().enumerate() {
            let one = before[at] && (wanted == '?' || wanted == *letter) && wanted != '*';
            let any = wanted == '*' && (before[at + 1] || fitting[at]);
            fitting.push(one || any);
        }
    }
    fitting[text.len()]
}
