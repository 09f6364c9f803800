//! Any text as the headers of W3C Trace Context.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzz::trace_context(text));
