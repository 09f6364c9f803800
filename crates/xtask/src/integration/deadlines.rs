//! `flush`, `shutdown` and the end of the process keep their time against every fault of the other side, of the disk and
//! of the name server, from wherever they are called.
//!
//! The program `deadline_workload` plays the faults and looks at the clock; the end of the process is looked at from here.
//! A silent name server and a full disk are set up in namespaces of their own (`unshare`), with nothing changed outside.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{output, place::Place};
use crate::steps::{NotPassed, Steps};

const FAULTS: [&str; 12] = [
    "refused",
    "never-accepted",
    "blackhole",
    "reset",
    "silent",
    "one-byte-a-second",
    "dripping-answer",
    "tls-stall",
    "unavailable",
    "retry-after",
    "stuck-reporter",
    "full-disk",
];
/// What the program asks for at its end, and what it may take besides.
const WITHIN: Duration = Duration::from_millis(100);
const GRACE: Duration = Duration::from_millis(50);
/// As in the program.
const ATTEMPTS: usize = 5;
const SLACK: Duration = Duration::from_secs(2);

/// All checks of this subject.
pub(crate) fn checks(steps: &mut Steps, place: &Place) {
    for fault in FAULTS.into_iter().chain(["dns-hang"]) {
        steps.attempt(&format!("deadlines, {fault}"), |_| {
            let program = place.example("deadline_workload", "")?;
            let folder = place.work(&format!("deadlines-{fault}"))?;
            let start = |arguments: &[&str]| command(&program, fault, &folder, arguments);
            let mut said = output(start(&["inside"])?)?.trim_end().to_owned();
            for (place, flushes) in [("exit", 1), ("atexit-before", 2), ("atexit-after", 2)] {
                said += &format!(", {place} {} ms", at_exit(|| start(&[place]), flushes)?.as_millis());
            }
            Ok(said)
        });
    }
}

/// The program with a fault; where the machine has to play a part, in a namespace in which it does.
fn command(program: &Path, fault: &str, folder: &Path, arguments: &[&str]) -> Result<Command, NotPassed> {
    let script = match fault {
        "full-disk" => {
            "mount -t tmpfs -o size=64k kastor-test \"$KASTOR_FULL_FOLDER\" || exit 77\n\
             head -c 100000 /dev/zero > \"$KASTOR_FULL_FOLDER/ballast\" 2>/dev/null\n\
             exec \"$@\""
        }
        // Loopback is up, and there a name server takes questions and never answers.
        "dns-hang" => {
            "ip link set lo up || exit 77\n\
             mount --bind \"$KASTOR_RESOLVER\" /etc/resolv.conf || exit 77\n\
             python3 -c 'import socket, time\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"127.0.0.1\", 53))\n\
             print(\"bound\", flush=True); time.sleep(60)' > \"$KASTOR_FULL_FOLDER/bound\" &\n\
             until grep -q bound \"$KASTOR_FULL_FOLDER/bound\"; do kill -0 $! || exit 77; sleep 0.01; done\n\
             case \"$*\" in *inside*) timeout 0.5 getent ahosts collector.example.org; \
             [ $? = 124 ] || { echo a name is found, or is refused at once; exit 1; };; esac\n\
             \"$@\"; status=$?; kill $!; exit $status"
        }
        _ => {
            let mut run = Command::new(program);
            run.arg(fault).args(arguments);
            return Ok(run);
        }
    };
    let resolver = folder.join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:30\n")
        .map_err(|error| NotPassed::failed(format!("{}: {error}", resolver.display())))?;
    let mount_point: PathBuf = folder.join("full");
    fs::create_dir_all(&mount_point).map_err(|error| NotPassed::failed(error.to_string()))?;
    let namespaces = if fault == "dns-hang" { "-rmn" } else { "-rm" };
    let mut run = Command::new("unshare");
    run.args([namespaces, "sh", "-c", script, "sh"]).arg(program).arg(fault).args(arguments);
    run.env("KASTOR_FULL_FOLDER", mount_point).env("KASTOR_RESOLVER", resolver);
    can_unshare(namespaces)?;
    Ok(run)
}

/// Some machines keep their namespaces to themselves.
pub(crate) fn can_unshare(namespaces: &str) -> Result<(), NotPassed> {
    let tried = Command::new("unshare").args([namespaces, "true"]).stderr(Stdio::null()).status();
    match tried {
        Ok(status) if status.success() => Ok(()),
        _ => Err(NotPassed::skipped(format!("unshare {namespaces} is not allowed here"))),
    }
}

/// The time from the program's last line of its own to its end: so many flushes of its own and the library's.
fn at_exit(start: impl Fn() -> Result<Command, NotPassed>, flushes: u32) -> Result<Duration, NotPassed> {
    let allowed = (WITHIN + GRACE) * flushes;
    let mut best = Duration::MAX;
    for _ in 0..ATTEMPTS {
        let mut run = start()?;
        let line = crate::steps::shown(&run);
        let failed = |error: &dyn std::fmt::Display| NotPassed::failed(format!("{line}: {error}"));
        let mut child = run.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| failed(&error))?;
        let Some(out) = child.stdout.take() else { return Err(failed(&"no pipe")) };
        let mut ending = None;
        for said in BufReader::new(out).lines() {
            let said = said.map_err(|error| failed(&error))?;
            if said == "ending" {
                ending = Some(Instant::now());
            } else if let Some(took) = said.strip_prefix("flushed ").and_then(|took| took.parse::<u64>().ok())
                && u128::from(took) > (WITHIN + GRACE + SLACK).as_millis()
            {
                return Err(failed(&format!("the flush inside atexit took {took} ms")));
            }
        }
        // Its output ends with it.
        let took = ending.map(|ending| ending.elapsed());
        let status = child.wait().map_err(|error| failed(&error))?;
        let (true, Some(took)) = (status.success(), took) else { return Err(failed(&status)) };
        if took > allowed + SLACK {
            return Err(failed(&format!("its end took {took:?}, {allowed:?} are allowed")));
        }
        best = best.min(took);
        if best <= allowed {
            return Ok(best);
        }
    }
    Err(NotPassed::failed(format!("its end took {best:?} at best, {allowed:?} are allowed")))
}
