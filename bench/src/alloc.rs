//! An allocator that counts: how often this thread allocated, and how many bytes live in the whole process.
//!
//! Every thread counts in a block of its own with plain loads and stores, so that peers that allocate on every
//! scope pay 1 ns for being counted and not a locked addition. The blocks are linked and never freed: a sum over
//! them is the figure of the process, including threads that have ended.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering::*};

/// The global allocator of this binary.
pub struct Counting;

/// Allocations (and growing reallocations) of the calling thread so far.
pub fn allocations_of_thread() -> u64 {
    block().allocations.load(Relaxed)
}

/// Bytes that were allocated and not freed, over all threads.
pub fn live_bytes() -> i64 {
    let mut sum = 0;
    let mut next: *const Block = BLOCKS.load(Acquire);
    while !next.is_null() {
        // SAFETY: blocks in the list are initialised before they are published and are never freed.
        let block = unsafe { &*next };
        sum += block.live_bytes.load(Relaxed);
        next = block.next;
    }
    sum
}

struct Block {
    allocations: AtomicU64,
    /// May be negative: memory is often freed by another thread than the one that allocated it.
    live_bytes: AtomicI64,
    next: *const Block,
}

static BLOCKS: AtomicPtr<Block> = AtomicPtr::new(null_mut());

thread_local! {
    static BLOCK: Cell<*const Block> = const { Cell::new(null()) };
}

#[inline(always)]
fn block() -> &'static Block {
    let found = BLOCK.with(Cell::get);
    let found = if found.is_null() { new_block() } else { found };
    // SAFETY: not null, and blocks live for ever.
    unsafe { &*found }
}

#[cold]
#[inline(never)]
fn new_block() -> *const Block {
    // SAFETY: the layout is not empty. System, not the global allocator, or this would call itself.
    let place = unsafe { System.alloc(Layout::new::<Block>()) }.cast::<Block>();
    if place.is_null() {
        std::alloc::handle_alloc_error(Layout::new::<Block>());
    }
    let mut head = BLOCKS.load(Acquire);
    loop {
        let block = Block { allocations: AtomicU64::new(0), live_bytes: AtomicI64::new(0), next: head };
        // SAFETY: `place` is ours until the exchange below publishes it.
        unsafe { place.write(block) };
        match BLOCKS.compare_exchange(head, place, AcqRel, Acquire) {
            Ok(_) => break,
            Err(newer) => head = newer,
        }
    }
    BLOCK.with(|cell| cell.set(place));
    place
}

#[inline(always)]
fn note(allocations: u64, bytes: i64) {
    let block = block();
    block.allocations.store(block.allocations.load(Relaxed) + allocations, Relaxed);
    block.live_bytes.store(block.live_bytes.load(Relaxed) + bytes, Relaxed);
}

// SAFETY: every call goes to the system allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(1, new_size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(old, layout, new_size) }
    }
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(old, layout) }
    }
}
