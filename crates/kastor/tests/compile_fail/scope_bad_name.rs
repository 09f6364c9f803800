//! A literal scope name is checked by the compiler: lowercase, and no empty segment.

fn main() {
    let _upper = kastor::scope!("Parse");
    let _empty_segment = kastor::scope!("db..query");
    let _digit_first = kastor::scope!("1st");
    let _empty = kastor::scope!("");
}
