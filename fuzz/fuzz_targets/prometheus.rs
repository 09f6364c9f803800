//! Any bytes as the head of a request to the Prometheus endpoint, and as an `Accept` header.
#![no_main]

use kastor_export::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz::prometheus_request(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        fuzz::prometheus_accept(text);
    }
});
