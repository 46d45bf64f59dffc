"""A connection over a stream ends, is reset and is cancelled as one over a socket, as far as the stream can."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from tests.networks import Network, RawPeer
from tests.sockets.arrivals import fill
from trioqt import ErrorKind, ErrorOccurred, SocketError, SocketState, StateChanged, TcpSocket

if TYPE_CHECKING:
    from tests.certificates import Contexts


@attrs.frozen
class Over:
    """A socket of ours over a stream, and the scripted peer at the bottom."""

    sock: TcpSocket
    peer: RawPeer


async def connected_stream(network: Network) -> tuple[trio.SocketStream, RawPeer]:
    """A stream of trio's, connected to a scripted peer."""
    with await network.raw_listener() as listener:
        sock = trio.socket.socket()
        await sock.connect((network.host, listener.port))
        return trio.SocketStream(sock), await listener.accept()


@contextlib.asynccontextmanager
async def over(network: Network, kind: str, **arguments: Any) -> AsyncIterator[Over]:
    """Over trio's SocketStream, or over a socket of ours; it ends with the block."""
    async with trio.open_nursery() as nursery:
        stream: trio.abc.Stream
        if kind == "SocketStream":
            stream, peer = await connected_stream(network)
        else:
            stream, peer = await network.connected(nursery)
        sock = TcpSocket.from_stream(stream, nursery, **arguments)
        try:
            with peer:
                yield Over(sock, peer)
        finally:
            sock.abort()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()


every_kind = pytest.mark.parametrize("kind", ["SocketStream", "TcpSocket"])


@every_kind
@pytest.mark.parametrize("reader", ["before", "after", "watched"])
async def test_a_reset_that_a_write_found_is_no_clean_end(network: Network, kind: str, reader: str) -> None:
    """The system tells a reset once, and to the write; a read would take half a file for the whole."""
    told: list[object] = []

    async def read(sock: TcpSocket) -> None:
        try:
            told.append(await sock.receive_some())
        except SocketError as error:
            told.append(error.kind)

    async with over(network, kind) as pair, trio.open_nursery() as nursery:
        await pair.peer.send(b"first half of a file, ")
        assert await pair.sock.receive_some() == b"first half of a file, "
        if reader == "before":
            nursery.start_soon(read, pair.sock)
        elif reader == "watched":
            nursery.start_soon(pair.sock.wait_for_disconnected)
        await trio.testing.wait_all_tasks_blocked()
        # The write and the reset in one step, so that either may find it.
        pair.peer.reset()
        with contextlib.suppress(SocketError):
            pair.sock.write(b"are you there?")
        if reader != "before":
            nursery.start_soon(read, pair.sock)

    assert told == [ErrorKind.REMOTE_HOST_CLOSED]


@every_kind
async def test_an_end_that_was_one_stays_one_though_a_write_fails(network: Network, kind: str) -> None:
    """The peer finished, and is gone: its last words, its end, and only then the failure."""
    async with over(network, kind) as pair:
        await pair.peer.send(b"all there is")
        pair.peer.close()
        with contextlib.suppress(SocketError):
            for _ in range(3):  # the first is answered by a reset, a later one finds it
                pair.sock.write(b"?")
                await trio.testing.wait_all_tasks_blocked(0.01)
        got = b""
        with contextlib.suppress(SocketError):
            async for piece in pair.sock:
                got += piece

        assert got == b"all there is"


@every_kind
@pytest.mark.parametrize("end", ["disconnect_from_host", "aclose", "block"])
async def test_an_orderly_end_with_unread_bytes_does_not_cost_the_answer(network: Network, kind: str, end: str) -> None:
    """A close over unread bytes is a reset, and takes with it what the peer has not read; so it finishes first."""
    async with over(network, kind) as pair, trio.open_nursery() as nursery:
        await pair.peer.send(b"x" * 100_000)
        assert await pair.sock.receive_exactly(10) == b"x" * 10
        await pair.sock.send_all(b"413 too large\n" + bytes(100_000))
        answers: list[bytes] = []

        async def hear() -> None:
            await trio.testing.wait_all_tasks_blocked(0.01)
            answers.append(await pair.peer.receive_to_end())
            pair.peer.finish()

        nursery.start_soon(hear)
        if end == "block":
            async with pair.sock:
                pass
        else:
            await getattr(pair.sock, end)()

    assert answers == [b"413 too large\n" + bytes(100_000)]


@every_kind
async def test_bytes_that_only_the_system_holds_count_as_unread_too(network: Network, kind: str) -> None:
    """Nobody has asked for any of them, so the stream is asked, once."""
    async with over(network, kind) as pair, trio.open_nursery() as nursery:
        await pair.sock.send_all(b"answer")
        await pair.sock.wait_for_bytes_written()
        await pair.peer.send(b"unread")
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(pair.sock.disconnect_from_host)
        await trio.testing.wait_all_tasks_blocked(0.01)
        state = pair.sock.state()
        heard = await pair.peer.receive_to_end()
        pair.peer.finish()

    assert (state, heard) == (SocketState.CLOSING, b"answer")


@every_kind
@pytest.mark.parametrize("watched", [False, True])
async def test_what_had_arrived_can_be_read_after_disconnecting(network: Network, kind: str, watched: bool) -> None:
    """Nobody had asked the stream for it, and it is more than the buffer takes; the peer's end is behind it."""
    data = bytes(range(200)) * 200
    async with over(network, kind, read_buffer_size=10) as pair, trio.open_nursery() as nursery:
        if watched:
            nursery.start_soon(pair.sock.wait_for_disconnected)
        await pair.peer.send(data)
        pair.peer.finish()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await pair.sock.disconnect_from_host()
        received = await pair.sock.receive_exactly(len(data))
        end = (pair.sock.peer_has_finished(), await pair.sock.receive_some(), await pair.sock.wait_for_ready_read())

    assert received == data
    assert end == (True, b"", False)


@every_kind
async def test_a_reset_that_disconnecting_finds_is_the_failure(network: Network, kind: str) -> None:
    """As over a socket: the end that is made here comes too late, and what had arrived is there."""
    async with over(network, kind) as pair, pair.sock.events(ErrorOccurred, StateChanged) as events:
        with trio.CancelScope() as scope:
            scope.cancel()
            await pair.sock.receive_some()
        pair.peer.reset()
        await pair.sock.disconnect_from_host()
        with pytest.raises(SocketError) as caught:
            await pair.sock.receive_some()
        told = [type(await anext(events)) for _ in range(3)]

    assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED
    assert told == [ErrorOccurred, StateChanged, StateChanged]


@every_kind
@pytest.mark.parametrize("size", [1, 50_000])
async def test_an_abort_with_unread_bytes_is_an_end(network: Network, kind: str, size: int) -> None:
    """The system would reset the connection for them; so they are dropped first, at the bottom."""
    async with over(network, kind) as pair:
        await pair.peer.send(b"x" * size)
        await trio.testing.wait_all_tasks_blocked(0.01)
        pair.sock.abort()
        await trio.testing.wait_all_tasks_blocked(0.01)
        ended = await pair.peer.how_it_ends()

    assert ended == "end"


@pytest.mark.parametrize("size", [200_000, 3_000_000])
async def test_an_orderly_end_over_tls_with_unread_bytes_does_not_cost_the_answer(
    network: Network, tls: Contexts, size: int
) -> None:
    """Its goodbye is said, to a peer too that reads nothing before all of its own is taken, and it is heard out."""
    stream, peer = await connected_stream(network)
    client = trio.SSLStream(trio.SocketStream(peer.sock), tls.client, server_hostname="peer.example")
    server = trio.SSLStream(stream, tls.server, server_side=True)
    answers: list[bytes] = []

    async def hear() -> None:
        await client.send_all(b"x" * size)
        got = b""
        try:
            while piece := await client.receive_some():
                got += piece
        finally:
            answers.append(got)
            await client.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        async with TcpSocket.from_stream(server) as sock:
            assert await sock.receive_exactly(10) == b"x" * 10
            await sock.send_all(b"413 too large\n" + bytes(100_000))

    assert answers == [b"413 too large\n" + bytes(100_000)]


@every_kind
@pytest.mark.parametrize("verbs", [("disconnect_from_host",) * 2, ("disconnect_from_host", "aclose"), ("aclose",) * 2])
async def test_two_tasks_that_end_it_in_one_step_both_do(network: Network, kind: str, verbs: tuple[str, ...]) -> None:
    """Each looks for what the stream has brought, and a stream takes one look at a time: one got BusyResourceError."""
    async with over(network, kind) as pair:
        await pair.peer.send(b"unread")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as ending:
            for verb in verbs:
                ending.start_soon(getattr(pair.sock, verb))
            assert await pair.peer.receive_to_end() == b""
            pair.peer.close()
        assert pair.sock.state() is SocketState.UNCONNECTED


async def test_a_cancelled_send_eof_is_cancelled(network: Network, nursery: trio.Nursery) -> None:
    """The socket below cannot finish before its queue is sent; and what was cancelled has not happened."""
    inner, peer = await network.connected(nursery)
    with peer:
        await fill(inner)
        async with TcpSocket.from_stream(inner) as outer:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(outer.send_eof)
                    await trio.testing.wait_all_tasks_blocked()
                    with pytest.raises(trio.ClosedResourceError):
                        outer.write(b"while it is being finished")
                    scope.cancel()
            written = outer.write(b"not finished")
            outer.abort()

    assert (scope.cancelled_caught, written) == (True, 12)


@pytest.mark.parametrize("end", ["cancel", "aclose"])
async def test_a_receive_that_ends_in_the_first_handshake_leaves_it_alone(tls: Contexts, end: str) -> None:
    """It runs in a task of its own: the next receive, or what is still to be sent, has a good connection."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = trio.SSLStream(ours, tls.client, server_hostname="peer.example")
    server = trio.SSLStream(theirs, tls.server, server_side=True)
    heard: list[bytes] = []

    async def answer() -> None:
        await server.send_all(b"hello\n")
        heard.append(bytes(await server.receive_some()))

    async with trio.open_nursery() as nursery:
        async with TcpSocket.from_stream(client) as sock:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as readers:
                    readers.start_soon(sock.receive_line)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            sock.write(b"bye")
            nursery.start_soon(answer)
            if end == "cancel":
                assert await sock.receive_line() == b"hello\n"
            else:
                await sock.aclose()

    assert (scope.cancelled_caught, heard) == (True, [b"bye"])


async def test_a_handshake_that_fails_is_told_to_every_call(tls: Contexts) -> None:
    """Who receives and who waits for the queue; and nobody hangs."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = trio.SSLStream(ours, tls.client, server_hostname="somebody.else")
    server = trio.SSLStream(theirs, tls.server, server_side=True)
    told: list[ErrorKind] = []

    async def note(call: Callable[[], Any]) -> None:
        with pytest.raises(SocketError) as caught:
            await call()
        told.append(caught.value.kind)

    async def refuse() -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await server.do_handshake()
            await server.receive_some()

    async with trio.open_nursery() as nursery:
        sock = TcpSocket.from_stream(client, nursery)
        sock.write(b"for nobody")
        nursery.start_soon(note, sock.receive_some)
        nursery.start_soon(note, sock.wait_for_bytes_written)
        nursery.start_soon(refuse)
        await trio.testing.wait_all_tasks_blocked()
        await note(sock.receive_some)

    assert told == [ErrorKind.SSL_HANDSHAKE_FAILED] * 3


async def test_a_socket_over_a_stream_takes_the_arguments_of_any_other() -> None:
    """And checks them in the same way."""
    ours, theirs = trio.testing.memory_stream_pair()
    arguments: dict[str, Any] = {
        "read_buffer_size": 10,
        "write_buffer_size": 20,
        "half_open": False,
        "flush_timeout": 3.0,
        "unsent_limit": 4096,
    }
    async with TcpSocket.from_stream(ours, **arguments) as sock:
        said = repr(sock)
        sizes = sock.read_buffer_size()
        await theirs.aclose()
        await sock.wait_for_disconnected()
    with pytest.raises(TypeError):
        TcpSocket.from_stream(theirs, flush_timeout="3")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        TcpSocket.from_stream(theirs, colour="red")  # type: ignore[call-arg]

    assert sizes == 10
    assert "write_buffer_size 20, flush_timeout 3 s, unsent_limit 4,096" in said
