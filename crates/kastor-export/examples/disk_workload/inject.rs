//! A writer whose system calls fail one after another, as `strace` lets them.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{EVENTS, PATIENCE, ROUNDS, found};

/// What a program does to files. Not among them: reading from a descriptor that may be a pipe, and memory.
const ON_FILES: &[&str] = &[
    "open",
    "openat",
    "creat",
    "mkdir",
    "mkdirat",
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev2",
    "pread64",
    "read",
    "preadv",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "link",
    "linkat",
    "flock",
    "fcntl",
    "fstat",
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "getdents64",
    "lseek",
    "statfs",
    "fstatfs",
];
/// How many processes are let fail at once: they sleep most of the time.
const AT_ONCE: usize = 4;

/// One failure: the call, the error, and which of its times fail.
#[derive(Clone, Debug)]
struct Failure {
    call: String,
    error: &'static str,
    /// As strace has it: `3` for the third time, `3+` from then on.
    when: String,
}

/// See the module.
pub(crate) fn inject(strace: &str, writer: &str, folder: &Path) {
    let calls = calls_of(strace, writer, &folder.join("clean"));
    assert!(calls.len() >= 2, "{writer} makes no calls on files: {calls:?}");
    let mut failures = Vec::new();
    for (call, times) in &calls {
        let mut at = vec![1, 2, *times / 2, *times];
        at.retain(|at| (1..=*times).contains(at));
        at.sort_unstable();
        at.dedup();
        let fail = |when: String, error| Failure { call: call.clone(), error, when };
        failures.extend(at.iter().map(|at| fail(at.to_string(), "EIO")));
        failures
            .extend([at.first(), at.get(at.len() / 2)].into_iter().flatten().map(|at| fail(format!("{at}+"), "EIO")));
        if call.contains("write") {
            failures.push(fail("1+".into(), "ENOSPC"));
            failures.extend(at.last().map(|at| fail(at.to_string(), "EINTR")));
        }
    }
    std::thread::scope(|threads| {
        for worker in 0..AT_ONCE {
            let failures = &failures;
            threads.spawn(move || {
                for (number, failure) in failures.iter().enumerate().skip(worker).step_by(AT_ONCE) {
                    let folder = folder.join(number.to_string());
                    let ending = run(strace, writer, &folder, Some(failure));
                    judge(writer, &folder, failure, &ending);
                    let _ = fs::remove_dir_all(&folder);
                }
            });
        }
    });
    let calls: Vec<String> = calls.iter().map(|(call, times)| format!("{call} ×{times}")).collect();
    println!("{} failures of {}: accounts even, nothing durable lost", failures.len(), calls.join(", "));
}

/// How a process that wrote has ended.
#[derive(Debug, Default)]
struct Ending {
    code: Option<i32>,
    is_killed: bool,
    /// It could not begin, and said so.
    is_refused: bool,
    /// Events until the newest moment at which everything was durable but what was dropped: both numbers.
    kept: (u64, u64),
    /// Delivered, dropped, and waiting.
    accounts: Option<[u64; 3]>,
    uneven: Option<String>,
}

fn judge(writer: &str, folder: &Path, failure: &Failure, ending: &Ending) {
    let what = || format!("{writer}, {failure:?}: {ending:?}");
    if ending.is_refused {
        return assert_eq!(ending.code, Some(0), "{}", what());
    }
    let is_in_order = if writer == "spool" { ending.is_killed } else { ending.code == Some(0) };
    assert!(is_in_order, "no orderly end: {}", what());
    assert_eq!(ending.uneven, None, "{}", what());
    let Some([delivered, dropped, waiting]) = ending.accounts else { panic!("no accounts: {}", what()) };
    assert_eq!(delivered + dropped + waiting, ROUNDS * EVENTS, "{}", what());
    let found = found(writer, folder);
    let is_read_here = writer != "perfetto";
    if is_read_here && writer != "spool" {
        assert!(found.len() as u64 >= delivered, "{} of what was delivered can be read: {}", found.len(), what());
    }
    let (events, dropped_by_then) = ending.kept;
    let durable = found.iter().filter(|number| **number < events).count() as u64;
    let owed = events.saturating_sub(dropped_by_then);
    assert!(!is_read_here || durable >= owed, "{durable} of {owed} that were durable are there: {}", what());
}

/// The calls that a writer makes on files, and how often.
fn calls_of(strace: &str, writer: &str, folder: &Path) -> BTreeMap<String, u64> {
    let ending = run(strace, writer, folder, None);
    assert!(ending.accounts.is_some_and(|[_, dropped, _]| dropped == 0), "{writer} without a failure: {ending:?}");
    let log = fs::read_to_string(folder.with_extension("strace")).expect("what strace wrote");
    let mut calls = BTreeMap::new();
    for line in log.lines() {
        let call = line.split_once(' ').map_or(line, |(_, rest)| rest).trim_start();
        if let Some((name, _)) = call.split_once('(')
            && ON_FILES.contains(&name)
        {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

/// Lets a process write, with a failure from the moment on when it begins.
fn run(strace: &str, writer: &str, folder: &Path, failure: Option<&Failure>) -> Ending {
    let log = folder.with_extension("strace");
    fs::create_dir_all(folder).expect("a folder");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let port = socket.local_addr().expect("an address").port().to_string();
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.arg("write").arg(writer).arg(folder).arg(port);
    let mut child = Ended(program.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a process"));
    let (_, writer_address) = hear(&socket, &mut child).expect("a process that is ready");

    let mut tracer = Command::new(strace);
    tracer.args(["-f", "-p", &child.0.id().to_string(), "-o"]).arg(&log);
    if let Some(Failure { call, error, when }) = failure {
        tracer.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:error={error}:when={when}")]);
    }
    let mut tracer = Ended(tracer.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("strace"));
    let mut said = BufReader::new(tracer.0.stderr.take().expect("a pipe")).lines();
    let first = said.next().and_then(Result::ok).unwrap_or_default();
    assert!(first.contains("attached"), "strace cannot attach: {first}");
    socket.send_to(b"go", writer_address).expect("a socket");

    let mut ending = Ending::default();
    while let Some((text, _)) = hear(&socket, &mut child) {
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|error| panic!("{text}: {error}"));
        match words[0] {
            "refused" => ending.is_refused = true,
            "kept" => ending.kept = (number(1), number(2)),
            "accounts" => ending.accounts = Some([number(1), number(2), number(3)]),
            _ => ending.uneven = Some(text),
        }
    }
    let status = child.0.wait().expect("a process of ours");
    ending.code = status.code();
    ending.is_killed = status.code().is_none();
    // It ends with what it traced.
    let _ = tracer.0.wait();
    ending
}

/// The next datagram; none once the process has ended and nothing is left of it.
fn hear(socket: &UdpSocket, child: &mut Ended) -> Option<(String, SocketAddr)> {
    let until = Instant::now() + PATIENCE * 2;
    let mut bytes = [0; 1 << 10];
    loop {
        let has_ended = child.0.try_wait().expect("a process of ours").is_some();
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) => return Some((String::from_utf8_lossy(&bytes[..length]).into_owned(), from)),
            Err(_) if has_ended => return None,
            Err(_) => assert!(Instant::now() < until, "a process that writes hangs"),
        }
    }
}

/// A process of ours that does not outlive its purpose.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
