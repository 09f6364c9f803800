//! The basics: scopes inside scopes, attributes, failures, the three kinds of metric, and the report at the end.
//!
//! Install one context for the whole program; from then on a macro anywhere in it reports there. Without the `install` line the
//! same program runs, measures nothing and costs next to nothing.

use kastor::{Telemetry, count, gauge, histogram, scope};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let telemetry = Telemetry::builder().build();
    telemetry.clone().install()?;

    let files = [("a.txt", "3 4 5"), ("b.txt", "6 x 8"), ("c.txt", "9")];
    {
        let _scope = scope!("sum_files");
        for (number, (name, text)) in files.iter().enumerate() {
            gauge!("files_left", (files.len() - number) as f64);
            if let Some(sum) = sum_file(name, text) {
                println!("{name}: {sum}");
            }
        }
    }

    // Calls, errors and times are exact and complete at any time, also while scopes are open.
    let report = telemetry.report();
    println!("{report}");

    let calls_and_errors = |path| report.scope(path).map(|scope| (scope.calls(), scope.errors()));
    assert_eq!(calls_and_errors("sum_files"), Some((1, 0)));
    assert_eq!(calls_and_errors("sum_files.file"), Some((3, 1)));
    assert_eq!(calls_and_errors("sum_files.file.parse"), Some((3, 1)));
    let numbers: f64 = report.series_of("sum_files.file.numbers").map(|series| series.sum().as_f64()).sum();
    assert_eq!(numbers, 4.0);
    Ok(())
}

fn sum_file(name: &str, text: &str) -> Option<u64> {
    // What stands behind the name describes this one call; it is evaluated only if somebody listens.
    let scope = scope!("file", name = name, bytes = text.len());
    histogram!("file_bytes", text.len() as f64);
    let numbers = match parse(text) {
        Ok(numbers) => numbers,
        Err(error) => {
            scope.fail_with(&error);
            return None;
        }
    };
    count!("numbers", numbers.len() as u64);
    scope.set("numbers", numbers.len());
    Some(numbers.iter().sum())
}

fn parse(text: &str) -> Result<Vec<u64>, std::num::ParseIntError> {
    let scope = scope!("parse");
    let numbers: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
    if numbers.is_err() {
        scope.fail("not a number");
    }
    numbers
}
