//! The control plane's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tulle_control_plane::cli::main(std::env::args_os())
}
