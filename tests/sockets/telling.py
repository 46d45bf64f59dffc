"""What a socket tells, as a list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from tests.networks import Secure, this_network
from trioqt import AbstractSocket, Encrypted, Event, ModeChanged

__all__ = ["of_tcp", "told"]

T = TypeVar("T")


def of_tcp(events: Iterable[T]) -> list[T]:
    """Without what only TLS tells, so that a test says the same of all networks.

    That it is told, and where in the order, is tested in test_ssl_socket.py.
    """
    is_secure = isinstance(this_network(), Secure)
    return [event for event in events if not (is_secure and isinstance(event, Encrypted | ModeChanged))]


@asynccontextmanager
async def told(sock: AbstractSocket, *kinds: type[Event]) -> AsyncIterator[list[Event]]:
    """The events that ``sock`` posts while the block runs; the list is filled when it is left."""
    seen: list[Event] = []
    async with sock.events(*kinds) as events:
        yield seen
    seen.extend(of_tcp([event async for event in events]))
