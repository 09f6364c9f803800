//! What tests and the integration check need of the other side: a scripted OTLP server, a TCP proxy that breaks things,
//! and a patient way to wait. Nothing here uses the exporters
//! themselves.
#![allow(dead_code, reason = "each test uses its part")]

pub mod compare;
pub mod proxy;
pub mod server;
pub mod tls;

use std::{
    thread,
    time::{Duration, Instant},
};

/// Only ever an upper bound: nothing waits this long unless it is broken.
pub const LONG: Duration = Duration::from_secs(20);

/// Waits until `is_done` says so.
#[track_caller]
pub fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !is_done() {
        assert!(Instant::now() < until, "never came true: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
