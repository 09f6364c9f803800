//! Any bytes as a damaged capture that is checked and repaired.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz::repair(bytes);
    fuzz::repair(&fuzz::with_checksums(bytes));
});
