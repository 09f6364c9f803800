//! The current scope of a flow, and how to carry it elsewhere.
//!
//! Opening pushes a frame whose link is the scope around it; closing makes that one current again. A scope that is
//! closed while another is current waits, closed, until what is open above it is closed too: so closing in any order
//! costs the same. What comes from another thread, task or process ([`Carrier`]) enters as a stand-in frame, whose alias
//! stands for the foreign ids.
//!
//! Every chain of links belongs to one flow and is linear; only stand-ins have links into another flow, and nothing
//! follows those. Hence a scope that closes while it is current has no open child, and its frame is free at once.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed},
            fence,
        },
    },
};

use crate::{
    event::{span_id, trace_id},
    name::Path,
    propagate::TraceParent,
    sync::{Held, lock},
    thread::{Block, Flow, Frame, Segment, Sink, Thread, block, flag, lane_flag},
};

/// Frames of a segment; 2 KiB.
const SEGMENT: usize = 64;

thread_local! {
    /// The owner's cold half: reached on set-up, with foreign flows, and when the thread ends.
    static FLOWS: RefCell<Vec<Flow>> = const { RefCell::new(Vec::new()) };
}

/// Pushes `frame`, which is unused, under `parent`, which is current. The caller sets the start.
#[inline(always)]
pub(crate) fn push(t: &Block, frame: &Frame, parent: &Frame, path: Path, lane_word: u32) {
    let word = parent.word.get() & flag::INHERITED | lane_word;
    t.free.set(frame.link.get());
    frame.link.set(parent);
    frame.path.store(path.0, Relaxed);
    frame.root.set(parent.root.get());
    frame.word.set(word);
    frame.span.store(t.draw(), Relaxed);
    t.current.set(frame);
}

/// Takes `frame`, which is current, out again.
#[inline(always)]
pub(crate) fn pop(t: &Block, frame: &Frame) {
    pop_to(t, frame, frame.link.get());
}

/// The same, where the link is at hand.
#[inline(always)]
pub(crate) fn pop_to(t: &Block, frame: &Frame, link: *const Frame) {
    t.current.set(link);
    release(t, frame);
}

/// Makes a frame unused.
#[inline(always)]
fn release(t: &Block, frame: &Frame) {
    frame.span.store(0, Relaxed);
    frame.link.set(t.free.get());
    t.free.set(frame);
}

/// Closes a frame, whatever its place.
pub(crate) fn close(t: &Block, frame: &Frame) {
    if std::ptr::eq(t.current.get(), frame) {
        if frame.has(flag::DEEPER) {
            t.deep_levels.set(t.deep_levels.get().wrapping_sub(1));
        }
        pop(t, frame);
        unwind(t);
    } else {
        frame.set(flag::CLOSED);
        if frame.has(flag::ORPHAN) {
            free_orphans(t);
        } else {
            wait_for_children(t);
        }
    }
}

/// Frees the closed scopes that have become current.
fn unwind(t: &Block) {
    loop {
        // SAFETY: `current` is the base or a frame that is in place.
        let frame = unsafe { &*t.current.get() };
        if !frame.has(flag::CLOSED) {
            return;
        }
        t.waiting.set(t.waiting.get().saturating_sub(1));
        if t.waiting.get() == 0 {
            set_disorder(t, false);
        }
        if frame.has(flag::DEEPER) {
            t.deep_levels.set(t.deep_levels.get().wrapping_sub(1));
        }
        pop(t, frame);
    }
}

/// From now on closing looks for closed scopes below.
fn wait_for_children(t: &Block) {
    t.waiting.set(t.waiting.get() + 1);
    if t.waiting.get() == 1 {
        set_disorder(t, true);
    }
}

fn set_disorder(t: &Block, is_disorder: bool) {
    for number in 0..t.lanes_len.get() as usize {
        // SAFETY: within the list, whose entries are null or lanes in place.
        let Some(lane) = (unsafe { (*t.lanes.get().add(number)).as_ref() }) else { continue };
        match is_disorder {
            true => lane.cursor.flags.fetch_or(lane_flag::DISORDER, Relaxed),
            false => lane.cursor.flags.fetch_and(!lane_flag::DISORDER, Relaxed),
        };
    }
}

thread_local! {
    /// Chains that were left open when what they were opened under was left; freed together, once all are closed.
    static ORPHANS: RefCell<Vec<Vec<*const Frame>>> = const { RefCell::new(Vec::new()) };
}

/// Notes the chain from `innermost` down to the stand-in it was opened under.
fn orphan(innermost: *const Frame, stand_in: &Frame) {
    let (mut chain, mut at) = (vec![std::ptr::from_ref(stand_in)], innermost);
    while !std::ptr::eq(at, stand_in) {
        // SAFETY: an open chain: links lead from frame to frame in place, down to the stand-in.
        let frame = unsafe { &*at };
        frame.set(flag::ORPHAN);
        chain.push(at);
        at = frame.link.get();
    }
    stand_in.set(flag::CLOSED);
    let _ = ORPHANS.try_with(|orphans| orphans.borrow_mut().push(chain));
}

fn free_orphans(t: &Block) {
    // SAFETY: orphans stay in place until they are freed here.
    let is_closed = |frame: &*const Frame| unsafe { &**frame }.has(flag::CLOSED);
    let free = |orphans: &RefCell<Vec<Vec<*const Frame>>>| {
        orphans.borrow_mut().retain(|chain| {
            let is_over = chain.iter().all(is_closed);
            if is_over {
                // SAFETY: as above.
                chain.iter().for_each(|frame| free_stand_in(t, unsafe { &**frame }));
            }
            !is_over
        });
    };
    let _ = ORPHANS.try_with(free);
}

fn free_stand_in(t: &Block, frame: &Frame) {
    if frame.has(flag::STAND_IN) && frame.has(flag::FOREIGN) {
        remove_flow(frame.root.get());
    }
    release(t, frame);
}

/// Number of scopes that are open in the current flow, the current one included.
pub(crate) fn levels(t: &Block) -> u32 {
    // SAFETY: null before the thread is set up, else the base or an open frame.
    let path = unsafe { t.current.get().as_ref() }.map_or(Path::ROOT, |frame| Path(frame.path.load(Relaxed)));
    if path.is_deeper() { t.deep_levels.get() } else { path.levels() }
}

/// An unused frame, from a new segment if need be.
pub(crate) fn free_frame<'t>(t: &'t Block, thread: &Thread) -> &'t Frame {
    if t.free.get().is_null() {
        let mut segments = lock(&thread.segments);
        let segment = Segment::with_len(SEGMENT);
        t.free.set(segment.first());
        segments.push(segment);
    }
    // SAFETY: the list of unused frames points into this thread's segments, which stay until the thread ends.
    unsafe { &*t.free.get() }
}

/// What the alias of a foreign root or parent stands for.
pub(crate) fn flow(alias: u32) -> Option<Flow> {
    let find = |flows: &RefCell<Vec<Flow>>| flows.borrow().iter().rev().find(|flow| flow.alias == alias).copied();
    FLOWS.try_with(find).unwrap_or(None)
}

/// Lets an alias stand for foreign ids on this thread.
pub(crate) fn add_flow(flow: Flow) {
    // During the thread's teardown there is no table any more: ids are then this thread's own.
    let _ = FLOWS.try_with(|flows| flows.borrow_mut().push(flow));
}

/// Forgets an alias.
pub(crate) fn remove_flow(alias: u32) {
    let _ = FLOWS.try_with(|flows| flows.borrow_mut().retain(|flow| flow.alias != alias));
}

/// The ids of a frame: its trace's, its own, and whether it was sampled.
pub(crate) fn ids(frame: &Frame, prefix: u64) -> (u128, u64, bool) {
    let (root, span) = (frame.root.get(), frame.span.load(Relaxed));
    let is_foreign = frame.has(flag::FOREIGN);
    let of = |alias| if is_foreign { flow(alias) } else { None };
    let trace = of(root).map_or_else(|| trace_id(prefix, root), |flow| flow.trace_id);
    let own = of(span).map_or_else(|| span_id(prefix, span), |flow| flow.span_id);
    (trace, own, !frame.has(flag::UNSAMPLED))
}

/// The current scope of a flow, to be taken to another thread, task or process.
///
/// Small, `Copy` and `Send`. [`Carrier::current`] takes it, [`Carrier::attach`] makes it current elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Carrier {
    trace_id: u128,
    span_id: u64,
    path: Path,
    levels: u32,
    is_sampled: bool,
}

impl Carrier {
    /// Carries nothing: what is opened under it is a root.
    pub const NONE: Carrier = Carrier { trace_id: 0, span_id: 0, path: Path::ROOT, levels: 0, is_sampled: true };

    /// A remote parent's ids.
    pub fn from_trace_parent(parent: &TraceParent) -> Self {
        Self { trace_id: parent.trace_id(), span_id: parent.parent_id(), is_sampled: parent.is_sampled(), ..Self::NONE }
    }

    pub(crate) fn of(frame: &Frame, levels: u32, prefix: u64) -> Self {
        if frame.span.load(Relaxed) == 0 {
            return Self::NONE;
        }
        let (trace_id, span_id, is_sampled) = ids(frame, prefix);
        Self { trace_id, span_id, path: Path(frame.path.load(Relaxed)), levels, is_sampled }
    }

    /// Whether there is anything to carry.
    pub fn is_some(&self) -> bool {
        self.trace_id != 0
    }

    /// The trace; zero if there is none.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The scope; zero if there is none.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// Whether the trace is sampled.
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// The carrier of a root that a thread opens as its `sequence`th scope.
    pub(crate) fn native(path: Path, sequence: u32, prefix: u64) -> Self {
        let (trace_id, span_id) = (trace_id(prefix, sequence), span_id(prefix, sequence));
        Self { trace_id, span_id, path, levels: 1, is_sampled: true }
    }

    /// The same scope within another one's trace.
    pub(crate) fn in_trace_of(self, parent: &Carrier, levels: u32) -> Self {
        Self { trace_id: parent.trace_id, is_sampled: parent.is_sampled, levels, ..self }
    }

    /// The ids as a W3C trace parent, if there are any.
    pub fn trace_parent(&self) -> Option<TraceParent> {
        TraceParent::new(self.trace_id, self.span_id, self.is_sampled)
    }

    /// Makes the carried scope current through a stand-in; without one the flow starts anew, at the base.
    pub(crate) fn enter(&self, t: &Block, thread: &Thread, flags: u32) -> Entered {
        let entered = Entered { stand_in: std::ptr::null(), previous: t.current.get(), levels: t.deep_levels.get() };
        if !self.is_some() {
            t.current.set(&t.base);
            return entered;
        }
        let frame = free_frame(t, thread);
        // SAFETY: `current` is the base or a frame in place.
        push(t, frame, unsafe { &*entered.previous }, self.path, 0);
        let alias = frame.span.load(Relaxed);
        let sampled = if self.is_sampled { 0 } else { flag::UNSAMPLED };
        frame.start.store(0, Relaxed);
        frame.word.set(flag::STAND_IN | flag::FOREIGN | sampled | flags);
        frame.root.set(alias);
        add_flow(Flow { alias, span_id: self.span_id, trace_id: self.trace_id });
        t.deep_levels.set(self.levels);
        Entered { stand_in: frame, ..entered }
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carrier({:032x}-{:016x} {:?})", self.trace_id, self.span_id, self.path.text())
    }
}

/// A flow that was entered on this thread, with what to go back to.
#[derive(Clone, Copy)]
pub(crate) struct Entered {
    /// Null where the flow started anew.
    pub(crate) stand_in: *const Frame,
    pub(crate) previous: *const Frame,
    pub(crate) levels: u32,
}

impl Entered {
    /// Nothing was entered: the thread is ending.
    pub(crate) const NOWHERE: Entered = Entered { stand_in: std::ptr::null(), previous: std::ptr::null(), levels: 0 };

    /// Goes back, and gives the stand-in up. What is still open under it is orphaned.
    pub(crate) fn leave(self, t: &Block) {
        let innermost = t.current.get();
        self.go_back(t);
        // SAFETY: null, or pushed by `enter` and given up only here.
        let Some(stand_in) = (unsafe { self.stand_in.as_ref() }) else { return };
        if std::ptr::eq(innermost, stand_in) { free_stand_in(t, stand_in) } else { orphan(innermost, stand_in) }
    }

    /// The same, if nothing was left open and nothing was closed meanwhile.
    #[inline(always)]
    pub(crate) fn leave_quickly(&self, t: &Block) -> bool {
        if t.current.get() != self.stand_in {
            return false;
        }
        // SAFETY: current, hence in place; the scope before it is, too, until it is unwound.
        let (stand_in, previous) = unsafe { (&*self.stand_in, &*self.previous) };
        if stand_in.has(flag::FOREIGN) || previous.has(flag::CLOSED) {
            return false;
        }
        t.current.set(previous);
        t.deep_levels.set(self.levels);
        release(t, stand_in);
        true
    }

    /// Makes the scope current that was so before, unless it was closed meanwhile.
    pub(crate) fn go_back(&self, t: &Block) {
        t.current.set(self.previous);
        t.deep_levels.set(self.levels);
        unwind(t);
    }
}

/// Makes a frame current that was left open in an earlier poll.
pub(crate) fn resume(t: &Block, innermost: *const Frame, levels: u32) {
    t.current.set(innermost);
    t.deep_levels.set(levels);
    unwind(t);
}

/// Keeps a carried scope current on this thread until it is dropped.
#[must_use = "the carried scope is current only while the guard lives"]
pub struct Attached {
    entered: Option<Entered>,
    not_send: PhantomData<*const ()>,
}

impl Attached {
    pub(crate) fn new(entered: Option<Entered>) -> Self {
        Self { entered, not_send: PhantomData }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(entered) = self.entered {
            block(|t| {
                if !t.ended.get() {
                    entered.leave(t);
                }
            });
        }
    }
}

/// The scopes that are open on a thread, as (path, start in ticks, number of the lane), the oldest first.
pub(crate) fn open_frames(thread: &Thread) -> Vec<(Path, u64, usize)> {
    let mut found = Vec::new();
    for segment in lock(&thread.segments).iter() {
        for frame in segment.frames() {
            let span = frame.span.load(Acquire);
            let (path, start, word) = (frame.path.load(Relaxed), frame.start.load(Relaxed), frame.word.get());
            fence(Acquire);
            // The owner may have closed it, or reused the frame, while it was read.
            let is_open = span != 0 && start != 0 && word & (flag::CLOSED | flag::STAND_IN) == 0;
            if is_open && frame.span.load(Relaxed) == span {
                found.push((Path(path), start, (word >> flag::LANE_SHIFT & 0xff) as usize));
            }
        }
    }
    found.sort_by_key(|(_, start, _)| *start);
    found
}

/// A scope of a future that is not being polled right now.
pub(crate) struct Suspended {
    pub(crate) path: Path,
    pub(crate) start: u64,
    pub(crate) sink: Arc<dyn Sink>,
}

/// Scopes of futures, by a number: they belong to no thread's stack.
static SUSPENDED: [Mutex<BTreeMap<u64, Suspended>>; 16] = [const { Mutex::new(BTreeMap::new()) }; 16];

/// Holds the scopes of futures still, for a fork.
pub(crate) fn hold(held: &mut Vec<Box<dyn Held>>) {
    SUSPENDED.iter().for_each(|shard| held.push(Box::new(lock(shard))));
}

/// Registers the scope of a future; returns its number.
pub(crate) fn add_suspended(scope: Suspended) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    lock(shard(number)).insert(number, scope);
    number
}

/// The scope of a future closed.
pub(crate) fn remove_suspended(number: u64) {
    let removed = lock(shard(number)).remove(&number);
    drop(removed);
}

/// The scopes of all futures, as (path, start in ticks, context).
pub(crate) fn suspended() -> Vec<(Path, u64, Arc<dyn Sink>)> {
    let all = SUSPENDED.iter().flat_map(|shard| {
        let scopes = lock(shard);
        scopes.values().map(|it| (it.path, it.start, Arc::clone(&it.sink))).collect::<Vec<_>>()
    });
    all.collect()
}

fn shard(number: u64) -> &'static Mutex<BTreeMap<u64, Suspended>> {
    // A power of two of shards: the index is always within.
    &SUSPENDED[number as usize % SUSPENDED.len()]
}
