"""The names that scenarios look up, and a small DNS server that knows them.

Every other name is unknown.  ``slow.test`` takes its time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import threading
import time

__all__ = ["DELAYS", "NAMES", "serve"]

NAMES: dict[str, tuple[str, ...]] = {
    "v4.test": ("127.0.0.1",),
    "v6.test": ("::1",),
    "both.test": ("127.0.0.1", "::1"),
    "two.test": ("127.0.0.2", "127.0.0.1"),
    "dead.test": ("127.0.0.2", "127.0.0.3"),
    "slow.test": ("127.0.0.1",),
}
"""The addresses of each name, in the order of the answer."""

DELAYS: dict[str, float] = {"slow.test": 0.4}
"""How many seconds the answer takes."""

# RFC 1035: types of a question, and what the answer says of itself (a response, recursion desired and available).
FAMILIES = {1: socket.AF_INET, 28: socket.AF_INET6}
RESPONSE = 0x8180
UNKNOWN_NAME = 3
LIFETIME = 30

# prctl(2): the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1


def serve(address: str) -> None:
    """Answer on port 53 of ``address``, from a process that ends with this one.

    A process and not a thread, because Qt may hold the interpreter's lock while it looks a name up.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 53))
    parent = os.getpid()
    if os.fork():
        sock.close()
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    # Whoever reads what the parent prints must not wait for this process.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    while True:
        query, sender = sock.recvfrom(4096)
        threading.Thread(target=reply, args=(sock, query, sender), daemon=True).start()


def reply(sock: socket.socket, query: bytes, sender: tuple[str, int]) -> None:
    name, answer = answer_to(query)
    time.sleep(DELAYS.get(name, 0))
    sock.sendto(answer, sender)


def answer_to(query: bytes) -> tuple[str, bytes]:
    """The name that a query is about, and the response to it."""
    labels = []
    at = 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    name = ".".join(labels).lower()
    (kind,) = struct.unpack_from("!H", query, at + 1)
    family = FAMILIES.get(kind)
    records = b""
    count = 0
    for address in NAMES.get(name, ()):
        if family == (socket.AF_INET6 if ":" in address else socket.AF_INET):
            packed = socket.inet_pton(family, address)
            records += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, LIFETIME, len(packed)) + packed
            count += 1
    flags = RESPONSE if name in NAMES else RESPONSE | UNKNOWN_NAME
    return name, query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + query[12 : at + 5] + records
