"""The proxies: each is two processes, A beside the client and B beside the origin, with the same listeners.

A takes 7080 (HTTP/1), 7081 (HTTP/2) and 7082 (TCP) to B over mutual TLS, and 7090..7092 plain to the origin; B takes
8080..8082 over mutual TLS to the origin. One worker each. Every peer has addresses of its own in 127.1.0.0/16.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess

import certs
import machine
from machine import Part

ORIGIN = {"h1": 18080, "h2": 18081, "tcp": 18082}
PAIR = {"h1": 7080, "h2": 7081, "tcp": 7082}
HOP = {"h1": 7090, "h2": 7091, "tcp": 7092}
INBOUND = {"h1": 8080, "h2": 8081, "tcp": 8082}


class Peer:
    """A and B of one product. `kinds` says what it can carry to an upstream."""

    kinds = ("h1", "h2", "tcp")
    # Tokens a client must offer to be taken for a peer.
    alpn = {"h1": ["http/1.1"], "h2": ["h2"], "tcp": []}

    def __init__(self, name, folder, number, program):
        self.name, self.program = name, program
        self.certs = pathlib.Path(folder)
        self.folder = self.certs / name
        self.folder.mkdir()
        self.a_ip, self.b_ip = f"127.1.{number}.2", f"127.1.{number}.1"
        self.a = self.b = None

    def start(self):
        self.a, self.b = self.start_part("a"), self.start_part("b")
        for part, ip, port in ((self.a, self.a_ip, HOP["h1"]), (self.b, self.b_ip, INBOUND["h1"])):
            machine.wait(f"{self.name} at {ip}:{port}", lambda: self.ready(ip, port), part)

    def ready(self, ip, port):
        return machine.get((ip, port)) == 200 if port == HOP["h1"] else _connects(ip, port)

    def start_part(self, role):
        return Part(self.command(role), self.folder / f"{role}.log", machine.PROXIES)

    def cold_start(self):
        """Seconds until A, started anew, answers a request."""
        part = self.start_part("a")
        try:
            address = (self.a_ip, HOP["h1"])
            return machine.wait(self.name, lambda: machine.get(address) == 200, part) - part.started
        finally:
            part.stop()

    def stop(self):
        for part in (self.a, self.b):
            if part:
                part.stop()
        self.a = self.b = None

    def end(self):
        self.stop()


def _connects(ip, port):
    socket.create_connection((ip, port), timeout=2).close()
    return True


class Tulle(Peer):
    """A sidecar pair under a control plane of its own, which `tulle` runs; its CPU time is not counted."""

    tulle = None
    alpn = {"h1": ["istio-http/1.1"], "h2": ["istio-h2"], "tcp": ["istio"]}
    MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {{name: origin, namespace: bench}}
spec:
  selector: {{app: origin}}
  ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: grpc, port: 81, targetPort: 8081}}, {{name: tcp, port: 82, targetPort: 8082}}]
---
apiVersion: v1
kind: Service
metadata: {{name: plain, namespace: bench}}
spec:
  ports: [{{name: http, port: 80}}, {{name: grpc, port: 81}}, {{name: tcp, port: 82}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: plain, namespace: bench, labels: {{kubernetes.io/service-name: plain}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: http, port: 18080}}, {{name: grpc, port: 18081}}, {{name: tcp, port: 18082}}]
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {{name: origin-1, namespace: bench, labels: {{app: origin}}}}
spec: {{addresses: [{b}], serviceAccount: origin, workload: origin, ports: [{{name: http, port: 8080}}, {{name: grpc, port: 8081}}, {{name: tcp, port: 8082}}]}}
---
apiVersion: tulle.io/v1alpha1
kind: Workload
metadata: {{name: client-1, namespace: bench}}
spec: {{addresses: [{a}], serviceAccount: client, workload: client}}
"""

    def __init__(self, name, folder, number, program):
        super().__init__(name, folder, number, program)
        self.control = None
        self.port = 19000 + 10 * number

    def start_control(self):
        (self.folder / "config").mkdir()
        (self.folder / "config/mesh.yaml").write_text(self.MANIFESTS.format(a=self.a_ip, b=self.b_ip))
        state = self.folder / "state"
        command = [
            self.tulle, "control-plane", "--config-dir", self.folder / "config", "--state-dir", state,
            "--xds-address", f"127.0.0.1:{self.port}", "--admin-address", f"127.0.0.1:{self.port + 1}",
            "--ca-cert", self.certs / "ca.pem", "--ca-key", self.certs / "ca.key",
        ]
        self.control = Part(command, self.folder / "control.log", machine.OTHERS)
        admin = ("127.0.0.1", self.port + 1)
        machine.wait("control plane", lambda: machine.get(admin, "/healthz/ready", "localhost") == 200, self.control)
        for account in ("client", "origin"):
            words = [self.tulle, "token", "create", "--state-dir", state, "-n", "bench", "-s", account]
            (self.folder / f"{account}.token").write_bytes(subprocess.check_output([str(word) for word in words]))

    def start(self):
        if not self.control:
            self.start_control()
        super().start()

    def command(self, role):
        account, ip = ("client", self.a_ip) if role == "a" else ("origin", self.b_ip)
        words = [
            self.program, "--namespace", "bench", "--workload", account, "--service-account", account,
            "--control-plane", f"127.0.0.1:{self.port}", "--trust-bundle", self.folder / "state/trust-bundle.pem",
            "--token", self.folder / f"{account}.token", "--admin", f"{ip}:15000", "--status", f"{ip}:15020",
            "--workers", "1",
        ]
        if role == "b":
            for kind, port in INBOUND.items():
                words += ["--inbound", f"{ip}:{port}=127.0.0.1:{ORIGIN[kind]}"]
            return words
        for kind, port in (("h1", 80), ("h2", 81), ("tcp", 82)):
            words += ["--outbound", f"{ip}:{PAIR[kind]}=origin:{port}", "--outbound", f"{ip}:{HOP[kind]}=plain:{port}"]
        return words

    def ready(self, ip, port):
        return machine.get((ip, 15020), "/healthz/ready", "localhost") == 200 and super().ready(ip, port)

    def end(self):
        super().end()
        if self.control:
            self.control.stop()


class Envoy(Peer):
    """HTTP connection manager and router, nothing else."""

    def command(self, role):
        file = self.folder / f"{role}.json"
        file.write_text(json.dumps(self.bootstrap(role)))
        return [
            self.program, "-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "warning",
            "--base-id", str(os.getpid() % 10000),
        ]

    def bootstrap(self, role):
        routes = []
        if role == "b":
            routes = [(self.b_ip, INBOUND[k], k, "127.0.0.1", ORIGIN[k], "down") for k in INBOUND]
        else:
            routes = [(self.a_ip, PAIR[k], k, self.b_ip, INBOUND[k], "up") for k in PAIR]
            routes += [(self.a_ip, HOP[k], k, "127.0.0.1", ORIGIN[k], None) for k in HOP]
        names = [f"{kind}_{port}" for _, port, kind, *_ in routes]
        return {
            "static_resources": {
                "listeners": [self.listener(role, name, *route) for name, route in zip(names, routes)],
                "clusters": [self.cluster(role, name, *route) for name, route in zip(names, routes)],
            }
        }

    def context(self, role, peer):
        pem = lambda name: {"filename": str(self.certs / name)}
        san = {"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}
        if peer:
            san = {"san_type": "URI", "matcher": {"exact": certs.identity(peer)}}
        return {
            "tls_certificates": [{"certificate_chain": pem(f"{role}.pem"), "private_key": pem(f"{role}.key")}],
            "validation_context": {"trusted_ca": pem("ca.pem"), "match_typed_subject_alt_names": [san]},
        }

    def listener(self, role, name, ip, port, kind, _upstream, _upstream_port, tls):
        ext = "type.googleapis.com/envoy.extensions."
        if kind == "tcp":
            network = {
                "name": "tcp",
                "typed_config": {
                    "@type": ext + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": name,
                },
            }
        else:
            route = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
            network = {
                "name": "http",
                "typed_config": {
                    "@type": ext + "filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": name, "generate_request_id": False, "codec_type": "AUTO",
                    "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
                    "http_filters": [
                        {"name": "router", "typed_config": {"@type": ext + "filters.http.router.v3.Router"}}
                    ],
                },
            }
        chain = {"filters": [network]}
        if tls == "down":
            common = self.context(role, None) | ({"alpn_protocols": self.alpn[kind]} if kind != "tcp" else {})
            chain["transport_socket"] = {
                "name": "tls",
                "typed_config": {
                    "@type": ext + "transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": common, "require_client_certificate": True,
                },
            }
        address = {"socket_address": {"address": ip, "port_value": port}}
        return {"name": name, "address": address, "filter_chains": [chain]}

    def cluster(self, role, name, _ip, _port, kind, upstream, upstream_port, tls):
        ext = "type.googleapis.com/envoy.extensions."
        address = {"socket_address": {"address": upstream, "port_value": upstream_port}}
        limits = {"max_connections": 100000, "max_requests": 100000, "max_pending_requests": 100000}
        cluster = {
            "name": name, "type": "STATIC", "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {
                "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }
        if kind == "h2":
            options = ext + "upstreams.http.v3.HttpProtocolOptions"
            cluster["typed_extension_protocol_options"] = {
                options.split("/")[1]: {"@type": options, "explicit_http_config": {"http2_protocol_options": {}}}
            }
        if tls == "up":
            common = self.context(role, "b") | ({"alpn_protocols": self.alpn[kind]} if kind != "tcp" else {})
            cluster["transport_socket"] = {
                "name": "tls",
                "typed_config": {
                    "@type": ext + "transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "b.bench", "common_tls_context": common,
                },
            }
        return cluster


class HaProxy(Peer):
    def command(self, role):
        d = self.certs
        lines = [
            "global", " nbthread 1", " maxconn 4000", "defaults", " mode http", " option http-keep-alive",
            " http-reuse always", " timeout connect 5s", " timeout client 1h", " timeout server 1h",
        ]
        serves, dials = f"ssl crt {d}/b.both ca-file {d}/ca.pem verify required", ""
        routes = [(self.b_ip, INBOUND[k], k, f"127.0.0.1:{ORIGIN[k]}") for k in INBOUND]
        if role == "a":
            serves, dials = "", f"ssl crt {d}/a.both ca-file {d}/ca.pem verify required sni str(b.bench) verifyhost b.bench"
            routes = [(self.a_ip, PAIR[k], k, f"{self.b_ip}:{INBOUND[k]}") for k in PAIR]
            routes += [(self.a_ip, HOP[k], k, f"127.0.0.1:{ORIGIN[k]}") for k in HOP]
        for ip, port, kind, upstream in routes:
            tls = "" if port in HOP.values() else dials
            alpn = f"alpn {self.alpn[kind][0]}" if serves and kind != "tcp" else ""
            # Without TLS, HTTP/2 is declared; over TLS it is negotiated.
            plain_h2 = "proto h2" if kind == "h2" and not serves else ""
            upstream_h2 = ("alpn h2" if tls else "proto h2") if kind == "h2" else ""
            mode = [" mode tcp", " option splice-auto"] if kind == "tcp" else []
            lines += [f"frontend f{port}", f" bind {ip}:{port} {serves} {alpn} {plain_h2}", *mode]
            lines += [f" default_backend b{port}", f"backend b{port}", *mode, f" server s {upstream} {tls} {upstream_h2}"]
        file = self.folder / f"{role}.cfg"
        file.write_text("\n".join(lines) + "\n")
        return [self.program, "-f", file]


class Nginx(Peer):
    kinds = ("h1", "tcp")

    def command(self, role):
        d, dir_ = self.certs, self.folder / role
        dir_.mkdir(exist_ok=True)
        dials = (
            f"proxy_ssl_certificate {d}/a.pem; proxy_ssl_certificate_key {d}/a.key; proxy_ssl_name b.bench;"
            f"proxy_ssl_trusted_certificate {d}/ca.pem; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.3;"
        )
        serves = (
            f"ssl_certificate {d}/b.pem; ssl_certificate_key {d}/b.key; ssl_client_certificate {d}/ca.pem;"
            "ssl_verify_client on; ssl_protocols TLSv1.3;"
        )
        http = stream = ""
        routes = [(self.b_ip, INBOUND[k], k, f"127.0.0.1:{ORIGIN[k]}", False) for k in self.kinds]
        if role == "a":
            routes = [(self.a_ip, PAIR[k], k, f"{self.b_ip}:{INBOUND[k]}", True) for k in self.kinds]
            routes += [(self.a_ip, HOP[k], k, f"127.0.0.1:{ORIGIN[k]}", False) for k in self.kinds]
        for ip, port, kind, upstream, dial in routes:
            listen = f"listen {ip}:{port} ssl; {serves}" if role == "b" else f"listen {ip}:{port};"
            if kind == "tcp":
                tls = f"proxy_ssl on; {dials}" if dial else ""
                stream += f"server {{ {listen} {tls} proxy_pass {upstream}; proxy_buffer_size 64k; }}\n"
            else:
                scheme = "https" if dial else "http"
                http += (
                    f"upstream u{port} {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n"
                    f"server {{ {listen} {dials if dial else ''} location / {{ proxy_pass {scheme}://u{port};"
                    "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $http_host; } }\n"
                )
        module = "/usr/lib/nginx/modules/ngx_stream_module.so"
        load = f"load_module {module};" if pathlib.Path(module).exists() else ""
        paths = " ".join(f"{p}_temp_path {dir_}/{p};" for p in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        file = self.folder / f"{role}.conf"
        file.write_text(
            f"{load} worker_processes 1; daemon off; pid {dir_}/pid; error_log {dir_}/error.log;"
            " events { worker_connections 8000; }\n"
            f"http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; {paths}\n{http} }}\n"
            f"stream {{\n{stream} }}\n"
        )
        return [self.program, "-p", dir_, "-e", dir_ / "error.log", "-c", file]


class Origin:
    """nginx that answers `body` bytes, over HTTP/1 and HTTP/2 without TLS; the bulk server is `drive.pump`."""

    def __init__(self, folder, body, kinds=("h1", "h2")):
        dir_ = pathlib.Path(folder) / "origin"
        dir_.mkdir()
        paths = " ".join(f"{p}_temp_path {dir_}/{p};" for p in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        servers = "".join(
            f"server {{ listen 127.0.0.1:{port}{h2} backlog=4096; location / {{ return 200 '{'x' * body}'; }} }}\n"
            for port, h2 in ((ORIGIN[kind], " http2" if kind == "h2" else "") for kind in kinds)
        )
        (dir_ / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; pid {dir_}/pid; error_log {dir_}/error.log; "
            f"events {{ worker_connections 8000; }} http {{ access_log off; {paths} keepalive_timeout 1h;"
            f"keepalive_requests 1000000000; http2_max_concurrent_streams 1000;\n{servers} }}\n"
        )
        words = ["nginx", "-p", dir_, "-e", dir_ / "error.log", "-c", dir_ / "nginx.conf"]
        self.part = Part(words, dir_ / "log", machine.OTHERS)
        machine.wait("origin", lambda: machine.get(("127.0.0.1", ORIGIN["h1"])) == 200, self.part)


def found(folder, proxy, tulle):
    """Every peer that is installed. TULLE_BENCH_ENVOY, _HAPROXY and _NGINX name other programs; TULLE_BENCH_BASE is
    another build of `tulle-proxy`, to compare with."""
    Tulle.tulle = tulle
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "tulle/python"
    inside = list(cache.glob("lib/python3*/site-packages/envoy/_bin/envoy"))
    envoy = os.environ.get("TULLE_BENCH_ENVOY") or (inside[0] if inside else shutil.which("envoy"))
    candidates = [
        ("tulle", Tulle, proxy),
        ("base", Tulle, os.environ.get("TULLE_BENCH_BASE")),
        ("envoy", Envoy, envoy),
        ("haproxy", HaProxy, os.environ.get("TULLE_BENCH_HAPROXY") or shutil.which("haproxy", path="/usr/sbin:/usr/bin")),
        ("nginx", Nginx, os.environ.get("TULLE_BENCH_NGINX") or shutil.which("nginx", path="/usr/sbin:/usr/bin")),
    ]
    return [
        kind(name, folder, number, pathlib.Path(program))
        for number, (name, kind, program) in enumerate(candidates, start=20)
        if program
    ]
