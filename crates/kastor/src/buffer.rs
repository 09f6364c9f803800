//! Chunks: how records get into them, and how full ones are retired.
//!
//! The owner appends ([`append`]) and, when a chunk is full, retires it ([`make_room`]): its records are absorbed by the
//! context exactly once, and the chunk is reused or replaced. Others claim what was published so far ([`publish`]). The
//! set-up of a thread and its end live here too, because ending means retiring.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
};

use crate::{
    clock,
    event::mix,
    health::DropReason,
    record::{self, flag as record_flag},
    stack,
    sync::{Held, lock},
    thread::{
        Block, Chunk, Claim, Delivery, FLOW_WORDS, FRONT_WORDS, Flow, Frame, ItemBuffer, Lane, MAX_CHUNK_WORDS,
        MIN_CHUNK_WORDS, Part, Sink, Thread, block, flag, lane_flag,
    },
};

/// Every live thread that ever opened a scope or recorded a metric.
static THREADS: Mutex<Vec<Arc<Thread>>> = Mutex::new(Vec::new());
/// Full-size chunks that wait to be used.
static POOL: Mutex<Vec<Chunk>> = Mutex::new(Vec::new());
/// Chunks beyond this number go back to the allocator.
const MAX_POOLED: usize = 64;

/// The owner's cold half of a thread: dropped when the thread ends.
struct Owner {
    thread: Arc<Thread>,
    /// By number; a number is reused once its context is gone and no frame carries it.
    lanes: Vec<*const Lane>,
}

thread_local! {
    static OWNER: RefCell<Option<Owner>> = const { RefCell::new(None) };
    static END: EndOfThread = const { EndOfThread(Cell::new(())) };
}

struct EndOfThread(Cell<()>);

impl Drop for EndOfThread {
    fn drop(&mut self) {
        block(end_thread);
    }
}

/// This thread, set up on first use; none once it is ending.
#[cold]
#[inline(never)]
pub(crate) fn set_up(t: &Block) -> Option<Arc<Thread>> {
    if t.ended.get() {
        return None;
    }
    OWNER
        .try_with(|owner| {
            let mut owner = owner.borrow_mut();
            if let Some(owner) = &*owner {
                return Some(Arc::clone(&owner.thread));
            }
            // Registers the destructor. Failing means that the thread is ending already.
            END.try_with(|end| end.0.set(())).ok()?;
            let thread = Arc::new(Thread::current(fresh_prefix()));
            lock(&THREADS).push(Arc::clone(&thread));
            t.current.set(&t.base);
            t.thread.set(Arc::as_ptr(&thread));
            *owner = Some(Owner { thread: Arc::clone(&thread), lanes: Vec::new() });
            Some(thread)
        })
        .ok()
        .flatten()
}

/// This thread as others see it, set up on first use.
#[inline]
pub(crate) fn thread(t: &Block) -> Option<&Thread> {
    if t.thread.get().is_null() {
        set_up(t)?;
    }
    // SAFETY: the owner's half keeps it until the thread ends, when the pointer is cleared.
    unsafe { t.thread.get().as_ref() }
}

/// The lane of this thread into the context `sink`, made on first use.
#[inline]
pub(crate) fn lane(t: &Block, sink: &Arc<dyn Sink>, id: u64) -> Option<*const Lane> {
    let lanes = match t.lanes_len.get() {
        0 => &[],
        // SAFETY: both are set together, to the owner's list, which only the owner's thread changes.
        len => unsafe { std::slice::from_raw_parts(t.lanes.get(), len as usize) },
    };
    // SAFETY: the list holds null and lanes that are in place.
    let is_it = |lane: &&*const Lane| unsafe { lane.as_ref() }.is_some_and(|lane| lane.cursor.context_id == id);
    match lanes.iter().find(is_it) {
        Some(lane) => Some(*lane),
        None => add_lane(t, &set_up(t)?, sink),
    }
}

#[cold]
fn add_lane(t: &Block, thread: &Arc<Thread>, sink: &Arc<dyn Sink>) -> Option<*const Lane> {
    OWNER.with(|owner| {
        let mut owner = owner.borrow_mut();
        let lanes = &mut owner.as_mut()?.lanes;
        drop_dead_lanes(t, thread, lanes);
        let number = lanes.iter().position(|lane| lane.is_null()).unwrap_or(lanes.len());
        let Ok(number) = u8::try_from(number) else {
            // Frames carry the number in a byte: one thread serves that many contexts at a time.
            sink.refused(DropReason::Cardinality);
            return None;
        };
        if usize::from(number) == lanes.len() {
            lanes.push(std::ptr::null());
            t.lanes.set(lanes.as_ptr());
            t.lanes_len.set(lanes.len() as u32);
        }
        let lane =
            Arc::new(Lane::new(number, Chunk::with_words(MIN_CHUNK_WORDS), Arc::clone(thread), Arc::clone(sink)));
        if t.waiting.get() > 0 {
            lane.cursor.flags.fetch_or(lane_flag::DISORDER, Relaxed);
        }
        let pointer = Arc::as_ptr(&lane);
        *lanes.get_mut(usize::from(number))? = pointer;
        lock(&thread.lanes).push(lane);
        Some(pointer)
    })
}

/// Lanes into contexts that nobody can reach any more make room, unless an open scope still carries their number.
fn drop_dead_lanes(t: &Block, thread: &Thread, lanes: &mut [*const Lane]) {
    let mut dead = Vec::new();
    {
        let mut kept = lock(&thread.lanes);
        let segments = lock(&thread.segments);
        let is_used = |number: usize| {
            let frames = segments.iter().flat_map(|segment| segment.frames());
            frames.into_iter().any(|frame| frame.span.load(Relaxed) != 0 && frame.lane() == number)
        };
        for (number, pointer) in lanes.iter_mut().enumerate() {
            let is_current = std::ptr::addr_eq(*pointer, t.lane.get());
            if pointer.is_null() || is_current {
                continue;
            }
            if let Some(at) = kept.iter().position(|lane| std::ptr::eq(Arc::as_ptr(lane), *pointer)) {
                if kept.get(at).is_some_and(|lane| lane.sink.is_dead()) && !is_used(number) {
                    dead.push(kept.swap_remove(at));
                    *pointer = std::ptr::null();
                }
            }
        }
    }
    // Contexts end outside the locks.
    drop(dead);
}

/// Appends a finished record and publishes it. Owner only.
#[inline]
pub(crate) fn append(lane: &Lane, words: &[u64]) {
    let cursor = &lane.cursor;
    let mut position = cursor.position.load(Relaxed);
    if cursor.left() < size_of_val(words) {
        make_room(lane, words.len());
        position = cursor.position.load(Relaxed);
    }
    // SAFETY: between position and end there is room for all words, which only the owner touches until they are
    // published by the store below.
    unsafe {
        std::ptr::copy_nonoverlapping(words.as_ptr(), position, words.len());
        cursor.position.store(position.add(words.len()), Release);
    }
}

/// Appends a record of a foreign flow: what its aliases stand for goes into the chunk's table first.
#[cold]
pub(crate) fn append_foreign(lane: &Lane, words: &[u64], aliases: &[u32]) {
    let room = words.len() + aliases.len() * FLOW_WORDS;
    let cursor = &lane.cursor;
    if cursor.left() < room * 8 {
        make_room(lane, room);
    }
    for (at, alias) in aliases.iter().enumerate() {
        let Some(flow) = stack::flow(*alias) else { continue };
        if aliases.get(..at).is_some_and(|before| before.contains(alias)) || knows_flow(lane, *alias) {
            continue;
        }
        // SAFETY: there is room for every flow and the record between position and end, and nobody reads beyond the
        // published number of flows.
        let end = unsafe { cursor.end().sub(FLOW_WORDS) };
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(flow.encode().as_ptr(), end, FLOW_WORDS) };
        cursor.set_end(end);
        lane.flows.store(lane.flows.load(Relaxed) + 1, Release);
    }
    append(lane, words);
}

/// Whether the chunk's table names the alias. The newest flows stand first.
fn knows_flow(lane: &Lane, alias: u32) -> bool {
    let flows = lane.flows.load(Relaxed) as usize;
    // SAFETY: the table's `flows` entries lie from `end` on, written by this thread.
    let table = unsafe { std::slice::from_raw_parts(lane.cursor.end(), flows * FLOW_WORDS) };
    table.chunks_exact(FLOW_WORDS).any(|flow| flow.first().is_some_and(|first| *first as u32 == alias))
}

/// Retires the chunk: absorbs what nobody claimed yet, and makes room for at least so many words.
#[cold]
#[inline(never)]
pub(crate) fn make_room(lane: &Lane, words: usize) {
    let has_room = lane.sink.wait_for_room();
    let mut claim = lock(&lane.claim);
    absorb(lane, &mut claim);
    let capacity = claim.chunk.capacity();
    let wanted = (capacity * 2).clamp(MIN_CHUNK_WORDS, MAX_CHUNK_WORDS).max(words);
    if claim.delivered < claim.absorbed && lane.sink.takes_deliveries() {
        let Claim { delivered: from, absorbed: used, prefix, undelivered: events, .. } = *claim;
        let flows = lane.flows.load(Relaxed) as usize * FLOW_WORDS;
        let chunk = std::mem::replace(&mut claim.chunk, take(wanted));
        let thread = Arc::clone(&lane.thread);
        lane.sink.deliver(Delivery { chunk, from, used, flows, thread, prefix, events }, has_room);
    } else if capacity != wanted {
        give_back(std::mem::replace(&mut claim.chunk, take(wanted)));
    }
    restart(lane, &mut claim);
}

/// Points the cursor to the beginning of the chunk.
fn restart(lane: &Lane, claim: &mut Claim) {
    (claim.absorbed, claim.delivered, claim.undelivered) = (0, 0, 0);
    claim.prefix = lane.thread.prefix.load(Relaxed);
    let words = claim.chunk.words();
    lane.flows.store(0, Relaxed);
    lane.cursor.position.store(words, Release);
    lane.cursor.set_end(words.wrapping_add(claim.chunk.capacity()));
}

/// Claims everything that the lane's owner has published, from any thread. What waits for room in a queue is only
/// aggregated, and left to be delivered later. Returns whether nothing was left.
pub(crate) fn publish(lane: &Lane) -> bool {
    let mut claim = lock(&lane.claim);
    absorb(lane, &mut claim);
    if claim.delivered == claim.absorbed || !lane.sink.takes_deliveries() {
        return true;
    }
    if !lane.sink.has_room() {
        return false;
    }
    let part = published(lane, &claim, claim.delivered);
    lane.sink.deliver(Delivery::copied(part, claim.undelivered), true);
    (claim.delivered, claim.undelivered) = (claim.absorbed, 0);
    true
}

/// Aggregates what was published and not aggregated yet.
fn absorb(lane: &Lane, claim: &mut Claim) {
    let position = lane.cursor.position.load(Acquire);
    let used = (position as usize - claim.chunk.words() as usize) / 8;
    let from = std::mem::replace(&mut claim.absorbed, used);
    if used > from {
        claim.undelivered += lane.sink.absorb(published(lane, claim, from));
    }
}

/// The records from `from` to the absorbed position.
fn published<'a>(lane: &'a Lane, claim: &'a Claim, from: usize) -> Part<'a> {
    let flows = lane.flows.load(Acquire) as usize * FLOW_WORDS;
    let (chunk, capacity) = (&claim.chunk, claim.chunk.capacity());
    // SAFETY: records up to the position and as many flows were published; the claim's lock keeps the owner from
    // replacing or reusing the chunk, and published words are not written again before that.
    let (records, flows) = unsafe { (chunk.slice(from, claim.absorbed), chunk.slice(capacity - flows, capacity)) };
    Part { records, flows, thread: &lane.thread, prefix: claim.prefix }
}

/// Claims what all threads have published, into the contexts that `of` accepts.
///
/// Returns whether nothing was left; see [`publish`].
pub(crate) fn publish_all(of: impl Fn(&dyn Sink) -> bool) -> bool {
    let mut is_all = true;
    for thread in threads() {
        let lanes: Vec<Arc<Lane>> = lock(&thread.lanes).iter().filter(|lane| of(&*lane.sink)).cloned().collect();
        lanes.iter().for_each(|lane| is_all &= publish(lane));
    }
    is_all
}

/// Records that were aggregated but wait in their lanes to be delivered.
pub(crate) fn undelivered(of: &dyn Sink) -> u64 {
    let mut events = 0;
    for thread in threads() {
        let lanes: Vec<Arc<Lane>> = lock(&thread.lanes).clone();
        events +=
            lanes.iter().filter(|lane| lane.sink.id() == of.id()).map(|it| lock(&it.claim).undelivered).sum::<u64>();
    }
    events
}

/// All threads that are set up.
pub(crate) fn threads() -> Vec<Arc<Thread>> {
    lock(&THREADS).clone()
}

/// Rewrites the flags of a context's lanes on all threads.
pub(crate) fn set_lane_flags(sink: &dyn Sink) {
    for thread in threads() {
        for lane in lock(&thread.lanes).iter().filter(|lane| lane.sink.id() == sink.id()) {
            let flags = |old: u32| Some(old & lane_flag::OF_OWNER | sink.lane_flags());
            // Always some: the update cannot fail.
            let _ = lane.cursor.flags.fetch_update(Release, Relaxed, flags);
            // Orders the flags before this; `SeriesTable::cell` does the reverse, so that one of the two sees the other.
            fence(SeqCst);
            lane.cursor.cells_len.store(0, Relaxed);
        }
    }
}

/// A chunk of at least so many words.
pub(crate) fn take(words: usize) -> Chunk {
    if words == MAX_CHUNK_WORDS {
        if let Some(chunk) = lock(&POOL).pop() {
            return chunk;
        }
    }
    Chunk::with_words(words)
}

/// Gives all unused chunks back to the allocator; a flush ends with it, since it ends a burst more often than not.
pub(crate) fn trim_pool() {
    let unused = std::mem::take(&mut *lock(&POOL));
    drop(unused);
}

/// Keeps a chunk for reuse.
pub(crate) fn give_back(chunk: Chunk) {
    if chunk.capacity() == MAX_CHUNK_WORDS {
        let mut pool = lock(&POOL);
        if pool.len() < MAX_POOLED {
            pool.push(chunk);
        }
    }
}

/// An empty item buffer.
pub(crate) fn take_items(t: &Block) -> *mut ItemBuffer {
    let items = t.items.get();
    // SAFETY: the list holds boxes that nobody else refers to.
    match unsafe { items.as_mut() } {
        Some(buffer) => {
            t.items.set(buffer.next);
            items
        }
        None => Box::into_raw(ItemBuffer::new()),
    }
}

/// Takes a buffer back; frees it if the thread has ended.
///
/// # Safety
/// It comes from [`take_items`], and nobody uses it any more.
pub(crate) unsafe fn give_back_items(t: &Block, items: *mut ItemBuffer) {
    // SAFETY: as the caller says.
    let buffer = unsafe { &mut *items };
    if t.ended.get() {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(items) });
        return;
    }
    buffer.clear();
    buffer.next = t.items.get();
    t.items.set(items);
}

/// Draws a prefix that no other thread, process or forked child has.
pub(crate) fn fresh_prefix() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let drawn = DRAWN.fetch_add(1, Relaxed);
    let process = u64::from(std::process::id()) << 32;
    mix(mix(crate::thread::process_seed() ^ process).wrapping_add(drawn) ^ clock::now_ns())
}

/// The end of a thread: open scopes are reported as unfinished, everything is retired.
fn end_thread(t: &Block) {
    if t.ended.replace(true) {
        return;
    }
    t.lane.set(&raw const crate::thread::VACANT);
    let Some(owner) = OWNER.try_with(|owner| owner.borrow_mut().take()).ok().flatten() else { return };
    let thread = owner.thread;
    report_unfinished(&thread, &owner.lanes);
    // The lanes stay in the list until they are retired: a flush in the meantime finds them.
    let lanes = lock(&thread.lanes).clone();
    for lane in &lanes {
        lane.sink.end_lane(lane);
        make_room(lane, 0);
    }
    lock(&thread.lanes).clear();
    stack::end_flows();
    t.current.set(&t.base);
    t.free.set(std::ptr::null());
    t.lanes.set(std::ptr::null());
    t.lanes_len.set(0);
    t.thread.set(std::ptr::null());
    lock(&THREADS).retain(|other| !Arc::ptr_eq(other, &thread));
    lock(&thread.segments).clear();
    let mut items = t.items.replace(std::ptr::null_mut());
    while !items.is_null() {
        // SAFETY: the list holds boxes that nobody else refers to.
        let buffer = unsafe { Box::from_raw(items) };
        items = buffer.next;
    }
}

fn report_unfinished(thread: &Thread, lanes: &[*const Lane]) {
    let mut records = Vec::new();
    for segment in lock(&thread.segments).iter() {
        for frame in segment.frames() {
            if frame.span.load(Relaxed) == 0 || frame.has(flag::STAND_IN | flag::CLOSED) {
                continue;
            }
            // SAFETY: lanes live until `end_thread` drops them.
            let Some(lane) = lanes.get(frame.lane()).and_then(|lane| unsafe { lane.as_ref() }) else { continue };
            let mut items = ItemBuffer::new();
            items.fail("unfinished");
            let end = lane.sink.ticks();
            records.push((lane, frame_front(frame, end, record_flag::FAILED | record_flag::ITEMS, 0), items));
        }
    }
    for (lane, front, mut items) in records {
        let written = write(lane, front, Some(&mut items));
        if lane.cursor.flags.load(Relaxed) & lane_flag::INLINE != 0 {
            let prefix = thread.prefix.load(Relaxed);
            lane.sink.inline(Part { records: written.words(), flows: &front.flows(), thread: &lane.thread, prefix });
        }
    }
}

/// The fixed part of a frame's record; its length is filled in by [`write`].
#[derive(Clone, Copy)]
pub(crate) struct Front {
    words: [u64; FRONT_WORDS],
    len: usize,
    aliases: [u32; 3],
}

impl Front {
    /// The flow table that a reader of this record alone needs; empty unless it is foreign.
    pub(crate) fn flows(&self) -> Vec<u64> {
        if (self.words[0] >> 32) as u8 & record_flag::FOREIGN == 0 {
            return Vec::new();
        }
        self.aliases.iter().filter_map(|alias| stack::flow(*alias)).flat_map(|flow| flow.encode()).collect()
    }
}

/// Builds the record of a frame that closes now.
pub(crate) fn frame_front(frame: &Frame, end: u64, flags: u8, depth: u32) -> Front {
    let start = frame.start.load(Relaxed);
    let duration = end.saturating_sub(start);
    let path = crate::name::Path(frame.path.load(Relaxed));
    // SAFETY: the link of an open frame is the base or a frame in place.
    let parent = unsafe { &*frame.link.get() };
    let ids = (frame.span.load(Relaxed), parent.span.load(Relaxed), frame.root.get());
    let detached = if parent.has(flag::ATTACHED) { record_flag::DETACHED } else { 0 };
    timing_front((path, depth), ids, (start, duration), flags | detached | frame_flags(frame))
}

/// Record flags that follow from a frame's.
pub(crate) fn frame_flags(frame: &Frame) -> u8 {
    inherited_flags(frame.word.get())
}

/// The same, of flags that were taken from a frame.
pub(crate) fn inherited_flags(flags: u32) -> u8 {
    let foreign = if flags & flag::FOREIGN != 0 { record_flag::FOREIGN } else { 0 };
    let unsampled = if flags & flag::UNSAMPLED != 0 { record_flag::UNSAMPLED } else { 0 };
    foreign | unsampled
}

/// Builds the fixed part of a timing record.
pub(crate) fn timing_front(
    (path, depth): (crate::name::Path, u32),
    (span, parent, root): (u32, u32, u32),
    (start, duration): (u64, u64),
    flags: u8,
) -> Front {
    let mut words = [0, record::pair(span, parent), record::pair(root, duration as u32), start, 0, 0];
    let (mut len, mut flags) = (record::WORDS, flags);
    if duration > u64::from(u32::MAX) {
        words[len] = duration;
        (len, flags) = (len + 1, flags | record_flag::LONG);
    }
    if path.is_deeper() {
        words[len] = u64::from(depth);
        (len, flags) = (len + 1, flags | record_flag::DEEPER);
    }
    words[0] = record::head(path, flags, record::TIMING, 0);
    Front { words, len, aliases: [root, parent, span] }
}

/// Builds the fixed part of a metric record.
pub(crate) fn metric_front(
    (path, depth): (crate::name::Path, u32),
    (parent, root): (u32, u32),
    (value, tick): (u64, u64),
    flags: u8,
) -> Front {
    let mut words = [0, record::pair(root, parent), value, tick, 0, 0];
    let (mut len, mut flags) = (record::WORDS, flags);
    if path.is_deeper() {
        words[len] = u64::from(depth);
        (len, flags) = (len + 1, flags | record_flag::DEEPER);
    }
    words[0] = record::head(path, flags, record::METRIC, 0);
    Front { words, len, aliases: [root, parent, 0] }
}

/// Completes a record and appends it. Returns it in `scratch` or in the items' memory, for inline reporters.
pub(crate) fn write<'a>(lane: &Lane, front: Front, items: Option<&'a mut ItemBuffer>) -> Written<'a> {
    let Front { mut words, len, aliases } = front;
    let total = len + items.as_ref().map_or(0, |items| items.pending_words());
    words[0] |= (total as u64) << 48;
    let is_foreign = (words[0] >> 32) as u8 & record_flag::FOREIGN != 0;
    let written = match items {
        Some(items) => Written::Long(items.complete(words.get(..len).unwrap_or(&[]))),
        None => Written::Short(words, len),
    };
    if is_foreign {
        append_foreign(lane, written.words(), &aliases);
    } else {
        append(lane, written.words());
    }
    written
}

/// A record that was written, as the writer still has it.
pub(crate) enum Written<'a> {
    Short([u64; FRONT_WORDS], usize),
    Long(&'a mut [u64]),
}

impl Written<'_> {
    pub(crate) fn words(&self) -> &[u64] {
        match self {
            Written::Short(words, len) => words.get(..*len).unwrap_or(&[]),
            Written::Long(words) => words,
        }
    }
}

/// Locks everything that belongs to threads, for a fork.
pub(crate) fn hold(held: &mut Vec<Box<dyn Held>>) {
    let list = lock(&THREADS);
    for thread in list.iter() {
        // SAFETY: only lifetimes change. The threads, and through them the lanes, are kept by the list, whose lock is
        // held longer than these.
        let thread: &'static Thread = unsafe { &*Arc::as_ptr(thread) };
        let lanes = lock(&thread.lanes);
        for lane in lanes.iter() {
            // SAFETY: as above.
            let lane: &'static Lane = unsafe { &*Arc::as_ptr(lane) };
            held.push(Box::new(lock(&lane.claim)));
        }
        held.push(Box::new(lanes));
        held.push(Box::new(lock(&thread.segments)));
    }
    held.push(Box::new(lock(&POOL)));
    stack::hold(held);
    held.push(Box::new(list));
}

/// In a forked child: other threads do not exist, this thread's records and ids so far are the parent's.
pub(crate) fn forget_past() {
    block(|t| {
        let own = OWNER.try_with(|owner| owner.try_borrow().ok()?.as_ref().map(|owner| Arc::clone(&owner.thread)));
        let own = own.ok().flatten();
        let others: Vec<_> = {
            let mut threads = lock(&THREADS);
            let (kept, others) =
                threads.drain(..).partition(|thread| own.as_ref().is_some_and(|own| Arc::ptr_eq(own, thread)));
            *threads = kept;
            others
        };
        // What other threads owned is neither used nor freed: they were in the middle of anything.
        std::mem::forget::<Vec<Arc<Thread>>>(others);
        let Some(thread) = own else { return };
        redraw(t, &thread, flag::STAND_IN);
        for lane in lock(&thread.lanes).iter() {
            let mut claim = lock(&lane.claim);
            restart(lane, &mut claim);
            lane.cursor.cells_len.store(0, Relaxed);
            lane.cells.take();
            lane.cursor.flags.fetch_or(lane_flag::FORKED, Relaxed);
        }
    });
}

/// Sequence numbers ran out: ids go on under a new prefix.
#[cold]
pub(crate) fn renew_sequence(t: &Block, thread: &Thread) {
    redraw(t, thread, 0);
    for lane in lock(&thread.lanes).iter() {
        make_room(lane, 0);
    }
}

/// Draws a new prefix; open scopes keep the ids that they had, through aliases.
fn redraw(t: &Block, thread: &Thread, flags: u32) {
    let prefix = thread.prefix.load(Relaxed);
    let segments = lock(&thread.segments);
    let frames = segments.iter().flat_map(|segment| segment.frames()).filter(|frame| frame.span.load(Relaxed) != 0);
    let known: Vec<_> = frames.map(|frame| (frame, stack::ids(frame, prefix))).collect();
    t.base.root.set(1);
    for (frame, (trace_id, span_id, _)) in known {
        let alias = t.draw();
        stack::add_flow(Flow { alias, span_id, trace_id });
        frame.span.store(alias, Relaxed);
        frame.root.set(alias);
        frame.set(flag::FOREIGN | flags);
    }
    thread.prefix.store(fresh_prefix(), Relaxed);
}
