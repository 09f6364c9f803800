//! What must not compile, and the sentence that the compiler says instead.
//!
//! After a change of a message, or with a new stable compiler, `TRYBUILD=overwrite cargo test -p kastor --test compile_fail`
//! writes the expected texts anew; read the difference before it goes in.

#[test]
#[cfg_attr(miri, ignore = "runs the compiler")]
fn compile_fail_says_what_is_wrong() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
