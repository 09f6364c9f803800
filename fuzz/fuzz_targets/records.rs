//! Any bytes as the records of a block: both decoders of records, and everything that reads what they find.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz::records(bytes));
