//! A pool of worker threads between two channels: what comes in is worked on by whichever worker is free, and goes out.
//!
//! A work-stealing pool such as rayon's is built to split one computation; here documents arrive one by one from an asynchronous
//! stage, so a shared channel already balances the load. And in a pool of our own every hand-over can be seen: a new thread belongs
//! to no scope, so each worker attaches the [`Carrier`] it was given, and from then on its scopes are children of the carrier's.

use std::io;
use std::num::NonZeroU16;
use std::thread;

use async_channel::{Receiver, Sender};
use kastor::Carrier;

/// What every worker is given.
pub(crate) struct Pool<In, Out> {
    /// How many workers; fewer if the system refuses to start more, but at least one.
    pub(crate) workers: NonZeroU16,
    /// The scope under which the work is done.
    pub(crate) parent: Carrier,
    /// Work to do; the workers end when this channel is closed and empty.
    pub(crate) inputs: Receiver<In>,
    /// Work that was done; closes when the last worker has ended.
    pub(crate) outputs: Sender<Out>,
}

impl<In: Send, Out: Send> Pool<In, Out> {
    /// Starts the workers, runs `feed` on this thread, which fills the one channel and empties the other, and waits for all.
    pub(crate) fn run<Fed>(self, work: impl Fn(In) -> Out + Sync, feed: impl FnOnce() -> Fed) -> io::Result<Fed> {
        let Pool { workers, parent, inputs, outputs } = self;
        let work = &work;
        thread::scope(|threads| {
            for number in 0..workers.get() {
                let (inputs, outputs) = (inputs.clone(), outputs.clone());
                let worker = move || {
                    let _attached = parent.attach();
                    while let Ok(input) = inputs.recv_blocking() {
                        if outputs.send_blocking(work(input)).is_err() {
                            break; // nobody waits for results any more
                        }
                    }
                };
                let name = format!("worker-{number}");
                match thread::Builder::new().name(name).spawn_scoped(threads, worker) {
                    Ok(_) => {}
                    Err(error) if number == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            // From here on the channels belong to the workers and the feeder alone, and close when these end.
            drop((inputs, outputs));
            Ok(feed())
        })
    }
}
