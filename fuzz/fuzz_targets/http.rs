//! Any bytes as what a collector sends over HTTP, its head included.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz::http(bytes));
