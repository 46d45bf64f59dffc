"""Names and addresses, and the machine's own name and interfaces: on the kernel, and on simulated hosts."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.networks import Loopback, Network
from trioqt import (
    ErrorKind,
    HostAddress,
    HostInfo,
    InterfaceAddress,
    InterfaceFlag,
    NetworkInterface,
    SocketError,
    SocketState,
    TcpServer,
    TcpSocket,
    local_host_name,
    look_up_host,
    network_interfaces,
)
from trioqt.links import machine
from trioqt.sockets.arguments import Host
from trioqt.testing import NameServerDown, VirtualNetwork

V4, V6 = HostAddress.LOCAL_HOST, HostAddress.LOCAL_HOST_IPV6


@attrs.define(eq=False)
class Resolver(trio.abc.HostnameResolver):
    """Answers from two tables, and keeps what it was asked."""

    entries: dict[str, list[tuple[int, str, Any]]] = attrs.Factory(dict)
    names: dict[str, str] = attrs.Factory(dict)
    asked: list[Any] = attrs.Factory(list)
    gate: trio.Event | None = None

    async def getaddrinfo(
        self, host: bytes | None, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        assert host is not None
        self.asked.append((host.decode(), port, family, flags & socket.AI_CANONNAME != 0))
        if self.gate is not None:
            await self.gate.wait()
        try:
            found = self.entries[host.decode()]
        except KeyError:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
        return [(kind, type, 6, canonical, sockaddr) for kind, canonical, sockaddr in found]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        self.asked.append((sockaddr, flags & socket.NI_NAMEREQD != 0))
        if self.gate is not None:
            await self.gate.wait()
        try:
            return self.names[sockaddr[0]], str(sockaddr[1])
        except KeyError:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None


def resolver(**arguments: Any) -> Resolver:
    made = Resolver(**arguments)
    trio.socket.set_custom_hostname_resolver(made)
    return made


# ---- From a name to addresses ------------------------------------------------------------------


async def test_localhost_is_this_machine(network: Network) -> None:
    """On every network, and it asks nobody else."""
    info = await look_up_host("localhost")

    assert (info.host_name, info.canonical_name) == ("localhost", "localhost")
    assert V4 in info.addresses
    assert set(info.addresses) <= {V4, V6}


async def test_the_addresses_come_in_the_resolvers_order_and_each_once() -> None:
    """It has sorted them (RFC 6724), and it may give one for each protocol; the canonical name comes with one entry."""
    entries = [
        (socket.AF_INET6, "real.example", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, "", ("192.0.2.2", 0)),
        (socket.AF_INET6, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, "", ("192.0.2.1", 0)),
    ]
    asked = resolver(entries={"alias.example": entries}).asked

    info = await look_up_host("alias.example")

    addresses = tuple(map(HostAddress, ("2001:db8::1", "192.0.2.2", "192.0.2.1")))
    assert info == HostInfo("alias.example", "real.example", addresses)
    assert asked == [("alias.example", None, 0, True)]


async def test_without_a_canonical_name_the_name_is_it() -> None:
    """Not every resolver tells one."""
    resolver(entries={"peer.example": [(socket.AF_INET, "", ("192.0.2.1", 0))]})

    assert await look_up_host("peer.example") == HostInfo("peer.example", "peer.example", (HostAddress("192.0.2.1"),))


async def test_a_name_of_a_simulated_network(autojump_clock: trio.testing.MockClock) -> None:
    """Hosts and added names, after the time that its name server takes."""
    async with VirtualNetwork(name_latency=0.5) as net:
        net.set_name("www.example", "192.0.2.7")
        began = trio.current_time()
        with net.host("server", addresses=["192.0.2.7", "2001:db8::7"]):
            by_host, by_name = await look_up_host("server"), await look_up_host("www.example")

    assert by_host == HostInfo("server", "server", (HostAddress("192.0.2.7"), HostAddress("2001:db8::7")))
    assert by_name.addresses == (HostAddress("192.0.2.7"),)
    assert trio.current_time() - began == 1.0


@pytest.mark.parametrize(
    ("own", "found"),
    [
        (["192.0.2.1"], ["192.0.2.7"]),
        (["2001:db8::1"], ["2001:db8::7"]),
        (["192.0.2.1", "2001:db8::1"], ["192.0.2.7", "2001:db8::7"]),
    ],
)
async def test_addresses_are_of_families_that_the_machine_has(own: list[str], found: list[str]) -> None:
    """As in Qt: who has IPv4 only has no use for others.  Who has none of the right family does not find the name."""
    async with VirtualNetwork() as net:
        net.set_name("both.example", "192.0.2.7", "2001:db8::7")
        net.set_name("new.example", "2001:db8::8")
        with net.host("here", addresses=own):
            info = await look_up_host("both.example")
            if "2001:db8::1" in own:
                assert (await look_up_host("new.example")).addresses == (HostAddress("2001:db8::8"),)
            else:
                with pytest.raises(SocketError) as missing:
                    await look_up_host("new.example")
                assert missing.value.kind is ErrorKind.HOST_NOT_FOUND
            assert (await look_up_host("2001:db8::9")).addresses == (HostAddress("2001:db8::9"),)

    assert info.addresses == tuple(map(HostAddress, found))


async def test_the_system_is_asked_for_the_families_that_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they are it knows best."""
    asked: list[int] = []

    async def getaddrinfo(self: Resolver, *arguments: Any) -> Any:
        asked.append(arguments[-1] & socket.AI_ADDRCONFIG)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(Resolver, "getaddrinfo", getaddrinfo)
    resolver()
    await look_up_host("peer.example")

    assert asked == [socket.AI_ADDRCONFIG]


# ---- From an address to a name -----------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", V4, ipaddress.IPv4Address("127.0.0.1"), " 127.0.0.1 "])
async def test_an_address_has_a_name(network: Network, host: Host) -> None:
    """As in Qt (H-001): the address itself, and the name that it is known by."""
    assert await look_up_host(host) == HostInfo("localhost", "localhost", (V4,))


async def test_an_address_without_a_name_is_its_own_name() -> None:
    """As in Qt: that is no failure.  Only a name counts as an answer, and the scope goes with the question."""
    lo = socket.if_nametoindex("lo")
    asked = resolver(names={"192.0.2.1": "peer.example"}).asked

    infos = [await look_up_host(host) for host in ("192.0.2.1", "192.0.2.9", "fe80::1%lo")]

    assert [info.host_name for info in infos] == ["peer.example", "192.0.2.9", "fe80::1%lo"]
    assert [info.addresses[0].text for info in infos] == ["192.0.2.1", "192.0.2.9", "fe80::1%lo"]
    assert asked == [(("192.0.2.1", 0), True), (("192.0.2.9", 0), True), (("fe80::1", 0, 0, lo), True)]


async def test_the_host_of_an_address_on_a_simulated_network() -> None:
    """Whoever has it, by name."""
    async with VirtualNetwork() as net:
        with net.host("server", addresses=["192.0.2.7"]):
            pass

        assert await look_up_host("192.0.2.7") == HostInfo("server", "server", (HostAddress("192.0.2.7"),))
        assert (await look_up_host("192.0.2.8")).host_name == "192.0.2.8"


async def test_every_address_has_no_name_and_nobody_is_asked() -> None:
    """``HostAddress.ANY`` is no address of anybody's."""
    asked = resolver().asked

    assert await look_up_host(HostAddress.ANY) == HostInfo("*", "*", (HostAddress.ANY,))
    assert asked == []


# ---- What is not found -------------------------------------------------------------------------

# fmt: off
IMPOSSIBLE: list[tuple[Host, str]] = [
    ("",                     "cannot look up an empty name"),
    (HostAddress.NULL,       "cannot look up an empty name"),
    ("a\0b",                 r"cannot look up 'a\x00b': a name has no null character"),
    ("127.0.0.1\0.example",  r"cannot look up '127.0.0.1\x00.example': a name has no null character"),
    ("peer\udc80",           r"cannot look up 'peer\udc80': a name has no half characters"),
    ("bad..name",            "cannot look up bad..name: label empty or longer than 63 characters"),
    (".",                    "cannot look up .: label empty or longer than 63 characters"),
    ("x" * 64,               f"cannot look up {'x' * 64}: label empty or longer than 63 characters"),
    ("x." * 127 + "y",       f"cannot look up {'x.' * 30}...: a name has at most 253 characters"),
    ("x" * 1_000_000,        f"cannot look up {'x' * 60}...: label empty or longer than 63 characters"),
    ("127.0.0.1:80",         "cannot look up 127.0.0.1:80: a host is a name or an address, without a port"),
    ("[::1]",                "cannot look up [::1]: an address is written without brackets"),
    ("http://localhost/",    "cannot look up http://localhost/: a host is a name or an address, and no URL"),
    ("fe80::1%nosuch0",      "cannot look up fe80::1%nosuch0: no interface has the name in the scope"),
]
# fmt: on


@pytest.mark.parametrize(("host", "message"), IMPOSSIBLE)
async def test_what_cannot_be_a_name_is_not_found_and_nobody_is_asked(host: Host, message: str) -> None:
    """As in Qt (H-002), and the message says what is wrong with it, in characters that can be printed."""
    asked = resolver().asked

    with pytest.raises(SocketError) as caught:
        await look_up_host(host)

    assert (caught.value.kind, caught.value.message) == (ErrorKind.HOST_NOT_FOUND, message)
    assert message.isprintable()
    assert asked == []


async def test_the_longest_name_is_asked_for() -> None:
    """253 characters and a dot at the end are a name."""
    name = f"{'x' * 63}." * 3 + "y" * 61 + "."
    asked = resolver().asked

    with pytest.raises(SocketError, match="Name or service not known"):
        await look_up_host(name)

    assert (len(name), [each[0] for each in asked]) == (254, [name])


async def test_what_cannot_be_a_name_cannot_be_bound_or_listened_on_either() -> None:
    """One check, whoever asks."""
    asked = resolver().asked
    async with TcpSocket() as sock, TcpServer() as server:
        for host, message in IMPOSSIBLE[2:]:
            reason = message.rpartition(": ")[2]
            with pytest.raises(SocketError, match=f"^cannot bind to .*: {reason}$") as bound:
                await sock.bind(host)
            with pytest.raises(SocketError, match=f"^cannot listen on .*: {reason}$") as listened:
                await server.listen(host)
            assert [bound.value.kind, listened.value.kind] == [ErrorKind.HOST_NOT_FOUND] * 2
            assert len(bound.value.message) < 200

    assert asked == []


async def test_an_unknown_name_is_not_found(network: Network) -> None:
    """H-003; the cause is the resolver's own."""
    with pytest.raises(SocketError, match=r"^cannot look up nosuch\.invalid: ") as caught:
        await look_up_host("nosuch.invalid")

    assert caught.value.kind is ErrorKind.HOST_NOT_FOUND
    assert isinstance(caught.value.__cause__, socket.gaierror)


async def test_a_name_without_addresses_is_not_found() -> None:
    """A resolver may say yes and give nothing."""
    resolver(entries={"empty.example": []})

    with pytest.raises(SocketError, match=r"cannot look up empty\.example: no address") as caught:
        await look_up_host("empty.example")

    assert caught.value.kind is ErrorKind.HOST_NOT_FOUND


async def test_a_name_server_that_does_not_answer(autojump_clock: trio.testing.MockClock) -> None:
    """glibc's patience is 10 s; then the name is not found.  An address is its own name after that."""
    async with VirtualNetwork() as net:
        with net.begin(NameServerDown("default")):
            began = trio.current_time()
            with pytest.raises(SocketError, match="the name server does not answer") as caught:
                await look_up_host("peer.example")
            info = await look_up_host("192.0.2.1")

        assert (caught.value.kind, info.host_name) == (ErrorKind.HOST_NOT_FOUND, "192.0.2.1")
        assert trio.current_time() - began == 20.0


@pytest.mark.parametrize("host", [None, 7, b"localhost", ["localhost"]])
async def test_only_text_and_addresses_are_looked_up(host: Any) -> None:
    """TypeError, before anybody is asked."""
    with pytest.raises(TypeError, match="a host is a name or an address"):
        await look_up_host(host)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_whatever_is_asked_for_is_found_or_told(name: str) -> None:
    """Any text: a HostInfo, or HOST_NOT_FOUND with a message that can be printed."""

    async def main() -> HostInfo | SocketError:
        resolver()
        try:
            return await look_up_host(name)
        except SocketError as error:
            return error

    outcome = trio.run(main)

    if isinstance(outcome, SocketError):
        assert outcome.kind is ErrorKind.HOST_NOT_FOUND
        assert outcome.message.isprintable()
        assert len(outcome.message) < 1000
    else:
        assert outcome.addresses[0].text  # an address was asked for


# ---- While it waits ----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "", "*"])
async def test_it_is_a_checkpoint(network: Network, host: str) -> None:
    """Whatever is asked for, and whoever answers."""
    with trio.testing.assert_checkpoints():
        try:
            await look_up_host(host)
        except SocketError:
            assert host == ""


@pytest.mark.parametrize("host", ["peer.example", "192.0.2.1"])
async def test_it_is_cancelled_while_the_resolver_is_silent(host: str) -> None:
    """And the next one goes through."""
    silent = resolver(gate=trio.Event())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_up_host, host)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    silent.gate = None
    silent.entries["peer.example"] = [(socket.AF_INET, "", ("192.0.2.1", 0))]
    silent.names["192.0.2.1"] = "peer.example"
    assert (await look_up_host(host)).host_name == "peer.example"
    assert len(silent.asked) == 2


async def test_many_are_looked_up_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """None waits for another."""
    async with VirtualNetwork(name_latency=1.0) as net:
        with net.host("server"):
            pass
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(look_up_host, "server")

        assert trio.current_time() == 1.0


# ---- The machine -------------------------------------------------------------------------------


async def test_this_machine_says_what_it_is_called(network: Loopback) -> None:
    """In a run and outside of one."""
    assert local_host_name() == socket.gethostname()
    assert await trio.to_thread.run_sync(local_host_name) == socket.gethostname()


def test_outside_of_a_run_it_is_this_machine() -> None:
    """There is nothing to wait for."""
    assert local_host_name() == socket.gethostname()
    assert "lo" in [interface.name for interface in network_interfaces()]


async def test_this_machine_can_be_listened_on_at_its_addresses(network: Network) -> None:
    """Every address of an interface that is up is one that a server can have; on both networks."""
    for interface in network_interfaces():
        for each in interface.addresses:
            if InterfaceFlag.IS_UP in interface.flags:
                async with TcpServer() as server:
                    await server.listen(each.address)
                    assert server.server_address() == each.address


async def test_a_simulated_host_has_its_own_name_and_interfaces() -> None:
    """Those of the host on which the caller runs; outside of any it is the one named default."""
    async with VirtualNetwork() as net:
        with net.host("server", addresses=["192.0.2.7", "2001:db8::7"]):
            inside = local_host_name(), network_interfaces()
        outside = local_host_name(), network_interfaces()[1].addresses

    up = InterfaceFlag.IS_UP | InterfaceFlag.IS_RUNNING
    assert inside == (
        "server",
        (
            NetworkInterface(
                "lo",
                1,
                "00:00:00:00:00:00",
                up | InterfaceFlag.IS_LOOPBACK,
                65536,
                (InterfaceAddress(V4, 8, HostAddress("127.255.255.255")), InterfaceAddress(V6, 128)),
            ),
            NetworkInterface(
                "eth0",
                2,
                "02:42:c0:00:02:07",
                up | InterfaceFlag.CAN_BROADCAST | InterfaceFlag.CAN_MULTICAST,
                1500,
                (
                    InterfaceAddress(HostAddress("192.0.2.7"), 24, HostAddress("192.0.2.255")),
                    InterfaceAddress(HostAddress("2001:db8::7"), 64),
                ),
            ),
        ),
    )
    assert outside == (
        "default",
        (InterfaceAddress(HostAddress("10.0.0.1"), 24, HostAddress("10.0.0.255")),),
    )


async def test_a_simulated_host_may_have_one_family_only() -> None:
    """Its interface has the addresses that it was given, in their order, and a hardware address of its own."""
    async with VirtualNetwork() as net:
        with net.host("six", addresses=["2001:db8::1", "fd00::2"]):
            six = network_interfaces()[1]
        with net.host("four", addresses=["192.0.2.130"]):
            four = network_interfaces()[1]

    assert [(each.address.text, each.prefix_length, each.broadcast) for each in six.addresses] == [
        ("2001:db8::1", 64, HostAddress.NULL),
        ("fd00::2", 64, HostAddress.NULL),
    ]
    assert [each.broadcast.text for each in four.addresses] == ["192.0.2.255"]
    assert six.hardware_address != four.hardware_address


async def test_a_task_stays_on_its_host_and_a_thread_is_on_the_real_machine() -> None:
    """The host goes with the context; a worker thread is in no run, as for sockets."""
    seen: list[str] = []

    async def look() -> None:
        seen.append(local_host_name())

    async with VirtualNetwork() as net, trio.open_nursery() as nursery:
        for name in ("alice", "bob"):
            with net.host(name):
                nursery.start_soon(look)
        with net.host("carol"):
            seen.append(await trio.to_thread.run_sync(local_host_name))

    assert sorted(seen) == sorted(["alice", "bob", socket.gethostname()])


async def test_when_the_network_is_gone_it_is_this_machine_again() -> None:
    """The hook is taken back with the others."""
    async with VirtualNetwork():
        assert local_host_name() == "default"

    assert local_host_name() == socket.gethostname()


async def test_of_a_host_that_is_down_nothing_is_up() -> None:
    """A crashed host is without power; back again it is as before."""
    async with VirtualNetwork() as net:
        with net.host("server"):
            before = network_interfaces()
            with net.crash("server"):
                flags = [interface.flags for interface in network_interfaces()]

            assert all(InterfaceFlag.IS_UP not in each for each in flags)
            assert network_interfaces() == before


async def test_a_machine_out_of_descriptors_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOCKET_RESOURCE; nothing is made up."""

    def exhausted() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(machine, "kernel_interfaces", exhausted)

    with pytest.raises(SocketError, match="cannot ask for the network interfaces: Too many open files") as caught:
        network_interfaces()

    assert (caught.value.kind, caught.value.errno) == (ErrorKind.SOCKET_RESOURCE, errno.EMFILE)


async def test_a_machine_out_of_threads_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver is asked in a thread.  SOCKET_RESOURCE of every verb, not a RuntimeError."""
    fired = 0

    async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        nonlocal fired
        fired += 1
        raise RuntimeError("can't start new thread")  # as trio.to_thread.run_sync hands it on

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(trio.socket, "getnameinfo", getaddrinfo)
    told = []
    async with TcpSocket() as sock, TcpServer() as server:
        for ask in (
            lambda: sock.connect_to_host("localhost", 1),
            lambda: sock.bind("localhost"),
            lambda: server.listen("localhost"),
            lambda: look_up_host("localhost"),
            lambda: look_up_host("127.0.0.1"),
        ):
            with pytest.raises(SocketError, match="can't start new thread") as caught:
                await ask()
            told.append(caught.value.kind)
        state = sock.state()

    assert (told, fired) == ([ErrorKind.SOCKET_RESOURCE] * 5, 5)
    assert state is SocketState.UNCONNECTED
