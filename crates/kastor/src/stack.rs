//! The current scope of a flow, and how to carry it elsewhere.
//!
//! Opening pushes a frame whose link is the scope around it; closing makes that one current again. A scope that is
//! closed while another is current waits, closed, until what is open above it is closed too: so closing in any order
//! costs the same. What comes from another thread, task or process ([`Carrier`]) enters as a stand-in frame, whose alias
//! stands for the foreign ids.
//!
//! Every chain of links belongs to one flow and is linear; only stand-ins have links into another flow, and nothing
//! follows those. Hence a scope that closes while it is current has no open child, and its frame is free at once.

use std::{cell::RefCell, collections::BTreeMap, fmt, marker::PhantomData, mem::ManuallyDrop, sync::Arc};

use crate::{
    event::{span_id, trace_id},
    name::Path,
    propagate::TraceParent,
    sampler::Sampler,
    sync::{AtomicU64, Held, Mutex, Ordering::Relaxed, lock},
    thread::{Block, Flow, Frame, Segment, Sink, Thread, block, flag, lane_flag},
};

/// Frames of a segment; 2 KiB.
const SEGMENT: usize = 64;

thread_local! {
    /// What aliases stand for. Without a destructor, because the end of the thread still needs it, and clears it.
    static FLOWS: RefCell<ManuallyDrop<Vec<Flow>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Pushes `frame`, which is unused, under `parent`, which is current, as a child of it.
#[inline(always)]
pub(crate) fn push(t: &Block, frame: &Frame, parent: &Frame, path: Path, lane_word: u32, start: impl FnOnce() -> u64) {
    let (word, root) = (parent.word.get() & flag::INHERITED | lane_word, parent.root.get());
    push_as(t, frame, parent, (path, word), (root, t.draw()), start);
}

/// The same with any word, root and span. The clock is read last: what came after it would cost a register.
#[inline(always)]
pub(crate) fn push_as(
    t: &Block,
    frame: &Frame,
    parent: *const Frame,
    (path, word): (Path, u32),
    (root, span): (u32, u32),
    start: impl FnOnce() -> u64,
) {
    t.free.set(frame.link.get());
    frame.link.set(parent);
    frame.root.set(root);
    t.current.set(frame);
    frame.open(path, word, span, start);
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
    frame.vacate();
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
        wait_for_children(t, frame);
    }
}

/// Frees the closed scopes that have become current.
fn unwind(t: &Block) {
    loop {
        let frame = t.scope();
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
        let link = frame.link.get();
        free(t, frame);
        t.current.set(link);
    }
}

/// Closes a frame that is not current: it stays until it becomes so, and until then closing looks for it.
fn wait_for_children(t: &Block, frame: &Frame) {
    if t.abandoned.get() > 0 && close_abandoned(t, frame) {
        return;
    }
    frame.set(flag::CLOSED);
    t.waiting.set(t.waiting.get() + 1);
    if t.waiting.get() == 1 {
        set_disorder(t, true);
    }
}

/// Makes a frame unused, and forgets what its alias stood for.
fn free(t: &Block, frame: &Frame) {
    if frame.has(flag::STAND_IN) && frame.has(flag::FOREIGN) {
        remove_flow(frame.root.get());
    }
    release(t, frame);
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

/// The path that a child of this frame is under; none known to the hot paths below a stand-in for nothing.
pub(crate) fn path_below(frame: &Frame) -> Path {
    let path = Path(frame.path.load(Relaxed));
    if path == Path::NOWHERE { Path::ROOT } else { path }
}

/// Number of scopes that are open in the current flow, the current one included.
pub(crate) fn levels(t: &Block) -> u32 {
    let path = Path(t.scope().path.load(Relaxed));
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
    FLOWS.with(|flows| flows.borrow().iter().rev().find(|flow| flow.alias == alias).copied())
}

/// Lets an alias stand for foreign ids on this thread.
pub(crate) fn add_flow(flow: Flow) {
    FLOWS.with(|flows| flows.borrow_mut().push(flow));
}

/// Forgets an alias.
pub(crate) fn remove_flow(alias: u32) {
    FLOWS.with(|flows| flows.borrow_mut().retain(|flow| flow.alias != alias));
}

/// Forgets all aliases, at the end of the thread.
pub(crate) fn end_flows() {
    FLOWS.with(|flows| drop(std::mem::take(&mut **flows.borrow_mut())));
}

/// What a frame's numbers stand for: its flow with the trace id, its own span id, and whether it was sampled.
pub(crate) fn ids(frame: &Frame, prefix: u64) -> (Flow, u64, bool) {
    let (root, span) = (frame.root.get(), frame.span.load(Relaxed));
    let is_foreign = frame.has(flag::FOREIGN);
    let of = |alias| if is_foreign { flow(alias) } else { None };
    let native = || Flow { alias: root, span_id: 0, trace_id: trace_id(prefix, root), is_random: true };
    let trace = of(root).unwrap_or_else(native);
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
    is_random: bool,
    /// Nobody asked a sampler yet: a language face draws its ids without.
    is_undecided: bool,
}

impl Carrier {
    /// Carries nothing: what is opened under it is a root.
    pub const NONE: Carrier = Carrier {
        trace_id: 0,
        span_id: 0,
        path: Path::ROOT,
        levels: 0,
        is_sampled: true,
        is_random: true,
        is_undecided: false,
    };

    /// A remote parent's ids.
    pub fn from_trace_parent(parent: &TraceParent) -> Self {
        let (trace_id, span_id) = (parent.trace_id(), parent.parent_id());
        Self { trace_id, span_id, is_sampled: parent.is_sampled(), is_random: parent.is_random(), ..Self::NONE }
    }

    pub(crate) fn of(frame: &Frame, levels: u32, prefix: u64, sampler: Sampler) -> Self {
        if frame.span.load(Relaxed) == 0 {
            return Self::NONE;
        }
        let (Flow { trace_id, is_random, .. }, span_id, was_taken) = ids(frame, prefix);
        let is_sampled = sampler.takes(frame.has(flag::FOREIGN), was_taken, trace_id);
        let path = Path(frame.path.load(Relaxed));
        Self { trace_id, span_id, path, levels, is_sampled, is_random, is_undecided: false }
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

    /// The carrier of a root that a thread opens as its `sequence`th scope; no sampler was asked.
    pub(crate) fn native(path: Path, sequence: u32, prefix: u64) -> Self {
        let (trace_id, span_id) = (trace_id(prefix, sequence), span_id(prefix, sequence));
        Self { trace_id, span_id, path, levels: 1, is_undecided: true, ..Self::NONE }
    }

    /// The same with the decision of the context that hands it on.
    pub(crate) fn sampled_by(self, sampler: Sampler) -> Self {
        let is_sampled = sampler.takes(!self.is_undecided, self.is_sampled, self.trace_id);
        Self { is_sampled, is_undecided: false, ..self }
    }

    /// The same scope within another one's trace.
    pub(crate) fn in_trace_of(self, parent: &Carrier, levels: u32) -> Self {
        let Carrier { trace_id, is_sampled, is_random, is_undecided, .. } = *parent;
        Self { trace_id, is_sampled, is_random, is_undecided, levels, ..self }
    }

    /// The ids as a W3C trace parent, if there are any.
    pub fn trace_parent(&self) -> Option<TraceParent> {
        Some(TraceParent::new(self.trace_id, self.span_id, self.is_sampled)?.with_random(self.is_random))
    }

    /// What an alias that stands for the carried scope means.
    pub(crate) fn flow(&self, alias: u32) -> Flow {
        Flow { alias, span_id: self.span_id, trace_id: self.trace_id, is_random: self.is_random }
    }

    /// Makes the carried scope current through a stand-in.
    pub(crate) fn enter(&self, t: &Block, thread: &Thread, flags: u32) -> Entered {
        let entered = Entered { stand_in: std::ptr::null(), previous: t.current.get(), levels: t.deep_levels.get() };
        let frame = free_frame(t, thread);
        let alias = t.draw();
        if self.is_some() {
            let sampled = if self.is_sampled { 0 } else { flag::UNSAMPLED };
            let word = flag::STAND_IN | flag::FOREIGN | sampled | flags;
            push_as(t, frame, entered.previous, (self.path, word), (alias, alias), || 0);
            add_flow(self.flow(alias));
        } else {
            // The stand-in has a path of its own, which no hot path knows, and the cold ones know as none.
            push_as(t, frame, entered.previous, (Path::NOWHERE, flag::STAND_IN), (alias, 0), || 0);
        }
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
    pub(crate) stand_in: *const Frame,
    pub(crate) previous: *const Frame,
    pub(crate) levels: u32,
}

impl Entered {
    /// Nothing was entered: the thread is ending.
    pub(crate) const NOWHERE: Entered = Entered { stand_in: std::ptr::null(), previous: std::ptr::null(), levels: 0 };

    /// Goes back and gives the stand-in up. Where scopes under it are still open, as when any scope is closed before its
    /// children, they stay current, and going back waits for them.
    pub(crate) fn leave(self, t: &Block) {
        // SAFETY: pushed by whoever made this, and given up only here.
        let stand_in = unsafe { &*self.stand_in };
        if std::ptr::eq(t.current.get(), stand_in) {
            self.go_back(t);
            free(t, stand_in);
        } else {
            wait_for_children(t, stand_in);
        }
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

/// The future is done while scopes of it are open: the last of them to close gives its stand-in up.
pub(crate) fn abandon(t: &Block, stand_in: *const Frame, innermost: *const Frame) {
    t.abandoned.set(t.abandoned.get() + 1);
    // SAFETY: in place, since what is open under it has not been unwound.
    let stand_in = unsafe { &*stand_in };
    stand_in.set(flag::ABANDONED);
    // Nothing follows the link of a stand-in into another flow: it is free to be used.
    stand_in.link.set(innermost);
}

/// Closes a frame that is not current. Returns whether it was the innermost of a flow that was abandoned.
fn close_abandoned(t: &Block, frame: &Frame) -> bool {
    let mut at = frame;
    while at.word.get() & (flag::STAND_IN | flag::ATTACHED) != flag::STAND_IN {
        // SAFETY: the base's link is null; any other's is the base or a frame in place.
        let Some(above) = (unsafe { at.link.get().as_ref() }) else { return false };
        at = above;
    }
    if !at.has(flag::ABANDONED) || !std::ptr::eq(at.link.get(), frame) {
        return false;
    }
    let (current, levels) = (t.current.get(), t.deep_levels.get());
    let link = frame.link.get();
    free(t, frame);
    t.current.set(link);
    unwind(t);
    at.link.set(t.current.get());
    if std::ptr::eq(t.current.get(), at) {
        t.abandoned.set(t.abandoned.get().saturating_sub(1));
        free(t, at);
    }
    t.current.set(current);
    t.deep_levels.set(levels);
    true
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
    let segments = lock(&thread.segments);
    let mut found: Vec<_> = segments.iter().flat_map(Segment::frames).filter_map(Frame::scope).collect();
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
