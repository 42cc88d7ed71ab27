#!/usr/bin/env python3
"""A million requests and two gibibytes through two sidecars over mutual TLS, without one error.

usage: tests/soak/run.py PATH-TO-TULLE [--requests N] [--bytes N]

Starts a control plane, two sidecars and an origin (nginx for requests, a hashing server for bulk), drives them with wrk
and its own client, and prints what it saw. Exit code 0 only if nothing failed. Needs wrk and nginx, no root.
"""

import argparse
import hashlib
import http.client
import http.server
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: origin, namespace: soak}
spec:
  selector: {app: origin}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: http-bulk, port: 81, targetPort: 8081}]
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {name: origin-1, namespace: soak, labels: {app: origin}}
spec: {addresses: [127.1.9.1], serviceAccount: origin, workload: origin}
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {name: client-1, namespace: soak}
spec: {addresses: [127.1.9.2], serviceAccount: client, workload: client}
"""

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000; keepalive_timeout 60s;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen 127.0.0.1:18980; location / {{ return 200 "{body}"; }} }}
}}
"""

BLOCK = 1 << 16


class Bulk(http.server.BaseHTTPRequestHandler):
    """GET /N sends N reproducible bytes; PUT answers the sha256 of what it received."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        left = int(self.path[1:])
        self.send_response(200)
        self.send_header("content-length", str(left))
        self.end_headers()
        for block in blocks(left):
            self.wfile.write(block)

    def do_PUT(self):
        left, seen = int(self.headers["content-length"]), hashlib.sha256()
        while left:
            block = self.rfile.read(min(BLOCK, left))
            if not block:
                return
            seen.update(block)
            left -= len(block)
        answer = seen.hexdigest().encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def blocks(size):
    block = hashlib.shake_256(b"tulle").digest(BLOCK)
    while size:
        yield block[: min(size, BLOCK)]
        size -= min(size, BLOCK)


def digest(parts):
    seen = hashlib.sha256()
    for part in parts:
        seen.update(part)
    return seen.hexdigest()


class Mesh:
    """The processes, ended together."""

    def __init__(self, tulle):
        self.tulle, self.dir, self.running = tulle, pathlib.Path(tempfile.mkdtemp(prefix="tulle-soak-")), []

    def start(self, name, *command):
        log = open(self.dir / f"{name}.log", "wb")
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, start_new_session=True)
        self.running.append((name, process))
        return process

    def sidecar(self, account, ip, *extra):
        token = self.dir / f"{account}.token"
        token.write_bytes(
            subprocess.check_output(
                [self.tulle, "token", "create", "--state-dir", self.dir / "state", "-n", "soak", "-s", account]
            )
        )
        return self.start(
            account, self.tulle, "proxy", "--namespace", "soak", "--workload", account, "--service-account", account,
            "--control-plane", "127.0.0.1:18912", "--trust-bundle", self.dir / "state/trust-bundle.pem",
            "--token", token, "--admin", f"{ip}:15000", "--status", f"{ip}:15020", "--workers", "1", *extra,
        )

    def stop(self):
        """Each with its children: a killed nginx would leave its worker behind."""
        for _, process in reversed(self.running):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def logs(self):
        for name, _ in self.running:
            print(f"--- {name}\n{(self.dir / f'{name}.log').read_text(errors='replace')[-2000:]}", file=sys.stderr)


def ready(url, deadline=60):
    end = time.monotonic() + deadline
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                if reply.status == 200:
                    return
        except OSError:
            if time.monotonic() > end:
                raise SystemExit(f"not ready in {deadline} s: {url}")
            time.sleep(0.1)


def memory(process):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024


def requests(count):
    """Drives wrk until `count` requests are done; returns done, failed."""
    done = failed = 0
    while done < count:
        shown = subprocess.check_output(
            ["wrk", "-t1", "-c64", "-d10s", "http://127.1.9.2:7080/"], text=True
        )
        done += int(re.search(r"(\d+) requests in", shown)[1])
        for pattern in (r"Non-2xx or 3xx responses: (\d+)", r"(?:connect|read|write|timeout) (\d+)"):
            failed += sum(int(n) for n in re.findall(pattern, shown))
    return done, failed


def bulk(size, processes):
    """Moves `size` bytes each way; returns what went wrong."""
    wanted, before = digest(blocks(size)), [memory(p) for p in processes]
    down = http.client.HTTPConnection("127.1.9.2", 7081)
    down.request("GET", f"/{size}")
    reply = down.getresponse()
    received = digest(iter(lambda: reply.read(BLOCK), b""))
    up = http.client.HTTPConnection("127.1.9.2", 7081)
    up.request("PUT", "/", body=blocks(size), headers={"content-length": str(size)})
    sent = up.getresponse().read().decode()
    grown = [round(memory(p) - b, 1) for p, b in zip(processes, before)]
    print(f"bulk: {size >> 20} MiB down {received == wanted}, up {sent == wanted}; proxies grew by {grown} MiB")
    return [] if received == sent == wanted else ["checksums differ"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tulle")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    args = parser.parse_args()
    for tool in ("wrk", "nginx"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is missing: apt-get install wrk nginx-light")
    mesh = Mesh(os.path.abspath(args.tulle))
    try:
        return drive(mesh, args)
    except BaseException:
        mesh.logs()
        raise
    finally:
        mesh.stop()
        shutil.rmtree(mesh.dir, ignore_errors=True)


def drive(mesh, args):
    (mesh.dir / "config").mkdir()
    (mesh.dir / "config/mesh.yaml").write_text(MANIFESTS)
    (mesh.dir / "nginx.conf").write_text(NGINX.format(dir=mesh.dir, body="x" * 1024))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 18981), Bulk)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mesh.start("nginx", "nginx", "-c", mesh.dir / "nginx.conf", "-p", mesh.dir)
    mesh.start(
        "control-plane", mesh.tulle, "control-plane", "--config-dir", mesh.dir / "config", "--state-dir",
        mesh.dir / "state", "--xds-address", "127.0.0.1:18912", "--admin-address", "127.0.0.1:18914",
    )
    ready("http://127.0.0.1:18914/healthz/ready")
    origin = mesh.sidecar(
        "origin", "127.1.9.1", "--inbound", "127.1.9.1:8080=127.0.0.1:18980",
        "--inbound", "127.1.9.1:8081=127.0.0.1:18981",
    )
    client = mesh.sidecar(
        "client", "127.1.9.2", "--outbound", "127.1.9.2:7080=origin:80", "--outbound", "127.1.9.2:7081=origin:81"
    )
    for ip in ("127.1.9.1", "127.1.9.2"):
        ready(f"http://{ip}:15020/healthz/ready")
    started = time.monotonic()
    done, failed = requests(args.requests)
    print(f"requests: {done} in {time.monotonic() - started:.0f} s, {failed} failed")
    problems = bulk(args.bytes, [origin, client]) + ([f"{failed} requests failed"] if failed else [])
    metrics = urllib.request.urlopen("http://127.1.9.1:15020/metrics").read().decode()
    if 'source_identity="spiffe://cluster.local/ns/soak/sa/client"' not in metrics:
        problems.append("the origin's sidecar saw no mutual TLS")
    print("soak: " + ("; ".join(problems) if problems else "ok"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
