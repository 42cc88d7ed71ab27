#!/usr/bin/env python3
"""Writes one container image as an OCI tar, from nothing but files: no daemon, no base image.

    oci.py OUTPUT.tar NAME:TAG --entrypoint /PROGRAM [--user UID:GID] [--env NAME=VALUE]...
        --file SOURCE=/DESTINATION...

The same files give the same bytes. `ctr images import`, `docker load`, `podman load` and `skopeo copy` read it.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import tarfile


def add(archive, path, data, mode=0o644, kind=tarfile.REGTYPE):
    """An entry without the time and the owner of this machine."""
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode, entry.type = len(data), mode, kind
    archive.addfile(entry, io.BytesIO(data))


def layer(files):
    """The one layer of an image, as a tar: `files` are pairs of source and absolute destination."""
    buffer, folders = io.BytesIO(), set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for source, destination in sorted(files, key=lambda pair: pair[1]):
            parts = destination.strip("/").split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    add(archive, folder, b"", 0o755, tarfile.DIRTYPE)
            with open(source, "rb") as file:
                add(archive, "/".join(parts), file.read(), 0o755 if os.access(source, os.X_OK) else 0o644)
    return buffer.getvalue()


def write(output, name, files, entrypoint, user, env=()):
    """Writes the image `name` ("registry/repository:tag") to the file `output`."""
    plain = layer(files)
    packed = gzip.compress(plain, compresslevel=9, mtime=0)
    blobs = []

    def blob(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        blobs.append((digest, data))
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    layer_reference = blob(packed, "layer.v1.tar+gzip")
    config = blob(json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": [entrypoint], "User": user, "Env": list(env)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
    }).encode(), "config.v1+json")
    manifest = blob(json.dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer_reference],
    }).encode(), "manifest.v1+json")
    manifest["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1],
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    with tarfile.open(output, "w", format=tarfile.USTAR_FORMAT) as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add(archive, "index.json", json.dumps(index).encode())
        for digest, data in blobs:
            add(archive, f"blobs/sha256/{digest}", data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("name")
    parser.add_argument("--entrypoint", required=True)
    parser.add_argument("--user", default="1337:1337")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--file", action="append", required=True, metavar="SOURCE=/DESTINATION")
    args = parser.parse_args()
    files = [tuple(pair.rsplit("=", 1)) for pair in args.file]
    write(args.output, args.name, files, args.entrypoint, args.user, args.env)


if __name__ == "__main__":
    main()
