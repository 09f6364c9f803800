//! Nothing to link: the examples are the files beside this one; `cargo run -p kastor-examples --example basics` runs one.
