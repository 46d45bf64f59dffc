"""What a link does to what is sent over it: when it comes, how much of it, and who hears it."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
import trio
import trio.testing

from tests.testing.network.on_hosts import (
    connected,
    datagrams,
    errno_of,
    kinds,
    listening,
    name_hosts,
    pair,
    receive_all,
)
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.fabric import Conditions

Clock = trio.testing.MockClock


async def test_times_are_exact(autojump_clock: Clock) -> None:
    """Connecting takes one round trip, a request and its answer one more, a refusal one."""
    async with VirtualNetwork(latency=0.25) as net:
        both = await pair(net)
        times = [trio.current_time()]  # accept() returns half a round trip after connect()
        await both.client.send(b"x")
        await both.server.recv(1)
        await both.server.send(b"y")
        await both.client.recv(1)
        times.append(trio.current_time())
        with net.host("client"), trio.socket.socket() as sock:
            refused = await errno_of(sock.connect, ("10.0.0.2", 9))
        times.append(trio.current_time())
        both.close()

        assert (times, refused) == ([0.75, 1.25, 1.75], "ECONNREFUSED")


async def test_a_link_may_differ_by_direction(autojump_clock: Clock) -> None:
    """Half a second there, two seconds back."""
    async with VirtualNetwork() as net:
        name_hosts(net, "client", "server")
        net.set_link("client", "server", latency=0.5, one_way=True)
        net.set_link("server", "client", latency=2.0, one_way=True)
        with net.host("server") as address:
            listener = await listening()
        with net.host("client"):
            client = await connected(address)
        connect_time = trio.current_time()
        server, _ = await listener.accept()
        for sock in (client, server, listener):
            sock.close()

        assert connect_time == 2.5


async def test_what_is_left_out_of_set_link_stays(autojump_clock: Clock) -> None:
    """Both directions, unless one is asked for."""
    net = VirtualNetwork(latency=0.5)
    name_hosts(net, "a", "b")
    net.set_link("a", "b", loss=0.1)
    net.set_link("a", "b", jitter=0.25, one_way=True)
    with net.host("a"), net.host("b"):
        a, b = net.hosts["a"], net.hosts["b"]

    assert a.path(b).conditions == Conditions(latency=0.5, loss=0.1, jitter=0.25)
    assert b.path(a).conditions == Conditions(latency=0.5, loss=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("latency", -1.0), ("jitter", float("inf")), ("loss", 1.5), ("loss", -0.1), ("bandwidth", 0), ("mtu", 0),
     ("queue", -1), ("duplication", 2), ("reordering", -1), ("latency", float("nan"))],
)  # fmt: skip
def test_conditions_that_cannot_be_are_refused(name: str, value: Any) -> None:
    """With the name of what is wrong."""
    with pytest.raises(ValueError, match=f"^{name} is"):
        Conditions(**{name: value})


async def test_bandwidth_is_shared_and_takes_its_time(autojump_clock: Clock) -> None:
    """1,000 bytes and 40 of headers at 1,040 bytes a second: one second each."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        net.set_link("client", "server", bandwidth=1040.0)
        start = trio.current_time()
        arrivals = []
        for _ in range(3):
            await both.client.send(bytes(1000))
        for _ in range(3):
            await receive_all(both.server, 1000)
            arrivals.append(trio.current_time() - start)
        both.close()

        assert arrivals == [1.0, 2.0, 3.0]


async def test_a_full_queue_loses_what_comes(autojump_clock: Clock) -> None:
    """Datagrams are gone; what is sent by TCP is repeated until it is there."""
    async with VirtualNetwork() as net:
        name_hosts(net, "client", "server")
        net.set_link("client", "server", bandwidth=1000.0, queue=2500)
        with net.host("server") as address:
            receiver = await datagrams(53)
        with net.host("client"):
            sender = await datagrams()
            for number in range(5):
                await sender.sendto(bytes([number]) * 960, (str(address), 53))
        got = []
        with trio.move_on_after(60):
            while True:
                got.append((await receiver.recv(2000))[0])
        receiver.close()
        sender.close()

        assert got == [0, 1]
        assert kinds(net).count("lost") == 3


async def test_lost_segments_are_repeated_with_growing_pauses(autojump_clock: Clock) -> None:
    """RFC 6298: 0.2 s and a round trip, and twice as long each time."""
    async with VirtualNetwork(latency=0.25) as net:
        both = await pair(net)
        net.set_link("client", "server", loss=1.0, one_way=True)
        start = trio.current_time()
        await both.client.send(b"x")
        await trio.sleep(12)
        losses = [event.time - start for event in net.trace() if event.kind == "lost"]
        net.set_link("client", "server", loss=0.0, one_way=True)
        data = await both.server.recv(1)
        arrival = trio.current_time() - start
        both.close()

        assert losses == pytest.approx([0, 0.7, 2.1, 4.9, 10.5])
        assert (data, round(arrival, 6)) == (b"x", 21.95)


async def test_a_connection_that_loses_everything_times_out(autojump_clock: Clock) -> None:
    """Linux: tcp_retries2 is 15; TCP_USER_TIMEOUT shortens it.  The error is told once, to whoever asks first."""
    async with VirtualNetwork() as net:
        long, short = await pair(net), await pair(net, port=4001)
        short.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
        net.set_link("client", "server", loss=1.0)
        start = trio.current_time()
        await long.client.send(b"x")
        await short.client.send(b"x")
        ends = []
        for sock in (short.client, long.client):
            ends.append((await errno_of(sock.recv, 1), round(trio.current_time() - start, 6)))
        left = await long.client.recv(1), await errno_of(long.client.send, b"y")
        long.close()
        short.close()

        assert ends == [("ETIMEDOUT", 5.0), ("ETIMEDOUT", 924.6)]
        assert left == (b"", "EPIPE")


async def test_nothing_is_lost_or_torn_under_loss_and_jitter(autojump_clock: Clock) -> None:
    """Segments overtake each other and are repeated; the program sees the bytes in order, once."""
    async with VirtualNetwork(conditions=Conditions(latency=0.02, jitter=0.05, loss=0.2), seed=3) as net:
        both = await pair(net)
        sent = b"".join(struct.pack("!I", number) for number in range(100_000))

        async def send() -> None:
            view = memoryview(sent)
            while view:
                view = view[await both.client.send(view) :]
            both.client.shutdown(socket.SHUT_WR)

        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while data := await both.server.recv(5000):
                got += data
        both.close()

        assert got == sent
        assert kinds(net).count("lost") > 5


async def test_a_sender_stops_when_nobody_reads(autojump_clock: Clock) -> None:
    """Two buffers of 64 KiB, and not a byte more; each reading lets it go on."""
    async with VirtualNetwork(latency=0.5) as net:
        both = await pair(net)
        sent = 0
        with trio.move_on_after(10):
            while True:
                sent += await both.client.send(bytes(10_000))
        held = sent
        await receive_all(both.server, 65_536)
        with trio.move_on_after(10):
            while True:
                sent += await both.client.send(bytes(10_000))
        both.close()

        assert (held, sent) == (131_072, 196_608)


async def test_a_reader_that_starts_late_wakes_a_sender_whose_peer_was_cut_off(autojump_clock: Clock) -> None:
    """The news that there is room is lost in the partition; then the sender asks by itself."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        sent = 0
        with trio.move_on_after(1):
            while True:
                sent += await both.client.send(bytes(65536))
        net.set_link("server", "client", loss=0.0)
        with net.partition("server", "client"):
            got = len(await receive_all(both.server, 65_536))
            await trio.sleep(2)
        await both.client.wait_writable()
        rest = len(await receive_all(both.server, sent - got))
        both.close()

        assert (sent, got, rest) == (131_072, 65_536, 65_536)


async def test_a_receive_buffer_is_full_when_it_is_full(autojump_clock: Clock) -> None:
    """SO_RCVBUF, doubled as Linux does, counts 704 bytes more for each datagram; what comes then is dropped."""
    async with VirtualNetwork() as net:
        receiver, sender = await datagrams(53, "127.0.0.1"), await datagrams()
        default = receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        for _ in range(100):
            await sender.sendto(bytes(1000), ("127.0.0.1", 53))
        received = 0
        with trio.move_on_after(1):
            while True:
                received += len(await receiver.recv(2000))
        receiver.close()
        sender.close()

        assert (default, received) == (212_992, 65536 // 1704 * 1000)
        assert kinds(net).count("buffer full") == 100 - 38


async def test_more_room_by_option_wakes_who_waits_for_it(autojump_clock: Clock) -> None:
    """SO_SNDBUF raised: the peer need not read first."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        with trio.move_on_after(1):
            while True:
                await both.client.send(bytes(65536))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.client.wait_writable)
            await trio.testing.wait_all_tasks_blocked()
            both.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        sent = await both.client.send(bytes(300_000))
        both.close()

        assert sent == 200_000 - 65_536


async def test_urgent_data_is_refused_and_not_mixed_in(autojump_clock: Clock) -> None:
    """It is not simulated, so it is not passed off as ordinary bytes."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        for call in (both.client.send(b"!", socket.MSG_OOB), both.server.recv(1, socket.MSG_OOB)):
            with pytest.raises(NotImplementedError, match="no urgent data"):
                await call
        both.close()


async def test_datagrams_are_doubled_reordered_and_lost_as_the_link_says(autojump_clock: Clock) -> None:
    """With probabilities of 1 there is no chance in it."""
    async with VirtualNetwork(latency=0.5) as net:
        with net.host("server") as address:
            receiver = await datagrams(53)
        with net.host("client"):
            sender = await datagrams()
        seen = {}
        changes: dict[str, dict[str, Any]] = {
            "doubled": {"duplication": 1.0},
            "late": {"duplication": 0.0, "reordering": 1.0},
            "lost": {"reordering": 0.0, "loss": 1.0},
            "plain": {"loss": 0.0},
        }
        for name, conditions in changes.items():
            net.set_link("client", "server", **conditions)
            start = trio.current_time()
            await sender.sendto(name.encode(), (str(address), 53))
            arrivals = []
            with trio.move_on_after(5):
                while True:
                    await receiver.recv(100)
                    arrivals.append(trio.current_time() - start)
            seen[name] = arrivals
        receiver.close()
        sender.close()

        assert seen == {"doubled": [0.5, 1.0], "late": [pytest.approx(1.001)], "lost": [], "plain": [0.5]}


async def test_a_large_datagram_is_lost_with_any_of_its_fragments(autojump_clock: Clock) -> None:
    """65,507 bytes are 45 fragments of 1,480: with 5 % loss one in ten arrives, where small ones do nearly all."""
    async with VirtualNetwork(seed=1) as net:
        name_hosts(net, "client", "server")
        net.set_link("client", "server", loss=0.05)
        with net.host("server") as address:
            receiver = await datagrams(53)
        with net.host("client"):
            sender = await datagrams()
        arrived = {}
        for size in (100, 65_507):
            arrived[size] = 0
            for _ in range(200):
                await sender.sendto(bytes(size), (str(address), 53))
                with trio.move_on_after(1):
                    arrived[size] += len(await receiver.recv(65_536)) == size
        receiver.close()
        sender.close()

        assert 180 <= arrived[100] <= 199
        assert 5 <= arrived[65_507] <= 40


async def test_a_datagram_that_must_not_be_cut_up_has_to_fit(autojump_clock: Clock) -> None:
    """IP_PMTUDISC_DO: EMSGSIZE, and IP_MTU tells how much fits."""
    async with VirtualNetwork() as net:
        name_hosts(net, "client", "server")
        net.set_link("client", "server", mtu=1000)
        with net.host("server") as address:
            receiver = await datagrams(53)
        with net.host("client"):
            sender = await datagrams()
            await sender.connect((str(address), 53))
            sender.setsockopt(socket.IPPROTO_IP, 10, 2)
            results = [await errno_of(sender.send, bytes(size)) for size in (972, 973)]
            mtu = sender.getsockopt(socket.IPPROTO_IP, 14)
            sender.close()
            receiver.close()

        assert (results, mtu) == (["ok", "EMSGSIZE"], 1000)


async def test_a_broadcast_reaches_every_host(autojump_clock: Clock) -> None:
    """Who listens on that port, after the latency of its own link; the sender's own host hears it too, as on Linux."""
    async with VirtualNetwork(latency=0.5) as net:
        name_hosts(net, "near", "far", "deaf", "sender")
        net.set_link("sender", "far", latency=2.0)
        receivers = {}
        for name in ("near", "far", "deaf"):
            with net.host(name):
                receivers[name] = await datagrams(67 if name != "deaf" else 68)
        with net.host("sender"):
            sender = await datagrams(67)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            await sender.sendto(b"who?", ("255.255.255.255", 67))
        heard = {}

        async def listen(name: str, sock: trio.socket.SocketType) -> None:
            with trio.move_on_after(10):
                data, source = await sock.recvfrom(100)
                heard[name] = (data, source, trio.current_time())
            sock.close()

        async with trio.open_nursery() as nursery:
            for name, sock in receivers.items():
                nursery.start_soon(listen, name, sock)
            nursery.start_soon(listen, "sender", sender)

        source = ("10.0.0.5", 67)
        assert heard == {
            "near": (b"who?", source, 0.5),
            "far": (b"who?", source, 2.0),
            "sender": (b"who?", source, 0.0),
        }


async def test_a_group_is_heard_by_its_members(autojump_clock: Clock) -> None:
    """And by the sender's own host, unless it switches that off."""
    async with VirtualNetwork(latency=0.5) as net:
        group = "239.1.2.3"
        members = {}
        for name in ("member", "stranger", "sender"):
            with net.host(name):
                sock = members[name] = await datagrams(5000)
                if name != "stranger":
                    request = socket.inet_aton(group) + socket.inet_aton("0.0.0.0")
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        await members["sender"].sendto(b"1", (group, 5000))
        members["sender"].setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        await members["sender"].sendto(b"2", (group, 5000))
        heard: dict[str, list[bytes]] = {}
        for name, sock in members.items():
            heard[name] = []
            with trio.move_on_after(5):
                while True:
                    heard[name].append(await sock.recv(10))
            sock.close()

        assert heard == {"member": [b"1", b"2"], "stranger": [], "sender": [b"1"]}
