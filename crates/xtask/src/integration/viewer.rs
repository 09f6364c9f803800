//! The page of `kastor view` in a browser: `crates/kastor-cli/viewer/test/browser.mjs` makes captures with the real
//! program, serves them, and does what a reader would do, in Debian's Chromium without a window.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use super::place::Place;
use crate::{
    steps::{NotPassed, Steps, shown},
    viewer,
};

const BROWSERS: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// All checks of this subject.
pub(crate) fn checks(steps: &mut Steps, place: &Place) {
    steps.attempt("viewer in a browser", |root| {
        let folder = viewer::ready(root)?;
        let browser = browser()?;
        let program = place.kastor()?;
        let work = place.work("viewer")?;
        let mut test = Command::new("node");
        test.arg("test/browser.mjs").arg(program).arg(browser).arg(work).current_dir(folder);
        let line = shown(&test);
        let output = test.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| NotPassed::failed(format!("{line}: {error}")))?;
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(NotPassed::failed(format!("{line}: {}\n{said}", output.status)))
        }
    });
}

/// `KASTOR_CHROMIUM`, or one of the usual places.
fn browser() -> Result<PathBuf, NotPassed> {
    let named = std::env::var_os("KASTOR_CHROMIUM").map(PathBuf::from);
    let found = named.into_iter().chain(BROWSERS.map(PathBuf::from)).find(|path| path.exists());
    found.ok_or_else(|| {
        NotPassed::skipped(
            "Chromium is not installed (Debian: apt-get install chromium), nor does KASTOR_CHROMIUM name it",
        )
    })
}
