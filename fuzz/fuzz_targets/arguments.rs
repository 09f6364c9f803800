//! Any text as the arguments of the command, with its moments.
#![no_main]

use kastor_cli::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzz::arguments(text));
