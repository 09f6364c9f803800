//! Where the encoder and the sender thread meet: one slot per signal, the newest aggregates, and who waits for what.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Request, Signal};

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something to send, or to stop waiting for.
    wake: Condvar,
    /// Something was taken or sent.
    done: Condvar,
}

#[derive(Default)]
struct State {
    slots: [Option<Request>; Signal::ALL.len()],
    /// The pieces of the newest snapshot.
    aggregates: VecDeque<Request>,
    is_sending: bool,
    /// There may be something in the store.
    may_be_stored: bool,
    /// Since when the encoder has had an open request with something in it.
    open_since: Option<Instant>,
    /// Somebody flushes: a wait that was chosen here, not by the server, ends.
    is_hurried: bool,
    is_closing: bool,
    is_running: bool,
}

/// What the sender does next.
#[derive(Debug)]
pub(super) enum Work {
    Send(Request),
    LookIntoStore,
    /// An open request has waited long enough.
    TakeOpen,
    End,
}

impl Queue {
    /// Waits until there is room in a slot, at most so long; none waits for as long as it takes. Returns whether there is.
    pub(super) fn wait_for_room(&self, signal: Signal, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        while state.slots[signal as usize].is_some() {
            match time_left(deadline) {
                Some(Duration::ZERO) => return false,
                time_left => state = wait(&self.done, state, time_left),
            }
        }
        true
    }

    /// Fills a slot that has room; there is one encoder, so nobody else did. Otherwise the request comes back.
    pub(super) fn put(&self, request: Request) -> Result<(), Request> {
        let mut state = self.lock();
        let slot = &mut state.slots[request.signal as usize];
        if slot.is_some() {
            return Err(request);
        }
        *slot = Some(request);
        self.wake.notify_all();
        Ok(())
    }

    /// Replaces what still waits of an older snapshot. Returns the number of pieces that it replaced.
    pub(super) fn put_aggregates(&self, pieces: Vec<Request>) -> usize {
        let mut state = self.lock();
        let replaced = std::mem::replace(&mut state.aggregates, pieces.into()).len();
        self.wake.notify_all();
        replaced
    }

    /// Takes back what waits of the newest snapshot.
    pub(super) fn take_aggregates(&self) -> VecDeque<Request> {
        std::mem::take(&mut self.lock().aggregates)
    }

    /// Takes back the requests that wait, but for the one that is being sent.
    pub(super) fn take_waiting(&self) -> Vec<Request> {
        let taken = self.lock().slots.iter_mut().filter_map(Option::take).collect();
        self.done.notify_all();
        taken
    }

    /// There is something in the store.
    pub(super) fn look_into_store(&self) {
        self.lock().may_be_stored = true;
        self.wake.notify_all();
    }

    /// An open request got its first content, or was handed over.
    pub(super) fn set_open(&self, is_open: bool) {
        let mut state = self.lock();
        if is_open && state.open_since.is_none() {
            state.open_since = Some(Instant::now());
            self.wake.notify_all();
        } else if !is_open {
            state.open_since = None;
        }
    }

    /// For the sender: what to do next; waits until there is something. A store is looked into every so often, whether
    /// anybody says that there is something or not.
    pub(super) fn next(&self, linger: Duration, look_every: Option<Duration>) -> Work {
        let look_at = look_every.map(|every| Instant::now() + every);
        let mut state = self.lock();
        state.is_sending = false;
        self.done.notify_all();
        loop {
            if let Some(request) =
                state.aggregates.pop_front().or_else(|| state.slots.iter_mut().find_map(Option::take))
            {
                state.is_sending = true;
                self.done.notify_all();
                return Work::Send(request);
            }
            let is_time_to_look = look_at.is_some_and(|at| at <= Instant::now()) && !state.is_closing;
            if state.may_be_stored || is_time_to_look {
                (state.may_be_stored, state.is_sending) = (false, true);
                return Work::LookIntoStore;
            }
            let open_until = state.open_since.map(|since| since + linger);
            if open_until.is_some_and(|until| until <= Instant::now()) {
                (state.open_since, state.is_sending) = (None, true);
                return Work::TakeOpen;
            }
            if state.is_closing {
                state.is_running = false;
                return Work::End;
            }
            let until = [open_until, look_at].into_iter().flatten().min();
            state = wait(&self.wake, state, time_left(until));
        }
    }

    /// For the sender: an attempt begins, which serves whoever hurried until now.
    pub(super) fn begin_attempt(&self) {
        self.lock().is_hurried = false;
    }

    /// For the sender: waits until then, or until somebody hurries if that is allowed. Ends at once while closing.
    pub(super) fn pause(&self, until: Instant, may_hurry: bool) {
        let mut state = self.lock();
        while !(state.is_closing || may_hurry && state.is_hurried) {
            match time_left(Some(until)) {
                Some(Duration::ZERO) => return,
                time_left => state = wait(&self.wake, state, time_left),
            }
        }
    }

    /// Somebody flushes.
    pub(super) fn hurry(&self) {
        self.lock().is_hurried = true;
        self.wake.notify_all();
    }

    /// Waits until `is_done` says so, which is asked whenever something was taken or settled. Returns whether that came in
    /// time.
    pub(super) fn wait_until(&self, deadline: Instant, is_done: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        while !is_done() {
            match time_left(Some(deadline)) {
                Some(Duration::ZERO) => return false,
                time_left => state = wait(&self.done, state, time_left),
            }
        }
        true
    }

    /// Waits until nothing waits and nothing is being sent, and `is_done` says so too. Returns whether that came in time.
    pub(super) fn wait_until_idle(&self, deadline: Instant, is_done: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        loop {
            let is_idle = !state.is_sending && state.aggregates.is_empty() && state.slots.iter().all(Option::is_none);
            if is_idle && is_done() {
                return true;
            }
            match time_left(Some(deadline)) {
                Some(Duration::ZERO) => return false,
                time_left => state = wait(&self.done, state, time_left),
            }
        }
    }

    /// No more will come but the rest: the sender makes one attempt for what is left, and ends.
    pub(super) fn close(&self, rest: Vec<Request>) {
        let mut state = self.lock();
        state.aggregates.extend(rest);
        state.is_closing = true;
        drop(state);
        self.wake.notify_all();
        self.done.notify_all();
    }

    /// Whether nothing waits in the slot of a signal.
    #[cfg(test)]
    pub(super) fn is_free(&self, signal: Signal) -> bool {
        self.lock().slots[signal as usize].is_none()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().is_closing
    }

    /// Calls `start` if no sender is running; it says whether it could start one.
    pub(super) fn ensure_running(&self, start: impl FnOnce() -> bool) {
        let mut state = self.lock();
        if !state.is_running {
            state.is_running = start();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time until then; none without an end.
fn time_left(until: Option<Instant>) -> Option<Duration> {
    until.map(|until| until.saturating_duration_since(Instant::now()))
}

fn wait<'a>(on: &Condvar, state: MutexGuard<'a, State>, at_most: Option<Duration>) -> MutexGuard<'a, State> {
    match at_most {
        Some(at_most) => on.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0,
        None => on.wait(state).unwrap_or_else(PoisonError::into_inner),
    }
}
