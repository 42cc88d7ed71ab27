"""One authority for all: a P-256 root and a certificate each for A, B and a client of B, made with openssl."""

import pathlib
import subprocess

NAMES = {"a": "client", "b": "origin", "c": "outsider"}


def identity(name):
    return f"spiffe://cluster.local/ns/bench/sa/{NAMES[name]}"


def make(folder):
    """Writes ca.pem, ca.key and NAME.pem, NAME.key, NAME.both (certificate and key) into `folder`."""
    folder = pathlib.Path(folder)

    def openssl(*words):
        subprocess.run(["openssl", *[str(word) for word in words]], check=True, capture_output=True, cwd=folder)

    def key(name):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.ec")
        openssl("pkcs8", "-topk8", "-nocrypt", "-in", f"{name}.ec", "-out", f"{name}.key")

    key("ca")
    openssl(
        "req", "-x509", "-new", "-key", "ca.key", "-subj", "/O=bench", "-days", 30, "-out", "ca.pem",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )
    for name in NAMES:
        key(name)
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}.bench", "-out", f"{name}.csr")
        dns = "" if name == "c" else f",DNS:{name}.bench"
        (folder / "extensions").write_text(
            f"subjectAltName=URI:{identity(name)}{dns}\nkeyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\n"
        )
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", 7,
            "-extfile", "extensions", "-out", f"{name}.pem",
        )
        both = (folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text()
        (folder / f"{name}.both").write_text(both)
