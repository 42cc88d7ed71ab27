//! `tulle validate`: problems of a directory of manifests, as a control plane would see them.

use std::process::ExitCode;

use anyhow::bail;
use tulle_control_plane::model::problem::Severity;
use tulle_control_plane::validate;

use crate::args::ValidateArgs;
use crate::render;

/// Runs the subcommand.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    if !args.dir.is_dir() {
        bail!("{} is not a directory", args.dir.display());
    }
    let problems = validate::validate(&args.dir);
    render::lines(&problems)?;
    // What is only worth knowing is no reason to stop a deployment.
    let wrong = problems.iter().any(|problem| problem.severity > Severity::Info);
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
