"""The demo: one echo server, many clients, and the check that no byte was lost and nothing was left open."""

from __future__ import annotations

import inspect
import itertools
import random
import textwrap
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from trioqt.cli.demo_client import BrokenPromiseError, Client, Surroundings
from trioqt.cli.demo_display import Display, LinesDisplay, LiveDisplay, summarize
from trioqt.cli.demo_kinds import KINDS
from trioqt.cli.terminal import plural, terminal
from trioqt.sockets.tcp_server import TcpServer
from trioqt.sockets.tcp_socket import TcpSocket
from trioqt.testing.cancelling.leaks import open_descriptors

__all__ = ["Report", "echo", "make_clients", "run_demo", "show_demo"]

# For so many seconds, beside the planned ones, nothing at all may happen before the demo gives up and says so.
# There is no limit on the whole: a loaded machine makes all late, and nothing wrong.
PATIENCE = 10.0

# To read what the next client will do, some fifteen words, at three a second; and less than PATIENCE.
READING = 5.0

# As wide as an explanation may be beside the time, the number and the kind of a client on a terminal of 80 columns.
WORDS_WIDTH = 50


@attrs.frozen
class Report:
    """What the demo found."""

    clients: tuple[Client, ...]
    connections_open: int
    descriptors_left: int | None
    """None where the system does not tell."""

    def problems(self) -> list[str]:
        """What should not be; empty if all is well."""
        found = [f"#{client.number} {client.kind}: {client.problem}" for client in self.clients if client.problem]
        if self.connections_open:
            found.append(f"still open: {plural(self.connections_open, 'connection')}")
        if self.descriptors_left:
            found.append(f"left: {plural(self.descriptors_left, 'descriptor')}")
        return found


async def echo(sock: TcpSocket) -> None:
    """The server's side of every conversation: say it back."""
    async for chunk in sock:
        await sock.send_all(chunk)


async def show_demo(
    count: int,
    seconds: float,
    seed: int,
    handler: Callable[[TcpSocket], Awaitable[object]] = echo,
    *,
    slow: bool = False,
) -> int:
    """Run it, show what happens as it happens, then the summary.  The exit status.

    Args:
      slow: One client after the other; each is explained, and then there is time to read that.
    """
    clients = make_clients(count, seconds, seed)
    console = terminal()
    display: Display = LinesDisplay() if console is None else LiveDisplay(console, clients)
    duration = f"about {plural(seconds, 'second')}{' each, one after the other' if slow else ''}"
    display.begin(f"one server, {plural(count, 'client')}, {duration}, seed {seed}")

    async def explain(client: Client) -> None:
        for line in textwrap.wrap(f"next: {inspect.getdoc(client.behave)}", WORDS_WIDTH):
            display.tell(client, line)
        await trio.sleep(READING)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(display.run)
        announce = explain if slow else None
        report = await run_demo(clients, seconds, handler=handler, tell=display.tell, announce=announce)
        nursery.cancel_scope.cancel(reason="the demo is over")
    problems = report.problems()
    summarize(clients, report.connections_open, report.descriptors_left, problems)
    return 1 if problems else 0


def make_clients(count: int, seconds: float, seed: int) -> tuple[Client, ...]:
    """So many clients, the kinds in turn."""
    kinds = itertools.cycle(KINDS.items())
    return tuple(
        Client(number, kind, behave, random.Random(f"{seed}/{number}"), seconds)
        for number, (kind, behave) in zip(range(1, count + 1), kinds, strict=False)
    )


async def run_demo(
    clients: tuple[Client, ...],
    seconds: float,
    *,
    handler: Callable[[TcpSocket], Awaitable[object]] = echo,
    tell: Callable[[Client, str], None] = lambda client, text: None,
    announce: Callable[[Client], Awaitable[None]] | None = None,
    patience: float = PATIENCE,
) -> Report:
    """Run the clients against a server of its own.

    Args:
      handler: The server's; the clients expect that it says back what it hears.
      tell: Called with what happens to each client.
      announce: Awaited before each client, and they come one after the other; None: all at once.
      patience: How long nothing may happen, beside ``seconds``, until it gives up.
    """
    before = open_descriptors()
    accepted: dict[int, TcpSocket] = {}
    served = trio.Event()

    async def handle(sock: TcpSocket) -> None:
        port = sock.peer_port()
        accepted[port] = sock
        try:
            await handler(sock)
        finally:
            if accepted.get(port) is sock:  # the system may have given the port to another client by now
                del accepted[port]

    def pull_the_plug(port: int) -> None:
        if port not in accepted:
            raise BrokenPromiseError("the server finished too soon")
        accepted[port].abort(reset=True)  # as a crashed peer or a router does

    async def serve() -> None:
        await server.serve(handle)
        served.set()

    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        nursery.start_soon(serve)
        around = Surroundings(server.server_port(), tell, pull_the_plug)
        with trio.CancelScope() as running:
            nursery.start_soon(give_up_if_stuck, clients, seconds + patience, running)
            async with trio.open_nursery() as crowd:
                for client in clients:
                    if announce is None:
                        crowd.start_soon(client.run, around)
                    else:
                        await announce(client)
                        await client.run(around)
        server.close()
        # Every client is gone, and each handler ends as soon as it notices.
        with trio.move_on_after(patience):
            await served.wait()
        connections_open = server.connection_count() + sum(client.left_open() for client in clients)
        nursery.cancel_scope.cancel(reason="the demo is over")
    after = open_descriptors()
    left = None if before is None or after is None else len(after.keys() - before.keys())
    return Report(clients, connections_open, left)


async def give_up_if_stuck(clients: Sequence[Client], period: float, running: trio.CancelScope) -> None:
    """Cancel ``running`` if for a ``period`` no client sent or got anything."""
    before = -1
    while (now := sum(client.sent + client.back for client in clients)) != before:
        before = now
        await trio.sleep(period)
    running.cancel(reason="nothing happens any more")
