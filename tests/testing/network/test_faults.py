"""Every fault really happens, programs see what a real one would show them, and it stops at its end."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trioqt import AcceptError, ErrorKind, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.faults import (
    KINDS,
    Crash,
    Degraded,
    DescriptorsExhausted,
    Fault,
    Hold,
    HostState,
    Isolated,
    Latency,
    LinkState,
    Loss,
    NameServerDown,
    Partition,
    Pause,
    ResetConnections,
    Trouble,
)

Clock = trio.testing.MockClock
Socket = trio.socket.SocketType

_opened: list[Socket] = []

# One way, in seconds; sums of it are exact.
LATENCY = 0.125


@pytest.fixture
async def net(autojump_clock: Clock) -> AsyncIterator[VirtualNetwork]:
    """Three hosts, an eighth of a second apart."""
    async with VirtualNetwork(latency=LATENCY) as net:
        for name in ("alice", "bob", "server"):
            with net.host(name):
                pass
        yield net
        for sock in _opened:
            sock.close()
        _opened.clear()


def opened(type_: int = socket.SOCK_STREAM) -> Socket:
    """A socket that is closed when the test is over."""
    _opened.append(trio.socket.socket(type=type_))
    return _opened[-1]


async def accept(listener: Socket) -> Socket:
    """The next connection, closed when the test is over."""
    sock, _ = await listener.accept()
    _opened.append(sock)
    return sock


async def listen(net: VirtualNetwork, host: str = "server", port: int = 4000) -> Socket:
    """A listening socket on a host."""
    with net.host(host):
        sock = opened()
        await sock.bind(("0.0.0.0", port))
        sock.listen()
    return sock


async def connected(net: VirtualNetwork, listener: Socket, source: str = "alice") -> tuple[Socket, Socket]:
    """A new connection: the client's socket, the server's."""
    with net.host(source):
        client = opened()
        await client.connect(("server", listener.getsockname()[1]))
    await trio.sleep(LATENCY)
    return client, await accept(listener)


async def udp(net: VirtualNetwork, host: str, port: int) -> Socket:
    """A bound UDP socket on a host."""
    with net.host(host):
        sock = opened(socket.SOCK_DGRAM)
        await sock.bind(("0.0.0.0", port))
    return sock


async def failure(call: Callable[..., Awaitable[object]], *args: Any) -> str:
    """The name of the error number with which a call fails."""
    with pytest.raises(OSError) as caught:
        await call(*args)
    number = caught.value.errno
    assert number is not None
    return errno.errorcode[number]


async def everything(sock: Socket, wait: float) -> list[bytes]:
    """What comes within so many seconds."""
    got = []
    with trio.move_on_after(wait):
        while True:
            got.append(await sock.recv(65536))
    return got


def events(net: VirtualNetwork, *kinds: str) -> list[str]:
    """What has happened, without times and ports."""
    return [
        " ".join(filter(None, (event.kind, event.source.partition(":")[0], event.target.partition(":")[0], event.note)))
        for event in net.trace()
        if event.kind in kinds
    ]


def times(net: VirtualNetwork, kind: str, note: str = "") -> list[float]:
    """When it has happened."""
    return [event.time for event in net.trace() if event.kind == kind and note in event.note]


# ---- partition -------------------------------------------------------------------------------------------------------


async def test_no_byte_is_lost_in_a_partition_that_heals(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """What is sent in it is repeated after 0.45, 0.9, 1.8, ... s, and comes at the first time that is after its end."""
    client, server = await connected(net, await listen(net))
    began = trio.current_time()
    with net.partition("alice", "server"):
        await client.send(b"hello ")
        nothing = await everything(server, 5.0)
        await client.send(b"server")
    got = await server.recv(65536)
    took = trio.current_time() - began
    got += await server.recv(65536) if len(got) < 12 else b""

    assert (nothing, got) == ([], b"hello server")
    assert took == pytest.approx(0.45 + 0.9 + 1.8 + 3.6 + LATENCY)
    assert set(events(net, "lost")) == {"lost alice server DATA"}
    assert [time - began for time in times(net, "lost")][:4] == pytest.approx([0.0, 0.45, 1.35, 3.15])
    assert events(net, "fault", "heal") == [
        "fault Partition('alice', 'server')",
        "heal Partition('alice', 'server')",
    ]


async def test_what_is_under_way_when_a_partition_begins_is_lost(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """It gets nowhere, even if the partition is over when it would have arrived in full."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    await alice.sendto(b"early", ("server", 6))
    await trio.sleep(LATENCY / 2)
    with net.partition("alice", "server"):
        await trio.sleep(LATENCY)
    await alice.sendto(b"late", ("server", 6))

    assert await everything(server, 1) == [b"late"]
    assert events(net, "lost") == ["lost alice server UDP"]


async def test_a_one_way_partition_lets_the_other_way_through(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Alice is not heard, but hears."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.partition("alice", "server", one_way=True):
        await alice.sendto(b"question", ("server", 6))
        await server.sendto(b"notice", ("alice", 5))
        heard = await everything(alice, 1), await everything(server, 1)
    await alice.sendto(b"question", ("server", 6))

    assert heard == ([b"notice"], [])
    assert await everything(server, 1) == [b"question"]
    assert events(net, "lost") == ["lost alice server UDP"]


async def test_who_hears_but_is_not_heard_gets_the_same_bytes_again_and_again_and_reads_them_once(
    net: VirtualNetwork,
    autojump_clock: Clock,
) -> None:
    """Its acknowledgements are lost, so the sender repeats until they come through."""
    client, server = await connected(net, await listen(net))
    with net.partition("alice", "server", one_way=True):
        await server.send(b"once")
        heard = await everything(client, 5)
    await server.send(b" more")
    heard += await everything(client, 5)

    assert b"".join(heard) == b"once more"
    assert len(times(net, "DATA")) > 2


async def test_a_connection_cannot_be_made_through_a_partition(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Linux asks seven times, and gives up after 1 + 2 + 4 + ... + 64 seconds."""
    await listen(net)
    with net.host("alice"), net.partition("alice", "server"):
        assert await failure(opened().connect, ("server", 4000)) == "ETIMEDOUT"

    assert trio.current_time() == 127.0
    assert events(net, "lost") == ["lost alice server SYN"] * 7


async def test_a_partition_that_lasts_longer_than_tcp_is_patient_ends_the_connection(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """Fifteen repetitions, 924.6 seconds: what Linux documents for tcp_retries2."""
    net.set_link("alice", "server", latency=0.0)
    client, server = await connected(net, await listen(net))
    began = trio.current_time()
    with net.partition("alice", "server"):
        await client.send(b"hello")
        told = await failure(client.recv, 1)
        took = trio.current_time() - began
    with trio.move_on_after(1000) as waiting:
        await server.recv(1)

    assert told == "ETIMEDOUT"
    assert took == pytest.approx(924.6)
    assert waiting.cancelled_caught
    assert events(net, "lost") == ["lost alice server DATA"] * 16


async def test_a_partition_does_not_touch_others(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Bob talks to both."""
    bob, server = await udp(net, "bob", 5), await udp(net, "server", 6)
    with net.partition("alice", "server"):
        await bob.sendto(b"here", ("server", 6))
        await server.sendto(b"there", ("bob", 5))

        assert (await everything(server, 1), await everything(bob, 1)) == ([b"here"], [b"there"])


@pytest.mark.parametrize(
    ("a", "b", "cut"),
    [
        ("alice", None, ["alice>bob", "alice>server", "bob>alice", "server>alice"]),
        (None, "alice", ["alice>bob", "alice>server", "bob>alice", "server>alice"]),
        (None, None, ["alice>bob", "alice>server", "bob>alice", "bob>server", "server>alice", "server>bob"]),
        ("alice", "alice", ["alice>alice"]),
    ],
)
async def test_none_stands_for_every_other_host(
    net: VirtualNetwork, autojump_clock: Clock, a: str | None, b: str | None, cut: list[str]
) -> None:
    """But a host's way to itself is meant only where it is named twice."""
    names = ["alice", "bob", "server"]
    socks = {name: await udp(net, name, 5) for name in names}
    with net.partition(a, b):
        for source in names:
            for target in names:
                await socks[source].sendto(source.encode(), (target, 5))
        await trio.sleep(1)

    assert (
        sorted(event.removeprefix("lost ").replace(" UDP", "").replace(" ", ">") for event in events(net, "lost"))
        == cut
    )
    heard = {(source, name) for name in names for source in await everything(socks[name], 1)}
    assert len(heard) == 9 - len(cut)


# ---- isolated --------------------------------------------------------------------------------------------------------


async def test_an_isolated_host_reaches_itself_and_nobody_else(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Neither other hosts, nor they it, nor the name server."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.begin(Isolated("alice")):
        await server.sendto(b"in", ("alice", 5))
        await alice.sendto(b"self", ("127.0.0.1", 5))
        await alice.sendto(b"out", ("10.0.0.4", 6))
        heard = await everything(alice, 1), await everything(server, 1)
        told = await look_up(net, "alice", "server")
    await server.sendto(b"in", ("alice", 5))

    assert heard == ([b"self"], [])
    assert told == "EAI_AGAIN"
    assert await everything(alice, 1) == [b"in"]
    assert events(net, "lost") == ["lost server alice UDP", "lost alice server UDP"]


# ---- hold ------------------------------------------------------------------------------------------------------------


async def test_what_is_held_comes_once_and_in_order_when_it_is_released(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """It departs at the end: one latency later everything is there."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    await alice.sendto(b"under way", ("server", 6))
    with net.hold("alice", "server"):
        for number in range(5):
            await alice.sendto(str(number).encode(), ("server", 6))
        held = await everything(server, 3)
        released = trio.current_time()
    got = [await server.recv(9) for _ in range(6)]

    assert held == []
    assert got == [b"0", b"1", b"2", b"3", b"4", b"under way"]
    assert trio.current_time() == released + LATENCY
    assert events(net, "held", "lost") == ["held alice server UDP"] * 6
    assert await everything(server, 1) == []


async def test_a_stream_that_was_held_has_every_byte_once(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """The sender repeats meanwhile; the receiver does not notice."""
    client, server = await connected(net, await listen(net))
    with net.hold("alice", "server"):
        for number in range(5):
            await client.send(str(number).encode())
            await trio.sleep(1)
        released = trio.current_time()
    got = await server.recv(65536)

    assert got == b"01234"
    assert trio.current_time() == released + LATENCY
    assert events(net, "lost") == []
    assert len(times(net, "held", "DATA")) > 5


async def test_a_repetition_that_comes_late_does_not_break_a_stream(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """The server has it, has answered and closed: it acknowledges once more.  Hypothesis found that it was reset."""
    client, server = await connected(net, await listen(net))
    with net.partition("server", "alice", one_way=True):
        await client.send(b"question")
        question = await server.recv(100)
        hold = net.hold("alice", "server", one_way=True)
        await trio.sleep(1)
        await server.send(b"answer")
        server.close()
        held = times(net, "held", "DATA")
        hold.end()
        await trio.sleep(0.5)

    assert (question, len(held)) == (b"question", 1)
    assert [await client.recv(100), await client.recv(100)] == [b"answer", b""]


async def test_a_one_way_hold_lets_the_other_way_through(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Only from alice to the server."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.hold("alice", "server", one_way=True):
        await alice.sendto(b"there", ("server", 6))
        await server.sendto(b"here", ("alice", 5))
        within = await everything(alice, 1), await everything(server, 1)

    assert within == ([b"here"], [])
    assert await everything(server, 1) == [b"there"]


# ---- loss, latency, and other conditions -----------------------------------------------------------------------------


async def flood(alice: Socket, server: Socket, count: int = 100) -> list[int]:
    """Which of so many datagrams come, in which order."""
    for number in range(count):
        await alice.sendto(bytes([number]), ("server", 6))
        await trio.sleep(0.01)
    return [data[0] for data in await everything(server, 5)]


async def test_a_part_of_the_packets_is_lost(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Each by chance, but the same ones at every run; all others come in order."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.begin(Loss("alice", "server", 0.3)):
        got = await flood(alice, server)

    assert 50 < len(got) < 90
    assert got == sorted(set(got))
    assert events(net, "lost") == ["lost alice server UDP"] * (100 - len(got))
    assert await flood(alice, server) == list(range(100))


async def test_a_stream_gets_through_loss(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Slower, and whole."""
    client, server = await connected(net, await listen(net))
    sent = bytes(range(256)) * 1000
    got = bytearray()

    async def send() -> None:
        view = memoryview(sent)
        while view:
            view = view[await client.send(view) :]

    with net.begin(Loss("alice", "server", 0.3)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while len(got) < len(sent):
                got += await server.recv(65536)

    assert bytes(got) == sent
    assert "lost alice server DATA" in events(net, "lost")


async def test_loss_in_one_direction(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """A rate of 1 is a partition."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.begin(Loss("alice", "server", 1, one_way=True)):
        await alice.sendto(b"there", ("server", 6))
        await server.sendto(b"here", ("alice", 5))

        assert (await everything(alice, 1), await everything(server, 1)) == ([b"here"], [])


async def ping(alice: Socket, server: Socket) -> float:
    """How long a datagram takes there and back."""
    started = trio.current_time()
    await alice.sendto(b"?", ("server", 6))
    await server.recv(1)
    await server.sendto(b"!", ("alice", 5))
    await alice.recv(1)
    return trio.current_time() - started


async def test_a_changed_latency_is_exact(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Both ways, then one way, then as before."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    took = [await ping(alice, server)]
    with net.begin(Latency("alice", "server", 2)):
        took.append(await ping(alice, server))
        with net.begin(Latency("server", "alice", 0, one_way=True)):
            took.append(await ping(alice, server))
    took.append(await ping(alice, server))

    assert took == [0.25, 4.0, 2.0, 0.25]


async def test_a_changed_jitter_spreads_the_delays(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Between the latency and that much more."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.begin(Latency("alice", "server", 1, 0.5)):
        took = [await ping(alice, server) for _ in range(20)]

    assert all(2.0 <= each <= 3.0 for each in took)
    assert len(set(took)) == 20


async def test_what_is_under_way_does_not_notice_a_changed_latency(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """So what is sent later can overtake it."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.begin(Latency("alice", "server", 4)):
        await alice.sendto(b"slow", ("server", 6))
    await alice.sendto(b"fast", ("server", 6))

    assert [await server.recv(4), await server.recv(4)] == [b"fast", b"slow"]
    assert trio.current_time() == 4.0


async def test_a_narrow_link_delays_what_is_large(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """1,000 bytes and 40 of headers at 2,080 bytes a second: half a second more."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.begin(Degraded("alice", "server", bandwidth=2080)):
        await alice.sendto(bytes(1000), ("server", 6))
        await server.recv(1000)
        slow = trio.current_time()
    await alice.sendto(bytes(1000), ("server", 6))
    await server.recv(1000)

    assert (slow, trio.current_time() - slow) == (0.5 + LATENCY, LATENCY)


async def test_datagrams_come_twice(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Each of them, at a rate of 1; and once again afterwards."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.begin(Degraded("alice", "server", duplication=1)):
        twice = await flood(alice, server, 10)

    assert sorted(twice) == sorted([*range(10), *range(10)])
    assert await flood(alice, server, 10) == list(range(10))


async def test_datagrams_overtake_each_other(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """All come, not in their order."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.begin(Degraded("alice", "server", reordering=0.3)):
        mixed = await flood(alice, server)

    assert mixed != sorted(mixed) == list(range(100))
    assert await flood(alice, server) == list(range(100))


async def test_a_link_can_be_bad_in_every_way(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Some datagrams are lost, some come twice, some too late."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.begin(Degraded("alice", "server", loss=0.2, duplication=0.2, reordering=0.2, jitter=0.01)):
        got = await flood(alice, server)

    lost = len(events(net, "lost"))
    assert 0 < lost == 100 - len(set(got))
    assert len(set(got)) < len(got)
    assert list(dict.fromkeys(got)) != sorted(set(got))


# ---- reset -----------------------------------------------------------------------------------------------------------


async def test_both_ends_are_reset_at_once(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Not one latency later; a new connection can be made."""
    listener = await listen(net)
    client, server = await connected(net, listener)
    now = trio.current_time()
    net.reset_connections("server", "alice")
    told = [await failure(client.recv, 1), await failure(server.recv, 1)]
    took = trio.current_time() - now
    again, _ = await connected(net, listener)

    assert (told, took) == (["ECONNRESET"] * 2, 0.0)
    assert await again.send(b"hello") == 5
    assert events(net, "fault", "reset", "heal") == [
        "fault ResetConnections('server', 'alice')",
        "reset alice from server:4000",
        f"reset server from alice:{client.getsockname()[1]}",
    ]


async def test_bytes_that_arrived_before_a_reset_can_still_be_read(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Bytes first, then the error."""
    client, server = await connected(net, await listen(net))
    await client.send(b"last words")
    await trio.sleep(1)
    net.reset_connections("alice", "server")

    assert await server.recv(100) == b"last words"
    assert await failure(server.recv, 1) == "ECONNRESET"


async def test_connections_of_others_are_not_reset(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Bob's goes on; a connection within one host is reset only if it is named twice."""
    listener = await listen(net)
    client, _ = await connected(net, listener)
    bob, bobs = await connected(net, listener, "bob")
    own, owns = await connected(net, listener, "server")
    net.reset_connections("alice", None)
    await bob.send(b"here")
    await own.send(b"self")

    assert await failure(client.recv, 1) == "ECONNRESET"
    assert (await bobs.recv(4), await owns.recv(4)) == (b"here", b"self")
    net.reset_connections("server", "server")
    assert [await failure(own.recv, 1), await failure(owns.recv, 1)] == ["ECONNRESET"] * 2
    await bob.send(b"more")
    assert await bobs.recv(4) == b"more"


async def test_a_reset_in_other_states_of_a_connection(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Being made: ECONNREFUSED.  Waiting to be accepted: accepted, and reset.  The peer has finished: EPIPE."""
    listener = await listen(net)
    client, server = await connected(net, listener)
    client.shutdown(socket.SHUT_WR)
    await trio.sleep(1)
    told = []

    async def connect() -> None:
        with net.host("bob"):
            told.append(await failure(opened().connect, ("server", 4000)))

    with net.host("bob"):
        waiting = opened()
        await waiting.connect(("server", 4000))
    await trio.sleep(LATENCY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        net.reset_connections(None, None)
    accepted = await accept(listener)

    assert told == ["ECONNREFUSED"]
    assert await failure(accepted.recv, 1) == "ECONNRESET"
    assert await failure(waiting.recv, 1) == "ECONNRESET"
    assert await server.recv(1) == b""
    assert await failure(server.send, b"x") == "EPIPE"
    assert await failure(client.recv, 1) == "ECONNRESET"


# ---- crash -----------------------------------------------------------------------------------------------------------


async def test_nobody_is_told_of_a_crash_and_the_restarted_host_resets_what_it_does_not_know(
    net: VirtualNetwork,
    autojump_clock: Clock,
) -> None:
    """An idle peer waits on; one that sends is answered by a reset as soon as the host is up again."""
    listener = await listen(net)
    client, server = await connected(net, listener)
    with net.crash("server"):
        unheard = await everything(client, 100)
        gone = [await failure(server.recv, 1), await failure(accept, listener)]
        with net.host("server"), pytest.raises(OSError) as caught:
            opened()
    still = await everything(client, 100)
    await client.send(b"are you there?")
    sent = trio.current_time()

    assert (unheard, still) == ([], [])
    assert (gone, caught.value.errno) == (["ENETDOWN", "EINVAL"], errno.ENETDOWN)
    assert await failure(client.recv, 1) == "ECONNRESET"
    assert trio.current_time() - sent == 2 * LATENCY
    assert events(net, "fault", "crash", "restart", "heal", "RST") == [
        "fault Crash('server')",
        "crash server",
        "heal Crash('server')",
        "restart server",
        "RST server alice",
    ]


async def test_a_crash_while_connections_are_in_every_state(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """What each peer sees, from the crash on and after the restart."""
    listener = await listen(net)
    busy, _ = await connected(net, listener)
    finished, _ = await connected(net, listener)
    finished.shutdown(socket.SHUT_WR)
    ended, ending = await connected(net, listener)
    ending.shutdown(socket.SHUT_WR)
    with net.host("alice"):
        queued = opened()
        await queued.connect(("server", 4000))
        connecting = opened()
    await trio.sleep(1)
    seen = {}

    async def see(name: str, call: Callable[..., Awaitable[object]], *args: Any) -> None:
        seen[name] = await failure(call, *args)

    async with trio.open_nursery() as nursery:
        await busy.send(b"under way")
        nursery.start_soon(see, "connecting", connecting.connect, ("server", 4000))
        await trio.testing.wait_all_tasks_blocked()
        with net.crash("server"):
            nursery.start_soon(see, "busy", busy.recv, 1)
            await trio.sleep(1.5)
        for sock in (ended, queued):
            await sock.send(b"x")
        nursery.start_soon(see, "queued", queued.recv, 1)
        await trio.sleep(1)

        assert await ended.recv(1) == b""
        await see("ended", ended.send, b"x")

    assert seen == {"connecting": "ECONNREFUSED", "busy": "ECONNRESET", "queued": "ECONNRESET", "ended": "EPIPE"}
    assert await everything(finished, 100) == []  # it has nothing more to say, so it learns nothing


async def test_a_client_that_crashes_leaves_the_server_waiting(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Only when it sends does it find out: a reset once the client is up again."""
    client, server = await connected(net, await listen(net))
    with net.crash("alice"):
        nothing = await everything(server, 10)
    await server.send(b"?")

    assert nothing == []
    assert await failure(server.recv, 1) == "ECONNRESET"
    client.close()


async def test_a_client_that_starts_again_connects_from_the_port_of_its_former_life(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """The server still has that connection: it asks (RFC 5961, 4.2), is answered by a reset, and the client's second
    try makes the new one.  The first version of the network kept silent for ever.
    """
    listener = await listen(net)
    client, server = await connected(net, listener)
    port = client.getsockname()[1]
    net.crash("alice").end()
    began = trio.current_time()
    again, accepted = await connected(net, listener)
    took = trio.current_time() - began
    await accepted.send(b"hello")

    assert again.getsockname()[1] == port
    assert 1.0 < took < 2.0
    assert await failure(server.recv, 1) == "ECONNRESET"
    assert await again.recv(100) == b"hello"


async def test_what_a_former_life_was_sent_is_not_for_the_next(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Its bytes come while the new connection is being made, from the same port to the same port."""
    listener = await listen(net)
    _, server = await connected(net, listener)
    await server.send(b"old")
    net.crash("alice").end()
    again, accepted = await connected(net, listener)
    await accepted.send(b"new")

    assert await failure(server.recv, 1) == "ECONNRESET"
    assert await again.recv(100) == b"new"


@pytest.mark.parametrize("returns", [True, False])
async def test_keep_alive_finds_out_that_a_silent_peer_has_crashed(
    net: VirtualNetwork, autojump_clock: Clock, returns: bool
) -> None:
    """It asks after 10 s, then every 5 s: a reset if the host is up again, ETIMEDOUT after three questions."""
    client, _ = await connected(net, await listen(net))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    began = trio.current_time()
    trouble = net.crash("server")
    if returns:
        await trio.sleep(3)
        trouble.end()
    told = await failure(client.recv, 1)
    took = trio.current_time() - began

    assert (told, took) == (("ECONNRESET", 10 + 2 * LATENCY) if returns else ("ETIMEDOUT", 10 + 3 * 5))


async def test_connections_that_wait_to_be_accepted_are_gone_after_a_crash(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """The server accepts two of five, crashes and starts again: the other three get nothing but a reset."""
    accepted: list[tuple[int, Socket]] = []
    lives = 0

    async def main() -> None:
        nonlocal lives
        lives += 1
        listener = await listen(net)
        for _ in range(2):
            accepted.append((lives, await accept(listener)))
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(net.run_on, "server", main)
        await trio.testing.wait_all_tasks_blocked()
        clients = []
        with net.host("alice"):
            for _ in range(5):
                clients.append(opened())
                await clients[-1].connect(("server", 4000))
            await trio.sleep(1)
            with net.crash("server"):
                await trio.sleep(1)
            await trio.testing.wait_all_tasks_blocked()
            for client in clients:
                await client.send(b"x")
            told = [await failure(client.recv, 1) for client in clients]
            again = opened()
            await again.connect(("server", 4000))
            await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert told == ["ECONNRESET"] * 5
    assert [life for life, _ in accepted] == [1, 1, 2]


async def test_tasks_that_wait_on_sockets_of_a_crashed_host_see_that_the_network_is_down(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """Reading, writing, connecting: what runs outside of `run_on` goes on, without its sockets."""
    listener = await listen(net)
    _, server = await connected(net, listener)
    with net.host("server"):
        connecting = opened()
        datagrams = await udp(net, "server", 5)
    told: dict[str, str] = {}

    async def see(name: str, call: Callable[..., Awaitable[object]], *args: Any) -> None:
        told[name] = await failure(call, *args)

    async def send_for_ever() -> None:
        while True:
            await server.send(bytes(65536))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(see, "accept", accept, listener)
        nursery.start_soon(see, "read", server.recv, 1)
        nursery.start_soon(see, "write", send_for_ever)
        nursery.start_soon(see, "connect", connecting.connect, ("bob", 1))
        nursery.start_soon(see, "datagram", datagrams.recv, 1)
        await trio.testing.wait_all_tasks_blocked()
        net.crash("server")

    assert told == {**dict.fromkeys(["read", "write", "connect", "datagram"], "ENETDOWN"), "accept": "EINVAL"}


async def test_a_server_outside_of_run_on_does_not_spin_when_its_host_has_crashed(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """accept() says EINVAL, as of a socket that listens no more: trio's server ends, ours tells and tries ten times a
    second.  With ENETDOWN, which servers take for a client's misfortune, both used to try again for ever.
    """
    passes = Passes()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            with net.host("server"):
                await nursery.start(trio.serve_tcp, trio.aclose_forcefully, 4000)
            net.crash("server").end()
    with net.host("server"):
        async with TcpServer() as server, server.events(AcceptError) as told:
            await server.listen("0.0.0.0", 4000)
            net.crash("server").end()
            event = await anext(told)
            trio.lowlevel.add_instrument(passes)
            await trio.sleep(3)
            trio.lowlevel.remove_instrument(passes)

    leaves = [exc for group in caught.value.exceptions for exc in getattr(group, "exceptions", (group,))]
    assert [type(exc) for exc in leaves] == [OSError]
    assert event == AcceptError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "cannot accept: Invalid argument")
    assert passes.count < 200


# ---- pause -----------------------------------------------------------------------------------------------------------


async def test_a_server_that_stands_still_while_one_connects_answers_when_it_goes_on(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """Nothing is lost and nothing refused: the first SYN is answered at 5 s."""
    await listen(net)
    with net.host("alice"):
        client = opened()
        async with trio.open_nursery() as nursery:
            with net.pause("server"):
                nursery.start_soon(client.connect, ("server", 4000))
                await trio.sleep(5)

    assert trio.current_time() == 5 + 2 * LATENCY
    assert times(net, "held", "SYN") == [0.0, 1.0, 3.0]
    assert events(net, "lost", "RST") == []


async def test_a_host_that_stands_still_neither_hears_nor_speaks(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Not even with itself; everything comes when it goes on."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.pause("server"):
        await alice.sendto(b"in", ("server", 6))
        await server.sendto(b"out", ("alice", 5))
        await server.sendto(b"self", ("127.0.0.1", 6))
        within = await everything(alice, 2), await everything(server, 2)

    assert within == ([], [])
    assert (await everything(alice, 1), await everything(server, 1)) == ([b"out"], [b"self", b"in"])
    assert sorted(events(net, "held", "lost")) == [
        "held alice server UDP",
        "held server alice UDP",
        "held server server UDP",
    ]


# ---- names -----------------------------------------------------------------------------------------------------------


async def look_up(net: VirtualNetwork, host: str, name: str) -> str:
    """The address of a name, or the name of the error."""
    with net.host(host):
        try:
            found = await trio.socket.getaddrinfo(name, 1, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            return next(key for key in ("EAI_AGAIN", "EAI_NONAME") if getattr(socket, key) == exc.errno)
    return str(found[0][4][0])


async def test_a_dead_name_server_takes_ten_seconds_not_to_answer(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Everybody is hit; ``localhost`` and addresses need no server."""
    with net.begin(NameServerDown()):
        told = await look_up(net, "alice", "server"), trio.current_time()
        local = await look_up(net, "alice", "localhost"), await look_up(net, "alice", "10.0.0.9"), trio.current_time()

    assert told == ("EAI_AGAIN", 10.0)
    assert local == ("::1", "10.0.0.9", 10.0)
    assert await look_up(net, "alice", "server") == "10.0.0.4"
    assert events(net, "lookup", "fault", "heal") == [
        "fault NameServerDown()",
        "lookup alice server",
        "heal NameServerDown()",
        "lookup alice server",
    ]


async def test_a_name_server_can_be_dead_for_one_host(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """The others do not notice."""
    with net.begin(NameServerDown("alice")):
        assert await look_up(net, "bob", "server") == "10.0.0.4"
        assert trio.current_time() == 0.0
        assert await look_up(net, "alice", "server") == "EAI_AGAIN"
        assert trio.current_time() == 10.0


async def test_a_name_server_that_comes_back_answers_the_second_question(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """It is asked again after five seconds."""
    async with trio.open_nursery() as nursery:
        with net.begin(NameServerDown()):
            nursery.start_soon(look_up, net, "alice", "server")
            await trio.sleep(3)

    assert trio.current_time() == 5.0


async def test_a_program_says_that_it_cannot_find_the_host(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """trio's streams, unchanged, raise what the resolver says."""
    with net.begin(NameServerDown()), net.host("alice"):
        with pytest.raises(OSError, match="name server") as caught:
            await trio.open_tcp_stream("server", 4000)

    assert isinstance(caught.value, socket.gaierror)


# ---- descriptors -----------------------------------------------------------------------------------------------------


async def test_no_socket_can_be_made_on_a_host_without_descriptors(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Those that there are go on, and other hosts do not notice."""
    client, server = await connected(net, await listen(net))
    with net.begin(DescriptorsExhausted("server")):
        with net.host("server"), pytest.raises(OSError) as caught:
            opened()
        with net.host("alice"):
            opened().close()
        await client.send(b"hello")
        heard = await server.recv(5)
    with net.host("server"):
        opened().close()

    assert (caught.value.errno, heard) == (errno.EMFILE, b"hello")


async def test_a_limit_of_descriptors_counts_those_in_use(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """A third is too many, until another is closed."""
    with net.begin(DescriptorsExhausted("server", 2)), net.host("server"):
        first, second = opened(), opened()
        with pytest.raises(OSError) as caught:
            opened()
        first.close()
        opened().close()
        second.close()

    assert caught.value.errno == errno.EMFILE


async def test_a_connection_waits_while_its_server_has_no_descriptors(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """accept() fails, and the same connection is there the next time."""
    listener = await listen(net)
    with net.host("alice"):
        client = opened()
        await client.connect(("server", 4000))
    await trio.sleep(1)
    with net.begin(DescriptorsExhausted("server")):
        told = await failure(accept, listener)
    accepted = await accept(listener)

    assert told == "EMFILE"
    assert accepted.getpeername() == client.getsockname()


async def test_our_server_outlives_a_lack_of_descriptors(
    net: VirtualNetwork, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It tells, tries again ten times a second, and serves who has waited: no spinning, no end."""
    passes = Passes()

    async def echo(sock: TcpSocket) -> None:
        async for chunk in sock:
            await sock.send_all(chunk)

    async with trio.open_nursery() as nursery:
        with net.host("server"):
            server = TcpServer()
            async with server, server.events(AcceptError) as told:
                await server.listen("0.0.0.0", 4000)
                await nursery.start(server.serve, echo)
                with net.host("alice"):
                    async with TcpSocket() as sock:
                        with net.begin(DescriptorsExhausted("server")):
                            await sock.connect_to_host("server", 4000)
                            await sock.send_all(b"hello")
                            event = await anext(told)
                            trio.lowlevel.add_instrument(passes)
                            await trio.sleep(3)
                            trio.lowlevel.remove_instrument(passes)
                            unanswered = sock.bytes_available()
                        ended = trio.current_time()
                        answer = await sock.receive_exactly(5)
                nursery.cancel_scope.cancel()

    assert event == AcceptError(ErrorKind.SOCKET_RESOURCE, "cannot accept: Too many open files")
    assert (unanswered, answer) == (0, b"hello")
    assert trio.current_time() - ended <= 0.1 + 2 * LATENCY
    assert passes.count < 200
    assert {record.name for record in caplog.records} == {"trioqt.server"}


class Passes(trio.abc.Instrument):
    """Counts the passes of the run loop."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


# ---- several at once -------------------------------------------------------------------------------------------------


async def test_equal_faults_that_are_nested_last_as_long_as_the_outer_one(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """The end of one does not heal the other."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.partition("alice", "server"):
        with net.partition("alice", "server"):
            pass
        await alice.sendto(b"lost", ("server", 6))
        await trio.sleep(1)
    await alice.sendto(b"heard", ("server", 6))

    assert await everything(server, 1) == [b"heard"]


async def test_crashes_that_overlap_are_one_crash(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """It is up again when the last of them is over."""
    first, second = net.crash("server"), net.crash("server")
    first.end()
    down = not net.hosts["server"].is_up
    second.end()

    assert (down, net.hosts["server"].is_up) == (True, True)
    assert events(net, "crash", "restart") == ["crash server", "restart server"]


async def test_of_faults_that_overlap_the_last_to_begin_has_the_last_word(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """And the others are as they were when it ends, in any order."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    slow = net.begin(Latency("alice", "server", 1))
    slower = net.begin(Latency(None, None, 2))
    took = [await ping(alice, server)]
    slow.end()
    took.append(await ping(alice, server))
    slow = net.begin(Latency("alice", "server", 1))
    took.append(await ping(alice, server))
    slower.end()
    took.append(await ping(alice, server))
    slow.end()
    took.append(await ping(alice, server))

    assert took == [4.0, 4.0, 2.0, 2.0, 0.25]


async def test_the_lowest_limit_of_descriptors_counts(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Whichever ends first."""
    few, none = net.begin(DescriptorsExhausted("server", 3)), net.begin(DescriptorsExhausted("server"))
    limits = [net.hosts["server"].descriptor_limit]
    none.end()
    limits.append(net.hosts["server"].descriptor_limit)
    few.end()

    assert limits == [0, 3]
    assert net.hosts["server"].descriptor_limit == HostState().descriptor_limit


async def test_what_is_held_is_lost_if_there_is_a_partition_when_it_is_released(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """It departs then, and gets nowhere."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    hold = net.hold("alice", "server")
    await alice.sendto(b"lost", ("server", 6))
    with net.partition("alice", "server"):
        hold.end()
    await alice.sendto(b"heard", ("server", 6))

    assert await everything(server, 1) == [b"heard"]
    assert events(net, "held", "lost") == ["held alice server UDP", "lost alice server UDP"]


async def test_a_crash_while_a_host_stands_still(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """What waited for it finds a machine that knows nothing: the connection is refused."""
    await listen(net)
    told = []

    async def connect() -> None:
        with net.host("alice"):
            told.append(await failure(opened().connect, ("server", 4000)))

    async with trio.open_nursery() as nursery:
        with net.pause("server"):
            nursery.start_soon(connect)
            await trio.sleep(1.5)
            with net.crash("server"):
                await trio.sleep(1)

    assert (told, trio.current_time()) == (["ECONNREFUSED"], 2.5 + 2 * LATENCY)


# ---- how long --------------------------------------------------------------------------------------------------------


async def test_a_fault_lasts_until_it_is_ended(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """It begins at the call; to end it twice is to end it once."""
    trouble = net.begin(Partition("alice", "server"))
    lasting = list(net.faults.values())
    trouble.end()
    trouble.end()

    assert lasting == [Partition("alice", "server")]
    assert net.faults == {}
    assert events(net, "fault", "heal") == ["fault Partition('alice', 'server')", "heal Partition('alice', 'server')"]


async def test_a_fault_is_over_at_the_end_of_its_block_whatever_happens(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """``with`` and ``async with``, after an error and when cancelled."""
    with pytest.raises(ZeroDivisionError), net.pause("server"):
        _ = 1 / 0
    async with net.pause("server") as trouble, net.hold("alice", "bob"):
        lasting = list(net.faults.values())
    with trio.move_on_after(1):
        async with net.pause("server"):
            await trio.sleep_forever()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with net.pause("server"):
            raise AssertionError("a cancelled task gets no further")

    assert net.faults == {}
    assert lasting == [Pause("server"), Hold("alice", "bob")]
    assert isinstance(trouble, Trouble)


async def test_what_is_over_cannot_be_used_again(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """That would do nothing, so it says so."""
    trouble = net.pause("server")
    trouble.end()
    with pytest.raises(RuntimeError, match="over"):
        trouble.__enter__()
    with pytest.raises(RuntimeError, match="over"):
        await trouble.__aenter__()


@pytest.mark.parametrize(
    "fault",
    [
        Partition("alice", "sever"),
        Partition("sever", None),
        Crash("sever"),
        ResetConnections(None, "sever"),
        NameServerDown("sever"),
    ],
    ids=repr,
)
async def test_a_fault_of_a_host_that_is_not_there_is_refused(
    net: VirtualNetwork, autojump_clock: Clock, fault: Fault
) -> None:
    """A name that is mistyped would else make a test pass in which nothing went wrong."""
    with pytest.raises(ValueError, match="there is no host 'sever'; there are default, alice, bob, server"):
        net.begin(fault)

    assert net.faults == {}
    assert net.trace() == []


async def test_a_host_that_comes_later_is_hit_by_what_goes_wrong_everywhere(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """Faults belong to the network, not to the links that there were when they began."""
    alice = await udp(net, "alice", 5)
    with net.partition("alice", None):
        carol = await udp(net, "carol", 6)
        await alice.sendto(b"lost", ("carol", 6))
        await trio.sleep(1)
    await alice.sendto(b"heard", ("carol", 6))

    assert await everything(carol, 1) == [b"heard"]


# ---- as values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Partition("a", "b"), "Partition('a', 'b')"),
        (Partition("a", None, one_way=True), "Partition('a', None, one_way=True)"),
        (Loss("a", "b", 1, one_way=True), "Loss('a', 'b', 1.0, one_way=True)"),
        (Latency("a", "b", 2, 0.5), "Latency('a', 'b', 2.0, 0.5)"),
        (Degraded("a", "b", bandwidth=1000, one_way=True), "Degraded('a', 'b', one_way=True, bandwidth=1000.0)"),
        (ResetConnections("a", "b"), "ResetConnections('a', 'b')"),
        (DescriptorsExhausted("a"), "DescriptorsExhausted('a')"),
        (DescriptorsExhausted("a", 3), "DescriptorsExhausted('a', 3)"),
        (NameServerDown(), "NameServerDown()"),
    ],
)
def test_a_fault_prints_as_python(fault: Fault, text: str) -> None:
    """And what is printed is equal to it."""
    assert repr(fault) == text
    assert eval(text) == fault
    assert hash(eval(text)) == hash(fault)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        fault.one_way = True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Partition(1, "b"), TypeError, "a is the name of a host"),  # type: ignore[arg-type]
        (lambda: Partition("a", "b", one_way=1), TypeError, "one_way"),  # type: ignore[arg-type]
        (lambda: Crash(None), TypeError, "host is the name of a host"),  # type: ignore[arg-type]
        (lambda: Loss("a", "b", 1.5), ValueError, "probability"),
        (lambda: Loss("a", "b", "1"), TypeError, "number"),  # type: ignore[arg-type]
        (lambda: Latency("a", "b", -1), ValueError, "seconds"),
        (lambda: Latency("a", "b", 1, float("nan")), ValueError, "seconds"),
        (lambda: Degraded("a", "b", bandwidth=0), ValueError, "more than 0"),
        (lambda: Degraded("a", "b", loss="1"), TypeError, "number"),  # type: ignore[arg-type]
        (lambda: DescriptorsExhausted("a", -1), ValueError, "0 or more"),
        (lambda: DescriptorsExhausted("a", 1.5), TypeError, "whole"),  # type: ignore[arg-type]
    ],
)
def test_a_fault_that_cannot_be_is_refused(make: Callable[[], Fault], error: type[Exception], says: str) -> None:
    """When it is made, not when it begins."""
    with pytest.raises(error, match=says):
        make()


def test_every_kind_has_a_docstring_and_a_name_of_its_own() -> None:
    """They are stored by name."""
    assert len({kind.__name__ for kind in KINDS}) == len(KINDS)
    assert all(kind.__doc__ for kind in KINDS)


async def test_a_fault_of_ones_own(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Links, hosts, and two instants are all there is to say."""

    @attrs.frozen
    class Storm(Fault):
        """Everything is slow and nobody has names."""

        said: list[str] = attrs.field(factory=list)

        def begin(self, net: VirtualNetwork) -> None:
            self.said.append("begin")

        def end(self, net: VirtualNetwork) -> None:
            self.said.append("end")

        def change(self, source: str, target: str, state: LinkState) -> LinkState:
            return attrs.evolve(state, conditions=attrs.evolve(state.conditions, latency=3.0))

        def change_host(self, host: str, state: HostState) -> HostState:
            return attrs.evolve(state, has_names=False)

    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    storm = Storm()
    with net.begin(storm):
        await alice.sendto(b"x", ("10.0.0.4", 6))
        await server.recv(1)
        assert (trio.current_time(), net.has_names("alice")) == (3.0, False)

    assert storm.said == ["begin", "end"]
    assert net.has_names("alice")
