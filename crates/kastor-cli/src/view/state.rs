//! What is served: one capture or two, renewed while they grow.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::capture::Capture;
use super::load::{self, Loader};
use crate::failure::Failure;

/// How long a live capture is left alone between two looks.
const LIVE_INTERVAL: Duration = Duration::from_millis(500);
/// Looking takes no more than one part in so many of the time.
const LIVE_SHARE: u32 = 5;

/// See the module.
pub(super) struct State {
    captures: RwLock<Arc<Vec<Arc<Capture>>>>,
    is_live: bool,
    version: watch::Sender<u64>,
    /// Comparisons that were made: version, filter, answer.
    differences: Mutex<Vec<(u64, String, Arc<str>)>>,
}

/// Comparisons that are kept.
const MOST_DIFFERENCES: usize = 4;

impl State {
    /// Captures that stay as they are. The first is the new one, the second what it is compared with.
    pub(super) fn load(new: &[PathBuf], base: &[PathBuf], most_scopes: u64) -> Result<Self, Failure> {
        let sides = [new, base].into_iter().filter(|given| !given.is_empty());
        let share = most_scopes / sides.clone().count().max(1) as u64;
        let captures = sides.map(|given| load::load(given, share).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(captures, false))
    }

    /// A capture that grows, and one that it is compared with; and what renews the first.
    pub(super) fn follow(new: &[PathBuf], base: &[PathBuf], most_scopes: u64) -> Result<(Self, Following), Failure> {
        let mut loader = Loader::new(new, if base.is_empty() { most_scopes } else { most_scopes / 2 });
        loader.open(false)?;
        loader.read()?;
        let mut captures = vec![Arc::new(loader.capture(false))];
        if !base.is_empty() {
            captures.push(Arc::new(load::load(base, most_scopes / 2)?));
        }
        Ok((Self::new(captures, true), Following { loader }))
    }

    fn new(captures: Vec<Arc<Capture>>, is_live: bool) -> Self {
        Self {
            captures: RwLock::new(Arc::new(captures)),
            is_live,
            version: watch::Sender::new(1),
            differences: Mutex::default(),
        }
    }

    pub(super) fn captures(&self) -> Arc<Vec<Arc<Capture>>> {
        Arc::clone(&self.captures.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    pub(super) fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Tells of versions to come.
    pub(super) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The comparison that was made of this version with this filter.
    pub(super) fn known_difference(&self, version: u64, filter: &str) -> Option<Arc<str>> {
        let known = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(of, with, _)| *of == version && with == filter).map(|(_, _, text)| Arc::clone(text))
    }

    /// Keeps a comparison for the next who asks.
    pub(super) fn keep_difference(&self, version: u64, filter: &str, text: &str) {
        let mut known = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_DIFFERENCES {
            known.remove(0);
        }
        known.push((version, filter.to_owned(), text.into()));
    }

    fn renew(&self, capture: Capture) {
        let mut captures = self.captures.write().unwrap_or_else(PoisonError::into_inner);
        let mut renewed = (**captures).clone();
        if let Some(first) = renewed.first_mut() {
            *first = Arc::new(capture);
        }
        *captures = Arc::new(renewed);
        drop(captures);
        self.version.send_modify(|version| *version += 1);
    }
}

/// Reads on in a capture that is being written.
pub(super) struct Following {
    loader: Loader,
}

impl Following {
    /// Looks again and again, as long as somebody shows it. What cannot be read is tried again.
    pub(super) fn follow(mut self, state: &Weak<State>) {
        let mut pause = LIVE_INTERVAL;
        loop {
            std::thread::sleep(pause);
            let began = Instant::now();
            // A file that is gone for a moment, or not whole yet, is no reason to stop.
            let grew = self.loader.open(false).and_then(|_| self.loader.read());
            let Some(state) = state.upgrade() else { return };
            if grew.is_ok_and(|grew| grew) {
                state.renew(self.loader.capture(false));
            }
            pause = LIVE_INTERVAL.max(began.elapsed() * LIVE_SHARE);
        }
    }
}
