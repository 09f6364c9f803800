//! The current scope of a flow, and how to carry it elsewhere.
//!
//! Opening pushes a frame whose link is the scope around it; closing makes that one current again. A frame that is
//! closed before its children keeps its place until they are closed, so closing in any order costs the same. What comes
//! from another thread, task or process ([`Carrier`]) enters as a stand-in frame, whose alias stands for the foreign ids.

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
    sync::lock,
    thread::{Block, Flow, Frame, Segment, Sink, Thread, block, flag},
};

/// Frames that a thread starts with; 2 KiB.
const FIRST_SEGMENT: usize = 64;
/// Frames of every further segment; 4 KiB.
const SEGMENT: usize = 128;

thread_local! {
    /// The owner's cold half: reached on set-up, with foreign flows, and when the thread ends.
    static FLOWS: RefCell<Vec<Flow>> = const { RefCell::new(Vec::new()) };
}

/// Pushes `frame`, which is unused, under `parent`, which is current. Returns the depth. The caller sets the start and
/// makes sure that the sequence does not wrap.
#[inline(always)]
pub(crate) fn push(t: &Block, frame: &Frame, parent: &Frame, path: Path, lane_word: u32) -> u32 {
    t.free.set(frame.link.get());
    let sequence = t.sequence.get().wrapping_add(1);
    t.sequence.set(sequence);
    let inherited = parent.word.get();
    let (referenced, is_full) = inherited.overflowing_add(flag::REFERENCE);
    parent.word.set(referenced);
    if is_full {
        pin(parent);
    }
    frame.link.set(parent);
    frame.path.store(path.0, Relaxed);
    let root = parent.root.get();
    frame.root.set(if root == 0 { sequence } else { root });
    frame.word.set(inherited & flag::INHERITED | lane_word);
    frame.span.store(sequence, Relaxed);
    t.current.set(frame);
    let depth = t.depth.get();
    t.depth.set(depth.wrapping_add(1));
    depth
}

/// Takes `frame`, which is current, closed and unreferenced, out again.
#[inline(always)]
pub(crate) fn pop(t: &Block, frame: &Frame) {
    let parent = frame.link.get();
    release(t, frame);
    t.current.set(parent);
    t.depth.set(t.depth.get().wrapping_sub(1));
    // SAFETY: the reference that is given back here kept the parent's frame in place.
    let parent = unsafe { &*parent };
    let word = parent.word.get().wrapping_sub(flag::REFERENCE);
    parent.word.set(word);
    if word & flag::CLOSED != 0 {
        unwind(t);
    }
}

/// Makes a frame unused.
#[inline(always)]
fn release(t: &Block, frame: &Frame) {
    frame.span.store(0, Relaxed);
    frame.link.set(t.free.get());
    t.free.set(frame);
}

/// Adds a reference to a frame in place.
#[inline]
pub(crate) fn reference(frame: &Frame) {
    let (referenced, is_full) = frame.word.get().overflowing_add(flag::REFERENCE);
    frame.word.set(referenced);
    if is_full {
        pin(frame);
    }
}

/// Gives a reference back. If the frame was closed meanwhile it is skipped, or freed.
#[inline]
pub(crate) fn release_reference(t: &Block, frame: &Frame) {
    frame.word.set(frame.word.get().wrapping_sub(flag::REFERENCE));
    if frame.has(flag::CLOSED) {
        if std::ptr::eq(t.current.get(), frame) {
            unwind(t);
        } else if frame.references() == 0 && !frame.has(flag::PINNED) {
            give_up(t, frame);
        }
    }
}

#[cold]
#[inline(never)]
fn pin(parent: &Frame) {
    parent.set(flag::PINNED);
}

/// Skips and frees the closed scopes below the one that was just popped.
#[cold]
#[inline(never)]
fn unwind(t: &Block) {
    loop {
        // SAFETY: `current` is the base or a frame that is in place.
        let frame = unsafe { &*t.current.get() };
        if !frame.has(flag::CLOSED) {
            return;
        }
        let parent = frame.link.get();
        t.current.set(parent);
        t.depth.set(t.depth.get().wrapping_sub(1));
        if frame.references() > 0 || frame.has(flag::PINNED) {
            // Another child of it is still open somewhere: that one gives the parent's reference back.
            continue;
        }
        give_up(t, frame);
    }
}

/// Frees a closed frame that nothing refers to, and then those above it that only waited for it.
fn give_up(t: &Block, frame: &Frame) {
    let mut frame = frame;
    loop {
        let parent = frame.link.get();
        if frame.has(flag::STAND_IN) && frame.has(flag::FOREIGN) {
            remove_flow(frame.root.get());
        }
        release(t, frame);
        // SAFETY: kept in place by the reference that is given back here.
        let above = unsafe { &*parent };
        above.word.set(above.word.get().wrapping_sub(flag::REFERENCE));
        let is_current = std::ptr::eq(parent, t.current.get());
        if is_current || !above.has(flag::CLOSED) || above.references() > 0 || above.has(flag::PINNED) {
            return;
        }
        frame = above;
    }
}

/// Closes a frame that is not current: it stays until its children are gone.
pub(crate) fn close_out_of_order(t: &Block, frame: &Frame) {
    frame.set(flag::CLOSED);
    frame.span.store(0, Relaxed);
    if frame.references() == 0 && !frame.has(flag::PINNED) {
        give_up(t, frame);
    }
}

/// Makes the current scope the one that was current before `frame`, whether or not that is still open.
pub(crate) fn close_current(t: &Block, frame: &Frame) {
    if frame.references() == 0 && !frame.has(flag::PINNED) {
        pop(t, frame);
    } else {
        frame.set(flag::CLOSED);
        frame.span.store(0, Relaxed);
        unwind(t);
    }
}

/// An unused frame, from a new segment if need be.
pub(crate) fn free_frame<'t>(t: &'t Block, thread: &Thread) -> &'t Frame {
    if t.free.get().is_null() {
        let mut segments = lock(&thread.segments);
        let segment = Segment::with_len(if segments.is_empty() { FIRST_SEGMENT } else { SEGMENT });
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
    pub const NONE: Carrier =
        Carrier { trace_id: 0, span_id: 0, path: Path::ROOT, levels: 0, is_sampled: true };

    /// A remote parent's ids.
    pub fn from_trace_parent(parent: &TraceParent) -> Self {
        Self {
            trace_id: parent.trace_id(),
            span_id: parent.parent_id(),
            is_sampled: parent.is_sampled(),
            ..Self::NONE
        }
    }

    pub(crate) fn of(frame: &Frame, levels: u32, prefix: u64) -> Self {
        let path = Path(frame.path.load(Relaxed));
        if frame.root.get() == 0 {
            return Self::NONE;
        }
        let (trace_id, span_id, is_sampled) = ids(frame, prefix);
        Self { trace_id, span_id, path, levels, is_sampled }
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

    /// Pushes a stand-in for the carried scope onto this thread's stack.
    pub(crate) fn push<'t>(&self, t: &'t Block, thread: &Thread) -> Entered<'t> {
        let previous = t.current.get();
        let previous_depth = t.depth.get();
        let frame = free_frame(t, thread);
        // SAFETY: `current` is the base or a frame in place.
        push(t, frame, unsafe { &*previous }, self.path, 0);
        frame.start.store(0, Relaxed);
        let alias = t.sequence.get();
        let sampled = if self.is_sampled { 0 } else { flag::UNSAMPLED };
        if self.is_some() {
            frame.word.set(flag::STAND_IN | flag::FOREIGN | sampled);
            frame.root.set(alias);
            add_flow(Flow { alias, span_id: self.span_id, trace_id: self.trace_id });
        } else {
            frame.word.set(flag::STAND_IN);
            frame.root.set(0);
            frame.span.store(0, Relaxed);
        }
        t.depth.set(self.levels);
        Entered { frame, previous, previous_depth }
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carrier({:032x}-{:016x} {:?})", self.trace_id, self.span_id, self.path.text())
    }
}

/// A stand-in on the stack, with what to go back to.
pub(crate) struct Entered<'t> {
    pub(crate) frame: &'t Frame,
    previous: *const Frame,
    previous_depth: u32,
}

/// Leaves a stand-in: the scope that was current before becomes so again, unless it was closed meanwhile. Scopes that
/// are still open under the stand-in keep it in place.
pub(crate) fn leave(t: &Block, frame: &Frame, previous: *const Frame, previous_depth: u32) {
    // The stand-in's own reference keeps `previous` in place until here.
    t.current.set(previous);
    t.depth.set(previous_depth);
    close_out_of_order(t, frame);
    // SAFETY: the base, or a frame that `unwind` finds closed or open; it is in place since frames are freed only there.
    if unsafe { &*previous }.has(flag::CLOSED) {
        unwind(t);
    }
}

/// Keeps a carried scope current on this thread until it is dropped.
#[must_use = "the carried scope is current only while the guard lives"]
pub struct Attached {
    pub(crate) frame: *const Frame,
    pub(crate) previous: *const Frame,
    pub(crate) previous_depth: u32,
    pub(crate) not_send: PhantomData<*const ()>,
}

impl Attached {
    pub(crate) fn none() -> Self {
        let null = std::ptr::null();
        Self { frame: null, previous: null, previous_depth: 0, not_send: PhantomData }
    }

    pub(crate) fn new(entered: Entered<'_>) -> Self {
        Self {
            frame: entered.frame,
            previous: entered.previous,
            previous_depth: entered.previous_depth,
            not_send: PhantomData,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        block(|t| {
            if self.frame.is_null() || t.ended.get() {
                return;
            }
            // SAFETY: the thread has not ended, so its segments are in place, and the guard cannot have left it.
            leave(t, unsafe { &*self.frame }, self.previous, self.previous_depth);
        });
    }
}

/// The scopes that are open on a thread, as (path, start in ticks, number of the lane), the oldest first.
pub(crate) fn open_frames(thread: &Thread) -> Vec<(Path, u64, usize)> {
    let mut found = Vec::new();
    for segment in lock(&thread.segments).iter() {
        for frame in segment.frames() {
            let span = frame.span.load(Acquire);
            let (path, start, lane) = (frame.path.load(Relaxed), frame.start.load(Relaxed), frame.lane());
            fence(Acquire);
            // The owner may have closed it, or reused the frame, while it was read.
            if span != 0 && frame.span.load(Relaxed) == span && start != 0 {
                found.push((Path(path), start, lane));
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
