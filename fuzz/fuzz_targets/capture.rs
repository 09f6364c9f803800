//! Any bytes as a capture; and once more with all checksums right, which no fuzzer finds by itself.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz::capture(bytes);
    fuzz::capture(&fuzz::with_checksums(bytes));
});
