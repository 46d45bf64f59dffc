"""A source of events that is no socket."""

from __future__ import annotations

import trio

from trioqt import ErrorKind, ErrorOccurred, Event
from trioqt.sockets.subscription import EventSource

__all__ = ["Source", "fact"]


def fact(number: int) -> ErrorOccurred:
    """One of many different facts."""
    return ErrorOccurred(ErrorKind.UNKNOWN, str(number))


class Source(EventSource):
    """Something that can be listened to, and tells what a test wants."""

    def tell(self, *events: Event) -> None:
        """As a socket does."""
        for event in events:
            self._post(event)

    async def tell_later(self, *told: tuple[float, Event]) -> None:
        """Each after so many seconds more."""
        for delay, event in told:
            await trio.sleep(delay)
            self.tell(event)

    def end(self) -> None:
        """As leaving a socket's block does."""
        self._end_events()

    def listeners(self) -> int:
        """How many there are."""
        return len(self._subscriptions)
