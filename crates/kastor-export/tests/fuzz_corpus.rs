//! The kept inputs of the fuzz targets, what once broke something among them, without a fuzzer.
#![cfg(feature = "otlp")]

use std::{fs, path::Path};

use kastor_export::fuzz;

/// Calls `f` with each input of a target. Returns how many there are.
#[track_caller]
fn each(target: &str, f: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        println!("{}", file.display());
        f(&fs::read(file).unwrap());
    }
}

fn each_text(target: &str, f: impl Fn(&str)) {
    each(target, |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            f(text);
        }
    });
}

/// As it is, and with all checksums right.
fn both(f: impl Fn(&[u8])) -> impl Fn(&[u8]) {
    move |bytes| {
        f(bytes);
        f(&fuzz::with_checksums(bytes));
    }
}

#[test]
fn every_kept_input_holds_what_its_target_asks_of_it() {
    each("capture", both(|bytes| _ = fuzz::capture(bytes)));
    each("frames", both(fuzz::frames));
    each("http", fuzz::http);
    each("otlp", fuzz::otlp);
    each("records", fuzz::records);
    each("repair", both(fuzz::repair));
    each("replay", both(fuzz::replay));
    each("spool", both(fuzz::spool));
    each("prometheus", |bytes| {
        fuzz::prometheus_request(bytes);
        if let Ok(text) = std::str::from_utf8(bytes) {
            fuzz::prometheus_accept(text);
        }
    });
    each_text("environment", fuzz::environment);
    each_text("redaction", fuzz::redaction);
    each_text("trace_context", fuzz::trace_context);
}
