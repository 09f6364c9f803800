//! The attribute `#[kastor::scoped]`, re-exported by the crate `kastor`; nobody depends on this crate directly.
//!
//! It works on plain tokens, without a parser library, so that a program which only instruments itself does not wait for
//! one to compile. What it emits names `::kastor::__private::*` and nothing else of the crate, so the private door is all
//! that has to stay in step with this file.
//!
//! - `function` reads the head of a function as far as the expansion needs it,
//! - `expand` builds the new body,
//! - `template` fills tokens into a text,
//! - `error` is a sentence for the user and the place that it points at.

mod error;
mod expand;
mod function;
mod template;

use proc_macro::TokenStream;

/// Opens a scope for the whole body of a function, with the function's name or with the one given.
///
/// ```ignore
/// #[kastor::scoped]
/// fn parse(text: &str) -> Result<Tree, ParseError> { /* the scope `parse` */ }
///
/// #[kastor::scoped("db.query")]
/// async fn query(&self) -> Result<Rows, DatabaseError> { /* the scope `db.query`, entered on every poll */ }
/// ```
///
/// The scope opens when the body starts and closes after the locals of the body are dropped: it covers the tail expression,
/// `?`, early returns and panics. On an `async fn` it opens at the first poll, not at the call, and is current only while
/// the future is polled; a future that is dropped unfinished closes it as `cancelled`. The future of an `async fn` stays
/// `Send` if it was.
///
/// A function that returns a future without being `async` (as `#[async_trait]` makes them) is a plain function: its scope
/// covers the making of the future, not its run. Use `FutureExt::in_scope` there.
///
/// The name is checked at compile time: lowercase segments of letters, digits and `_`, each starting with a letter,
/// separated by dots. A `const fn` cannot be scoped, since a scope reads the clock.
#[proc_macro_attribute]
pub fn scoped(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::scoped(arguments, item.clone()).unwrap_or_else(|error| {
        // The function stays, so that its callers do not add errors of their own.
        let mut output = error.into_tokens();
        output.extend(item);
        output
    })
}
