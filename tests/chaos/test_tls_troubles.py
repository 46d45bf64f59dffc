"""TLS clients that stop in mid-handshake, whenever and however, harm nobody: our TLS, and trio's over our sockets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.certificates import Contexts, contexts
from tests.networks import Network
from tests.sockets.arrivals import open_descriptors, until
from trioqt import ConnectionFinished, SslServer, SslSocket, TcpServer, TcpSocket

CONTEXTS = contexts("localhost")


every_way = pytest.mark.parametrize("way", ["SslServer", "SSLStream"])


@asynccontextmanager
async def echoing(network: Network, tls: Contexts, way: str) -> AsyncIterator[TcpServer[Any]]:
    """An echo server over TLS, each handshake in its own handler, which says goodbye whatever happens."""

    async def echo(stream: trio.SSLStream[TcpSocket] | SslSocket) -> None:
        try:
            async for chunk in stream:
                await stream.send_all(chunk)
        finally:
            await stream.send_all(b"bye\n")

    async def encrypt_and_echo(sock: TcpSocket) -> None:
        await echo(trio.SSLStream(sock, tls.server, server_side=True))

    server: TcpServer[Any] = SslServer(tls.server) if way == "SslServer" else TcpServer()
    async with server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, echo if isinstance(server, SslServer) else encrypt_and_echo)
        yield server
        nursery.cancel_scope.cancel()


async def answers(network: Network, server: TcpServer[Any], tls: Contexts) -> bool:
    """Does a client that behaves get its line back?"""
    peer = await network.raw_connect(server.server_port())
    async with trio.SSLStream(trio.SocketStream(peer.sock), tls.client, server_hostname="localhost") as stream:
        await stream.send_all(b"hello\n")
        return await stream.receive_some(6) == b"hello\n"


def hello() -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    client = CONTEXTS.client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@every_way
async def test_fifty_silent_clients_do_not_hold_up_the_next(network: Network, way: str) -> None:
    """No handshake runs where connections are accepted, so whoever begins none waits alone."""
    async with echoing(network, CONTEXTS, way) as server:
        silent = [await network.raw_connect(server.server_port()) for _ in range(50)]
        await until(lambda: server.connection_count() == 50)

        assert await answers(network, server, CONTEXTS)

        assert server.connection_count() >= 50
        for client in silent:
            client.close()


@every_way
@pytest.mark.parametrize("ending", ["end", "reset"])
async def test_a_client_that_leaves_at_any_byte_of_its_hello_ends_its_handler_only(
    network: Network, ending: str, way: str
) -> None:
    """At each of some dozens of places; nothing waits for more, nothing is left open, and the server serves on."""
    first = hello()
    lengths = [0, 1, 2, 4, 5, 6, *range(7, len(first), 40), len(first)]
    async with echoing(network, CONTEXTS, way) as server:
        assert await answers(network, server, CONTEXTS)
        await until(lambda: server.connection_count() == 0)
        before = open_descriptors()
        async with server.events(ConnectionFinished) as endings:
            errors = []
            for length in lengths:
                client = await network.raw_connect(server.server_port())
                await client.send(first[:length])
                client.finish() if ending == "end" else client.reset()
                with trio.fail_after(10):
                    errors.append((await anext(endings)).error)
                client.close()
        await until(lambda: server.connection_count() == 0)
        after = open_descriptors()

        assert await answers(network, server, CONTEXTS)

    assert {isinstance(error, trio.BrokenResourceError) for error in errors} == {True}
    assert after == before


@every_way
async def test_clients_that_speak_no_tls_leave_nothing_behind(network: Network, way: str) -> None:
    """A hundred failed handshakes: no descriptor more than before."""
    async with echoing(network, CONTEXTS, way) as server:
        assert await answers(network, server, CONTEXTS)
        await until(lambda: server.connection_count() == 0)
        before = open_descriptors()
        async with server.events(ConnectionFinished) as endings:
            for _ in range(100):
                with await network.raw_connect(server.server_port()) as client:
                    await client.send(b"GET / HTTP/1.1\r\n\r\n")
                    error = (await anext(endings)).error
                    assert isinstance(error, trio.BrokenResourceError)
        await until(lambda: server.connection_count() == 0)

        assert open_descriptors() == before
        assert await answers(network, server, CONTEXTS)


@every_way
async def test_a_client_that_goes_without_a_goodbye_meets_a_handler_that_says_one(network: Network, way: str) -> None:
    """The second, hopeless send of the handler raises without saying why; it is still no bug."""
    async with echoing(network, CONTEXTS, way) as server, server.events(ConnectionFinished) as endings:
        for _ in range(3):
            peer = await network.raw_connect(server.server_port())
            stream = trio.SSLStream(trio.SocketStream(peer.sock), CONTEXTS.client, server_hostname="localhost")
            await stream.send_all(b"hello\n")
            assert await stream.receive_some(6) == b"hello\n"
            await trio.aclose_forcefully(stream)
            assert isinstance((await anext(endings)).error, trio.BrokenResourceError)

        assert await answers(network, server, CONTEXTS)


async def test_a_cancelled_send_over_tls_leaves_the_connection_whole(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """trio's SSLStream is broken after a cancelled send, for reading too; our socket over it waits, and then queues."""
    got: list[bytes] = []
    cancelled = trio.Event()
    done = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        tls = trio.SSLStream(sock, CONTEXTS.server, server_side=True)
        async with TcpSocket.from_stream(tls) as secure:
            with trio.move_on_after(5) as sending:
                while True:  # nobody reads, so some send has to wait, and the clock stands until it does
                    await secure.send_all(bytes(65536))
            assert sending.cancelled_caught
            cancelled.set()
            got.append(await secure.receive_line())
            done.set()

    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        peer = await network.raw_connect(server.server_port())
        stream = trio.SSLStream(trio.SocketStream(peer.sock), CONTEXTS.client, server_hostname="localhost")
        await stream.do_handshake()
        while not cancelled.is_set():
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(1)
        await stream.send_all(b"can you hear me\n")
        await until(done.is_set)
        await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()

    assert got == [b"can you hear me\n"]
