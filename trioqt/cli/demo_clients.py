"""The demo's clients: what each kind says, and the comparison of every byte that comes back.

The server says back whatever it hears, so what a client has said and not yet heard back is what it is owed.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import attrs
import trio

from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.events import Connected, Disconnected, ErrorOccurred, Event, ReadChannelFinished
from trioqt.core.states import SocketState
from trioqt.sockets.tcp_socket import TcpSocket

__all__ = ["KINDS", "Client", "Surroundings", "BrokenPromiseError"]

ROUNDS = 10
"""How often each client says something."""

# A call that was cancelled so often is let through: its answer may need more of the server's steps than it was given.
CUTS_IN_A_ROW = 20


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
                            ending = await KINDS[self.kind](self, around)
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

    async def pause(self) -> None:
        """A moment of nothing; all of them together take three tenths of the demo, give or take."""
        await trio.sleep(self.rng.uniform(0.5, 1.5) * 0.3 * self.seconds / ROUNDS)

    def words(self, least: int, most: int) -> bytes:
        """Something to say that nobody can guess."""
        return self.rng.randbytes(self.rng.randint(least, most))

    async def say(self, data: bytes) -> None:
        """Send ``data``, which must come back."""
        self.owed += data
        self.sent += len(data)
        await self.sock.send_all(data)

    def hear(self, data: bytes) -> None:
        """Compare what came back with what was said."""
        if not self.owed.startswith(data):
            pairs = zip(data, self.owed, strict=False)
            at = next((place for place, (is_, should) in enumerate(pairs) if is_ != should), len(self.owed))
            raise BrokenPromiseError(f"byte {self.back + at + 1:,} came back wrong")
        del self.owed[: len(data)]
        self.back += len(data)

    async def say_or_not(self, data: bytes) -> None:
        """The same; and if this is cancelled, ``data`` must not come back."""
        await self.sock.send_all(data)
        self.owed += data
        self.sent += len(data)

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


# ---- the kinds -----------------------------------------------------------------------------


async def talk(client: Client, around: Surroundings) -> str:
    """Says a line, waits for it to come back, says the next."""
    for _ in range(ROUNDS):
        await client.pause()
        await client.say(client.words(10, 500).hex().encode() + b"\n")
        client.hear(await client.sock.receive_line())
    return "in order"


async def stream(client: Client, around: Surroundings) -> str:
    """Sends and receives at once, far more than any buffer holds."""

    async def send() -> None:
        for _ in range(ROUNDS):
            await client.pause()
            await client.say(client.words(20_000, 200_000))
        await client.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await client.hear_to_the_end()
    return "in order"


async def half_close(client: Client, around: Surroundings) -> str:
    """Says all it has, finishes sending, and only then listens."""
    for _ in range(ROUNDS):
        await client.pause()
        await client.say(client.words(100, 6_000))
    await client.finish()
    around.tell(client, "has finished sending")
    await client.pause()
    await client.hear_to_the_end()
    return "in order"


async def be_cut_short(client: Client, around: Surroundings) -> str:
    """Its calls are cancelled at one step or another, and made again: what was cancelled must not have happened."""
    for _ in range(ROUNDS):
        await client.pause()
        for _ in range(5):
            message = client.words(100, 2_000)
            await _in_spite_of_cuts(client, partial(client.say_or_not, message))
            while client.owed:
                await _in_spite_of_cuts(client, client.hear_some)
    around.tell(client, f"{client.cuts} of its calls were cancelled")
    return "in order"


async def be_cancelled(client: Client, around: Surroundings) -> str:
    """Streams until it is cancelled as a whole, a few steps after something it says."""
    fatal = client.rng.randrange(1, ROUNDS)
    steps = client.rng.randrange(10)

    async def send() -> None:
        for number in range(ROUNDS):
            await client.pause()
            if number == fatal:
                nursery.start_soon(_cancel_after, steps, client.scope)
            await client.say(client.words(20_000, 200_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await client.hear_to_the_end()
    raise BrokenPromiseError("it was cancelled, and went on")


async def get_reset(client: Client, around: Surroundings) -> str:
    """The server resets it while answers are unread: those can still be read, then the failure is told."""
    sock = client.sock
    for _ in range(ROUNDS):
        await client.pause()
        await client.say(client.words(100, 6_000))
        await client.hear_all()
    last_words = client.words(100, 6_000)
    await client.say(last_words)
    while sock.bytes_available() < len(last_words):
        if not await sock.wait_for_ready_read():
            raise BrokenPromiseError("the server finished too soon")
    around.pull_the_plug(sock.local_port())
    await sock.wait_for_disconnected()
    client.hear(await sock.receive_some())
    try:
        await sock.receive_some()
    except SocketError as error:
        if error.kind is ErrorKind.REMOTE_HOST_CLOSED:
            return "reset"
        raise
    raise BrokenPromiseError("it was reset, and not told")


KINDS: dict[str, Callable[[Client, Surroundings], Awaitable[str]]] = {
    "talks": talk,
    "streams": stream,
    "half-closes": half_close,
    "is cut short": be_cut_short,
    "is cancelled": be_cancelled,
    "gets reset": get_reset,
}
"""What a client may be, as in "a client that ..."."""


# ---- cancelling at unlucky moments ---------------------------------------------------------


async def _cancel_after(steps: int, scope: trio.CancelScope) -> None:
    """Cancel ``scope`` after so many of the scheduler's steps."""
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel(reason="an unlucky moment")


async def _in_spite_of_cuts(client: Client, call: Callable[[], Awaitable[None]]) -> None:
    """Make ``call``, cancel it, make it again, until it gets through."""
    for _ in range(CUTS_IN_A_ROW):
        through = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, client.rng.randrange(3), nursery.cancel_scope)
            await call()
            through = True
            nursery.cancel_scope.cancel(reason="it got through")
        if through:
            return
        client.cuts += 1
    await call()


def _first(exc: BaseException) -> BaseException:
    return _first(exc.exceptions[0]) if isinstance(exc, BaseExceptionGroup) else exc
