"""What all peers share: the bytes they say, how they tell their port, and how many connections they hold."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass

CHUNK = 65536

# Byte i of what is sent; load/tools.c makes the same and checks it.
BLOCK = bytes((at * 31 + at // 256) & 0xFF for at in range(65536))

# What a client asks, and what it must be answered.
REQUEST = BLOCK[:64]
ANSWER = BLOCK[64:128]

BACKLOG = 4096


@dataclass
class Task:
    """What a peer is to do besides its mode: a client connects to ``port``, with ``clients`` at once.

    ``certificate`` is a file with the certificate and the key of a server with TLS.
    """

    port: int = 0
    clients: int = 1
    certificate: str = ""

    def tls(self) -> ssl.SSLContext:
        """What Python's documentation has a server use."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        return context


class Held:
    """How many connections the handlers of the mode idle hold."""

    count = 0


MIB = 2**20


class Counted:
    """How many bytes a receiving handler has seen, and when it tells the sender: once each MiB, and at its last."""

    __slots__ = ("due", "total")

    def __init__(self) -> None:
        self.total = 0
        self.due = MIB

    def add(self, size: int) -> bytes:
        """What to send now: the total in eight bytes, or nothing."""
        self.total += size
        if self.total < self.due:
            return b""
        self.due = (self.total // MIB + 1) * MIB
        return self.total.to_bytes(8, "big")


def ready(port: int = 0) -> None:
    print("listening", port, flush=True)


def check_answer(answer: bytes) -> None:
    if answer != ANSWER:
        die(f"the answer was {answer!r}")


def die(why: str) -> None:
    """End the process at once, whatever a framework does with exceptions in its callbacks."""
    os.write(2, f"peer: {why}\n".encode())
    os._exit(1)


def udp_socket() -> socket.socket:
    """Bound to loopback, for the frameworks that take one ready-made."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock
