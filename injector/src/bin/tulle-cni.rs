//! The CNI plugin's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tulle_injector::cni::cli::main()
}
