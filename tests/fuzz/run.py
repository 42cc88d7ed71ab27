#!/usr/bin/env python3
"""Builds the fuzz targets and lets libFuzzer run each for some seconds. Fails when one breaks its promise, and leaves
the input in `tests/fuzz/corpus/TARGET`, where `cargo test -p tulle-fuzz` runs it from then on."""

import argparse
import concurrent.futures
import hashlib
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Longest inputs; what is not listed has libFuzzer's own limit of 4 KiB.
LONGEST = {"detect": 17000, "manifests": 8192, "inject": 8192, "admission": 8192, "compile": 8192, "session": 16384}


def build():
    """The program, in the target folder of all other builds: dependencies are shared with the release build."""
    environment = dict(os.environ, RUSTC_WORKSPACE_WRAPPER=str(HERE / "instrument"))
    command = "cargo build --locked --release --package tulle-fuzz --bin fuzz --features engine".split()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release/fuzz", target / "fuzz"


def targets():
    return re.findall(r'Target \{ name: "(\w+)"', (HERE / "src/lib.rs").read_text())


def run(program, work, name, seconds):
    """One target: what it did in a line, and the input that broke it."""
    found, seeds, broken = work / name, work / f"{name}.seeds", work / f"{name}.broken"
    for folder in (found, seeds, broken):
        folder.mkdir(parents=True, exist_ok=True)
    for old in broken.iterdir():
        old.unlink()
    (HERE / "corpus" / name).mkdir(parents=True, exist_ok=True)
    command = [
        program, found, seeds, HERE / "corpus" / name, f"-max_total_time={seconds}", f"-artifact_prefix={broken}/",
        "-use_value_profile=1", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-reduce_inputs=1",
        f"-max_len={LONGEST.get(name, 4096)}",
    ]  # fmt: skip
    dictionary = HERE / "dict" / f"{name}.dict"
    if dictionary.exists():
        command.append(f"-dict={dictionary}")
    environment = dict(os.environ, TULLE_FUZZ_TARGET=name, TULLE_FUZZ_SEEDS=str(seeds))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    said = done.stderr
    runs = re.findall(r"stat::number_of_executed_units:\s+(\d+)", said)
    covered = re.findall(r"cov: (\d+)", said)
    line = f"{name:14} {runs[-1] if runs else '?':>10} runs, {covered[-1] if covered else '?':>6} edges"
    # Inputs that were only slow are told, and no failure.
    inputs = [path for path in broken.iterdir() if not path.name.startswith("slow-unit")]
    kept = []
    for path in inputs:
        content = path.read_bytes()
        kept.append(HERE / "corpus" / name / f"broken-{hashlib.sha256(content).hexdigest()[:12]}")
        kept[-1].write_bytes(content)
    if done.returncode and not kept:
        kept.append("no input")
    return line, kept, said


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="some of the targets; all when none is named")
    parser.add_argument("--time", type=int, default=20, metavar="SECONDS", help="how long each runs (20)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets that run at the same time")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(targets())
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(targets())}")
    program, work = build()
    names, failed = arguments.targets or targets(), False
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        results = pool.map(lambda name: (name, *run(program, work, name, arguments.time)), names)
        for name, line, broken, said in results:
            print(line, flush=True)
            for path in broken:
                failed = True
                print(f"\n{said[-6000:]}\n{name} breaks with {path}\n", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
