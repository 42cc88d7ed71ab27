//! The namespaces the cluster lives and dies in. The test runs itself again as the first process of a PID namespace with
//! mounts of its own: when that process ends, or the test is killed, the kernel ends every process in it, and with them
//! go their mounts and network namespaces. Only cgroups outlive their processes; they are removed by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::programs::Programs;
use super::{run, words};

/// Folder of the cluster, on memory.
pub(crate) const WORK: &str = "/run/tulle";

/// Cgroups are named after this and the test process that made them.
const CGROUP: &str = "tulle-cluster-";

/// The argument by which the test knows that it is inside.
pub(crate) const INSIDE: &str = "--inside";

/// Runs this program again inside, with `--inside CGROUP` and `args`, until it ends; then nothing of it is left.
///
/// # Errors
/// When namespaces cannot be made, or a cgroup cannot be removed.
pub(crate) fn run_inside(programs: &Programs, logs: &Path, args: &[String]) -> anyhow::Result<ExitStatus> {
    sweep()?;
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(std::env::current_exe()?)
        .args([INSIDE, &format!("{CGROUP}{}", std::process::id())])
        .args([&programs.programs, &programs.images, logs])
        .args(args)
        .status()
        .context("run unshare")?;
    let own = format!("{CGROUP}{}", std::process::id());
    let deadline = Instant::now() + Duration::from_secs(10);
    for controller in controllers() {
        // The kernel takes a moment to forget the last process of a cgroup.
        while remove_cgroup(&controller.join(&own)).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        ensure!(!controller.join(&own).exists(), "processes are left in {}", controller.join(&own).display());
    }
    Ok(status)
}

/// Hides the folders that a container runtime and a kubelet write to behind memory. `/run/tulle/{programs,images,logs}`
/// are the given folders.
///
/// # Errors
/// When something cannot be mounted.
pub(crate) fn furnish(folders: [&Path; 3]) -> anyhow::Result<()> {
    run(words("mount -t tmpfs -o mode=755 tulle /run"))?;
    for (name, folder) in ["programs", "images", "logs"].iter().zip(folders) {
        let place = Path::new(WORK).join(name);
        fs::create_dir_all(&place)?;
        let mut mount = Command::new("mount");
        mount.arg("--bind").args([folder, &place]);
        run(mount)?;
    }
    for dir in ["/var/lib", "/var/log"] {
        run(words(&format!("mount -t tmpfs -o mode=755 tulle {dir}")))?;
    }
    // What a kubelet mounts for a pod is seen by its node's runtime, which has mounts of its own.
    run(words("mount --make-rshared /")).map(drop)
}

/// Share of the processors that a cgroup of the cluster has while others want them too, as each version of cgroups says it:
/// that of some ten threads. As it comes, all pods together would have as much as one thread beside them has.
const SHARES: [(&str, &str); 2] = [("cpu.shares", "10240"), ("cpu.weight", "1000")];

/// Makes a cgroup `name` under every controller; kubelets refuse to make their own root.
///
/// # Errors
/// When one cannot be made.
pub(crate) fn make_cgroup(name: &str) -> anyhow::Result<()> {
    for controller in controllers() {
        let path = controller.join(name);
        fs::create_dir_all(&path).with_context(|| format!("make cgroup {}", path.display()))?;
        // Empty in a new cgroup of version 1, and then no process may enter it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let mut parent = controller.clone();
            for part in Path::new(name) {
                if let Ok(value) = fs::read(parent.join(file)) {
                    fs::write(parent.join(part).join(file), value)?;
                }
                parent.push(part);
            }
        }
        let mut made = controller;
        for part in Path::new(name) {
            made.push(part);
            for (file, share) in SHARES {
                if made.join(file).exists() {
                    fs::write(made.join(file), share)?;
                }
            }
        }
    }
    Ok(())
}

/// Removes the cgroups of test processes that are no more.
fn sweep() -> anyhow::Result<()> {
    for controller in controllers() {
        for entry in fs::read_dir(&controller)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(maker) = name.strip_prefix(CGROUP)
                && !Path::new("/proc").join(maker).exists()
            {
                remove_cgroup(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// Removes a cgroup and those below it.
fn remove_cgroup(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("remove cgroup {}", path.display()))
}

/// Roots of the cgroup hierarchies: one, or with version 1 one for each controller.
fn controllers() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}
