//! A scope that is not kept closes at once.
#![deny(unused_must_use)]

fn main() {
    kastor::scope!("work");
}
