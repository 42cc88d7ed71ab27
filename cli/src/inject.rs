//! `tulle inject`: manifests in, the same with proxies out, without a cluster.

use std::fs;
use std::io::{Read as _, Write as _, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tulle_injector::manifests::{self, Around, What};

use crate::args::InjectArgs;
use crate::render;

/// Largest input: what a person pipes, and not a device that never ends.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Runs the subcommand. Nothing is printed on standard output when anything is wrong.
///
/// # Errors
/// When an input cannot be read or a flag is wrong.
pub(crate) fn run(args: InjectArgs) -> anyhow::Result<ExitCode> {
    let settings = args.injection.read()?;
    let around = Around { namespace: &args.namespace, native: args.native };
    let mut out = String::new();
    let mut wrong = false;
    for file in &args.files {
        let text = read(file)?;
        let (injected, outcomes) =
            manifests::inject(&text, around, &settings).with_context(|| file.display().to_string())?;
        for outcome in outcomes {
            let object = &outcome.object;
            match outcome.what {
                What::Injected(warnings) => {
                    render::tell(&format!("{object}: injected"));
                    warnings.iter().for_each(|warning| render::tell(&format!("{object}: warning: {warning}")));
                }
                What::Skipped(reason) => render::tell(&format!("{object}: left alone: {reason}")),
                What::Wrong(reason) => {
                    render::tell(&format!("{object}: error: {reason}"));
                    wrong = true;
                }
            }
        }
        if !out.is_empty() && !injected.starts_with("---") {
            out.push_str("---\n");
        }
        out.push_str(&injected);
    }
    if wrong {
        return Ok(ExitCode::FAILURE);
    }
    let mut stdout = stdout().lock();
    stdout.write_all(out.as_bytes())?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        stdin().take(LARGEST).read_to_string(&mut text).context("standard input")?;
    } else {
        let opened = fs::File::open(file).with_context(|| file.display().to_string())?;
        opened.take(LARGEST).read_to_string(&mut text).with_context(|| file.display().to_string())?;
    }
    Ok(text)
}
