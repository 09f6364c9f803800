//! The first stage: which files there are.

use std::path::{Path, PathBuf};

use kastor::{Telemetry, count, scope};
use walkdir::{DirEntry, WalkDir};

/// Files above this size are counted, not read.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;

/// Folders that are not entered: version control and build results.
const SKIPPED_FOLDERS: [&str; 2] = [".git", "target"];

/// One file to read.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    /// The path below the folder that was asked for, for people.
    pub(crate) name: String,
}

/// What was found.
pub(crate) struct Found {
    pub(crate) files: Vec<File>,
    /// Files above [`MAX_FILE_BYTES`].
    pub(crate) too_large: u64,
    /// Entries that could not be looked at, such as folders without permission.
    pub(crate) inaccessible: u64,
}

/// All regular files under `root`, or `root` itself if it is one, in the order of their names. Symbolic links are not followed.
pub(crate) fn discover(telemetry: &Telemetry, root: &Path) -> Found {
    let scope = scope!(telemetry, "discover");
    let mut found = Found { files: Vec::new(), too_large: 0, inaccessible: 0 };
    let entries = WalkDir::new(root)
        .follow_root_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| !is_skipped(entry));
    for entry in entries {
        let entry = match entry {
            Ok(entry) if entry.file_type().is_file() => entry,
            Ok(_) => continue,
            Err(error) => {
                scope.fail_with(&error);
                found.inaccessible += 1;
                continue;
            }
        };
        match entry.metadata() {
            Ok(metadata) if metadata.len() > MAX_FILE_BYTES => found.too_large += 1,
            Ok(_) => found.files.push(file(root, entry.into_path())),
            Err(error) => {
                scope.fail_with(&error);
                found.inaccessible += 1;
            }
        }
    }
    scope.set("files", found.files.len() as u64);
    count!(telemetry, "files", found.files.len() as u64);
    count!(telemetry, "files_too_large", found.too_large);
    found
}

fn file(root: &Path, path: PathBuf) -> File {
    let below = path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
    let name = below.unwrap_or(&path).to_string_lossy().into_owned();
    File { path, name }
}

fn is_skipped(entry: &DirEntry) -> bool {
    let is_asked_for = entry.depth() == 0;
    !is_asked_for && entry.file_type().is_dir() && SKIPPED_FOLDERS.iter().any(|skipped| entry.file_name() == *skipped)
}
