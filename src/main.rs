//! The `logship` command: arguments in, exit code out, everything else in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    logship::cli::run(std::env::args_os()).into()
}
