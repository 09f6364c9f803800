//! A queue of opaque payloads on disk, which survives crashes.
//!
//! A folder holds, for each process that uses it, a *set*: a lock file and numbered segments. The lock belongs to the
//! process and goes with it, whatever ends it; a set whose lock is free is an orphan, and whoever finds it delivers it.
//!
//! ```text
//! 4711-9f86d081884c7d65.lock                  locked while process 4711 lives
//! 4711-9f86d081884c7d65-00000001.kspool       a segment: frames, each with a state word behind it
//! ```
//!
//! A payload is a frame (`frame.rs`) of kind 16. Its `detail` is the number of its events, and its `sequence` how many
//! events its set had taken before it: what is missing between two payloads can be told to the event. The *state word*
//! behind a frame is zero while the payload waits and `ac 6b 65 64` twice once it was delivered. It is overwritten in its
//! place: acknowledging, like deleting, needs no space. A word that is neither counts as waiting: twice is better than
//! never.
//!
//! What the quota does not hold is evicted by the segment, oldest first. After a failed `sync` a segment is never
//! written again: what waits in it is copied into a new one, which is synced before the old one goes.

mod segment;
mod set;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kastor::{Error, Held};

use self::{
    segment::Segment,
    set::{Lock, SetName},
};
use crate::fs::{Fs, OsFs};

/// How often a spool that has nothing to deliver looks for sets of processes that ended.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Attempts at reading a payload that the disk does not give.
const MAX_UNREADABLE: u32 = 10;

/// Where a spool is, and how large it may become.
///
/// ```
/// let config = kastor_export::SpoolConfig::new("spool").max_bytes(64 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    folder: PathBuf,
    max_bytes: u64,
    max_segment_bytes: u64,
}

impl SpoolConfig {
    /// A spool in `folder`, which is made if it is missing: at most 512 MiB for each process, in segments of 8 MiB.
    /// Several processes may use one folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), max_bytes: 512 << 20, max_segment_bytes: 8 << 20 }
    }

    /// Bytes on disk, of this process and of those that it has taken over, beyond which the oldest are given up.
    pub fn max_bytes(self, bytes: u64) -> Self {
        Self { max_bytes: bytes, ..self }
    }

    /// Bytes after which a new segment is begun: the grain in which the oldest are given up, and space comes back.
    pub fn max_segment_bytes(self, bytes: u64) -> Self {
        Self { max_segment_bytes: bytes.max(4096), ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A queue on disk. All calls may block as long as the disk does.
pub(crate) struct Spool {
    fs: Arc<dyn Fs>,
    config: SpoolConfig,
    state: Mutex<State>,
}

/// What `append` did besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Events that had to go because of the quota.
    pub(crate) evicted_events: u64,
}

/// Names a payload, for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryId(u64);

/// A payload that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) payload: Vec<u8>,
    pub(crate) events: u64,
}

/// What waits, and what did not survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Payloads that wait.
    pub(crate) entries: u64,
    /// Events in them.
    pub(crate) events: u64,
    /// Bytes of the segments on disk.
    pub(crate) bytes: u64,
    /// Events found damaged or missing so far.
    pub(crate) corrupt_events: u64,
    /// Events taken over from processes that ended: they are among `events` and `corrupt_events`, and were emitted by
    /// nobody here.
    pub(crate) adopted_events: u64,
}

struct State {
    /// This process's own set.
    own: SetName,
    /// Of the sets that are used here, held as long as they are.
    locks: Vec<Lock>,
    /// The oldest first. The last one is written to, unless it is sealed.
    segments: VecDeque<Segment>,
    /// Segments that could not be removed, though nothing in them waits.
    doomed: Vec<Segment>,
    /// Number of the newest segment of our own.
    newest_segment: u64,
    next_id: u64,
    /// Events that our own set has taken.
    sequence: u64,
    /// The payload that `next` gave out last.
    in_hand: Option<EntryId>,
    /// The same, if its segment had to go meanwhile.
    rescued: Option<Entry>,
    /// How often in a row the oldest payload could not be read.
    unreadable: u32,
    corrupt_events: u64,
    adopted_events: u64,
    looked: Instant,
}

impl Spool {
    /// Opens the spool, and takes over what processes that ended have left.
    pub(crate) fn open(config: &SpoolConfig) -> Result<Self, Error> {
        Self::open_on(Arc::new(OsFs), config)
    }

    pub(crate) fn open_on(fs: Arc<dyn Fs>, config: &SpoolConfig) -> Result<Self, Error> {
        let failed = |error: io::Error| failure("open", &config.folder, &error);
        fs.create_folder(&config.folder).map_err(failed)?;
        let (own, lock) = set::create(&*fs, &config.folder).map_err(failed)?;
        let spool = Self { fs, config: config.clone(), state: Mutex::new(State::new(own, lock)) };
        spool.adopt(&mut spool.lock()).map_err(failed)?;
        Ok(spool)
    }

    /// Appends; not durable before `sync`. Evicts the oldest payloads when the quota is reached.
    ///
    /// # Errors
    /// If the payload is larger than the quota (permanent), or could not be written (temporary): it is not in the
    /// spool then.
    pub(crate) fn append(&self, payload: &[u8], events: u64) -> Result<Appended, Error> {
        let bytes = segment::entry_bytes(payload.len());
        let is_too_large = bytes > self.config.max_bytes || payload.len() > segment::MAX_PAYLOAD_BYTES as usize;
        let (Ok(detail), false) = (u32::try_from(events), is_too_large) else {
            return Err(Error::permanent(format!(
                "a payload of {} bytes does not fit the spool; raise its quota of {} bytes or send smaller batches",
                payload.len(),
                self.config.max_bytes
            )));
        };
        let mut state = self.lock();
        self.try_append(&mut state, detail, payload).map_err(|error| failure("write", &self.config.folder, &error))?;
        Ok(Appended { evicted_events: self.evict(&mut state) })
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// If that was not possible (temporary). What waits is then copied into a new segment by the next call.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let mut state = self.lock();
        self.try_sync(&mut state).map_err(|error| failure("make durable what is in", &self.config.folder, &error))
    }

    /// The oldest payload that is not acknowledged: the same one until it is, unless it turns out to be damaged.
    pub(crate) fn next(&self) -> Option<Entry> {
        let mut state = self.lock();
        if let Some(rescued) = &state.rescued {
            return Some(rescued.clone());
        }
        loop {
            if let Some(entry) = self.oldest(&mut state) {
                state.in_hand = Some(entry.id);
                return Some(entry);
            }
            if state.looked.elapsed() < LOOK_EVERY || !self.adopt(&mut state).unwrap_or(false) {
                return None;
            }
        }
    }

    /// Delivered, or finally given up.
    ///
    /// # Errors
    /// If the disk could not be told: it will be delivered again after a crash, but not before.
    pub(crate) fn acknowledge(&self, id: EntryId) -> Result<(), Error> {
        let mut state = self.lock();
        if state.in_hand == Some(id) {
            state.in_hand = None;
        }
        if state.rescued.as_ref().is_some_and(|rescued| rescued.id == id) {
            state.rescued = None;
            return Ok(());
        }
        let acknowledged = state.segments.iter_mut().find_map(|segment| segment.acknowledge(id));
        self.remove_done(&mut state);
        // An id that is not here any more was evicted: that is the end of it, too.
        acknowledged.unwrap_or(Ok(())).map_err(|error| failure("acknowledge in", &self.config.folder, &error))
    }

    /// What waits, and what did not survive.
    pub(crate) fn totals(&self) -> Totals {
        let state = self.lock();
        let mut totals =
            Totals { corrupt_events: state.corrupt_events, adopted_events: state.adopted_events, ..Totals::default() };
        for segment in &state.segments {
            totals.entries += segment.waiting.len() as u64;
            totals.events += segment.waiting_events();
        }
        if let Some(rescued) = &state.rescued {
            totals.entries += 1;
            totals.events += rescued.events;
        }
        totals
    }

    /// Holds the spool still, for a fork.
    pub(crate) fn hold_for_fork<'a>(&'a self, held: &mut Vec<Box<dyn Held + 'a>>) {
        held.push(Box::new(self.lock()));
    }

    /// In a forked child: what is here belongs to the parent. The child gets a set of its own, and closes its copies of
    /// the parent's locks, which so end with the parent.
    pub(crate) fn begin_anew(&self) -> Result<(), Error> {
        let mut state = self.lock();
        let (own, lock) = set::create(&*self.fs, &self.config.folder)
            .map_err(|error| failure("open", &self.config.folder, &error))?;
        *state = State::new(own, lock);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up the oldest segments until the quota holds, but never the one that was just written to.
    fn evict(&self, state: &mut State) -> u64 {
        let mut evicted_events = 0;
        while state.bytes() > self.config.max_bytes && state.segments.len() > 1 {
            let Some(mut oldest) = state.segments.pop_front() else { break };
            if let Some(at) = oldest.waiting.iter().position(|place| Some(place.id) == state.in_hand) {
                // Someone is delivering it: it is his until he says what came of it.
                let rescued = oldest.waiting.get(at).and_then(|place| {
                    let payload = oldest.read(place).ok()?;
                    Some(Entry { id: place.id, payload, events: u64::from(place.events) })
                });
                if rescued.is_some() {
                    state.rescued = rescued;
                    oldest.waiting.remove(at);
                }
            }
            evicted_events += oldest.waiting_events();
            self.remove(state, oldest);
        }
        evicted_events
    }

    fn try_append(&self, state: &mut State, events: u32, payload: &[u8]) -> io::Result<()> {
        let bytes = segment::entry_bytes(payload.len());
        // Small enough for an eviction to leave most of what the quota holds.
        let max_bytes = self.config.max_segment_bytes.min(self.config.max_bytes / 4);
        let is_full = |segment: &Segment| segment.bytes > 0 && segment.bytes + bytes > max_bytes;
        if state.segments.back().is_some_and(|newest| newest.is_unsynced && is_full(newest)) {
            // A segment that others follow is durable: only the last one can lose its end.
            self.try_sync(state)?;
        }
        if state.segments.back().is_none_or(|newest| newest.is_sealed || is_full(newest)) {
            let own = state.own.clone();
            let segment = self.create_segment(state, own)?;
            state.segments.push_back(segment);
        }
        let (id, sequence) = (state.new_id(), state.sequence);
        if let Some(newest) = state.segments.back_mut() {
            newest.append(id, sequence, events, payload)?;
            state.sequence = sequence.wrapping_add(u64::from(events));
        }
        Ok(())
    }

    /// Makes the next segment of a set.
    fn create_segment(&self, state: &mut State, set: SetName) -> io::Result<Segment> {
        self.fs.create_folder(&self.config.folder)?;
        let of_set = state.segments.iter().filter(|segment| segment.set == set);
        let newest = of_set.map(|segment| segment.number).max().unwrap_or(0);
        let number = newest.max(if set == state.own { state.newest_segment } else { 0 }) + 1;
        let segment = Segment::create(&*self.fs, &self.config.folder, set, number)?;
        if segment.set == state.own {
            state.newest_segment = number;
        }
        Ok(segment)
    }

    fn try_sync(&self, state: &mut State) -> io::Result<()> {
        // 1. Is everything where it was put?
        if let Some(newest) = state.segments.back_mut() {
            newest.look();
            if newest.is_lost {
                state.locks.iter_mut().for_each(|lock| lock.restore(&*self.fs));
                state.segments.iter_mut().for_each(Segment::look);
            }
        }
        // 2. What was written to no avail is written again, elsewhere.
        for at in 0..state.segments.len() {
            let Some(segment) = state.segments.get_mut(at) else { break };
            if segment.is_unsynced && !segment.is_lost && segment.sync(&*self.fs).is_ok() {
                continue;
            }
            if segment.is_lost {
                self.rewrite(state, at)?;
            }
        }
        Ok(())
    }

    /// Copies what waits in a segment into a new one, syncs that, and removes the old one.
    fn rewrite(&self, state: &mut State, at: usize) -> io::Result<()> {
        // It stays in its set: there a reader knows its payloads as the same.
        let Some(set) = state.segments.get(at).map(|old| old.set.clone()) else { return Ok(()) };
        let mut copy = self.create_segment(state, set)?;
        let Some(old) = state.segments.get_mut(at) else { return Ok(()) };
        let mut lost_events = 0;
        let mut copied = Ok(());
        for place in &old.waiting {
            match old.read(place) {
                Ok(payload) if copied.is_ok() => {
                    copied = copy.append(place.id, place.sequence, place.events, &payload);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => lost_events += u64::from(place.events),
                Err(error) => copied = copied.and(Err(error)),
            }
        }
        copied = copied.and_then(|()| copy.sync(&*self.fs));
        if copied.is_err() {
            self.remove(state, copy);
            return copied;
        }
        // Its number is out of order now; where it stands in the queue is not.
        copy.is_sealed = true;
        std::mem::swap(old, &mut copy);
        self.remove(state, copy);
        state.corrupt_events = state.corrupt_events.saturating_add(lost_events);
        // What is acknowledged in the copy must not come back with the old one. The payloads are safe in any case.
        let _ = self.fs.sync_folder(&self.config.folder);
        Ok(())
    }

    /// Removes a segment, or remembers that it has to go: it must not be taken for somebody's heritage.
    fn remove(&self, state: &mut State, segment: Segment) {
        if !segment.remove(&*self.fs) {
            state.doomed.push(segment);
        }
    }

    fn oldest(&self, state: &mut State) -> Option<Entry> {
        loop {
            let segment = state.segments.iter_mut().find(|segment| !segment.waiting.is_empty())?;
            let place = *segment.waiting.front()?;
            let events = u64::from(place.events);
            match segment.read(&place) {
                Ok(payload) => {
                    state.unreadable = 0;
                    return Some(Entry { id: place.id, payload, events });
                }
                // The disk may find it again; what it never finds must not stand in the way for ever.
                Err(error) if error.kind() != io::ErrorKind::InvalidData && state.unreadable < MAX_UNREADABLE => {
                    state.unreadable += 1;
                    return None;
                }
                Err(_) => {
                    segment.waiting.pop_front();
                    state.unreadable = 0;
                    state.corrupt_events = state.corrupt_events.saturating_add(events);
                    self.remove_done(state);
                }
            }
        }
    }

    /// Removes segments in which nothing waits, but the one that is written to, and then the locks of sets that have
    /// none left.
    fn remove_done(&self, state: &mut State) {
        state.doomed.retain(|segment| !segment.remove(&*self.fs));
        let open = state.segments.len().checked_sub(1);
        let mut kept = VecDeque::new();
        for (at, segment) in std::mem::take(&mut state.segments).into_iter().enumerate() {
            if segment.waiting.is_empty() && (Some(at) != open || segment.is_sealed) {
                self.remove(state, segment);
            } else {
                kept.push_back(segment);
            }
        }
        state.segments = kept;
        let State { own, locks, segments, doomed, .. } = state;
        let is_used = |set: &SetName| set == own || segments.iter().chain(&*doomed).any(|it| it.set == *set);
        for lock in std::mem::take(locks) {
            if is_used(&lock.set) {
                locks.push(lock);
            } else {
                lock.remove(&*self.fs);
            }
        }
    }

    /// Takes over the sets of processes that ended; whether there were any.
    fn adopt(&self, state: &mut State) -> io::Result<bool> {
        state.looked = Instant::now();
        let mut adopted = false;
        for orphan in set::orphans(&*self.fs, &self.config.folder, &state.own)? {
            let mut reading = segment::Reading::default();
            let mut segments = Vec::new();
            for number in &orphan.numbers {
                let set = orphan.lock.set.clone();
                let found =
                    Segment::open(&*self.fs, &self.config.folder, (set, *number), &mut reading, || state.new_id());
                segments.extend(found);
            }
            segments.iter_mut().for_each(|segment| reading.keep_once(segment));
            let waiting: u64 = segments.iter().map(Segment::waiting_events).sum();
            state.corrupt_events = state.corrupt_events.saturating_add(reading.corrupt_events);
            state.adopted_events = state.adopted_events.saturating_add(reading.corrupt_events).saturating_add(waiting);
            adopted |= segments.iter().any(|segment| !segment.waiting.is_empty());
            state.locks.push(orphan.lock);
            // Older than anything of our own.
            segments.into_iter().rev().for_each(|segment| state.segments.push_front(segment));
        }
        self.remove_done(state);
        Ok(adopted)
    }
}

impl State {
    fn new(own: SetName, lock: Lock) -> Self {
        Self {
            own,
            locks: vec![lock],
            segments: VecDeque::new(),
            doomed: Vec::new(),
            newest_segment: 0,
            next_id: 1,
            sequence: 0,
            in_hand: None,
            rescued: None,
            unreadable: 0,
            corrupt_events: 0,
            adopted_events: 0,
            looked: Instant::now(),
        }
    }

    /// Bytes on disk.
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn new_id(&mut self) -> EntryId {
        self.next_id += 1;
        EntryId(self.next_id)
    }
}

impl Drop for Spool {
    /// A spool in which nothing waits leaves nothing behind.
    fn drop(&mut self) {
        let fs = Arc::clone(&self.fs);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.own.process != std::process::id() || state.rescued.is_some() {
            return;
        }
        if state.segments.iter().all(|segment| segment.waiting.is_empty()) {
            let segments = state.segments.drain(..).chain(state.doomed.drain(..));
            let removed = segments.filter(|segment| !segment.remove(&*fs)).count() == 0;
            if removed {
                state.locks.drain(..).for_each(|lock| lock.remove(&*fs));
            }
        }
    }
}

/// Reads the one segment that a disk has: number and bytes of the payloads that wait in it. For fuzzing.
pub(crate) fn scan_segment(fs: &dyn Fs) -> io::Result<(u64, usize)> {
    let mut reading = segment::Reading::default();
    let mut ids = 0;
    let mut segment = Segment::open(fs, Path::new(""), (SetName::random(), 1), &mut reading, || {
        ids += 1;
        EntryId(ids)
    })?;
    reading.keep_once(&mut segment);
    let payloads = segment.waiting.iter().map(|place| segment.read(place));
    payloads
        .map(|payload| payload.map(|payload| payload.len()))
        .try_fold((0, 0), |(number, bytes), payload| Ok((number + 1, bytes + payload?)))
}

fn failure(what: &str, folder: &Path, error: &io::Error) -> Error {
    Error::temporary(format!("cannot {what} the spool {folder:?}: {error}"))
}

#[cfg(test)]
mod tests;
