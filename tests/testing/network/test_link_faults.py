"""Faults between hosts really happen, programs see what a real one would show them, and they stop at their end."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from tests.testing.network.three_hosts import (
    LATENCY,
    accept,
    connected,
    events,
    everything,
    failure,
    listen,
    look_up,
    opened,
    ping,
    times,
    udp,
)
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.faults import Degraded, Isolated, Latency, Loss

Clock = trio.testing.MockClock
Socket = trio.socket.SocketType


# ---- partition -----------------------------------------------------------------------------------


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


# ---- isolated ------------------------------------------------------------------------------------


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


# ---- hold ----------------------------------------------------------------------------------------


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


# ---- loss, latency, and other conditions ---------------------------------------------------------


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


# ---- reset ---------------------------------------------------------------------------------------


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
