"""The simulated network does not break under its own traffic, however much of it comes at once."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable

import attrs
import pytest
import trio
import trio.testing

from trioqt.testing import NameServerDown, VirtualNetwork
from trioqt.testing.network.tcp import TcpEnd

Clock = trio.testing.MockClock

LATENCY = 0.05

# More than Python calls go into each other, even if each one only calls once.
MANY = 1200


@attrs.frozen
class Ends:
    """A connection from alice to the server."""

    client: trio.socket.SocketType
    server: trio.socket.SocketType


@pytest.fixture
async def net(autojump_clock: Clock) -> AsyncIterator[VirtualNetwork]:
    async with VirtualNetwork(latency=LATENCY) as net:
        yield net


@pytest.fixture
async def ends(net: VirtualNetwork) -> AsyncIterator[Ends]:
    with net.host("server"), trio.socket.socket() as listener:
        await listener.bind(("0.0.0.0", 4000))
        listener.listen()
        with net.host("alice"):
            client = trio.socket.socket()
            await client.connect(("server", 4000))
        server, _ = await listener.accept()
        with client, server:
            yield Ends(client, server)


# ---- acknowledgements --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [50, 100, 195])
async def test_a_sender_of_small_messages_fills_its_buffer_and_goes_on(
    ends: Ends, autojump_clock: Clock, size: int
) -> None:
    """Each message is acknowledged for itself, and all at one time.  One was taken within the other, which ended in a
    RecursionError.
    """
    count = 100_000 // size
    received = 0
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            stream = trio.SocketStream(ends.client)
            for _ in range(count):
                await stream.send_all(bytes(size))

        nursery.start_soon(send)
        while received < count * size:
            received += len(await ends.server.recv(count * size))

    assert received == count * size


@pytest.mark.parametrize(
    ("look", "state"),
    [
        (lambda net, client: net.netstat(), "ESTABLISHED"),
        (lambda net, client: client.getpeername(), "ESTABLISHED"),
        (lambda net, client: client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO), "ESTABLISHED"),
        (lambda net, client: client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000), "ESTABLISHED"),
        (lambda net, client: client.shutdown(socket.SHUT_WR), "FIN_WAIT1"),
    ],
    ids=["netstat", "peer", "info", "option", "shutdown"],
)
async def test_who_looks_when_many_acknowledgements_are_due_sees_them_all(
    net: VirtualNetwork,
    ends: Ends,
    autojump_clock: Clock,
    look: Callable[[VirtualNetwork, trio.socket.SocketType], object],
    state: str,
) -> None:
    """A failure's note has the table of sockets, whatever the moment: here a task waits for room, the time has come,
    and nothing has happened yet.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_for_ever, ends.client)
        await trio.sleep(1.5 * LATENCY)
        unacknowledged = row_of(net, "alice")[-1]
        autojump_clock.jump(LATENCY)

        look(net, ends.client)
        seen = row_of(net, "alice")
        nursery.cancel_scope.cancel()

    assert (unacknowledged, seen) == ("65536", ["alice", "tcp", state, "10.0.0.3:32768", "10.0.0.2:4000", "0", "0"])


async def send_for_ever(sock: trio.socket.SocketType) -> None:
    with contextlib.suppress(BrokenPipeError):
        while True:
            await sock.send(bytes(50))


def row_of(net: VirtualNetwork, host: str) -> list[str]:
    """The one socket that this host has."""
    [row] = [line.split() for line in net.netstat().splitlines() if line.startswith(host)]
    return row


# ---- nothing, again and again ------------------------------------------------------------------


@pytest.mark.parametrize("start", [0.1, 0.3, 0.7, 1.1, 2.3, 5.9])
async def test_a_keep_alive_asks_once_in_its_time_whatever_the_hour(
    net: VirtualNetwork, ends: Ends, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, start: float
) -> None:
    """While a fault lasts elsewhere.  Twice two seconds can be a little less than four, and what was missing was waited
    for, in vain, since it was too little to move the clock: the run never went on.
    """
    looks: list[float] = []
    is_gone = TcpEnd.is_gone

    def look(end: TcpEnd) -> bool:
        looks.append(trio.current_time())
        assert len(looks) < 100
        return is_gone(end)

    net.begin(NameServerDown())
    await trio.sleep(start)
    ends.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    begun = trio.current_time()
    monkeypatch.setattr(TcpEnd, "is_gone", look)
    await trio.sleep(21)

    assert [round(when - begun, 3) for when in looks] == [float(when) for when in range(2, 21, 2)]


async def test_an_empty_send_behind_a_full_buffer_sends_nothing(
    ends: Ends, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """It counted as a byte that never came, and what was sent after it never arrived."""
    ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)  # more than the server has room for
    total = await ends.client.send(bytes(100_000))
    sent = await ends.client.send(b"")
    received = 0
    with trio.fail_after(60):
        nursery.start_soon(trio.SocketStream(ends.client).send_all, b"more")
        while received < total + 4:
            received += len(await ends.server.recv(1000))

    assert (total, sent, received) == (100_000, 0, total + 4)


# ---- many at once ------------------------------------------------------------------------------


async def test_a_thousand_segments_that_were_held_arrive_at_once(
    net: VirtualNetwork, ends: Ends, autojump_clock: Clock
) -> None:
    """On a link that takes no time, so each arrives within the call that lets it go."""
    net.set_link("alice", "server", latency=0)
    with net.hold("alice", "server"):
        for _ in range(MANY):
            await ends.client.send(bytes(50))
    await trio.sleep(1)

    assert len(await ends.server.recv(100_000)) == MANY * 50
    assert row_of(net, "alice")[-1] == "0"


async def test_a_listener_with_a_thousand_that_wait_closes(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Each of them is reset."""
    told = []

    async def visit() -> None:
        with trio.socket.socket() as sock:
            await sock.connect(("server", 80))
            try:
                await sock.recv(1)
            except OSError as exc:
                told.append(exc.errno)

    with net.host("server"):
        listener = trio.socket.socket()
        await listener.bind(("0.0.0.0", 80))
        listener.listen(MANY)
    async with trio.open_nursery() as nursery:
        with net.host("alice"):
            net.set_link("alice", "server", latency=0)
            for _ in range(MANY):
                nursery.start_soon(visit)
        await trio.testing.wait_all_tasks_blocked()
        listener.close()

    assert told == [errno.ECONNRESET] * MANY
