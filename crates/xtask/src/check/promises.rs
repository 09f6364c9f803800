//! `docs/promises.md` names the tests that show what is promised: each of them has to be there.

use std::{fs, path::Path};

/// Looks for every `file::test` and every `file` of the tables.
pub(super) fn tests_are_there(root: &Path) -> Result<String, Vec<String>> {
    let document = root.join("docs/promises.md");
    let text = fs::read_to_string(&document).map_err(|error| vec![format!("{}: {error}", document.display())])?;
    let (mut found, mut faults) = (0_usize, Vec::new());
    for row in text.lines().filter(|line| line.starts_with('|')) {
        let shown = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or("");
        for name in
            shown.split('`').skip(1).step_by(2).filter(|name| !name.contains([' ', '#']) && !name.ends_with('/'))
        {
            let (file, test) = name.split_once("::").unwrap_or((name, ""));
            match source(root, file) {
                Some(text) if test.is_empty() || text.contains(&format!("fn {test}(")) => found += 1,
                Some(_) => faults.push(format!("docs/promises.md: {file} has no test {test}")),
                None => faults.push(format!("docs/promises.md: there is no file {file}")),
            }
        }
    }
    if faults.is_empty() {
        Ok(format!("docs/promises.md names {found} tests and files, all there"))
    } else {
        Err(faults)
    }
}

/// The text of a test file, or of all files of its folder.
fn source(root: &Path, file: &str) -> Option<String> {
    let (package, file) = match file.split_once('/') {
        Some(("export", file)) => ("kastor-export", file),
        Some(("cli", file)) => ("kastor-cli", file),
        _ => ("kastor", file),
    };
    let package = root.join("crates").join(package);
    let one = |folder: &str| fs::read_to_string(package.join(folder).join(file).with_extension("rs")).ok();
    one("tests").or_else(|| one("src")).or_else(|| {
        let all = fs::read_dir(package.join("tests").join(file)).ok()?.flatten();
        Some(all.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect())
    })
}
