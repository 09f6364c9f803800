//! The accounts of one exporter in one process: every event that it accepted is in exactly one of these sums.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use kastor::{Accounts, DropReason, Drops};

/// Live sums. Events wait in memory (`queued`) or on disk (`spooled`) until they are delivered or dropped.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    delivered: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    queued: AtomicU64,
    spooled: AtomicU64,
}

impl Ledger {
    /// Accepted: they wait in memory.
    pub(crate) fn queue(&self, events: u64) {
        self.queued.fetch_add(events, SeqCst);
    }

    /// From memory to the other side.
    pub(crate) fn deliver_queued(&self, events: u64) {
        subtract(&self.queued, events);
        self.delivered.fetch_add(events, SeqCst);
    }

    /// From memory to nowhere.
    pub(crate) fn drop_queued(&self, reason: DropReason, events: u64) {
        subtract(&self.queued, events);
        self.drop(reason, events);
    }

    /// Dropped before they waited anywhere.
    pub(crate) fn drop(&self, reason: DropReason, events: u64) {
        if let Some(count) = self.dropped.get(reason as usize) {
            count.fetch_add(events, SeqCst);
        }
    }

    /// From memory to disk.
    pub(crate) fn spool_queued(&self, events: u64) {
        subtract(&self.queued, events);
        self.spooled.fetch_add(events, SeqCst);
    }

    /// From disk to the other side.
    pub(crate) fn deliver_spooled(&self, events: u64) {
        let events = subtract(&self.spooled, events);
        self.delivered.fetch_add(events, SeqCst);
    }

    /// From disk to nowhere. Never more than this process has there: the rest is another's.
    pub(crate) fn drop_spooled(&self, reason: DropReason, events: u64) {
        let events = subtract(&self.spooled, events);
        self.drop(reason, events);
    }

    pub(crate) fn queued(&self) -> u64 {
        self.queued.load(SeqCst)
    }

    pub(crate) fn spooled(&self) -> u64 {
        self.spooled.load(SeqCst)
    }

    /// Forgets everything: in a forked child, the past is the parent's.
    pub(crate) fn reset(&self) {
        let all = self.dropped.iter().chain([&self.delivered, &self.queued, &self.spooled]);
        all.for_each(|count| count.store(0, SeqCst));
    }

    pub(crate) fn read(&self) -> Accounts {
        let mut dropped = Drops::default();
        for (reason, count) in DropReason::ALL.into_iter().zip(&self.dropped) {
            dropped.add(reason, count.load(Relaxed));
        }
        let [delivered, queued, spooled] =
            [&self.delivered, &self.queued, &self.spooled].map(|count| count.load(SeqCst));
        Accounts { delivered, dropped, queued, spooled }
    }
}

/// Takes away as many as there are, at most so many; returns how many.
fn subtract(count: &AtomicU64, events: u64) -> u64 {
    let before = count.fetch_update(SeqCst, SeqCst, |count| Some(count.saturating_sub(events)));
    before.unwrap_or_else(|unchanged| unchanged).min(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_in_exactly_one_sum() {
        let ledger = Ledger::default();
        ledger.queue(100);
        ledger.deliver_queued(40);
        ledger.drop_queued(DropReason::NonRetryable, 10);
        ledger.spool_queued(30);
        ledger.deliver_spooled(5);
        // Of the 99 that were evicted, only 25 are this process's.
        ledger.drop_spooled(DropReason::SpoolFull, 99);
        ledger.drop(DropReason::Sampled, 7);
        let accounts = ledger.read();
        assert_eq!((accounts.delivered, accounts.queued, accounts.spooled), (45, 20, 0));
        assert_eq!(accounts.dropped.of(DropReason::NonRetryable), 10);
        assert_eq!(accounts.dropped.of(DropReason::SpoolFull), 25);
        assert_eq!(accounts.delivered + accounts.queued + accounts.spooled + accounts.dropped.total(), 107);
    }
}
