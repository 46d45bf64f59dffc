"""A server that is stopped loses no request that it has taken on, and is not held up by those that make none."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from tests.networks import Loopback, Network, RawPeer, Virtual
from tests.sockets.arrivals import until
from trioqt import DrainReport, TcpServer, TcpSocket

OVER_TLS = True


class Requests:
    """A handler that begins each line, and answers it once the test lets it."""

    def __init__(self) -> None:
        self.begun = 0
        self.answer = trio.Event()

    async def __call__(self, sock: TcpSocket) -> None:
        async for line in sock.lines():
            self.begun += 1
            await self.answer.wait()
            await sock.send_all(line)


@asynccontextmanager
async def serving(network: Network, handler: Any) -> AsyncIterator[tuple[TcpServer[TcpSocket], trio.Nursery]]:
    """A server at work."""
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        yield server, nursery


async def whole_answer(client: RawPeer) -> bytes:
    """All that comes up to a clean end.  Raises: ConnectionResetError."""
    with client:
        client.finish()
        return await client.receive_to_end()


async def refused(network: Network, port: int) -> bool:
    """Is a new client turned away, so that it can go elsewhere?"""
    try:
        (await network.raw_connect(port)).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_a_hundred_requests_in_flight_are_answered_though_the_server_stops(network: Network) -> None:
    """A deployment sends SIGTERM in the middle of the day; each client gets its whole answer, and then a clean end.

    New clients are refused from the first moment on, though the old ones are still at work.
    """
    handler = Requests()
    reports: list[DrainReport] = []
    async with serving(network, handler) as (server, nursery):
        port = server.server_port()
        clients = [await network.raw_connect(port) for _ in range(100)]
        for number, client in enumerate(clients):
            await client.send(b"request %d\n" % number)
        await until(lambda: handler.begun == 100)

        async def drain() -> None:
            reports.append(await server.drain(30))

        nursery.start_soon(drain)
        await server.wait_for_draining()
        is_refused = await refused(network, port)
        still_there = server.connection_count()
        handler.answer.set()
        answers = [await whole_answer(client) for client in clients]

    assert answers == [b"request %d\n" % number for number in range(100)]
    assert (is_refused, still_there) == (True, 100)
    assert reports == [DrainReport(finished=100, cancelled=0)]


async def test_connections_that_nobody_has_accepted_yet_are_served(network: Loopback) -> None:
    """The kernel had let them in, so they are ours: a plain close would have reset them, request and all."""
    handler = Requests()
    handler.answer.set()
    async with serving(network, handler) as (server, _):
        clients = []
        for number in range(50):  # without a checkpoint, so the server cannot have accepted any of them
            client = socket.create_connection((network.host, server.server_port()))
            client.sendall(b"request %d\n" % number)
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
            clients.append(RawPeer(trio.socket.from_stdlib_socket(client)))
        accepted = server.connection_count()
        report = await server.drain(30)
        answers = []
        for peer in clients:
            with peer:
                answers.append(await peer.receive_to_end())

    assert accepted == 0
    assert answers == [b"request %d\n" % number for number in range(50)]
    assert report == DrainReport(finished=50, cancelled=0)


async def test_a_handler_is_told_and_says_goodbye(network: Network) -> None:
    """An idle client hears that the server goes, before anything ends, and need not take the end for a failure."""

    async def handler(sock: TcpSocket) -> None:
        await server.wait_for_draining()
        await sock.send_all(b"going down\n")

    async with serving(network, handler) as (server, _):
        clients = [await network.raw_connect(server.server_port()) for _ in range(5)]
        await until(lambda: server.connection_count() == 5)
        draining_before = server.is_draining()
        report = await server.drain(30)
        goodbyes = [await whole_answer(client) for client in clients]
        draining_after = server.is_draining()

    assert goodbyes == [b"going down\n"] * 5
    assert (draining_before, draining_after) == (False, True)
    assert report == DrainReport(finished=5, cancelled=0)


async def test_the_last_answer_arrives_though_the_client_says_more_than_is_read(network: Network) -> None:
    """A stop in the middle of an upload: the answer is not taken back by the reset of a plain close."""

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_line()
        await server.wait_for_draining()
        await sock.send_all(b"too late\n" * 1000)

    async with serving(network, handler) as (server, nursery):
        client = await network.raw_connect(server.server_port())
        await client.send(b"upload\n" + b"x" * 40_000)
        await until(lambda: server.connection_count() == 1)
        nursery.start_soon(server.drain, 30)
        answer = await whole_answer(client)

    assert answer == b"too late\n" * 1000


# ---- clients and handlers that would hold it up --------------------------------------------------------


@asynccontextmanager
async def on_two_hosts(network: Virtual, handler: Any) -> AsyncIterator[tuple[TcpServer[TcpSocket], RawPeer]]:
    """A server and one client, which its handler has begun with."""
    begun = trio.Event()

    async def begin(sock: TcpSocket) -> None:
        begun.set()
        await handler(sock)

    async with TcpServer() as server, trio.open_nursery() as nursery:
        with network.net.host("server") as address:
            await server.listen(address)
            await nursery.start(server.serve, begin)
        with network.net.host("client"):
            client = await network.raw_connect(server.server_port(), str(address))
        with client:
            await client.ready()
            await begun.wait()
            yield server, client


async def is_reset(client: RawPeer) -> bool:
    try:
        await client.receive_to_end()
    except ConnectionResetError:
        return True
    return False


async def test_a_client_that_never_speaks_is_cut_when_the_grace_is_over(
    network: Virtual, autojump_clock: trio.testing.MockClock
) -> None:
    """At that very second, with a reset, and the report says that one was cut."""

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_line()

    async with on_two_hosts(network, handler) as (server, client):
        began = trio.current_time()
        report = await server.drain(5)
        took = trio.current_time() - began
        cut = await is_reset(client)

    assert (report, took, cut) == (DrainReport(finished=0, cancelled=1), 5.0, True)


async def test_a_handler_that_shields_itself_holds_a_stop_up_no_longer_than_a_second(
    network: Virtual, autojump_clock: trio.testing.MockClock
) -> None:
    """Its client is cut at the deadline all the same, and ``drain`` returns though it has not ended."""
    ended = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)
        ended.set()

    async with on_two_hosts(network, handler) as (server, client):
        began = trio.current_time()
        report = await server.drain(5)
        took = trio.current_time() - began
        cut, had_ended = await is_reset(client), ended.is_set()

    assert (report, took, cut, had_ended) == (DrainReport(finished=0, cancelled=1), 6.0, True, False)


async def test_a_handler_that_swallows_its_cancellation_is_over_all_the_same(
    network: Virtual, autojump_clock: trio.testing.MockClock
) -> None:
    """It goes on after the cut, and finds its connection closed."""
    found: list[str] = []

    async def handler(sock: TcpSocket) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            pass
        try:
            sock.write(b"I am still here\n")
        except trio.ClosedResourceError:
            found.append("closed")

    async with on_two_hosts(network, handler) as (server, client):
        began = trio.current_time()
        report = await server.drain(5)
        took = trio.current_time() - began
        cut = await is_reset(client)

    assert (report, took, cut, found) == (DrainReport(finished=0, cancelled=1), 5.0, True, ["closed"])


async def test_a_second_stop_joins_the_first_and_the_earlier_deadline_holds(
    network: Virtual, autojump_clock: trio.testing.MockClock
) -> None:
    """As two signals do, or a signal and a button: nobody waits for ever, and both get one report."""
    reports: list[tuple[DrainReport, float]] = []

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_line()

    async with on_two_hosts(network, handler) as (server, _):
        began = trio.current_time()

        async def drain(delay: float, grace: float) -> None:
            await trio.sleep(delay)
            report = await server.drain(grace)
            reports.append((report, trio.current_time() - began))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, 0, 60)
            nursery.start_soon(drain, 2, 5)

    assert reports == [(DrainReport(finished=0, cancelled=1), 7.0)] * 2


async def test_a_handler_may_stop_the_server_and_still_answer(
    network: Virtual, autojump_clock: trio.testing.MockClock
) -> None:
    """It is not waited for, or nobody would ever return; its client gets the answer."""

    async def handler(sock: TcpSocket) -> None:
        if await sock.receive_line() == b"stop\n":
            report = await server.drain(5)
            await sock.send_all(b"%d cut\n" % report.cancelled)

    async with on_two_hosts(network, handler) as (server, client):
        await client.send(b"stop\n")
        with trio.fail_after(60):
            answer = await client.receive_to_end()
        await until(lambda: server.connection_count() == 0)

    assert answer == b"0 cut\n"
