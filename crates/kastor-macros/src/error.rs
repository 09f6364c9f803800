//! A sentence for the user, and the place in the user's code that it points at.

use proc_macro::{Literal, Span, TokenStream, TokenTree};

/// Why the attribute cannot do its work.
pub(crate) struct Error {
    span: Span,
    sentence: String,
}

impl Error {
    pub(crate) fn new(span: Span, sentence: impl Into<String>) -> Self {
        Self { span, sentence: sentence.into() }
    }

    /// `::core::compile_error! { "sentence" }`, every token at the place of the error.
    pub(crate) fn into_tokens(self) -> TokenStream {
        // Braces, not parentheses: they end a macro call as an item, as a statement and inside a trait alike.
        let text = format!("::core::compile_error! {{ {} }}", Literal::string(&self.sentence));
        let at_place = |mut token: TokenTree| {
            token.set_span(self.span);
            token
        };
        text.parse::<TokenStream>().unwrap_or_default().into_iter().map(at_place).collect()
    }
}
