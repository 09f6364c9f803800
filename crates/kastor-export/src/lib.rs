//! Reporters for [`kastor`] that reach the world: files, sockets, formats.
//!
//! A program that only records links the core alone; this crate is for the program that wants its events elsewhere.
//! Every exporter is the same two things: a configuration, and an encoder from [`Batch`](kastor::Batch) or
//! [`Snapshot`](kastor::Snapshot) to bytes. What must be hard once (bounded queues, retry, disk) exists once.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod axis;
pub mod chrome;
mod flows;
pub mod folded;
mod front;
pub mod perfetto;
mod sink;
mod tracks;
