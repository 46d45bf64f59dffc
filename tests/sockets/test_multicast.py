"""Groups and broadcasts: who hears what is sent to many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Network
from tests.sockets.datagram_pairs import HOST, bound, drain_now
from tests.sockets.telling import told
from trioqt import BindMode, ErrorKind, ErrorOccurred, HostAddress, SocketError, SocketOption, UdpSocket
from trioqt.testing import VirtualNetwork

GROUP, OTHER = "239.83.17.59", "239.83.17.60"

# Every machine has it, and so has every simulated host.
INTERFACE = "lo"


@asynccontextmanager
async def sender() -> AsyncIterator[UdpSocket]:
    """Of 127.0.0.1, whose groups are those of the loopback interface."""
    async with bound() as sock:
        sock.set_multicast_interface(INTERFACE)
        yield sock


@pytest.mark.parametrize("interface", ["lo", 1, "1"])
async def test_a_member_hears_its_group_until_it_leaves(network: Network, interface: str | int) -> None:
    """U-047, U-050: the interface by name or by number."""
    async with bound(HostAddress.ANY_IPV4) as member, sender() as speaker:
        port = member.local_port()
        speaker.write_datagram(b"before", GROUP, port)
        member.join_multicast_group(GROUP, interface)
        for data in (b"1", b"2"):
            speaker.write_datagram(data, GROUP, port)
        member.leave_multicast_group(GROUP, interface)
        speaker.write_datagram(b"after", GROUP, port)

        heard = drain_now(member)
        assert [datagram.data for datagram in heard] == [b"1", b"2"]
        for datagram in heard:
            assert datagram.destination_address == HostAddress(GROUP)
            assert datagram.sender_address == HostAddress(HOST)
            assert (datagram.hop_limit, datagram.interface_index) == (1, 1)


async def test_a_socket_hears_only_the_groups_that_it_has_joined_itself(network: Network) -> None:
    """Though they share the port and the machine."""
    async with UdpSocket() as one, UdpSocket() as two, UdpSocket() as neither, sender() as speaker:
        await one.bind(HostAddress.ANY_IPV4, 0, BindMode.SHARE_ADDRESS)
        for sock in (two, neither):
            await sock.bind(HostAddress.ANY_IPV4, one.local_port(), BindMode.SHARE_ADDRESS)
        one.join_multicast_group(GROUP, INTERFACE)
        two.join_multicast_group(GROUP, INTERFACE)
        two.join_multicast_group(OTHER, INTERFACE)
        for group in (GROUP, OTHER):
            speaker.write_datagram(group.encode(), group, one.local_port())

        heard = [[datagram.data.decode() for datagram in drain_now(sock)] for sock in (one, two, neither)]
        assert heard == [[GROUP], [GROUP, OTHER], []]


async def test_an_answer_to_a_question_to_a_group(network: Network) -> None:
    """It cannot come from the group, so it comes from an address of whoever answers."""
    async with bound(HostAddress.ANY_IPV4) as member, sender() as asker:
        member.join_multicast_group(GROUP, INTERFACE)
        asker.write_datagram(b"?", GROUP, member.local_port())
        question = await member.receive_datagram()
        await member.send_datagram(question.make_reply(b"!"))

        answer = await asker.receive_datagram()
        assert (answer.data, answer.sender_address) == (b"!", HostAddress(HOST))


async def test_only_some_sources_are_heard(network: Network) -> None:
    """Each is joined by itself, and left by itself."""
    async with bound(HostAddress.ANY_IPV4) as member, bound("127.0.0.1") as one, bound("127.0.0.2") as two:

        def heard() -> list[bytes]:
            for name, sock in ((b"one", one), (b"two", two)):
                sock.set_multicast_interface(INTERFACE)
                sock.write_datagram(name, GROUP, member.local_port())
            return [datagram.data for datagram in drain_now(member)]

        member.join_multicast_group(GROUP, INTERFACE, source="127.0.0.1")
        first = heard()
        member.join_multicast_group(GROUP, INTERFACE, source=HostAddress("127.0.0.2"))
        second = heard()
        member.leave_multicast_group(GROUP, INTERFACE, source="127.0.0.1")
        third = heard()
        member.leave_multicast_group(GROUP, INTERFACE, source="127.0.0.2")

        assert (first, second, third, heard()) == ([b"one"], [b"one", b"two"], [b"two"], [])


async def test_a_group_is_joined_once_and_left_once(network: Network) -> None:
    """U-049: raised, as a call's own answer; it is no error of the socket's."""
    async with bound(HostAddress.ANY_IPV4) as sock:
        calls: list[tuple[Any, dict[str, Any], ErrorKind | None]] = [
            (sock.leave_multicast_group, {}, ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE),
            (sock.join_multicast_group, {}, None),
            (sock.join_multicast_group, {}, ErrorKind.ADDRESS_IN_USE),
            (sock.leave_multicast_group, {}, None),
            (sock.leave_multicast_group, {}, ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE),
            (sock.leave_multicast_group, {"source": HOST}, ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE),
            (sock.join_multicast_group, {"source": HOST}, None),
            (sock.join_multicast_group, {"source": HOST}, ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE),
            (sock.leave_multicast_group, {"source": "127.0.0.2"}, ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE),
            (sock.leave_multicast_group, {"source": HOST}, None),
        ]
        async with told(sock, ErrorOccurred) as events:
            kinds: list[ErrorKind | None] = []
            for call, more, _ in calls:
                try:
                    call(GROUP, INTERFACE, **more)
                except SocketError as error:
                    kinds.append(error.kind)
                else:
                    kinds.append(None)

        assert kinds == [kind for *_, kind in calls]
        assert events == []
        assert sock.error() is None


@pytest.mark.parametrize("group", ["10.0.0.1", "::1", "", "*", HostAddress.BROADCAST])
async def test_what_is_no_group_is_refused(network: Network, group: Any) -> None:
    """Before anything is done."""
    async with bound(HostAddress.ANY) as sock:
        for call in (sock.join_multicast_group, sock.leave_multicast_group):
            with pytest.raises(ValueError, match="not a multicast group"):
                call(group)


@pytest.mark.parametrize("source", ["239.1.2.3", "::1", ""])
async def test_what_is_no_source_is_refused(network: Network, source: str) -> None:
    """A group sends nothing, and nobody of the other family sends to this one."""
    async with bound(HostAddress.ANY) as sock:
        with pytest.raises(ValueError, match="no source"):
            sock.join_multicast_group(GROUP, source=source)


async def test_a_family_that_is_not_the_sockets(network: Network) -> None:
    """U-048: an IPv4 socket has no IPv6 groups, and the other way round; one for both has IPv6 groups."""
    for host, group in ((HOST, "ff02::1:5"), ("::1", GROUP), (HostAddress.ANY, GROUP)):
        async with bound(host) as sock:
            with pytest.raises(SocketError) as caught:
                sock.join_multicast_group(group, INTERFACE)

        assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION


@pytest.mark.parametrize("interface", ["nosuch0", 12345, "12345"])
async def test_an_interface_that_there_is_not(network: Network, interface: str | int) -> None:
    """Of a name that the system does not know, or a number that it refuses."""
    async with bound(HostAddress.ANY) as sock, bound(HostAddress.ANY_IPV4) as four:
        calls: list[Callable[[], None]] = [
            lambda: four.join_multicast_group(GROUP, interface),
            lambda: sock.join_multicast_group("ff02::1:5", interface),
            lambda: sock.set_multicast_interface(interface),
        ]
        for call in calls:
            with pytest.raises(SocketError) as caught:
                call()
            assert caught.value.kind is ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE
        assert sock.multicast_interface() is None


@pytest.mark.parametrize(("interface", "error"), [(-1, ValueError), (1.5, TypeError), (b"lo", TypeError)])
async def test_what_is_no_interface(network: Network, interface: Any, error: type[Exception]) -> None:
    """A name, a number, or None."""
    async with bound() as sock:
        with pytest.raises(error):
            sock.join_multicast_group(GROUP, interface)
        with pytest.raises(error):
            sock.set_multicast_interface(interface)


async def test_groups_need_an_address(network: Network) -> None:
    """U-045, U-046, U-051: before a bind and after the end it is a mistake."""
    async with UdpSocket() as sock:
        for _ in range(2):
            for call in (
                lambda: sock.join_multicast_group(GROUP),
                lambda: sock.leave_multicast_group(GROUP),
                lambda: sock.set_multicast_interface(INTERFACE),
                sock.multicast_interface,
            ):
                with pytest.raises(SocketError) as caught:
                    call()
                assert caught.value.kind is ErrorKind.OPERATION
            await sock.bind(HOST)
            await sock.disconnect_from_host()


@pytest.mark.parametrize("host", [HostAddress.ANY, HostAddress.ANY_IPV4, HostAddress.ANY_IPV6])
async def test_the_interface_that_was_chosen(network: Network, host: HostAddress) -> None:
    """U-051: told by its name; None lets the system choose again, and another bind forgets it."""
    async with UdpSocket() as sock:
        await sock.bind(host)
        told_names = [sock.multicast_interface()]
        for interface in ("lo", None, 1):
            sock.set_multicast_interface(interface)
            told_names.append(sock.multicast_interface())
        await sock.disconnect_from_host()
        await sock.bind(host)

        assert [*told_names, sock.multicast_interface()] == [None, "lo", None, "lo", None]


@pytest.mark.parametrize("ttl", [1, 2, 128, 255])
async def test_how_far_it_goes(network: Network, ttl: int) -> None:
    """U-042: the hop limit that a member sees."""
    async with bound(HostAddress.ANY_IPV4) as member, sender() as speaker:
        member.join_multicast_group(GROUP, INTERFACE)
        speaker.set_socket_option(SocketOption.MULTICAST_TTL, ttl)
        speaker.write_datagram(b"x", GROUP, member.local_port())

        assert speaker.socket_option(SocketOption.MULTICAST_TTL) == ttl
        assert (await member.receive_datagram()).hop_limit == ttl


async def test_what_goes_out_by_the_loopback_interface_is_heard(network: Network) -> None:
    """Whatever ``MULTICAST_LOOPBACK`` says: it comes in by that interface too."""
    async with bound(HostAddress.ANY_IPV4) as member, sender() as speaker:
        member.join_multicast_group(GROUP, INTERFACE)
        for loops in (0, 1):
            speaker.set_socket_option(SocketOption.MULTICAST_LOOPBACK, loops)
            speaker.write_datagram(bytes([loops]), GROUP, member.local_port())

        assert [datagram.data for datagram in drain_now(member)] == [b"\0", b"\1"]


async def test_the_senders_host_need_not_hear_it(autojump_clock: object) -> None:
    """U-044: the sender says so, and then nobody there does."""
    async with VirtualNetwork(), bound(HostAddress.ANY_IPV4) as member, UdpSocket() as speaker:
        await speaker.bind(HostAddress.ANY_IPV4)
        member.join_multicast_group(GROUP)
        for loops in (0, 1):
            speaker.set_socket_option(SocketOption.MULTICAST_LOOPBACK, loops)
            speaker.write_datagram(bytes([loops]), GROUP, member.local_port())

        assert [datagram.data for datagram in drain_now(member)] == [b"\1"]


async def test_a_broadcast_needs_no_permission(network: Network) -> None:
    """U-041: an empty one too; who is bound to another address does not hear it, who shares the port does."""
    everybody = "127.255.255.255"
    async with UdpSocket() as one, UdpSocket() as two, UdpSocket() as other, bound() as speaker:
        await one.bind(HostAddress.ANY_IPV4, 0, BindMode.SHARE_ADDRESS)
        port = one.local_port()
        await two.bind(HostAddress.ANY_IPV4, port, BindMode.SHARE_ADDRESS)
        await other.bind("127.0.0.1", port, BindMode.SHARE_ADDRESS)
        for data in (b"hear", b"", b"this"):
            speaker.write_datagram(data, everybody, port)

        heard = [drain_now(sock) for sock in (one, two, other)]
        assert [[datagram.data for datagram in all_of_one] for all_of_one in heard] == [
            [b"hear", b"", b"this"],
            [b"hear", b"", b"this"],
            [],
        ]
        assert {datagram.destination_address for datagram in heard[0]} == {HostAddress(everybody)}
        two.write_datagram(heard[1][0].make_reply(b"heard"))
        assert (await speaker.receive_datagram()).sender_address == HostAddress(HOST)


async def test_a_socket_that_was_closed_is_no_member(network: Network) -> None:
    """Its membership ends with it: as many more can be had."""
    for _ in range(3):
        async with bound(HostAddress.ANY_IPV4) as sock:
            for number in range(20):
                sock.join_multicast_group(f"239.83.18.{number}", INTERFACE)
            with pytest.raises(SocketError) as caught:
                sock.join_multicast_group(GROUP, INTERFACE)
            assert caught.value.kind is ErrorKind.SOCKET_RESOURCE  # net.ipv4.igmp_max_memberships


# ---- between hosts -----------------------------------------------------------------------------


async def test_ipv6_groups_between_hosts(autojump_clock: object) -> None:
    """With a source chosen and without, by the interface between them and by the one that leads nowhere else."""
    async with VirtualNetwork(latency=0.01) as net:
        with net.host("member", addresses=["fd00::1"]):
            async with bound(HostAddress.ANY_IPV6) as member:
                member.join_multicast_group("ff05::1:5")
                member.join_multicast_group("ff05::1:6", "eth0", source="fd00::2")
                member.join_multicast_group("ff05::1:7", "lo")
                for host, address in (("one", "fd00::2"), ("two", "fd00::3")):
                    with net.host(host, addresses=[address]):
                        async with UdpSocket() as speaker:
                            await speaker.bind(HostAddress.ANY_IPV6)
                            for group in (5, 6, 7):
                                text = f"{host} {group}".encode()
                                speaker.write_datagram(text, f"ff05::1:{group}", member.local_port())
                await trio.sleep(1)

                heard = drain_now(member)

    assert [datagram.data for datagram in heard] == [b"one 5", b"one 6", b"two 5"]
    assert {datagram.interface_index for datagram in heard} == {2}
    assert heard[0].destination_address == HostAddress("ff05::1:5")


async def test_a_ttl_of_0_stays_on_the_host(autojump_clock: object) -> None:
    """As MULTICAST_TTL says."""
    async with VirtualNetwork(latency=0.01) as net:
        with net.host("far"):
            far = UdpSocket()
            async with far:
                await far.bind(HostAddress.ANY_IPV4, 5000)
                far.join_multicast_group(GROUP)
                with net.host("near"):
                    async with UdpSocket() as near:
                        await near.bind(HostAddress.ANY_IPV4, 5000)
                        near.join_multicast_group(GROUP)
                        for ttl in (0, 1):
                            near.set_socket_option(SocketOption.MULTICAST_TTL, ttl)
                            near.write_datagram(bytes([ttl]), GROUP, 5000)
                        await trio.sleep(1)

                        heard = [[datagram.data for datagram in drain_now(sock)] for sock in (near, far)]

    assert heard == [[b"\0", b"\1"], [b"\1"]]


async def test_a_subnets_broadcast_between_hosts(autojump_clock: object) -> None:
    """The limited one and the subnet's own reach every host, and an answer comes from each one's own address."""
    async with VirtualNetwork(latency=0.01) as net, trio.open_nursery() as nursery:

        async def answer(name: str) -> None:
            with net.host(name):
                async with UdpSocket() as sock:
                    await sock.bind(HostAddress.ANY, 5000)
                    async for question in sock:
                        await sock.send_datagram(question.make_reply(name.encode()))

        for name in ("one", "two"):
            nursery.start_soon(answer, name)
        await trio.testing.wait_all_tasks_blocked()
        with net.host("asker"):
            async with UdpSocket() as asker:
                answers = []
                for everybody in ("255.255.255.255", "10.0.0.255"):
                    asker.write_datagram(b"?", everybody, 5000)
                    await trio.sleep(1)
                    answers.append({(str(d.sender_address), d.data) for d in drain_now(asker)})
        nursery.cancel_scope.cancel()

    assert len(answers[0]) == 2
    assert {data for _, data in answers[0]} == {b"one", b"two"}
    assert answers[0] == answers[1]
