"""The kinds of clients in the demo: what each of them does, and what it must see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from trioqt.cli.demo_client import BrokenPromiseError, Client, Surroundings
from trioqt.core.errors import ErrorKind, SocketError

__all__ = ["KINDS"]

# How often each client says something, and how long it waits before that: 0.3 of the demo's time in all.
ROUNDS = 10
PAUSE = 0.03

# A call that was cancelled so often is let through: its answer may need more of the server's steps than it was given.
CUTS_IN_A_ROW = 20


async def talk(client: Client, around: Surroundings) -> str:
    """Says a line, waits for it to come back, says the next."""
    for _ in range(ROUNDS):
        await client.pause(PAUSE)
        await client.say(client.words(10, 500).hex().encode() + b"\n")
        client.hear(await client.sock.receive_line())
    return "in order"


async def stream(client: Client, around: Surroundings) -> str:
    """Sends and receives at once, far more than any buffer holds."""

    async def send() -> None:
        for _ in range(ROUNDS):
            await client.pause(PAUSE)
            await client.say(client.words(20_000, 200_000))
        await client.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await client.hear_to_the_end()
    return "in order"


async def half_close(client: Client, around: Surroundings) -> str:
    """Says all it has, finishes sending, and only then listens."""
    for _ in range(ROUNDS):
        await client.pause(PAUSE)
        await client.say(client.words(100, 6_000))
    await client.finish()
    around.tell(client, "has finished sending")
    await client.pause(PAUSE)
    await client.hear_to_the_end()
    return "in order"


async def be_cut_short(client: Client, around: Surroundings) -> str:
    """Its calls are cancelled at one step or another, and made again: what was cancelled must not have happened."""
    for _ in range(ROUNDS):
        await client.pause(PAUSE)
        for _ in range(5):
            message = client.words(100, 2_000)
            await _in_spite_of_cuts(client, partial(client.say_or_not, message))
            while client.owed:
                await _in_spite_of_cuts(client, client.hear_some)
    await client.finish()
    await client.hear_to_the_end()  # a byte too many would come here
    around.tell(client, f"{client.cuts} of its calls were cancelled")
    return "in order"


async def be_cancelled(client: Client, around: Surroundings) -> str:
    """Streams until it is cancelled as a whole, a few steps after something it says."""
    fatal = client.rng.randrange(1, ROUNDS)
    steps = client.rng.randrange(10)

    async def send() -> None:
        for number in range(ROUNDS):
            await client.pause(PAUSE)
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
        await client.pause(PAUSE)
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
