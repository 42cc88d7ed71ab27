//! `tulle install` and what belongs to it: Tulle on a Kubernetes cluster.

/// Helm's templates, as far as the chart needs them.
mod template;

/// Values against the chart's schema.
mod schema;

/// Helm's syntax of single values.
mod strvals;

/// Values the user wants otherwise.
mod values;

/// The chart, rendered.
mod chart;

/// `tulle upgrade`.
mod upgrade;

/// `tulle uninstall`.
mod uninstall;

use std::process::ExitCode;

pub(crate) use chart::{Object, objects, version};
pub(crate) use uninstall::run as uninstall;
pub(crate) use upgrade::run as upgrade;
pub(crate) use values::Overrides;

use crate::render;

/// `tulle install`: prints the objects, each after what it needs.
///
/// # Errors
/// When a value is wrong.
pub(crate) fn run(overrides: &Overrides) -> anyhow::Result<ExitCode> {
    print(&objects(overrides)?)?;
    Ok(ExitCode::SUCCESS)
}

fn print(objects: &[Object]) -> std::io::Result<()> {
    render::lines(objects.iter().map(|object| format!("---\n{}", object.text)))
}
