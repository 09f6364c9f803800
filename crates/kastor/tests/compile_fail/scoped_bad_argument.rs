//! The one argument is a string literal.

const NAME: &str = "parse";

#[kastor::scoped(NAME)]
fn constant() {}

#[kastor::scoped(1)]
fn number() {}

#[kastor::scoped(b"parse")]
fn bytes() {}

#[kastor::scoped(name = "parse")]
fn assignment() {}

#[kastor::scoped("parse", "again")]
fn two() {}

fn main() {
    constant();
    number();
    bytes();
    assignment();
    two();
    let _ = NAME;
}
