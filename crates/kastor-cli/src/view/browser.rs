//! Opening the page in the user's browser.
//!
//! The address has the token, and arguments of programs are seen by every user of a machine. So the browser is given the
//! name of a file that only this user can read, which leads on to the address.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file that leads to the page; it goes when this goes.
pub(super) struct Opened(PathBuf);

impl Drop for Opened {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens an address, where there is a desktop to do it on.
pub(super) fn open(address: &str) -> io::Result<Option<Opened>> {
    let Some(mut command) = opener() else { return Ok(None) };
    let mut number = [0; 8];
    getrandom::fill(&mut number).map_err(io::Error::other)?;
    let number = u64::from_le_bytes(number);
    let opened = Opened(std::env::temp_dir().join(format!("kastor-view-{number:016x}.html")));
    write(&opened.0, address)?;
    command.arg(&opened.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    // Nobody waits for the browser, but somebody has to hear that it ended.
    std::thread::spawn(move || child.wait());
    Ok(Some(opened))
}

fn write(path: &Path, address: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta http-equiv=\"refresh\" content=\"0; url={address}\">\n<a href=\"{address}\">kastor view</a>\n"
    );
    options.open(path)?.write_all(page.as_bytes())
}

/// The program that opens files as the user has chosen; none without a desktop.
fn opener() -> Option<Command> {
    if cfg!(target_os = "macos") {
        return Some(Command::new("open"));
    }
    if cfg!(windows) {
        return Some(Command::new("explorer"));
    }
    let has_desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    has_desktop.then(|| Command::new("xdg-open"))
}
