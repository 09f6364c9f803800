//! The sender thread: the only one that waits for the other side.
//!
//! It has one request in hand at a time, and tries it until it is delivered, refused for good, or given up. Failures in a
//! row are one *outage*, across requests: once it has lasted too long, each further request gets a single attempt.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Weak,
    time::{Duration, Instant},
};

use kastor::DropReason;

use super::{
    Answer, Request, Transport,
    engine::{Engine, Source},
    note::{contained, neutral},
    queue::Work,
    retry::Backoff,
    store,
};

/// How often a store is looked into in which something of this process waits.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// How often it is looked into otherwise, for what other processes left.
const LOOK_LATER: Duration = Duration::from_secs(10);

pub(super) fn run(engine: &Engine, source: &Weak<dyn Source>) {
    let mut sender = Sender {
        engine,
        transport: engine.connect(),
        backoff: Backoff::new(engine.settings.retry),
        failing_since: None,
        wait: None,
    };
    loop {
        // What the disk does not give now it may give later, and other processes leave theirs at any time.
        let look_every = if engine.ledger.spooled() > 0 { LOOK_SOON } else { LOOK_LATER };
        match engine.queue.next(engine.settings.linger, engine.store.as_ref().map(|_| look_every)) {
            Work::Send(request) => sender.send_queued(&request),
            Work::LookIntoStore => sender.send_stored(),
            Work::TakeOpen => {
                if let Some(source) = source.upgrade() {
                    contained(|| source.take_open());
                }
            }
            Work::End => return,
        }
    }
}

struct Sender<'a> {
    engine: &'a Engine,
    transport: Box<dyn Transport>,
    backoff: Backoff,
    failing_since: Option<Instant>,
    wait: Option<Wait>,
}

/// No attempt before then.
#[derive(Clone, Copy)]
struct Wait {
    until: Instant,
    /// The server named the time: not even a flush comes earlier.
    is_asked_for: bool,
}

enum Fate {
    Taken {
        rejected: u64,
    },
    /// Not by the other side, but by the store, which had failed before.
    Stored,
    Refused,
    GivenUp,
}

impl Sender<'_> {
    fn send_queued(&mut self, request: &Request) {
        let ledger = &self.engine.ledger;
        match self.try_until_settled(request, false) {
            Fate::Taken { rejected } => {
                ledger.drop_queued(DropReason::RejectedByServer, rejected);
                ledger.deliver_queued(request.events - rejected);
            }
            Fate::Stored => {}
            Fate::Refused => ledger.drop_queued(DropReason::NonRetryable, request.events),
            Fate::GivenUp if self.engine.queue.is_closing() => ledger.drop_queued(DropReason::Shutdown, request.events),
            Fate::GivenUp => ledger.drop_queued(DropReason::RetryExhausted, request.events),
        }
    }

    /// One entry of the store. What is given up stays there.
    fn send_stored(&mut self) {
        let Some(store) = &self.engine.store else { return };
        let ledger = &self.engine.ledger;
        let next = store.next();
        ledger.drop_spooled(DropReason::CorruptOnRead, self.engine.others.newly_corrupt(&**store));
        let Some(entry) = next else { return };
        let Some((request, instance_id)) = store::decode(entry.payload, entry.events) else {
            let own = self.engine.others.own_share(&**store, entry.events);
            ledger.drop_spooled(DropReason::CorruptOnRead, own);
            self.acknowledge();
            return self.engine.queue.look_into_store();
        };
        // What another process left behind is delivered too, but is in no account of this one.
        let own_events = if instance_id == self.engine.settings.instance_id { request.events } else { 0 };
        match self.try_until_settled(&request, true) {
            Fate::Taken { rejected } => {
                let rejected = rejected.min(own_events);
                ledger.drop_spooled(DropReason::RejectedByServer, rejected);
                ledger.deliver_spooled(own_events - rejected);
                self.acknowledge();
            }
            Fate::Refused => {
                ledger.drop_spooled(DropReason::NonRetryable, own_events);
                self.acknowledge();
            }
            Fate::GivenUp | Fate::Stored => return,
        }
        self.engine.others.settle(request.events - own_events);
        self.engine.queue.look_into_store();
    }

    /// A failed acknowledgement means that the entry comes again: at least once, not lost.
    fn acknowledge(&self) {
        if let Some(Err(error)) = self.engine.store.as_ref().map(|store| store.acknowledge()) {
            let name = self.engine.settings.name;
            self.engine.notes.store.warn(|| format!("{name}: an entry of the spool could not be removed: {error}"));
        }
    }

    fn try_until_settled(&mut self, request: &Request, is_stored: bool) -> Fate {
        let Engine { queue, settings, notes, .. } = self.engine;
        loop {
            if let Some(wait) = self.wait {
                queue.pause(wait.until, !wait.is_asked_for);
                if wait.is_asked_for && wait.until > Instant::now() {
                    // Closing: an attempt now would be against the server's wish.
                    return Fate::GivenUp;
                }
            }
            queue.begin_attempt();
            match self.attempt(request) {
                Answer::Accepted { rejected, message } => {
                    self.recover();
                    let rejected = rejected.min(request.events);
                    if rejected > 0 || !message.is_empty() {
                        notes.rejected.warn(|| {
                            format!(
                                "{}: the server took all but {rejected} items: {}",
                                settings.name,
                                neutral(&message)
                            )
                        });
                    }
                    return Fate::Taken { rejected };
                }
                Answer::Never { why } => {
                    // An answer is an answer: the server is there.
                    self.recover();
                    let events = request.events;
                    notes.refused.warn(|| {
                        format!("{}: {events} events were refused for good: {}", settings.name, neutral(&why))
                    });
                    return Fate::Refused;
                }
                Answer::Later { after, why } => {
                    let outage = self.fail(after);
                    notes.unreachable.warn(|| format!("{}: trying again: {}", settings.name, neutral(&why)));
                    if !is_stored && self.engine.stores(request) {
                        return Fate::Stored;
                    }
                    if queue.is_closing() {
                        return Fate::GivenUp;
                    }
                    if !is_stored && outage >= settings.retry.give_up_after {
                        let events = request.events;
                        notes.given_up.warn(|| {
                            format!("{}: {events} events were given up after {outage:?} without success", settings.name)
                        });
                        return Fate::GivenUp;
                    }
                }
            }
        }
    }

    /// One attempt. A panic in there costs the request and the connection, not the thread.
    fn attempt(&mut self, request: &Request) -> Answer {
        match catch_unwind(AssertUnwindSafe(|| self.transport.send(request))) {
            Ok(answer) => answer,
            Err(panic) => {
                // Neither is dropped: whatever panicked may do so again.
                std::mem::forget((panic, std::mem::replace(&mut self.transport, self.engine.connect())));
                Answer::Never { why: "the attempt to send panicked".into() }
            }
        }
    }

    /// One more failure: when the next attempt may be. Returns how long nothing has succeeded.
    fn fail(&mut self, after: Option<Duration>) -> Duration {
        let own = self.backoff.next_wait();
        let now = Instant::now();
        // A little more than asked for, so that clients which were told the same do not all come at once, and zero
        // is no busy loop.
        let wait = after.map_or(own, |after| after + own.min(self.engine.settings.retry.initial));
        self.wait = Some(Wait { until: now + wait, is_asked_for: after.is_some() });
        now - *self.failing_since.get_or_insert(now)
    }

    fn recover(&mut self) {
        self.backoff.reset();
        self.wait = None;
        if let Some(since) = self.failing_since.take() {
            let name = self.engine.settings.name;
            self.engine.notes.unreachable.reset(|| format!("{name}: works again after {:?}", since.elapsed()));
        }
    }
}
