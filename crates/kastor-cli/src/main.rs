//! The command `kastor`. Everything it does is in the library `kastor_cli`, so that tests and other programs can reach it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    kastor_cli::run(std::env::args_os())
}
