//! A sentence for the user, and the place in the user's code that it points at.

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

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
        let path = [
            TokenTree::Punct(Punct::new(':', Spacing::Joint)),
            TokenTree::Punct(Punct::new(':', Spacing::Alone)),
            TokenTree::Ident(Ident::new("core", self.span)),
            TokenTree::Punct(Punct::new(':', Spacing::Joint)),
            TokenTree::Punct(Punct::new(':', Spacing::Alone)),
            TokenTree::Ident(Ident::new("compile_error", self.span)),
            TokenTree::Punct(Punct::new('!', Spacing::Alone)),
            // Braces, not parentheses: they end a macro call as an item, as a statement and inside a trait alike.
            TokenTree::Group(Group::new(Delimiter::Brace, TokenTree::Literal(Literal::string(&self.sentence)).into())),
        ];
        path.into_iter()
            .map(|mut token| {
                token.set_span(self.span);
                token
            })
            .collect()
    }
}
