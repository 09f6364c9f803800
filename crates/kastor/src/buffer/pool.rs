//! Memory that is used again: full-size chunks for all threads, item buffers per thread.

use crate::{
    sync::{Mutex, lock},
    thread::{Block, Chunk, ItemBuffer, MAX_CHUNK_WORDS},
};

/// Full-size chunks that wait to be used.
static POOL: Mutex<Vec<Chunk>> = Mutex::new(Vec::new());
/// Chunks that workers keep ready.
const STOCK: usize = 16;
/// Chunks beyond this number go back to the allocator.
const MAX_POOLED: usize = 64;

/// A chunk of at least so many words.
pub(crate) fn take(words: usize) -> Chunk {
    if words == MAX_CHUNK_WORDS {
        if let Some(chunk) = lock(&POOL).pop() {
            return chunk;
        }
    }
    Chunk::with_words(words)
}

/// Makes a few chunks ready, from a thread that has time: fresh memory costs whoever touches it first.
pub(crate) fn stock_pool() {
    let missing = STOCK.saturating_sub(lock(&POOL).len());
    for _ in 0..missing {
        let chunk = Chunk::with_words(MAX_CHUNK_WORDS);
        chunk.touch();
        give_back(chunk);
    }
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
    let held = t.items.get();
    if held.is_null() {
        return Box::into_raw(ItemBuffer::new());
    }
    let items = ItemBuffer::untagged(held);
    // SAFETY: the list holds boxes that nobody else refers to.
    let buffer = unsafe { &mut *items };
    t.items.set(buffer.next);
    // The hot paths give buffers back as they are.
    buffer.empty();
    items
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
    t.items.set(ItemBuffer::tagged(items));
}

/// Holds the pool still, for a fork.
pub(super) fn hold() -> std::sync::MutexGuard<'static, impl Sized> {
    lock(&POOL)
}
