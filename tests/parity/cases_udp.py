"""Datagrams: udp(7), ip(7)."""

from __future__ import annotations

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
