//! The command in a process of its own, and what the system counted for it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

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
    Running::start(arguments)?.finish(arguments)
}

/// A command that goes on until it is told to end.
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    /// Starts the command with these arguments.
    pub fn start(arguments: &[&str]) -> Result<Running, String> {
        let program = std::env::current_exe().map_err(|error| format!("no program: {error}"))?;
        let mut child = Command::new(program)
            .arg(FLAG)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no child: {error}"))?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no output of the child")?);
        Ok(Running { child, stdout })
    }

    /// The next line that it writes.
    pub fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(|error| format!("no line: {error}"))?;
        Ok(line.trim_end().to_owned())
    }

    /// Asks it to end, and waits for that.
    pub fn end(self) -> Result<Ended, String> {
        // SAFETY: the child was not waited for, so its number is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        self.finish(&["view"])
    }

    /// Reads what it writes to the end, and waits for it.
    fn finish(mut self, arguments: &[&str]) -> Result<Ended, String> {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).map_err(|error| format!("no text: {error}"))?;
        let (status, usage) = wait(&self.child)?;
        ended(text, status, &usage, arguments)
    }
}

fn ended(text: String, status: libc::c_int, usage: &libc::rusage, arguments: &[&str]) -> Result<Ended, String> {
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
