//! A scope that follows a future: entered per poll, closed when the future is done or dropped.

use std::{
    future::Future,
    pin::Pin,
    ptr,
    task::{Context as PollContext, Poll},
    thread::panicking,
};

use crate::{
    buffer::{self, timing_front},
    health::DropReason,
    name::name,
    record::flag as record_flag,
    scope::{Detached, Scope, finish, foreign_ids, item_flags},
    stack::{self, Suspended},
    sync::Ordering::Relaxed,
    thread::{Block, Frame, Lane, Thread, block, flag, lane_flag},
    value::Value,
};

/// Puts futures into scopes.
pub trait FutureExt: Future + Sized {
    /// Lets the scope follow this future: it is current while the future is polled, on whatever thread, and closes when
    /// the future is done. Dropped before that, the scope fails as `cancelled`; a panic in a poll makes it fail as
    /// `panic`. A scope that is opened inside and held across an `await` stays current for this future alone.
    fn in_scope(self, scope: Scope) -> InScope<Self> {
        InScope { future: Some(self), scope: scope.detach().map(Follower::new) }
    }
}

impl<F: Future> FutureExt for F {}

/// A future with its scope; made by [`FutureExt::in_scope`].
#[must_use = "futures do nothing unless they are polled"]
pub struct InScope<F> {
    /// Pinned with the wrapper; none once it is done.
    future: Option<F>,
    scope: Option<Follower>,
}

impl<F> InScope<F> {
    /// Adds up the time spent in polls and sets it as the attribute `busy_ns` at the end: two more clock reads a poll.
    pub fn with_busy_time(mut self) -> Self {
        if let Some(follower) = &mut self.scope {
            follower.busy_ticks = Some(0);
        }
        self
    }
}

impl<F: Future> Future for InScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut PollContext<'_>) -> Poll<F::Output> {
        // SAFETY: the future is never moved out of the pinned wrapper, only dropped in place; the rest is not pinned.
        let this = unsafe { self.get_unchecked_mut() };
        let Some(future) = &mut this.future else {
            // Polling again is the caller's mistake, as with any future; there is nothing to wait for.
            return Poll::Pending;
        };
        // SAFETY: part of the pinned wrapper, see above.
        let future = unsafe { Pin::new_unchecked(future) };
        let Some(follower) = &mut this.scope else { return future.poll(context) };
        let polled = {
            let _entered = follower.enter();
            future.poll(context)
        };
        if polled.is_ready() {
            this.drop_future();
            this.close(None);
        }
        polled
    }
}

impl<F> InScope<F> {
    /// Drops the future in place, inside its scope.
    fn drop_future(&mut self) {
        let _entered = self.scope.as_mut().map(Follower::enter);
        self.future = None;
    }

    fn close(&mut self, error_type: Option<&str>) {
        if let Some(follower) = self.scope.take() {
            follower.close(error_type);
        }
    }
}

impl<F> Drop for InScope<F> {
    fn drop(&mut self) {
        // A destructor that panics in `drop_future` has left the follower behind: it closes as `panic`.
        struct Closing<'a, F>(&'a mut InScope<F>);
        impl<F> Drop for Closing<'_, F> {
            fn drop(&mut self) {
                self.0.close(Some("cancelled"));
            }
        }
        let this = Closing(self);
        if this.0.future.is_some() {
            this.0.drop_future();
        }
    }
}

/// The scope of a future between its polls.
struct Follower {
    scope: Detached,
    suspended: u64,
    /// Scopes that were opened in a poll and not closed in it: the stand-in under them, and the innermost.
    held: Option<Held>,
    busy_ticks: Option<u64>,
    has_panicked: bool,
}

// SAFETY: `held` points into the slab of the thread that polled. It is set only while a `Scope` lives inside the future;
// that makes the future, and so the wrapper, `!Send`. A leaked one leaves frames of a thread behind, which is checked.
unsafe impl Send for Follower {}
// SAFETY: nothing is reachable through a shared reference.
unsafe impl Sync for Follower {}

/// What was left open in a poll: the flow that was entered, and its innermost scope.
#[derive(Clone, Copy)]
struct Held {
    entered: stack::Entered,
    innermost: *const Frame,
    levels: u32,
    thread: u32,
}

impl Follower {
    fn new(scope: Detached) -> Self {
        let suspended = Suspended { path: scope.path, start: scope.start, sink: scope.sink.clone() };
        let suspended = stack::add_suspended(suspended);
        Self { scope, suspended, held: None, busy_ticks: None, has_panicked: false }
    }

    /// Makes the scope current on this thread until the guard is dropped.
    #[inline(always)]
    fn enter(&mut self) -> Polling<'_> {
        block(|t| {
            // SAFETY: null, or this thread's, which is in place until the thread ends.
            let thread = unsafe { t.thread.get().as_ref() };
            let is_usual = self.held.is_none() && self.busy_ticks.is_none() && !t.free.get().is_null();
            if is_usual && thread.is_some_and(|thread| self.scope.is_home(thread)) {
                let entered = self.push(t);
                return Polling { follower: self, entered, is_plain: true, started: 0 };
            }
            let entered = self.enter_in_full(t).unwrap_or(stack::Entered::NOWHERE);
            let started = if self.busy_ticks.is_some() { self.scope.sink.ticks() } else { 0 };
            Polling { follower: self, entered, is_plain: false, started }
        })
    }

    #[cold]
    #[inline(never)]
    fn enter_in_full(&mut self, t: &Block) -> Option<stack::Entered> {
        let thread = buffer::thread(t)?;
        if let Some(held) = self.held.take().filter(|held| held.thread == thread.index) {
            let (previous, levels) = (t.current.get(), t.deep_levels.get());
            stack::resume(t, held.innermost, held.levels);
            return Some(stack::Entered { previous, levels, ..held.entered });
        }
        if self.scope.is_home(thread) {
            stack::free_frame(t, thread);
            return Some(self.push(t));
        }
        Some(self.scope.carrier.enter(t, thread, 0))
    }

    /// Pushes a stand-in with the scope's own numbers, which mean on this thread what they meant at first. There is an
    /// unused frame.
    #[inline(always)]
    fn push(&self, t: &Block) -> stack::Entered {
        let previous = t.current.get();
        // SAFETY: not null, so an unused frame of this thread's segments.
        let frame = unsafe { &*t.free.get() };
        let word = flag::STAND_IN | self.scope.flags;
        let (span, _, root) = self.scope.sequences;
        stack::push_as(t, frame, previous, (self.scope.path, word), (root, span), || 0);
        let levels = t.deep_levels.replace(self.scope.depth + 1);
        stack::Entered { stand_in: frame, previous, levels }
    }

    fn close(mut self, error_type: Option<&str>) {
        stack::remove_suspended(self.suspended);
        if let Some(held) = self.held.take() {
            block(|t| {
                if !t.ended.get() && buffer::thread(t).is_some_and(|thread| thread.index == held.thread) {
                    stack::abandon(t, held.entered.stand_in, held.innermost);
                }
            });
        }
        if self.scope.is_inherited() {
            return;
        }
        let error_type = if self.has_panicked { Some("panic") } else { error_type };
        if let Some(error_type) = error_type.filter(|_| !self.scope.items.is_failed) {
            self.scope.items.fail(error_type);
        }
        if let Some(ticks) = self.busy_ticks {
            self.scope.items.attribute(name("busy_ns"), &Value::U64(self.scope.sink.duration_ns(ticks)));
        }
        block(|t| match buffer::lane(t, &self.scope.sink, self.scope.context_id) {
            // SAFETY: lanes of this thread live until it ends.
            Some(lane) => self.write(t, unsafe { &*lane }),
            None => self.scope.sink.refused(DropReason::ProcessExit),
        });
    }

    fn write(&mut self, t: &Block, lane: &Lane) {
        let scope = &mut self.scope;
        if lane.cursor.flags.load(Relaxed) & lane_flag::OFF != 0 || scope.items.is_discarded {
            return lane.sink.refused_if_over();
        }
        let mut record_flags = buffer::inherited_flags(scope.flags) | item_flags(lane, &scope.items);
        let (mut ids, mut aliases) = (scope.sequences, [].as_slice());
        let foreign;
        if !scope.is_home(&lane.thread) {
            ids = foreign_ids(t, &scope.carrier, scope.parent_span_id);
            foreign = [ids.0, ids.1];
            (aliases, record_flags) = (&foreign, record_flags | record_flag::FOREIGN);
        }
        if !is_inside_parent(t, &lane.thread, scope.parent_span_id) {
            record_flags |= record_flag::DETACHED;
        }
        let end = lane.sink.ticks();
        let times = (scope.start, end.saturating_sub(scope.start));
        t.last_tick.set(end);
        let front = timing_front((scope.path, scope.depth), ids, times, record_flags);
        finish(lane, front, &mut scope.items, aliases);
    }
}

/// Whether the scope around is the parent: then the future was awaited within its time.
fn is_inside_parent(t: &Block, thread: &Thread, parent_span_id: u64) -> bool {
    // SAFETY: the thread is set up: `current` is the base or an open frame.
    let current = unsafe { &*t.current.get() };
    // A stand-in for the parent is not the parent: its time goes on elsewhere.
    let is_itself = current.span.load(Relaxed) != 0 && !current.has(flag::ATTACHED);
    is_itself && stack::ids(current, thread.prefix.load(Relaxed)).1 == parent_span_id
}

/// A poll in progress.
struct Polling<'f> {
    follower: &'f mut Follower,
    entered: stack::Entered,
    /// Whether leaving may be tried the short way.
    is_plain: bool,
    /// Ticks, if busy time is wanted.
    started: u64,
}

impl Drop for Polling<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.is_plain || panicking() || !block(|t| self.entered.leave_quickly(t)) {
            self.leave_in_full();
        }
    }
}

impl Polling<'_> {
    #[cold]
    #[inline(never)]
    fn leave_in_full(&mut self) {
        let entered = self.entered;
        if let Some(busy) = &mut self.follower.busy_ticks {
            *busy = busy.saturating_add(self.follower.scope.sink.ticks().saturating_sub(self.started));
        }
        self.follower.has_panicked |= panicking();
        block(|t| {
            let innermost = t.current.get();
            if t.ended.get() || entered.previous.is_null() {
                return;
            }
            if ptr::eq(innermost, entered.stand_in) {
                return entered.leave(t);
            }
            let thread = buffer::thread(t).map_or(0, |thread| thread.index);
            self.follower.held = Some(Held { entered, innermost, levels: t.deep_levels.get(), thread });
            entered.go_back(t);
        });
    }
}
