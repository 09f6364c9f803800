//! The queue on disk, as the engine sees it, and what an entry of it looks like.
//!
//! ```text
//! byte 0      version, 1
//! byte 1      signal: 0 traces, 1 metrics
//! byte 2..18  instance id of the process that wrote it, little-endian
//! byte 18..   the body of the request
//! ```

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

use kastor::{Error, Held};

use super::{Request, Signal};
use crate::spool::{EntryId, Spool, SpoolConfig};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 18;

/// A queue on disk with one reader.
pub(crate) trait Store: Send + Sync {
    /// Appends; returns how many older events had to go.
    fn append(&self, payload: &[u8], events: u64) -> Result<u64, Error>;
    /// Returns once what was appended is durable.
    fn sync(&self) -> Result<(), Error>;
    /// The oldest entry; it stays until it is acknowledged.
    fn next(&self) -> Option<Entry>;
    /// Removes the entry that `next` returned last.
    fn acknowledge(&self) -> Result<(), Error>;
    /// Events that were found damaged so far.
    fn corrupt_events(&self) -> u64;
    /// Events that were taken over from other processes so far.
    fn adopted_events(&self) -> u64;
}

pub(crate) struct Entry {
    pub(crate) payload: Vec<u8>,
    pub(crate) events: u64,
}

/// The crate's own spool as a store. A forked child goes on with the same, emptied.
pub(crate) struct SpoolStore {
    spool: Spool,
    in_hand: Mutex<Option<EntryId>>,
    /// The process whose events are in there.
    process_id: AtomicU32,
}

impl SpoolStore {
    pub(crate) fn open(config: &SpoolConfig) -> Result<Self, Error> {
        let process_id = AtomicU32::new(std::process::id());
        Ok(Self { spool: Spool::open(config)?, in_hand: Mutex::default(), process_id })
    }

    pub(crate) fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(self.lock()));
        self.spool.hold_for_fork(held);
    }

    /// Whether this process opened it, or began anew with it.
    pub(crate) fn is_own(&self) -> bool {
        self.process_id.load(SeqCst) == std::process::id()
    }

    /// In a forked child: what is in there is the parent's.
    pub(crate) fn begin_anew(&self) -> Result<(), Error> {
        *self.lock() = None;
        self.spool.begin_anew()?;
        self.process_id.store(std::process::id(), SeqCst);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<EntryId>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpoolStore {
    /// Events that wait.
    pub(crate) fn events(&self) -> u64 {
        self.spool.totals().events
    }
}

impl Store for SpoolStore {
    fn append(&self, payload: &[u8], events: u64) -> Result<u64, Error> {
        self.spool.append(payload, events).map(|appended| appended.evicted_events)
    }

    fn sync(&self) -> Result<(), Error> {
        self.spool.sync()
    }

    fn next(&self) -> Option<Entry> {
        let entry = self.spool.next()?;
        *self.lock() = Some(entry.id);
        Some(Entry { payload: entry.payload, events: entry.events })
    }

    fn acknowledge(&self) -> Result<(), Error> {
        let id = self.lock().take();
        id.map_or(Ok(()), |id| self.spool.acknowledge(id))
    }

    fn corrupt_events(&self) -> u64 {
        self.spool.totals().corrupt_events
    }

    fn adopted_events(&self) -> u64 {
        self.spool.totals().adopted_events
    }
}

/// Tells a store's losses of this process from those of others, whose events it took over. Theirs are older, so theirs
/// go first.
#[derive(Default)]
pub(super) struct Others {
    /// Events of others that are delivered or lost.
    settled: AtomicU64,
    known_corrupt: AtomicU64,
}

impl Others {
    /// So many events of others were delivered, or refused for good.
    pub(super) fn settle(&self, events: u64) {
        self.settled.fetch_add(events, SeqCst);
    }

    /// Of events that were lost, how many are this process's.
    pub(super) fn own_share(&self, store: &dyn Store, lost: u64) -> u64 {
        let of_others = store.adopted_events().saturating_sub(self.settled.load(SeqCst)).min(lost);
        self.settle(of_others);
        lost - of_others
    }

    /// Own events that were found damaged since this was asked last.
    pub(super) fn newly_corrupt(&self, store: &dyn Store) -> u64 {
        let now = store.corrupt_events();
        let lost = now.saturating_sub(self.known_corrupt.swap(now, SeqCst));
        if lost == 0 { 0 } else { self.own_share(store, lost) }
    }
}

pub(super) fn encode(request: &Request, instance_id: u128) -> Vec<u8> {
    let mut payload = Vec::with_capacity(HEAD_BYTES + request.body().len());
    payload.extend_from_slice(&[VERSION, request.signal as u8]);
    payload.extend_from_slice(&instance_id.to_le_bytes());
    payload.extend_from_slice(request.body());
    payload
}

/// None if it was written by something else.
pub(crate) fn decode(payload: Vec<u8>, events: u64) -> Option<(Request, u128)> {
    let (&[version, signal, ref instance_id @ ..], _) = payload.split_first_chunk::<HEAD_BYTES>()?;
    let signal = *Signal::ALL.get(usize::from(signal)).filter(|_| version == VERSION)?;
    let instance_id = u128::from_le_bytes(*instance_id);
    Some((Request { signal, bytes: payload, from: HEAD_BYTES, events }, instance_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_anything_else_is_refused() {
        let request = Request { signal: Signal::Metrics, bytes: b"..body".to_vec(), from: 2, events: 3 };
        let payload = encode(&request, 0xfeed);
        let (read, instance_id) = decode(payload.clone(), 3).unwrap();
        assert_eq!((read.signal, read.body(), read.events, instance_id), (Signal::Metrics, &b"body"[..], 3, 0xfeed));
        for broken in [&payload[..17], &[2][..], &[]] {
            assert!(decode(broken.to_vec(), 1).is_none());
        }
        let mut unknown = payload;
        unknown[1] = 2;
        assert!(decode(unknown, 1).is_none());
    }
}
