//! Any bytes as a capture that is converted into every other format.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz::replay(bytes);
    fuzz::replay(&fuzz::with_checksums(bytes));
});
