//! The one thread-local block: data, no policy.
//!
//! It is const-initialised and has no destructor, so that reaching it costs one address; `lane` points to a vacant
//! stand-in until the thread is set up, whose flags lead every hot path to its cold twin. What must be undone when the
//! thread ends hangs on a second thread-local that is touched on first use only.
//!
//! ```text
//! Block (thread-local)          Frame (32 bytes, per open scope)        Lane (per thread and context)
//!   current ──────────────────▶   link ──▶ the scope around it            flags, position, end   the chunk's cursor
//!   free    ──▶ unused frames     start, path, span, root                 cells                  metric cells
//!   lane    ──▶ current lane      word = flags | lane                    claim: Mutex<Claim>    the chunk itself
//!   hot_slots   metric cells
//! ```

mod chunk;
mod frame;
mod hot_slots;
mod items;
mod lane;

use std::{
    cell::Cell,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    marker::PhantomData,
    ptr,
    sync::{Arc, OnceLock},
};

use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering::Relaxed};

pub(crate) use self::{
    chunk::{Chunk, FLOW_WORDS, Flow, MAX_CHUNK_WORDS, MIN_CHUNK_WORDS, put},
    frame::{Frame, HOT_MASK, Segment, flag},
    hot_slots::HotSlots,
    items::{FRONT_WORDS, ItemBuffer, TaggedItems},
    lane::{Call, CellSlot, CellWanted, Claim, Cursor, Delivery, Lane, Part, Sink, VACANT, lane_flag},
};

/// What the current thread knows. Two cache lines, and the slots of metric cells.
pub(crate) struct Block {
    /// Innermost open scope of this flow; `base` when there is none, and a stand-in for that until the thread is set up.
    pub(crate) current: Cell<*const Frame>,
    /// Frames that wait to be used, linked.
    pub(crate) free: Cell<*const Frame>,
    /// The lane of the current context.
    pub(crate) lane: Cell<*const Cursor>,
    /// What others see of this thread; null until it is set up and after its end.
    pub(crate) thread: Cell<*const Thread>,
    /// All lanes of this thread, by the number that frames carry.
    pub(crate) lanes: Cell<*const *const Lane>,
    pub(crate) lanes_len: Cell<u32>,
    /// Item buffers that wait to be used, linked.
    pub(crate) items: Cell<TaggedItems>,
    /// Levels of `current`, kept only while its path ends at the limits; see `stack::levels`.
    pub(crate) deep_levels: Cell<u32>,
    /// Closed scopes that wait under open ones.
    pub(crate) waiting: Cell<u32>,
    /// The tick at which the newest scope closed.
    pub(crate) last_tick: Cell<u64>,
    /// Whether an inline reporter is being served: events from inside it are not delivered to it again.
    pub(crate) delivering: Cell<bool>,
    /// Whether the thread is past its last event.
    pub(crate) ended: Cell<bool>,
    /// Stand-ins whose future is done while scopes of it are open.
    pub(crate) abandoned: Cell<u32>,
    /// References to lanes that user code may outrun: while there are any, no lane is dropped.
    pub(crate) pins: Cell<u32>,
    /// The current context, if a guard chose one for this thread: opaque here, the context's own business.
    pub(crate) chosen: Cell<*const ()>,
    /// Stands for "no scope is open". Its `root` is the next sequence number: a scope that is opened under it takes that
    /// for its root, like any child takes its parent's.
    pub(crate) base: Frame,
    /// Metric cells of the current lane.
    pub(crate) hot_slots: HotSlots,
}

/// What `Block::current` points to before the thread is set up: no scope, like the base.
static NOT_SET_UP: NotSetUp = NotSetUp(Frame::new());

struct NotSetUp(Frame);

// SAFETY: nobody writes it.
unsafe impl Sync for NotSetUp {}

thread_local! {
    static BLOCK: Block = const {
        Block {
            current: Cell::new(&raw const NOT_SET_UP.0),
            free: Cell::new(ptr::null()),
            lane: Cell::new(&raw const lane::VACANT),
            thread: Cell::new(ptr::null()),
            lanes: Cell::new(ptr::null()),
            lanes_len: Cell::new(0),
            items: Cell::new(ptr::null_mut()),
            deep_levels: Cell::new(0),
            waiting: Cell::new(0),
            last_tick: Cell::new(0),
            delivering: Cell::new(false),
            ended: Cell::new(false),
            abandoned: Cell::new(0),
            pins: Cell::new(0),
            chosen: Cell::new(ptr::null()),
            base: Frame::base(),
            hot_slots: HotSlots::new(),
        }
    };
}

thread_local! {
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread as one of the library's own.
pub(crate) fn mark_as_own() {
    IS_OWN.with(|own| own.set(true));
}

/// Whether the current thread is one of the library's own.
pub(crate) fn is_own() -> bool {
    IS_OWN.with(Cell::get)
}

/// What a forked child adds to the random seed that it shares with its parent.
static FORK_SEED: AtomicU64 = AtomicU64::new(0);

/// Different in every run and in every forked child: random, from the operating system.
pub(crate) fn process_seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| RandomState::new().build_hasher().finish());
    seed.wrapping_add(FORK_SEED.load(Relaxed))
}

/// In a forked child: its seed is its own from now on. Its number alone would not do, since numbers come again.
pub(crate) fn reseed(now_ns: u64) {
    let own = now_ns ^ u64::from(std::process::id()).rotate_right(32);
    FORK_SEED.store(FORK_SEED.load(Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(own), Relaxed);
}

/// How often this process is a forked child: what was opened before belongs to the parent.
pub(crate) static FORKS: AtomicU32 = AtomicU32::new(0);

/// See [`Block::pin`].
pub(crate) struct Pin<'t>(&'t Block);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.pins.set(self.0.pins.get().wrapping_sub(1));
    }
}

impl Block {
    /// Keeps this thread's lanes in place while user code runs.
    pub(crate) fn pin(&self) -> Pin<'_> {
        self.pins.set(self.pins.get().wrapping_add(1));
        Pin(self)
    }

    /// The next sequence number of this thread.
    #[inline(always)]
    pub(crate) fn draw(&self) -> u32 {
        let sequence = self.base.root.get();
        self.base.root.set(sequence.wrapping_add(1));
        sequence
    }

    /// Whether sequence numbers are about to run out. Some are left for aliases.
    pub(crate) fn is_worn(&self) -> bool {
        self.base.root.get() > u32::MAX - (1 << 20)
    }

    /// The newest tick that this thread read: its last scope's end or its current scope's start.
    #[inline(always)]
    pub(crate) fn newest_tick(&self) -> u64 {
        self.last_tick.get().max(self.scope().start.load(Relaxed))
    }

    /// The innermost open scope, or what stands for none.
    #[inline(always)]
    pub(crate) fn scope(&self) -> &Frame {
        // SAFETY: the base, or what stands for it before the thread is set up, or an open frame of this thread.
        unsafe { &*self.current.get() }
    }

    /// Makes another lane the current one.
    pub(crate) fn set_lane(&self, lane: *const Cursor) {
        if self.lane.replace(lane) != lane {
            self.hot_slots.clear();
        }
    }
}

/// Calls `f` with this thread's block. Works during the thread's teardown too.
#[inline(always)]
pub(crate) fn block<R>(f: impl FnOnce(&Block) -> R) -> R {
    f(Here::new().block())
}

/// What leads to this thread's block without a closure. For what is inlined into callsites: a closure there becomes a
/// function as soon as several callsites share it, and then no longer knows what kinds of values it is given.
pub(crate) struct Here(PhantomData<*const ()>);

impl Here {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }

    /// This thread's block.
    #[inline(always)]
    pub(crate) fn block(&self) -> &Block {
        // `with` takes a closure as a value and may not be inlined around a large one; around this one it is.
        let block = BLOCK.with(ptr::from_ref);
        // SAFETY: the block has no destructor: it is in place for as long as code runs on this thread, which `self` does
        // not leave.
        unsafe { &*block }
    }
}

/// A thread as others see it.
pub struct Thread {
    /// Number of the thread in this process, from 1; never used twice.
    pub(crate) index: u32,
    /// The operating system's number for it.
    pub(crate) os_id: u64,
    pub(crate) name: String,
    /// Whether it is one of the library's own: what happens on it is not delivered.
    pub(crate) is_own: bool,
    /// Distinguishes this thread's ids from all others'; redrawn after a fork and when sequence numbers run out.
    pub(crate) prefix: AtomicU64,
    /// Number of the epoch that the prefix began, for language faces; 0 until one asks. See `raw`.
    pub(crate) epoch: AtomicU32,
    /// Where its frames live, for the dump of open scopes.
    pub(crate) segments: Mutex<Vec<Segment>>,
    /// Its lanes, for those who claim what was published.
    pub(crate) lanes: Mutex<Vec<Arc<Lane>>>,
    /// The slots in its block, in place as long as a lane is in the list; null if nothing runs on it here.
    pub(crate) hot_slots: *const HotSlots,
}

// SAFETY: the slots may be emptied from any thread; see `buffer::set_lane_flags`, which alone reaches them from others.
unsafe impl Send for Thread {}
// SAFETY: as above.
unsafe impl Sync for Thread {}

impl std::fmt::Debug for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "thread {} ({:?})", self.index, self.name)
    }
}

impl Thread {
    pub(crate) fn current(prefix: u64) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let thread = Self::kept(NEXT.fetch_add(1, Relaxed), os_id(), std::thread::current().name().unwrap_or(""));
        let hot_slots = block(|t| &raw const t.hot_slots);
        Self { is_own: IS_OWN.with(Cell::get), prefix: AtomicU64::new(prefix), hot_slots, ..thread }
    }

    /// The identity of a thread whose records were kept; nothing runs on it here.
    pub fn kept(index: u32, os_id: u64, name: &str) -> Self {
        Self {
            index,
            os_id,
            name: name.to_owned(),
            is_own: false,
            prefix: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            segments: Mutex::new(Vec::new()),
            lanes: Mutex::new(Vec::new()),
            hot_slots: ptr::null(),
        }
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn os_id() -> u64 {
    // SAFETY: the call takes no arguments and cannot fail.
    u64::try_from(unsafe { libc::gettid() }).unwrap_or(0)
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn os_id() -> u64 {
    0
}
