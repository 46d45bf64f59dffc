"""What holds on a machine with two interfaces, ``one`` and ``two``, and a cable between them; see test_datagrams.py."""

from __future__ import annotations

import socket
from pathlib import Path

import trio

from trioqt import BindMode, HostAddress, NetworkDatagram, UdpSocket

GROUP, GROUP6, LINK_GROUP = "239.83.17.62", "ff05::83:17", "ff02::83:17"


def any_of(group: str) -> HostAddress:
    """Every address, of the group's family."""
    return HostAddress.ANY if ":" in group else HostAddress.ANY_IPV4


async def group_by_interface(group: str) -> None:
    """Joined on the one interface it is heard there, and what goes out by the other comes in by that."""
    index = socket.if_nametoindex("two")
    async with UdpSocket() as member, UdpSocket() as sender:
        await member.bind(any_of(group))
        await sender.bind()
        member.join_multicast_group(group, "two")
        for interface in ("two", "one"):  # by the one it is looped back, by the other it comes through the cable
            sender.set_multicast_interface(interface)
            assert sender.multicast_interface() == interface
            sender.write_datagram(interface.encode(), group, member.local_port())
            datagram = await member.receive_datagram()
            assert (datagram.data.decode(), datagram.interface_index) == (interface, index), datagram
            assert datagram.destination_address == HostAddress(group), datagram
        member.leave_multicast_group(group, "two")
        member.join_multicast_group(group, "lo")
        sender.write_datagram(b"not heard", group, member.local_port())
        with trio.move_on_after(0.1) as silence:
            await member.receive_datagram()
        assert silence.cancelled_caught


async def chosen_sources() -> None:
    """Of two that send to a group through the cable only one is heard."""
    for group, chosen, other in ((GROUP, "10.83.17.1", "10.83.17.2"), (GROUP6, "fd83::1", "fd83::2")):
        async with UdpSocket() as member, UdpSocket() as sender:
            await member.bind(any_of(group))
            await sender.bind()
            member.join_multicast_group(group, "two", source=chosen)
            for source in (other, chosen):
                interface = socket.if_nametoindex("one" if source == chosen else "two")
                datagram = NetworkDatagram(
                    source.encode(), source, 0, group, member.local_port(), interface_index=interface
                )
                sender.write_datagram(datagram)
            datagram = await member.receive_datagram()
            assert datagram.data.decode() == chosen, datagram
            assert datagram.sender_address == HostAddress(chosen), datagram


def ipv6_addresses() -> list[list[str]]:
    """| address | interface's number | length of the prefix | scope | flags | interface |, in hexadecimal."""
    return [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]


async def link_local() -> None:
    """U-052: an address that means nothing without its interface, and an answer that finds its way back by it."""
    addresses = {}
    for packed, _, _, scope, _, name in ipv6_addresses():
        if scope == "20":
            addresses[name] = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed))
    async with UdpSocket() as server, UdpSocket() as client:
        await server.bind(HostAddress(f"{addresses['two']}%two"))
        await client.bind()
        for spelled in (f"{addresses['two']}%two", f"{addresses['two']}%{socket.if_nametoindex('two')}"):
            await client.send_datagram(b"?", spelled, server.local_port())
            question = await server.receive_datagram()
            assert question.destination_address == HostAddress(f"{addresses['two']}%two"), question
            assert question.sender_address.text.endswith("%two"), question
            await server.send_datagram(question.make_reply(b"!"))
            answer = await client.receive_datagram()
            assert answer.data == b"!", answer
        await client.connect_to_host(f"{addresses['two']}%two", server.local_port())
        client.write(b"connected")
        assert (await server.receive_datagram()).data == b"connected"


async def broadcast() -> None:
    """The subnet's own, to a port that two sockets share; an answer comes from an address of this machine."""
    async with UdpSocket() as one, UdpSocket() as two, UdpSocket() as sender:
        await one.bind(HostAddress.ANY_IPV4, 0, BindMode.SHARE_ADDRESS)
        await two.bind(HostAddress.ANY_IPV4, one.local_port(), BindMode.SHARE_ADDRESS)
        await sender.bind("10.83.17.1")
        await sender.send_datagram(b"who?", "10.83.17.255", one.local_port())
        for sock in (one, two):
            question = await sock.receive_datagram()
            assert question.destination_address == HostAddress("10.83.17.255"), question
            await sock.send_datagram(question.make_reply(b"me"))
            assert (await sender.receive_datagram()).data == b"me"


async def own_address() -> None:
    """A socket that is bound to one address keeps it, whichever interface it sends by."""
    async with UdpSocket() as member, UdpSocket() as sender:
        await member.bind(HostAddress.ANY_IPV4)
        await sender.bind("10.83.17.1")
        for name in ("one", "two"):
            member.join_multicast_group(GROUP, name)
            index = socket.if_nametoindex(name)
            for source in ("", "10.83.17.1"):
                datagram = NetworkDatagram(b"x", source, 0, GROUP, member.local_port(), interface_index=index)
                sender.write_datagram(datagram)
                heard = await member.receive_datagram()
                assert heard.sender_address == HostAddress("10.83.17.1"), heard
                assert heard.interface_index == index, heard
            member.leave_multicast_group(GROUP, name)


async def settled() -> None:
    """Until the kernel has its link-local addresses, which it tries out first."""
    with trio.fail_after(10):
        while True:
            known = [(name, int(flags, 16)) for _, _, _, scope, flags, name in ipv6_addresses() if scope == "20"]
            ready = {name for name, flags in known if not flags & 0x40}  # IFA_F_TENTATIVE
            if {"one", "two"} <= ready:
                return
            await trio.sleep(0.1)


async def main() -> None:
    await settled()
    with trio.fail_after(20):
        for group in (GROUP, GROUP6, LINK_GROUP):
            await group_by_interface(group)
        await chosen_sources()
        await link_local()
        await broadcast()
        await own_address()
    print("all of it holds")


if __name__ == "__main__":
    trio.run(main)
