//! The init container's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tulle_injector::init::main()
}
