//! A scope that has left its thread's stack, with all that its record will need.

use std::{mem::ManuallyDrop, sync::Arc};

use super::Scope;
use crate::{
    name::Path,
    stack::{self, Carrier},
    sync::Ordering::Relaxed,
    thread::{FORKS, ItemBuffer, Sink, Thread, block, flag},
};

/// See the module.
pub(crate) struct Detached {
    pub(crate) carrier: Carrier,
    pub(crate) parent_span_id: u64,
    /// Whose sequence numbers these are: span, parent and root.
    home: (u32, u64),
    pub(crate) sequences: (u32, u32, u32),
    pub(crate) path: Path,
    pub(crate) depth: u32,
    pub(crate) start: u64,
    pub(crate) flags: u32,
    pub(crate) items: Box<ItemBuffer>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) context_id: u64,
    forks: u32,
}

impl Detached {
    /// Whether the scope is a forked child's parent's: it closes silently here.
    pub(crate) fn is_inherited(&self) -> bool {
        self.forks != FORKS.load(Relaxed)
    }

    /// Whether the sequence numbers mean on this thread what they meant at first.
    #[inline]
    pub(crate) fn is_home(&self, thread: &Thread) -> bool {
        self.home == (thread.index, thread.prefix.load(Relaxed)) && self.flags & flag::FOREIGN == 0
    }
}

impl Scope {
    /// Takes the scope off this thread's stack, still open.
    pub(crate) fn detach(self) -> Option<Detached> {
        let scope = ManuallyDrop::new(self);
        let frame = scope.frame()?;
        block(|t| {
            let lane = scope.lane(t)?;
            let depth = scope.depth(frame);
            let prefix = lane.thread.prefix.load(Relaxed);
            // SAFETY: the link of an open frame is the base or a frame in place.
            let parent = unsafe { &*frame.link.get() };
            let parent_span = parent.span.load(Relaxed);
            let items = match Self::items_of(scope.extra.get()) {
                pointer if pointer.is_null() => ItemBuffer::new(),
                // SAFETY: made by `Box::into_raw` in `take_items`; the scope itself is not dropped.
                pointer => unsafe { Box::from_raw(pointer) },
            };
            let detached = Detached {
                carrier: Carrier::of(frame, depth + 1, prefix, lane.sink.sampler()),
                parent_span_id: if parent_span == 0 { 0 } else { stack::ids(parent, prefix).1 },
                home: (lane.thread.index, prefix),
                sequences: (frame.span.load(Relaxed), parent_span, frame.root.get()),
                path: Path(frame.path.load(Relaxed)),
                depth,
                start: frame.start.load(Relaxed),
                flags: frame.word.get() & flag::INHERITED,
                items,
                sink: Arc::clone(&lane.sink),
                context_id: lane.cursor.context_id,
                forks: FORKS.load(Relaxed),
            };
            stack::close(t, frame);
            Some(detached)
        })
    }
}
