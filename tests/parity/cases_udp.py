"""Datagrams: udp(7), ip(7)."""

from __future__ import annotations

import struct
from typing import Any

import trio
from trio import socket

from tests.parity.cases_kit import (
    Place,
    Sock,
    all_of,
    attempt,
    case,
    pending_error,
    until_readable,
    waits,
    while_waiting,
)

GROUP = "239.1.2.3"
# struct ip_mreq: the group and the interface, here that of 127.0.0.1.
MEMBERSHIP = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")


async def connected_udp(here: Place) -> tuple[Sock, Sock]:
    """Two UDP sockets, each connected to the other."""
    first, second = await here.bound_udp(), await here.bound_udp()
    await first.connect(second.getsockname())
    await second.connect(first.getsockname())
    return first, second


@case((5, b"hello", ("127.0.0.1", "port A")))
async def a_datagram_comes_with_its_senders_name(here: Place) -> object:
    """recvfrom(2)."""
    receiver, sender = await here.bound_udp(), await here.bound_udp()
    here.told(sender.getsockname())
    sent = await sender.sendto(b"hello", receiver.getsockname())
    data, name = await receiver.recvfrom(100)
    return sent, data, here.told(name)


@case((("0.0.0.0", 0), ("0.0.0.0", "port A"), ("127.0.0.1", "port A")))
async def sending_binds(here: Place) -> object:
    """To a free port of every address; the receiver sees the one it went out from."""
    receiver, sender = await here.bound_udp(), here.udp()
    before = here.told(sender.getsockname())
    await sender.sendto(b"x", receiver.getsockname())
    return before, here.told(sender.getsockname()), here.told((await receiver.recvfrom(9))[1])


@case((b"one", b"two", b"", b"three"))
async def datagrams_keep_their_borders(here: Place) -> object:
    """An empty one is one, and no end."""
    receiver, sender = await here.bound_udp(), here.udp()
    for data in (b"one", b"two", b"", b"three"):
        await sender.sendto(data, receiver.getsockname())
    return await all_of(*(receiver.recv(100) for _ in range(4)))


@case((b"lon", b"next"))
async def what_does_not_fit_the_buffer_is_lost(here: Place) -> object:
    """udp(7)."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.sendto(b"long", receiver.getsockname())
    await sender.sendto(b"next", receiver.getsockname())
    return await receiver.recv(3), await receiver.recv(100)


@case((b"lon", True, b"next", False))
async def recvmsg_says_that_something_was_lost(here: Place) -> object:
    """recv(2): MSG_TRUNC in the flags that come back."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.sendto(b"long", receiver.getsockname())
    await sender.sendto(b"next", receiver.getsockname())
    first, second = await receiver.recvmsg(3), await receiver.recvmsg(100)
    return first[0], bool(first[2] & socket.MSG_TRUNC), second[0], bool(second[2] & socket.MSG_TRUNC)


@case(4)
async def msg_trunc_asks_for_the_real_length(here: Place) -> object:
    """recv(2): with recv_into, the length of the datagram, though only two bytes were put."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.sendto(b"long", receiver.getsockname())
    return await receiver.recv_into(bytearray(2), 2, socket.MSG_TRUNC)


@case((b"look", b"look", "waits"))
async def a_datagram_can_be_looked_at_first(here: Place) -> object:
    """MSG_PEEK."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.sendto(b"look", receiver.getsockname())
    return await receiver.recv(100, socket.MSG_PEEK), await receiver.recv(100), await waits(receiver.recv, 100)


@case((b"", b"kept"))
async def reading_0_bytes_takes_no_datagram(here: Place) -> object:
    """Python does not even ask the system (sock_recv in socketmodule.c)."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.sendto(b"kept", receiver.getsockname())
    return await receiver.recv(0), await receiver.recv(100)


@case((b"into", 4, "port A"))
async def recvfrom_into_fills_a_buffer(here: Place) -> object:
    """And tells the sender."""
    receiver, sender = await here.bound_udp(), await here.bound_udp()
    await sender.sendto(b"into", receiver.getsockname())
    buffer = bytearray(10)
    count, name = await receiver.recvfrom_into(buffer)
    return bytes(buffer[:count]), count, here.told(name)[1]


@case((b"ab", b"cd", ("127.0.0.1", "port A")))
async def recvmsg_into_fills_several_buffers(here: Place) -> object:
    """readv(2)."""
    receiver, sender = await here.bound_udp(), await here.bound_udp()
    await sender.sendto(b"abcd", receiver.getsockname())
    first, second = bytearray(2), bytearray(5)
    count, _, _, name = await receiver.recvmsg_into([first, second])
    return bytes(first), bytes(second[: count - 2]), here.told(name)


@case((6, b"gather"))
async def sendmsg_gathers_one_datagram(here: Place) -> object:
    """sendmsg(2)."""
    receiver, sender = await here.bound_udp(), here.udp()
    sent = await sender.sendmsg([b"gat", b"her"], (), 0, receiver.getsockname())
    return sent, await receiver.recv(100)


@case(("EDESTADDRREQ", "EDESTADDRREQ"))
async def sending_needs_a_destination(here: Place) -> object:
    """send(2)."""
    sock = here.udp()
    return await attempt(sock.send, b"x"), await attempt(sock.sendmsg, [b"x"])


@case("EINVAL")
async def port_0_is_no_destination(here: Place) -> object:
    """udp_sendmsg."""
    return await attempt(here.udp().sendto, b"x", ("127.0.0.1", 0))


@case(("EMSGSIZE", 65507))
async def a_datagram_has_a_greatest_size(here: Place) -> object:
    """65535 bytes less 20 of IP (RFC 791) and 8 of UDP (RFC 768)."""
    receiver, sender = await here.bound_udp(), here.udp()
    too_long = await attempt(sender.sendto, bytes(65508), receiver.getsockname())
    await sender.sendto(bytes(65507), receiver.getsockname())
    return too_long, len(await receiver.recv(70000))


@case("EACCES")
async def broadcasting_must_be_asked_for(here: Place) -> object:
    """socket(7): SO_BROADCAST."""
    return await attempt(here.udp().sendto, b"x", ("255.255.255.255", 9))


@case(("waits", b"from the peer"))
async def a_connected_socket_hears_only_its_peer(here: Place) -> object:
    """connect(2)."""
    (first, second), stranger = await connected_udp(here), here.udp()
    await stranger.sendto(b"from a stranger", first.getsockname())
    heard = await waits(first.recv, 100)
    await second.send(b"from the peer")
    return heard, await first.recv(100)


@case((b"before", b"peer"))
async def what_came_before_connecting_stays(here: Place) -> object:
    """The queue is not looked through."""
    receiver, peer, stranger = await here.bound_udp(), await here.bound_udp(), here.udp()
    await stranger.sendto(b"before", receiver.getsockname())
    await until_readable(receiver)
    await receiver.connect(peer.getsockname())
    await peer.sendto(b"peer", receiver.getsockname())
    return await receiver.recv(100), await receiver.recv(100)


@case((("127.0.0.1", "port A"), ("127.0.0.1", "port B")))
async def connecting_binds_and_names_the_peer(here: Place) -> object:
    """getsockname(2), getpeername(2)."""
    receiver, client = await here.bound_udp(), here.udp()
    await client.connect(receiver.getsockname())
    return here.ends(client)[0]


@case((b"there", b"default"))
async def a_connected_socket_may_still_send_elsewhere(here: Place) -> object:
    """Linux: sendto() with an address wins for one datagram."""
    receiver, other, sender = await here.bound_udp(), await here.bound_udp(), here.udp()
    await sender.connect(receiver.getsockname())
    await sender.sendto(b"there", other.getsockname())
    await sender.send(b"default")
    return await other.recv(100), await receiver.recv(100)


@case((b"to the second", "waits"))
async def connecting_again_changes_the_peer(here: Place) -> object:
    """A datagram socket may connect as often as it wants."""
    first, second, sender = await here.bound_udp(), await here.bound_udp(), here.udp()
    await sender.connect(first.getsockname())
    await sender.connect(second.getsockname())
    await sender.send(b"to the second")
    return await second.recv(100), await waits(first.recv, 100)


@case((1, "ECONNREFUSED", "waits"))
async def a_connected_socket_learns_that_nobody_is_there(here: Place) -> object:
    """udp(7): the ICMP answer is told once, to whoever asks first: here a reader."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.connect(receiver.getsockname())
    receiver.close()
    sent = await sender.send(b"x")
    await until_readable(sender)
    return sent, await attempt(sender.recv, 1), await waits(sender.recv, 1)


@case((1, "ECONNREFUSED", 1))
async def the_next_send_is_told_that_nobody_is_there(here: Place) -> object:
    """And does not send; the one after does."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.connect(receiver.getsockname())
    receiver.close()
    sent = await sender.send(b"x")
    await until_readable(sender)
    return sent, await attempt(sender.send, b"y"), await attempt(sender.send, b"z")


@case(("ECONNREFUSED", 0))
async def so_error_tells_that_nobody_is_there(here: Place) -> object:
    """Once."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.connect(receiver.getsockname())
    receiver.close()
    await sender.send(b"x")
    await until_readable(sender)
    return pending_error(sender), pending_error(sender)


@case((1, 1, "waits"))
async def an_unconnected_socket_does_not_learn_it(here: Place) -> object:
    """udp(7): unless it asked for errors (IP_RECVERR)."""
    receiver, sender = await here.bound_udp(), here.udp()
    nowhere = receiver.getsockname()
    receiver.close()
    return await sender.sendto(b"x", nowhere), await sender.sendto(b"y", nowhere), await waits(sender.recv, 1)


@case("ECONNREFUSED")
async def a_waiting_reader_is_woken_by_the_news(here: Place) -> object:
    """The answer comes while it waits."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.connect(receiver.getsockname())
    receiver.close()
    return await while_waiting(sender.recv, 1, then=lambda: sender.send(b"x"))


@case((b"hello", ("127.0.0.2", "port A")))
async def a_wildcard_receiver_answers_from_the_address_it_chose(here: Place) -> object:
    """It is found at every address."""
    receiver, sender = await here.bound_udp("0.0.0.0"), await here.bound_udp("127.0.0.2")
    here.told(sender.getsockname())
    await sender.sendto(b"hello", ("127.0.0.1", receiver.getsockname()[1]))
    data, name = await receiver.recvfrom(100)
    return data, here.told(name)


@case((b"special", b"wild"))
async def the_more_special_address_gets_the_datagram(here: Place) -> object:
    """Two sockets share a port; one has the wildcard."""
    wild, special, sender = here.udp(), here.udp(), here.udp()
    for sock in (wild, special):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await wild.bind(("0.0.0.0", 0))
    port = wild.getsockname()[1]
    await special.bind(("127.0.0.1", port))
    await sender.sendto(b"special", ("127.0.0.1", port))
    await sender.sendto(b"wild", ("127.0.0.2", port))
    return await special.recv(100), await wild.recv(100)


@case(("waits", b"x"))
async def of_two_at_one_address_the_last_gets_the_datagram(here: Place) -> object:
    """REUSEADDR, unicast."""
    first, second, sender = here.udp(), here.udp(), here.udp()
    for sock in (first, second):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await first.bind(("127.0.0.1", 0))
    await second.bind(first.getsockname())
    await sender.sendto(b"x", first.getsockname())
    return await waits(first.recv, 100), await second.recv(100)


@case((b"six", ("::1", "port A", 0, 0)))
async def datagrams_over_ipv6(here: Place) -> object:
    """Names have four parts."""
    receiver, sender = (here.new(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
    await receiver.bind(("::1", 0))
    await sender.bind(("::1", 0))
    await sender.sendto(b"six", receiver.getsockname())
    data, name = await receiver.recvfrom(100)
    return data, here.told(name)


@case((b"four", "::ffff:127.0.0.1", b"reply"))
async def a_dual_stack_socket_speaks_ipv4(here: Place) -> object:
    """With mapped names."""
    receiver, sender = here.new(socket.AF_INET6, socket.SOCK_DGRAM), await here.bound_udp()
    await receiver.bind(("::", 0))
    await sender.sendto(b"four", ("127.0.0.1", receiver.getsockname()[1]))
    data, name = await receiver.recvfrom(100)
    await receiver.sendto(b"reply", name)
    return data, name[0], await sender.recv(100)


@case((b"to all", b"to all"))
async def a_group_hears_what_is_sent_to_it(here: Place) -> object:
    """Two members on one host, IP_MULTICAST_LOOP as it is by default."""
    first, second, sender = here.udp(), here.udp(), await here.bound_udp()
    for sock in (first, second):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await sock.bind(("0.0.0.0", 0 if sock is first else first.getsockname()[1]))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, MEMBERSHIP)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    await sender.sendto(b"to all", (GROUP, first.getsockname()[1]))
    return await first.recv(100), await second.recv(100)


@case((b"member", "waits"))
async def who_left_the_group_hears_no_more(here: Place) -> object:
    """IP_DROP_MEMBERSHIP."""
    member, sender = await here.bound_udp("0.0.0.0"), await here.bound_udp()
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    group = (GROUP, member.getsockname()[1])
    member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, MEMBERSHIP)
    await sender.sendto(b"member", group)
    heard = await member.recv(100)
    member.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, MEMBERSHIP)
    await sender.sendto(b"left", group)
    return heard, await waits(member.recv, 100)


@case(("ok", "EADDRINUSE", "ok", "EADDRNOTAVAIL", "EINVAL", "EINVAL"))
async def a_group_is_joined_once_and_left_once(here: Place) -> object:
    """ip(7): join, join, leave, leave; a group that is none; too short a value."""
    sock = here.udp()
    join, leave = socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP
    no_group = socket.inet_aton("127.0.0.1") * 2
    steps = [(join, MEMBERSHIP), (join, MEMBERSHIP), (leave, MEMBERSHIP), (leave, MEMBERSHIP), (join, no_group)]
    told = [await attempt(sock.setsockopt, socket.IPPROTO_IP, *step) for step in steps]
    return *told, await attempt(sock.setsockopt, socket.IPPROTO_IP, join, b"\0\0\0\0")


@case("ENODEV")
async def a_group_is_joined_at_an_interface_that_there_is(here: Place) -> object:
    """203.0.113.7 is nobody's address (RFC 5737)."""
    elsewhere = socket.inet_aton(GROUP) + socket.inet_aton("203.0.113.7")
    return await attempt(here.udp().setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, elsewhere)


@case(("ok", "ok", "ENOTCONN"))
async def a_connected_socket_may_be_shut_down(here: Place) -> object:
    """An unconnected one is told ENOTCONN."""
    first, _ = await connected_udp(here)
    ways = await all_of(attempt(first.shutdown, socket.SHUT_WR), attempt(first.shutdown, socket.SHUT_RD))
    return *ways, await attempt(here.udp().shutdown, socket.SHUT_RDWR)


@case(("EPIPE", b"still heard"))
async def a_socket_that_was_shut_down_sends_no_more(here: Place) -> object:
    """No receive after SHUT_RD here: on Linux it is always readable and never gives anything, so trio would spin."""
    first, second = await connected_udp(here)
    first.shutdown(socket.SHUT_WR)
    await second.send(b"still heard")
    return await attempt(first.send, b"x"), await first.recv(100)


@case((True, b"kept"))
async def a_cancelled_receive_takes_no_datagram(here: Place) -> object:
    """Cancelled means it did not happen."""
    receiver, sender = await here.bound_udp(), here.udp()
    await sender.sendto(b"kept", receiver.getsockname())
    await until_readable(receiver)
    with trio.CancelScope() as scope:
        scope.cancel()
        await receiver.recvfrom(100)
    return scope.cancelled_caught, await receiver.recv(100)


@case(("waits", "BusyResourceError", "ClosedResourceError"))
async def datagram_sockets_wait_as_streams_do(here: Place) -> object:
    """Nothing there, two readers, closed under the reader."""
    sock = await here.bound_udp()
    nothing = await waits(sock.recvfrom, 100)
    second: list[object] = []

    async def disturb() -> None:
        second.append(await attempt(sock.recv, 1))
        sock.close()

    return nothing, *reversed((await while_waiting(sock.recvfrom, 100, then=disturb), *second))


# ---- what goes beside it ---------------------------------------------------------------------------------------------

# Python's socket module names them from 3.14 on, or not at all (linux/in.h, asm-generic/socket.h).
IP_PKTINFO, IP_RECVTTL, IP_MULTICAST_ALL = 8, 12, 49
SO_RXQ_OVFL, SO_MEMINFO = 40, 55
MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_SOURCE_GROUP = 46, 47


def asking(sock: Sock, *options: tuple[int, int]) -> Sock:
    """``sock``, which wants to know these."""
    for level, option in options:
        sock.setsockopt(level, option, 1)
    return sock


BOTH = ((socket.IPPROTO_IP, IP_PKTINFO), (socket.IPPROTO_IP, IP_RECVTTL))
BOTH6 = ((socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO), (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT))
LO = struct.pack("=I", 1)


@case(([(0, 8, LO + socket.inet_aton("127.0.0.2") * 2), (0, 2, struct.pack("=i", 64))], 0))
async def the_destination_and_the_time_to_live_are_told(here: Place) -> object:
    """ip(7): IP_PKTINFO, IP_RECVTTL."""
    receiver, sender = asking(await here.bound_udp("0.0.0.0"), *BOTH), here.udp()
    await sender.sendto(b"x", ("127.0.0.2", receiver.getsockname()[1]))
    _, known, flags, _ = await receiver.recvmsg(100, 200)
    return known, flags


@case(([(41, 50, socket.inet_pton(socket.AF_INET6, "::1") + LO), (41, 52, struct.pack("=i", 64))], 0))
async def so_they_are_over_ipv6(here: Place) -> object:
    """RFC 3542."""
    receiver = asking(here.new(socket.AF_INET6, socket.SOCK_DGRAM), *BOTH6)
    await receiver.bind(("::1", 0))
    await here.new(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"x", receiver.getsockname())
    _, known, flags, _ = await receiver.recvmsg(100, 200)
    return known, flags


@case(
    [
        (41, 50, socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1") + LO),
        (0, 2, struct.pack("=i", 64)),
    ]
)
async def a_socket_of_both_families_is_told_of_ipv4_too(here: Place) -> object:
    """In the mapped form; the hop limit is IPv4's, and has to be asked for as that."""
    receiver = asking(here.new(socket.AF_INET6, socket.SOCK_DGRAM), *BOTH6, (socket.IPPROTO_IP, IP_RECVTTL))
    receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    await receiver.bind(("::", 0))
    await here.udp().sendto(b"x", ("127.0.0.1", receiver.getsockname()[1]))
    return (await receiver.recvmsg(100, 200))[1]


@case((([], 0), ([], socket.MSG_CTRUNC), 1))
async def what_there_is_no_room_for_is_left_out(here: Place) -> object:
    """recvmsg(2): not asked for, no room at all, and room for the first of two."""
    receiver, sender = await here.bound_udp(), here.udp()
    for _ in range(3):
        await sender.sendto(b"x", receiver.getsockname())
    _, nothing, plain, _ = await receiver.recvmsg(100, 200)
    asking(receiver, *BOTH)
    _, none, flags, _ = await receiver.recvmsg(100)
    _, one, cut, _ = await receiver.recvmsg(100, socket.CMSG_SPACE(12))
    return (nothing, plain), (none, flags), len(one) if cut == socket.MSG_CTRUNC else cut


@case((("127.0.0.3", 5), True, True))
async def a_datagram_has_a_source_and_a_time_to_live_of_its_own(here: Place) -> object:
    """sendmsg(2), with ip(7)'s IP_PKTINFO and IP_TTL.  A source must be this host's, and no broadcast's: EINVAL, or
    since Linux 6 ENETUNREACH."""
    receiver, sender = asking(await here.bound_udp(), *BOTH), here.udp()

    def beside(source: str) -> list[tuple[int, int, bytes]]:
        return [
            (socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + socket.inet_aton(source) + bytes(4)),
            (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("=i", 5)),
        ]

    await sender.sendmsg([b"x"], beside("127.0.0.3"), 0, receiver.getsockname())
    _, known, _, name = await receiver.recvmsg(100, 200)
    source: Any = name
    wrong = [
        await attempt(sender.sendmsg, [b"x"], beside(source), 0, receiver.getsockname()) in ("ENETUNREACH", "EINVAL")
        for source in ("203.0.113.7", "127.255.255.255")
    ]
    return (source[0], struct.unpack("=i", known[1][2])[0]), *wrong


@case((True, True, True))
async def what_was_dropped_is_counted(here: Place) -> object:
    """socket(7), SO_RXQ_OVFL: with the next one that comes; SO_MEMINFO at once."""
    receiver, sender = asking(await here.bound_udp(), (socket.SOL_SOCKET, SO_RXQ_OVFL)), here.udp()
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(20):
        await sender.sendto(b"x", receiver.getsockname())
    at_once = struct.unpack("=9I", receiver.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))[8]
    _, before, _, _ = await receiver.recvmsg(100, 200)
    while (await waits(receiver.recv, 100)) != "waits":
        pass
    await sender.sendto(b"x", receiver.getsockname())
    _, known, _, _ = await receiver.recvmsg(100, 200)
    told = struct.unpack("=I", known[0][2])[0] if known else 0
    return at_once > 0, before == [], told == at_once


# ---- groups of others, groups with sources, broadcasts ---------------------------------------------------------------


@case(("member", "waits", "member"))
async def a_group_that_others_have_joined_is_heard_unless_told(here: Place) -> object:
    """ip(7), IP_MULTICAST_ALL; a socket that is bound to an address of this host hears no group."""
    first, second, third = here.udp(), here.udp(), here.udp()
    for sock in (first, second, third):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await first.bind(("0.0.0.0", 0))
    port = first.getsockname()[1]
    await second.bind(("0.0.0.0", port))
    await third.bind(("127.0.0.1", port))
    second.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, MEMBERSHIP)
    third.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, MEMBERSHIP)
    sender = await here.bound_udp()
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    await sender.sendto(b"member", (GROUP, port))
    heard = (await first.recv(100)).decode()
    first.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
    await sender.sendto(b"member", (GROUP, port))
    return (
        heard,
        await waits(first.recv, 100) if await waits(third.recv, 100) == "waits" else "third",
        (await second.recv(100)).decode(),
    )


def source_group(source: str) -> bytes:
    """struct group_source_req: | interface 1 | group | source |."""
    addresses = [
        (struct.pack("=HH", socket.AF_INET, 0) + socket.inet_aton(address)).ljust(128, b"\0")
        for address in (GROUP, source)
    ]
    return struct.pack("@I0L", 1) + b"".join(addresses)


@case((b"1", ["ok", "EADDRNOTAVAIL", "ok", "EADDRNOTAVAIL", "EINVAL"]))
async def a_group_may_have_chosen_sources(here: Place) -> object:
    """RFC 3678, 5.1.2: join, join, leave, what was not joined, and what has no group any more."""
    member = await here.bound_udp("0.0.0.0")
    level = socket.IPPROTO_IP
    member.setsockopt(level, IP_MULTICAST_ALL, 0)
    told = [await attempt(member.setsockopt, level, MCAST_JOIN_SOURCE_GROUP, source_group("127.0.0.1"))]
    told.append(await attempt(member.setsockopt, level, MCAST_JOIN_SOURCE_GROUP, source_group("127.0.0.1")))
    for data, address in ((b"2", "127.0.0.2"), (b"1", "127.0.0.1")):
        sender = await here.bound_udp(address)
        sender.setsockopt(level, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        await sender.sendto(data, (GROUP, member.getsockname()[1]))
    heard = await member.recv(100)
    member.setsockopt(level, MCAST_JOIN_SOURCE_GROUP, source_group("127.0.0.2"))
    told += [
        await attempt(member.setsockopt, level, MCAST_LEAVE_SOURCE_GROUP, source_group(source))
        for source in ("127.0.0.1", "127.0.0.3")
    ]
    member.setsockopt(level, MCAST_LEAVE_SOURCE_GROUP, source_group("127.0.0.2"))
    told.append(await attempt(member.setsockopt, level, MCAST_LEAVE_SOURCE_GROUP, source_group("127.0.0.2")))
    return heard, told


@case(("EACCES", b"all", b"all", "waits"))
async def a_broadcast_is_heard_here_too(here: Place) -> object:
    """SO_BROADCAST, of the loopback's network: by every address, of both families, and by no other one."""
    any4, any6, other = await here.bound_udp("0.0.0.0"), here.new(socket.AF_INET6, socket.SOCK_DGRAM), here.udp()
    any6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    await any6.bind(("::", 0))
    await other.bind(("127.0.0.1", 0))
    sender = here.udp()
    refused = await attempt(sender.sendto, b"all", ("127.255.255.255", 9))
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    for sock in (any4, any6, other):
        await sender.sendto(b"all", ("127.255.255.255", sock.getsockname()[1]))
    return refused, await any4.recv(100), await any6.recv(100), await waits(other.recv, 100)


@case((1, "0.0.0.0", "127.0.0.1", "EADDRNOTAVAIL", 1, "ENODEV"))
async def an_interface_for_groups_has_a_number_or_an_address(here: Place) -> object:
    """ip(7), IP_MULTICAST_IF: struct ip_mreqn, struct in_addr, and none of this host's; ipv6(7), IPV6_MULTICAST_IF."""
    sock, six = here.udp(), here.new(socket.AF_INET6, socket.SOCK_DGRAM)
    level, option = socket.IPPROTO_IP, socket.IP_MULTICAST_IF
    kept = []
    for value in (bytes(8) + LO, socket.inet_aton("127.0.0.1")):
        sock.setsockopt(level, option, value)
        kept.append(socket.inet_ntoa(sock.getsockopt(level, option, 4)))
    unknown = await attempt(sock.setsockopt, level, option, socket.inet_aton("203.0.113.7"))
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, 1)
    chosen = six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF)
    nowhere = await attempt(six.setsockopt, socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, 12345)
    return chosen, *kept, unknown, chosen, nowhere


# ---- from where, by which interface, and how much --------------------------------------------------------------------


@case(("127.0.0.1", "127.0.0.1"))
async def an_ipv6_socket_with_a_peer_has_no_address_for_ipv4(here: Place) -> object:
    """So Linux takes that of the way; the peer's may be of either family, and what is sent goes where it is told."""
    receiver, peer = await here.bound_udp(), here.new(socket.AF_INET6, socket.SOCK_DGRAM)
    await peer.bind(("::1", 0))
    sender = here.new(socket.AF_INET6, socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    await sender.connect(peer.getsockname())
    port = receiver.getsockname()[1]
    await sender.sendto(b"x", ("::ffff:127.0.0.1", port))
    _, one = await receiver.recvfrom(9)
    info = bytes(4) + socket.inet_aton("0.0.0.0") + bytes(4)
    await sender.sendmsg([b"x"], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, ("::ffff:127.0.0.1", port))
    _, other = await receiver.recvfrom(9)
    sources: list[Any] = [one, other]
    return tuple(source[0] for source in sources)


@case(("EAFNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT", 1))
async def from_an_ipv4_address_nothing_goes_to_an_ipv6_one(here: Place) -> object:
    """Though the socket is of IPv6: to one, to a group, or for good; any address is IPv4's own then."""
    sock, receiver = here.new(socket.AF_INET6, socket.SOCK_DGRAM), here.new(socket.AF_INET6, socket.SOCK_DGRAM)
    for each in (sock, receiver):
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        await each.bind(("::ffff:127.0.0.1", 0))
    return (
        await attempt(sock.sendto, b"x", ("::1", 9)),
        await attempt(sock.sendto, b"x", ("ff05::1", 9)),
        await attempt(sock.connect, ("::1", 9)),
        await sock.sendto(b"x", ("::", receiver.getsockname()[1])),
    )


@case(("EINVAL", "ok", "ENOTCONN", b"any port"))
async def at_port_0_is_nobody_and_everybody(here: Place) -> object:
    """Nothing is sent there; connected to it, a socket hears every port of that host, and has no peer."""
    sock, sender = await here.bound_udp(), await here.bound_udp()
    told = [await attempt(sock.sendto, b"x", ("127.0.0.1", 0)), await attempt(sock.connect, ("127.0.0.1", 0))]
    told.append(await attempt(sock.getpeername))
    await sender.sendto(b"any port", sock.getsockname())
    return *told, await sock.recv(100)


@case(("127.0.0.2", "127.0.0.3", "127.0.0.1"))
async def this_machine_is_where_it_comes_from(here: Place) -> object:
    """What is sent to 0.0.0.0 goes to its sender's address: the socket's, the one told beside, or 127.0.0.1."""
    receiver = asking(await here.bound_udp("0.0.0.0"), *BOTH)
    port = receiver.getsockname()[1]
    own = struct.pack("=I", 0) + socket.inet_aton("127.0.0.3") + bytes(4)
    await (await here.bound_udp("127.0.0.2")).sendto(b"x", ("0.0.0.0", port))
    await here.udp().sendmsg([b"x"], [(socket.IPPROTO_IP, IP_PKTINFO, own)], 0, ("0.0.0.0", port))
    await here.udp().sendto(b"x", ("0.0.0.0", port))
    targets = []
    for _ in range(3):
        _, known, _, _ = await receiver.recvmsg(100, 200)
        info = next(value for level, kind, value in known if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO))
        targets.append(socket.inet_ntoa(info[8:12]))
    return tuple(targets)


@case((1, "waits"))
async def the_smallest_buffer_holds_one_of_any_size(here: Place) -> object:
    """Of two large ones the second is dropped."""
    receiver, sender = await here.bound_udp(), here.udp()
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(2):
        await sender.sendto(bytes(50_000), receiver.getsockname())
    return (await receiver.recv(50_000)).count(bytes(50_000)), await waits(receiver.recv, 100)


@case(("ENOBUFS", 9000))
async def what_goes_in_fragments_must_fit_the_send_buffer(here: Place) -> object:
    """IPv6's longest is longer than the loopback's largest packet; whatever goes in one piece is taken."""
    sock = here.new(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return await attempt(sock.sendto, bytes(65527), ("::1", 9)), await sock.sendto(bytes(9000), ("::1", 9))


@case(("ENETUNREACH", "EINVAL", "ENODEV", "ECONNREFUSED"))
async def a_wrong_way_is_found_before_older_news(here: Place) -> object:
    """IPv6 has no way for groups by the loopback interface, and a link's group needs one; then come the news."""
    six = here.new(socket.AF_INET6, socket.SOCK_DGRAM)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, 1)
    told = [await attempt(six.sendto, b"x", ("ff05::1", 9))]
    told.append(await attempt(here.new(socket.AF_INET6, socket.SOCK_DGRAM).connect, ("ff02::1", 9)))
    nobody, sock = await here.bound_udp(), here.udp()
    await sock.connect(nobody.getsockname())
    nobody.close()
    await sock.send(b"x")
    info = struct.pack("=I", 12345) + bytes(8)
    told.append(await attempt(sock.sendmsg, [b"x"], [(socket.IPPROTO_IP, IP_PKTINFO, info)]))
    return *told, await attempt(sock.send, b"x")
