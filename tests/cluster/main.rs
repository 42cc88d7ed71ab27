//! Tulle on a real Kubernetes of two nodes in two zones: install, traffic, change under load, uninstall; one story, told in
//! chapters over one cluster. Needs root, Go, and the packages `.ci/run` installs; without them it says that it was skipped.
//!
//! `cargo test --test cluster [-- CHAPTER...]`: the chapters named, in their order, after those marked as ground. Logs of
//! every program of the cluster stay in `target/tmp/cluster`. `--keep` holds the cluster at the end, or where the story
//! failed, for a look inside. `--programs` only builds what others wrote, which other tests need too.

#![expect(clippy::print_stderr, reason = "a story without libtest tells itself")]

mod harness;
mod story;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use harness::Cluster;
use harness::enclosure::{self, INSIDE};
use harness::programs;
use story::Chapter;
use tulle_testing::netns;

/// Commands that must be there.
const TOOLS: &[&str] =
    &["go", "cc", "python3", "etcd", "containerd", "ctr", "runc", "nsenter", "unshare", "mount", "iptables", "nft"];

/// The option that holds the cluster.
const KEEP: &str = "--keep";

/// The option that tells no story. Needs no root.
const PROGRAMS: &str = "--programs";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let told = match args.split_first() {
        Some((first, rest)) if first == INSIDE => inside(rest),
        _ => outside(&args),
    };
    told.map_or_else(
        |error| {
            note(&format!("{error:#}"));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// Tells a figure or a step to whoever watches.
fn note(what: &str) {
    eprintln!("cluster: {what}");
}

/// Builds what the cluster needs, and tells the story in its enclosure.
fn outside(args: &[String]) -> anyhow::Result<()> {
    if args == [PROGRAMS] {
        return programs::of_others().map(drop);
    }
    if !netns::available(TOOLS)? {
        return Ok(());
    }
    for name in args {
        ensure!(name == KEEP || story::CHAPTERS.iter().any(|chapter| chapter.name == *name), "no chapter {name}");
    }
    let start = Instant::now();
    let programs = programs::build()?;
    note(&format!("programs and images, {:.0?}", start.elapsed()));
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster");
    std::fs::remove_dir_all(&logs).or_else(|error| if logs.exists() { Err(error) } else { Ok(()) })?;
    std::fs::create_dir_all(&logs)?;
    let status = enclosure::run_inside(&programs, &logs, args)?;
    ensure!(status.success(), "the story failed; logs of every program are in {}", logs.display());
    Ok(())
}

/// Brings the cluster up and tells the story.
fn inside(args: &[String]) -> anyhow::Result<()> {
    let [cgroup, programs, images, logs, chapters @ ..] = args else {
        anyhow::bail!("{INSIDE} is for the test itself");
    };
    enclosure::furnish([Path::new(programs), Path::new(images), Path::new(logs)])?;
    let start = Instant::now();
    let mut cluster = Cluster::up(cgroup).context("bring up the cluster")?;
    note(&format!("two nodes ready, {:.0?}", start.elapsed()));
    let (options, chapters): (Vec<_>, Vec<_>) = chapters.iter().partition(|word| *word == KEEP);
    let told = tell(&mut cluster, &chapters);
    if !options.is_empty() {
        let end = told.as_ref().map_or_else(|error| format!("{error:#}"), |()| "the story is told".to_owned());
        note(&format!("{end}\nEnter ends the cluster. {}", cluster.door()));
        std::io::stdin().read_line(&mut String::new())?;
    }
    told
}

/// Tells the chapters named, or all. The first that fails ends it: the next ones stand on it.
fn tell(cluster: &mut Cluster, names: &[&String]) -> anyhow::Result<()> {
    let told =
        |chapter: &&Chapter| chapter.ground || names.is_empty() || names.iter().any(|name| *name == chapter.name);
    for chapter in story::CHAPTERS.iter().filter(told) {
        let start = Instant::now();
        (chapter.tell)(cluster).with_context(|| format!("chapter {}", chapter.name))?;
        note(&format!("{} ... ok, {:.0?}", chapter.name, start.elapsed()));
    }
    Ok(())
}
