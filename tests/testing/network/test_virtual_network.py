"""The simulated network by itself: hosts, addresses, names, and what it tells of itself.

What its sockets do like a kernel's is in tests/parity; what goes wrong on purpose is in the tests of faults.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import trio
import trio.testing

from tests.testing.network.on_hosts import connected, datagrams, errno_of, listening, name_hosts, pair
from trioqt.core.addresses import HostAddress
from trioqt.testing import NameServerDown, VirtualNetwork
from trioqt.testing.network.fabric import Conditions
from trioqt.testing.network.trace import TraceEvent

Clock = trio.testing.MockClock


# ---- hosts and addresses -------------------------------------------------------------------------


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


# ---- names ---------------------------------------------------------------------------------------


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


# ---- what it tells -------------------------------------------------------------------------------


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
                os.fstat(sock.fileno())
            for call in (sock.detach, sock.dup):
                with pytest.raises(NotImplementedError):
                    call()
