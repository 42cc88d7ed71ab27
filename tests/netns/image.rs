//! What is in a container image, packed by the script that makes them, with binaries of this build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tulle_testing::bin_path::binary;
use tulle_testing::netns::{self, Finished, Pod};

use super::cni::Scene;

/// What packing and unpacking takes.
pub(super) const TOOLS: [&str; 8] =
    ["python3", "tar", "ldd", "nft", "iptables-legacy-restore", "ip6tables-legacy-restore", "unshare", "bash"];

/// An image's files, and the environment of its program.
pub(super) struct Image {
    folder: TempDir,
    environment: Vec<String>,
}

impl Image {
    /// The image `name`, whose program is `program`.
    pub(super) fn unpacked(name: &str, program: &str) -> anyhow::Result<Self> {
        let program = binary("tulle-injector", program)?;
        let folder = tempfile::tempdir()?;
        let mut build = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/images/build"));
        build.args(["--image", name, "--output"]).arg(folder.path());
        build.arg("--binaries").arg(program.parent().context("a folder")?);
        run(build)?;
        let image = Self { folder, environment: Vec::new() };
        image.unpack(&image.path(&format!("{name}.tar")), "image")?;
        let manifest = image.blob(&image.json("image/index.json")?["manifests"][0])?;
        let manifest = image.json(&manifest)?;
        image.unpack(&image.path(&image.blob(&manifest["layers"][0])?), "root")?;
        let config = image.json(&image.blob(&manifest["config"])?)?;
        let environment = config["config"]["Env"].as_array().into_iter().flatten();
        let environment = environment.filter_map(Value::as_str).map(str::to_owned).collect();
        // Those of an image link statically; these do not.
        let mut libraries = Command::new("ldd");
        libraries.arg(program);
        for library in run(libraries)?.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = image.root().join(library.trim_start_matches('/'));
            if !place.exists() {
                std::fs::create_dir_all(place.parent().context("a folder")?)?;
                std::fs::copy(library, place)?;
            }
        }
        Ok(Self { environment, ..image })
    }

    /// Its files.
    pub(super) fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// Its program to the end, in `pod`, as a container with a read-only root.
    fn run_in(&self, pod: &Pod, program: &str, args: &[&str]) -> anyhow::Result<Finished> {
        let root = self.root().display().to_string();
        let script = format!(
            "cd {root} && mkdir -p proc dev && mount --bind . . && cd {root} && mount -t proc proc proc && mount --bind /dev dev && \
             mount -o remount,bind,ro . && exec chroot . \"$@\""
        );
        let mut command = pod.command("unshare");
        command.args(["--mount", "bash", "-c", &script, "container", program]).args(args);
        command.envs(self.environment.iter().filter_map(|variable| variable.split_once('=')));
        Finished::of(command)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn json(&self, file: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.path(file))?)?)
    }

    /// The file that a descriptor stands for.
    fn blob(&self, descriptor: &Value) -> anyhow::Result<String> {
        let digest = descriptor["digest"].as_str().context("a digest")?;
        Ok(format!("image/blobs/{}", digest.replace(':', "/")))
    }

    fn unpack(&self, archive: &Path, to: &str) -> anyhow::Result<()> {
        std::fs::create_dir(self.path(to))?;
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(archive).arg("-C").arg(self.path(to));
        run(tar).map(drop)
    }
}

fn run(command: Command) -> anyhow::Result<String> {
    let done = Finished::of(command)?;
    ensure!(done.success, "{}", done.stderr);
    Ok(done.stdout)
}

#[test]
fn the_init_image_has_all_it_needs_for_both_modes() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let image = Image::unpacked("init", "tulle-init")?;
    let scene = Scene::new()?;
    let init = |args: &[&str]| -> anyhow::Result<()> {
        let done = image.run_in(&scene.pod, "/tulle-init", args)?;
        ensure!(done.success, "{args:?}: {}", done.stderr);
        Ok(())
    };
    for (mode, tables) in [("nft", ""), ("iptables", "nat\n"), ("nft", "nat\n")] {
        init(&["--mode", mode])?;
        init(&["--mode", mode, "--verify"])?;
        scene.assert_captured(true)?;
        // A table that is there costs every connection: nftables alone makes none of the older kind.
        for names in ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"] {
            assert_eq!(scene.pod.output("cat", &[names])?.stdout, tables, "{mode} {names}");
        }
        let rules = scene.pod.output("nft", &["list", "tables"])?.stdout;
        assert_eq!(rules.contains("tulle"), mode == "nft", "{rules}");
    }
    init(&["--mode", "iptables"])?;
    init(&["--mode", "iptables", "--remove"])?;
    scene.assert_captured(false)
}
