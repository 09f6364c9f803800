//! The lane of a thread into a context: the cursor of its chunk, its metric cells.
//!
//! The owner writes records and publishes its position with one Release store. Everyone else takes `claim` and reads
//! what lies between the claimed position and the published one; the owner takes `claim` too before it replaces or
//! reuses the chunk. So a record is claimed exactly once, and nothing that someone reads is overwritten.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    ptr::{self, NonNull},
    sync::Arc,
};

use super::{Chunk, MAX_CHUNK_WORDS, Thread};
use crate::{
    health::DropReason,
    name::Path,
    record,
    sampler::Sampler,
    sync::{AtomicPtr, AtomicU32, Mutex, Ordering::*, fence, global},
    value::{MetricType, Value},
};

/// Flags of [`Cursor::flags`]: anything set sends opening and closing to the cold path.
pub(crate) mod lane_flag {
    /// There is no lane here.
    pub(crate) const VACANT: u32 = 1;
    /// The context is switched off or shut down.
    pub(crate) const OFF: u32 = 2;
    /// The context has inline reporters.
    pub(crate) const INLINE: u32 = 4;
    /// The context does not tick by the processor's counter.
    pub(crate) const SLOW_CLOCK: u32 = 8;
    /// The process is a forked child that has not emitted yet.
    pub(crate) const FORKED: u32 = 16;
    /// Closed scopes wait under open ones on this thread: closing looks for them.
    pub(crate) const DISORDER: u32 = 32;
    /// Sequence numbers are about to run out.
    pub(crate) const WORN: u32 = 64;
    /// Every root asks whether its trace is recorded: no scope is opened the short way.
    pub(crate) const ROOTS_ASK: u32 = 128;
    /// What the owner sets and clears; the rest is the context's.
    pub(crate) const OF_OWNER: u32 = FORKED | DISORDER | WORN;
    /// What does not keep metrics from being recorded the short way.
    pub(crate) const HARMLESS_TO_COUNT: u32 = SLOW_CLOCK | DISORDER | WORN | ROOTS_ASK;
    /// What does not keep scopes from being opened the short way.
    pub(crate) const HARMLESS_TO_OPEN: u32 = INLINE | DISORDER;
}

/// The part of a lane that the hot path touches.
#[repr(C, align(64))]
pub(crate) struct Cursor {
    pub(crate) flags: AtomicU32,
    /// The lane's number, where frames carry it.
    pub(crate) word: u32,
    /// The same with the flag of a scope that is opened with attributes.
    pub(crate) word_with_items: u32,
    /// Where the next record goes; everything before it is published.
    pub(crate) position: AtomicPtr<u64>,
    /// The last place where a record without extras fits; before the chunk if none does.
    pub(crate) last: Cell<*mut u64>,
    /// Metric records since the chunk was begun, and the words of them: number << 32 | words. Owner only.
    pub(crate) metrics: Cell<u64>,
    /// One slot per metric callsite and handle.
    pub(crate) cells: Cell<*const CellSlot>,
    /// Slots that may be used without asking: none while the lane is off or serves inline reporters. Others set it to 0.
    pub(crate) cells_len: AtomicU32,
    /// The context's number; 0 for none.
    pub(crate) context_id: u64,
}

// SAFETY: `last`, `metrics` and `cells` belong to the owning thread; the vacant cursor's are never written.
unsafe impl Sync for Cursor {}
// SAFETY: as above.
unsafe impl Send for Cursor {}

global! {
    /// What `Block::lane` points to before there is a lane.
    pub(crate) static VACANT: Cursor = Cursor {
        flags: AtomicU32::new(lane_flag::VACANT),
        word: 0,
        word_with_items: super::flag::ITEMS,
        position: AtomicPtr::new(ptr::null_mut()),
        last: Cell::new(ptr::null_mut()),
        metrics: Cell::new(0),
        cells: Cell::new(ptr::null()),
        cells_len: AtomicU32::new(0),
        context_id: 0,
    };
}

/// The cell that a metric callsite used last on this lane.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct CellSlot {
    /// What it was for: the path of a callsite's scope, or a handle's serial number; `u32::MAX` while unused.
    pub(crate) key: u32,
    /// The cell; opaque here, `aggregate` knows it. Dangling while unused.
    pub(crate) cell: NonNull<()>,
}

/// A thread's way into a context.
#[repr(C)]
pub(crate) struct Lane {
    pub(crate) cursor: Cursor,
    pub(crate) claim: Mutex<Claim>,
    /// Number of flows that the chunk holds at its end; published before the records that use them.
    pub(crate) flows: AtomicU32,
    pub(crate) thread: Arc<Thread>,
    pub(crate) sink: Arc<dyn Sink>,
    /// The metric cells of this thread; the owner's alone, `aggregate` knows the type.
    pub(crate) cells: RefCell<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `cells` and the cursor's pointers belong to the owning thread until it ends; everything else is atomic or
// locked.
unsafe impl Sync for Lane {}
// SAFETY: as above.
unsafe impl Send for Lane {}

/// The chunk, and how far others have read it.
pub(crate) struct Claim {
    pub(crate) chunk: Chunk,
    /// Words from the chunk's start that were aggregated, and that were delivered: the latter never are ahead.
    pub(crate) absorbed: usize,
    pub(crate) delivered: usize,
    /// Number of records between the two.
    pub(crate) undelivered: u64,
    /// The thread's prefix when the chunk was begun.
    pub(crate) prefix: u64,
}

/// A run of published records with what is needed to read them.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) records: &'a [u64],
    pub(crate) flows: &'a [u64],
    pub(crate) thread: &'a Arc<Thread>,
    pub(crate) prefix: u64,
}

/// A run of records that has left its thread: a chunk of its own.
pub(crate) struct Delivery {
    pub(crate) chunk: Chunk,
    /// Words from the chunk's start to the first record and behind the last.
    pub(crate) from: usize,
    pub(crate) used: usize,
    /// Words of the flow table at the chunk's end.
    pub(crate) flows: usize,
    pub(crate) thread: Arc<Thread>,
    pub(crate) prefix: u64,
    /// Number of records.
    pub(crate) events: u64,
}

impl Delivery {
    /// Copies a part out of a chunk that its owner goes on using.
    pub(crate) fn copied(part: Part<'_>, events: u64) -> Self {
        let (used, flows) = (part.records.len(), part.flows.len());
        // Whoever claims a chunk that is just full copies it whole. Such a copy is made a little longer, for it must not be
        // taken for one to use again: nobody who fills chunks would use it up, and the pool would only grow.
        let is_like_pooled = used + flows == MAX_CHUNK_WORDS;
        let chunk = Chunk::with_words(used + flows + usize::from(is_like_pooled));
        // SAFETY: the new chunk has room for both, the flows at its end, and nobody else knows it yet.
        unsafe {
            ptr::copy_nonoverlapping(part.records.as_ptr(), chunk.words(), used);
            ptr::copy_nonoverlapping(part.flows.as_ptr(), chunk.words().add(chunk.capacity() - flows), flows);
        }
        Self { chunk, from: 0, used, flows, thread: Arc::clone(part.thread), prefix: part.prefix, events }
    }

    /// The records with what is needed to read them.
    pub(crate) fn part(&self) -> Part<'_> {
        let capacity = self.chunk.capacity();
        // SAFETY: the chunk left its thread behind: nobody writes it while the delivery exists.
        let (records, flows) =
            unsafe { (self.chunk.slice(self.from, self.used), self.chunk.slice(capacity - self.flows, capacity)) };
        Part { records, flows, thread: &self.thread, prefix: self.prefix }
    }

    /// Memory that it holds: its chunk, itself, and what the allocator and the queue add.
    pub(crate) fn bytes(&self) -> usize {
        self.chunk.capacity() * 8 + 2 * size_of::<Self>()
    }
}

/// One call of `count`, `gauge` or `histogram`.
pub(crate) struct Call<'a> {
    pub(crate) path: Path,
    pub(crate) depth: u32,
    pub(crate) metric_type: MetricType,
    pub(crate) value: Value<'a>,
    pub(crate) labels: &'a [u64],
    pub(crate) tick: u64,
}

/// Which metric cell is wanted, and the slot that shall remember it.
pub(crate) struct CellWanted<'a> {
    pub(crate) path: Path,
    pub(crate) metric_type: MetricType,
    pub(crate) labels: &'a [u64],
    /// Index and key of the slot, if there is one.
    pub(crate) slot: Option<(u32, u32)>,
}

/// Where a lane's records go: a context, as its lanes see it.
pub(crate) trait Sink: Send + Sync {
    /// Distinguishes contexts.
    fn id(&self) -> u64;
    /// Flags that lanes have now.
    fn lane_flags(&self) -> u32;
    /// Whether nobody can reach the context any more.
    fn is_dead(&self) -> bool;
    /// Whether scopes of this name are on.
    fn wants(&self, name: &str) -> bool;
    /// The context's clock.
    fn ticks(&self) -> u64;
    /// Nanoseconds since a tick of that clock.
    fn age_ns(&self, ticks: u64) -> u64;
    /// Which traces are recorded.
    fn sampler(&self) -> Sampler;
    /// Whether the trace of a root that opens now is recorded, as far as that is for the root to decide.
    fn takes_root(&self) -> bool;
    /// Whether dynamic names must have the recommended form.
    fn is_strict(&self) -> bool;
    /// Aggregates the records; returns how many there are.
    fn absorb(&self, part: Part<'_>) -> u64;
    /// The same for so many metric records, of which only the number matters.
    fn absorb_metrics(&self, metrics: u64);
    /// Whether anyone takes deliveries.
    fn takes_deliveries(&self) -> bool;
    /// Whether a delivery finds room, where reporters are to be waited for; without such, always.
    fn has_room(&self) -> bool;
    /// Hands records on, or drops and counts them; not where there was room for them just before, and another thread
    /// was quicker.
    fn deliver(&self, delivery: Delivery, had_room: bool);
    /// Where a full queue may make the emitting thread wait: called without a lock held. Returns whether there is room.
    fn wait_for_room(&self) -> bool;
    /// Serves the inline reporters with the one record that was just written.
    fn inline(&self, part: Part<'_>);
    /// Serves the inline reporters with a call of an aggregated instrument.
    fn inline_call(&self, lane: &Lane, call: &Call<'_>);
    /// Ticks as nanoseconds.
    fn duration_ns(&self, ticks: u64) -> u64;
    /// Puts a new metric cell into the lane, or finds it; opaque here, as in [`CellSlot`].
    fn cell(&self, lane: &Lane, wanted: &CellWanted<'_>) -> *const ();
    /// An event came that the context cannot take, or no longer takes.
    fn refused(&self, reason: DropReason);
    /// The same, if that is because the context was shut down.
    fn refused_if_over(&self);
    /// Values of an event were cut or left out.
    fn cut(&self, values: u32);
    /// The lane's thread ends: its metric cells leave.
    fn end_lane(&self, lane: &Lane);
}

impl Cursor {
    /// Where records must end.
    #[inline(always)]
    pub(crate) fn end(&self) -> *mut u64 {
        self.last.get().wrapping_add(record::WORDS)
    }

    /// Says where records must end.
    pub(crate) fn set_end(&self, end: *mut u64) {
        self.last.set(end.wrapping_sub(record::WORDS));
    }

    /// Lets the hot paths use these slots unless the lane is off or serves inline reporters. Owner only.
    pub(crate) fn offer(&self, slots: &[CellSlot]) {
        let is_off = || self.flags.load(Relaxed) & !lane_flag::HARMLESS_TO_COUNT != 0;
        self.cells.set(slots.as_ptr());
        self.cells_len.store(if is_off() { 0 } else { slots.len() as u32 }, Relaxed);
        // Orders the length before the flags; `follow` does the reverse, so that one of the two sees the other.
        fence(SeqCst);
        if is_off() {
            self.cells_len.store(0, Relaxed);
        }
    }

    /// Takes over what the context says now. From any thread that holds the lock of the lanes' list.
    pub(crate) fn follow(&self, sink: &dyn Sink) {
        // Always some: the update cannot fail.
        let _ = self.flags.fetch_update(Release, Relaxed, |old| Some(old & lane_flag::OF_OWNER | sink.lane_flags()));
        fence(SeqCst);
        self.cells_len.store(0, Relaxed);
    }

    /// Counts a metric record of so many words. Owner only.
    #[inline(always)]
    pub(crate) fn count_metric(&self, words: usize) {
        self.metrics.set(self.metrics.get().wrapping_add(1 << 32 | words as u64));
    }

    /// The number of records in the chunk, if these words of it, from its start, are metric records alone. Owner only.
    pub(crate) fn only_metrics(&self, words: usize) -> Option<u64> {
        let metrics = self.metrics.get();
        (metrics as u32 as usize == words).then_some(metrics >> 32)
    }

    /// Bytes between the position and the end. Owner only.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        (self.end() as usize).saturating_sub(self.position.load(Relaxed) as usize)
    }
}

impl Lane {
    /// What frames carry.
    pub(crate) fn number(&self) -> usize {
        (self.cursor.word >> super::flag::LANE_SHIFT) as usize
    }

    /// A lane with an empty chunk, numbered for frames.
    pub(crate) fn new(number: u8, chunk: Chunk, thread: Arc<Thread>, sink: Arc<dyn Sink>) -> Self {
        let words = chunk.words();
        Self {
            cursor: Cursor {
                flags: AtomicU32::new(sink.lane_flags()),
                word: u32::from(number) << super::flag::LANE_SHIFT,
                word_with_items: u32::from(number) << super::flag::LANE_SHIFT | super::flag::ITEMS,
                position: AtomicPtr::new(words),
                last: Cell::new(words.wrapping_add(chunk.capacity()).wrapping_sub(record::WORDS)),
                metrics: Cell::new(0),
                cells: Cell::new(ptr::null()),
                cells_len: AtomicU32::new(0),
                context_id: sink.id(),
            },
            claim: Mutex::new(Claim {
                chunk,
                absorbed: 0,
                delivered: 0,
                undelivered: 0,
                prefix: thread.prefix.load(Relaxed),
            }),
            flows: AtomicU32::new(0),
            thread,
            sink,
            cells: RefCell::new(None),
        }
    }
}
