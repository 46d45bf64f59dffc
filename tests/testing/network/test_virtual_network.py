"""The simulated network by itself: hosts, addresses, links, names, and what it tells of itself.

What its sockets do like a kernel's is in tests/parity; what goes wrong on purpose is in test_faults.py.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trioqt.core.addresses import HostAddress
from trioqt.testing import NameServerDown, VirtualNetwork
from trioqt.testing.network.fabric import Conditions
from trioqt.testing.network.trace import TraceEvent

Clock = trio.testing.MockClock


def name_hosts(net: VirtualNetwork, *names: str) -> None:
    """They get their addresses in this order."""
    for name in names:
        with net.host(name):
            pass


async def listening(port: int = 4000, host: str = "0.0.0.0", backlog: int = 10) -> trio.socket.SocketType:
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await sock.bind((host, port))
    sock.listen(backlog)
    return sock


async def connected(address: object, port: int = 4000) -> trio.socket.SocketType:
    host = str(address)
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    await sock.connect((host, port))
    return sock


async def datagrams(port: int = 0, host: str = "0.0.0.0") -> trio.socket.SocketType:
    sock = trio.socket.socket(type=socket.SOCK_DGRAM)
    await sock.bind((host, port))
    return sock


@attrs.frozen
class Pair:
    """A connection between two hosts."""

    client: trio.socket.SocketType
    server: trio.socket.SocketType

    def close(self) -> None:
        self.client.close()
        self.server.close()


async def pair(net: VirtualNetwork, client: str = "client", server: str = "server", port: int = 4000) -> Pair:
    with net.host(server) as address:
        listener = await listening(port)
    with net.host(client):
        sock = await connected(address, port)
    accepted, _ = await listener.accept()
    listener.close()
    return Pair(sock, accepted)


async def receive_all(sock: trio.socket.SocketType, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        got += await sock.recv(count - len(got))
    return bytes(got)


async def errno_of(call: Callable[..., Awaitable[object]], *args: object) -> str:
    try:
        await call(*args)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return "ok"


def kinds(net: VirtualNetwork) -> list[str]:
    return [event.kind for event in net.trace()]


# ---- hosts and addresses ---------------------------------------------------------------------------------------------


async def test_hosts_get_addresses_in_the_order_in_which_they_are_named(autojump_clock: Clock) -> None:
    """The first one is the host on which code runs that names none."""
    async with VirtualNetwork() as net:
        with net.host("a") as a, net.host("b") as b:
            pass
        with net.host("a") as again, net.host("default") as default:
            pass

        assert [str(address) for address in (default, a, b, again)] == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.2"]


async def test_a_host_may_have_many_addresses_of_both_families(autojump_clock: Clock) -> None:
    """A listener on any address is reached at each of them, and sees where it was reached."""
    async with VirtualNetwork() as net:
        with net.host("big", addresses=("10.1.0.1", "10.1.0.2", "fd00::1")) as first:
            listener = await listening(4000, "::")
        seen = []
        with net.host("small", addresses=("10.2.0.1", "fd00::2")):
            for address in ("10.1.0.1", "10.1.0.2", "fd00::1"):
                client = await connected(address)
                server, peer = await listener.accept()
                seen.append((server.getsockname()[0], peer[0], client.getpeername()[0]))
                client.close()
                server.close()
        listener.close()

        assert first == HostAddress("10.1.0.1")
        assert seen == [
            ("::ffff:10.1.0.1", "::ffff:10.2.0.1", "10.1.0.1"),
            ("::ffff:10.1.0.2", "::ffff:10.2.0.1", "10.1.0.2"),
            ("fd00::1", "fd00::2", "fd00::1"),
        ]


async def test_a_host_keeps_its_addresses_and_shares_none(autojump_clock: Clock) -> None:
    """A typing mistake in a test is told."""
    net = VirtualNetwork()
    with net.host("a", addresses=("10.9.0.1",)):
        pass

    with pytest.raises(ValueError, match=r"a has the addresses 10\.9\.0\.1"), net.host("a", addresses=("10.9.0.2",)):
        pass
    with pytest.raises(ValueError, match=r"10\.9\.0\.1 is an address of a"), net.host("b", addresses=("10.9.0.1",)):
        pass


@pytest.mark.parametrize("name", ["", None, "a b", "10.9.9.9", "fe80::1", "localhost", "a:1", "münchen"])
def test_a_name_that_nobody_could_ask_for_is_refused(name: Any) -> None:
    """Or that means something else."""
    with pytest.raises(ValueError, match="a host cannot have the name"), VirtualNetwork().host(name):
        pass


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("0.0.0.0",), ("224.0.0.1",), ("255.255.255.255",), ("::",), ("::ffff:10.1.0.1",), ("*",), ("",),
     ("10.1.0.1", "10.1.0.1")],
)  # fmt: skip
def test_an_address_that_no_host_can_have_is_refused(addresses: tuple[str, ...]) -> None:
    """Loopback, wildcard, group, broadcast, mapped, twice the same."""
    with pytest.raises(ValueError, match=r"cannot be the address of a host|an address twice"):
        with VirtualNetwork().host("a", addresses=addresses):
            pass


def test_one_address_is_no_sequence_of_them() -> None:
    """A str is a sequence of characters."""
    with pytest.raises(TypeError, match="addresses is a sequence"), VirtualNetwork().host("a", addresses="10.1.0.1"):
        pass


def test_an_automatic_address_is_one_that_is_free() -> None:
    """Others may have been given by hand."""
    net = VirtualNetwork()
    with net.host("a", addresses=("10.0.0.3",)), net.host("b") as b:
        pass

    assert str(b) == "10.0.0.4"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"seed": None}, TypeError),
        ({"seed": 1.5}, TypeError),
        ({"seed": "x"}, TypeError),
        ({"latency": -1.0}, ValueError),
        ({"latency": 0.5, "conditions": Conditions()}, ValueError),
        ({"name_latency": -1.0}, ValueError),
        ({"trace_limit": 0}, ValueError),
    ],
)
def test_a_network_that_cannot_be_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """When it is made."""
    with pytest.raises(error):
        VirtualNetwork(**options)


def test_a_link_that_cannot_be_is_refused() -> None:
    """A typing mistake would make a test green."""
    net = VirtualNetwork()
    name_hosts(net, "a", "b")

    with pytest.raises(ValueError, match="there is no host 'nobody'"):
        net.set_link("a", "nobody", loss=0.5)
    with pytest.raises(TypeError, match="wants a condition"):
        net.set_link("a", "b")
    with pytest.raises(TypeError, match="mtu is an int"):
        net.set_link("a", "b", mtu=1.5)
    with pytest.raises(TypeError, match="speed"):
        net.set_link("a", "b", speed=1)


async def test_a_network_is_used_once(autojump_clock: Clock) -> None:
    """Its hosts are down afterwards."""
    net = VirtualNetwork()
    async with net:
        pass

    with pytest.raises(RuntimeError, match="used once"):
        async with net:
            pass


def test_outside_of_trio_there_is_no_network() -> None:
    """Which is an answer."""
    assert VirtualNetwork.current() is None


async def test_every_host_has_a_loopback_of_its_own(autojump_clock: Clock) -> None:
    """Two hosts listen on one port of 127.0.0.1, and neither is seen by the other."""
    async with VirtualNetwork(latency=1.0) as net:
        answers = []
        for name in ("a", "b"):
            with net.host(name):
                listener = await listening(4000, "127.0.0.1")
                client = await connected("127.0.0.1")
                server, _ = await listener.accept()
                await server.send(name.encode())
                answers.append(await client.recv(10))
                for sock in (listener, client, server):
                    sock.close()

        assert answers == [b"a", b"b"]
        assert trio.current_time() == 0.0


async def test_tasks_inherit_the_host_and_can_have_another(autojump_clock: Clock) -> None:
    """It is a context variable: a task keeps the host on which it was started."""
    async with VirtualNetwork() as net:
        seen = {}

        async def look(key: str) -> None:
            seen[key] = net.current_host().name
            with net.host("inner"):
                seen[f"{key} inside"] = net.current_host().name

        async with trio.open_nursery() as nursery:
            with net.host("outer"):
                nursery.start_soon(look, "started on outer")
            nursery.start_soon(look, "started on none")

        assert seen == {
            "started on outer": "outer",
            "started on outer inside": "inner",
            "started on none": "default",
            "started on none inside": "inner",
        }


async def test_one_run_has_one_network(autojump_clock: Clock) -> None:
    """A second one would steal the first one's sockets."""
    async with VirtualNetwork() as net:
        assert VirtualNetwork.current() is net
        with pytest.raises(RuntimeError, match="there is a simulated network already"):
            async with VirtualNetwork():
                pass
        assert VirtualNetwork.current() is net

    assert VirtualNetwork.current() is None


async def test_the_kernels_sockets_are_back_after_the_block(autojump_clock: Clock) -> None:
    """The hooks are restored, also when the body fails, and its exception comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        async with VirtualNetwork():
            with trio.socket.socket() as sock:
                assert "virtual" in repr(sock)
            raise ZeroDivisionError
    with trio.socket.socket() as sock:
        assert "virtual" not in repr(sock)


async def test_a_socket_that_nobody_closed_is_told(autojump_clock: Clock) -> None:
    """With a ResourceWarning when it is thrown away after the network has ended, as Python's own are."""
    async with VirtualNetwork():
        sock = trio.socket.socket()
        closed = trio.socket.socket()
        closed.close()

    with pytest.warns(ResourceWarning, match="unclosed <virtual tcp socket of default") as caught:
        del sock, closed

    assert len(caught) == 1


async def test_who_still_waits_when_the_network_ends_is_told(autojump_clock: Clock) -> None:
    """Its sockets are dead: nothing hangs."""
    async with trio.open_nursery() as nursery:
        results: list[str] = []

        async def wait(sock: trio.socket.SocketType) -> None:
            results.append(await errno_of(sock.recv, 1))
            sock.close()

        async with VirtualNetwork() as net:
            both = await pair(net)
            nursery.start_soon(wait, both.client)
            nursery.start_soon(wait, both.server)
            await trio.testing.wait_all_tasks_blocked()

    assert results == ["ENETDOWN", "ENETDOWN"]


async def test_nobody_is_reached_at_an_address_of_another_family(autojump_clock: Clock) -> None:
    """ENETUNREACH at once: there is no route."""
    async with VirtualNetwork(latency=1.0) as net:
        with net.host("six", addresses=("fd00::6",)):
            pass
        with trio.socket.socket(socket.AF_INET6) as sock:
            assert await errno_of(sock.connect, ("fd00::6", 4000)) == "ENETUNREACH"
        assert trio.current_time() == 0.0


async def test_an_address_that_nobody_has_is_unreachable_after_a_round_trip(autojump_clock: Clock) -> None:
    """A router says so."""
    async with VirtualNetwork(latency=0.25):
        with trio.socket.socket() as sock:
            assert await errno_of(sock.connect, ("10.77.0.1", 4000)) == "EHOSTUNREACH"
        assert trio.current_time() == 0.5


# ---- links -----------------------------------------------------------------------------------------------------------


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


async def test_a_broadcast_reaches_every_other_host(autojump_clock: Clock) -> None:
    """Who listens on that port, after the latency of its own link."""
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
        assert heard == {"near": (b"who?", source, 0.5), "far": (b"who?", source, 2.0)}


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


# ---- TCP between hosts -----------------------------------------------------------------------------------------------


async def test_a_full_backlog_ignores_who_asks_and_they_ask_again(autojump_clock: Clock) -> None:
    """Linux keeps backlog + 1.  The third is let in at its first retry, a second later, when one has been accepted."""
    async with VirtualNetwork(latency=0.25) as net:
        with net.host("server") as address:
            listener = await listening(backlog=1)
        connect_times = []

        async def connect() -> None:
            with net.host("client"):
                sock = await connected(address)
            connect_times.append(trio.current_time())
            sock.close()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(connect)
            await trio.sleep(1)
            for _ in range(3):
                (await listener.accept())[0].close()
        listener.close()

        assert connect_times == [0.5, 0.5, 1.5]
        assert kinds(net).count("backlog full") == 1


async def test_an_address_that_does_not_answer_times_out_after_seven_syns(autojump_clock: Clock) -> None:
    """Linux: tcp_syn_retries is 6; TCP_SYNCNT sets it for a socket."""
    async with VirtualNetwork() as net:
        name_hosts(net, "client", "server")
        net.set_link("client", "server", loss=1.0)
        with net.host("server") as address:
            listener = await listening()
        times = {}
        with net.host("client"):
            for retries in (6, 2):
                start = trio.current_time()
                with trio.socket.socket() as sock:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, retries)
                    result = await errno_of(sock.connect, (str(address), 4000))
                times[retries] = (result, trio.current_time() - start)
        listener.close()

        assert times == {6: ("ETIMEDOUT", 127.0), 2: ("ETIMEDOUT", 7.0)}


async def test_keep_alive_finds_a_peer_that_is_gone(autojump_clock: Clock) -> None:
    """Ten idle seconds, then three probes five seconds apart, the last of which gets its five seconds too."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        both.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            both.client.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        with net.partition("client", "server"):
            start = trio.current_time()
            result = await errno_of(both.client.recv, 1)
            waited = trio.current_time() - start
        both.close()

        assert (result, waited) == ("ETIMEDOUT", 25.0)


async def test_keep_alive_costs_nothing_while_nothing_is_wrong(autojump_clock: Clock) -> None:
    """An idle network is at rest, so a deadlock is still seen as one."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        both.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        at_rest = net.in_flight
        both.close()

        assert at_rest == 0


async def test_a_port_in_time_wait_is_free_again_after_a_minute(autojump_clock: Clock) -> None:
    """Whoever closes first keeps it; SO_REUSEADDR, on the old socket and on the new one, does not mind."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        both.server.close()
        assert await both.client.recv(1) == b""
        both.client.close()

        async def bind(reuse: int) -> str:
            with net.host("server"), trio.socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                return await errno_of(sock.bind, ("0.0.0.0", 4000))

        early = await bind(0), await bind(1)
        await trio.sleep(60)
        late = await bind(0)

        assert (early, late) == (("EADDRINUSE", "ok"), "ok")


async def test_an_answer_survives_a_request_that_is_repeated_in_vain(autojump_clock: Clock) -> None:
    """The server has answered and closed; only its acknowledgements were cut.  What comes again is known, no reset."""
    async with VirtualNetwork(latency=0.05) as net:
        both = await pair(net)
        with net.partition("server", "client", one_way=True):
            await both.client.send(b"request")
            await both.server.recv(7)
            await both.server.send(b"response")
            both.server.close()
            await trio.sleep(1)
        got = await both.client.recv(100), await both.client.recv(100)
        both.close()

        assert got == (b"response", b"")


async def test_a_held_link_keeps_ten_thousand_packets_and_loses_no_byte(autojump_clock: Clock) -> None:
    """More are dropped, as by a switch that runs out of memory, and TCP repeats them."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        with net.hold("client", "server"):
            for _ in range(10_500):
                await both.client.send(b"x")
        both.client.shutdown(socket.SHUT_WR)
        got = 0
        while data := await both.server.recv(65536):
            got += len(data)
        both.close()

        assert got == 10_500
        assert kinds(net).count("lost") > 400


@pytest.mark.parametrize("latency", [0.0, 0.05])
async def test_nothing_is_left_of_connections_that_are_over(latency: float, autojump_clock: Clock) -> None:
    """Whoever closed first: a minute later both hosts have forgotten them, and every port is free."""
    async with VirtualNetwork(latency=latency) as net:
        for port in (4001, 4002):
            both = await pair(net, port=port)
            first, second = (both.client, both.server) if port == 4001 else (both.server, both.client)
            first.close()
            assert await second.recv(1) == b""
            second.close()
            await trio.sleep(100)
        both = await pair(net, port=4003)
        both.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        both.close()
        await net.quiesce()
        client, server = net.hosts["client"], net.hosts["server"]

        assert [end for host in (client, server) for end in host.connections.values() if not end.is_gone()] == []
        assert net.netstat().count("\n") == 0
        assert net.in_flight == 0


async def test_clean_up_under_a_shield_still_has_a_network(autojump_clock: Clock) -> None:
    """The scope around the network is cancelled; a goodbye that is shielded goes through."""
    heard = b""
    with trio.move_on_after(5):
        async with VirtualNetwork(latency=0.05) as net:
            both = await pair(net)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await both.client.send(b"bye")
                    heard = await both.server.recv(3)
                    both.close()

    assert heard == b"bye"


async def test_a_lost_acknowledgement_is_not_forgotten_for_one_that_left_earlier(autojump_clock: Clock) -> None:
    """The one that made room was lost; the one before it, still under way, says nothing of that room."""
    async with VirtualNetwork(latency=1.0) as net:
        both = await pair(net)
        start = trio.current_time()

        async def read() -> None:
            await receive_all(both.server, 2 * 65536)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await both.client.send(bytes(1000))
            await trio.sleep_until(start + 0.5)
            await both.client.send(bytes(65536 - 1000))
            await trio.sleep_until(start + 1.2)
            with net.partition("server", "client", one_way=True):
                await trio.sleep(1.5)
            rest = 65536
            while rest:
                rest -= await both.client.send(bytes(rest))
        waited = trio.current_time() - start
        both.close()

        assert waited < 12


async def test_a_close_whose_last_acknowledgement_was_lost_still_ends(autojump_clock: Clock) -> None:
    """Its port is free again."""
    async with VirtualNetwork(latency=1.0) as net:
        both = await pair(net)
        start = trio.current_time()
        await both.client.send(b"a")
        await trio.sleep_until(start + 0.5)
        await both.client.send(b"b")
        both.client.close()
        await trio.sleep_until(start + 1.2)
        with net.partition("server", "client", one_way=True):
            await trio.sleep(1.5)
        await trio.sleep(100)
        left = [end for end in net.hosts["client"].connections.values() if not end.is_gone()]
        both.close()

        assert left == []


async def test_a_connect_whose_answer_is_cut_off_asks_again(autojump_clock: Clock) -> None:
    """The SYN arrived, its answers did not for 70 s.  Linux asks at 1, 3, 7, 15, 31 and 63 s, and gives up at 127 s."""
    async with VirtualNetwork(latency=0.05) as net:
        with net.host("server") as address:
            listener = await listening()
        name_hosts(net, "client")
        results = []

        async def connect() -> None:
            start = trio.current_time()
            with net.host("client"), trio.socket.socket() as sock:
                result = await errno_of(sock.connect, (str(address), 4000))
            results.append((result, round(trio.current_time() - start, 2)))

        for cut in (50, 200):
            async with trio.open_nursery() as nursery:
                trouble = net.partition("server", "client", one_way=True)
                nursery.start_soon(connect)
                await trio.sleep(cut)
                trouble.end()
        listener.close()

        assert results == [("ok", 63.1), ("ETIMEDOUT", 127.0)]


async def test_a_held_acknowledgement_comes_when_it_is_released(autojump_clock: Clock) -> None:
    """Room is known one latency after the release, not at the next repetition."""
    async with VirtualNetwork(latency=0.05) as net:
        both = await pair(net)

        async def read() -> None:
            await receive_all(both.server, 131_072)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with net.hold("server", "client", one_way=True):
                with trio.move_on_after(30):
                    while True:
                        await both.client.send(bytes(65536))
            start = trio.current_time()
            await both.client.wait_writable()
            waited = trio.current_time() - start
            nursery.cancel_scope.cancel()
        both.close()

        assert waited == pytest.approx(0.05)


async def test_the_network_is_at_rest_again_after_a_fault(autojump_clock: Clock) -> None:
    """A connection that asks for its peer now and then asks once more, and then no more while all is well."""
    async with VirtualNetwork(latency=0.05) as net:
        both = await pair(net)
        both.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with net.partition("client", "server"):
            await trio.sleep(1)
        await net.quiesce()
        at_rest = net.in_flight, trio.current_time()
        both.close()

        assert at_rest == (0, 7200.15)


async def test_keep_alive_finds_a_reset_that_was_lost(autojump_clock: Clock) -> None:
    """No fault lasts, but something of this connection was lost: so it asks."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        both.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        net.set_link("server", "client", loss=1.0, one_way=True)
        both.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        both.server.close()
        net.set_link("server", "client", loss=0.0, one_way=True)
        start = trio.current_time()
        result = await errno_of(both.client.recv, 1), trio.current_time() - start
        both.close()

        assert result == ("ECONNRESET", 7200.0)


async def test_a_link_that_gets_faster_is_free_at_once(autojump_clock: Clock) -> None:
    """What is on it arrives when it would have, after 104 s; what comes later does not wait for it, and is not lost."""
    async with VirtualNetwork() as net:
        name_hosts(net, "client", "server")
        net.set_link("client", "server", bandwidth=10.0)
        with net.host("server") as address:
            receiver = await datagrams(53)
        with net.host("client"):
            sender = await datagrams()
        await sender.sendto(bytes(1000), (str(address), 53))
        net.set_link("client", "server", bandwidth=1e9)
        await sender.sendto(b"later", (str(address), 53))
        arrivals = [(len(await receiver.recv(2000)), round(trio.current_time(), 3)) for _ in range(2)]
        receiver.close()
        sender.close()

        assert arrivals == [(5, 0.0), (1000, 104.0)]


# ---- names -----------------------------------------------------------------------------------------------------------


async def test_a_look_up_takes_its_time_and_knows_hosts_and_names(autojump_clock: Clock) -> None:
    """Names in any case, with or without the last dot; localhost is known without asking."""
    async with VirtualNetwork(name_latency=0.5) as net:
        with net.host("Db", addresses=("10.5.0.1", "fd00::5")):
            pass
        net.set_name("www.example", "10.5.0.1", "10.5.0.2")

        async def look_up(name: str, family: int = 0) -> tuple[list[str], float]:
            start = trio.current_time()
            found = await trio.socket.getaddrinfo(name, 80, family=family, type=socket.SOCK_STREAM)
            return [str(entry[4][0]) for entry in found], trio.current_time() - start

        assert await look_up("db") == (["10.5.0.1", "fd00::5"], 0.5)
        assert await look_up("DB.", socket.AF_INET6) == (["fd00::5"], 0.5)
        assert await look_up("www.example") == (["10.5.0.1", "10.5.0.2"], 0.5)
        assert await look_up("localhost") == (["::1", "127.0.0.1"], 0.0)
        with net.begin(NameServerDown()):
            assert await trio.socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICSERV) == ("localhost", "80")
        net.set_name("final.example.", "10.5.0.3")
        assert await look_up("final.example") == (["10.5.0.3"], 0.5)
        with pytest.raises(socket.gaierror, match="nowhere"):
            await look_up("nowhere")
        assert await trio.socket.getnameinfo(("10.5.0.1", 80), 0) == ("Db", "http")
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        assert await trio.socket.getnameinfo(("10.5.0.1", 80), numeric) == ("10.5.0.1", "80")
        assert await trio.socket.getnameinfo(("10.66.0.1", 7), socket.NI_NUMERICSERV) == ("10.66.0.1", "7")


# ---- what it tells ---------------------------------------------------------------------------------------------------


async def test_the_trace_tells_what_happened(autojump_clock: Clock) -> None:
    """Values, which compare and print."""
    async with VirtualNetwork(latency=0.5) as net:
        both = await pair(net)
        await both.client.send(b"hello")
        await both.server.recv(5)
        both.close()

        assert net.trace() == [
            TraceEvent(0.0, "listen", "server:4000"),
            TraceEvent(0.5, "SYN", "client:32768", "server:4000"),
            TraceEvent(1.0, "SYN-ACK", "server:4000", "client:32768"),
            TraceEvent(1.5, "close", "server:4000"),
            TraceEvent(2.0, "DATA", "client:32768", "server:4000", 5),
        ]
        assert str(net.trace()[-1]) == "2.000000 DATA client:32768 > server:4000 5 bytes"
        assert net.deliveries == 3


async def test_the_trace_is_bounded_and_the_digest_has_everything(autojump_clock: Clock) -> None:
    """So many of the last events are kept, at least; the hash does not depend on how many."""
    digests = []
    for limit in (5, 1000):
        async with VirtualNetwork(trace_limit=limit) as net:
            both = await pair(net)
            for _ in range(20):
                await both.client.send(b"x")
                await both.server.recv(1)
            both.close()
            digests.append(net.digest())
            kept = len(net.trace())
            assert kept == 26 if limit == 1000 else 5 <= kept < 10

    assert digests[0] == digests[1]


async def test_netstat_shows_every_socket_and_what_lingers(autojump_clock: Clock) -> None:
    """Also connections whose program has let go of them."""
    async with VirtualNetwork() as net:
        with net.host("server"):
            udp = await datagrams(53)
        both = await pair(net)
        await both.server.send(b"abc")
        both.client.shutdown(socket.SHUT_WR)
        before = net.netstat()
        both.close()
        udp.close()

        assert before.splitlines() == [
            "host    socket  state       local           remote          unread  unsent",
            "server  udp     UDP         *:53                            0       0",
            "server  tcp     CLOSE_WAIT  10.0.0.2:4000   10.0.0.3:32768  0       0",
            "client  tcp     FIN_WAIT2   10.0.0.3:32768  10.0.0.2:4000   3       0",
        ]


async def test_quiesce_waits_for_tasks_and_for_packets(autojump_clock: Clock) -> None:
    """wait_all_tasks_blocked() returns with packets under way; this one does not, and a sleeping task may sleep on."""
    async with VirtualNetwork(latency=0.5) as net, trio.open_nursery() as nursery:
        both = await pair(net)
        nursery.start_soon(trio.sleep, 1000)
        await both.client.send(b"x")
        await trio.testing.wait_all_tasks_blocked()
        seen = [both.server.is_readable()]
        await net.quiesce()
        seen.append(both.server.is_readable())
        both.close()
        nursery.cancel_scope.cancel()

        assert seen == [False, True]


async def test_the_same_seed_gives_the_same_digest(autojump_clock: Clock) -> None:
    """And another seed another."""

    async def digest(seed: int) -> str:
        async with VirtualNetwork(conditions=Conditions(latency=0.01, jitter=0.01, loss=0.2), seed=seed) as net:
            both = await pair(net)
            for _ in range(20):
                await both.client.send(b"x")
                await both.server.recv(1)
            both.close()
            return net.digest()

    start = trio.current_time()
    assert start == 0.0
    first = [await digest(1), await digest(2)]

    assert first[0] != first[1]


async def test_a_simulated_descriptor_never_reaches_the_kernel(autojump_clock: Clock) -> None:
    """No call can mistake it for an open file, and handing it over is refused by name."""
    async with VirtualNetwork():
        with trio.socket.socket() as sock:
            with pytest.raises(OSError, match="Bad file descriptor"):
                await trio.lowlevel.wait_readable(sock)
            for call in (sock.detach, sock.dup):
                with pytest.raises(NotImplementedError):
                    call()
