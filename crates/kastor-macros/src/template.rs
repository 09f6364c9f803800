//! Rust text with places in it, and the tokens that go there.

use proc_macro::{Group, Span, TokenStream, TokenTree};

use crate::error::Error;

/// Parses `text` and puts the tokens of each place where its name stands as a word.
///
/// The text's own tokens get the mixed-site span: local names are invisible to the user's code, and the other way round.
/// What is filled in keeps its spans, so that the compiler's messages point into the user's code.
pub(crate) fn fill(text: &str, places: &[(&str, TokenStream)]) -> Result<TokenStream, Error> {
    let tokens = text.parse::<TokenStream>().map_err(|error| {
        Error::new(Span::call_site(), format!("kastor built code that is no Rust ({error}); this is a bug in kastor"))
    })?;
    Ok(replace(tokens, places))
}

fn replace(tokens: TokenStream, places: &[(&str, TokenStream)]) -> TokenStream {
    let mut output = TokenStream::new();
    for mut token in tokens {
        match &token {
            TokenTree::Group(group) => {
                token = TokenTree::Group(Group::new(group.delimiter(), replace(group.stream(), places)));
            }
            TokenTree::Ident(word) => {
                let word = word.to_string();
                if let Some((_, tokens)) = places.iter().find(|(place, _)| *place == word) {
                    output.extend(tokens.clone());
                    continue;
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        token.set_span(Span::mixed_site());
        output.extend([token]);
    }
    output
}
