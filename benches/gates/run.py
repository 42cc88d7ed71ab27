#!/usr/bin/env python3
"""What a request and an idle connection cost, counted instead of timed, against the figures in `figures.json`.

usage: benches/gates/run.py [--tulle FILE] [--write] [--only TEXT]

Instructions and allocations of the proxies come from callgrind, system calls of the worker thread from strace, bytes of
an idle connection from Pss. One connection, one request at a time or eight streams in step: then every run takes the
same path, and load on the machine changes nothing. Fails when a figure rose by more than its allowance; `--write` keeps the new ones, to be
committed with the reason they changed. Needs valgrind, strace, h2load, nginx and openssl; `tulle` is a release build.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "load"))

import certs  # noqa: E402
import drive  # noqa: E402
import machine  # noqa: E402
import peers  # noqa: E402

FIGURES = HERE / "figures.json"
# Path: parts counted, port of A, words for h2load.
PATHS = {
    "HTTP/1.1 hop": ("a", peers.HOP["h1"], ["--h1", "-m1"]),
    "HTTP/1.1 pair, mTLS": ("ab", peers.PAIR["h1"], ["--h1", "-m1"]),
    "HTTP/2 pair, mTLS": ("ab", peers.PAIR["h2"], ["-m1"]),
    "HTTP/2 pair, mTLS, 8 streams": ("ab", peers.PAIR["h2"], ["-m8"]),
}
IDLE = ("idle connection, plain", "idle connection, mTLS")
BODY = 1024
REQUESTS = 1000
WARM_UP = 200
CONNECTIONS = 1000
# How far a figure may rise: by a part of it, or by so much (the odd timer is in the count of system calls too).
PART = {"instructions": 0.01, "bytes": 0.03}
SLACK = {"system calls": 0.02, "allocations": 0.02}


class Proxy(peers.Tulle):
    """A and B as `tulle proxy`, each under `wrapper`."""

    wrapper = ()

    def command(self, role):
        words = super().command(role)
        wrapper = [word.format(role=role, dir=self.folder) for word in self.wrapper]
        return [*wrapper, words[0], "proxy", *words[1:]]

    def pid(self, part):
        """Of the proxy itself: `taskset` and valgrind become what they start."""
        return part.process.pid

    def worker(self, part):
        tasks = pathlib.Path(f"/proc/{self.pid(part)}/task").iterdir()
        return next(int(t.name) for t in tasks if (t / "comm").read_text().startswith("tulle-worker"))


def requests(ip, port, words, count):
    shown = drive.pinned("h2load", *words, "-t1", "-c1", "-n", count, f"http://{ip}:{port}/")
    if f"{count} succeeded" not in shown:
        raise SystemExit(shown)


def under_callgrind(peer, path):
    """Instructions and allocations of `path` per request."""
    parts, port, words = PATHS[path]
    parts = [getattr(peer, part) for part in parts]
    requests(peer.a_ip, port, words, WARM_UP)

    def counted(count):
        for part in parts:
            subprocess.run(["callgrind_control", "--zero", str(peer.pid(part))], check=True, capture_output=True)
        requests(peer.a_ip, port, words, count)
        totals = [dump(peer, part) for part in parts]
        return [sum(column) for column in zip(*totals)]

    # The connection itself, and what a proxy does meanwhile, is in both counts.
    few, many = counted(WARM_UP), counted(WARM_UP + REQUESTS)
    instructions, allocations = ((b - a) / REQUESTS for a, b in zip(few, many))
    return {"instructions": round(instructions), "allocations": round(allocations, 2)}


def dump(peer, part):
    pid = peer.pid(part)
    before = set(peer.folder.glob(f"callgrind.{pid}.*"))
    subprocess.run(["callgrind_control", "--dump", str(pid)], check=True, capture_output=True)
    fresh = set(peer.folder.glob(f"callgrind.{pid}.*")) - before
    return map(sum, zip(*(read(file) for file in fresh)))


def read(file):
    """Instructions and allocations in one dump of callgrind."""
    names, calls, callee = {}, 0, ""
    total = 0
    for line in file.read_text().splitlines():
        if line.startswith(("fn=", "cfn=")):
            number, _, name = line.partition("=")[2].partition(" ")
            names.setdefault(number, name)
            callee = names[number]
        elif line.startswith("calls="):
            if re.fullmatch(r"mi_(m|z|c|re)alloc(_aligned)?('\d+)?", callee):
                calls += int(line[6:].split()[0])
        elif line.startswith(("totals:", "summary:")):
            total = int(line.split()[1])
    return total, calls


def under_strace(peer, path):
    """System calls of the worker threads on `path` per request."""
    parts, port, words = PATHS[path]
    parts = [getattr(peer, part) for part in parts]

    def counted(count):
        tracers = [
            subprocess.Popen(["strace", "-c", "-p", str(peer.worker(part))], stderr=subprocess.PIPE, text=True)
            for part in parts
        ]
        for part in parts:
            status = pathlib.Path(f"/proc/{peer.pid(part)}/task/{peer.worker(part)}/status")
            machine.wait("strace", lambda: "TracerPid:\t0" not in status.read_text())
        requests(peer.a_ip, port, words, count)
        total = 0
        for tracer in tracers:
            tracer.send_signal(signal.SIGINT)
            # % time, seconds, usecs/call, calls, and errors if there were any
            total += int(re.search(r"^100\.00.* total$", tracer.communicate()[1], re.M)[0].split()[3])
        return total

    requests(peer.a_ip, port, words, WARM_UP)
    few = counted(WARM_UP)
    return (counted(WARM_UP + REQUESTS) - few) / REQUESTS


def idle_bytes(peer, path):
    """Memory of one idle connection that has made a request."""
    tls = path.endswith("mTLS")
    part, ip, port = (peer.b, peer.b_ip, peers.INBOUND["h1"]) if tls else (peer.a, peer.a_ip, peers.HOP["h1"])
    words = {"ip": ip, "port": port, "connections": CONNECTIONS}
    if tls:
        words |= {"certs": str(peer.certs), "alpn": peer.alpn["h1"]}
    before = part.memory()
    with drive.holding(words):
        time.sleep(1)
        return 1024 * (part.memory() - before) / CONNECTIONS


def http2_origin(folder):
    port = peers.ORIGIN["h2"]
    part = machine.Part([sys.executable, HERE / "origin.py", port, BODY], folder / "origin.log", machine.OTHERS)
    machine.wait("HTTP/2 origin", lambda: socket.create_connection(("127.0.0.1", port)).close() is None, part)
    return part


def running(folder, program, number, wrapper=()):
    peer = Proxy(f"run-{number}", folder, number, program)
    peer.wrapper = wrapper
    try:
        peer.start()
    except BaseException:
        peer.end()
        raise
    return peer


def measure(folder, program, wanted):
    """Figures by path and kind."""
    figures = {path: {} for path in [*PATHS, *IDLE] if not wanted or re.search(wanted, path)}
    callgrind = ["valgrind", "-q", "--tool=callgrind", "--callgrind-out-file={dir}/callgrind.%p"]
    for number, wrapper, cost in (
        (30, callgrind, under_callgrind),
        (31, (), lambda peer, path: {"system calls": round(under_strace(peer, path), 2)}),
    ):
        peer = running(folder, program, number, wrapper)
        try:
            for path in figures.keys() & PATHS:
                figures[path] |= cost(peer, path)
        finally:
            peer.end()
    for number, path in enumerate(sorted(figures.keys() & set(IDLE)), start=32):
        peer = running(folder, program, number)
        try:
            figures[path]["bytes"] = round(idle_bytes(peer, path))
        finally:
            peer.end()
    return figures


def allowed(kind, kept):
    return kept + SLACK[kind] if kind in SLACK else kept * (1 + PART[kind])


def risen(new, old):
    """Prints every figure beside the one that is kept; whether any rose too far."""
    bad = False
    for path, figures in new.items():
        for kind, value in figures.items():
            kept = old.get(path, {}).get(kind)
            change = f"{100 * (value - kept) / kept:+.2f} %" if kept else "new"
            worse = kept is None or value > allowed(kind, kept)
            bad |= worse
            print(f"{path:28} {kind:13} {value:>10} {kept or '':>10}  {change}{'  TOO MUCH' if worse else ''}")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tulle", type=pathlib.Path)
    parser.add_argument("--only", help="paths that match this")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    tulle = args.tulle or target / "release/tulle"
    if not tulle.exists():
        raise SystemExit(f"{tulle} is missing: cargo build --release -p tulle")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    peers.Tulle.tulle = tulle
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tulle-gates-") as folder:
        folder = pathlib.Path(folder)
        certs.make(folder)
        origins = [peers.Origin(folder, BODY, ["h1"]).part, http2_origin(folder)]
        try:
            new = measure(folder, tulle, args.only)
        finally:
            for origin in origins:
                origin.stop()
    old = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    bad = risen(new, old)
    print(f"{time.monotonic() - begun:.0f} s")
    if args.write:
        FIGURES.write_text(json.dumps(old | new, indent=2) + "\n")
    elif bad:
        raise SystemExit("a figure rose; if it must, say why in the commit and run with --write")


if __name__ == "__main__":
    main()
