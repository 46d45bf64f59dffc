"""A cancelled drain cuts what is left and forgets nothing; without a cancellation nobody who had come is lost."""

from __future__ import annotations

import functools
import signal
from collections.abc import Awaitable, Callable
from typing import Literal

import attrs
import trio

from tests.cancel.kit import GOOD, NETWORKS, Case, Medium, Play, Situation, Trial, turn
from tests.cancel.serving import NAMES, Client, Echo, Manner, cancelled_twice, come, serve_two_more
from trioqt import Draining, DrainReport, TcpServer, TcpSocket, stop_on_signals

__all__ = ["CASES"]

# Long enough for everybody who wants to end.
GRACE = 60.0

Start = Callable[[Trial, TcpServer[TcpSocket]], Callable[[], Awaitable[DrainReport | None]]]


def by_drain(trial: Trial, server: TcpServer[TcpSocket]) -> Callable[[], Awaitable[DrainReport]]:
    return functools.partial(server.drain, GRACE)


# One that does nothing to a program that does not wait for it: a cancelled call leaves it undelivered.
SIGNAL = signal.SIGURG


class RaiseSignal(trio.TaskStatus[None]):
    """As soon as somebody waits for it."""

    def started(self, value: None = None) -> None:
        signal.raise_signal(SIGNAL)


def by_signal(trial: Trial, server: TcpServer[TcpSocket]) -> Callable[[], Awaitable[DrainReport]]:
    return functools.partial(stop_on_signals, server, GRACE, signals=[SIGNAL], task_status=RaiseSignal())


Style = Literal["serve", "accept"]
Beside = Callable[[Trial, TcpServer[TcpSocket]], Awaitable[None]]


@attrs.define(eq=False)
class Taker:
    """Takes connections one by one, as a program does without ``serve``."""

    server: TcpServer[TcpSocket]
    echo: Echo

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            async for sock in self.server:
                nursery.start_soon(self._answer, sock)

    async def _answer(self, sock: TcpSocket) -> None:
        async with sock:
            try:
                await self.echo(sock)
            except trio.ClosedResourceError:
                self.echo.cut.append(-1)


def draining(
    start: Start, *, style: Style = "serve", manner: Manner = "asks", beside: Beside | None = None, twice: bool = False
) -> Play:
    """Who had come is answered to the end, unless it is cancelled: then all ends, at once, and who is cut is reset."""

    async def play(trial: Trial) -> None:
        clients = [Client(name) for name in NAMES]
        async with trial.server() as server:
            echo = Echo(server, cleans_up=twice)
            await server.listen(GOOD)
            run = functools.partial(server.serve, echo) if style == "serve" else Taker(server, echo).run
            ended = trio.Event()

            async def serve() -> None:
                await run()
                ended.set()

            await come(trial, server.server_port(), clients, manner)
            await turn()
            trial.nursery.start_soon(serve)
            if beside is not None:
                trial.nursery.start_soon(beside, trial, server)
            reports: list[DrainReport | None] = []

            async def call() -> None:
                reports.append(await start(trial, server)())

            call.__qualname__ = "TcpServer.drain" if start is by_drain else "stop_on_signals"
            if twice:
                await cancelled_twice(trial, call, trio.lowlevel.checkpoint)
            else:
                await trial.call(call)
            if not server.is_draining():
                trial.expect(trial.cancelled, "it drains unless it is cancelled before")
                server.close()
            trial.equal("listening", server.is_listening(), False)
            await ended.wait()
            trial.equal("handlers", echo.running, 0)
            trial.equal("connections", server.connection_count(), 0)
            for client in clients:
                await client.seen.over.wait()
            await turn()  # whoever drains beside this has seen it too
            await serve_two_more(trial, server)
            trial.equal("draining", server.is_draining(), False)
        if trial.probe.injected:
            for client in clients:
                whole = (bytes(client.seen.data), client.seen.end) == (client.name, "clean")
                cut = client.seen.end in ("reset", "clean") and bytes(client.seen.data) in (b"", client.name)
                trial.expect(whole or cut or manner == "resets", f"{client} has all of its answer or nothing")
        elif manner != "resets":
            trial.equal("report", reports, [DrainReport(len(clients), 0)])
            for client in clients:
                view = (bytes(client.seen.data), client.seen.end)
                trial.equal(f"what {client.name.decode()} saw", view, (client.name, "clean"))

    return play


async def drain_too(trial: Trial, server: TcpServer[TcpSocket]) -> None:
    """Joins the other one, or is joined; if one of them is cancelled, both are at their end."""
    await server.drain(GRACE)


async def cut_soon(trial: Trial, server: TcpServer[TcpSocket]) -> None:
    """A second one that gives no time, once all has been said."""
    await turn(12)
    await server.drain(0)


def of_nobody(start: Start) -> Play:
    """There is nobody to wait for, and it has been closed for good."""

    async def play(trial: Trial) -> None:
        async with trial.server() as server:
            await server.listen(GOOD)
            await server.aclose()
            trial.nursery.start_soon(turn)
            report = await trial.call(start(trial, server))
            trial.equal("report", report, None if trial.cancelled else DrainReport(0, 0))

    return play


# ---- being told --------------------------------------------------------------------------------------------------


def told(*, at_once: bool = False, watched: bool = False, closed: bool = False) -> Play:
    """Handlers wait for it; whoever waits beside them hears of it all the same."""

    async def play(trial: Trial) -> None:
        heard: list[str] = []

        async def another() -> None:
            try:
                await server.wait_for_draining()
                heard.append("drained")
            except trio.ClosedResourceError:
                heard.append("closed")

        async def watch() -> None:
            async with server.events(Draining) as events:
                heard.extend([type(event).__name__ async for event in events])

        async def begin() -> None:
            await turn(3)
            if closed:
                await server.aclose()
            else:
                await server.drain(GRACE)

        async with trial.server() as server:
            await server.listen(GOOD)
            trial.nursery.start_soon(another)
            if watched:
                trial.nursery.start_soon(watch)
            await turn()
            if at_once:
                await server.drain(GRACE)
            else:
                trial.nursery.start_soon(begin)
            try:
                await trial.call(server.wait_for_draining)
            except trio.ClosedResourceError:
                trial.expect(closed, "it is not closed")
            trial.expect(trial.cancelled or server.is_draining() != closed, "it has begun")
            await turn(5)
        await turn()
        trial.equal("heard", sorted(heard), sorted(["closed" if closed else "drained", *["Draining"] * watched]))

    return play


# fmt: off
DRAINS: tuple[tuple[Situation, str, Callable[[Start], Play]], ...] = (
    ("answered at once", "nobody",   of_nobody),
    ("has to wait",      "",         draining),
    ("has to wait",      "accept",   functools.partial(draining, style="accept")),
    ("has to wait",      "twice",    functools.partial(draining, twice=True)),
    ("peer finishes",    "",         functools.partial(draining, manner="finishes")),
    ("peer resets",      "",         functools.partial(draining, manner="resets")),
    ("second task",      "joins",    functools.partial(draining, beside=drain_too)),
    ("second task",      "cuts",     functools.partial(draining, beside=cut_soon)),
)
WAITS: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "",         told(at_once=True)),
    ("has to wait",      "",         told()),
    ("second task",      "watched",  told(watched=True)),
    ("second task",      "aclose()", told(closed=True)),
)
# fmt: on


def _cases(medium: Medium) -> list[Case]:
    return [
        *(Case("TcpServer.drain", situation, make(by_drain), medium, variant) for situation, variant, make in DRAINS),
        *(Case("stop_on_signals", situation, make(by_signal), medium, variant) for situation, variant, make in DRAINS),
        *(Case("TcpServer.wait_for_draining", situation, play, medium, variant) for situation, variant, play in WAITS),
    ]


CASES = [case for medium in NETWORKS for case in _cases(medium)]
