//! The user's command: reads the command line, runs one subcommand, turns its result into an exit code.
//!
//! 0: done; 1: it did not work, or what was checked is not right; 2: the command line is wrong.

/// The command line.
mod args;

/// One request to an admin port.
mod ask;

/// Durations as people write them.
mod duration;

/// Tables, JSON, and lines on standard output.
mod render;

/// `tulle validate`.
mod validate;

/// `tulle token`.
mod token;

/// `tulle proxy-config`.
mod proxy_config;

/// The admin port of a pod.
mod port_forward;

/// The API server of a cluster.
mod cluster;

/// `tulle install`, `tulle upgrade` and `tulle uninstall`.
mod install;

/// `tulle check`.
mod check;

/// `tulle inject`.
mod inject;

/// `tulle proxy` and `tulle control-plane`.
mod component;

/// `tulle demo`.
mod demo;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Command};

/// The one the components use when they are programs of their own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome = match Args::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Token(args) => token::run(&args),
        Command::ProxyConfig(args) => proxy_config::run(&args),
        Command::Install(args) => install::run(&args.overrides),
        Command::Check(args) => check::run(&args),
        Command::Upgrade(args) => install::upgrade(&args.overrides),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Inject(args) => inject::run(*args),
        Command::Proxy(args) => Ok(component::proxy(args.flags)),
        Command::ControlPlane(args) => Ok(component::control_plane(args.flags)),
        Command::DemoPart(args) => demo::run_part(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            render::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output went away, as `head` does: nothing is wrong then.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
