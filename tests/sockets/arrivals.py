"""Waiting until the network has done something: by what can be observed, never by time.

A network tells how many bytes it holds for a socket and in which TCP state that is, and asking changes nothing.
So a test can say "these bytes are with the system and nobody has read them" before it acts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio
import trio.testing

from tests.networks import Secure, this_network
from trioqt import TcpServer, TcpSocket

__all__ = [
    "accept_queue",
    "bytes_arrived",
    "fill",
    "finish_arrived",
    "open_descriptors",
    "reset_arrived",
    "tcp_state",
    "unread_bytes",
    "until",
]


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks and the network go on until ``condition()``: what is waited for is sure to come."""
    give_up = time.monotonic() + 30  # in real time, whatever the clock of the test is
    while not condition():
        assert time.monotonic() < give_up, "it never came"
        await trio.lowlevel.checkpoint()


def unread_bytes(descriptor: int) -> int:
    """How many bytes the system holds unread."""
    return this_network().unread_bytes(descriptor)


def tcp_state(descriptor: int) -> str:
    """The system's state of a connection."""
    return this_network().tcp_state(descriptor)


def accept_queue(server: TcpServer[Any]) -> int:
    """How many connections wait with the system for the server to accept them."""
    return this_network().accept_queue(server.socket_descriptor())[0]


def open_descriptors() -> set[int]:
    """Of every socket that is open."""
    return this_network().open_descriptors()


async def bytes_arrived(sock: TcpSocket, count: int) -> None:
    """Until ``count`` bytes have come that no call has asked for: the system holds them, or a watcher read ahead."""
    if isinstance(this_network(), Secure) and (bound := sock.read_buffer_size()):
        count = min(count, bound)  # what the bound does not admit is within TLS, which decrypts a whole message
    await until(lambda: unread_bytes(sock.socket_descriptor()) + sock._read_buffer.ahead >= count)


async def finish_arrived(sock: TcpSocket) -> None:
    """Until the system knows that the peer has finished; ``sock`` need not."""
    await until(lambda: sock.socket_descriptor() == -1 or tcp_state(sock.socket_descriptor()) == "CLOSE_WAIT")


async def reset_arrived(sock: TcpSocket) -> None:
    """Until the system knows that the peer has reset the connection; ``sock`` need not."""
    await until(lambda: sock.socket_descriptor() == -1 or tcp_state(sock.socket_descriptor()) == "CLOSED")


async def fill(sock: TcpSocket) -> int:
    """Write to a peer that does not read until the systems on the way and the queue are full; how many bytes."""
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
