//! Static callsites: what the macros know at compile time, and whether anyone wants it.
//!
//! A callsite starts out [`NEW`]; its first use registers it in a list and asks every enabled context. From then on its
//! state byte is the whole decision: [`OFF`] when no enabled context wants the name, [`ON`] when all of them do,
//! [`MIXED`] when they differ. Whoever changes a context's configuration rewrites all state bytes ([`refresh`]).

use std::sync::{Arc, Weak};

use crate::{
    name::{Name, Path, name},
    sync::{AtomicPtr, AtomicU8, AtomicU32, Mutex, Ordering::*, constant, fence, global, lock},
};

/// No enabled context wants this name.
pub(crate) const OFF: u8 = 0;
/// Every enabled context wants this name.
pub(crate) const ON: u8 = 1;
/// Some do: the current context decides.
pub(crate) const MIXED: u8 = 2;
/// Never used so far.
pub(crate) const NEW: u8 = 3;

/// A place in the program that opens a scope or records a metric.
pub struct Callsite {
    state: AtomicU8,
    is_scope: bool,
    name_id: AtomicU32,
    /// Number among the metric callsites, for the per-thread cells; 0 while new.
    index: AtomicU32,
    /// The first parent path seen here, and the path under it; `u32::MAX` while there is none, or while it may not be
    /// used because the state is not [`ON`].
    cached_parent: AtomicU32,
    cached_path: AtomicU32,
    name: &'static str,
    keys: &'static [Key],
    next: AtomicPtr<Callsite>,
}

/// A literal attribute key; its id is filled in when the callsite registers.
pub struct Key {
    text: &'static str,
    id: AtomicU32,
}

impl Key {
    constant! {
        /// A key that is not interned yet.
        pub fn new(text: &'static str) -> Self {
            Self { text, id: AtomicU32::new(0) }
        }
    }

    #[inline(always)]
    pub(crate) fn name(&self) -> Name {
        Name(self.id.load(Relaxed))
    }
}

/// What a context says about a scope name.
pub(crate) trait Decide: Send + Sync {
    /// Whether it wants scopes of this name, or metrics.
    fn vote(&self, scope: Option<&str>) -> Vote;
}

/// What a context says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    Yes,
    No,
    /// It has to be asked each time.
    Ask,
    /// It has no say any more.
    None,
}

/// All callsites that were passed, and who decides about them.
struct Registry {
    first: AtomicPtr<Callsite>,
    deciders: Mutex<Vec<Weak<dyn Decide>>>,
    /// Indexes of metric slots that were given out, and those of them that dropped handles left.
    indexes: AtomicU32,
    free_indexes: Mutex<Vec<u32>>,
}

global! {
    static REGISTRY: Registry = Registry {
        first: AtomicPtr::new(std::ptr::null_mut()),
        deciders: Mutex::new(Vec::new()),
        indexes: AtomicU32::new(0),
        free_indexes: Mutex::new(Vec::new()),
    };
}

impl Callsite {
    constant! {
        /// A scope's callsite that nobody has passed yet.
        pub fn scope(name: &'static str, keys: &'static [Key]) -> Self {
            Self::new(name, keys, true)
        }

        /// A metric's callsite that nobody has passed yet.
        pub fn metric(name: &'static str, keys: &'static [Key]) -> Self {
            Self::new(name, keys, false)
        }

        fn new(name: &'static str, keys: &'static [Key], is_scope: bool) -> Self {
            Self {
                is_scope,
                state: AtomicU8::new(NEW),
                name_id: AtomicU32::new(0),
                index: AtomicU32::new(0),
                cached_parent: AtomicU32::new(u32::MAX),
                cached_path: AtomicU32::new(0),
                name,
                keys,
                next: AtomicPtr::new(std::ptr::null_mut()),
            }
        }
    }

    /// The decision, as it stands.
    #[inline(always)]
    pub(crate) fn state(&self) -> u8 {
        self.state.load(Acquire)
    }

    #[inline(always)]
    pub(crate) fn name(&self) -> Name {
        Name(self.name_id.load(Relaxed))
    }

    pub(crate) fn text(&self) -> &'static str {
        self.name
    }

    #[inline(always)]
    pub(crate) fn keys(&self) -> &'static [Key] {
        self.keys
    }

    #[inline(always)]
    pub(crate) fn index(&self) -> u32 {
        self.index.load(Relaxed)
    }

    /// Whether it opens scopes, and does not record metrics.
    pub(crate) fn is_scope(&self) -> bool {
        self.is_scope
    }

    /// The path under `parent`, if it is the one that is remembered.
    #[inline(always)]
    pub(crate) fn cached(&self, parent: u32) -> Option<Path> {
        // Acquire: who sees the parent also sees the path that belongs to it.
        if self.cached_parent.load(Acquire) == parent { Some(Path(self.cached_path.load(Relaxed))) } else { None }
    }

    /// Remembers the first path. A cache that threads keep rewriting would cost more than it saves; and since the pair
    /// never changes, no reader can see halves of two. Paths at the limits are not remembered: they take the long way.
    pub(crate) fn remember(&self, parent: u32, path: Path) {
        let known = self.cached_path.load(Relaxed);
        if path.is_deeper() || self.state() != ON || (known != 0 && known != path.0) {
            return;
        }
        if known != 0 || self.cached_path.compare_exchange(0, path.0, Relaxed, Relaxed).is_ok() {
            self.cached_parent.store(parent, Release);
            // Whoever changes the state does so before forgetting the parent: one of the two sees the other.
            fence(SeqCst);
            if self.state() != ON {
                self.cached_parent.store(u32::MAX, Release);
            }
        }
    }

    /// Interns the name and keys, joins the list, and decides. Afterwards the state is no longer [`NEW`].
    #[cold]
    #[inline(never)]
    pub(crate) fn register(&'static self) -> u8 {
        // Dropped after the lock: the last handle of a context must not end under it.
        let voices;
        let deciders = lock(&REGISTRY.deciders);
        if self.state() != NEW {
            return self.state();
        }
        voices = upgraded(&deciders);
        self.name_id.store(name(self.name).0, Relaxed);
        for key in self.keys {
            key.id.store(name(key.text).0, Relaxed);
        }
        self.index.store(next_index(), Relaxed);
        self.next.store(REGISTRY.first.load(Relaxed), Relaxed);
        REGISTRY.first.store(std::ptr::from_ref(self).cast_mut(), Release);
        let state = decision(&voices, self);
        // Release: who sees the state also sees the ids.
        self.state.store(state, Release);
        state
    }
}

/// An index for a metric slot that nobody has.
pub(crate) fn take_index() -> u32 {
    lock(&REGISTRY.free_indexes).pop().unwrap_or_else(next_index)
}

/// Gives an index of [`take_index`] back.
pub(crate) fn give_back_index(index: u32) {
    lock(&REGISTRY.free_indexes).push(index);
}

fn next_index() -> u32 {
    REGISTRY.indexes.fetch_add(1, Relaxed) + 1
}

/// Adds a context's voice. It is heard until the context is gone.
pub(crate) fn add_decider(decider: &Arc<dyn Decide>) {
    lock(&REGISTRY.deciders).push(Arc::downgrade(decider));
    refresh();
}

/// Asks every context again about every callsite.
pub(crate) fn refresh() {
    let voices;
    let mut deciders = lock(&REGISTRY.deciders);
    deciders.retain(|decider| decider.strong_count() > 0);
    voices = upgraded(&deciders);
    let mut next = REGISTRY.first.load(Acquire);
    // SAFETY: the list holds only `&'static Callsite`s, linked before they were published.
    while let Some(callsite) = unsafe { next.as_ref() } {
        let state = decision(&voices, callsite);
        callsite.state.store(state, Release);
        if state != ON {
            fence(SeqCst);
            callsite.cached_parent.store(u32::MAX, Release);
        }
        next = callsite.next.load(Relaxed);
    }
}

fn upgraded(deciders: &[Weak<dyn Decide>]) -> Vec<Arc<dyn Decide>> {
    deciders.iter().filter_map(Weak::upgrade).collect()
}

fn decision(voices: &[Arc<dyn Decide>], callsite: &Callsite) -> u8 {
    let (mut wanted, mut refused, mut asked) = (false, false, false);
    let scope = callsite.is_scope.then_some(callsite.name);
    for vote in voices.iter().map(|voice| voice.vote(scope)) {
        wanted |= vote == Vote::Yes;
        refused |= vote == Vote::No;
        asked |= vote == Vote::Ask;
    }
    match (wanted, refused, asked) {
        (false, _, false) => OFF,
        (true, false, false) => ON,
        _ => MIXED,
    }
}

/// Holds the list and the indexes still, for a fork.
pub(crate) fn hold() -> impl Sized {
    (lock(&REGISTRY.deciders), lock(&REGISTRY.free_indexes))
}
