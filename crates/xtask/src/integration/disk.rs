//! Everything that writes files, on a disk that is full and on one whose calls fail.
//!
//! The program `disk_workload` writes, lets `strace` make each of its system calls on files fail once and for ever, and
//! compares what can be read afterwards with what it counted. A full disk is a small file system in a namespace of its own.

use std::process::Command;

use super::{output, place::Place};
use crate::steps::{NotPassed, Steps};

/// The writers, and the bytes that their small disk has.
const WRITERS: [(&str, &str); 5] =
    [("capture", "512k"), ("spool", "512k"), ("json-lines", "512k"), ("chrome", "512k"), ("perfetto", "256k")];

/// All checks of this subject.
pub(crate) fn checks(steps: &mut Steps, place: &Place) {
    for (writer, bytes) in WRITERS {
        steps.attempt(&format!("disk, {writer}, full"), |_| full(place, writer, bytes));
        steps.attempt(&format!("disk, {writer}, failing calls"), |_| failing(place, writer));
    }
}

fn full(place: &Place, writer: &str, bytes: &str) -> Result<String, NotPassed> {
    super::deadlines::can_unshare("-rm")?;
    let program = place.example("disk_workload", "")?;
    let folder = place.work(&format!("disk-full-{writer}"))?;
    // A fifth of it is ballast, which is taken away when the rest is full.
    let script = format!(
        "mount -t tmpfs -o size={bytes} kastor-test \"$1\" || exit 77\n\
         head -c 100000 /dev/zero > \"$1/ballast\"\n\
         exec \"$0\" full {writer} \"$1\""
    );
    let mut run = Command::new("unshare");
    run.args(["-rm", "sh", "-c", &script]).arg(program).arg(folder);
    Ok(output(run)?.trim_end().to_owned())
}

fn failing(place: &Place, writer: &str) -> Result<String, NotPassed> {
    if !cfg!(target_os = "linux") {
        return Err(NotPassed::skipped("strace is Linux's"));
    }
    let program = place.example("disk_workload", "")?;
    let strace = place.debian("bookworm", "strace")?.join("usr/bin/strace");
    let mut allowed = Command::new(&strace);
    allowed.args(["-o", "/dev/null", "true"]);
    if !allowed.status().is_ok_and(|status| status.success()) {
        return Err(NotPassed::skipped("no process may trace another one here"));
    }
    let mut run = Command::new(program);
    run.arg("inject").arg(strace).arg(writer).arg(place.work(&format!("disk-failing-{writer}"))?);
    Ok(output(run)?.trim_end().to_owned())
}
