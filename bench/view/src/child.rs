//! The command in a process of its own, and what the system counted for it.

use std::io::Read;
use std::process::{Child, Command, Stdio};

/// The first argument of a child: what follows are the command's arguments.
pub const FLAG: &str = "--child";

/// What a command wrote and used.
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub text: String,
    /// Processor time, user's and system's, in nanoseconds.
    pub cpu_ns: f64,
    /// The most memory that was resident at once.
    pub peak_bytes: f64,
}

/// Runs the command with these arguments.
pub fn run(arguments: &[&str]) -> Result<Ended, String> {
    let program = std::env::current_exe().map_err(|error| format!("no program: {error}"))?;
    let mut child = Command::new(program)
        .arg(FLAG)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("no child: {error}"))?;
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text).map_err(|error| format!("no text: {error}"))?;
    }
    let (status, usage) = wait(&child)?;
    if !libc::WIFEXITED(status) {
        return Err(format!("{arguments:?} ended with status {status}"));
    }
    let ns = |time: libc::timeval| time.tv_sec as f64 * 1e9 + time.tv_usec as f64 * 1e3;
    Ok(Ended {
        code: libc::WEXITSTATUS(status),
        text,
        cpu_ns: ns(usage.ru_utime) + ns(usage.ru_stime),
        // Linux counts in KiB.
        peak_bytes: usage.ru_maxrss as f64 * if cfg!(target_os = "linux") { 1024.0 } else { 1.0 },
    })
}

fn wait(child: &Child) -> Result<(i32, libc::rusage), String> {
    let mut status = 0;
    // SAFETY: all zeros are a valid `rusage`: it consists of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to variables of this function, and the child was not waited for by anyone else.
        let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &raw mut status, 0, &raw mut usage) };
        if waited >= 0 {
            return Ok((status, usage));
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(format!("cannot wait: {error}"));
        }
    }
}
