//! The injector's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tulle_injector::cli::main(std::env::args_os())
}
