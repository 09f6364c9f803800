//! How long the source files are: a file fits into a head, and so does the core.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// No source file is longer, its tests included.
const MAX_FILE_LINES: usize = 600;
/// What the core and its macros should stay under, without the test modules at the ends of the files. They do not yet:
/// the check says so each time, and fails if the distance grows.
const GOAL_CORE_LINES: usize = 5_500;
/// What they must not exceed until the goal is met: it goes down with each simplification.
const MAX_CORE_LINES: usize = 14_440;
/// The packages that are the core.
const CORE: [&str; 2] = ["kastor", "kastor-macros"];

/// Looks at every file under `crates/*/src` and `crates/*/viewer/src`.
pub(super) fn files_stay_readable(root: &Path) -> Result<String, Vec<String>> {
    let crates = root.join("crates");
    let packages = entries(&crates).map_err(|error| vec![format!("{}: {error}", crates.display())])?;
    let (mut faults, mut files, mut core_lines, mut code_lines) = (Vec::new(), 0_usize, 0_usize, 0_usize);
    for package in packages {
        let is_core = CORE.iter().any(|name| package.ends_with(name));
        let mut sources = Vec::new();
        // The viewer's page lies beside its program's sources.
        for folder in ["src", "viewer/src"] {
            if let Err(error) = collect_sources(&package.join(folder), &mut sources) {
                faults.push(format!("{}: {error}", package.display()));
            }
        }
        for source in sources {
            let shown = source.strip_prefix(root).unwrap_or(&source).display().to_string();
            let text = match fs::read_to_string(&source) {
                Ok(text) => text,
                Err(error) => {
                    faults.push(format!("{shown}: {error}"));
                    continue;
                }
            };
            files += 1;
            let lines = text.lines().count();
            if lines > MAX_FILE_LINES {
                faults.push(format!("{shown} has {lines} lines; {MAX_FILE_LINES} is the most"));
            }
            if is_core {
                let counted = lines_before_tests(&text);
                core_lines += counted;
                code_lines += text.lines().take(counted).filter(|line| is_code(line)).count();
            }
        }
    }
    let mut summary =
        format!("{files} files; the core has {core_lines} lines without tests, {code_lines} of them code");
    if core_lines >= GOAL_CORE_LINES {
        summary += &format!("; MISSED: the goal is fewer than {GOAL_CORE_LINES}");
    }
    if core_lines >= MAX_CORE_LINES {
        faults.push(format!("the core has {core_lines} lines without tests; it must not grow beyond {MAX_CORE_LINES}"));
    }
    if faults.is_empty() { Ok(summary) } else { Err(faults) }
}

/// The lines of a file up to the test module that ends it, if one does.
fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.iter().rposition(|line| line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test,"));
    let Some(at) = tests else { return lines.len() };
    let after = lines.get(at + 1..).unwrap_or_default();
    // Further attributes may stand between `cfg` and `mod`.
    let opens_module = after
        .iter()
        .find(|line| !line.starts_with("#["))
        .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'));
    // Only at the end of the file: the first `}` without indent has to be its last line.
    let closes_file = after.iter().position(|line| *line == "}").is_some_and(|end| end + 1 == after.len());
    if opens_module && closes_file { at } else { lines.len() }
}

/// Neither blank nor a comment.
fn is_code(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

fn collect_sources(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for path in entries(folder)? {
        if path.is_dir() {
            collect_sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| ["rs", "ts"].iter().any(|source| extension == *source)) {
            found.push(path);
        }
    }
    Ok(())
}

/// What a folder holds, in order of name; a folder that does not exist holds nothing.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut paths =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::{is_code, lines_before_tests};

    #[test]
    fn blank_lines_and_comments_are_no_code() {
        let text = "//! What.\n\n/// Why.\nfn a() {\n    // How.\n    b(); // so\n}\n";
        assert_eq!(text.lines().filter(|line| is_code(line)).count(), 3);
    }

    #[test]
    fn a_test_module_counts_only_if_it_does_not_end_the_file() {
        assert_eq!(lines_before_tests("fn a() {}\n"), 1);
        assert_eq!(lines_before_tests("fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n"), 2);
        assert_eq!(lines_before_tests("fn a() {}\n#[cfg(all(test, not(loom)))]\n#[allow(x)]\nmod tests {\n}\n"), 1);
        assert_eq!(lines_before_tests("#[cfg(test)]\nmod tests {\n}\nfn a() {\n}\n"), 5);
        assert_eq!(lines_before_tests("#[cfg(test)]\nuse x;\nfn a() {\n}\n"), 4);
    }
}
