//! A scope: opened here, closed when its guard is dropped.
//!
//! The path that a reader can number:
//!
//! ```text
//! open    1 is this callsite on, is there a lane, is nothing unusual?      else: open_cold
//!         2 the path under the current scope                               cache of the callsite, shared table
//!         3 push the frame; read the clock last
//! close   1 read the clock first
//!         2 is this scope current and nothing unusual?                     else: close_cold
//!         3 write the record, publish it, pop the frame
//! ```
//!
//! What is unusual has one flag each, in the frame's word or the lane's flags, so that one comparison decides. Justified
//! by the `on_*` and `off_*` cases of the benchmark.

use std::{
    cell::Cell,
    error::Error as StdError,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed, Release},
    },
    thread::panicking,
};

use crate::{
    buffer,
    callsite::{self, Callsite, Key},
    clock::raw_ticks,
    context::{Telemetry, current_lane},
    dispatch,
    name::{Name, Path, is_recommended, known_path, name, path},
    record::{self, flag as record_flag},
    stack::{self, Attached, Carrier},
    thread::{Block, Cursor, Frame, HOT_MASK, ItemBuffer, Lane, Part, Sink, Thread, block, flag, lane_flag},
    value::Value,
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
    /// Depth shifted left by one, plus one; or a pointer to the items.
    extra: Cell<usize>,
    not_send: PhantomData<*const ()>,
}

impl Scope {
    /// A scope that records nothing.
    pub(crate) const NONE: Scope = Scope { frame: ptr::null(), extra: Cell::new(1), not_send: PhantomData };

    /// Sets an attribute; the last value of a key wins. Strings are copied.
    pub fn set<'v>(&self, key: &'static str, value: impl Into<Value<'v>>) {
        if self.is_recording() {
            let value = value.into();
            self.with_items(|items| items.attribute(name(key), &value));
        }
    }

    /// Notes that something happened now.
    pub fn event(&self, event: &str) {
        self.event_with(event, &[]);
    }

    /// Notes that something happened now, with attributes.
    pub fn event_with(&self, event: &str, attributes: &[(&str, Value<'_>)]) {
        if self.is_recording() {
            let attributes: Vec<_> = attributes.iter().map(|(key, value)| (name(key), *value)).collect();
            let tick = block(|t| self.lane(t).map_or(0, |lane| lane.sink.ticks()));
            self.with_items(|items| items.event(name(event), tick, &attributes));
        }
    }

    /// Refers to another scope, that caused this one for instance.
    pub fn link(&self, to: Carrier) {
        if self.is_recording() && to.is_some() {
            self.with_items(|items| items.link(to.trace_id(), to.span_id()));
        }
    }

    /// Marks the scope as failed; `error_type` says how, in a word that can be counted.
    pub fn fail(&self, error_type: &str) {
        if self.is_recording() {
            self.with_items(|items| items.fail(error_type));
        }
    }

    /// Marks the scope as failed with an error: its message becomes the attribute `error.message`, its debug name the
    /// error type.
    pub fn fail_with(&self, error: &dyn StdError) {
        if self.is_recording() {
            let message = name("error.message");
            let mut debug = Vec::new();
            crate::value::push_value(&mut debug, message, &Value::Debug(&error));
            let printed = crate::value::Items(&debug).next().map_or("", |item| item.text());
            let end = printed.find(|it: char| !(it.is_alphanumeric() || it == '_' || it == ':')).unwrap_or(printed.len());
            let error_type = printed.get(..end).filter(|text| !text.is_empty()).unwrap_or("error");
            self.with_items(|items| {
                items.fail(error_type);
                items.attribute(message, &Value::Display(&error));
            });
        }
    }

    /// Closes the scope without an event, as if it had not been opened; what was recorded inside keeps its place.
    pub fn discard(self) {
        if self.is_recording() {
            self.with_items(|items| items.is_discarded = true);
        }
    }

    /// What carries this scope to another thread, task or process.
    pub fn carrier(&self) -> Carrier {
        match self.frame() {
            Some(frame) => block(|t| carrier_of(t, frame, self.depth() + 1)),
            None => Carrier::current(),
        }
    }

    /// Whether an event will come of it.
    #[inline]
    pub fn is_recording(&self) -> bool {
        !self.frame.is_null() && !block(|t| t.ended.get())
    }

    fn frame(&self) -> Option<&Frame> {
        // SAFETY: while the thread has not ended its frames are in place, and this one is open or waits closed for us.
        if self.is_recording() { unsafe { self.frame.as_ref() } } else { None }
    }

    fn lane<'t>(&self, t: &'t Block) -> Option<&'t Lane> {
        self.frame().and_then(|frame| lane_of(t, frame))
    }

    fn items(&self) -> *mut ItemBuffer {
        match self.extra.get() {
            depth if depth & 1 == 1 => ptr::null_mut(),
            pointer => ptr::with_exposed_provenance_mut(pointer),
        }
    }

    pub(crate) fn depth(&self) -> u32 {
        match self.extra.get() {
            depth if depth & 1 == 1 => (depth >> 1) as u32,
            // SAFETY: a buffer from `with_items`, which this scope owns.
            _ => unsafe { (*self.items()).depth },
        }
    }

    /// Calls `f` with the scope's items, made on first use.
    fn with_items<R>(&self, f: impl FnOnce(&mut ItemBuffer) -> R) -> R {
        let mut items = self.items();
        if items.is_null() {
            items = block(buffer::take_items);
            // SAFETY: just taken from the pool, nobody else has it.
            unsafe { (*items).depth = self.depth() };
            self.extra.set(items.expose_provenance());
            if let Some(frame) = self.frame() {
                frame.set(flag::ITEMS);
            }
        }
        // The buffer is out of reach while user code (`Display`) runs inside `f`, which may set attributes of this
        // very scope: then those get a buffer of their own that is merged behind.
        let depth = self.depth();
        self.extra.set((depth as usize) << 1 | 1);
        // SAFETY: owned by this scope, and unreachable for others as just said.
        let result = f(unsafe { &mut *items });
        let inner = self.items();
        if !inner.is_null() {
            // SAFETY: two different buffers, both owned by this scope.
            unsafe {
                (*items).extend((*inner).items());
                (*items).is_failed |= (*inner).is_failed;
                (*items).is_discarded |= (*inner).is_discarded;
                block(|t| buffer::give_back_items(t, inner));
            }
        }
        self.extra.set(items.expose_provenance());
        result
    }
}

impl Drop for Scope {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.frame.is_null() {
            close(self);
        }
    }
}

/// Opens the scope of a callsite in the current context.
#[inline(always)]
pub fn open(site: &'static Callsite) -> Scope {
    if site.state() == callsite::OFF { Scope::NONE } else { open_here(site) }
}

/// Opens the scope of a callsite with attributes; `values` are made only if it is on.
#[inline(always)]
pub fn open_with<'v, const N: usize>(site: &'static Callsite, values: impl FnOnce() -> [Value<'v>; N]) -> Scope {
    if site.state() == callsite::OFF { Scope::NONE } else { open_values(site, &values()) }
}

/// Opens the scope of a callsite in a given context.
#[inline]
pub fn open_in(telemetry: &Telemetry, site: &'static Callsite) -> Scope {
    open_in_with(telemetry, site, || [])
}

/// The same with attributes.
#[inline]
pub fn open_in_with<'v, const N: usize>(
    telemetry: &Telemetry,
    site: &'static Callsite,
    values: impl FnOnce() -> [Value<'v>; N],
) -> Scope {
    if site.state() == callsite::OFF || !telemetry.is_enabled() {
        return Scope::NONE;
    }
    open_cold(Some(telemetry), Wanted::Site(site), &values())
}

#[inline(never)]
fn open_here(site: &'static Callsite) -> Scope {
    block(|t| match open_hot(t, site) {
        Some((frame, depth)) => Scope::new(frame, depth),
        None => open_cold(None, Wanted::Site(site), &[]),
    })
}

#[inline(never)]
fn open_values(site: &'static Callsite, values: &[Value<'_>]) -> Scope {
    block(|t| {
        // Printing a value runs user code: before anything is touched.
        let items = fill(t, site.keys(), values);
        match open_hot(t, site) {
            Some((frame, depth)) => Scope::with_filled(frame, depth, items),
            None => {
                // SAFETY: taken by `fill`, not used since.
                unsafe { buffer::give_back_items(t, items) };
                open_cold(None, Wanted::Site(site), values)
            }
        }
    })
}

impl Scope {
    #[inline(always)]
    fn new(frame: &Frame, depth: u32) -> Self {
        Self { frame, extra: Cell::new((depth as usize) << 1 | 1), not_send: PhantomData }
    }

    #[inline(always)]
    fn with_filled(frame: &Frame, depth: u32, items: *mut ItemBuffer) -> Self {
        // SAFETY: taken by `fill`; from here on the scope owns it.
        unsafe { (*items).depth = depth };
        frame.word.set(frame.word.get() | flag::ITEMS);
        Self { frame, extra: Cell::new(items.expose_provenance()), not_send: PhantomData }
    }
}

/// A buffer with the values in it.
#[inline(always)]
fn fill(t: &Block, keys: &[Key], values: &[Value<'_>]) -> *mut ItemBuffer {
    let items = buffer::take_items(t);
    // SAFETY: just taken from the pool: user code that runs while a value is printed gets other buffers.
    let buffer = unsafe { &mut *items };
    for (key, value) in keys.iter().zip(values) {
        buffer.attribute(key.name(), value);
    }
    items
}

/// The hot half of opening: none if anything is unusual.
#[inline(always)]
fn open_hot<'t>(t: &'t Block, site: &'static Callsite) -> Option<(&'t Frame, u32)> {
    // SAFETY: the vacant cursor or one of a lane of this thread, which live until the thread ends.
    let cursor = unsafe { &*t.lane.get() };
    let frame = t.free.get();
    let is_usual = site.state() == callsite::ON && cursor.flags.load(Relaxed) & !lane_flag::INLINE == 0;
    if !is_usual || frame.is_null() || panicking() || t.sequence.get() == u32::MAX {
        return None;
    }
    // SAFETY: with a lane the thread is set up: `current` is the base or an open frame.
    let parent = unsafe { &*t.current.get() };
    let parent_path = parent.path.load(Relaxed);
    let cached = site.cache();
    let path = if (cached >> 32) as u32 == parent_path {
        Path(cached as u32)
    } else {
        known_path(Path(parent_path), site.name())?
    };
    if path.is_deeper() {
        return None;
    }
    // SAFETY: not null, so an unused frame of this thread's segments.
    let frame = unsafe { &*frame };
    let depth = stack::push(t, frame, parent, path, cursor.word);
    let now = raw_ticks();
    frame.start.store(now, Relaxed);
    t.last_tick.set(now);
    Some((frame, depth))
}

/// What is to be opened.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'a> {
    Site(&'static Callsite),
    Named(&'a str),
}

/// Opens in full: first uses, several contexts that disagree, other clocks, unwinding, deep paths, forked children.
#[cold]
#[inline(never)]
pub(crate) fn open_cold(telemetry: Option<&Telemetry>, wanted: Wanted<'_>, values: &[Value<'_>]) -> Scope {
    if let Wanted::Site(site) = wanted {
        let state = site.state();
        if (if state == callsite::NEW { site.register() } else { state }) == callsite::OFF {
            return Scope::NONE;
        }
    }
    block(|t| {
        let lane = match telemetry {
            Some(telemetry) => telemetry.lane(t),
            None => current_lane(t),
        };
        // SAFETY: lanes of this thread live until it ends.
        let Some(lane) = lane.and_then(|lane| unsafe { lane.as_ref() }) else { return Scope::NONE };
        let flags = lane.cursor.flags.load(Acquire);
        if flags & lane_flag::FORKED != 0 {
            lane.cursor.flags.fetch_and(!lane_flag::FORKED, Relaxed);
            dispatch::ensure_running();
        }
        if flags & lane_flag::OFF != 0 {
            lane.sink.refused();
            return Scope::NONE;
        }
        let keys = if let Wanted::Site(site) = wanted { site.keys() } else { &[] };
        let items = if values.is_empty() { ptr::null_mut() } else { fill(t, keys, values) };
        let opened = open_in_lane(t, lane, wanted);
        match (opened, items.is_null()) {
            (Some((frame, depth)), true) => Scope::new(frame, depth),
            (Some((frame, depth)), false) => Scope::with_filled(frame, depth, items),
            (None, true) => Scope::NONE,
            (None, false) => {
                // SAFETY: taken by `fill`, not used since.
                unsafe { buffer::give_back_items(t, items) };
                Scope::NONE
            }
        }
    })
}

fn open_in_lane<'t>(t: &'t Block, lane: &Lane, wanted: Wanted<'_>) -> Option<(&'t Frame, u32)> {
    if t.sequence.get() == u32::MAX {
        buffer::renew_sequence(t, &lane.thread);
    }
    // SAFETY: with a lane the thread is set up.
    let parent = unsafe { &*t.current.get() };
    let parent_path = Path(parent.path.load(Relaxed));
    let path = match wanted {
        Wanted::Site(site) => {
            if !lane.sink.wants(site.text()) {
                return None;
            }
            let found = path(parent_path, site.name());
            site.remember(parent_path.0, found.0);
            found
        }
        Wanted::Named(text) => {
            if !lane.sink.wants(text) {
                return None;
            }
            path(parent_path, checked(lane, text))
        }
    };
    let frame = stack::free_frame(t, &lane.thread);
    let depth = stack::push(t, frame, parent, path, lane.cursor.word);
    let deeper = if path.is_deeper() { flag::DEEPER } else { 0 };
    frame.set(deeper | if panicking() { flag::BORN_PANICKING } else { 0 });
    let now = lane.sink.ticks();
    frame.start.store(now, Relaxed);
    t.last_tick.set(now);
    Some((frame, depth))
}

/// A dynamic name; in strict mode one without the recommended form is replaced, counted, and logged once.
pub(crate) fn checked(lane: &Lane, text: &str) -> Name {
    static LOGGED: std::sync::Once = std::sync::Once::new();
    if lane.sink.is_strict() && !is_recommended(text) {
        lane.sink.cut(1);
        LOGGED.call_once(|| {
            let text = crate::escape::escaped(crate::name::cut(text, 64)).into_owned();
            log::warn!(target: "kastor", "the name {text:?} does not have the recommended form; it is recorded as (invalid_name)");
        });
        return Name::INVALID;
    }
    name(text)
}

impl Telemetry {
    /// Opens a scope whose name the program makes up at run time. Any text is taken, cut to 256 bytes; in strict mode
    /// one without the recommended form is recorded as `(invalid_name)`.
    #[inline]
    pub fn scope(&self, name: &str) -> Scope {
        if self.is_enabled() { open_named(self, name) } else { Scope::NONE }
    }
}

#[inline(never)]
fn open_named(telemetry: &Telemetry, text: &str) -> Scope {
    open_cold(Some(telemetry), Wanted::Named(text), &[])
}

#[inline(never)]
fn close(scope: &mut Scope) {
    let end = raw_ticks();
    block(|t| {
        if t.current.get() != scope.frame || !close_hot(t, scope.frame, end) {
            close_cold(t, scope, end);
        }
    });
}

/// The hot half of closing: the record is written and the frame popped, unless anything is unusual.
#[inline(always)]
fn close_hot(t: &Block, frame: *const Frame, end: u64) -> bool {
    // SAFETY: it is current, so it is an open frame of this thread.
    let frame = unsafe { &*frame };
    // SAFETY: the number was given out by this thread's list, which only grows while the frame is open.
    let lane = unsafe { &**t.lanes.get().add(frame.lane()) };
    let cursor = &lane.cursor;
    let unusual = frame.word.get() & HOT_MASK | cursor.flags.load(Relaxed);
    let start = frame.start.load(Relaxed);
    let duration = end.wrapping_sub(start);
    let position = cursor.position.load(Relaxed);
    let left = (cursor.end.get() as usize).wrapping_sub(position as usize);
    if unusual != 0 || duration > u64::from(u32::MAX) || left < record::WORDS * 8 || panicking() {
        return false;
    }
    // SAFETY: the link of an open frame is the base or a frame in place.
    let parent = unsafe { &*frame.link.get() };
    let path = Path(frame.path.load(Relaxed));
    let ids = record::pair(frame.span.load(Relaxed), parent.span.load(Relaxed));
    // SAFETY: there is room for four words between position and end, which only the owner touches until they are
    // published by the store below.
    unsafe {
        position.write(record::head(path, 0, record::TIMING, record::WORDS));
        position.add(1).write(ids);
        position.add(2).write(record::pair(frame.root.get(), duration as u32));
        position.add(3).write(start);
        cursor.position.store(position.add(record::WORDS), Release);
    }
    stack::pop(t, frame);
    t.last_tick.set(end);
    true
}

/// Closes in full.
#[cold]
#[inline(never)]
fn close_cold(t: &Block, scope: &mut Scope, end: u64) {
    let items = scope.items();
    let depth = scope.depth();
    if !t.ended.get() {
        // SAFETY: the thread has not ended, so its frames are in place, and this one was not given up: its guard is here.
        close_frame(t, unsafe { &*scope.frame }, depth, items, end);
    }
    if !items.is_null() {
        // SAFETY: the scope owned it and is done with it.
        unsafe { buffer::give_back_items(t, items) };
    }
}

fn close_frame(t: &Block, frame: &Frame, depth: u32, items: *mut ItemBuffer, end: u64) {
    let Some(lane) = lane_of(t, frame) else { return pop(t, frame) };
    let flags = lane.cursor.flags.load(Acquire);
    // SAFETY: the scope's own buffer, or null.
    let mut items = unsafe { items.as_mut() };
    let end = if flags & lane_flag::SLOW_CLOCK != 0 { lane.sink.ticks() } else { end };
    t.last_tick.set(end);
    if flags & lane_flag::OFF != 0 || frame.has(flag::STAND_IN) || items.as_ref().is_some_and(|it| it.is_discarded) {
        if flags & lane_flag::OFF != 0 {
            lane.sink.refused();
        }
        return pop(t, frame);
    }
    let mut panic = None;
    if panicking() && !frame.has(flag::BORN_PANICKING) && items.as_ref().is_none_or(|it| !it.is_failed) {
        // An unwinding thread can afford to allocate.
        let own = match items.take() {
            Some(items) => items,
            None => &mut **panic.insert(ItemBuffer::new()),
        };
        own.fail("panic");
        items = Some(own);
    }
    let mut record_flags = if items.as_ref().is_some_and(|it| it.is_failed) { record_flag::FAILED } else { 0 };
    record_flags |= if items.as_ref().is_some_and(|it| it.has_items()) { record_flag::ITEMS } else { 0 };
    if let Some(cut) = items.as_ref().map(|it| it.dropped()).filter(|cut| *cut > 0) {
        lane.sink.cut(cut);
    }
    let front = buffer::frame_front(frame, end, record_flags, depth);
    let written = buffer::write(lane, front, items);
    // What an inline reporter emits belongs under the scope around this one.
    let flows = if flags & lane_flag::INLINE != 0 { front.flows() } else { Vec::new() };
    pop(t, frame);
    if flags & lane_flag::INLINE != 0 {
        deliver_inline(lane, written.words(), &flows);
    }
}

/// Serves inline reporters with a record that was just written.
pub(crate) fn deliver_inline(lane: &Lane, words: &[u64], flows: &[u64]) {
    let prefix = lane.thread.prefix.load(Relaxed);
    lane.sink.inline(Part { records: words, flows, thread: &lane.thread, prefix });
}

fn pop(t: &Block, frame: &Frame) {
    if std::ptr::eq(t.current.get(), frame) {
        stack::close_current(t, frame);
    } else {
        stack::close_out_of_order(t, frame);
    }
}

/// The lane that a frame's record goes to.
fn lane_of<'t>(t: &'t Block, frame: &Frame) -> Option<&'t Lane> {
    let number = frame.lane();
    if number >= t.lanes_len.get() as usize {
        return None;
    }
    // SAFETY: within the list, whose entries are null or lanes in place.
    unsafe { (*t.lanes.get().add(number)).as_ref() }
}

fn carrier_of(t: &Block, frame: &Frame, levels: u32) -> Carrier {
    match buffer::set_up(t) {
        Some(thread) => Carrier::of(frame, levels, thread.prefix.load(Relaxed)),
        None => Carrier::NONE,
    }
}

impl Carrier {
    /// Takes the current scope of this thread, of whatever context.
    pub fn current() -> Self {
        block(|t| {
            // SAFETY: null before the thread is set up, else the base or an open frame.
            match unsafe { t.current.get().as_ref() } {
                Some(frame) => carrier_of(t, frame, t.depth.get()),
                None => Self::NONE,
            }
        })
    }

    /// Makes the carried scope current on this thread until the guard is dropped: scopes that are opened meanwhile are
    /// its children.
    pub fn attach(&self) -> Attached {
        block(|t| match buffer::set_up(t) {
            Some(thread) => Attached::new(self.push(t, &thread)),
            None => Attached::none(),
        })
    }
}

/// A scope that has left its thread's stack, with all that its record will need.
pub(crate) struct Detached {
    pub(crate) carrier: Carrier,
    pub(crate) parent_span_id: u64,
    /// Whose sequence numbers these are: span, parent and root.
    pub(crate) home: (u32, u64),
    pub(crate) sequences: (u32, u32, u32),
    pub(crate) path: Path,
    pub(crate) depth: u32,
    pub(crate) start: u64,
    pub(crate) flags: u32,
    pub(crate) items: Box<ItemBuffer>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) context_id: u64,
}

impl Detached {
    /// Whether the sequence numbers mean on this thread what they meant at first.
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
            let depth = scope.depth();
            let prefix = lane.thread.prefix.load(Relaxed);
            // SAFETY: the link of an open frame is the base or a frame in place.
            let parent = unsafe { &*frame.link.get() };
            let parent_span_id = if parent.root.get() == 0 { 0 } else { stack::ids(parent, prefix).1 };
            let items = match scope.items() {
                pointer if pointer.is_null() => ItemBuffer::new(),
                // SAFETY: made by `Box::into_raw` in `take_items`; the scope itself is not dropped.
                pointer => unsafe { Box::from_raw(pointer) },
            };
            let detached = Detached {
                carrier: Carrier::of(frame, depth + 1, prefix),
                parent_span_id,
                home: (lane.thread.index, prefix),
                sequences: (frame.span.load(Relaxed), parent.span.load(Relaxed), frame.root.get()),
                path: Path(frame.path.load(Relaxed)),
                depth,
                start: frame.start.load(Relaxed),
                flags: frame.word.get() & (flag::FOREIGN | flag::UNSAMPLED),
                items,
                sink: Arc::clone(&lane.sink),
                context_id: lane.context_id,
            };
            pop(t, frame);
            Some(detached)
        })
    }
}

// What the cost of an open scope rests on.
const _: () = assert!(size_of::<Scope>() == 16 && size_of::<Frame>() == 32 && size_of::<Cursor>() == 64);
