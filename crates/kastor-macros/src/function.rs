//! The head of a function, read as far as the attribute needs it.

use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

use crate::error::Error;

/// A function with a body. All tokens before the body are kept as they are.
pub(crate) struct Function {
    pub(crate) is_async: bool,
    pub(crate) name: Ident,
    /// The tokens between `->` and the body or `where`; empty if the function names no return type.
    pub(crate) return_type: Vec<TokenTree>,
    /// Everything before the body.
    pub(crate) head: Vec<TokenTree>,
    pub(crate) body: Group,
}

impl Function {
    pub(crate) fn read(item: TokenStream) -> Result<Self, Error> {
        let mut tokens = visible_head(item);
        let (is_async, at_fn) = read_qualifiers(&tokens)?;
        let name = match tokens.get(at_fn + 1) {
            Some(TokenTree::Ident(name)) => name.clone(),
            other => return Err(Error::new(span_of(other), "#[kastor::scoped] goes on a function that has a name")),
        };
        let Some(body) = tokens.pop().as_ref().and_then(as_body) else {
            return Err(Error::new(
                name.span(),
                "#[kastor::scoped] needs a function with a body; put it on the method where the trait is implemented",
            ));
        };
        let return_type = return_type(tokens.get(at_fn + 2..).unwrap_or_default());
        Ok(Self { is_async, name, return_type, head: tokens, body })
    }
}

/// True if the token is this word, as it stands in the source.
pub(crate) fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == word)
}

/// True if the token is this character of punctuation.
pub(crate) fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// Follows the angle brackets in a row of tokens, which come as punctuation and not as groups.
#[derive(Default)]
pub(crate) struct AngleDepth {
    depth: usize,
    after_minus: bool,
}

impl AngleDepth {
    /// True if the token stands outside of all angle brackets that opened before it.
    pub(crate) fn is_outside(&self) -> bool {
        self.depth == 0
    }

    /// True if the token is a `>` that closes something, and not the end of an arrow.
    pub(crate) fn closes(&self, token: &TokenTree) -> bool {
        is_punct(token, '>') && !self.after_minus
    }

    pub(crate) fn step(&mut self, token: &TokenTree) {
        if is_punct(token, '<') {
            self.depth += 1;
        } else if self.closes(token) {
            self.depth = self.depth.saturating_sub(1);
        }
        self.after_minus = is_punct(token, '-');
    }
}

/// The item's tokens; what another macro passed on as one piece (`$item`, `$vis`) is opened as far as the word `fn`.
fn visible_head(item: TokenStream) -> Vec<TokenTree> {
    let mut tokens: Vec<TokenTree> = Vec::new();
    let mut seen_fn = false;
    for token in item {
        match token {
            TokenTree::Group(group) if !seen_fn && group.delimiter() == Delimiter::None => {
                let opened = visible_head(group.stream());
                seen_fn = opened.iter().any(|token| is_word(token, "fn"));
                tokens.extend(opened);
            }
            token => {
                seen_fn |= is_word(&token, "fn");
                tokens.push(token);
            }
        }
    }
    tokens
}

/// Steps over attributes, visibility and qualifiers to the word `fn`. Returns whether one of them is `async`, and where
/// the word stands.
fn read_qualifiers(tokens: &[TokenTree]) -> Result<(bool, usize), Error> {
    let mut is_async = false;
    let mut constant: Option<Span> = None;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word) => match word.to_string().as_str() {
                "fn" => {
                    return match constant {
                        Some(span) => Err(Error::new(
                            span,
                            "#[kastor::scoped] cannot go on a `const fn`: a scope reads the clock, which a constant cannot; \
                             scope the caller instead",
                        )),
                        None => Ok((is_async, at)),
                    };
                }
                "async" => is_async = true,
                "const" => constant = Some(word.span()),
                "pub" | "default" | "unsafe" | "safe" | "extern" => {}
                _ => break,
            },
            // `#[…]`, `pub(crate)`, `extern "C"`; the compiler has checked the order before the attribute runs.
            TokenTree::Punct(punct) if punct.as_char() == '#' => {}
            TokenTree::Group(group) if group.delimiter() != Delimiter::Brace => {}
            TokenTree::Literal(_) => {}
            _ => break,
        }
    }
    Err(Error::new(item_span(tokens), "#[kastor::scoped] goes on a function: `fn`, `async fn` or a method"))
}

/// The word that says what the item is, `struct` or `impl` for example: the first one after attributes and visibility.
fn item_span(tokens: &[TokenTree]) -> Span {
    span_of(tokens.iter().find(|token| matches!(token, TokenTree::Ident(_)) && !is_word(token, "pub")))
}

fn span_of(token: Option<&TokenTree>) -> Span {
    token.map_or_else(Span::call_site, TokenTree::span)
}

/// The braces of a body; a body that another macro passed on (`$body`) is one level deeper.
fn as_body(token: &TokenTree) -> Option<Group> {
    let TokenTree::Group(group) = token else { return None };
    match group.delimiter() {
        Delimiter::Brace => Some(group.clone()),
        Delimiter::None => {
            let mut inner = group.stream().into_iter();
            match (inner.next(), inner.next()) {
                (Some(token), None) => as_body(&token),
                _ => None,
            }
        }
        Delimiter::Parenthesis | Delimiter::Bracket => None,
    }
}

/// What stands between `->` and `where`, given all tokens between the function's name and its body.
fn return_type(after_name: &[TokenTree]) -> Vec<TokenTree> {
    // The parameters are the first parentheses outside of the generics, where `F: Fn(u32) -> u32` may stand.
    let mut angles = AngleDepth::default();
    let parameters = after_name.iter().position(|token| {
        let found = angles.is_outside()
            && matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis);
        angles.step(token);
        found
    });
    let Some(parameters) = parameters else { return Vec::new() };
    match after_name.get(parameters + 1..) {
        Some([minus, greater, rest @ ..]) if is_punct(minus, '-') && is_punct(greater, '>') => {
            rest.iter().take_while(|token| !is_word(token, "where")).cloned().collect()
        }
        _ => Vec::new(),
    }
}
