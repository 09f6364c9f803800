//! Scopes whose parts the face keeps: ten bytes of ids, and a record that is written the short way.

use super::{Attributes, Outcome, Path, on_lane, with_attached};
use crate::{
    buffer,
    clock::raw_ticks,
    context::Telemetry,
    record::{self, flag as record_flag},
    scope::{finish, item_flags},
    stack::Carrier,
    sync::{
        AtomicU32, AtomicU64,
        Ordering::{Relaxed, Release},
    },
    thread::{FORKS, Lane, Thread, block, lane_flag},
};

/// The ids of a scope: its sequence number and its root's, and the epoch in which they were drawn.
///
/// An epoch is a thread under one prefix: a new thread, a fork and a wrap of the sequence begin another. The last 65,535
/// are known; a scope that outlives its epoch by more gets ids that nobody else knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// The scope's sequence number.
    pub span: u32,
    /// Its root's; its own for a root.
    pub root: u32,
    /// When and where both were drawn; never zero.
    pub epoch: u16,
}

/// A scope that closes.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Its path.
    pub path: Path,
    /// Number of scopes above it.
    pub depth: u32,
    /// Its ids, of the epoch in which it closes.
    pub ids: Ids,
    /// The sequence number of the scope around it, of the same epoch; 0 for a root.
    pub parent: u32,
    /// When it began and ended, in ticks.
    pub ticks: (u64, u64),
    /// Whether the scope around it goes on meanwhile, in another flow: then this time is no part of its time.
    pub is_detached: bool,
}

/// What is known of an epoch.
struct Epoch {
    prefix: AtomicU64,
    /// Of the thread, by the operating system's count.
    thread: AtomicU64,
    forks: AtomicU32,
}

static EPOCHS: [Epoch; 1 << 16] =
    [const { Epoch { prefix: AtomicU64::new(0), thread: AtomicU64::new(0), forks: AtomicU32::new(0) } }; 1 << 16];

/// Draws the ids of a scope on this thread: `root` is its own number, for the face to replace. None if the context is off.
#[inline]
pub fn draw(telemetry: &Telemetry) -> Option<Ids> {
    block(|t| {
        let lane = on_lane(t, telemetry)?;
        if t.is_worn() {
            buffer::renew_sequence(t, &lane.thread);
        }
        let span = t.draw();
        Some(Ids { span, root: span, epoch: epoch(&lane.thread) })
    })
}

/// Reads the context's clock; 0 if it is off. The tick counts as this thread's newest.
#[inline]
pub fn tick(telemetry: &Telemetry) -> u64 {
    block(|t| {
        let Some(lane) = on_lane(t, telemetry) else { return 0 };
        let is_counter = lane.cursor.flags.load(Relaxed) & lane_flag::SLOW_CLOCK == 0;
        let tick = if is_counter { raw_ticks() } else { lane.sink.ticks() };
        t.last_tick.set(tick);
        tick
    })
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was written.
    Yes,
    /// It was not: the context is off.
    Off,
    /// It was not: its ids are of another epoch than this thread's. A [`Frame`](super::Frame) takes it.
    Elsewhere,
}

/// Records a scope whose ids are of this thread's current epoch.
#[inline]
pub fn record(telemetry: &Telemetry, scope: &Scope) -> Recorded {
    block(|t| {
        let Some(lane) = on_lane(t, telemetry) else { return Recorded::Off };
        if !is_here(scope.ids, lane) {
            return Recorded::Elsewhere;
        }
        let cursor = &lane.cursor;
        let (start, end) = scope.ticks;
        let duration = end.saturating_sub(start);
        let position = cursor.position.load(Relaxed);
        let unusual = u64::from(cursor.flags.load(Relaxed) & lane_flag::INLINE) | duration >> 32;
        if unusual != 0 || scope.path.is_deeper() || position > cursor.last.get() {
            return record_with(telemetry, scope, Outcome::Completed, |_| {});
        }
        let flags = if scope.is_detached { record_flag::DETACHED } else { 0 };
        let words = [
            record::head(scope.path, flags, record::TIMING, record::WORDS),
            record::pair(scope.ids.span, scope.parent),
            record::pair(scope.ids.root, duration as u32),
            start,
        ];
        // SAFETY: there is room for four words up to the end, since the position is not beyond `last`; only the owner
        // touches them until they are published by the store below.
        unsafe {
            position.cast::<[u64; record::WORDS]>().write(words);
            cursor.position.store(position.add(record::WORDS), Release);
        }
        Recorded::Yes
    })
}

/// The same, with attributes and an outcome that is not [`Outcome::Discarded`].
pub fn record_with(
    telemetry: &Telemetry,
    scope: &Scope,
    outcome: Outcome<'_>,
    attach: impl FnOnce(&mut Attributes<'_>),
) -> Recorded {
    block(|t| {
        let Some(lane) = on_lane(t, telemetry) else { return Recorded::Off };
        if !is_here(scope.ids, lane) {
            return Recorded::Elsewhere;
        }
        with_attached(t, attach, |items| {
            outcome.mark(items);
            let detached = if scope.is_detached { record_flag::DETACHED } else { 0 };
            let (flags, Ids { span, root, .. }) = (item_flags(lane, items) | detached, scope.ids);
            let times = (scope.ticks.0, scope.ticks.1.saturating_sub(scope.ticks.0));
            let front = buffer::timing_front((scope.path, scope.depth), (span, scope.parent, root), times, flags);
            finish(lane, front, items, &[]);
        });
        Recorded::Yes
    })
}

impl Ids {
    /// The ids in full, for a scope of this path with so many levels.
    pub fn carrier(self, path: Path, levels: u32) -> Carrier {
        let prefix = self.known().map_or(0, |epoch| epoch.prefix.load(Relaxed));
        let root = Carrier::native(path, self.root, prefix);
        Carrier::native(path, self.span, prefix).in_trace_of(&root, levels)
    }

    /// Whether they were drawn in this process, and not in the one that it was forked from.
    pub fn are_of_this_process(self) -> bool {
        self.known().is_some_and(|epoch| epoch.forks.load(Relaxed) == FORKS.load(Relaxed))
    }

    /// The operating system's number of the thread they were drawn on.
    pub fn thread_os_id(self) -> u64 {
        self.known().map_or(0, |epoch| epoch.thread.load(Relaxed))
    }

    fn known(self) -> Option<&'static Epoch> {
        EPOCHS.get(usize::from(self.epoch))
    }
}

/// The number of the epoch in which this thread is now.
#[inline]
pub(super) fn epoch(thread: &Thread) -> u16 {
    match thread.epoch.load(Relaxed) {
        0 => begin_epoch(thread),
        number => number as u16,
    }
}

/// Whether ids belong to the epoch of a lane's thread.
#[inline]
pub(super) fn is_here(ids: Ids, lane: &Lane) -> bool {
    ids.epoch == epoch(&lane.thread)
}

#[cold]
fn begin_epoch(thread: &Thread) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Zero is nobody's.
    let number = (NEXT.fetch_add(1, Relaxed) % u32::from(u16::MAX) + 1) as u16;
    if let Some(epoch) = EPOCHS.get(usize::from(number)) {
        epoch.prefix.store(thread.prefix.load(Relaxed), Relaxed);
        epoch.thread.store(thread.os_id, Relaxed);
        epoch.forks.store(FORKS.load(Relaxed), Relaxed);
    }
    thread.epoch.store(number.into(), Relaxed);
    number
}
