"""What a socket tells, as a list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trioqt import AbstractSocket, Event

__all__ = ["told"]


@asynccontextmanager
async def told(sock: AbstractSocket, *kinds: type[Event]) -> AsyncIterator[list[Event]]:
    """The events that ``sock`` posts while the block runs; the list is filled when it is left."""
    seen: list[Event] = []
    async with sock.events(*kinds) as events:
        yield seen
    async for event in events:
        seen.append(event)
