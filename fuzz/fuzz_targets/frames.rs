//! Any bytes as frames.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz::frames(bytes);
    fuzz::frames(&fuzz::with_checksums(bytes));
});
