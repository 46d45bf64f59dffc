"""When the peer sees a reset, and when an end: an exception, dropped bytes, and whoever asks for it."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import trustme

from tests.links.scripted import names
from tests.networks import Network, RawListener, RawPeer
from tests.sockets.telling import told
from trioqt import (
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    HostFound,
    ReadChannelFinished,
    SocketError,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
)

OVER_TLS = True

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

Call = Callable[[], Awaitable[object]]


async def meet(network: Network, sock: TcpSocket) -> RawPeer:
    with await network.raw_listener() as listener:
        await sock.connect_to_host(network.host, listener.port)
        peer = await listener.accept()
        await peer.ready()
        return peer


# ---- out of a block --------------------------------------------------------------------------------

EXCEPTIONS: list[BaseException] = [
    KeyError("a bug"),
    trio.TooSlowError("a limit"),
    trio.ClosedResourceError("of another socket"),
    KeyboardInterrupt(),
    SystemExit(1),
    GeneratorExit(),
    ExceptionGroup("of a nursery", [KeyError(), ValueError()]),
    BaseExceptionGroup("of a nursery", [KeyboardInterrupt()]),
]


@pytest.mark.parametrize("home", ["own block", "inner block", "accepted", "handler"])
@pytest.mark.parametrize("exc", EXCEPTIONS, ids=lambda exc: type(exc).__name__)
async def test_an_exception_out_of_a_block_crosses_the_wire_as_a_reset(
    network: Network, exc: BaseException, home: str
) -> None:
    """Half an answer has been sent, and nothing is queued: still the peer does not take it for the whole."""
    peers: list[RawPeer] = []

    async def say_half(sock: TcpSocket) -> None:
        await sock.send_all(b"half an ans")
        await sock.wait_for_bytes_written()
        raise exc

    async def accept_and_say_half() -> None:
        async with TcpServer() as server:
            await server.listen(network.host)
            peers.append(await network.raw_connect(server.server_port()))
            if home == "handler":

                async def handler(sock: TcpSocket) -> None:
                    server.close()  # so that serve returns
                    await say_half(sock)

                await server.serve(handler, isolate=False)
            else:
                async with await server.accept() as sock:
                    await say_half(sock)

    async def connect_and_say_half() -> None:
        async with TcpSocket() as sock:
            peers.append(await meet(network, sock))
            if home == "inner block":
                async with sock:
                    await say_half(sock)
            await say_half(sock)

    try:
        await (accept_and_say_half() if home in ("accepted", "handler") else connect_and_say_half())
    except BaseException as caught:
        # A KeyboardInterrupt comes out of ``serve`` bare, whatever it was wrapped in.
        bare = isinstance(exc, BaseExceptionGroup) and caught in exc.exceptions
        if caught is not exc and not isinstance(caught, BaseExceptionGroup) and not bare:
            raise
    with peers[0] as peer:
        assert await peer.how_it_ends() == "reset"


@pytest.mark.parametrize("grouped", [False, True, "with another"])
async def test_a_cancellation_is_no_exception(network: Network, grouped: bool | str) -> None:
    """Alone, or in a group of nothing else, it ends the connection as ``abort``; beside another one it is not alone."""
    with contextlib.suppress(ExceptionGroup), trio.CancelScope() as scope:
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                if not grouped:
                    raise
                inner = BaseExceptionGroup("inner", [cancelled])
                others = [KeyError("beside it")] if grouped == "with another" else []
                raise BaseExceptionGroup("of a nursery", [inner, *others]) from None
    with peer:
        assert await peer.how_it_ends() == ("reset" if grouped == "with another" else "end")


async def test_what_had_ended_in_order_is_not_reset_by_a_later_exception(network: Network) -> None:
    """Everything had been said."""
    with contextlib.suppress(KeyError):
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            await sock.send_all(b"the whole answer")
            await sock.disconnect_from_host()
            raise KeyError("too late to matter")
    with peer:
        assert await peer.receive_to_end() == b"the whole answer"


@pytest.mark.parametrize("end", ["disconnect_from_host", "aclose"])
async def test_an_interrupt_in_the_middle_of_an_end_is_an_exception(network: Network, end: str) -> None:
    """It is a reset, though the queue is empty by then: what the peer is still sending was not waited for."""

    class Interrupted(TcpSocket):
        async def _linger(self, link: object) -> bool:
            raise KeyboardInterrupt

    async with trio.open_nursery() as nursery:
        sock = Interrupted(nursery)
        with await meet(network, sock) as peer:
            await peer.send(b"unread")
            await sock.wait_for_ready_read()
            with pytest.raises(KeyboardInterrupt):
                await getattr(sock, end)()

            assert sock.state() is UNCONNECTED
            assert await peer.how_it_ends() == "reset"


# ---- by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reset", "seen"), [(False, "end"), (True, "reset")])
@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("watched", [False, True])
async def test_abort_resets_if_it_is_told_to(
    network: Network, reset: bool, seen: str, finished: bool, watched: bool
) -> None:
    """Whether the peer has finished or not; and what is told is the same."""
    async with trio.open_nursery() as nursery:
        sock = TcpSocket(nursery)
        with await meet(network, sock) as peer:
            if finished:
                peer.finish()
                assert await sock.receive_some() == b""
            if watched:
                nursery.start_soon(sock.wait_for_disconnected)
                await trio.testing.wait_all_tasks_blocked()
            async with told(sock) as events:
                sock.abort(reset=reset)
            await sock.aclose()
            ended = await peer.how_it_ends()

    assert ended == seen
    assert events == [
        StateChanged(UNCONNECTED),
        *([] if finished else [ReadChannelFinished()]),
        Disconnected(),
    ]
    assert (sock.error(), sock.is_valid()) == (None, False)


@pytest.mark.parametrize("reset", [False, True])
async def test_abort_of_what_has_no_connection_has_nothing_to_reset(network: Network, reset: bool) -> None:
    """New, bound, ended or lost: it never fails."""
    async with TcpSocket() as sock:
        sock.abort(reset=reset)
        await sock.bind(network.host)
        sock.abort(reset=reset)
        (await meet(network, sock)).reset()
        with pytest.raises(SocketError):
            await sock.receive_some()
        sock.abort(reset=reset)

        assert sock.state() is UNCONNECTED


@attrs.frozen
class Contexts:
    """The two sides of TLS."""

    client: ssl.SSLContext
    server: ssl.SSLContext


@pytest.fixture(scope="module")
def tls() -> Contexts:
    """A server with a certificate for peer.example, and a client that trusts who issued it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("peer.example").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Contexts(client, server)


@asynccontextmanager
async def stream_to(
    network: Network, kind: str, tls: Contexts
) -> AsyncIterator[tuple[trio.abc.Stream, trio.SocketStream]]:
    """A stream of that kind with a TCP connection at its bottom, and the other end of that."""
    async with trio.open_nursery() as nursery:
        with await network.raw_listener() as listener:
            if "over ours" in kind:
                below: trio.abc.Stream = TcpSocket(nursery)
                await below.connect_to_host(network.host, listener.port)  # type: ignore[attr-defined]
            else:
                sock = trio.socket.socket()
                await sock.connect((network.host, listener.port))
                below = trio.SocketStream(sock)
            peer = trio.SocketStream((await listener.accept()).sock)
        if "TLS" in kind:
            secure = trio.SSLStream(below, tls.client, server_hostname="peer.example")
            other = trio.SSLStream(peer, tls.server, server_side=True)
            async with trio.open_nursery() as shaking:
                shaking.start_soon(secure.do_handshake)
                await other.do_handshake()
            below = secure
        if "stapled" in kind:
            below = trio.StapledStream(below, below)
        yield below, peer
        await trio.aclose_forcefully(peer)
        await trio.aclose_forcefully(below)


STREAMS = ["plain", "stapled", "TLS", "TLS, stapled", "over ours", "TLS over ours"]


@pytest.mark.plain("its streams have TLS over them, or not")
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("end", ["exception", "abort(reset=True)", "abort", "abort, queued"])
async def test_over_a_stream_a_reset_reaches_the_bottom(network: Network, tls: Contexts, kind: str, end: str) -> None:
    """As far as we know what is below: sockets of trio's and of ours, also with TLS over them."""
    async with stream_to(network, kind, tls) as (stream, peer):
        with contextlib.suppress(KeyError):
            async with TcpSocket.from_stream(stream) as sock:
                if end == "exception":
                    raise KeyError
                if end == "abort, queued":
                    sock.write(b"never sent")
                sock.abort(reset=end == "abort(reset=True)")
        try:
            while await peer.receive_some():  # of TLS there may be more than the end
                pass
        except trio.BrokenResourceError:
            seen = "reset"
        else:
            seen = "end"

    assert seen == ("end" if end == "abort" else "reset")


# ---- bytes that were promised to an attempt --------------------------------------------------------


@asynccontextmanager
async def late_news() -> AsyncIterator[trio.Event]:
    """Connecting takes until the event is set, though the peer is connected at once: as when a task has no turn yet."""
    gate = trio.Event()
    before = trio.socket.set_custom_socket_factory(None)

    class Factory(trio.abc.SocketFactory):
        def socket(self, *args: Any) -> trio.socket.SocketType:
            trio.socket.set_custom_socket_factory(before)
            try:
                sock = trio.socket.socket(*args)
            finally:
                trio.socket.set_custom_socket_factory(self)
            really = sock.connect

            async def connect(address: object) -> None:
                await really(address)
                try:
                    await gate.wait()
                except trio.Cancelled:
                    sock.close()  # as trio's does
                    raise

            sock.connect = connect  # type: ignore[method-assign]
            return sock

    trio.socket.set_custom_socket_factory(Factory())
    try:
        yield gate
    finally:
        trio.socket.set_custom_socket_factory(before)


@attrs.define(eq=False)
class Early:
    """A socket that is CONNECTING, and to its peer connected."""

    sock: TcpSocket
    peer: RawPeer
    scope: trio.CancelScope
    connecting: trio.CancelScope

    async def disconnect(self) -> None:
        await self.sock.disconnect_from_host()

    async def aclose(self) -> None:
        await self.sock.aclose()

    async def leave(self) -> None:
        pass

    async def abort(self) -> None:
        self.sock.abort()

    async def abort_by_reset(self) -> None:
        self.sock.abort(reset=True)

    async def fail(self) -> None:
        raise KeyError("of the body")

    async def leave_cancelled(self) -> None:
        self.scope.cancel()
        await trio.lowlevel.checkpoint()

    async def disconnect_cancelled(self) -> None:
        self.scope.cancel()
        await self.sock.disconnect_from_host()

    async def cancel_connecting(self) -> None:
        self.connecting.cancel()
        await trio.testing.wait_all_tasks_blocked()


# Each with what the peer sees if nothing was queued, and whether the block raises if something was.
# fmt: off
EARLY_ENDS: dict[str, tuple[Callable[[Early], Awaitable[None]], str, bool]] = {
    "disconnect_from_host":      (Early.disconnect,           "end",   True),
    "aclose":                    (Early.aclose,               "end",   True),
    "a block left normally":     (Early.leave,                "end",   True),
    "abort":                     (Early.abort,                "end",   False),
    "abort(reset=True)":         (Early.abort_by_reset,       "reset", False),
    "an exception":              (Early.fail,                 "reset", False),
    "a cancelled block":         (Early.leave_cancelled,      "end",   False),
    "a cancelled disconnect":    (Early.disconnect_cancelled, "end",   False),
    "a cancelled connect":       (Early.cancel_connecting,    "end",   False),
}
# fmt: on


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("queued", ["", "while looking up", "while connecting"])
@pytest.mark.parametrize("end", EARLY_ENDS)
async def test_what_is_promised_to_an_attempt_and_dropped_shows_as_a_reset_and_is_told(
    network: Network, end: str, queued: str, bound: bool
) -> None:
    """The peer is connected already, and must not take silence for an end (law 6); whoever listens hears (law 4)."""
    play, empty, raises = EARLY_ENDS[end]
    names({"peer.example": [network.host]}, gate=(found := trio.Event()))
    heard: list[Event] = []
    raised: list[ErrorKind] = []
    sock = TcpSocket()

    async def listen(task_status: trio.TaskStatus[None]) -> None:
        async with sock.events() as events:
            task_status.started()
            heard.extend([event async for event in events])

    async def use(listener: RawListener, nursery: trio.Nursery) -> None:
        connecting, scope = trio.CancelScope(), trio.CancelScope()

        async def connect() -> None:
            with connecting:
                await quietly(functools.partial(sock.connect_to_host, "peer.example", listener.port))

        with scope:
            async with sock:
                if bound:
                    await sock.bind(network.host)
                await nursery.start(listen)
                nursery.start_soon(connect)
                await trio.testing.wait_all_tasks_blocked()
                if queued == "while looking up":
                    sock.write(b"precious")
                found.set()
                early = Early(sock, await listener.accept(), scope, connecting)
                assert sock.state() is CONNECTING
                if queued == "while connecting":
                    await sock.send_all(b"precious")
                peers.append(early.peer)
                await play(early)

    peers: list[RawPeer] = []
    async with late_news(), trio.open_nursery() as nursery:
        with await network.raw_listener() as listener:
            try:
                await use(listener, nursery)
            except SocketError as error:
                raised.append(error.kind)
            except KeyError:
                assert end == "an exception"
        with peers[0] as peer:
            seen = await peer.how_it_ends()

    told = ErrorOccurred(
        ErrorKind.UNFINISHED_SOCKET_OPERATION, "8 bytes were queued for a connection that was not made"
    )
    assert seen == ("reset" if queued else empty)
    assert raised == ([ErrorKind.UNFINISHED_SOCKET_OPERATION] if raises and queued else [])
    assert sock.error() is (ErrorKind.UNFINISHED_SOCKET_OPERATION if queued else None)
    assert sock.error_string() == (told.message if queued else "")
    finish = [] if end == "a cancelled connect" and not queued else [ReadChannelFinished()]
    assert heard == [
        *(StateChanged(state) for state in (HOST_LOOKUP, CONNECTING)),
        HostFound(),
        StateChanged(UNCONNECTED),
        *([told] if queued else []),
        *finish,
    ]


@pytest.mark.parametrize("bound", [False, True])
async def test_what_is_promised_to_an_attempt_that_succeeds_ends_as_ever(network: Network, bound: bool) -> None:
    """The bytes are sent, and a later end is no reset."""
    async with late_news() as gate, trio.open_nursery() as nursery, TcpSocket() as sock:
        if bound:
            await sock.bind(network.host)
        with await network.raw_listener() as listener:
            nursery.start_soon(sock.connect_to_host, network.host, listener.port)
            peer = await listener.accept()
        with peer:
            sock.write(b"precious")
            gate.set()
            await sock.wait_for_bytes_written()
            sock.abort()

            assert await peer.receive_to_end() == b"precious"


async def quietly(call: Call) -> None:
    with contextlib.suppress(SocketError, trio.ClosedResourceError):
        await call()
