"""``serve_descriptors``: a connection's descriptor is lent, as to a thread with a ``trio.run`` of its own."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network
from trioqt import (
    ConnectionFinished,
    ErrorKind,
    HostAddress,
    SocketError,
    SslServer,
    TcpServer,
    TcpSocket,
)
from trioqt.testing import SignalSpy, VirtualNetwork

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/fd")


# Whoever listens has the socket read ahead, and what a thread is to read is gone.
pytestmark = pytest.mark.unwatched("the server's own socket for a lent descriptor is nobody's to listen to")


@pytest.fixture
async def server(network: Loopback) -> AsyncIterator[TcpServer[TcpSocket]]:
    async with TcpServer(max_connections=2) as server:
        await server.listen(network.host)
        yield server


async def in_its_own_run(descriptor: int) -> None:
    """Serve it in a thread."""
    await trio.to_thread.run_sync(trio.run, shout, socket.dup(descriptor))


async def shout(descriptor: int) -> None:
    async with TcpSocket() as sock:
        sock.set_socket_descriptor(descriptor)
        async for line in sock.lines():
            if line == b"which\n":
                line = b"main\n" if threading.current_thread() is threading.main_thread() else b"other\n"
            if line == b"fail\n":
                raise ZeroDivisionError
            await sock.send_all(line.upper())


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def test_a_thread_with_a_run_of_its_own_serves_a_connection(
    network: Loopback, server: TcpServer[TcpSocket], nursery: trio.Nursery
) -> None:
    """In both directions, to the end that the peer makes; and it is told as any handler's end."""
    await nursery.start(server.serve_descriptors, in_its_own_run)

    async with SignalSpy(server, ConnectionFinished) as spy:
        with await network.raw_connect(server.server_port()) as peer:
            await peer.send(b"hello\nwhich\n")
            heard = await peer.receive(6)
            thread = await peer.receive(6)
            peer.finish()
            rest = await peer.receive_to_end()
            address = HostAddress(peer.sock.getsockname()[0]), peer.sock.getsockname()[1]
        await spy.wait_for(ConnectionFinished)
        told = list(spy)

    assert (heard, thread) == (b"HELLO\n", b"OTHER\n")
    assert rest == b""
    assert told == [ConnectionFinished(*address, None)]
    assert server.connection_count() == 0


async def test_max_connections_counts_those_that_are_lent(
    network: Loopback, server: TcpServer[TcpSocket], nursery: trio.Nursery
) -> None:
    """Two threads serve, and a third client waits until one of them has ended."""
    await nursery.start(server.serve_descriptors, in_its_own_run)
    port = server.server_port()

    with await network.raw_connect(port) as one, await network.raw_connect(port) as two:
        for peer in (one, two):
            await peer.send(b"a\n")
            assert await peer.receive(2) == b"A\n"
        with await network.raw_connect(port) as three:
            await three.send(b"b\n")
            assert server.connection_count() == 2
            one.finish()
            assert await one.receive_to_end() == b""
            assert await three.receive(2) == b"B\n"
            assert server.connection_count() == 2
            three.finish()
            two.finish()
            assert [await three.receive_to_end(), await two.receive_to_end()] == [b"", b""]


@LINUX
@pytest.mark.parametrize("early", [False, True])
async def test_a_failure_resets_the_connection_and_leaves_nothing_open(
    network: Loopback,
    server: TcpServer[TcpSocket],
    nursery: trio.Nursery,
    early: bool,
    handler_failures: object,
) -> None:
    """In the thread, or before it has begun: the peer must not take half an answer for the whole."""

    async def fails_early(descriptor: int) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    await nursery.start(server.serve_descriptors, fails_early if early else in_its_own_run)
    before = descriptors()
    async with SignalSpy(server, ConnectionFinished) as spy:
        with await network.raw_connect(server.server_port()) as peer:
            await peer.send(b"a\nfail\n")
            ended = await peer.how_it_ends()
        told = await spy.wait_for(ConnectionFinished)
    failures = handler_failures()  # type: ignore[operator]

    assert ended == "reset"
    assert isinstance(told, ConnectionFinished)
    assert isinstance(told.error, ZeroDivisionError)
    assert failures == [told.error]
    assert descriptors() <= before
    assert server.connection_count() == 0


@LINUX
async def test_a_handler_that_takes_no_duplicate_ends_the_connection(
    network: Loopback, server: TcpServer[TcpSocket], nursery: trio.Nursery
) -> None:
    """In order: nothing went wrong, and the descriptor was lent."""

    async def looks(descriptor: int) -> None:
        os.fstat(descriptor)
        await trio.lowlevel.checkpoint()

    await nursery.start(server.serve_descriptors, looks)
    before = descriptors()
    with await network.raw_connect(server.server_port()) as peer:
        assert await peer.receive_to_end() == b""
    while server.connection_count():
        await trio.lowlevel.checkpoint()

    assert descriptors() <= before


async def test_what_the_peer_has_sent_waits_for_whoever_adopts(
    network: Loopback, server: TcpServer[TcpSocket], nursery: trio.Nursery
) -> None:
    """The server reads nothing, not even of a connection that was pending for a while."""
    with await network.raw_connect(server.server_port()) as peer:
        await peer.send(b"early\n")
        await server.wait_for_new_connection()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await nursery.start(server.serve_descriptors, in_its_own_run)
        heard = await peer.receive(6)
        peer.finish()
        rest = await peer.receive_to_end()

    assert (heard, rest) == (b"EARLY\n", b"")


@pytest.mark.parametrize("how", ["cancel", "drain"])
async def test_what_ends_the_server_waits_for_the_thread_and_resets(network: Loopback, how: str) -> None:
    """A handler waits for its thread, as ``trio.to_thread`` does; when that has ended the peer sees a reset."""
    begun, finish = threading.Event(), threading.Event()

    def in_a_thread(descriptor: int) -> None:
        with socket.socket(fileno=socket.dup(descriptor)) as sock:
            sock.send(b"half an answer")
            begun.set()
            finish.wait()

    async def handler(descriptor: int) -> None:
        await trio.to_thread.run_sync(in_a_thread, descriptor)
        await trio.lowlevel.checkpoint()

    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve_descriptors, handler)
        with await network.raw_connect(server.server_port()) as peer:
            assert await peer.receive(14) == b"half an answer"
            await trio.to_thread.run_sync(begun.wait)
            if how == "cancel":
                nursery.cancel_scope.cancel()
                finish.set()
            else:
                nursery.start_soon(server.drain, 0)
                while server.connection_count():
                    await trio.lowlevel.checkpoint()
                finish.set()
            with trio.CancelScope(shield=True):
                assert await peer.how_it_ends() == "reset"
        nursery.cancel_scope.cancel()


async def test_limits_in_seconds_and_factories_are_refused(network: Network) -> None:
    """They could not do what they promise; the server goes on listening."""
    for server, reason in (
        (TcpServer(idle_limit=5), "idle_limit 5 s would not see what others move"),
        (TcpServer(stall_limit=5), "stall_limit 5 s would not see what others move"),
        (TcpServer(lambda: TcpSocket(half_open=False)), "its socket_factory makes sockets"),
        (SslServer(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)), "its socket_factory makes sockets"),
    ):
        async with server:
            await server.listen(network.host)
            with pytest.raises(SocketError, match=f"cannot serve descriptors: {reason}") as caught:
                await server.serve_descriptors(in_its_own_run)
            assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
            assert server.is_listening()


async def test_a_simulated_connection_cannot_be_lent() -> None:
    """Its descriptor is a number that no system call knows."""
    async with VirtualNetwork(), TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve_descriptors, in_its_own_run)
        async with SignalSpy(server, ConnectionFinished) as spy, TcpSocket() as sock:
            await sock.connect_to_host("127.0.0.1", server.server_port())
            with pytest.raises(SocketError):
                await sock.receive_some()
            told = await spy.wait_for(ConnectionFinished)
        nursery.cancel_scope.cancel()

    assert isinstance(told, ConnectionFinished)
    assert isinstance(told.error, SocketError)
    assert told.error.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION


async def test_a_handler_of_nothing_is_refused(network: Network) -> None:
    """Before anything is touched."""

    async def takes_nothing() -> None:
        await trio.lowlevel.checkpoint()

    async with TcpServer() as server:
        await server.listen(network.host)
        with pytest.raises(TypeError, match="a handler is called with one descriptor"):
            await server.serve_descriptors(takes_nothing)  # type: ignore[arg-type]
