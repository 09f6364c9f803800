//! Static callsites: what the macros know at compile time, and whether anyone wants it.
//!
//! A callsite starts out [`NEW`]; its first use registers it in a list and asks every enabled context. From then on its
//! state byte is the whole decision: [`OFF`] when no enabled context wants the name, [`ON`] when all of them do,
//! [`MIXED`] when they differ. [`ON`] alone is positive as a signed number, so that one test tells all three apart. Whoever changes a context's configuration rewrites all state bytes ([`refresh`]).

use std::sync::{Arc, Weak};

use crate::{
    name::{Name, Path, name},
    sync::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Mutex, Ordering::*, constant, fence, global, lock},
};

/// No enabled context wants this name.
pub(crate) const OFF: u8 = 0;
/// Every enabled context wants this name.
pub(crate) const ON: u8 = 1;
/// Some do: the current context decides.
pub(crate) const MIXED: u8 = 0x82;
/// Never used so far.
pub(crate) const NEW: u8 = 0x83;

/// Stands in the place of a remembered path; no parent has that number.
const NOT_CACHED: u64 = u32::MAX as u64;

/// A place in the program that opens a scope or records a metric.
pub struct Callsite {
    state: AtomicU8,
    is_scope: bool,
    name_id: AtomicU32,
    /// Number among the metric callsites, for the per-thread cells; 0 while new, and of scopes.
    index: AtomicU32,
    /// Zero while the state is [`OFF`], else where threads keep the cell of this callsite: see [`hot_place`].
    hot: AtomicU32,
    /// The path that was remembered first; 0 while there is none.
    remembered: AtomicU32,
    /// The first parent path seen here (low half), and the path under it: in one word, so that no reader can see halves
    /// of two. [`NOT_CACHED`] while there is none, or while it may not be used because the state is not [`ON`].
    cached: AtomicU64,
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
                hot: AtomicU32::new(hot_place(0)),
                remembered: AtomicU32::new(0),
                cached: AtomicU64::new(NOT_CACHED),
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

    /// Zero if no enabled context wants this; else a place as [`hot_place`] makes it.
    #[inline(always)]
    pub(crate) fn hot(&self) -> u32 {
        self.hot.load(Acquire)
    }

    /// Whether it opens scopes, and does not record metrics.
    pub(crate) fn is_scope(&self) -> bool {
        self.is_scope
    }

    /// The path under `parent`, if it is the one that is remembered.
    #[inline(always)]
    pub(crate) fn cached(&self, parent: u32) -> Option<Path> {
        // Acquire: who sees the path also sees its entry in the table.
        let cached = self.cached.load(Acquire);
        if cached as u32 == parent { Some(Path((cached >> 32) as u32)) } else { None }
    }

    /// Remembers the first path. A cache that threads keep rewriting would cost more than it saves. Paths at the limits
    /// are not remembered: they take the long way.
    pub(crate) fn remember(&self, parent: u32, path: Path) {
        let known = self.remembered.load(Relaxed);
        if path.is_deeper() || self.state() != ON || (known != 0 && known != path.0) {
            return;
        }
        if known != 0 || self.remembered.compare_exchange(0, path.0, Relaxed, Relaxed).is_ok() {
            self.cached.store(u64::from(parent) | u64::from(path.0) << 32, Release);
            // Whoever changes the state does so before forgetting the path: one of the two sees the other.
            fence(SeqCst);
            if self.state() != ON {
                self.cached.store(NOT_CACHED, Release);
            }
        }
    }

    /// Takes a decision over. Under the lock of the deciders.
    fn decide(&self, state: u8) {
        // Release: who sees the decision also sees the ids.
        self.state.store(state, Release);
        self.hot.store(if state == OFF { 0 } else { hot_place(self.index()) }, Release);
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
        if !self.is_scope {
            self.index.store(next_index(), Relaxed);
        }
        self.next.store(REGISTRY.first.load(Relaxed), Relaxed);
        REGISTRY.first.store(std::ptr::from_ref(self).cast_mut(), Release);
        let state = decision(&voices, self);
        self.decide(state);
        state
    }
}

/// Indexes whose cells threads find without looking into a lane.
pub(crate) const HOT_INDEXES: u32 = 128;
/// Bytes of a slot for one of them; see `thread::HotSlots`.
pub(crate) const HOT_SLOT_BYTES: u32 = 16;

/// Where the slot for an index stands, in bytes; 8 more than that, so that zero is left to mean something else. Index 0
/// is nobody's: its slot, which stays empty, serves all indexes that have none of their own.
pub(crate) const fn hot_place(index: u32) -> u32 {
    8 + if index < HOT_INDEXES { index * HOT_SLOT_BYTES } else { 0 }
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
        callsite.decide(state);
        if state != ON {
            fence(SeqCst);
            callsite.cached.store(NOT_CACHED, Release);
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
