//! Any text as what may hold secrets.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzz::redaction(text));
