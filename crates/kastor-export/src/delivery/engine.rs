//! The engine of one exporter in one process: everything between its encoder and its transport.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use kastor::{Accounts, Deadline, DropReason, Error};

use super::{
    Connect, Ledger, Request, Signal,
    note::Note,
    queue::Queue,
    retry::Retry,
    sender,
    store::{self, Others, Store},
};

/// What an engine is told once.
pub(crate) struct Settings {
    /// For logs.
    pub(crate) name: &'static str,
    /// At most 15 bytes.
    pub(crate) thread_name: &'static std::ffi::CStr,
    pub(crate) retry: Retry,
    /// How long an open request may wait for more.
    pub(crate) linger: Duration,
    /// Tells this process's entries of a store from another's.
    pub(crate) instance_id: u128,
}

/// The encoder, as the sender sees it.
pub(crate) trait Source: Send + Sync {
    /// Hands over what is open, if nobody is encoding at the moment and there is room.
    fn take_open(self: Arc<Self>);
}

pub(crate) struct Engine {
    pub(super) settings: Settings,
    pub(super) ledger: Ledger,
    pub(super) queue: Queue,
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) others: Others,
    pub(super) notes: Notes,
    connect: Connect,
}

/// What is said in the log at growing intervals.
pub(super) struct Notes {
    pub(super) unreachable: Note,
    pub(super) refused: Note,
    pub(super) rejected: Note,
    pub(super) given_up: Note,
    pub(super) store: Note,
}

impl Engine {
    pub(crate) fn new(settings: Settings, store: Option<Arc<dyn Store>>, connect: Connect) -> Self {
        let queue = Queue::default();
        if store.is_some() {
            // What an earlier process left behind.
            queue.look_into_store();
        }
        let notes = Notes {
            unreachable: Note::default(),
            refused: Note::default(),
            rejected: Note::default(),
            given_up: Note::default(),
            store: Note::default(),
        };
        Self { settings, ledger: Ledger::default(), queue, store, others: Others::default(), notes, connect }
    }

    /// The accounts, to be kept by the encoder for what it accepts.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) fn accounts(&self) -> Accounts {
        self.ledger.read()
    }

    /// Before a request is closed: waits until it can be handed over, at most until the deadline. With a store there is
    /// always room.
    pub(crate) fn wait_for_room(&self, signal: Signal, deadline: Option<Instant>) -> bool {
        self.store.is_some() || self.queue.wait_for_room(signal, deadline)
    }

    /// Takes a request for which there is room.
    pub(crate) fn hand_over(self: &Arc<Self>, source: &Arc<impl Source + 'static>, request: Request) {
        if let Some(request) = self.try_to_store(request) {
            // Only where the store failed, or there is none and thus room.
            self.put_back(request);
        }
        self.ensure_running(source);
    }

    /// Takes the newest aggregates.
    pub(crate) fn hand_over_aggregates(self: &Arc<Self>, source: &Arc<impl Source + 'static>, pieces: Vec<Request>) {
        self.queue.put_aggregates(pieces);
        self.ensure_running(source);
    }

    /// An open request got its first content, or was closed.
    pub(crate) fn set_open(self: &Arc<Self>, source: &Arc<impl Source + 'static>, is_open: bool) {
        self.queue.set_open(is_open);
        if is_open {
            self.ensure_running(source);
        }
    }

    /// Waits until everything that was handed over is delivered or dropped.
    ///
    /// # Errors
    /// If the deadline came first.
    pub(crate) fn flush(&self, deadline: Deadline) -> Result<(), Error> {
        self.queue.hurry();
        let until = Instant::now() + deadline.remaining();
        let is_done = self.queue.wait_until_idle(until, || self.store.is_none() || self.ledger.spooled() == 0);
        if is_done {
            Ok(())
        } else {
            Err(Error::timeout(format!("{}: not everything was delivered in time", self.settings.name)))
        }
    }

    /// Makes everything durable that was handed over; the newest aggregates too, which no one else will send.
    ///
    /// # Errors
    /// If there is no store and the deadline came first, if the store failed, or if it had failed before and what it did
    /// not take is still being sent when the deadline comes.
    pub(crate) fn persist(&self, deadline: Deadline) -> Result<(), Error> {
        let Some(store) = &self.store else { return self.flush(deadline) };
        for piece in self.queue.take_aggregates() {
            self.append(&**store, &piece)?;
        }
        // What the disk did not take when it was handed over.
        let left: Vec<Request> =
            self.queue.take_waiting().into_iter().filter_map(|request| self.try_to_store(request)).collect();
        let is_all = left.is_empty();
        left.into_iter().for_each(|request| self.put_back(request));
        store.sync()?;
        self.queue.look_into_store();
        // The sender may have one more in its hands.
        self.queue.hurry();
        let until = Instant::now() + deadline.remaining();
        if is_all && self.queue.wait_until(until, || self.ledger.queued() == 0) {
            Ok(())
        } else {
            Err(Error::timeout(format!("{}: not everything could be put on disk", self.settings.name)))
        }
    }

    /// Takes the rest, and lets the sender end when it has made an attempt for all that is left. Never waits for the
    /// sender.
    pub(crate) fn close(self: &Arc<Self>, source: &Arc<impl Source + 'static>, rest: Vec<Request>) {
        let rest: Vec<Request> = rest.into_iter().filter_map(|request| self.try_to_store(request)).collect();
        let has_rest = !rest.is_empty();
        self.queue.close(rest);
        if has_rest {
            self.ensure_running(source);
        }
    }

    pub(super) fn connect(&self) -> Box<dyn super::Transport> {
        (self.connect)()
    }

    /// Writes a request to the store and waits until it is durable. It comes back if there is no store, or if that
    /// failed.
    fn try_to_store(&self, request: Request) -> Option<Request> {
        if self.stores(&request) { None } else { Some(request) }
    }

    /// The same, of a request that is in somebody's hands. Returns whether it is in the store now.
    pub(super) fn stores(&self, request: &Request) -> bool {
        let Some(store) = &self.store else { return false };
        match self.append(&**store, request).and_then(|()| store.sync()) {
            Ok(()) => {
                self.ledger.spool_queued(request.events);
                self.queue.look_into_store();
                true
            }
            Err(error) => {
                self.notes.store.warn(|| format!("{}: the spool failed: {error}", self.settings.name));
                false
            }
        }
    }

    /// A request that the store did not take waits in memory, where there is room.
    fn put_back(&self, request: Request) {
        let events = request.events;
        if self.queue.put(request).is_err() {
            self.ledger.drop_queued(DropReason::SpoolIo, events);
        }
    }

    fn append(&self, store: &dyn Store, request: &Request) -> Result<(), Error> {
        let evicted = store.append(&store::encode(request, self.settings.instance_id), request.events)?;
        if evicted > 0 {
            self.ledger.drop_spooled(DropReason::SpoolFull, self.others.own_share(store, evicted));
            self.notes.store.warn(|| {
                format!("{}: the spool is full: its {evicted} oldest events were dropped", self.settings.name)
            });
        }
        Ok(())
    }

    fn ensure_running(self: &Arc<Self>, source: &Arc<impl Source + 'static>) {
        self.queue.ensure_running(|| {
            let engine = Arc::clone(self);
            let source = Arc::downgrade(source);
            let source: Weak<dyn Source> = source;
            // Without a thread everything stays queued and counted, and the next request tries again.
            kastor::start_thread(self.settings.thread_name, move || sender::run(&engine, &source))
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    };

    use super::*;
    use crate::delivery::{Answer, Transport};

    /// An encoder with nothing open.
    struct Nothing;

    impl Source for Nothing {
        fn take_open(self: Arc<Self>) {}
    }

    struct Scripted(Arc<AtomicU32>, fn(u32) -> Answer);

    impl Transport for Scripted {
        fn send(&mut self, _: &Request) -> Answer {
            (self.1)(self.0.fetch_add(1, SeqCst))
        }
    }

    fn engine(answer: fn(u32) -> Answer) -> (Arc<Engine>, Arc<AtomicU32>) {
        engine_with(None, answer)
    }

    fn engine_with(store: Option<Arc<dyn Store>>, answer: fn(u32) -> Answer) -> (Arc<Engine>, Arc<AtomicU32>) {
        let attempts: Arc<AtomicU32> = Arc::default();
        let counted = Arc::clone(&attempts);
        let retry = Retry {
            initial: Duration::from_millis(1),
            longest: Duration::from_millis(2),
            give_up_after: Duration::from_secs(60),
        };
        let settings =
            Settings { name: "test", thread_name: c"kastor-test", retry, linger: Duration::ZERO, instance_id: 1 };
        let connect: Connect = Box::new(move || Box::new(Scripted(Arc::clone(&counted), answer)));
        (Arc::new(Engine::new(settings, store, connect)), attempts)
    }

    fn send(engine: &Arc<Engine>, events: u64) {
        engine.ledger().queue(events);
        assert!(engine.wait_for_room(Signal::Traces, Some(Instant::now() + Duration::from_secs(10))));
        engine.hand_over(&Arc::new(Nothing), Request { signal: Signal::Traces, bytes: Vec::new(), from: 0, events });
    }

    /// A store on a disk that works only now and then.
    #[derive(Default)]
    struct Flaky {
        is_broken: AtomicBool,
        kept: Mutex<Vec<u64>>,
    }

    impl Store for Flaky {
        fn append(&self, _: &[u8], events: u64) -> Result<u64, Error> {
            if self.is_broken.load(SeqCst) {
                return Err(Error::temporary("the disk is broken"));
            }
            self.kept.lock().unwrap().push(events);
            Ok(0)
        }
        fn sync(&self) -> Result<(), Error> {
            Ok(())
        }
        fn next(&self) -> Option<store::Entry> {
            None
        }
        fn acknowledge(&self) -> Result<(), Error> {
            Ok(())
        }
        fn corrupt_events(&self) -> u64 {
            0
        }
        fn adopted_events(&self) -> u64 {
            0
        }
    }

    #[test]
    fn what_a_broken_disk_did_not_take_is_put_on_it_when_it_works_again_or_is_said_not_to_be() {
        let store = Arc::new(Flaky::default());
        let nobody: fn(u32) -> Answer = |_| Answer::Later { after: None, why: "gone".into() };
        let (engine, _) = engine_with(Some(Arc::clone(&store) as Arc<dyn Store>), nobody);
        store.is_broken.store(true, SeqCst);
        // The first one is soon in the sender's hands, the second one waits behind it.
        send(&engine, 3);
        while !engine.queue.is_free(Signal::Traces) {
            std::thread::yield_now();
        }
        send(&engine, 4);
        assert!(engine.persist(Deadline::after(Duration::from_millis(20))).is_err());
        assert_eq!((engine.accounts().queued, engine.accounts().spooled), (7, 0));

        store.is_broken.store(false, SeqCst);
        engine.persist(Deadline::after(Duration::from_secs(10))).unwrap();
        let accounts = engine.accounts();
        assert_eq!((accounts.queued, accounts.spooled, accounts.dropped.total()), (0, 7, 0));
        let mut kept = store.kept.lock().unwrap().clone();
        kept.sort_unstable();
        assert_eq!(kept, [3, 4]);
    }

    #[test]
    fn a_transport_that_panics_costs_one_request_and_not_the_thread() {
        let (engine, attempts) = engine(|attempt| match attempt {
            0 => panic!("a bug of the transport's"),
            _ => Answer::Accepted { rejected: 0, message: String::new() },
        });
        send(&engine, 3);
        send(&engine, 4);
        engine.flush(Deadline::after(Duration::from_secs(10))).unwrap();
        let accounts = engine.accounts();
        assert_eq!((accounts.delivered, accounts.dropped.of(DropReason::NonRetryable), accounts.queued), (4, 3, 0));
        assert_eq!(attempts.load(SeqCst), 2);
    }

    #[test]
    fn a_request_that_waits_is_counted_until_its_fate_is_known() {
        let (engine, _) = engine(|attempt| match attempt {
            0..5 => Answer::Later { after: None, why: "not yet".into() },
            _ => Answer::Accepted { rejected: 2, message: "two are bad".into() },
        });
        send(&engine, 10);
        assert!(engine.accounts().queued + engine.accounts().delivered >= 8);
        engine.flush(Deadline::after(Duration::from_secs(10))).unwrap();
        let accounts = engine.accounts();
        assert_eq!((accounts.delivered, accounts.dropped.of(DropReason::RejectedByServer), accounts.queued), (8, 2, 0));
    }

    #[test]
    fn the_end_makes_one_attempt_for_what_is_left() {
        let (engine, attempts) = engine(|_| Answer::Later { after: None, why: "gone".into() });
        engine.ledger().queue(5);
        let rest = Request { signal: Signal::Traces, bytes: Vec::new(), from: 0, events: 5 };
        engine.close(&Arc::new(Nothing), vec![rest]);
        engine.flush(Deadline::after(Duration::from_secs(10))).unwrap();
        let accounts = engine.accounts();
        assert_eq!((accounts.dropped.of(DropReason::Shutdown), accounts.queued, attempts.load(SeqCst)), (5, 0, 1));
    }
}
