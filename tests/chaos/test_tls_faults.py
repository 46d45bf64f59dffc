"""What goes wrong below TLS, on a simulated network: it ends its own connections, and the fault is seen to happen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.certificates import contexts
from tests.networks import RawPeer
from trioqt import (
    AcceptError,
    ConnectionFinished,
    DrainReport,
    ErrorKind,
    HostAddress,
    SocketError,
    SslServer,
    SslSocket,
)
from trioqt.testing import DescriptorsExhausted, VirtualNetwork

NAME = "peer.example"
TLS = contexts(NAME)

Clock = trio.testing.MockClock
Handler = Callable[[SslSocket], Awaitable[None]]


async def until(condition: Callable[[], bool]) -> None:
    """Wait in the time of the test, which a busy loop would hold up."""
    with trio.fail_after(3600):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.1)


async def echo(sock: SslSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(line)


@attrs.frozen
class Stage:
    """A server that speaks TLS on one host, and clients on another."""

    net: VirtualNetwork
    server: SslServer[SslSocket]
    address: HostAddress
    nursery: trio.Nursery

    async def client(self) -> SslSocket:
        """A client that is encrypted."""
        with self.net.host("clients"):
            sock = SslSocket(self.nursery, context=TLS.client)
            await sock.connect_to_host_encrypted(self.address, self.server.server_port(), server_hostname=NAME)
        return sock

    async def plain(self) -> RawPeer:
        """A client that has not begun TLS."""
        with self.net.host("clients"):
            sock = trio.socket.socket()
            await sock.connect((str(self.address), self.server.server_port()))
        return RawPeer(sock)

    async def answers(self) -> bool:
        """Is a new client served?"""
        async with await self.client() as sock:
            await sock.send_all(b"hello\n")
            return await sock.receive_line() == b"hello\n"


@asynccontextmanager
async def on_two_hosts(net: VirtualNetwork, handler: Handler | None = echo, **options: Any) -> AsyncIterator[Stage]:
    """Without a handler nobody serves."""
    async with SslServer(TLS.server, **options) as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address)
            if handler is not None:
                await nursery.start(server.serve, handler)
        yield Stage(net, server, address, nursery)
        nursery.cancel_scope.cancel()


def kind_of(event: ConnectionFinished) -> ErrorKind | None:
    if event.error is None:
        return None
    assert isinstance(event.error, SocketError)
    return event.error.kind


async def endings_of(events: AsyncIterator[ConnectionFinished], count: int) -> list[tuple[ErrorKind | None, int]]:
    """How so many connections end, and after how many seconds from now."""
    began = trio.current_time()
    found = []
    with trio.fail_after(3600):
        for _ in range(count):
            found.append((kind_of(await anext(events)), round(trio.current_time() - began)))
    return found


# ---- peers that are gone -----------------------------------------------------------------------------


async def test_peers_that_vanish_without_a_word_are_noticed(
    virtual_network: VirtualNetwork, autojump_clock: Clock
) -> None:
    """A host loses its power: keep-alive finds the encrypted ones, and the limit those in mid-handshake."""
    async with on_two_hosts(virtual_network) as stage, stage.server.events(ConnectionFinished) as endings:
        encrypted = [await stage.client() for _ in range(10)]
        silent = [await stage.plain() for _ in range(10)]
        await until(lambda: stage.server.connection_count() == 20)
        with virtual_network.crash("clients"):
            ended = await endings_of(endings, 20)
        left = stage.server.connection_count()
        served = await stage.answers()
        for sock in encrypted:
            sock.abort()
        for peer in silent:
            peer.close()

    assert ended == [(ErrorKind.SOCKET_TIMEOUT, 5)] * 10 + [(ErrorKind.SOCKET_TIMEOUT, 120)] * 10
    assert (left, served) == (0, True)


async def test_a_client_notices_a_server_that_is_cut_off(
    virtual_network: VirtualNetwork, autojump_clock: Clock
) -> None:
    """Who waits for an answer hears of it once TCP gives up, and it is no end; whoever connects meanwhile does too."""
    async with on_two_hosts(virtual_network) as stage:
        sock, late = await stage.client(), SslSocket(stage.nursery, context=TLS.client)
        began = trio.current_time()
        with virtual_network.host("clients"), virtual_network.partition("clients", "server"):
            await sock.send_all(b"hello\n")
            with pytest.raises(SocketError) as lost, trio.fail_after(3600):
                await sock.receive_line()
            took = trio.current_time() - began
            with pytest.raises(SocketError) as refused, trio.fail_after(3600):
                await late.connect_to_host_encrypted(stage.address, stage.server.server_port(), server_hostname=NAME)

    assert (lost.value.kind, refused.value.kind) == (ErrorKind.SOCKET_TIMEOUT, ErrorKind.SOCKET_TIMEOUT)
    assert took > 60


@pytest.mark.parametrize("encrypted", [False, True])
async def test_dribbling_clients_are_cut_and_others_do_not_feel_it(
    virtual_network: VirtualNetwork, autojump_clock: Clock, encrypted: bool
) -> None:
    """A byte every two seconds, of a hello or under TLS: the one is limited by the handshake, the other by a stall."""
    dribbled = 0

    async def dribble(client: RawPeer | SslSocket, send: Callable[[bytes], Awaitable[object]]) -> None:
        nonlocal dribbled
        try:
            for byte in b"\x16\x03\x01\x02\x00" if not encrypted else b"hello":
                await send(bytes([byte]))
                dribbled += 1
                await trio.sleep(2)
        except (OSError, trio.BrokenResourceError):
            pass

    async with on_two_hosts(virtual_network, stall_limit=3) as stage, stage.server.events(ConnectionFinished) as events:
        good = await stage.client()
        clients: list[RawPeer | SslSocket] = []
        for _ in range(20):
            client: RawPeer | SslSocket = await (stage.client() if encrypted else stage.plain())
            clients.append(client)
            send = client.send_all if isinstance(client, SslSocket) else client.send
            stage.nursery.start_soon(dribble, client, send)
        answers = 0
        for _ in range(10):
            await good.send_all(b"hello\n")
            answers += await good.receive_line() == b"hello\n"
            await trio.sleep(1)
        ended = [kind_of(await anext(events)) for _ in range(20)]
        good.abort()
        for client in clients:
            client.abort() if isinstance(client, SslSocket) else client.close()

    assert dribbled >= 40
    assert (answers, ended) == (10, [ErrorKind.SOCKET_TIMEOUT] * 20)


# ---- a bad network -----------------------------------------------------------------------------------


async def test_connections_that_a_fault_resets_are_lost_and_no_end(
    virtual_network: VirtualNetwork, autojump_clock: Clock
) -> None:
    """A middlebox resets all that it knows: both ends are told so, whether encrypted or in mid-handshake."""
    async with on_two_hosts(virtual_network) as stage, stage.server.events(ConnectionFinished) as endings:
        clients = [await stage.client() for _ in range(5)]
        silent = [await stage.plain() for _ in range(5)]
        await until(lambda: stage.server.connection_count() == 10)
        virtual_network.reset_connections("clients", "server")
        told = []
        for sock in clients:
            with pytest.raises(SocketError) as lost:
                await sock.receive_line()
            told.append(lost.value.kind)
        ended = [kind for kind, _ in await endings_of(endings, 10)]
        served = await stage.answers()
        for peer in silent:
            peer.close()

    assert told == [ErrorKind.REMOTE_HOST_CLOSED] * 5
    assert ended == [ErrorKind.REMOTE_HOST_CLOSED] * 10
    assert served


async def test_a_partition_delays_and_loses_nothing(virtual_network: VirtualNetwork, autojump_clock: Clock) -> None:
    """Shorter than TCP gives up: what was sent into it arrives whole, in both directions and in mid-handshake."""
    data = bytes(range(256)) * 1000
    times = []
    async with on_two_hosts(virtual_network, handshake_timeout=60) as stage:
        sock = await stage.client()

        async def connect() -> None:
            late.append(await stage.client())
            times.append(trio.current_time() - began)

        late: list[SslSocket] = []
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            with virtual_network.host("clients"), virtual_network.host("server"):
                virtual_network.set_link("clients", "server", latency=0.01)
            nursery.start_soon(connect)
            await trio.sleep(0.025)  # the hello is on its way
            with virtual_network.partition("clients", "server"):
                sock.write(data + b"\n")
                await trio.sleep(10)
                early = sock.bytes_available()
            got = await sock.receive_line(len(data) + 1)
            times.append(trio.current_time() - began)
        for one in (sock, *late):
            one.abort()

    assert early == 0
    assert got == (data + b"\n")[: data.index(b"\n") + 1]
    assert min(times) > 10


async def test_a_server_without_descriptors_takes_its_clients_once_it_has_some(
    virtual_network: VirtualNetwork, autojump_clock: Clock
) -> None:
    """It is told, a handshake waits with the system, and nobody is lost."""
    got: list[SslSocket] = []

    async def connect() -> None:
        got.append(await stage.client())

    async with on_two_hosts(virtual_network) as stage, trio.open_nursery() as nursery:
        async with stage.server.events(AcceptError) as events:
            with virtual_network.begin(DescriptorsExhausted("server")):
                for _ in range(5):
                    nursery.start_soon(connect)
                event = await anext(events)
                await trio.sleep(3)
                early = len(got)
        await until(lambda: len(got) == 5)
        answers = []
        for sock in got:
            await sock.send_all(b"hello\n")
            answers.append(await sock.receive_line())
            sock.abort()

    assert (event.kind, early) == (ErrorKind.SOCKET_RESOURCE, 0)
    assert answers == [b"hello\n"] * 5


# ---- stops -------------------------------------------------------------------------------------------


async def test_a_stop_cuts_who_is_in_mid_handshake_when_the_grace_is_over(
    virtual_network: VirtualNetwork, autojump_clock: Clock
) -> None:
    """At that very second; who is served meanwhile gets the whole answer, and a clean end."""

    async def handler(sock: SslSocket) -> None:
        await sock.receive_line()
        await stage.server.wait_for_draining()
        await sock.send_all(bytes(300_000))

    ends: list[str] = []
    answers: list[bytes] = []

    async def watch(peer: RawPeer) -> None:
        ends.append(await peer.how_it_ends())

    async def receive(sock: SslSocket) -> None:
        answers.append(b"".join([chunk async for chunk in sock]))

    async with on_two_hosts(virtual_network, handler, handshake_timeout=60) as stage:
        silent = await stage.plain()
        busy = await stage.client()
        await busy.send_all(b"work\n")
        await until(lambda: stage.server.connection_count() == 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, silent)
            nursery.start_soon(receive, busy)
            began = trio.current_time()
            report = await stage.server.drain(5)
            took = trio.current_time() - began
        silent.close()
        busy.abort()

    assert answers == [bytes(300_000)]
    assert (report, took, ends) == (DrainReport(finished=1, cancelled=1), 5.0, ["reset"])


@pytest.mark.parametrize("verb", ["receive_line", "send_all"])
async def test_a_verb_that_is_cancelled_again_and_again_loses_nothing(
    virtual_network: VirtualNetwork, autojump_clock: Clock, verb: str
) -> None:
    """In the middle of records that come and go in pieces: what was taken is gone on with, what was sent is whole."""
    lines = [b"%d %s\n" % (number, b"x" * 5000) for number in range(60)]
    cancelled = 0

    async def until_done(call: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal cancelled
        while True:
            with trio.move_on_after(0.004) as scope:
                return await call()
            assert scope.cancelled_caught
            cancelled += 1

    got: list[bytes] = []

    async def handler(sock: SslSocket) -> None:
        for line in lines if verb == "receive_line" else ():
            await sock.send_all(line)
        async for line in sock.lines():
            got.append(line)
            await trio.sleep(0.01)

    async with on_two_hosts(virtual_network, handler) as stage:
        with virtual_network.host("clients"), virtual_network.host("server"):
            virtual_network.set_link("clients", "server", latency=0.01, bandwidth=200_000)
        sock = await stage.client()
        if verb == "receive_line":
            got = [await until_done(sock.receive_line) for _ in lines]
        else:
            for line in lines:
                await until_done(partial(sock.send_all, line))
        await sock.disconnect_from_host()
        await until(lambda: stage.server.connection_count() == 0)

    assert cancelled > 5
    assert got == lines
