//! The frame of an open scope, and the slab it lives in.
//!
//! ```text
//!  0  link   pointer to the frame of the enclosing scope; when unused, to the next unused frame
//!  8  start  ticks
//! 16  path   u32
//! 20  word   flags u8 | lane u8 | more flags u16
//! 24  root   u32, sequence number of the outermost scope
//! 28  span   u32, sequence number in this thread; 0 while unused
//! ```
//!
//! The owner alone writes. Others read path, start, span and word to dump open scopes, hence atomics (plain moves on
//! x86-64). The span serves as a sequence lock: it is written last when a scope opens, zeroed before the frame is used
//! again, and who finds it unchanged has read one scope. Memory is given back when the thread ends, after it was unlinked
//! from the thread's list; until then a frame stays a frame, so a stale link is never a dangling pointer.

use std::{cell::Cell, ptr};

use crate::{
    name::Path,
    sync::{AtomicU32, AtomicU64, Ordering::*, constant, fence, own},
};

/// An open scope.
#[repr(C)]
pub(crate) struct Frame {
    pub(crate) link: Cell<*const Frame>,
    pub(crate) start: AtomicU64,
    pub(crate) path: AtomicU32,
    pub(crate) word: Word,
    pub(crate) root: Cell<u32>,
    pub(crate) span: AtomicU32,
}

/// Written by the owner alone, but read by the dump.
pub(crate) struct Word(AtomicU32);

impl Word {
    #[inline(always)]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// The same for the owner only.
    #[inline(always)]
    pub(crate) fn own(&self) -> u32 {
        // SAFETY: the owner alone writes it, and calls this.
        unsafe { own(&self.0) }
    }

    #[inline(always)]
    pub(crate) fn set(&self, word: u32) {
        self.0.store(word, Relaxed);
    }
}

/// Flags of [`Frame::word`]. The first two pass on to children.
pub(crate) mod flag {
    /// The root is not this thread's own: trace and parent come from the flow table.
    pub(crate) const FOREIGN: u32 = 1;
    /// The root decided against recording.
    pub(crate) const UNSAMPLED: u32 = 2;
    /// Attributes, events, links or a failure wait in the guard.
    pub(crate) const ITEMS: u32 = 4;
    /// Below the limits of paths: the depth waits in the guard.
    pub(crate) const DEEPER: u32 = 8;
    /// Closed before a child was.
    pub(crate) const CLOSED: u32 = 16;
    /// No scope of this thread but a stand-in for one: attached from elsewhere, or opened before a fork.
    pub(crate) const STAND_IN: u32 = 32;
    /// Of the items some were cut or left out, or the scope failed or is discarded.
    pub(crate) const UNUSUAL_ITEMS: u32 = 64;
    /// Opened while the thread was unwinding already.
    pub(crate) const BORN_PANICKING: u32 = 128;

    /// A stand-in for a scope of another flow: what is opened under it runs beside it, not within its time. Not one of
    /// the flags that matter to the hot paths.
    pub(crate) const ATTACHED: u32 = 1 << 16;

    /// A future's stand-in whose future is done while scopes of it live on elsewhere: its link is the innermost of them.
    pub(crate) const ABANDONED: u32 = 1 << 17;

    /// What a child inherits.
    pub(crate) const INHERITED: u32 = FOREIGN | UNSAMPLED;
    /// Where the lane's number stands.
    pub(crate) const LANE_SHIFT: u32 = 8;
}

/// Anything of this set sends closing to the cold path.
pub(crate) const HOT_MASK: u32 = 0xff;

impl Frame {
    constant! {
        pub(crate) fn new() -> Self {
            Self {
                link: Cell::new(ptr::null()),
                start: AtomicU64::new(0),
                path: AtomicU32::new(0),
                span: AtomicU32::new(0),
                root: Cell::new(0),
                word: Word(AtomicU32::new(0)),
            }
        }

        /// Stands for "no scope"; see `Block::base`.
        pub(crate) fn base() -> Self {
            Self { root: Cell::new(1), ..Self::new() }
        }
    }

    /// Shows others the scope that opens in this unused frame; its start is asked for as late as may be.
    #[inline(always)]
    pub(crate) fn open(&self, path: Path, word: u32, span: u32, start: impl FnOnce() -> u64) {
        self.path.store(path.0, Relaxed);
        self.word.set(word);
        self.start.store(start(), Relaxed);
        // Release: who sees the span also sees the rest.
        self.span.store(span, Release);
    }

    /// Makes the frame an unused one. The fence keeps what comes next from being seen beside the old span.
    #[inline(always)]
    pub(crate) fn vacate(&self) {
        self.span.store(0, Relaxed);
        fence(Release);
    }

    /// Path, start in ticks and lane of the scope that is open here, from any thread; none while that changes. Of the
    /// spans only those of futures' stand-ins come again, and their words tell them apart.
    pub(crate) fn scope(&self) -> Option<(Path, u64, usize)> {
        let seen = || (self.span.load(Acquire), self.word.get());
        let (span, word) = seen();
        let (path, start) = (Path(self.path.load(Relaxed)), self.start.load(Relaxed));
        fence(Acquire);
        let is_open = span != 0 && start != 0 && word & (flag::CLOSED | flag::STAND_IN) == 0;
        (is_open && seen() == (span, word)).then_some((path, start, lane_of(word)))
    }

    /// Root and span as metric records hold them: root in the low half. Owner only.
    #[inline(always)]
    pub(crate) fn root_and_span(&self) -> u64 {
        #[cfg(all(target_endian = "little", not(loom)))]
        // SAFETY: the two stand side by side, and aligned, in the frame. Only the owner, which is this thread, writes
        // them: a plain load of both at once races with nothing.
        unsafe {
            const { assert!(std::mem::offset_of!(Frame, root) == 24 && std::mem::offset_of!(Frame, span) == 28) };
            ptr::from_ref(self).cast::<u64>().add(3).read()
        }
        #[cfg(not(all(target_endian = "little", not(loom))))]
        {
            u64::from(self.root.get()) | u64::from(self.span.load(Relaxed)) << 32
        }
    }

    /// The path. Owner only.
    #[inline(always)]
    pub(crate) fn path(&self) -> u32 {
        // SAFETY: the owner alone writes it, and calls this.
        unsafe { own(&self.path) }
    }

    #[inline(always)]
    pub(crate) fn has(&self, flags: u32) -> bool {
        self.word.own() & flags != 0
    }

    pub(crate) fn set(&self, flags: u32) {
        self.word.set(self.word.get() | flags);
    }

    /// The lane's number. Owner only.
    #[inline(always)]
    pub(crate) fn lane(&self) -> usize {
        lane_of(self.word.own())
    }
}

#[inline(always)]
fn lane_of(word: u32) -> usize {
    (word >> flag::LANE_SHIFT & 0xff) as usize
}

/// A run of frames that never moves.
#[derive(Debug)]
pub(crate) struct Segment {
    frames: *mut [Frame],
}

// SAFETY: other threads reach the frames only through `Segment::frames`, whose users read the atomics alone.
unsafe impl Send for Segment {}

impl Segment {
    /// `len` frames, linked as unused ones.
    pub(crate) fn with_len(len: usize) -> Self {
        let frames: Box<[Frame]> = (0..len).map(|_| Frame::new()).collect();
        let frames = Box::into_raw(frames);
        // SAFETY: just made, and nobody else knows it.
        let linked = unsafe { &*frames };
        for pair in linked.windows(2) {
            if let [frame, next] = pair {
                frame.link.set(next);
            }
        }
        Self { frames }
    }

    pub(crate) fn first(&self) -> *const Frame {
        self.frames.cast_const().cast()
    }

    pub(crate) fn frames(&self) -> &[Frame] {
        // SAFETY: allocated in `with_len` and freed in `drop` only.
        unsafe { &*self.frames }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: allocated in `with_len` as a box; the owner has forgotten every pointer into it (`buffer::end_thread`).
        drop(unsafe { Box::from_raw(self.frames) });
    }
}
