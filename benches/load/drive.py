"""Load: each function drives one address from the other CPU and returns what was done. Anything but success ends the run.

Run as a program it is one of its own loads in a process of its own: `drive.py NAME ARGUMENTS`, the result as JSON.
"""

import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time

import machine

BLOCK = 1 << 20


class Void(Exception):
    """Something failed under load; the run says nothing."""


def pinned(*words):
    words = ["taskset", "-c", str(machine.OTHERS), *[str(word) for word in words]]
    shown = subprocess.run(words, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise Void(f"{words}: {shown.stdout[-1000:]} {shown.stderr[-1000:]}")
    return shown.stdout


def own(name, **arguments):
    """A load of this file in a process of its own."""
    return json.loads(pinned(sys.executable, __file__, name, json.dumps(arguments)))


def wrk(ip, port, seconds, connections):
    shown = pinned("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://{ip}:{port}/")
    if re.search(r"Non-2xx|Socket errors", shown):
        raise Void(shown)
    return int(re.search(r"(\d+) requests in", shown)[1])


def h2load(ip, port, seconds, connections, streams):
    shown = pinned("h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"http://{ip}:{port}/")
    done, bad = re.search(r"(\d+) done", shown), re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", shown)
    good = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", shown)
    if not good or set(bad.groups()) != {"0"} or int(good[1]) < int(done[1]):
        raise Void(shown)
    return int(done[1])


def latency(ip, port, rate, seconds, log):
    """Microseconds of each request, HTTP/1, at a fixed rate: connections of 20 requests a second each, opened a
    millisecond apart, so that one late reply delays none of the others."""
    connections = rate // 20
    log.unlink(missing_ok=True)
    shown = pinned(
        "h2load", "--h1", "-t1", f"-c{connections}", "-m1", "-n", rate * seconds, "--rps=20", "--rate=1",
        "--rate-period=1ms", f"--log-file={log}", f"http://{ip}:{port}/",
    )
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    if len(rows) != rate * seconds or {row[1] for row in rows} != {"200"}:
        raise Void(shown)
    return [int(row[2]) for row in rows]


def pump(port):
    """Serves zeros without end to whoever connects."""
    listener = socket.create_server(("127.0.0.1", port))
    zeros = memoryview(bytes(BLOCK))

    def serve(stream):
        try:
            while True:
                stream.sendall(zeros)
        except OSError:
            stream.close()

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def bulk(ip, port, seconds):
    """Bytes received on one connection."""
    room, got = bytearray(BLOCK), 0
    with socket.create_connection((ip, port)) as stream:
        # `pump` waits for nothing, but a proxy may want to see who speaks first.
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            n = stream.recv_into(room)
            if not n:
                raise Void("the stream ended")
            got += n
    return got


def context(certs, alpn):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.load_verify_locations(f"{certs}/ca.pem")
    tls.load_cert_chain(f"{certs}/c.pem", f"{certs}/c.key")
    if alpn:
        tls.set_alpn_protocols(alpn)
    return tls


def request(stream):
    stream.sendall(b"GET / HTTP/1.1\r\nhost: origin\r\n\r\n")
    got = b""
    while b"\r\n\r\n" not in got:
        got += _some(stream)
    head, _, body = got.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Void(head.decode(errors="replace"))
    length = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
    while len(body) < length:
        body += _some(stream)


def _some(stream):
    got = stream.recv(1 << 16)
    if not got:
        raise Void("closed before the reply was over")
    return got


def handshakes(ip, port, seconds, certs, alpn, resume):
    """New mTLS connections with one request each."""
    tls, session, done, resumed = context(certs, alpn), None, 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.create_connection((ip, port)) as plain:
            with tls.wrap_socket(plain, session=session, server_hostname="b.bench") as stream:
                request(stream)
                done += 1
                resumed += stream.session_reused
                session = stream.session if resume else None
    return {"done": done, "resumed": resumed}


def idle(ip, port, connections, certs=None, alpn=None):
    """Opens connections, makes a request on each, and holds them until its input ends."""
    tls, held = context(certs, alpn) if certs else None, []
    for _ in range(connections):
        stream = socket.create_connection((ip, port))
        if tls:
            stream = tls.wrap_socket(stream, server_hostname="b.bench")
        request(stream)
        held.append(stream)
    print("ready", flush=True)
    sys.stdin.read()
    return len(held)


@contextlib.contextmanager
def holding(words):
    """`idle` in a process of its own, while the caller looks."""
    words = ["taskset", "-c", str(machine.OTHERS), sys.executable, __file__, "idle", json.dumps(words)]
    client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if client.stdout.readline() != "ready\n":
            raise Void("idle connections failed")
        yield
    finally:
        client.communicate()


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
