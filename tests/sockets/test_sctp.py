"""SCTP through the same TcpSocket and TcpServer: simulated, refused by a system without it, and below the seam.

The kernels that tests run on mostly lack it, so what a kernel does with it is seen on the simulated network only; what
our socket makes of its messages is seen on another one that has messages.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Loopback
from trioqt import (
    ErrorKind,
    HostAddress,
    SocketError,
    SocketOption,
    SocketState,
    SocketType,
    TcpServer,
    TcpSocket,
)
from trioqt.links.native import SCTP_PIECE, KernelSocket, SctpSocket
from trioqt.testing import VirtualNetwork

SCTP, TCP = SocketType.SCTP, SocketType.TCP
IPPROTO_SCTP = 132


@asynccontextmanager
async def sctp_server() -> AsyncIterator[TcpServer[TcpSocket]]:
    async with TcpServer(socket_type=SCTP) as server:
        await server.listen()
        yield server


@asynccontextmanager
async def sctp_pair(**arguments: Any) -> AsyncIterator[tuple[TcpSocket, TcpSocket]]:
    """A client and what its server accepted."""
    async with sctp_server() as server:
        async with TcpSocket(socket_type=SCTP, **arguments) as client:
            await client.connect_to_host("localhost", server.server_port())
            yield client, await server.accept()


# ---- On the simulated network ------------------------------------------------------------------


async def test_an_sctp_connection_is_a_socket_like_any_other(autojump_clock: trio.testing.MockClock) -> None:
    """Both ends say SCTP; lines, addresses and the end are as over TCP."""
    async with VirtualNetwork(latency=0.5), sctp_pair() as (client, accepted):
        await client.send_all(b"hello\nrest")
        line = await accepted.receive_line()
        await accepted.send_all(b"answer")
        answer = await client.receive_exactly(6)
        await client.disconnect_from_host()

        assert (line, answer) == (b"hello\n", b"answer")
        assert (await accepted.receive_some(), await accepted.receive_some()) == (b"rest", b"")
        assert [client.socket_type(), accepted.socket_type()] == [SCTP, SCTP]
        assert (client.state(), client.error()) == (SocketState.UNCONNECTED, None)


async def test_a_socket_has_its_type_before_it_is_connected() -> None:
    """And TCP if nothing else was said."""
    assert (TcpSocket().socket_type(), TcpSocket(socket_type=SCTP).socket_type()) == (TCP, SCTP)


async def test_a_socket_over_a_stream_is_of_no_known_type() -> None:
    """Whatever is below that; connected anew it is what it was made for."""
    async with VirtualNetwork(), sctp_server() as server:
        ours, theirs = trio.testing.memory_stream_pair()
        sock = TcpSocket.from_stream(ours, socket_type=SCTP)
        kinds = [sock.socket_type()]
        async with sock:
            kinds.append(sock.socket_type())
            await theirs.aclose()
            await sock.disconnect_from_host()
            kinds.append(sock.socket_type())
            await sock.connect_to_host("localhost", server.server_port())
            kinds.append(sock.socket_type())

    assert kinds == [SocketType.UNKNOWN, SocketType.UNKNOWN, SCTP, SCTP]


async def test_sctp_and_tcp_do_not_answer_each_other() -> None:
    """One port, and nobody there who speaks that protocol: refused."""
    async with VirtualNetwork():
        async with sctp_server() as server, TcpSocket() as client:
            with pytest.raises(SocketError) as over_tcp:
                await client.connect_to_host("127.0.0.1", server.server_port())
        async with TcpServer() as other, TcpSocket(socket_type=SCTP) as client:
            await other.listen()
            with pytest.raises(SocketError) as over_sctp:
                await client.connect_to_host("127.0.0.1", other.server_port())

    assert [caught.value.kind for caught in (over_tcp, over_sctp)] == [ErrorKind.CONNECTION_REFUSED] * 2


async def test_a_bound_sctp_socket_connects_from_there() -> None:
    """The bound socket is an SCTP one already."""
    async with VirtualNetwork(), sctp_server() as server, TcpSocket(socket_type=SCTP) as client:
        await client.bind("127.0.0.1", 5000)
        await client.connect_to_host("127.0.0.1", server.server_port())
        accepted = await server.accept()

        assert (client.local_port(), accepted.peer_port()) == (5000, 5000)


async def test_the_options_of_sctp() -> None:
    """Low delay is on, by SCTP's number; the figures of TCP's keep-alive are UNSUPPORTED, before and after."""
    async with VirtualNetwork(), sctp_pair() as (client, accepted):
        values = [each.socket_option(SocketOption.LOW_DELAY) for each in (client, accepted)]
        client.set_socket_option(SocketOption.LOW_DELAY, 0)
        client.set_socket_option(SocketOption.KEEP_ALIVE, 1)
        values += [client.socket_option(SocketOption.LOW_DELAY), client.socket_option(SocketOption.KEEP_ALIVE)]
        kinds = []
        for sock in (client, TcpSocket(socket_type=SCTP)):
            with pytest.raises(SocketError) as caught:
                sock.set_socket_option(SocketOption.KEEP_ALIVE_IDLE, 60)
            kinds.append(caught.value.kind)

    assert values == [1, 1, 0, 1]
    assert kinds == [ErrorKind.UNSUPPORTED_SOCKET_OPERATION] * 2


async def test_the_peer_of_dropped_bytes_sees_a_reset() -> None:
    """SCTP's ABORT, which is asked for as TCP's reset is."""
    async with VirtualNetwork(), sctp_pair() as (client, accepted):
        client.abort(reset=True)
        with pytest.raises(SocketError) as caught:
            await accepted.receive_some()

    assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED


@pytest.mark.once
async def test_it_keeps_the_contract_of_trios_streams() -> None:
    """trio's own check of a stream that can be half-closed."""

    async def make() -> tuple[TcpSocket, TcpSocket]:
        client = TcpSocket(nursery, socket_type=SCTP)
        await client.connect_to_host("localhost", server.server_port())
        return client, await server.accept()

    async with VirtualNetwork(), trio.open_nursery() as nursery, sctp_server() as server:
        await trio.testing.check_half_closeable_stream(make, None)


# ---- A system without it -----------------------------------------------------------------------


class WithoutSctp(trio.abc.SocketFactory):
    """A kernel whose sctp module is not there."""

    def socket(self, family: int = 2, type: int = 1, proto: int = 0) -> trio.socket.SocketType:
        if proto == IPPROTO_SCTP:
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))


async def check_that_it_is_refused() -> None:
    async with TcpSocket(socket_type=SCTP) as sock, TcpServer(socket_type=SCTP) as server:
        with pytest.raises(SocketError) as connecting:
            await sock.connect_to_host("localhost", 4000)
        with pytest.raises(SocketError) as binding:
            await sock.bind()
        with pytest.raises(SocketError) as listening:
            await server.listen(["127.0.0.1", "::1"])

        assert (sock.state(), server.is_listening()) == (SocketState.UNCONNECTED, False)
    errors = [caught.value for caught in (connecting, binding, listening)]
    assert [error.kind for error in errors] == [ErrorKind.UNSUPPORTED_SOCKET_OPERATION] * 3
    assert [error.errno for error in errors] == [errno.EPROTONOSUPPORT] * 3
    assert all("Protocol not supported" in error.message for error in errors)


async def test_a_system_without_sctp_says_so() -> None:
    """UNSUPPORTED from all three verbs, and nothing else has changed."""
    trio.socket.set_custom_socket_factory(WithoutSctp())

    await check_that_it_is_refused()


async def test_this_kernel_has_it_or_refuses_it(network: Loopback) -> None:
    """Whichever it is: an echo over real SCTP, or UNSUPPORTED."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_SCTP).close()
    except OSError:
        await check_that_it_is_refused()
    else:
        async with sctp_pair() as (client, accepted):
            await client.send_all(bytes(100_000))
            assert await accepted.receive_exactly(100_000) == bytes(100_000)
            assert (client.socket_type(), accepted.socket_type()) == (SCTP, SCTP)
            assert client.socket_option(SocketOption.LOW_DELAY) == 1


# ---- Messages, as a stream ---------------------------------------------------------------------


@contextmanager
def message_pair() -> Iterator[tuple[SctpSocket, socket.socket]]:
    """Our socket over one that has messages, keeps their borders, and refuses those that are too large."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with theirs:
        adopted = SctpSocket(fileno=ours.detach())
        adopted.setblocking(False)
        yield adopted, theirs
        adopted.close()


async def test_a_receive_takes_as_many_messages_as_there_are() -> None:
    """So a short one means that the system has no more, as the buffers above believe."""
    with message_pair() as (sock, peer):
        for message in (b"one", b"two", b"three"):
            peer.send(message)

        assert sock.try_recv(4096) == b"onetwothree"
        with pytest.raises(BlockingIOError):
            sock.try_recv(4096)


async def test_a_receive_is_never_larger_than_asked_for() -> None:
    """A message of which only a part fits would lose the rest on this kind; SCTP keeps it, so only exact ones here."""
    with message_pair() as (sock, peer):
        for message in (b"12", b"34", b"56"):
            peer.send(message)

        assert [sock.try_recv(4), sock.try_recv(2)] == [b"1234", b"56"]


async def test_the_end_behind_messages_is_kept_for_the_next_receive() -> None:
    """Bytes first, then the end."""
    with message_pair() as (sock, peer):
        peer.send(b"last")
        peer.close()

        assert [sock.try_recv(4096), sock.try_recv(4096)] == [b"last", b""]


RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def scripted(monkeypatch: pytest.MonkeyPatch, verb: str, *answers: Any) -> None:
    """What the kernel gives below our socket, call by call; what is an exception is raised."""
    remaining = list(answers)

    def answer(sock: KernelSocket, asked: Any) -> Any:
        given = remaining.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr(KernelSocket, verb, answer)


async def test_a_reset_behind_messages_is_told_by_the_next_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells it once, and then says that it was the end: it must not look like an orderly one."""
    with message_pair() as (sock, _):
        scripted(monkeypatch, "try_recv", b"last", RESET, b"", b"")

        assert sock.try_recv(4096) == b"last"
        with pytest.raises(ConnectionResetError):
            sock.try_recv(4096)
        assert sock.try_recv(4096) == b""


async def test_a_reset_at_the_first_receive_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once."""
    with message_pair() as (sock, _):
        scripted(monkeypatch, "try_recv", RESET, b"")

        with pytest.raises(ConnectionResetError):
            sock.try_recv(4096)
        assert sock.try_recv(4096) == b""


async def test_a_reset_that_cut_a_send_short_is_told_behind_what_had_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever call comes next; bytes first."""
    with message_pair() as (sock, _):
        scripted(monkeypatch, "try_send", SCTP_PIECE, RESET)
        scripted(monkeypatch, "try_recv", b"answer", BlockingIOError(), BlockingIOError())

        assert sock.try_send(bytes(10 * SCTP_PIECE)) == SCTP_PIECE
        assert sock.try_recv(4096) == b"answer"
        with pytest.raises(ConnectionResetError):
            sock.try_recv(4096)

        scripted(monkeypatch, "try_send", SCTP_PIECE, RESET)
        assert sock.try_send(bytes(2 * SCTP_PIECE)) == SCTP_PIECE
        with pytest.raises(ConnectionResetError):
            sock.try_send(b"more")


async def test_what_is_sent_is_cut_into_messages_that_the_system_takes() -> None:
    """One message of more than SO_SNDBUF is refused, EMSGSIZE; ours are small, and as many as go at once."""
    with message_pair() as (sock, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        data = os.urandom(1_000_000)
        sent = sock.try_send(memoryview(data))
        with pytest.raises(BlockingIOError):
            sock.try_send(data)
        received = b""
        sizes = []
        while len(received) < sent:
            piece = peer.recv(65536)
            sizes.append(len(piece))
            received += piece

    assert 0 < sent < len(data)
    assert received == data[:sent]
    assert max(sizes) == SCTP_PIECE


async def test_what_cannot_be_sent_at_all_is_told() -> None:
    """Nothing went: the system's error goes out."""
    with message_pair() as (sock, peer):
        peer.close()
        with pytest.raises(BrokenPipeError):
            sock.try_send(b"too late")

        assert sock.try_send(b"") == 0


# ---- Arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SocketType.UDP, SocketType.UNKNOWN])
def test_a_connection_is_of_no_other_type(kind: SocketType) -> None:
    """ValueError, of both classes."""
    for make in (TcpSocket, TcpServer):
        with pytest.raises(ValueError, match=f"a connection is TCP or SCTP, not {kind.name}"):
            make(socket_type=kind)


def test_a_type_is_a_socket_type() -> None:
    """Not its number."""
    wrong: Any = 2
    for make in (TcpSocket, TcpServer):
        with pytest.raises(TypeError, match="a socket type is a SocketType, not int"):
            make(socket_type=wrong)


async def test_a_factory_of_tcp_sockets_serves_sctp_connections_too() -> None:
    """What was accepted says what it is, whatever its factory made it for."""
    async with VirtualNetwork():
        async with TcpServer(lambda: TcpSocket(read_buffer_size=10), socket_type=SCTP) as server:
            await server.listen(HostAddress.LOCAL_HOST)
            async with TcpSocket(socket_type=SCTP) as client:
                await client.connect_to_host("127.0.0.1", server.server_port())
                accepted = await server.accept()

                assert (accepted.socket_type(), accepted.read_buffer_size()) == (SCTP, 10)
