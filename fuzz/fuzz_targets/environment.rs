//! Any text as environment variables and as certificates.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzz::environment(text));
