//! Any bytes as a collector's answer, and as a request that comes back from disk.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz::otlp(bytes));
