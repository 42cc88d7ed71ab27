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
        append(&mut out, &injected);
    }
    if wrong {
        return Ok(ExitCode::FAILURE);
    }
    let mut stdout = stdout().lock();
    stdout.write_all(out.as_bytes())?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Appends a file's documents to those of the files before it.
fn append(out: &mut String, documents: &str) {
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    if !out.is_empty() && !documents.starts_with("---") {
        out.push_str("---\n");
    }
    out.push_str(documents);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_documents_of_their_own() {
        for (files, expected) in [
            (&["a: 1"][..], "a: 1"),
            (&["a: 1", "b: 2"], "a: 1\n---\nb: 2"),
            (&["a: 1\n", "---\nb: 2\n"], "a: 1\n---\nb: 2\n"),
            (&["", "a: 1"], "a: 1"),
        ] {
            let mut out = String::new();
            files.iter().for_each(|file| append(&mut out, file));
            assert_eq!(out, expected);
        }
    }
}
