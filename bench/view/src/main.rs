//! `kastor-bench-view`: what looking at captures costs and finds, against the project's own limits.
//!
//! The captures are made here, by programs' own means. The command runs in child processes, whose processor time and memory the
//! system counts. A figure is the best of all rounds, since everything else on a machine only adds.

mod child;
mod gate;
mod generate;
mod viewer;

use std::process::ExitCode;

const USAGE: &str = "\
kastor-bench-view [OPTIONS]
  --quick        a tenth of the scopes: figures to look at, not to rely on
  --folder PATH  where to write captures [default: the system's folder for passing files]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, arguments @ ..] = &words[..] {
        if flag == child::FLAG {
            return kastor_cli::run(std::iter::once("kastor".into()).chain(arguments.iter().map(Into::into)));
        }
    }
    let (mut is_quick, mut folder, mut words) = (false, std::env::temp_dir(), words.into_iter());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => is_quick = true,
            "--folder" => match words.next() {
                Some(path) => folder = path.into(),
                None => return wrong("--folder needs a path"),
            },
            other => return wrong(&format!("no argument {other}")),
        }
    }
    let folder = folder.join(format!("kastor-bench-view-{}", std::process::id()));
    let holds = gate::run(is_quick, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wrong(problem: &str) -> ExitCode {
    eprintln!("{problem}\n\n{USAGE}");
    ExitCode::from(2)
}
