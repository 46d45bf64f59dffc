"""Real Qt on the other side: a QTcpSocket against our server, and a QTcpServer against our client.

The order of Qt's signals is not written down in these tests: the Qt of this machine tells it, in the same test.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.networks import Loopback
from tests.peers import peer_module
from tests.real_peers.programs import Program, random_bytes, running
from trioqt import (
    BytesWritten,
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    ReadChannelFinished,
    ReadyRead,
    SocketError,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
)

HOST = "127.0.0.1"
KIB, MB = 1024, 1_000_000

# More than the kernel takes for a peer that does not read: on Linux its two buffers grow to 4 and 6 MB.
TOO_MUCH = 32 * MB

EITHER_WAY_ROUND = pytest.mark.parametrize("qt_is", ["client", "server"])


@pytest.fixture
def python() -> str:
    """A Python that has Qt."""
    return peer_module("PySide6.QtNetwork")


@attrs.frozen
class QtPeer:
    """The program ``qt_peer.py``, which says there what it understands and what it tells."""

    program: Program
    told: list[dict[str, Any]] = attrs.field(factory=list)

    async def hear(self, key: str, value: object = None) -> dict[str, Any]:
        """Wait until it tells something that has ``key`` (and there ``value``)."""
        while True:
            news: dict[str, Any] = json.loads(await self.program.out.line())
            self.told.append(news)
            if key in news and value in (None, news[key]):
                return news

    async def say(self, *commands: str) -> None:
        """Tell it what to do."""
        await self.program.say(*commands)

    async def disconnected(self) -> dict[str, Any]:
        """Wait for the signal, and give what came with it."""
        news = await self.hear("signal", "disconnected")
        return {key: value for key, value in news.items() if key != "signal"}

    def signals(self) -> list[str]:
        """Its signals so far, in our words."""
        return [in_our_words(news) for news in self.told if "signal" in news]


@asynccontextmanager
async def qt_peer(python: str, *arguments: str) -> AsyncIterator[QtPeer]:
    async with running(python, str(Path(__file__).with_name("qt_peer.py")), *arguments) as program:
        yield QtPeer(program)


@asynccontextmanager
async def connected(python: str, qt_is: str, sock: TcpSocket | None = None) -> AsyncIterator[tuple[TcpSocket, QtPeer]]:
    """A socket of ours, connected or accepted, in its block, and the Qt program at the other end."""
    sock = TcpSocket() if sock is None else sock
    if qt_is == "client":
        async with TcpServer(lambda: sock) as server:
            await server.listen(HOST)
            async with qt_peer(python, "connect", str(server.server_port())) as qt:
                async with await server.accept():
                    # A connection that is reset before Qt has noticed that it stands is a failed attempt to Qt, which
                    # then makes another.
                    await qt.hear("signal", "connected")
                    yield sock, qt
    else:
        async with qt_peer(python, "listen") as qt, sock:
            await sock.connect_to_host(HOST, (await qt.hear("listening"))["listening"])
            await qt.hear("accepted")
            yield sock, qt


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def in_our_words(news: dict[str, Any]) -> str:
    """Qt's names as ours: ``state_changed HOST_LOOKUP`` for HostLookupState."""
    value = re.sub("(State|Error)$", "", news.get("state") or news.get("error") or "")
    return f"{news['signal']} {snake(value).upper()}".strip()


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def described(event: Event) -> str:
    """The same for an event of ours."""
    signal = snake(type(event).__name__)
    match event:
        case StateChanged(state):
            return f"{signal} {state.name}"
        case ErrorOccurred(kind):
            return f"{signal} {kind.name}"
        case _:
            return signal


async def facts(events: AsyncIterator[Event]) -> list[str]:
    """Everything told until the socket's block was left; how often bytes moved is the network's business."""
    return [described(event) async for event in events if not isinstance(event, (ReadyRead, BytesWritten))]


# ---- bytes -------------------------------------------------------------------------------------


@EITHER_WAY_ROUND
@pytest.mark.parametrize("size", [1, 64 * KIB, 5 * MB])
async def test_bytes_go_both_ways_at_once_and_arrive_as_they_were(python: str, qt_is: str, size: int) -> None:
    """Both ends send the same amount at the same time, and each has in the end what the other one sent."""
    ours = random_bytes(size + 1)[1:]

    with trio.fail_after(20):
        async with connected(python, qt_is) as (sock, qt), trio.open_nursery() as nursery:
            await qt.say(f"expect {size}", f"send {size}")
            nursery.start_soon(sock.send_all, ours)
            theirs = await sock.receive_exactly(size)
            sent = await qt.hear("sent")
            received = await qt.hear("received")

    assert sent == {"sent": size, "sha256": digest(theirs)}
    assert received == {"received": size, "sha256": digest(ours)}


# ---- Qt ends it --------------------------------------------------------------------------------


@EITHER_WAY_ROUND
@pytest.mark.parametrize("size", [1, 64 * KIB, 5 * MB])
async def test_qts_disconnect_from_host_is_a_clean_end_behind_all_its_bytes(python: str, qt_is: str, size: int) -> None:
    """Qt sends what it has queued and closes; we get every byte, then the end, and are still CONNECTED ourselves."""
    with trio.fail_after(20):
        async with connected(python, qt_is) as (sock, qt):
            await qt.say(f"send {size}", "disconnect")
            theirs = b"".join([chunk async for chunk in sock])
            end = await sock.receive_some()
            state, error = sock.state(), sock.error()
            sent = await qt.hear("sent")

    assert (sent, end) == ({"sent": size, "sha256": digest(theirs)}, b"")
    assert (state, error) == (SocketState.CONNECTED, None)


@EITHER_WAY_ROUND
async def test_qts_abort_after_it_has_read_all_is_a_clean_end(python: str, qt_is: str) -> None:
    """Qt's abort() closes its descriptor; where nothing was unread and nothing queued, the kernel sends a clean end."""
    with trio.fail_after(20):
        async with connected(python, qt_is) as (sock, qt):
            await qt.say("send 3", "expect 5")
            await sock.send_all(b"hello")
            await qt.hear("received")
            theirs = await sock.receive_exactly(3)
            await qt.say("abort")
            end = await sock.receive_some()

    assert (theirs, end) == (random_bytes(3), b"")


@EITHER_WAY_ROUND
async def test_qts_abort_with_bytes_unread_is_an_error_behind_what_it_had_sent(python: str, qt_is: str) -> None:
    """The kernel resets a connection that is closed over unread bytes: what Qt had said can be read, then it fails."""
    with trio.fail_after(20):
        async with connected(python, qt_is) as (sock, qt):
            await qt.say("hold", "send 1000")
            await sock.wait_for_ready_read()
            await sock.send_all(bytes(1 * MB))
            await qt.say("abort")
            theirs = await sock.receive_exactly(1000)
            with pytest.raises(SocketError) as caught:
                await sock.receive_some()
            state, error = sock.state(), sock.error()
            end = await qt.disconnected()

    assert theirs == random_bytes(1000)
    assert end["received"] == 0  # so the fault was there: Qt had bytes and did not read them
    assert caught.value.kind is error is ErrorKind.REMOTE_HOST_CLOSED
    assert state is SocketState.UNCONNECTED


# ---- we end it ---------------------------------------------------------------------------------


@EITHER_WAY_ROUND
@pytest.mark.parametrize("ending", ["send_eof", "aclose", "disconnect_from_host", "leaving the block"])
async def test_qt_sees_our_end_behind_all_our_bytes(python: str, qt_is: str, ending: str) -> None:
    """However we end in order, 5 MB arrive whole before Qt tells RemoteHostClosedError, its word for any end."""
    data = random_bytes(5 * MB)

    with trio.fail_after(20):
        async with connected(python, qt_is) as (sock, qt):
            await sock.send_all(data)
            if ending == "send_eof":
                await sock.send_eof()
                # Qt has no half-close: our end is its end, too.
                assert await sock.receive_some() == b""
            elif ending == "leaving the block":
                async with sock:
                    pass
            else:
                await getattr(sock, ending)()
            end = await qt.disconnected()

    assert end == {"kernel": "finished", "received": len(data), "sha256": digest(data)}
    assert qt.signals()[-5:] == [
        "error_occurred REMOTE_HOST_CLOSED",
        "state_changed CLOSING",
        "state_changed UNCONNECTED",
        "read_channel_finished",
        "disconnected",
    ]


@EITHER_WAY_ROUND
async def test_our_abort_with_bytes_queued_is_no_clean_end_to_qt(python: str, qt_is: str) -> None:
    """Qt does not read, so bytes are queued here; abort() drops them, and Qt's system says: reset, and some came."""
    with trio.fail_after(20):
        async with connected(python, qt_is) as (sock, qt):
            await qt.say("hold")
            await qt.hear("holding")
            sock.write(bytes(TOO_MUCH))
            dropped = sock.bytes_to_write()
            sock.abort()
            await qt.say("read")
            end = await qt.disconnected()

    assert dropped > 0
    assert end["kernel"] == "reset"
    assert end["received"] <= TOO_MUCH - dropped
    assert qt.signals()[-5] == "error_occurred REMOTE_HOST_CLOSED"


@EITHER_WAY_ROUND
async def test_our_abort_with_nothing_queued_is_a_clean_end_to_qt(python: str, qt_is: str) -> None:
    """All that was written has gone to the kernel, which delivers it; nothing is lost that a reset would tell of."""
    with trio.fail_after(20):
        async with connected(python, qt_is) as (sock, qt):
            await sock.send_all(b"hello")
            await sock.wait_for_bytes_written()
            sock.abort()
            end = await qt.disconnected()

    assert end == {"kernel": "finished", "received": 5, "sha256": digest(b"hello")}


@EITHER_WAY_ROUND
async def test_an_exception_out_of_our_block_resets_qt_in_the_middle_of_a_message(python: str, qt_is: str) -> None:
    """A body that fails ends its socket as abort() does, and the exception goes out as it is."""
    with trio.fail_after(20):
        async with connected(python, qt_is) as (sock, qt):
            await qt.say("hold")
            await qt.hear("holding")
            with pytest.raises(ZeroDivisionError):
                async with sock:
                    sock.write(bytes(TOO_MUCH))
                    dropped = sock.bytes_to_write()
                    _ = 1 / 0
            await qt.say("read")
            end = await qt.disconnected()

    assert dropped > 0
    assert end["kernel"] == "reset"
    assert end["received"] <= TOO_MUCH - dropped


# ---- the order of signals ----------------------------------------------------------------------


async def what_our_client_tells(python: str, ending: str, **options: Any) -> list[str]:
    """Connect to Qt, send ``hello``, receive three bytes, end: our signals."""
    sock = TcpSocket(**options)
    async with sock.events() as events:
        async with connected(python, "server", sock) as (sock, qt):
            await qt.say("expect 5", "send 3")
            await sock.send_all(b"hello")
            await sock.receive_exactly(3)
            await qt.hear("received")
            if ending == "disconnect":
                await sock.disconnect_from_host()
            elif ending == "abort":
                sock.abort()
            else:
                await qt.say("disconnect")
                await sock.wait_for_disconnected()
        return await facts(events)


async def what_qts_client_tells(python: str, ending: str) -> list[str]:
    """The same the other way round: Qt's signals."""
    async with connected(python, "client") as (sock, qt):
        await qt.say("expect 5", "send 3")
        await sock.send_all(b"hello")
        await sock.receive_exactly(3)
        await qt.hear("received")
        if ending == "the peer's end":
            await sock.disconnect_from_host()
        else:
            await qt.say(ending)
        await qt.disconnected()
    return qt.signals()


@pytest.mark.parametrize("ending", ["disconnect", "abort", "the peer's end"])
async def test_our_client_tells_what_qts_client_tells(python: str, ending: str) -> None:
    """Connect, talk, end: our events have the names, the states and the order of the signals of a real QTcpSocket."""
    with trio.fail_after(20):
        ours = await what_our_client_tells(python, ending, half_open=False)
        theirs = await what_qts_client_tells(python, ending)

    assert theirs[0] == "state_changed HOST_LOOKUP"
    assert theirs[-1] == "disconnected"
    assert ours == theirs


@pytest.mark.parametrize("ending", ["disconnect", "abort", "the peer's end"])
async def test_our_accepted_socket_tells_what_qts_accepted_socket_tells(python: str, ending: str) -> None:
    """The other side of the same story; its beginning is over before anybody can listen."""
    sock = TcpSocket(half_open=False)
    with trio.fail_after(20):
        async with connected(python, "client", sock) as (sock, qt), sock.events() as events:
            if ending == "disconnect":
                await sock.disconnect_from_host()
            elif ending == "abort":
                sock.abort()
            else:
                await qt.say("disconnect")
                await sock.wait_for_disconnected()
            await sock.aclose()
            ours = await facts(events)
        async with connected(python, "server") as (sock, qt):
            if ending == "the peer's end":
                await sock.disconnect_from_host()
            else:
                await qt.say(ending)
            await qt.disconnected()

    assert len(qt.signals()) >= 3
    assert ours == qt.signals()


async def test_our_client_tells_of_a_reset_what_qts_client_tells(python: str) -> None:
    """A connection that is lost while it is read: the error comes first, then the states, on both sides."""
    with trio.fail_after(20):
        sock = TcpSocket()
        async with sock.events() as events:
            async with connected(python, "server", sock) as (sock, qt):
                await qt.say("hold", "send 3")
                await sock.receive_exactly(3)
                await sock.send_all(bytes(128 * 1024))  # twice what Qt reads while it holds: the systems have the rest
                await qt.say("abort")
                await sock.wait_for_disconnected()
            ours = await facts(events)
        async with connected(python, "client") as (sock, qt):
            await qt.say("hold")
            await qt.hear("holding")
            sock.write(bytes(TOO_MUCH))
            sock.abort()
            await qt.say("read")
            end = await qt.disconnected()

    assert end["kernel"] == "reset"
    assert "error_occurred REMOTE_HOST_CLOSED" in ours
    assert ours == qt.signals()


async def test_our_client_tells_of_a_refusal_what_qts_client_tells(python: str, network: Loopback) -> None:
    """Nobody listens: the state goes back before the error is told, on both sides."""
    with trio.fail_after(20):
        port = await network.unused_port()
        sock = TcpSocket()
        async with sock.events() as events:
            async with sock:
                with pytest.raises(SocketError):
                    await sock.connect_to_host(HOST, port)
            ours = await facts(events)
        async with qt_peer(python, "connect", str(port)) as qt:
            await qt.hear("signal", "error_occurred")

    assert qt.signals()[-1] == "error_occurred CONNECTION_REFUSED"
    assert ours == qt.signals()


async def test_the_peers_end_alone_is_only_half_of_qts_story_with_half_open(python: str) -> None:
    """Trio's way, the default: the end is told as ReadChannelFinished and no error, and the rest when we end, too."""
    with trio.fail_after(20):
        async with connected(python, "client") as (sock, qt), sock.events(StateChanged, ErrorOccurred) as changes:
            async with sock.events(ReadChannelFinished, Disconnected) as ends:
                await qt.say("disconnect")
                first = await anext(ends)
                state = sock.state()
                await sock.aclose()

                assert (first, state) == (ReadChannelFinished(), SocketState.CONNECTED)
                assert await facts(ends) == ["disconnected"]
            assert await facts(changes) == ["state_changed CLOSING", "state_changed UNCONNECTED"]
