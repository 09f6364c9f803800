//! The floors and the peers: a file for each library, a [`Peer`] for each of its configurations.

mod emit;
mod fastrace;
pub mod floor;
pub mod kastor;
mod metrics;
mod opentelemetry;
mod puffin;
mod tracing;
mod tracy;

use crate::case::Peer;
use crate::results::Sample;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Every configuration, in the order of the table. Floors come first: ratios need them.
pub fn all() -> Vec<Box<dyn Peer>> {
    let mut peers = floor::peers();
    peers.extend(kastor::peers());
    peers.extend(tracy::peers());
    peers.extend(fastrace::peers());
    peers.extend(puffin::peers());
    peers.extend(tracing::peers());
    peers.extend(opentelemetry::peers());
    peers.extend(emit::peers());
    peers.extend(metrics::peers());
    peers
}

/// The copied string attribute of every `scope2`, hidden from the optimiser.
#[inline(always)]
fn some_text() -> &'static str {
    std::hint::black_box("some text")
}

/// The usual verdict of a verification.
fn expect(what: &str, found: u64, expected: u64) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found} arrived, {expected} expected")) }
}

/// Counts what reaches the end of a peer's pipeline. Cases run one after the other, so what arrived since the
/// verification of the case before belongs to this one. A shard for each of the first threads, or the peers that
/// deliver inline would be slowed down by this counter when they run on two threads.
struct Arrivals {
    shards: [Shard; SHARDS],
    verified: AtomicU64,
}

#[repr(align(128))]
struct Shard(AtomicU64);

const SHARDS: usize = 16;

/// Which shard the calling thread counts in.
#[inline(always)]
fn shard_of_thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: Cell<usize> = const { Cell::new(usize::MAX) });
    let shard = SHARD.with(Cell::get);
    if shard < SHARDS {
        return shard;
    }
    let shard = THREADS.fetch_add(1, Relaxed) % SHARDS;
    SHARD.with(|cell| cell.set(shard));
    shard
}

impl Arrivals {
    const fn new() -> Arrivals {
        Arrivals { shards: [const { Shard(AtomicU64::new(0)) }; SHARDS], verified: AtomicU64::new(0) }
    }

    #[inline(always)]
    fn add(&self, number: u64) {
        self.shards[shard_of_thread()].0.fetch_add(number, Relaxed);
    }

    fn total(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.load(Relaxed)).sum()
    }

    /// To be called after the peer was flushed.
    fn expect(&self, expected: u64) -> Result<(), String> {
        let total = self.total();
        expect("events", total - self.verified.swap(total, Relaxed), expected)
    }
}

/// The names of the probes.
pub const PROBES: [&str; 3] = ["emit_cost_plain", "emit_cost_chaos", "refuse_1gib"];

/// A measurement of the gate that is no case: runs in a child and prints one sample.
pub type Probe = fn() -> Sample;

/// The probe of this name, if there is one.
pub fn probe(name: &str) -> Option<Probe> {
    kastor::probe(name)
}
