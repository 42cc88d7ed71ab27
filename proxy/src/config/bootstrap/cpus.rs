//! How many CPUs this process may use: the smaller of its affinity and its cgroup's quota, v2 or v1.

use std::fs;
use std::path::{Path, PathBuf};

/// CPUs this process may use, a part of one counted in full; at least 1.
pub(super) fn available() -> usize {
    let affinity = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize);
    let quota =
        fs::read_to_string("/proc/self/cgroup").ok().and_then(|groups| quota(&groups, Path::new("/sys/fs/cgroup")));
    quota.map_or(affinity, |quota| quota.min(affinity)).max(1)
}

/// The smallest quota on the way from this process's cgroup to the root, in CPUs rounded up.
fn quota(groups: &str, mount: &Path) -> Option<usize> {
    let mut smallest = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let version_2 = id == "0" && controllers.is_empty();
        let root = if version_2 { mount.to_owned() } else { mount.join(controllers) };
        if !version_2 && !controllers.split(',').any(|controller| controller == "cpu") {
            continue;
        }
        let own = root.join(path.trim_start_matches('/'));
        for dir in own.ancestors().take_while(|dir| dir.starts_with(&root)) {
            let quota = if version_2 { quota_2(dir) } else { quota_1(dir) };
            smallest = [smallest, quota].into_iter().flatten().min();
        }
    }
    smallest
}

/// `cpu.max`: quota and period in microseconds, or `max`.
fn quota_2(dir: &Path) -> Option<usize> {
    let text = read(&dir.join("cpu.max"))?;
    let (quota, period) = text.trim().split_once(' ')?;
    share(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_1(dir: &Path) -> Option<usize> {
    let quota = read(&dir.join("cpu.cfs_quota_us"))?;
    let period = read(&dir.join("cpu.cfs_period_us"))?;
    // -1, which is no u64, stands for no quota.
    share(quota.trim().parse().ok()?, period.trim().parse().ok()?)
}

fn share(quota: u64, period: u64) -> Option<usize> {
    if period == 0 { None } else { usize::try_from(quota.div_ceil(period)).ok() }
}

fn read(path: &PathBuf) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_quota_on_the_way_up_counts_rounded_up() {
        let mount = tempfile::tempdir().unwrap();
        let pod = mount.path().join("kubepods/pod1");
        fs::create_dir_all(&pod).unwrap();
        assert_eq!(quota("0::/kubepods/pod1\n", mount.path()), None);
        fs::write(pod.join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(quota("0::/kubepods/pod1\n", mount.path()), None);
        fs::write(mount.path().join("kubepods/cpu.max"), "150000 100000\n").unwrap();
        assert_eq!(quota("0::/kubepods/pod1\n", mount.path()), Some(2));
        fs::write(pod.join("cpu.max"), "20000 100000\n").unwrap();
        assert_eq!(quota("0::/kubepods/pod1\n", mount.path()), Some(1));
    }

    #[test]
    fn version_1_is_understood() {
        let mount = tempfile::tempdir().unwrap();
        let pod = mount.path().join("cpu,cpuacct/pod1");
        fs::create_dir_all(&pod).unwrap();
        fs::write(pod.join("cpu.cfs_quota_us"), "250000\n").unwrap();
        fs::write(pod.join("cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(quota("4:cpu,cpuacct:/pod1\n3:memory:/pod1\n", mount.path()), Some(3));
        fs::write(pod.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        assert_eq!(quota("4:cpu,cpuacct:/pod1\n", mount.path()), None);
    }
}
