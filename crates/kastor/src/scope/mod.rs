//! A scope: opened by its callsite or by name, closed when its guard is dropped.
//!
//! The path that a reader can number:
//!
//! ```text
//! open    1 is this callsite on, is there a lane, is nothing unusual?      hot.rs; else cold.rs
//!         2 the path under the current scope                               cache of the callsite, shared table
//!         3 push the frame; read the clock last
//! close   1 read the clock first
//!         2 is this scope current and nothing unusual?                     hot.rs; else cold.rs
//!         3 write the record, publish it, pop the frame
//! ```
//!
//! What is unusual has one flag each, in the frame's word or the lane's flags.

mod cold;
mod detached;
mod finish;
mod hot;
mod short;

use std::{cell::Cell, error::Error as StdError, marker::PhantomData, ptr};

pub use self::hot::{is_on, open, open_with};
pub(crate) use self::{
    cold::{checked, deliver_inline, is_awake},
    detached::Detached,
    finish::{finish, foreign_ids, item_flags},
    hot::has_lane,
    short::{SHORT_WORDS, fill, put_short},
};
use crate::{
    buffer,
    callsite::{self, Callsite},
    context::Telemetry,
    name::name,
    stack::{self, Attached, Carrier},
    sync::Ordering::Relaxed,
    thread::{Block, Cursor, Frame, ItemBuffer, Lane, TaggedItems, block, flag},
    value::{Items, Value, push_value},
};

/// An open scope; it closes when this is dropped.
///
/// It stays on the thread that opened it. To carry the scope elsewhere take its [`carrier`](Scope::carrier); to let it
/// follow a future use [`in_scope`](crate::FutureExt::in_scope). Leaking it (`mem::forget`) leaves it open: it is
/// reported as `unfinished` when the thread ends.
#[must_use = "the scope closes at once unless it is kept: `let _scope = scope!(…);`"]
pub struct Scope {
    /// Null if nothing is recorded.
    frame: *const Frame,
    /// The lane's cursor; or, with bit 0 set, the items; or, with bits 0 and 1 set, the depth of a path at the limits.
    extra: Cell<*mut ()>,
    not_send: PhantomData<*const ()>,
}

impl Scope {
    /// A scope that records nothing.
    #[inline(always)]
    pub(crate) const fn none() -> Self {
        Self { frame: ptr::null(), extra: Cell::new(ptr::null_mut()), not_send: PhantomData }
    }

    #[inline(always)]
    fn in_lane(frame: &Frame, cursor: &Cursor) -> Self {
        Self { frame, extra: Cell::new(ptr::from_ref(cursor).cast_mut().cast()), not_send: PhantomData }
    }

    #[inline(always)]
    fn with_items_in(frame: &Frame, items: TaggedItems) -> Self {
        Self { frame, extra: Cell::new(items), not_send: PhantomData }
    }

    fn deep(frame: &Frame, depth: u32) -> Self {
        let extra = ptr::without_provenance_mut((depth as usize) << 2 | 3);
        Self { frame, extra: Cell::new(extra), not_send: PhantomData }
    }

    /// Sets an attribute; the last value of a key wins. Strings are copied.
    pub fn set<'v>(&self, key: &'static str, value: impl Into<Value<'v>>) {
        let value = value.into();
        self.with_items(|items| items.attribute(name(key), &value));
    }

    /// Notes that something happened now.
    pub fn event(&self, event: &str) {
        self.event_with(event, &[]);
    }

    /// Notes that something happened now, with attributes.
    pub fn event_with(&self, event: &str, attributes: &[(&str, Value<'_>)]) {
        self.with_items(|items| {
            let attributes: Vec<_> = attributes.iter().map(|(key, value)| (name(key), *value)).collect();
            let tick = block(|t| self.lane(t).map_or(0, |lane| lane.sink.ticks()));
            items.event(name(event), tick, &attributes);
        });
    }

    /// Refers to another scope, that caused this one for instance.
    pub fn link(&self, to: Carrier) {
        if to.is_some() {
            self.with_items(|items| items.link(to.trace_id(), to.span_id()));
        }
    }

    /// Marks the scope as failed; `error_type` says how, in a word that can be counted.
    pub fn fail(&self, error_type: &str) {
        self.with_items(|items| items.fail(error_type));
    }

    /// Marks the scope as failed with an error: its message becomes the attribute `error.message`, the first word of
    /// its `Debug` text, which is the type's or variant's name, the error type.
    pub fn fail_with(&self, error: &dyn StdError) {
        self.with_items(|items| {
            let message = name("error.message");
            let mut debug = Vec::new();
            push_value(&mut debug, message, &Value::Debug(&error));
            let printed = Items(&debug).next().map_or("", |item| item.text());
            let is_word = |it: char| it.is_alphanumeric() || it == '_' || it == ':';
            let word = printed.split(|it| !is_word(it)).next().filter(|word| !word.is_empty());
            items.fail(word.unwrap_or("error"));
            items.attribute(message, &Value::Display(&error));
        });
    }

    /// Closes the scope without an event, as if it had not been opened; what was recorded inside keeps its place.
    pub fn discard(self) {
        self.with_items(|items| items.is_discarded = true);
    }

    /// What carries this scope to another thread, task or process; the current one if this one records nothing.
    pub fn carrier(&self) -> Carrier {
        match self.frame() {
            Some(frame) => block(|t| {
                let levels = self.depth(frame) + 1;
                cold::carrier(t, frame, levels)
            }),
            None => Carrier::current(),
        }
    }

    /// Whether an event will come of it.
    #[inline]
    pub fn is_recording(&self) -> bool {
        self.frame().is_some()
    }

    fn frame(&self) -> Option<&Frame> {
        if self.frame.is_null() || block(|t| t.ended.get()) {
            return None;
        }
        // SAFETY: while the thread has not ended its frames are in place, and this one is open or waits closed for us.
        unsafe { self.frame.as_ref() }
    }

    fn lane<'t>(&self, t: &'t Block) -> Option<&'t Lane> {
        self.frame().and_then(|frame| cold::lane_of(t, frame))
    }

    fn depth(&self, frame: &Frame) -> u32 {
        // SAFETY: a buffer that this scope owns, or null.
        let of_items = || unsafe { Self::items_of(self.extra.get()).as_ref() }.map(|items| items.depth);
        let path = crate::name::Path(frame.path.load(Relaxed));
        if !path.is_deeper() {
            return path.levels().saturating_sub(1);
        }
        Self::depth_of(self.extra.get()).or_else(of_items).unwrap_or(0)
    }

    /// The items that `extra` points to, or null.
    #[inline(always)]
    fn items_of(extra: *mut ()) -> *mut ItemBuffer {
        if extra.addr() & 3 == 1 { ItemBuffer::untagged(extra) } else { ptr::null_mut() }
    }

    /// The depth that `extra` stands for, if it is one.
    fn depth_of(extra: *mut ()) -> Option<u32> {
        (extra.addr() & 3 == 3).then_some((extra.addr() >> 2) as u32)
    }

    /// Takes a filled buffer over, or gives it back if nothing is recorded.
    #[inline(always)]
    fn adopt(&self, items: *mut ItemBuffer) {
        // SAFETY: open, or null.
        match unsafe { self.frame.as_ref() } {
            _ if items.is_null() => {}
            Some(frame) => {
                // SAFETY: the scope owns the buffer from here on.
                let buffer = unsafe { &mut *items };
                if let Some(depth) = Self::depth_of(self.extra.get()) {
                    buffer.depth = depth;
                }
                let unusual = if buffer.is_plain() { 0 } else { flag::UNUSUAL_ITEMS };
                frame.set(flag::ITEMS | unusual);
                self.extra.set(ItemBuffer::tagged(items));
            }
            // SAFETY: nobody uses it.
            None => block(|t| unsafe { buffer::give_back_items(t, items) }),
        }
    }

    /// Calls `f` with the scope's items, made on first use; not if nothing is recorded.
    fn with_items(&self, f: impl FnOnce(&mut ItemBuffer)) {
        if !self.is_recording() {
            return;
        }
        let mut items = Self::items_of(self.extra.get());
        if items.is_null() {
            items = block(buffer::take_items);
            self.adopt(items);
        }
        // The buffer is out of reach while user code (`Display`) runs inside `f`: attributes that it sets on this very
        // scope go into a buffer of their own, which is merged behind.
        let own = self.extra.replace(ptr::null_mut());
        // SAFETY: owned by this scope, and unreachable for others as just said.
        let buffer = unsafe { &mut *items };
        f(buffer);
        let inner = Self::items_of(self.extra.replace(own));
        // SAFETY: null or another buffer, which the scope has just let go of.
        if let Some(later) = unsafe { inner.as_ref() } {
            buffer.append(later);
            // SAFETY: as above.
            block(|t| unsafe { buffer::give_back_items(t, inner) });
        }
        if let Some(frame) = self.frame().filter(|_| !buffer.is_plain()) {
            frame.set(flag::UNUSUAL_ITEMS);
        }
    }
}

impl Drop for Scope {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.frame.is_null() {
            hot::close(self.frame, self.extra.get());
        }
    }
}

/// Opens the scope of a callsite in a given context.
#[inline]
pub fn open_in(telemetry: &Telemetry, site: &'static Callsite) -> Scope {
    if is_on_in(telemetry, site) { open_in_with(telemetry, site, &[]) } else { Scope::none() }
}

/// Whether anything of this callsite is to be recorded in a given context.
#[inline]
pub fn is_on_in(telemetry: &Telemetry, site: &'static Callsite) -> bool {
    if !telemetry.is_enabled() {
        telemetry.refuse();
        return false;
    }
    match site.state() {
        callsite::OFF => false,
        callsite::ON => true,
        _ => cold::is_wanted(Some(telemetry), site),
    }
}

/// Opens the scope of a callsite that is on in a given context, with attributes.
pub fn open_in_with(telemetry: &Telemetry, site: &'static Callsite, values: &[Value<'_>]) -> Scope {
    if values.is_empty() && block(|t| telemetry.is_current(t)) {
        return open(site);
    }
    cold::open(Some(telemetry), cold::Wanted::Site(site), values)
}

impl Telemetry {
    /// Opens a scope whose name the program makes up at run time. Any text is taken, cut to 256 bytes; in strict mode
    /// one without the recommended form is recorded as `(invalid_name)`.
    #[inline]
    pub fn scope(&self, name: &str) -> Scope {
        if self.is_enabled() {
            return open_named(self, name);
        }
        self.refuse();
        Scope::none()
    }
}

#[inline(never)]
fn open_named(telemetry: &Telemetry, name: &str) -> Scope {
    cold::open(Some(telemetry), cold::Wanted::Named(name), &[])
}

impl Carrier {
    /// Takes the current scope of this thread, of whatever context.
    pub fn current() -> Self {
        block(|t| {
            let frame = t.scope();
            if frame.span.load(Relaxed) == 0 { Self::NONE } else { cold::carrier(t, frame, stack::levels(t)) }
        })
    }

    /// Makes the carried scope current on this thread until the guard is dropped: scopes that are opened meanwhile are
    /// its children.
    pub fn attach(&self) -> Attached {
        block(|t| Attached::new(buffer::thread(t).map(|thread| self.enter(t, thread, flag::ATTACHED))))
    }
}
