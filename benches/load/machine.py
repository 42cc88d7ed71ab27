"""Processes on their CPU, and what they cost: CPU time from schedstat, memory as Pss."""

import contextlib
import pathlib
import re
import signal
import socket
import subprocess
import time

PROXIES = 0
OTHERS = 1


class Part:
    """A process and its children; `cpu()` and `memory()` speak of all of them."""

    def __init__(self, command, log, cpu):
        self.log = pathlib.Path(log)
        with open(self.log, "ab") as out:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                ["taskset", "-c", str(cpu), *[str(word) for word in command]], stdout=out, stderr=out
            )

    def pids(self):
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                todo += [int(child) for child in task.read_text().split()]
        return found

    def cpu(self):
        """Seconds on a CPU so far."""
        tasks = [task for pid in self.pids() for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def ticks(self):
        """Clock ticks in the program and in the kernel so far: samples, good for shares only."""
        stats = [pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids()]
        return [sum(int(stat[column]) for stat in stats) for column in (11, 12)]

    def memory(self):
        """KiB of memory: each page divided by the number of processes that share it."""
        texts = [pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids()]
        return sum(int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]) for text in texts)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            for pid in self.pids():
                try:
                    subprocess.run(["kill", "-9", str(pid)], stderr=subprocess.DEVNULL, check=False)
                except OSError:
                    pass
            self.process.wait()

    def check(self):
        if self.process.poll() is not None:
            raise SystemExit(f"ended: {self.process.args}\n{self.log.read_text(errors='replace')[-2000:]}")


def wait(what, ready, part=None, deadline=180):
    """Looks every 2 ms; the time of the first success."""
    end = time.monotonic() + deadline
    while True:
        try:
            if ready():
                return time.monotonic()
        except OSError:
            pass
        if part:
            part.check()
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not ready in {deadline} s")
        time.sleep(0.002)


def get(address, path="/", host="origin"):
    """Status of one plain request."""
    with socket.create_connection(address, timeout=2) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        return int(stream.recv(64).split()[1])


CONGESTION = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")


@contextlib.contextmanager
def unpaced():
    """No pacing by TCP meanwhile: BBR paces the loopback too, and what a relay costs is then mostly timers."""
    before = CONGESTION.read_text()
    if before.strip() != "bbr":
        yield
        return
    try:
        CONGESTION.write_text("cubic")
    except PermissionError:
        print("TCP paces here (bbr), which only root may change: G4 says little", flush=True)
    try:
        yield
    finally:
        if CONGESTION.read_text() != before:
            CONGESTION.write_text(before)


def busy():
    """Jiffies all CPUs were busy, and stolen ones, so far."""
    ticks = [int(n) for n in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], ticks[7]
