//! Any bytes as a segment of the spool.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz::spool(bytes);
    fuzz::spool(&fuzz::with_checksums(bytes));
});
