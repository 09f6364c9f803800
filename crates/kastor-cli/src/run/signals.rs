//! Signals that are meant for the program.
//!
//! What a terminal sends (Ctrl-C) goes to every process in the foreground, so the program has it already: only what another
//! process sent to this one alone is sent on. This process itself goes on until the program has ended.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Handle, SignalsInfo};
use signal_hook::low_level::siginfo::Cause;

/// Who gets the signals.
#[derive(Default)]
struct Receiver {
    program: Option<Pid>,
    /// Those that came before there was a program.
    early: Vec<Signal>,
}

pub(super) struct Forwarding {
    receiver: Arc<Mutex<Receiver>>,
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Forwarding {
    /// From now on signals do not end this process.
    pub(super) fn install() -> io::Result<Forwarding> {
        let mut signals = SignalsInfo::<WithOrigin>::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2])?;
        let (handle, receiver) = (signals.handle(), Arc::<Mutex<Receiver>>::default());
        let shared = Arc::clone(&receiver);
        let thread = std::thread::Builder::new().name("kastor-signals".to_owned()).spawn(move || {
            for origin in &mut signals {
                let is_of_terminal = matches!(origin.cause, Cause::Kernel);
                if let Some(signal) = Signal::from_named_raw(origin.signal).filter(|_| !is_of_terminal) {
                    let mut receiver = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    match receiver.program {
                        Some(program) => _ = kill_process(program, signal),
                        None => receiver.early.push(signal),
                    }
                }
            }
        })?;
        Ok(Forwarding { receiver, handle, thread })
    }

    /// Waits for the program. Its number is not used any more once another process may have it.
    pub(super) fn until_ended(self, mut child: Child) -> io::Result<ExitStatus> {
        if let Some(program) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
            for signal in receiver.early.drain(..) {
                _ = kill_process(program, signal);
            }
            receiver.program = Some(program);
            drop(receiver);
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(program), ended) {}
        }
        *self.receiver.lock().unwrap_or_else(PoisonError::into_inner) = Receiver::default();
        let status = child.wait();
        self.handle.close();
        // It ends when its source is closed.
        _ = self.thread.join();
        status
    }
}
