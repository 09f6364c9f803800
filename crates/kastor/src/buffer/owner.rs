//! The owner's side of a thread: its set-up on first use, its lanes, its end, and what a fork leaves of it.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use super::{frame_front, make_room, pool, restart, write};
use crate::{
    clock,
    event::mix,
    health::DropReason,
    record::flag as record_flag,
    stack,
    sync::{AtomicU64, Held, Mutex, Ordering::Relaxed, lock},
    thread::{
        Block, Chunk, FORKS, Flow, HotSlots, ItemBuffer, Lane, MIN_CHUNK_WORDS, Part, Sink, Thread, block, flag,
        lane_flag,
    },
};

/// Every live thread that ever opened a scope or recorded a metric.
static THREADS: Mutex<Vec<Arc<Thread>>> = Mutex::new(Vec::new());

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
fn set_up(t: &Block) -> Option<Arc<Thread>> {
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
    // Contexts end, and with them reporters, when everything is in place: their destructors may come by here.
    let mut dead = Vec::new();
    let added = OWNER.with(|owner| {
        let mut owner = owner.borrow_mut();
        let lanes = &mut owner.as_mut()?.lanes;
        if t.pins.get() == 0 {
            dead = take_dead_lanes(t, thread, lanes);
        }
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
        if t.last_tick.get() == 0 {
            // A metric may come before any scope, and has to have some time.
            t.last_tick.set(sink.ticks());
        }
        if t.waiting.get() > 0 {
            lane.cursor.flags.fetch_or(lane_flag::DISORDER, Relaxed);
        }
        let pointer = Arc::as_ptr(&lane);
        *lanes.get_mut(usize::from(number))? = pointer;
        let mut listed = lock(&thread.lanes);
        // Under the lock: a switch of the context finds the lane in the list, or happened before this.
        lane.cursor.follow(&**sink);
        listed.push(lane);
        Some(pointer)
    });
    let _pin = t.pin();
    drop(dead);
    added
}

/// Lanes into contexts that nobody can reach any more make room, unless an open scope still carries their number.
fn take_dead_lanes(t: &Block, thread: &Thread, lanes: &mut [*const Lane]) -> Vec<Arc<Lane>> {
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
    dead
}

/// All threads that are set up.
pub(crate) fn threads() -> Vec<Arc<Thread>> {
    lock(&THREADS).clone()
}

/// Rewrites the flags of a context's lanes on all threads.
pub(crate) fn set_lane_flags(sink: &dyn Sink) {
    for thread in threads() {
        let lanes = lock(&thread.lanes);
        for lane in lanes.iter().filter(|lane| lane.sink.id() == sink.id()) {
            lane.cursor.follow(sink);
            // SAFETY: a thread takes its lanes out of the list, under its lock, before it ends; until then its block is
            // in place. Only keys are touched, which are atomic.
            unsafe { thread.hot_slots.as_ref() }.into_iter().for_each(HotSlots::clear);
        }
    }
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
    t.set_lane(&raw const crate::thread::VACANT);
    let Some(owner) = OWNER.try_with(|owner| owner.borrow_mut().take()).ok().flatten() else { return };
    let thread = owner.thread;
    report_unfinished(&thread, &owner.lanes);
    // The lanes stay in the list until they are retired: a flush in the meantime finds them.
    let lanes = lock(&thread.lanes).clone();
    for lane in &lanes {
        lane.sink.end_lane(lane);
        // An inline reporter that emits may have brought the lane's cells back to the hot paths, and does so no more.
        lane.cursor.cells_len.store(0, Relaxed);
        t.hot_slots.clear();
        make_room(lane, 0);
    }
    lock(&thread.lanes).clear();
    stack::end_flows();
    t.current.set(&t.base);
    // Again: an inline reporter that was served above may have looked its lane up.
    t.set_lane(&raw const crate::thread::VACANT);
    t.free.set(std::ptr::null());
    t.lanes.set(std::ptr::null());
    t.lanes_len.set(0);
    t.thread.set(std::ptr::null());
    lock(&THREADS).retain(|other| !Arc::ptr_eq(other, &thread));
    lock(&thread.segments).clear();
    let mut held = t.items.replace(std::ptr::null_mut());
    while !held.is_null() {
        // SAFETY: the list holds boxes that nobody else refers to.
        let buffer = unsafe { Box::from_raw(ItemBuffer::untagged(held)) };
        held = buffer.next;
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
            if lane.cursor.flags.load(Relaxed) & lane_flag::OFF != 0 {
                lane.sink.refused_if_over();
                continue;
            }
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

/// Locks everything that belongs to threads, for a fork. What is locked first is given back last.
pub(crate) fn hold(held: &mut Vec<Box<dyn Held>>) {
    let list = lock(&THREADS);
    let threads: Vec<_> = list.iter().map(Arc::as_ptr).collect();
    held.push(Box::new(list));
    for thread in threads {
        // SAFETY: only lifetimes change. The list keeps its threads: one that ends waits for the lock, which is given back
        // after all of these.
        let thread: &'static Thread = unsafe { &*thread };
        let lanes = lock(&thread.lanes);
        let listed: Vec<_> = lanes.iter().map(Arc::as_ptr).collect();
        held.push(Box::new(lanes));
        for lane in listed {
            // SAFETY: as above, with the thread's own list.
            let lane: &'static Lane = unsafe { &*lane };
            held.push(Box::new(lock(&lane.claim)));
        }
        held.push(Box::new(lock(&thread.segments)));
    }
    held.push(Box::new(pool::hold()));
    stack::hold(held);
}

/// In a forked child: other threads do not exist, this thread's records and ids so far are the parent's.
pub(crate) fn forget_past() {
    FORKS.fetch_add(1, Relaxed);
    crate::thread::reseed(clock::now_ns());
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
            t.hot_slots.clear();
            lane.cursor.flags.fetch_or(lane_flag::FORKED, Relaxed);
        }
    });
}

/// Sequence numbers ran out: ids go on under a new prefix.
#[cold]
pub(crate) fn renew_sequence(t: &Block, thread: &Thread) {
    redraw(t, thread, 0);
    for lane in lock(&thread.lanes).iter() {
        lane.cursor.flags.fetch_and(!lane_flag::WORN, Relaxed);
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
    // Every open frame gets an alias of its own; a stale one would soon stand for a new scope's number.
    stack::end_flows();
    for (frame, (trace, span_id, _)) in known {
        let alias = t.draw();
        stack::add_flow(Flow { alias, span_id, ..trace });
        frame.span.store(alias, Relaxed);
        frame.root.set(alias);
        frame.set(flag::FOREIGN | flags);
    }
    thread.prefix.store(fresh_prefix(), Relaxed);
    thread.epoch.store(0, Relaxed);
}
