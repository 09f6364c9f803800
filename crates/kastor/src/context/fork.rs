//! A forked child starts clean: no lock is held, nothing of the parent's is delivered, ids are its own.
//!
//! Before the fork the forking thread takes every lock of the library, in the order of the rooms; afterwards parent and
//! child give them back. The child forgets other threads, unclaimed records and all sums. Scopes that were open become
//! stand-ins: they pop silently, and are the parents of the child's scopes.

use std::{cell::RefCell, sync::Arc};

use super::{Context, collector};
use crate::{buffer, callsite, dispatch, name, sync::Held};

struct Locks {
    // Dropped in this order: the locks before what they belong to.
    held: Vec<Box<dyn Held>>,
    contexts: Vec<Arc<Context>>,
}

thread_local! {
    static LOCKS: RefCell<Option<Locks>> = const { RefCell::new(None) };
}

/// Asks the system to be told of forks. There are none on platforms other than Unix.
pub(super) fn register() {
    #[cfg(all(unix, not(miri)))]
    // SAFETY: the three functions are `extern "C"`, do not unwind, and stay loaded.
    unsafe {
        libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child));
    }
}

#[cfg_attr(all(any(not(unix), miri), not(test)), expect(dead_code, reason = "there are no forks"))]
extern "C" fn before() {
    let (contexts, list) = collector::hold();
    let mut held: Vec<Box<dyn Held>> = Vec::new();
    held.push(Box::new(list));
    held.extend(callsite_and_names());
    buffer::hold(&mut held);
    for context in &contexts {
        let mut of_context: Vec<Box<dyn Held + '_>> = Vec::new();
        context.hold(&mut of_context);
        // SAFETY: only lifetimes change. The guards borrow from contexts that `Locks` keeps, and are dropped first.
        held.extend(
            of_context
                .into_iter()
                .map(|guard| unsafe { std::mem::transmute::<Box<dyn Held + '_>, Box<dyn Held>>(guard) }),
        );
    }
    // A thread that is past its thread-locals forks without the locks: nothing worse than without this library.
    let _ = LOCKS.try_with(|locks| *locks.borrow_mut() = Some(Locks { held, contexts }));
}

fn callsite_and_names() -> [Box<dyn Held>; 3] {
    let (names, paths) = name::hold();
    [Box::new(callsite::hold()), Box::new(names), Box::new(paths)]
}

fn give_back() -> Vec<Arc<Context>> {
    let locks = LOCKS.try_with(|locks| locks.borrow_mut().take()).ok().flatten();
    let Some(Locks { held, contexts }) = locks else { return Vec::new() };
    // In reverse, as they were taken.
    held.into_iter().rev().for_each(drop);
    contexts
}

#[cfg_attr(all(any(not(unix), miri), not(test)), expect(dead_code, reason = "there are no forks"))]
extern "C" fn after_in_parent() {
    drop(give_back());
}

#[cfg_attr(any(not(unix), miri), expect(dead_code, reason = "there are no forks"))]
extern "C" fn after_in_child() {
    let contexts = give_back();
    dispatch::rest::forget_threads();
    collector::forget_thread();
    buffer::forget_past();
    contexts.iter().for_each(|context| context.forget_past());
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;
    use crate::Telemetry;

    #[test]
    fn a_thread_that_ends_right_after_a_fork_waits_for_the_locks_and_frees_what_is_its_own() {
        let tele = Telemetry::builder().build();
        let (opened, is_open) = mpsc::channel();
        let (go_on, may_end) = mpsc::channel::<()>();
        let of_thread = tele.clone();
        let other = thread::spawn(move || {
            drop(of_thread.scope("fork.other"));
            opened.send(()).unwrap();
            may_end.recv().unwrap();
        });
        is_open.recv().unwrap();
        before();
        go_on.send(()).unwrap();
        after_in_parent();
        other.join().unwrap();
        assert_eq!(tele.report().scope("fork.other").map(|it| it.calls()), Some(1));
    }
}
