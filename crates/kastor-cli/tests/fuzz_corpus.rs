//! The kept inputs of the command's fuzz targets, without a fuzzer.

use std::{fs, path::Path};

use kastor_cli::fuzz;

fn each(target: &str, f: impl Fn(&str)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        println!("{}", file.display());
        f(&String::from_utf8_lossy(&fs::read(file).unwrap()));
    }
}

#[test]
fn every_kept_input_holds_what_its_target_asks_of_it() {
    each("arguments", fuzz::arguments);
    each("patterns", fuzz::patterns);
}
