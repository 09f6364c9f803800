//! Terms: what a document is made of, how often each occurs, and which occur most.
//!
//! A term is a run of letters, digits and `_` that begins with a letter or `_` and has at least two characters, in lower case. So
//! `HttpServer2` is the term `httpserver2`, and `0x1f`, `42` and the `a` of *a dog* are none.

use std::collections::HashMap;

use serde::Serialize;

/// How often a spelling occurs in a document of usual size; a guess that only saves a table from growing.
const TOKENS_OF_A_SPELLING: usize = 4;

/// How often each term occurs.
pub(crate) type Counts = HashMap<String, u64>;

/// A term and how often it occurs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RankedTerm {
    pub(crate) term: String,
    pub(crate) count: u64,
}

/// The terms of a text as they stand in it, in order.
pub(crate) fn tokenize(text: &str) -> Vec<&str> {
    text.split(|character: char| !is_part(character))
        .filter(|run| run.starts_with(|first: char| first.is_alphabetic() || first == '_'))
        .filter(|run| run.chars().nth(1).is_some())
        .collect()
}

/// Counts terms without regard to case.
pub(crate) fn count(tokens: &[&str]) -> Counts {
    // By spelling first, which copies nothing: a document has a few hundred spellings and several times as many tokens, and each
    // spelling is put into lower case once. `docs/tour.md` tells how that was found.
    let mut spellings: HashMap<&str, u64> = HashMap::with_capacity(tokens.len() / TOKENS_OF_A_SPELLING);
    for token in tokens {
        *spellings.entry(token).or_insert(0) += 1;
    }
    let mut counts = Counts::with_capacity(spellings.len());
    for (spelling, count) in spellings {
        *counts.entry(spelling.to_lowercase()).or_insert(0) += count;
    }
    counts
}

/// Adds the counts of one document to those of all.
pub(crate) fn merge(all: &mut Counts, one: Counts) {
    for (term, count) in one {
        *all.entry(term).or_insert(0) += count;
    }
}

/// The `most` most frequent terms; equally frequent ones in alphabetical order.
pub(crate) fn rank(counts: &Counts, most: usize) -> Vec<RankedTerm> {
    let mut ranking: Vec<(&String, &u64)> = counts.iter().collect();
    ranking.sort_unstable_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    ranking.into_iter().take(most).map(|(term, count)| RankedTerm { term: term.clone(), count: *count }).collect()
}

fn is_part(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_begin_with_a_letter_and_have_two_characters() {
        assert_eq!(
            tokenize("fn f(x: u8) -> HttpServer2 { 0x1f + 42; _y; a_b } Straße 日本"),
            ["fn", "u8", "HttpServer2", "_y", "a_b", "Straße", "日本"]
        );
    }

    #[test]
    fn counting_ignores_case_and_ranking_breaks_ties_by_name() {
        let mut counts = count(&["To", "be", "or", "not", "to", "BE", "ÄRGER", "ärger"]);
        merge(&mut counts, count(&["to"]));
        let ranking = rank(&counts, 4);
        let ranking: Vec<(&str, u64)> = ranking.iter().map(|ranked| (&*ranked.term, ranked.count)).collect();
        assert_eq!(ranking, [("to", 3), ("be", 2), ("ärger", 2), ("not", 1)]);
    }
}
