//! Keeps the records themselves in memory: for tests, and for analysis in the program.

use std::{fmt, sync::Arc};

use crate::{
    error::Error,
    event::{Batch, BatchFacts},
    health::{DropReason, Drops},
    reporter::{Accounts, Reporter},
    sync::{Held, Mutex, lock},
    thread::{Part, Thread},
};

/// Words of one block of memory: 256 KiB.
const BLOCK_WORDS: usize = (256 << 10) / 8;

/// A reporter that keeps up to `max_bytes` of records; what comes later is dropped and counted (`queue_full`).
///
/// A cheap handle: clones share what was recorded. It prefers batches, so the builder runs it in the background; call
/// [`Telemetry::flush`](crate::Telemetry::flush) before reading.
#[derive(Clone)]
pub struct Recording {
    state: Arc<Mutex<State>>,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    blocks: Vec<Vec<u64>>,
    parts: Vec<Stored>,
    bytes: usize,
    events: u64,
    dropped: u64,
}

/// One batch: where its words are, and what is needed to read them.
struct Stored {
    block: usize,
    from: usize,
    records: usize,
    flows: usize,
    events: u64,
    thread: Arc<Thread>,
    prefix: u64,
    facts: BatchFacts,
}

impl Recording {
    /// An empty recording that keeps at most so many bytes.
    pub fn new(max_bytes: usize) -> Self {
        Self { state: Arc::default(), max_bytes }
    }

    /// Number of events kept.
    pub fn len(&self) -> u64 {
        lock(&self.state).events
    }

    /// Whether nothing was kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of records kept.
    pub fn bytes(&self) -> usize {
        lock(&self.state).bytes
    }

    /// Events that found no room.
    pub fn dropped(&self) -> u64 {
        lock(&self.state).dropped
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *lock(&self.state) = State::default();
    }

    /// Calls `f` with each batch, in the order in which they arrived. Nothing is recorded in the meantime.
    pub fn for_each_batch(&self, mut f: impl FnMut(&Batch<'_>)) {
        let state = lock(&self.state);
        for stored in &state.parts {
            let Some(words) = state.blocks.get(stored.block).and_then(|block| block.get(stored.from..)) else {
                continue;
            };
            let Some((records, rest)) = words.split_at_checked(stored.records) else { continue };
            let Some(flows) = rest.get(..stored.flows) else { continue };
            let part = Part { records, flows, thread: &stored.thread, prefix: stored.prefix };
            f(&Batch::new(part, stored.events, stored.facts));
        }
    }
}

impl State {
    fn keep(&mut self, batch: &Batch<'_>, max_bytes: usize) {
        let part = batch.part();
        let words = part.records.len() + part.flows.len();
        if self.bytes + words * 8 > max_bytes {
            self.dropped += batch.len();
            return;
        }
        if self.blocks.last().is_none_or(|block| block.capacity() - block.len() < words) {
            self.blocks.push(Vec::with_capacity(BLOCK_WORDS.max(words)));
        }
        let block = self.blocks.len() - 1;
        if let Some(memory) = self.blocks.last_mut() {
            let from = memory.len();
            memory.extend_from_slice(part.records);
            memory.extend_from_slice(part.flows);
            self.parts.push(Stored {
                block,
                from,
                records: part.records.len(),
                flows: part.flows.len(),
                events: batch.len(),
                thread: Arc::clone(part.thread),
                prefix: part.prefix,
                facts: batch.facts(),
            });
        }
        self.bytes += words * 8;
        self.events += batch.len();
    }
}

impl Reporter for Recording {
    fn record_batch(&self, batch: &Batch<'_>) -> Result<(), Error> {
        lock(&self.state).keep(batch, self.max_bytes);
        Ok(())
    }

    fn accounts(&self) -> Option<Accounts> {
        // Someone who reads the recording may ask for the accounts meanwhile.
        let state = self.state.try_lock().ok()?;
        let mut dropped = Drops::default();
        dropped.add(DropReason::QueueFull, state.dropped);
        Some(Accounts { delivered: state.events, dropped, queued: 0, spooled: 0 })
    }

    fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(lock(&self.state)));
    }

    fn prefers_batches(&self) -> bool {
        true
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({} events, {} bytes)", self.len(), self.bytes())
    }
}
