//! From a function to the same function in a scope.

use proc_macro::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};

use crate::{
    error::Error,
    function::{AngleDepth, Function, is_punct, is_word},
    template::fill,
};

/// The scope is the first local, so it closes last: after the block, whose locals are gone by then.
///
/// The body stays a block of its own: its items stand at its start, as in the source, and its braces keep their places.
const PLAIN_BODY: &str = "INNER_ATTRIBUTES let __kastor_scope = ::kastor::__private::scope!(NAME); BODY";

/// The scope opens inside the `async fn`, thus at its first poll, and is moved into the future before the first `await`.
const ASYNC_BODY: &str = "INNER_ATTRIBUTES \
    ::kastor::__private::in_scope(::kastor::__private::scope!(NAME), async move { RETURN_TYPE BODY }).await";

/// Tells the type of an `async` block, which nothing else does: without it neither `?` nor a coercion in the body would know
/// what to become. It never runs.
const RETURN_TYPE: &str = "#[allow(unknown_lints, unreachable_code, clippy::all, clippy::pedantic, clippy::restriction)] \
    if false { let __kastor_return: TYPE = loop {}; return __kastor_return; }";

pub(crate) fn scoped(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    let function = Function::read(item)?;
    let name = match explicit_name(arguments)? {
        Some(name) => name,
        None => name_of(&function)?,
    };
    let (inner_attributes, body) = split_inner_attributes(&function.body);
    let mut places = vec![("INNER_ATTRIBUTES", inner_attributes), ("NAME", name.into()), ("BODY", body.into())];
    let body = if function.is_async {
        places.push(("RETURN_TYPE", return_type_hint(function.return_type)?));
        fill(ASYNC_BODY, &places)?
    } else {
        fill(PLAIN_BODY, &places)?
    };
    let mut body = Group::new(Delimiter::Brace, body);
    body.set_span(function.body.span());
    let mut output: TokenStream = function.head.into_iter().collect();
    output.extend([TokenTree::Group(body)]);
    Ok(output)
}

/// The literal in `#[scoped("name")]`, or nothing in `#[scoped]` and `#[scoped()]`.
fn explicit_name(arguments: TokenStream) -> Result<Option<TokenTree>, Error> {
    let mut tokens = arguments.into_iter();
    let Some(first) = tokens.next() else { return Ok(None) };
    let second = tokens.next();
    let name = match (&first, &second) {
        // A literal that another macro passes on comes in invisible parentheses.
        (TokenTree::Group(group), None) if group.delimiter() == Delimiter::None => {
            return explicit_name(group.stream());
        }
        (TokenTree::Literal(literal), _) => string_content(&literal.to_string()).map(str::to_owned),
        _ => None,
    };
    let wrong = if name.is_none() { Some(&first) } else { second.as_ref() };
    let (Some(name), None) = (name, wrong) else {
        let span = wrong.map_or_else(Span::call_site, TokenTree::span);
        let sentence = "#[kastor::scoped] takes one string literal, as in #[kastor::scoped(\"db.query\")]";
        return Err(Error::new(span, sentence));
    };
    if !is_scope_name(&name) {
        return Err(Error::new(
            first.span(),
            format!(
                "`{name}` is no scope name: use lowercase segments of letters, digits and `_`, each starting with a letter, \
                 separated by dots, as in \"db.query\""
            ),
        ));
    }
    Ok(Some(string_literal(&name, first.span())))
}

/// The function's own name as a literal.
fn name_of(function: &Function) -> Result<TokenTree, Error> {
    let name = function.name.to_string();
    if is_scope_name(&name) {
        return Ok(string_literal(&name, function.name.span()));
    }
    Err(Error::new(
        function.name.span(),
        format!("`{name}` is no scope name; give one in the attribute, as in #[kastor::scoped(\"db.query\")]"),
    ))
}

fn string_literal(name: &str, span: Span) -> TokenTree {
    let mut literal = Literal::string(name);
    literal.set_span(span);
    literal.into()
}

/// What stands between the quotes of `"…"`, `r"…"` or `r#"…"#`; nothing for any other literal, also one with a suffix.
fn string_content(literal: &str) -> Option<&str> {
    let bare = match literal.strip_prefix('r') {
        Some(raw) => raw.trim_matches('#'),
        None => literal,
    };
    bare.strip_prefix('"')?.strip_suffix('"')
}

/// `^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$`, the rule of `scope!`, asked here for a better sentence.
fn is_scope_name(name: &str) -> bool {
    name.split('.').all(|segment| {
        segment.starts_with(|first: char| first.is_ascii_lowercase())
            && segment.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

/// `#![…]` at the start of a body has to stay at its start; the rest becomes a block.
fn split_inner_attributes(body: &Group) -> (TokenStream, TokenTree) {
    let tokens: Vec<TokenTree> = body.stream().into_iter().collect();
    let mut at = 0;
    while let [hash, bang, TokenTree::Group(_), ..] = tokens.get(at..).unwrap_or_default() {
        if !is_punct(hash, '#') || !is_punct(bang, '!') {
            break;
        }
        at += 3;
    }
    let mut tokens = tokens.into_iter();
    let attributes = tokens.by_ref().take(at).collect();
    let mut rest = Group::new(Delimiter::Brace, tokens.collect());
    // The old braces' place, but marked as generated: the compiler would call them superfluous.
    rest.set_span(Span::mixed_site().located_at(body.span()));
    (attributes, rest.into())
}

/// The dead statement that names the return type, or nothing where no name for it exists.
fn return_type_hint(return_type: Vec<TokenTree>) -> Result<TokenStream, Error> {
    let tokens = without_impl(return_type);
    let says_nothing = match tokens.as_slice() {
        [] => true,
        // `-> impl Trait` has no name; `-> !` cannot be the type of a local.
        [only] => is_word(only, "_") || is_punct(only, '!'),
        _ => false,
    };
    if says_nothing {
        return Ok(TokenStream::new());
    }
    fill(RETURN_TYPE, &[("TYPE", tokens.into_iter().collect())])
}

/// The type with `_` for every `impl Trait` in it: `Result<impl Iterator, Error>` becomes `Result<_, Error>`.
fn without_impl(tokens: Vec<TokenTree>) -> Vec<TokenTree> {
    let mut output = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word.to_string() == "impl" => {
                output.push(TokenTree::Ident(Ident::new("_", word.span())));
                let mut angles = AngleDepth::default();
                while let Some(bound) =
                    tokens.next_if(|token| !(angles.is_outside() && (is_punct(token, ',') || angles.closes(token))))
                {
                    angles.step(&bound);
                }
            }
            TokenTree::Group(group) => {
                let inner = without_impl(group.stream().into_iter().collect());
                let mut erased = Group::new(group.delimiter(), inner.into_iter().collect());
                erased.set_span(group.span());
                output.push(erased.into());
            }
            token => output.push(token),
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::{is_scope_name, string_content};

    #[test]
    fn names_are_dotted_lowercase_segments() {
        for good in ["a", "parse", "db.query", "a1_b.c2", "a_"] {
            assert!(is_scope_name(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "Parse", "_a", "1a", "a-b", "r#type", "ä", "a b", "a.1"] {
            assert!(!is_scope_name(bad), "{bad}");
        }
    }

    #[test]
    fn only_string_literals_have_content() {
        assert_eq!(string_content(r#""a.b""#), Some("a.b"));
        assert_eq!(string_content(r##"r#"a.b"#"##), Some("a.b"));
        assert_eq!(string_content(r#"r"a""#), Some("a"));
        for other in ["1", "b\"a\"", "c\"a\"", "'a'", "\"a\"suffix", "1.5"] {
            assert_eq!(string_content(other), None, "{other}");
        }
    }
}
