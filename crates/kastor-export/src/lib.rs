//! Reporters for [`kastor`] that reach the world: files, sockets, formats.
//!
//! A program that only records links the core alone; this crate is for the program that wants its events elsewhere.
//! Every exporter is the same two things: a configuration, and an encoder from [`Batch`](kastor::Batch) or
//! [`Snapshot`](kastor::Snapshot) to bytes. What must be hard once (bounded queues, retry, disk) exists once.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod capture;
mod frame;
mod fs;
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod simulated;
#[cfg_attr(not(test), allow(dead_code, reason = "the delivery engine is what uses it"))]
mod spool;

pub use crate::spool::SpoolConfig;
