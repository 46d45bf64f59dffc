"""Ports for programs that bind them later: nobody has them, and the system gives them to nobody by itself.

A port that the system chose (``bind`` to 0) is its to choose again as soon as it is free, for any other test's listener
or client.  It did, in one of a hundred runs of a test that started a server on one.  So these are below the range that
Linux chooses from (``ip_local_port_range``, 32768 to 60999), and each process of a run of tests has its own share.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

__all__ = ["unused_port"]

FIRST, SHARE, SHARES = 20_000, 1_000, 12


def _share() -> Iterator[int]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = FIRST + int(worker) % SHARES * SHARE
    begin = os.getpid()  # so that two runs at once do not go in step
    return (first + (begin + count) % SHARE for count in itertools.count())


_ports = _share()


def unused_port() -> int:
    """One that no socket has, for TCP and UDP, on 127.0.0.1 and ::1."""
    return next(port for port in itertools.islice(_ports, SHARE) if _is_unused(port))


def _is_unused(port: int) -> bool:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as sock:
                try:
                    sock.bind((host, port))
                except OSError:
                    return False
    return True
