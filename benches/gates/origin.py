#!/usr/bin/env python3
"""An HTTP/2 origin of whose writes nothing depends on timing: what one read brings is answered by one write.

usage: benches/gates/origin.py PORT BYTES

A server that writes a reply's head and body apart lets the load on the machine decide whether its peer reads them in one
piece, and so what that peer does. Answers every request without a body; reads no header, keeps no window.
"""

import socket
import struct
import sys
import threading

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
ACK = END_STREAM = 1
END_HEADERS = 4


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(length):
    """`:status: 200`, `content-length`, `content-type`, `server` without use of the table of what was sent before."""
    text = lambda name, value: bytes([0x0F, name - 15, len(value)]) + value
    return b"\x88" + text(28, str(length).encode()) + text(31, b"text/plain") + text(54, b"origin")


def frames(got):
    """Whole frames at the start of `got`, which loses them."""
    while len(got) >= 9 and len(got) >= 9 + int.from_bytes(got[:3], "big"):
        end = 9 + int.from_bytes(got[:3], "big")
        yield got[3], got[4], int.from_bytes(got[5:9], "big"), bytes(got[9:end])
        del got[:end]


def serve(stream, body):
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    block = head(len(body))
    got = bytearray(stream.recv(len(PREFACE), socket.MSG_WAITALL))
    if got != PREFACE:
        return
    got.clear()
    stream.sendall(frame(SETTINGS, 0, 0, b""))
    while True:
        out = bytearray()
        for kind, flags, number, payload in frames(got):
            if kind == HEADERS:
                out += frame(HEADERS, END_HEADERS, number, block) + frame(DATA, END_STREAM, number, body)
            elif kind in (SETTINGS, PING) and not flags & ACK:
                out += frame(kind, ACK, 0, payload if kind == PING else b"")
        if out:
            stream.sendall(out)
        more = stream.recv(1 << 16)
        if not more:
            return
        got += more


def main():
    body = b"x" * int(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], body), daemon=True).start()


if __name__ == "__main__":
    main()
