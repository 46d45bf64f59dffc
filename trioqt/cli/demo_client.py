"""A client of the demo: the books on what it said and heard, and the comparison of every byte that comes back.

The server says back whatever it hears, so what a client has said and not yet heard back is what it is owed.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import trio

from trioqt.core.errors import SocketError
from trioqt.core.events import Connected, Disconnected, ErrorOccurred, Event, ReadChannelFinished
from trioqt.core.socket_state import SocketState
from trioqt.sockets.tcp_socket import TcpSocket

__all__ = ["BrokenPromiseError", "Client", "Surroundings"]


class BrokenPromiseError(Exception):
    """What came back is not what was said, or something else is not as it must be."""


@attrs.frozen
class Surroundings:
    """What a client needs besides itself."""

    port: int
    tell: Callable[[Client, str], None]
    """Called with what happens to it, as it happens."""
    pull_the_plug: Callable[[int], None]
    """Reset the connection that comes from this port, at the server's end."""


@attrs.define(eq=False)
class Client:
    """One client: its plan, and the books on what it said and heard."""

    number: int
    kind: str
    """As in "a client that ..."."""
    behave: Callable[[Client, Surroundings], Awaitable[str]]
    """What it does once it is connected; says how it ended."""
    rng: random.Random
    seconds: float
    """How long the demo takes; a client has its share of it."""
    sock: TcpSocket = attrs.field(factory=TcpSocket, init=False)
    sent: int = attrs.field(default=0, init=False)
    back: int = attrs.field(default=0, init=False)
    ending: str = attrs.field(default="", init=False)
    """How it ended; empty while it runs, and if it failed."""
    cuts: int = attrs.field(default=0, init=False)
    """How many of its calls were cancelled, and made again."""
    problem: str = attrs.field(default="", init=False)
    has_finished: bool = attrs.field(default=False, init=False)
    """It has said all, and sends no more."""
    owed: bytearray = attrs.field(factory=bytearray, init=False)
    """What it has said and not yet heard back."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """Cancelled, it is cancelled as a whole."""

    async def run(self, around: Surroundings) -> None:
        """Come, do as the kind says, leave; whatever goes wrong is written down."""
        try:
            await trio.sleep(self.rng.uniform(0, 0.5) * self.seconds)
            async with self.sock.events(Connected, ReadChannelFinished, ErrorOccurred, Disconnected) as events:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._follow, events, around)
                    ending = "cancelled"
                    with self.scope:
                        async with self.sock:
                            await self.sock.connect_to_host("127.0.0.1", around.port)
                            ending = await self.behave(self, around)
            self._close_the_books(ending)
        except* (SocketError, BrokenPromiseError) as group:
            self.problem = str(_first(group))
        finally:
            if not self.ending:
                self.problem = self.problem or "it did not come to an end"
                if self.owed:
                    self.problem += f" ({len(self.owed):,} bytes had not come back)"
        around.tell(self, f"{self.ending or self.problem}: {self.sent:,} bytes sent, {self.back:,} back")

    def left_open(self) -> bool:
        """Has it a connection, though it is over?"""
        return self.sock.state() is not SocketState.UNCONNECTED or self.sock.socket_descriptor() != -1

    async def _follow(self, events: AsyncIterator[Event], around: Surroundings) -> None:
        async for event in events:
            name = type(event).__name__
            around.tell(self, f"{name} {event.kind.name}" if isinstance(event, ErrorOccurred) else name)

    def _close_the_books(self, ending: str) -> None:
        if self.owed and ending != "cancelled":
            raise BrokenPromiseError(f"{len(self.owed):,} bytes never came back")
        self.ending = ending

    # -- what the kinds are made of ---------------------------------------------------------

    async def pause(self, share: float) -> None:
        """A moment of nothing: this share of the demo, give or take half of it."""
        await trio.sleep(self.rng.uniform(0.5, 1.5) * share * self.seconds)

    def words(self, least: int, most: int) -> bytes:
        """Something to say that nobody can guess."""
        return self.rng.randbytes(self.rng.randint(least, most))

    async def say(self, data: bytes) -> None:
        """Send ``data``, which must come back."""
        self.owed += data
        self.sent += len(data)
        await self.sock.send_all(data)

    async def say_or_not(self, data: bytes) -> None:
        """The same; and if this is cancelled, ``data`` must not come back."""
        await self.sock.send_all(data)
        self.owed += data
        self.sent += len(data)

    def hear(self, data: bytes) -> None:
        """Compare what came back with what was said."""
        right = len(data)
        if not self.owed.startswith(data):
            pairs = zip(data, self.owed, strict=False)
            right = next((place for place, (is_, should) in enumerate(pairs) if is_ != should), len(self.owed))
        del self.owed[:right]
        self.back += right
        if right < len(data):
            raise BrokenPromiseError(f"byte {self.back + 1:,} came back wrong")

    async def hear_some(self) -> None:
        """Receive once."""
        data = await self.sock.receive_some()
        if not data:
            raise BrokenPromiseError("the server finished too soon")
        self.hear(data)

    async def hear_all(self) -> None:
        """Receive until everything said has come back."""
        while self.owed:
            await self.hear_some()

    async def finish(self) -> None:
        """Say no more."""
        await self.sock.send_eof()
        self.has_finished = True

    async def hear_to_the_end(self) -> None:
        """Receive until the server finishes."""
        async for data in self.sock:
            self.hear(data)


def _first(exc: BaseException) -> BaseException:
    return _first(exc.exceptions[0]) if isinstance(exc, BaseExceptionGroup) else exc
