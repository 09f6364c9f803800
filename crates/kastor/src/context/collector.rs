//! The contexts of the process, and the one thread that looks after them.
//!
//! Every 250 ms the collector claims what all threads have published and, at each context's interval, hands the
//! aggregates to the background reporters. It starts with the first background reporter and ends with the last context.

use std::{
    sync::{Arc, Condvar, Once, PoisonError, Weak},
    time::Duration,
};

use super::{Context, fork};
use crate::{
    dispatch::{
        rest::{is_resting, set_resting, wait_until_alone},
        start_thread,
    },
    reporter::Deadline,
    sync::{AtomicU64, Mutex, Ordering::Relaxed, lock},
};

/// How often what threads have published is claimed.
const TICK: Duration = Duration::from_millis(250);

static CONTEXTS: Mutex<Contexts> = Mutex::new(Contexts { all: Vec::new(), is_running: false, wants_collector: false });
static WAKE: Condvar = Condvar::new();
/// Time that all contexts together get at the end: the longest that any of them asked for.
static EXIT_BUDGET_MS: AtomicU64 = AtomicU64::new(0);

struct Contexts {
    all: Vec<Weak<Context>>,
    is_running: bool,
    wants_collector: bool,
}

/// Makes a context known. One with background reporters is ticked, and flushed when the process exits in order
/// (`_exit` and aborts are beyond reach).
pub(super) fn manage(context: Weak<Context>, exit_budget: Option<Duration>) {
    static FORK: Once = Once::new();
    static EXIT: Once = Once::new();
    FORK.call_once(fork::register);
    let mut contexts = lock(&CONTEXTS);
    contexts.all.retain(|context| context.strong_count() > 0);
    contexts.all.push(context);
    if let Some(budget) = exit_budget {
        EXIT.call_once(|| {
            #[cfg(all(unix, not(miri)))]
            // SAFETY: `flush_all` is an `extern "C"` function without arguments that does not unwind and stays loaded.
            unsafe {
                libc::atexit(flush_all);
            }
        });
        EXIT_BUDGET_MS.fetch_max(u64::try_from(budget.as_millis()).unwrap_or(u64::MAX), Relaxed);
        contexts.wants_collector = true;
        start(&mut contexts);
    }
}

/// Starts the collector again if a fork left it behind.
pub(crate) fn ensure_running() {
    let mut contexts = lock(&CONTEXTS);
    if contexts.wants_collector {
        start(&mut contexts);
    }
}

fn start(contexts: &mut Contexts) {
    if !contexts.is_running && !is_resting() {
        // Without a thread, full chunks and flushes still deliver.
        contexts.is_running = start_thread(c"kastor-collect", run);
    }
}

fn run() {
    let mut contexts = lock(&CONTEXTS);
    loop {
        let alive = upgraded(&contexts.all);
        if alive.is_empty() {
            contexts.is_running = false;
            return;
        }
        drop(contexts);
        alive.iter().for_each(|context| context.tick());
        drop(alive);
        contexts = lock(&CONTEXTS);
        if is_resting() {
            contexts.is_running = false;
            return;
        }
        contexts = WAKE.wait_timeout(contexts, TICK).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Lets threads of the library that have nothing to do end, before a fork. Returns whether none is left. Until [`wake`]
/// none starts; what is emitted meanwhile waits.
pub(crate) fn rest(deadline: Deadline) -> bool {
    set_resting(true);
    let contexts = lock(&CONTEXTS);
    let alive = upgraded(&contexts.all);
    WAKE.notify_all();
    drop(contexts);
    alive.iter().for_each(|context| context.wake_workers());
    drop(alive);
    wait_until_alone(deadline)
}

/// Lets threads start again.
pub(crate) fn wake() {
    set_resting(false);
    ensure_running();
}

/// All contexts that are alive. The last handle of one must not end under the lock, hence `Arc`s that outlive it.
fn upgraded(all: &[Weak<Context>]) -> Vec<Arc<Context>> {
    all.iter().filter_map(Weak::upgrade).collect()
}

#[cfg_attr(any(not(unix), miri), expect(dead_code, reason = "there is no hook at exit"))]
extern "C" fn flush_all() {
    let deadline = Deadline::after(Duration::from_millis(EXIT_BUDGET_MS.load(Relaxed)));
    let contexts = upgraded(&lock(&CONTEXTS).all);
    contexts.iter().for_each(|context| context.flush_at_exit(deadline));
    // Their ends are the process's.
    std::mem::forget(contexts);
}

/// For a fork: the contexts, and the lock on their list.
pub(super) fn hold() -> (Vec<Arc<Context>>, std::sync::MutexGuard<'static, impl Sized>) {
    let contexts = lock(&CONTEXTS);
    (upgraded(&contexts.all), contexts)
}

/// In a forked child: there is no collector there.
pub(super) fn forget_thread() {
    lock(&CONTEXTS).is_running = false;
}
