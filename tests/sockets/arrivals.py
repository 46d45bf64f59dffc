"""Waiting until the network has done something: by what can be observed, never by time.

The kernel of this machine tells how many bytes it holds for a socket and in which TCP state that is, and asking
changes nothing.  So a test can say "these bytes are with the system and nobody has read them" before it acts.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable

import trio

from trioqt import TcpSocket

__all__ = [
    "TCP_CLOSE",
    "bytes_arrived",
    "fill",
    "finish_arrived",
    "reset_arrived",
    "tcp_state",
    "unread_bytes",
    "until",
]

# The first byte of struct tcp_info: include/net/tcp_states.h.
TCP_CLOSE = 7
TCP_CLOSE_WAIT = 8


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks and the network go on until ``condition()``."""
    while not condition():
        await trio.lowlevel.checkpoint()


def unread_bytes(descriptor: int) -> int:
    """How many bytes the kernel holds unread."""
    count: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]
    return count


def tcp_state(descriptor: int) -> int:
    """The kernel's state of a connection."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


async def bytes_arrived(sock: TcpSocket, count: int) -> None:
    """Until the kernel holds ``count`` bytes for ``sock``, which nobody has read."""
    await until(lambda: unread_bytes(sock.socket_descriptor()) >= count)


async def finish_arrived(sock: TcpSocket) -> None:
    """Until the kernel knows that the peer has finished; ``sock`` need not."""
    await until(lambda: tcp_state(sock.socket_descriptor()) == TCP_CLOSE_WAIT)


async def reset_arrived(sock: TcpSocket) -> None:
    """Until the kernel knows that the peer has reset the connection; ``sock`` need not."""
    await until(lambda: tcp_state(sock.socket_descriptor()) == TCP_CLOSE)


async def fill(sock: TcpSocket) -> int:
    """Write to a peer that does not read until the kernels on the way and the queue are full; how many bytes."""
    written = 0
    while True:
        try:
            while True:
                written += sock.write(bytes(16384))
        except trio.WouldBlock:
            # The drainer may get some more out at once; full is what is full when nothing moves any more.
            await trio.testing.wait_all_tasks_blocked()
            if sock.bytes_to_write() >= 65536:
                return written
