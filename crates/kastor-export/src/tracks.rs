//! Which scope is drawn on which track, so that the slices of one track always nest.
//!
//! A thread has one track of its own and, where that is not enough, further ones. Scopes arrive when they close, so a
//! child usually comes before its parent, often batches earlier. A track therefore remembers its *tops*: what it holds
//! that nothing encloses yet. A new scope goes to the first track of its thread where
//!
//! 1. it encloses a run of the newest tops whole, and begins after the one before them ended: decided in ticks, which are
//!    exact whatever line turned them into nanoseconds;
//! 2. no more than [`MOST_LEVELS`] levels come about, since readers know no more;
//! 3. its beginning finds room between what was written before: readers sort by time and keep the file's order where
//!    times are equal, so a parent that is written after its child has to begin at least a nanosecond before it;
//! 4. what it encloses belongs to it, and is not what another future did on the thread between two polls. What was
//!    carried to the thread belongs to whatever scope was open there.
//!
//! What fits nowhere gets a new track. Thus times are as recorded, but where two lines disagree about a tick, or the
//! clock is too coarse to tell parent from child: there a time moves by that difference, or by one nanosecond a level.

use std::collections::HashMap;

use kastor::Timing;

use crate::{axis::Axis, front::Front};

/// Levels of slices on one track. The engine of Perfetto gives up at 255, an instant included.
const MOST_LEVELS: u32 = 240;
/// Tracks of one thread that are tried; beyond, each scope has one of its own.
const MOST_TRACKS: usize = 256;
/// Tops of one track; beyond, the oldest become one, and what began inside of them is drawn elsewhere.
const MOST_TOPS: usize = 1024;
/// Threads that are remembered. One that comes back after it was forgotten gets new tracks.
const MOST_THREADS: usize = 4096;

/// A scope to be placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    /// Ticks.
    pub(crate) begin: u64,
    /// Ticks.
    pub(crate) end: u64,
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
    /// The scope's id.
    pub(crate) id: u64,
    /// The parent's; 0 for none.
    pub(crate) parent: u64,
    /// Belongs to a future.
    pub(crate) is_task: bool,
    /// Was opened on another thread.
    pub(crate) has_moved: bool,
    /// The parent is not on this thread's stack.
    pub(crate) has_carried_parent: bool,
    pub(crate) depth: u32,
    pub(crate) path: &'static str,
}

impl Interval {
    pub(crate) fn new(timing: &Timing<'_>, front: &Front, axis: &Axis) -> Self {
        let begin_ns = axis.of_monotonic(timing.start_monotonic_ns());
        Self {
            begin: front.begin,
            end: front.end,
            begin_ns,
            end_ns: begin_ns.saturating_add(timing.duration_ns()),
            id: timing.span_id(),
            parent: timing.parent_span_id().unwrap_or(0),
            is_task: front.is_task,
            has_moved: front.has_moved,
            has_carried_parent: front.has_carried_parent,
            depth: timing.depth(),
            path: timing.scope(),
        }
    }

    /// Whether a slice that ran within this scope's time is part of it.
    fn owns(&self, top: &Top) -> bool {
        if top.parent == self.id {
            return true;
        }
        if self.is_task {
            return false;
        }
        // The scopes between the two may have been left out by a rule, or be another context's.
        let is_descendant = || {
            top.depth >= self.depth.saturating_add(2)
                && top.path.strip_prefix(self.path).is_some_and(|rest| rest.starts_with('.'))
        };
        !top.is_plain || is_descendant()
    }
}

/// Where a scope is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The track's number in its thread; 0 is the thread itself.
    pub(crate) track: u32,
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
}

/// A step on the way through all slices of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The slice of the interval with this index begins.
    Begin(usize),
    /// It ends.
    End(usize),
}

/// A batch, placed.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// One for each interval.
    pub(crate) places: Vec<Place>,
    /// All slices, parents around their children: on each track in the order of time.
    pub(crate) steps: Vec<Step>,
    /// Different whenever the thread's tracks are new ones.
    pub(crate) generation: u32,
}

/// The tracks of all threads.
#[derive(Debug, Default)]
pub(crate) struct Tracks {
    threads: HashMap<u32, Thread>,
    generations: u32,
    /// Counts batches, to tell which threads were seen last.
    now: u64,
}

#[derive(Debug, Default)]
struct Thread {
    generation: u32,
    last_seen: u64,
    tracks: Vec<Track>,
    /// Scopes that got a track of their own.
    alone: u32,
}

#[derive(Debug, Default)]
struct Track {
    tops: Vec<Top>,
}

/// What nothing encloses yet: a slice, or several that were written side by side.
#[derive(Clone, Copy, Debug)]
struct Top {
    begin: u64,
    end: u64,
    begin_ns: u64,
    end_ns: u64,
    /// Whose child it is; 0 if unknown or mixed.
    parent: u64,
    levels: u32,
    /// Written with this batch: its interval. What was written earlier has none.
    interval: Option<usize>,
    /// Whether it has a parent, on the thread's own stack: whoever encloses one child of that has to enclose them all.
    is_plain: bool,
    depth: u32,
    path: &'static str,
}

/// What a slice encloses on a track, and its own times there.
struct Fit {
    /// The first top that it encloses; the number of tops if there is none.
    first: usize,
    levels: u32,
    begin_ns: u64,
    end_ns: u64,
}

impl Tracks {
    /// Places the scopes of one thread, in the order in which they closed.
    pub(crate) fn place(&mut self, thread: u32, intervals: &[Interval]) -> Placed {
        self.now += 1;
        if self.threads.len() >= MOST_THREADS && !self.threads.contains_key(&thread) {
            self.forget_half();
        }
        let generations = &mut self.generations;
        let thread = self.threads.entry(thread).or_insert_with(|| {
            *generations += 1;
            Thread { generation: *generations, ..Thread::default() }
        });
        thread.last_seen = self.now;
        thread.place(intervals)
    }

    fn forget_half(&mut self) {
        let mut seen: Vec<u64> = self.threads.values().map(|thread| thread.last_seen).collect();
        seen.sort_unstable();
        let middle = seen.get(seen.len() / 2).copied().unwrap_or(0);
        self.threads.retain(|_, thread| thread.last_seen > middle);
    }
}

impl Thread {
    fn place(&mut self, intervals: &[Interval]) -> Placed {
        let mut family = Family::new(intervals.len());
        let mut places = Vec::with_capacity(intervals.len());
        for (index, interval) in intervals.iter().enumerate() {
            let place = self.place_one(index, interval, &mut family);
            self.pass_on(interval, place.track);
            places.push(place);
        }
        self.tracks.iter_mut().for_each(|track| track.settle(&mut family));
        Placed { places, steps: family.steps(), generation: self.generation }
    }

    fn place_one(&mut self, index: usize, interval: &Interval, family: &mut Family) -> Place {
        let first = usize::from(interval.has_moved);
        while self.tracks.len() <= first {
            self.tracks.push(Track::default());
        }
        for (number, track) in self.tracks.iter_mut().enumerate().skip(first) {
            if let Some(fit) = track.fit(interval) {
                return track.put(index, interval, &fit, family).on(number);
            }
        }
        let mut track = Track::default();
        // Nothing is there: it fits.
        let alone = Fit { first: 0, levels: 1, begin_ns: interval.begin_ns, end_ns: interval.end_ns };
        let place = track.put(index, interval, &alone, family);
        if self.tracks.len() < MOST_TRACKS {
            self.tracks.push(track);
            return place.on(self.tracks.len() - 1);
        }
        track.settle(family);
        self.alone = self.alone.wrapping_add(1);
        place.on(MOST_TRACKS.saturating_add(self.alone as usize))
    }
}

impl Thread {
    /// Children that are drawn on other tracks than their parent belong to the parent's parent there.
    fn pass_on(&mut self, parent: &Interval, track: u32) {
        if self.tracks.len() < 2 {
            return;
        }
        let others = self.tracks.iter_mut().enumerate().filter(|(number, _)| *number != track as usize);
        for (_, other) in others {
            for top in other.tops.iter_mut().rev().take_while(|top| top.end > parent.begin) {
                if top.parent == parent.id {
                    top.parent = parent.parent;
                    top.is_plain &= parent.parent != 0 && !parent.has_carried_parent;
                }
            }
        }
    }
}

impl Place {
    fn on(self, track: usize) -> Self {
        Self { track: u32::try_from(track).unwrap_or(u32::MAX), ..self }
    }
}

impl Track {
    fn fit(&self, new: &Interval) -> Option<Fit> {
        let mut first = self.tops.len();
        let mut levels = 0;
        for top in self.tops.iter().rev() {
            let is_child = top.parent == new.id;
            // A slice without length at the very beginning stands before, unless it is a child.
            if top.begin < new.begin || (top.end <= new.begin && !is_child) {
                break;
            }
            if top.end > new.end || !new.owns(top) {
                return None;
            }
            levels = levels.max(top.levels);
            first -= 1;
        }
        let before = first.checked_sub(1).and_then(|before| self.tops.get(before));
        if before.is_some_and(|before| before.end > new.begin) || levels >= MOST_LEVELS {
            return None;
        }
        let least_ns = before.map_or(0, |before| before.end_ns);
        let mut begin_ns = new.begin_ns.max(least_ns);
        let mut end_ns = new.end_ns;
        if let (Some(child), Some(last)) = (self.tops.get(first), self.tops.last()) {
            let is_written = child.interval.is_none();
            begin_ns = begin_ns.min(child.begin_ns.checked_sub(u64::from(is_written))?);
            end_ns = end_ns.max(last.end_ns);
        }
        (begin_ns >= least_ns).then_some(Fit { first, levels: levels + 1, begin_ns, end_ns: end_ns.max(begin_ns) })
    }

    fn put(&mut self, index: usize, new: &Interval, fit: &Fit, family: &mut Family) -> Place {
        for child in self.tops.drain(fit.first..).filter_map(|top| top.interval) {
            family.adopt(index, child);
        }
        self.tops.push(Top {
            begin: new.begin,
            end: new.end,
            begin_ns: fit.begin_ns,
            end_ns: fit.end_ns,
            parent: new.parent,
            levels: fit.levels,
            interval: Some(index),
            is_plain: !new.is_task && !new.has_carried_parent && new.parent != 0,
            depth: new.depth,
            path: new.path,
        });
        Place { track: 0, begin_ns: fit.begin_ns, end_ns: fit.end_ns }
    }

    /// The batch is written: its tops are roots of it, and become tops like the others.
    fn settle(&mut self, family: &mut Family) {
        for top in &mut self.tops {
            if let Some(interval) = top.interval.take() {
                family.root(interval);
            }
        }
        self.tops.dedup_by(|newer, older| {
            let is_one = older.is_plain && newer.is_plain && older.parent == newer.parent;
            if is_one {
                older.take_in(newer);
            }
            is_one
        });
        if self.tops.len() > MOST_TOPS {
            let rest = self.tops.split_off(MOST_TOPS / 2);
            let oldest = self.tops.drain(..).reduce(|mut older, newer| {
                older.take_in(&newer);
                older
            });
            self.tops.extend(oldest.map(|oldest| Top { parent: 0, is_plain: false, ..oldest }));
            self.tops.extend(rest);
        }
    }
}

impl Top {
    fn take_in(&mut self, newer: &Top) {
        (self.end, self.end_ns) = (newer.end, newer.end_ns);
        self.levels = self.levels.max(newer.levels);
    }
}

/// Which slice of the batch is whose child: lists within the batch, so that no depth costs a stack.
struct Family {
    first_child: Vec<usize>,
    last_child: Vec<usize>,
    next: Vec<usize>,
    parent: Vec<usize>,
    roots: Vec<usize>,
}

/// No slice.
const NONE: usize = usize::MAX;

impl Family {
    fn new(slices: usize) -> Self {
        let none = || vec![NONE; slices];
        Self { first_child: none(), last_child: none(), next: none(), parent: none(), roots: Vec::new() }
    }

    fn adopt(&mut self, parent: usize, child: usize) {
        let older = self.last_child.get(parent).copied().unwrap_or(NONE);
        match self.next.get_mut(older) {
            Some(next) => *next = child,
            None => set(&mut self.first_child, parent, child),
        }
        set(&mut self.last_child, parent, child);
        set(&mut self.parent, child, parent);
    }

    fn root(&mut self, slice: usize) {
        self.roots.push(slice);
    }

    fn steps(&self) -> Vec<Step> {
        let at = |list: &[usize], index: usize| list.get(index).copied().unwrap_or(NONE);
        let mut steps = Vec::with_capacity(self.next.len() * 2);
        for &root in &self.roots {
            let mut slice = root;
            'tree: loop {
                steps.push(Step::Begin(slice));
                let child = at(&self.first_child, slice);
                if child != NONE {
                    slice = child;
                    continue;
                }
                loop {
                    steps.push(Step::End(slice));
                    let (next, parent) = (at(&self.next, slice), at(&self.parent, slice));
                    if next != NONE {
                        slice = next;
                        break;
                    }
                    if parent == NONE {
                        break 'tree;
                    }
                    slice = parent;
                }
            }
        }
        steps
    }
}

fn set(list: &mut [usize], at: usize, value: usize) {
    if let Some(place) = list.get_mut(at) {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a thread does next.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Open,
        /// Closes the scope that is so many below the innermost.
        Close(usize),
        /// A future is done that began so long ago.
        Finish(u64),
        /// The clock goes on; on a coarse one by nothing at all.
        Wait(u64),
        /// What closed so far is written; the next line from ticks to time is off by so much.
        Write(i64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => Just(Act::Open),
            4 => Just(Act::Close(0)),
            1 => (0..4_usize).prop_map(Act::Close),
            1 => (0..40_u64).prop_map(Act::Finish),
            3 => (0..4_u64).prop_map(Act::Wait),
            1 => (-3..=3_i64).prop_map(Act::Write),
        ]
    }

    /// A thread whose clock is shown in nanoseconds with an error, and the file that comes of it.
    struct Run {
        tracks: Tracks,
        now: u64,
        error: i64,
        last_id: u64,
        open: Vec<(u64, u64, u64)>,
        closed: Vec<Interval>,
        /// Time, track, generation, whether it begins, and what.
        file: Vec<(u64, (u32, u32), bool, u64)>,
        recorded: HashMap<u64, Interval>,
    }

    impl Run {
        fn close(&mut self, (id, parent, begin): (u64, u64, u64), is_task: bool) {
            let shown = |ticks: u64| ticks.saturating_add_signed(self.error);
            let interval = Interval {
                begin,
                end: self.now,
                begin_ns: shown(begin),
                end_ns: shown(begin) + (self.now - begin),
                id,
                parent,
                is_task,
                has_moved: false,
                has_carried_parent: is_task,
                depth: 0,
                path: "",
            };
            self.closed.push(interval);
        }

        fn act(&mut self, act: Act) {
            match act {
                Act::Open => {
                    self.last_id += 1;
                    let parent = self.open.last().map_or(0, |(id, ..)| *id);
                    self.open.push((self.last_id, parent, self.now));
                }
                Act::Close(below) => {
                    if let Some(at) = self.open.len().checked_sub(1 + below) {
                        let scope = self.open.remove(at);
                        self.close(scope, false);
                    }
                }
                Act::Finish(ago) => {
                    self.last_id += 1;
                    self.close((self.last_id, 0, self.now.saturating_sub(ago)), true);
                }
                Act::Wait(ticks) => self.now += ticks,
                Act::Write(error) => {
                    let placed = self.tracks.place(1, &self.closed);
                    for step in &placed.steps {
                        let (Step::Begin(index) | Step::End(index)) = *step;
                        let (place, is_begin) = (placed.places[index], matches!(step, Step::Begin(_)));
                        let at = if is_begin { place.begin_ns } else { place.end_ns };
                        self.file.push((at, (place.track, placed.generation), is_begin, self.closed[index].id));
                    }
                    self.recorded.extend(self.closed.drain(..).map(|interval| (interval.id, interval)));
                    self.error = error;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_a_thread_did_and_however_it_was_cut_into_batches_every_track_nests(
            acts in prop::collection::vec(act(), 0..400),
        ) {
            let mut run = Run {
                tracks: Tracks::default(), now: 1_000, error: 0, last_id: 0, open: Vec::new(), closed: Vec::new(),
                file: Vec::new(), recorded: HashMap::new(),
            };
            // Two lines are off by at most 3 each; a nanosecond for each level that comes in a batch after its children.
            let batches = acts.iter().filter(|act| matches!(act, Act::Write(_))).count() as u64;
            let tolerance = 6 + batches;
            acts.into_iter().for_each(|act| run.act(act));
            run.act(Act::Write(0));
            // As a reader does it: sorted by time, the order of the file where times are equal.
            run.file.sort_by_key(|(at, ..)| *at);
            let mut open: HashMap<(u32, u32), Vec<(u64, u64)>> = HashMap::new();
            let mut ended = 0;
            for (at, track, is_begin, id) in run.file {
                let stack = open.entry(track).or_default();
                if is_begin {
                    stack.push((id, at));
                    prop_assert!(stack.len() <= MOST_LEVELS as usize);
                    continue;
                }
                let (innermost, begin) = stack.pop().expect("something to end");
                prop_assert_eq!(innermost, id, "an end closes another slice than its own");
                let recorded = run.recorded[&id];
                prop_assert!(begin.abs_diff(recorded.begin_ns) <= tolerance, "{} {:?}", begin, recorded);
                prop_assert!(at.abs_diff(recorded.end_ns) <= tolerance, "{} {:?}", at, recorded);
                ended += 1;
            }
            prop_assert_eq!(ended, run.recorded.len());
        }
    }
}
