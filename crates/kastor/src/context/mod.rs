//! `Telemetry`: an enabled context, or the one disabled one.
//!
//! Disabled is a null object: the same interface, every method returns at once, nothing is allocated. The macros use the
//! *current* context: the one that a guard chose for this thread, else the one that the process installed.

mod budget;
mod builder;
mod collector;
mod core;
mod fork;
mod rules;

use std::{
    cell::RefCell,
    fmt,
    marker::PhantomData,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub use self::builder::{Builder, IntoReporter, QUEUE_BYTES};
pub(crate) use self::{
    collector::{ensure_running, rest, wake},
    core::Context,
};
use crate::{
    buffer,
    callsite::{self, Decide},
    event::Snapshot,
    getters::getters,
    health::{DropReason, Stats},
    name::Path,
    report::Report,
    reporter::{Deadline, Goal},
    stack,
    sync::lock,
    thread::{Block, Lane, Sink, VACANT, block},
};

/// The process default: what the macros use unless a guard says otherwise.
static DEFAULT: OnceLock<Telemetry> = OnceLock::new();

/// A context: where scopes and metrics go. Cheap to clone; all clones are the same context.
#[derive(Clone)]
pub struct Telemetry {
    handle: Option<Arc<Handle>>,
}

/// What keeps a context from ending.
struct Handle {
    context: Arc<Context>,
    sink: Arc<dyn Sink>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.context.end();
    }
}

impl Telemetry {
    /// The disabled context.
    pub const DISABLED: Telemetry = Telemetry { handle: None };

    /// The disabled context.
    pub const fn disabled() -> Self {
        Self::DISABLED
    }

    /// Begins to build a context.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The current context: this thread's override, else the process default, else the disabled one.
    pub fn current() -> Self {
        block(|t| with_current(t, |telemetry| telemetry.cloned().unwrap_or(Self::DISABLED)))
    }

    fn from_context(context: Context, exit_flush: Duration) -> Self {
        let context = Arc::new(context);
        let exit_flush = (!context.workers.is_empty() || context.budget.is_some()).then_some(exit_flush);
        context.start();
        let decider: Arc<dyn Decide> = Arc::<Context>::clone(&context);
        callsite::add_decider(&decider);
        collector::manage(Arc::downgrade(&context), exit_flush);
        let sink: Arc<dyn Sink> = Arc::<Context>::clone(&context);
        Self { handle: Some(Arc::new(Handle { context, sink })) }
    }

    /// Makes this the process default.
    ///
    /// # Errors
    /// If there is one already; the error holds this context.
    pub fn install(self) -> Result<(), InstallError> {
        DEFAULT.set(self).map_err(|telemetry| InstallError { telemetry })
    }

    /// Makes this the current context of the calling thread until the guard is dropped. For tests, and for libraries
    /// that report to a context of their own.
    pub fn override_current(&self) -> Override {
        let chosen = Box::new(self.clone());
        let address: *const () = std::ptr::from_ref(&*chosen).cast();
        // A thread that is ending keeps what it has.
        let _ = OVERRIDES.try_with(|overrides| overrides.borrow_mut().0.push(chosen));
        choose_newest();
        Override { address, not_send: PhantomData }
    }

    /// Whether events are taken at the moment.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| handle.context.is_on())
    }

    /// Switches the context off or on again. Scopes that are open still close, without an event. Nothing brings a
    /// context back that was shut down.
    pub fn set_enabled(&self, is_enabled: bool) {
        if let Some(context) = self.context() {
            context.switch(is_enabled);
        }
    }

    /// Switches scopes off or on by a pattern over their names (`*`: any text, `?`: any character). A scope that is off
    /// is transparent: it is in no path, depth or parent. The last pattern that fits decides.
    pub fn switch_scopes(&self, pattern: &str, is_on: bool) {
        if let Some(context) = self.context() {
            context.rules.switch_scopes(pattern, is_on);
            context.reconfigure();
        }
    }

    /// Chooses by a pattern over paths what is recorded. Otherwise events are aggregated, but no reporter gets them;
    /// they count as dropped (`sampled`).
    pub fn record_paths(&self, pattern: &str, is_recorded: bool) {
        if let Some(context) = self.context() {
            context.publish();
            context.rules.record_paths(pattern, is_recorded);
        }
    }

    /// Sets unit and help text of all metrics of a name.
    pub fn describe(&self, metric: &str, unit: &str, help: &str) {
        if let Some(context) = self.context() {
            context.descriptions.set(metric, unit, help);
        }
    }

    /// Brings every event that was emitted before the call, on any thread, to every reporter, or says what is pending.
    ///
    /// Returns within the time plus 50 ms, whatever the reporters do; called inside one, at once.
    pub fn flush(&self, within: Duration) -> Flush {
        self.bring(Goal::Delivered, within)
    }

    /// The same, as far as to a place that survives the process: a reporter with a file or a spool writes to disk, and
    /// need not wait for its server. One without is flushed.
    pub fn persist(&self, within: Duration) -> Flush {
        self.bring(Goal::Durable, within)
    }

    fn bring(&self, goal: Goal, within: Duration) -> Flush {
        let deadline = Deadline::after(within);
        let Some(context) = self.context() else { return Flush::default() };
        let pending = context.flush(goal, deadline);
        let workers = context.workers.iter().zip(pending).map(|(worker, pending)| {
            // Not its full accounts: those ask the reporter, which may not answer.
            let (_, dropped) = worker.guarded.ledger().read();
            FlushedReporter { name: worker.guarded.name(), pending, dropped: dropped.total() }
        });
        Flush { reporters: workers.collect() }
    }

    /// Flushes, and disables the context for ever. What was still pending when the time was over is dropped and counted,
    /// as is every later event (`shutdown`). Calling it again flushes nothing more.
    pub fn shutdown(&self, within: Duration) -> Flush {
        let Some(context) = self.context() else { return Flush::default() };
        if !context.shut_down() {
            return Flush::default();
        }
        let flushed = self.flush(within);
        context.close_workers();
        for (worker, reporter) in context.workers.iter().zip(&flushed.reporters) {
            if reporter.pending > 0 {
                worker.abandon(DropReason::Shutdown);
            }
        }
        flushed
    }

    /// Whether it was shut down: there is nothing to flush any more.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.context().is_some_and(|context| context.is_shut_down())
    }

    /// The accounts: what was emitted, delivered and dropped, and why.
    pub fn stats(&self) -> Stats {
        self.context().map(|context| context.stats()).unwrap_or_default()
    }

    /// The exact aggregates of everything that closed so far.
    pub fn report(&self) -> Report {
        let Some(context) = self.context() else { return Report::default() };
        let collected = context.collect(false);
        Report::new(collected.scopes, collected.series, context.degraded())
    }

    /// Calls `f` with fresh aggregates; with none if this is the disabled context.
    pub fn snapshot<R>(&self, f: impl FnOnce(&Snapshot<'_>) -> R) -> R {
        let collected = self.context().map(|context| context.collect(false)).unwrap_or_default();
        f(&collected.as_snapshot(&|| self.stats()))
    }

    /// The scopes that are open on any thread, of any context, the oldest of each thread first: where does it hang?
    pub fn open_scopes(&self) -> Vec<OpenScope> {
        let mut found = Vec::new();
        for thread in buffer::threads() {
            let lanes = lock(&thread.lanes).clone();
            for (path, start, lane) in stack::open_frames(&thread) {
                let Some(lane) = lanes.iter().find(|other| other.number() == lane) else { continue };
                found.push(OpenScope {
                    path,
                    thread: thread.name.clone(),
                    thread_index: thread.index,
                    open_for: Duration::from_nanos(lane.sink.age_ns(start)),
                });
            }
        }
        found.extend(stack::suspended().into_iter().map(|(path, start, sink)| OpenScope {
            path,
            thread: "(suspended task)".into(),
            thread_index: 0,
            open_for: Duration::from_nanos(sink.age_ns(start)),
        }));
        found
    }

    /// An event is not taken; counted if that is because of a shutdown.
    #[inline]
    pub(crate) fn refuse(&self) {
        if let Some(context) = self.context().filter(|context| context.is_over()) {
            context.refused_if_over();
        }
    }

    pub(crate) fn context(&self) -> Option<&Context> {
        self.handle.as_ref().map(|handle| &*handle.context)
    }

    /// Whether the hot paths of this thread lead to this context.
    #[inline]
    pub(crate) fn is_current(&self, t: &Block) -> bool {
        // SAFETY: the vacant cursor or one of a lane of this thread, which live until the thread ends.
        let cursor = unsafe { &*t.lane.get() };
        self.handle.as_ref().is_some_and(|handle| handle.context.id == cursor.context_id)
    }

    /// This thread's lane into the context.
    #[inline]
    pub(crate) fn lane(&self, t: &Block) -> Option<*const Lane> {
        let handle = self.handle.as_ref()?;
        buffer::lane(t, &handle.sink, handle.context.id)
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.context() {
            Some(context) => write!(f, "Telemetry({}, enabled: {})", context.id, context.is_on()),
            None => f.write_str("Telemetry(disabled)"),
        }
    }
}

/// Calls `f` with the current context, if there is one.
pub(crate) fn with_current<R>(t: &Block, f: impl FnOnce(Option<&Telemetry>) -> R) -> R {
    let chosen = t.chosen.get().cast::<Telemetry>();
    // SAFETY: set by `choose_newest` to a boxed handle in the list, and replaced before that is dropped.
    f(unsafe { chosen.as_ref() }.or_else(|| DEFAULT.get()))
}

/// Finds this thread's lane into the current context, and remembers it for the hot paths.
#[cold]
#[inline(never)]
pub(crate) fn current_lane(t: &Block) -> Option<*const Lane> {
    let lane = with_current(t, |telemetry| telemetry?.lane(t))?;
    t.set_lane(lane.cast());
    Some(lane)
}

/// The list, which takes itself out of the block when the thread ends.
#[allow(clippy::vec_box, reason = "the hot paths keep the address of the newest")]
struct Overrides(Vec<Box<Telemetry>>);

impl Drop for Overrides {
    fn drop(&mut self) {
        block(|t| {
            t.chosen.set(std::ptr::null());
            t.set_lane(&raw const VACANT);
        });
    }
}

thread_local! {
    /// The contexts that guards chose on this thread, the newest last.
    static OVERRIDES: RefCell<Overrides> = const { RefCell::new(Overrides(Vec::new())) };
}

/// Makes the newest override the current context; the hot paths look it up again.
fn choose_newest() {
    let newest = |overrides: &RefCell<Overrides>| {
        overrides.borrow().0.last().map_or(std::ptr::null(), |telemetry| std::ptr::from_ref(&**telemetry).cast())
    };
    let chosen = OVERRIDES.try_with(newest).unwrap_or(std::ptr::null());
    block(|t| {
        t.chosen.set(chosen);
        t.set_lane(&raw const VACANT);
    });
}

/// Keeps a context current on this thread until it is dropped; made by [`Telemetry::override_current`]. Guards may be
/// dropped in any order: the newest that is left decides.
#[must_use = "the context is current only while the guard lives"]
pub struct Override {
    address: *const (),
    not_send: PhantomData<*const ()>,
}

impl Drop for Override {
    fn drop(&mut self) {
        let take = |overrides: &RefCell<Overrides>| {
            let overrides = &mut overrides.borrow_mut().0;
            let at = overrides.iter().position(|it| std::ptr::eq(std::ptr::from_ref(&**it).cast(), self.address))?;
            Some(overrides.remove(at))
        };
        // The context may end here: after the list is consistent again.
        let taken = OVERRIDES.try_with(take).ok().flatten();
        choose_newest();
        drop(taken);
    }
}

/// There is a process default already.
#[derive(Debug)]
pub struct InstallError {
    telemetry: Telemetry,
}

impl InstallError {
    /// The context that was not installed.
    pub fn into_telemetry(self) -> Telemetry {
        self.telemetry
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this process has a default context already: install one, early in `main`")
    }
}

impl std::error::Error for InstallError {}

getters! {
    /// What [`Telemetry::flush`] left behind.
    #[derive(Clone, Debug, Default)]
    pub struct Flush {
        /// The background reporters, in the order of registration. Inline ones have nothing pending.
        reporters: Vec<FlushedReporter> => &[FlushedReporter],
    }
}

/// One background reporter after a flush.
#[derive(Clone, Debug)]
pub struct FlushedReporter {
    /// The reporter's type.
    pub name: &'static str,
    /// Events that still wait; at least 1 if the reporter did not finish its own flush.
    pub pending: u64,
    /// Events that it did not get since the context was built.
    pub dropped: u64,
}

impl Flush {
    /// Whether nothing is pending.
    pub fn is_complete(&self) -> bool {
        self.reporters.iter().all(|reporter| reporter.pending == 0)
    }
}

impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_complete() {
            return f.write_str("everything delivered");
        }
        let pending = self.reporters.iter().filter(|reporter| reporter.pending > 0);
        let texts: Vec<String> = pending.map(|it| format!("{}: {} events pending", it.name, it.pending)).collect();
        f.write_str(&texts.join(", "))
    }
}

getters! {
    /// A scope that has not closed yet.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OpenScope {
        /// Name of the thread it was opened on.
        thread: String => &str,
        /// Number of that thread in this process.
        thread_index: u32,
        /// How long it has been open.
        open_for: Duration,
    } with {
        path: Path,
    }
}

impl OpenScope {
    /// The full path.
    pub fn scope(&self) -> &'static str {
        self.path.text()
    }
}
