//! The form that names should have: lowercase segments of letters, digits and `_`, each starting with a letter,
//! separated by dots.

/// Whether `name` has the recommended form: `^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$`.
pub(crate) const fn is_recommended(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut starts_segment = true;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'a'..=b'z' => starts_segment = false,
            b'0'..=b'9' | b'_' if !starts_segment => {}
            b'.' if !starts_segment => starts_segment = true,
            _ => return false,
        }
        at += 1;
    }
    !starts_segment && bytes.len() <= super::MAX_NAME_BYTES
}

/// Refuses a literal name that does not have the recommended form, while the program is compiled.
#[track_caller]
pub const fn check_literal(name: &'static str) -> &'static str {
    assert!(
        is_recommended(name),
        "a kastor name is lowercase segments of letters, digits and `_`, each starting with a letter, separated by \
         dots, like \"pipeline.plan\"; for a name that the program makes up at run time use `tele.scope(name)` or \
         `tele.counter(name, labels)`"
    );
    name
}
