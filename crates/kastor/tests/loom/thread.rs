//! What the models of lanes see instead of the library's `thread`: the real lane and slots of cells, and chunks whose every word
//! loom watches.

pub(crate) mod frame {
    pub(crate) mod flag {
        pub(crate) const ITEMS: u32 = 4;
        pub(crate) const LANE_SHIFT: u32 = 8;
    }
}
#[path = "../../src/thread/hot_slots.rs"]
mod hot_slots;
#[path = "../../src/thread/lane.rs"]
#[allow(dead_code, reason = "the models use what appends, claims and switches")]
mod lane;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use loom::{cell::UnsafeCell, sync::atomic::AtomicU64};

pub(crate) use self::{
    frame::flag,
    hot_slots::HotSlots,
    lane::{Call, CellSlot, CellWanted, Claim, Delivery, Lane, Part, Sink, lane_flag},
};

/// Two records without extras, or one that brings its flow.
pub(crate) const MIN_CHUNK_WORDS: usize = 8;
pub(crate) const MAX_CHUNK_WORDS: usize = 8;
pub(crate) const FLOW_WORDS: usize = 4;

/// A chunk whose words fail the model if they are read before they are known to be written, or written while they may
/// still be read.
pub(crate) struct Chunk {
    words: Box<[u64]>,
}

thread_local! {
    /// What watches the words of all chunks, by address. The threads of a model are all within one thread.
    static WATCHED: RefCell<BTreeMap<usize, Rc<UnsafeCell<()>>>> = const { RefCell::new(BTreeMap::new()) };
}

fn watcher(word: *const u64) -> Rc<UnsafeCell<()>> {
    WATCHED.with_borrow(|watched| Rc::clone(&watched[&word.addr()]))
}

impl Chunk {
    pub(crate) fn with_words(capacity: usize) -> Self {
        let words = vec![0; capacity].into_boxed_slice();
        for word in &words {
            let watcher = Rc::new(UnsafeCell::new(()));
            WATCHED.with_borrow_mut(|watched| watched.insert(std::ptr::from_ref(word).addr(), watcher));
        }
        Self { words }
    }

    pub(crate) fn words(&self) -> *mut u64 {
        self.words.as_ptr().cast_mut()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.words.len()
    }

    pub(crate) unsafe fn slice(&self, from: usize, to: usize) -> &[u64] {
        let words = &self.words[from..to];
        words.iter().for_each(|word| watcher(word).with(|_| ()));
        words
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        for word in &self.words {
            WATCHED.with_borrow_mut(|watched| watched.remove(&std::ptr::from_ref(word).addr()));
        }
    }
}

pub(crate) unsafe fn put(to: *mut u64, words: &[u64]) {
    for (at, word) in words.iter().enumerate() {
        let place = to.wrapping_add(at);
        watcher(place).with_mut(|_| ());
        // SAFETY: as the caller says; loom has just checked it.
        unsafe { place.write(*word) };
    }
}

/// A thread of the library, as far as lanes know it.
pub(crate) struct Thread {
    pub(crate) prefix: AtomicU64,
}

/// What a lane's owner knows of itself: that it has numbers enough.
pub(crate) struct Block;

impl Block {
    pub(crate) fn is_worn(&self) -> bool {
        false
    }
}

pub(crate) fn block<R>(f: impl FnOnce(&Block) -> R) -> R {
    f(&Block)
}
