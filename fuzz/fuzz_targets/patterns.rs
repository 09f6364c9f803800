//! Any text as a pattern over names and a name.
#![no_main]

use kastor_cli::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzz::patterns(text));
